"""Scores that are explained: by a scorer, a pipeline and the command, with adapters and baked scorers."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image
from transformers import CLIPModel, pipeline

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.combining import combine
from grmp_hf.data.distortions import distort
from grmp_hf.errors import GRMPError
from grmp_hf.explaining import Explained, explainer_for
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.templates import AXES
from grmp_hf.pipelines import TASK
from grmp_hf.scoring import Scorer

COLUMNS = ["distortion", "distortion_probability", "scene", "scene_probability", "explanation"]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """The embedded base."""
    return grmp_hf.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures: smooth colour, some of it noisy or dark."""
    place = tmp_path_factory.mktemp("explained")
    rows, columns = np.mgrid[:240, :320] / 320
    for at in range(6):
        waves = [np.sin((3 + at) * rows + channel) + np.cos((7 + at) * columns) for channel in range(3)]
        picture = (127 + 50 * np.stack(waves, 2)).astype(np.uint8)
        kind = (None, "white_noise", "darken")[at % 3]
        Image.fromarray(distort(picture, kind, 5, seed=at) if kind else picture).save(place / f"{at}.png")
    return place


def adapted(scorer: Scorer, *, side: bool) -> Scorer:
    """With an adapter of prompts, and a map that reads the side network or not."""
    base: Any = grmp_hf.load().model
    groups = {"embeds": 128, **base.side.groups} if side else None
    torch.manual_seed(0)
    model = get_peft_model(base, grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=2, features=groups))
    return dataclasses.replace(scorer, model=model.eval())


