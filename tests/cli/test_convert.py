from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.modeling.conversion import to_authors_state_dict


@pytest.fixture
def checkpoint(clip_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint under the reference's names, as a data-parallel run would save it."""
    from peft import get_peft_model

    torch.manual_seed(2)
    base = grmp_hf.GRMPForImageQualityAssessment.from_pretrained(clip_folder)
    model = get_peft_model(base, grmp_hf.GRMPPromptConfig(text_prompts=4, visual_prompts=3))
    state = {f"module.{name}": weight.clone() for name, weight in to_authors_state_dict(model).items()}
    torch.save(state, tmp_path / "authors.pt")
    return tmp_path / "authors.pt"


HEADS = ("--vision-heads", "2", "--text-heads", "2")


def test_a_checkpoint_becomes_a_scorer(
    checkpoint: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "out"), *HEADS, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["base"] == str(tmp_path / "out" / "base")
    scorer = grmp_hf.load(adapter=tmp_path / "out")
    assert scorer.processor.views == ["stretched"]
    assert scorer.identity["adapter_sha256"] == written["adapter_sha256"]
    assert len(set(scorer.score(photos).quality)) == len(photos)
    assert grmp_hf.load(tmp_path / "out" / "base").identity["adapter"] is None
    assert "authors.pt, converted" in (tmp_path / "out" / "README.md").read_text()


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Harmful()))
    assert main(["convert", str(tmp_path / "bad.pt"), str(tmp_path / "out")]) == 2
    assert "cannot be read safely" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        ("none.pt", "out", "found nothing there"),
        ("authors.pt", "full", "the folder is not empty; choose another one or add --overwrite"),
        ("authors.pt", "authors.pt", "expected a folder, got a file"),
    ],
)
def test_wrong_use(
    checkpoint: Path, name: str, out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert main(["convert", str(tmp_path / name), str(tmp_path / out), *HEADS]) == 2
    assert message in capsys.readouterr().err
