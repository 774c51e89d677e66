"""`grmp-iqa stream`: what it writes and prints, and what it refuses before any long work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.evaluation.stream import average, mpsr, plasticity

RECIPE = "head_epochs: 3\nepochs: 1\ngroup: 8\n"


@pytest.fixture
def go(stars: Path, points: Path, clip_folder: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on two data sets."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*options: Any, sets: Any = (stars, points), output: str = "all") -> int:
        words = ("stream", *sets, "--output", tmp_path / output, "--model", clip_folder)
        return main([str(word) for word in (*words, "--recipe", tmp_path / "recipe.yaml", *options)])

    return run


def test_it_writes_experts_figures_and_a_card(
    go: Callable[..., int], points: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("--quiet") == 0
    said = capsys.readouterr().out
    figures = json.loads((tmp_path / "all" / "stream.json").read_text())
    matrix = [[np.nan if r is None else r for r in row] for row in figures["matrix"]]
    assert figures["figures"]["plasticity"] == pytest.approx(plasticity(matrix), abs=1e-12)
    assert figures["figures"]["average"] == pytest.approx(average(matrix), abs=1e-12)
    assert figures["figures"]["mpsr"] == pytest.approx(mpsr(matrix), abs=1e-12)
    assert figures["other_gates"]["oracle"]["figures"]["stability"] == 1.0
    for value in (*figures["matrix"][1], figures["figures"]["stability"]):
        assert f"{value:.3f}" in said
    assert figures["sets"] == ["stars", "points"] and figures["trained_weights"] == 6 * 2 * 16
    found = sorted(path.relative_to(tmp_path / "all").as_posix() for path in (tmp_path / "all").rglob("*"))
    own = ["", "/README.md", "/adapter_config.json", "/adapter_model.safetensors", "/record.json", "/split.json"]
    nested = [f"experts/{name}{file}" for name in ("points", "stars") for file in own]
    top = [".grmp-iqa.json", "README.md", "experts", "experts.json", "gate.safetensors", "split.json", "stream.json"]
    assert found == sorted([*top, *nested])
    scorer = grmp_hf.load(tmp_path / "all")
    assert scorer.score(photos).experts.shape == (12, 2)  # type: ignore[union-attr]
    assert main(["score", str(photos[0]), "--adapter", str(tmp_path / "all" / "experts" / "stars")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(points), "--adapter", str(tmp_path / "all"), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["n"] == 6 and judged["srcc"] == pytest.approx(figures["matrix"][1][1], abs=1e-6)  # none that taught


def test_options_stand_before_the_recipe_and_json_is_what_is_stored(
    go: Callable[..., int], stars: Path, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--method", "distillation", "--strength", 3, "--memory", 6, "--shots", 12, "--seed", 2, "--json", "-q")
    assert go(*options, sets=(f"a={stars / 'labels.csv'}", f"b={points}")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "all" / "stream.json").read_text())
    recipe, origin = said["recipe"], said["origin"]
    assert (recipe["method"], recipe["strength"], recipe["memory"], recipe["group"]) == ("distillation", 3.0, 6, 8)
    assert {name: one["shots"] for name, one in origin["sets"].items()} == {"a": 12, "b": 12} and origin["seed"] == 2
    assert go(*options, sets=(stars, points)) == 2
    assert "finished results" in capsys.readouterr().err


def test_a_picture_that_teaches_one_set_and_tests_in_another_is_told(
    go: Callable[..., int], stars: Path, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By content: a copy under another name is the same picture."""
    other = Path(shutil.copytree(points, tmp_path / "other"))
    shutil.copyfile(stars / "images" / "30.png", other / "images" / "copy.png")  # which tests among the stars
    header, *rows = (other / "labels.csv").read_text().splitlines()
    marked = [f"{row},{'test' if at < 4 else 'train'}" for at, row in enumerate([*rows, "copy.png,50"])]
    (other / "labels.csv").write_text("\n".join([f"{header},split", *marked]) + "\n")
    assert go(sets=(stars, other)) == 0
    said = capsys.readouterr().err
    assert "stars: 1 test picture teaches another data set" in said and said.count("another data set") == 1
    assert json.loads((tmp_path / "all" / "stream.json").read_text())["shared_pictures"] == {"stars": 1, "other": 0}


def test_what_cannot_be_learnt_is_refused_in_one_line(
    go: Callable[..., int], stars: Path, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text("image,words\n" + "\n".join(f"{path},good" for path in (stars / "images").iterdir()))
    for sets, said in {
        (stars, bare): "rating",
        (stars, stars): f"'stars' twice; give another one, such as stars_2={stars}",
        (stars,): "at least two experts",
        (stars, f"a b={points}"): "letters, digits",
        (stars, tmp_path / "nowhere"): "no such file",
    }.items():
        assert go("--quiet", sets=sets) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
        assert not (tmp_path / "all").exists()
    for options, said in (
        (("--seed", -1), "--seed: expected 0"),
        (("--memory", 3), "no memory with method='experts'"),
        (("--shots", 200), "between 1 and 24 shots"),
    ):
        assert go("--quiet", *options) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(
    go: Callable[..., int], stars: Path, points: Path, clip_folder: Path, tmp_path: Path
) -> None:
    options = ["--method", "distillation", "--memory", "6", "--quiet"]
    assert go(*options, output="one") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = ["-m", "grmp_hf.cli.main", "stream", stars, points, "--model", clip_folder, "--device", "cpu"]
    command = [*launch, *script, "--recipe", tmp_path / "recipe.yaml", "--output", tmp_path / "two", *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("stars", "points"):
        first, second = (
            load_file(tmp_path / run / "experts" / name / "adapter_model.safetensors") for run in ("one", "two")
        )
        assert first.keys() == second.keys()
        for key, weight in first.items():
            torch.testing.assert_close(second[key], weight, rtol=1e-4, atol=1e-5)
