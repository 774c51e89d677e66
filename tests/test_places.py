"""Which names are asked of the Hub, what happens where it cannot be reached, and what is checked before torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.embedded import EMBEDDED_PROMPTS
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.low_level import LowLevelConfig
from grmp_hf.places import check_place, is_hub_id, spelling

PATHS = [
    "./a/b",
    "../a",
    "a/b/c",
    "a",
    "~/a",
    "/a/b",
    "C:\\a",
    "a\\b",
    "a/b/",
    "a b/c",
    "a/b.pt",
    "a/b.YAML",
    "a/..b",
    "é/b",
]


@pytest.mark.parametrize("name", PATHS)
def test_a_name_with_the_look_of_a_path_is_never_asked_of_the_hub(name: str) -> None:
    assert not is_hub_id(name)
    with pytest.raises(GRMPError, match="is no folder here and no Hub id"):
        check_place(name, "model")


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch16", "Qwen/Qwen2.5-VL", "a/b_c", "0a/1", "me/adapter.v2"])
def test_other_names_may_be_asked(name: str) -> None:
    assert is_hub_id(name)
    check_place(name, "model")


def test_folders_and_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-adapter").mkdir()
    (tmp_path / "ratings.csv").touch()
    check_place("my-adapter", "model")
    assert spelling("my-adaptor") == "Did you mean 'my-adapter'?"
    assert spelling("something/else") == "Check the spelling."
    (tmp_path / "gone").symlink_to("nowhere")
    for name in ("my-adapter", "my-adapter/", "./my-adapter", str(tmp_path / "my-adapter"), "ratings.csv", "gone"):
        assert "Did you mean" not in spelling(name)
    with pytest.raises(GRMPError, match=r"got the file 'ratings\.csv'"):
        check_place("ratings.csv", "model")


def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


NETWORK = """
import sys, grmp_hf
import grmp_hf
from grmp_hf.cli.main import main
picture, folder, table = sys.argv[1:]
assert main(["score", picture, "--model", "owner/clip"]) == 2
assert main(["score", picture, "--adapter", "owner/stars"]) == 2
assert main(["push", folder, "owner/mine"]) == 2
assert main(["adapt", "--data", "owner/ratings", "--shots", "5", "--output", table]) == 2
assert main(["score", picture, "--quiet"]) == 0
"""


def test_a_network_fault_is_one_line_and_nothing_is_tried_again(photos: list[Path], tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_PROMPTS, tmp_path / "mine")
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "HF_TOKEN": "hf_of_nobody",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", NETWORK, str(photos[0]), str(tmp_path / "mine"), str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("grmp-iqa: error: ")]
    wanted = (
        "'owner/clip' is no folder here",
        "at 'owner/stars'",
        "push to 'owner/mine'",
        '"owner/ratings" is no file',
    )
    assert len(errors) == 4
    assert all(words in line for line, words in zip(errors, wanted, strict=True))
    assert not [word for word in ("Traceback", "Retry") if word in done.stderr]


EARLY = """
import sys
import grmp_hf
from grmp_hf.cli.main import main
assert main(sys.argv[1:]) == 2
assert not {"torch", "transformers", "peft", "datasets"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "a.jpg", "--adapter", "./no/such"],
        ["score", "a.jpg", "--model", "nowhere"],
        ["score", "a.jpg", "--device", "gpu"],
        ["evaluate", "ratings.csv", "--adapter", "runs/a/b"],
        ["bake", "out", "--model", "runs/a/b"],
        ["push", "nowhere", "owner/mine"],
        ["adapt", "--data", "nowhere.csv", "--shots", "5", "--output", "out"],
        ["adapt", "--data", "owner/ratings", "--shots", "5", "--output", "out", "--start", "nowhere"],
        ["adapt", "--data", "owner/ratings", "--shots", "5", "--output", "out", "--recipe", "nowhere.yaml"],
        ["pretrain", "--photos", "nowhere", "--output", "out"],
        ["evaluate", "nowhere.csv"],
        ["push", "nowhere", "a//b"],
    ],
)
def test_names_and_options_are_checked_before_anything_heavy_is_imported(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_low_level_encoder_is_no_adapter(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    LowLevelConfig().save_pretrained(tmp_path / "my-low")
    for option, what in (("--adapter", "adapter"), ("--model", "model")):
        assert main(["score", option, str(tmp_path / "my-low"), str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert f"{what}: '{tmp_path / 'my-low'}' holds a low-level encoder" in said and "method: grepq" in said


def test_the_option_with_the_wrong_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "a.jpg", "--adapter", "./no/such"]) == 2
    assert "error: --adapter: './no/such' is no folder here" in capsys.readouterr().err


HELD = {
    "grmp_baked": "a baked scorer, with its adapter inside",
    "grmp_baked_experts": "a baked scorer, with its adapter inside",
    "clip": "a model of type 'clip' alone",
}


@pytest.mark.parametrize("kind", HELD)
def test_a_model_that_is_named_as_an_adapter_is_told_what_it_is(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = tmp_path / "baked"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": kind}))
    said = f"adapter: expected an adapter, got '{place}', which holds {HELD[kind]}; name it with --model, or model=."
    assert main(["score", "a.jpg", "--adapter", str(place)]) == 2
    assert f"--{said}" in capsys.readouterr().err
    with pytest.raises(GRMPError, match=f"^{re.escape(said)}$"):
        grmp_hf.load(adapter=place)
    shutil.copytree(EMBEDDED_PROMPTS, place, dirs_exist_ok=True)  # an adapter may lie beside a model
    check_place(str(place), "adapter")