def test_probabilities_of_every_picture_in_falling_order(scorer: Scorer, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    found = scorer.score(paths, explain=True)
    plain = scorer.score(paths)
    assert plain.explained is None and np.array_equal(found.quality, plain.quality)
    assert found.explained is not None and len(found.explained) == 6
    for said in found.explained:
        assert set(said.scene) == set(AXES["scene"]) and set(said.distortion) == {*AXES["distortion"], "none"}
        for shares in (said.scene, said.distortion):
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
            assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert [next(iter(found.explained[at].distortion)) for at in (1, 4)] == ["noise", "noise"]
    assert found.of(3).explained is found.explained[3]


def test_no_picture_is_looked_at_twice(scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[int]] = {"vision": [], "side": []}
    model: Any = scorer.model
    with monkeypatch.context() as patch:
        for name, module in (("vision", model.clip.vision_model), ("side", model.side.trunk)):
            original = module.forward

            def counting(*values: Any, _name: str = name, _original: Any = original, **named: Any) -> Any:
                seen[_name].append(len(values[0] if values else named["pixel_values"]))
                return _original(*values, **named)

            patch.setattr(module, "forward", counting)
        scorer.score(sorted(folder.iterdir()), explain=True)
        assert {name: sum(counts) for name, counts in seen.items()} == {"vision": 6, "side": 6}
        scorer.score(sorted(folder.iterdir()))
        assert sum(seen["side"]) == 6, "nobody asked for it"


def test_words() -> None:
    said = Explained({"blur": 0.714, "noise": 0.12, "jpeg": 0.1, "none": 0.1}, {"night": 0.996, "others": 0.004})
    assert said.words() == "blur .71, noise .12, jpeg .10; night 1.00"
    assert Explained({"blur": 0.06, "noise": 0.05}, None).words() == "blur .06"
    assert said.cells()["distortion_probability"] == 0.714 and said.cells()["scene"] == "night"
    assert "scene" not in Explained({"blur": 1.0}, None).cells()


@pytest.mark.parametrize("side", [False, True])
def test_an_adapter_explains_as_its_base(scorer: Scorer, folder: Path, side: bool) -> None:
    paths = sorted(folder.iterdir())
    other = adapted(scorer, side=side)
    found, expected = (each.score(paths, explain=True).explained for each in (other, scorer))
    assert not np.allclose(other.score(paths).quality, scorer.score(paths).quality)
    for left, right in zip(found, expected, strict=True):
        assert left.distortion == pytest.approx(right.distortion, abs=1e-5)
        assert left.scene == pytest.approx(right.scene, abs=1e-5)


def test_experts_explain_as_their_base(scorer: Scorer, folder: Path, tmp_path: Path) -> None:
    paths = sorted(folder.iterdir())
    for name, side in (("plain", False), ("side", True)):
        adapted(scorer, side=side).save(tmp_path / name)
    adapters = {name: tmp_path / name for name in ("plain", "side")}
    both = combine(scorer, adapters, pictures={"plain": paths[:3], "side": paths[3:]})
    found, expected = both.score(paths, explain=True), scorer.score(paths, explain=True)
    assert found.experts is not None and np.array_equal(found.experts, both.score(paths).experts)
    for left, right in zip(found.explained, expected.explained, strict=True):
        assert left.distortion == pytest.approx(right.distortion, abs=1e-5)
    baked = dataclasses.replace(both, model=bake(both.model)).score(paths, explain=True)
    assert [said.words() for said in baked.explained] == [said.words() for said in found.explained]
    alone = np.stack([grmp_hf.load(place).score(paths).quality for place in adapters.values()], 1)
    np.testing.assert_allclose(found.quality, (found.experts * alone).sum(1), atol=1e-6)


def test_a_baked_scorer_explains_with_its_side_network_or_says_what_would(scorer: Scorer, folder: Path) -> None:
    with_side = adapted(scorer, side=True)
    baked = dataclasses.replace(with_side, model=bake(with_side.model))
    found, expected = (each.score(folder / "1.png", explain=True).explained[0] for each in (baked, with_side))
    assert found.distortion == pytest.approx(expected.distortion, abs=1e-4) and found.words() == expected.words()
    without = dataclasses.replace(scorer, model=bake(adapted(scorer, side=False).model))
    for ask in (without.score, without.iter_scores):
        with pytest.raises(GRMPError, match="Score with the base and the adapter that it was baked from"):
            ask([folder / "1.png"], explain=True)


def test_the_command_adds_columns_in_every_format(folder: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["score", str(folder), "--batch-size", "4"]
    tables = []
    for suffix in ("csv", "jsonl", "parquet"):
        target = tmp_path / f"scores.{suffix}"
        assert main([*command, "--explain", "--output", str(target)]) == 0
        if suffix == "csv":
            rows: Any = list(csv.DictReader(target.read_text().splitlines()))
        elif suffix == "jsonl":
            rows = [json.loads(line) for line in target.read_text().splitlines()]
        else:
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(target).to_pylist()
        assert list(rows[0])[-7:] == [*COLUMNS, "scale", "scorer"]
        tables.append([[str(row[name]) for name in COLUMNS] for row in rows])
    assert tables[0] == tables[1] == tables[2] and tables[0][1][0] == "noise"
    about = json.loads((tmp_path / "scores.csv.json").read_text())
    assert about["explained"]["distortion"] == "a linear map of the side network's features"
    capsys.readouterr()
    assert main([*command, "--explain"]) == 0
    streams = capsys.readouterr()
    assert f"1.png  # {tables[0][1][-1]}" in streams.out and "explained: distortion by a linear map" in streams.err
    assert main([*command, "--explain", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][1]["explanation"] == tables[0][1][-1] and found["explained"]
    assert main([*command, "--output", str(tmp_path / "plain.csv")]) == 0
    assert "distortion" not in (tmp_path / "plain.csv").read_text()


def test_a_bad_file_has_no_explanation(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").touch()
    target = tmp_path / "scores.parquet"
    assert main(["score", str(tmp_path / "bad.png"), str(folder), "--explain", "--output", str(target)]) == 1
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(target).to_pylist()
    assert [row["explanation"] is None for row in rows] == [True, *[False] * 6]


def test_a_run_with_explanations_does_not_go_on_from_one_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    original, target = Scorer.iter_scores, tmp_path / "scores.jsonl"

    def dying(self: Scorer, *values: Any, **named: Any) -> Any:
        for number, rows in enumerate(original(self, *values, **named)):
            if number:
                raise Killed
            yield rows

    command = ["score", str(folder), "--batch-size", "2", "--output", str(target)]
    for options in ([], ["--explain"]):
        with monkeypatch.context() as patch:
            patch.setattr(Scorer, "iter_scores", dying)
            with pytest.raises(Killed):
                main([*command, *options])
    assert main([*command, "--explain"]) == 0
    assert all(json.loads(line)["explanation"] for line in target.read_text().splitlines())


def test_a_pipeline(scorer: Scorer, folder: Path) -> None:
    judge, paths = pipeline(TASK, model=scorer.model), [str(path) for path in sorted(folder.iterdir())]
    expected = scorer.score(paths, explain=True).explained
    for found, said in zip(judge(paths, explain=True, batch_size=3), expected, strict=True):
        assert list(found) == ["quality", "score", "distortion", "scene"]
        assert found["distortion"] == pytest.approx(said.distortion, abs=1e-5)
        assert next(iter(found["scene"])) == next(iter(said.scene))
    assert "scene" not in judge(paths[0])
    assert "scene" in pipeline(TASK, model=scorer.model, explain=True)(paths[0])
    with pytest.raises(TypeError, match="takes no options but explain"):
        judge(paths[0], top_k=2)


def test_a_clip_without_side_network_is_asked_for_sentences(
    folder: Path, tmp_path: Path, clip_folder: Path, photos: list[Path], capsys: Any
) -> None:
    """A random CLIP with the embedded base's tokenizer, which says nothing that is true."""
    with pytest.raises(GRMPError, match="Expected a tokenizer"):
        explainer_for(grmp_hf.load(clip_folder).model)
    assert main(["score", str(photos[0]), "--model", str(clip_folder), "--explain"]) == 2
    assert "Expected a tokenizer" in capsys.readouterr().err
    tokenizer = Path(grmp_hf.hub.model_place(grmp_hf.hub.EMBEDDED))
    config = CLIPModel.from_pretrained(tokenizer).config
    config.text_config.max_position_embeddings = 30
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "clip" / name).write_bytes((tokenizer / name).read_bytes())
    (row,) = grmp_hf.load(tmp_path / "clip").score(folder / "0.png", explain=True).explained
    assert set(row.distortion) == set(AXES["distortion"]) and set(row.scene) == set(AXES["scene"])
