from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainerCallback

import grmp_hf
from grmp_hf import learning
from grmp_hf.cli.main import main
from grmp_hf.data.distortions import DISTORTIONS
from grmp_hf.outputs import MANIFEST
from grmp_hf.record import ADAPTER_FILES, origin_of
from grmp_hf.tasks import HELD_OUT
from grmp_hf.training import pretraining

ROOT = Path(__file__).parents[2]
RECIPE = """
visual_prompts: 2
steps: 4
eval_steps: 2
tasks_per_step: 2
inner_steps: 1
support: 8
query: 6
held_out_support: 4
held_out_query: 4
held_out_visits: 1
held_out_share: 0.25
learning_rate: 0.01
bf16: false
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def go(photos: list[Path], clip_folder: Path, recipe: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on the twelve photographs."""

    def run(*options: Any, source: Any = ("--photos", photos[0].parent), output: str = "start") -> int:
        words = ("pretrain", *source, "--output", tmp_path / output, "--model", clip_folder, "--recipe", recipe)
        return main([str(word) for word in (*words, "--workers", 0, *options)])

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_everything_is_written_and_the_result_is_a_start(
    go: Callable[..., int], clip_folder: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("--seed", 3) == 0
    output, streams = tmp_path / "start", capsys.readouterr()
    assert {path.name for path in output.iterdir()} == {
        *ADAPTER_FILES,
        "metrics.json",
        MANIFEST,
    }
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["held_out"] == list(HELD_OUT) and len(metrics["tasks"]) == 21
    assert [judgement["step"] for judgement in metrics["judgements"]] == [0, 2, 4]
    before, after = metrics["held_out_before"], metrics["held_out_after"]
    assert before == metrics["judgements"][0]
    assert after["loss"] == min(judgement["loss"] for judgement in metrics["judgements"][1:])
    provenance = origin_of(output)
    assert provenance["stage"] == "pre-trained"
    for key in ("tasks", "held_out", "data_hash", "sources", "seed", "recipe", "revision", "versions"):
        assert provenance[key] == metrics[key], key
    assert list(provenance["sources"]) == ["photos"] and provenance["recipe"]["steps"] == 4
    card = (output / "README.md").read_text()
    assert f"| before | 0 | {before['loss']:.4f} | {before['srcc']:.3f} |" in card
    assert (
        "--start start" in card
        and "hf download OWNER/NAME" in card
        and "lens_blur" in card
        and str(tmp_path) not in card
    )
    assert f"loss {before['loss']:.4f} -> {after['loss']:.4f}" in streams.out
    assert "21 tasks to learn from; held out: " in streams.err and "step 2: held-out loss" in streams.err
    scorer = grmp_hf.load(adapter=output)
    assert scorer.identity["adapter_sha256"] == metrics["adapter_sha256"]
    assert np.isfinite(scorer.score(photos[0]).quality).all()


def test_checkpoints_ask_nobody_for_the_base(
    go: Callable[..., int], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT would look for the base on the Hub whenever it saves, if it is allowed to ask there."""
    asked: list[str] = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda name, _: asked.append(name))
    recipe.write_text(RECIPE + "steps: 1\neval_steps: 1\nsupport: 3\nquery: 2\n")
    assert go("--model", "default", "--held-out", "contrast", "--quiet") == 0
    assert asked == []


def test_the_result_depends_on_seed_and_photographs_alone(
    go: Callable[..., int], photos: list[Path], tmp_path: Path
) -> None:
    assert go(output="one") == go("--workers", 1, output="two") == go("--seed", 1, output="three") == 0
    one, two, three = (weights(tmp_path / name) for name in ("one", "two", "three"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], three[name]) for name in one)
    photos[0].unlink()
    assert go(output="four") == 0
    hashes = [json.loads((tmp_path / name / "metrics.json").read_text())["data_hash"] for name in ("one", "four")]
    assert hashes[0] != hashes[1]


def test_photographs_are_judged_by_the_base_unless_the_recipe_says_no(
    go: Callable[..., int], recipe: Path, photos: list[Path], clip_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[Any] = []
    plain = learning.divide

    def watched(sources: Any, *given: Any, **options: Any) -> Any:
        seen.append((sources[0].load.photographs, sources[0].load.quality))
        return plain(sources, *given, **options)

    monkeypatch.setattr(learning, "divide", watched)
    assert go("--held-out", "sepia", output="refused") == 2 and "judged" not in capsys.readouterr().err
    assert go(output="judged") == 0 and "judged by the base, 100%" in capsys.readouterr().err
    photographs, judged = seen[-1]
    expected = grmp_hf.load(clip_folder).score(list(photographs)).quality
    np.testing.assert_allclose(judged, expected, atol=1e-6)
    recipe.write_text(RECIPE + "judge_photographs: false\n")
    assert go(output="perfect") == 0 and "judged" not in capsys.readouterr().err
    assert seen[-1][1] is None
    one, two = (weights(tmp_path / name) for name in ("judged", "perfect"))
    assert not all(torch.equal(one[name], two[name]) for name in one)


class Stop(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_to_the_same_prompts(
    go: Callable[..., int],
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert go(output="whole") == 0
    whole = pretraining.pretrain
    monkeypatch.setattr(pretraining, "pretrain", lambda *a, callbacks, **k: whole(*a, callbacks=[Stop()], **k))
    assert go() == 130
    monkeypatch.setattr(pretraining, "pretrain", whole)
    assert go("--seed", 5) == 2
    assert "holds an unfinished run with other settings" in capsys.readouterr().err
    assert go() == 0
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "start")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "start"))
    assert first["judgements"] == second["judgements"]
    assert go() == 2 and "add --overwrite" in capsys.readouterr().err
    assert go("--seed", 5, "--overwrite") == 0
    assert json.loads((tmp_path / "start" / "metrics.json").read_text())["seed"] == 5


TWICE = """
import os, runpy, sys
from accelerate import PartialState

script, *recipes = sys.argv[1:4]
options, first = sys.argv[4:], os.environ["RANK"] == "0"
output = options[options.index("--output") + 1]
for recipe in recipes:
    sys.argv = [script, recipe, *options]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        if not ended.code:  # all is done, and the processes have left each other
            continue
        PartialState().wait_for_everyone()
        if first:
            print(f"ended with {ended.code}, {'something' if os.path.exists(output) else 'nothing'} left")
            print("begun anew", file=sys.stderr, flush=True)
        PartialState().wait_for_everyone()
"""


def test_two_processes_learn_what_one_does(
    go: Callable[..., int], photos: list[Path], clip_folder: Path, recipe: Path, tmp_path: Path
) -> None:
    """By `accelerate launch`: each judges a share of the photographs and takes one of two tasks a step; one speaks."""
    for path in photos:
        for turn in range(1, 7):  # more photographs than a part of them has
            Image.fromarray(np.roll(np.asarray(Image.open(path)), 5 * turn, 0)).save(
                path.with_stem(f"{path.stem}_{turn}")
            )
    # Adam would make much of what rounding leaves of a gradient near 0.
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.01", "learning_rate: 1.0\noptimizer: sgd"))
    three = recipe.with_name("three.yaml")
    three.write_text(recipe.read_text() + "tasks_per_step: 3\n")
    (tmp_path / "twice.py").write_text(TWICE)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "twice.py"]
    options = ["--photos", photos[0].parent, "--output", tmp_path / "two", "--model", clip_folder, "--workers", 0]
    assert go(output="one") == 0
    done = subprocess.run(
        [sys.executable, *map(str, (*launch, ROOT / "training" / "pretrain.py", three, recipe, *options))],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    refused, learnt = done.stderr.split("begun anew\n")
    assert "a multiple of the 2 processes, got 3" in refused and "judged" not in refused
    assert done.stdout.count("ended with 2, nothing left") == 1
    assert len(list(photos[0].parent.iterdir())) > learning.JUDGED
    assert learnt.count("21 tasks to learn from") == 1 and done.stdout.count("held-out tasks after") == 1
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    largest = max(values.abs().max().item() for values in one.values())
    bound = 10 * 4 * 2 * torch.finfo(torch.float32).eps * largest  # four steps and an inner one in each; margin ten
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=0, atol=bound)


def test_other_tasks_are_held_out_when_named(go: Callable[..., int], tmp_path: Path) -> None:
    assert go("--held-out", "jpeg", "contrast", "--quiet") == 0
    metrics = json.loads((tmp_path / "start" / "metrics.json").read_text())
    assert metrics["held_out"] == ["jpeg", "contrast"] and len(metrics["tasks"]) == 23


def rate(folder: Path, names: list[str]) -> Path:
    """A folder with pictures of eight references, six distortions and four levels of each."""
    folder.mkdir()
    lines = ["image,mos,reference,distortion"]
    for reference in range(8):
        for number, name in enumerate(names):
            for level in range(4):
                file = f"{reference}_{number}_{level}.png"
                seed = [reference, number, level]
                pixels = np.random.default_rng(seed).integers(0, 256 - 40 * level, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / file)
                lines.append(f"{file},{5 - level},{reference},{name}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_tasks_come_from_ratings_too(
    go: Callable[..., int], recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = rate(tmp_path / "first", [f"type {number}" for number in range(6)])
    recipe.write_text(RECIPE + "visits: 1\n")
    assert go("--range", 1, 5, source=("--data", first)) == 0
    metrics = json.loads((tmp_path / "start" / "metrics.json").read_text())
    assert metrics["held_out"] == ["type 4"] and len(metrics["tasks"]) == 5
    assert "taken as" not in capsys.readouterr().out
    second = rate(tmp_path / "second", ["jpeg", "other"])
    assert go("--range", 1, 5, "--json", source=("--data", first, second), output="both") == 0
    both = json.loads(capsys.readouterr().out)
    assert both["held_out"] == ["type 4", "jpeg"] and set(both["sources"]) == {"first", "second"}
    assert go("--range", 1, 5, source=("--data", first, first), output="twice") == 2
    assert "tables of different names" in capsys.readouterr().err


def empty(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.unlink()


def unlearnable(folder: Path) -> None:
    recipe = folder.parent / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "inner_learning_rate: 0.0\n")


def few(folder: Path) -> None:
    for path in sorted(folder.glob("*.png"))[3:]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (empty, [], "holds no picture"),
        (few, [], "Expected task 'gaussian_blur' to have 8 pictures for the support"),
        (None, ["--photos", "nowhere"], "--photos nowhere: expected a folder of photographs"),
        (None, ["--held-out", "sepia"], "(--held-out): expected tasks out of gaussian_blur, lens_blur"),
        (None, ["--held-out", *DISTORTIONS], "others to choose a checkpoint by, got 0 and 25"),
        (unlearnable, [], "inner_learning_rate"),
        (None, ["--workers", -1], "--workers: expected at least 0, got -1"),
        (None, ["--seed", -1], "--seed: expected 0 to"),
        (None, ["--recipe", "none.yaml"], "--recipe none.yaml: expected a file, or one of"),
        (None, ["--data", "x"], "not allowed with argument --photos"),
    ],
)
def test_what_cannot_be_used_says_why_and_writes_nothing(
    spoil: Callable[[Path], None] | None,
    options: list[Any],
    message: str,
    go: Callable[..., int],
    photos: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if spoil is not None:
        spoil(photos[0].parent)
    assert go(*options) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "start").exists()


def test_an_adapter_is_no_base_and_other_files_are_kept(
    go: Callable[..., int], adapter_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("--model", adapter_folder) == 2
    assert "Expected a base to learn on, got stars, which has learnt already" in capsys.readouterr().err
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "mine.txt").touch()
    assert go() == 2
    assert "the folder is not empty" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert go(output="file") == 2
    assert "expected a folder, got a file" in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_left_out_and_said(
    go: Callable[..., int], photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos[5].write_bytes(b"GIF89a")
    assert go() == 0
    assert "left out: 05.png: " in capsys.readouterr().err
