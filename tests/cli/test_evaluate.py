from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.data import Split


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def rated(adapter_folder: Path, photos: list[Path]) -> list[dict[str, Any]]:
    """Ratings near the adapter's scores."""
    scores = grmp_hf.load(adapter=adapter_folder).score(photos).score
    noise = np.random.default_rng(0).normal(0, 0.2 * scores.std(), len(photos))
    values = np.clip(scores + noise, 1, 5).round(6)
    return [{"image": path.name, "mos": value} for path, value in zip(photos, values, strict=True)]


@pytest.fixture
def ratings(rated: list[dict[str, Any]], photos: list[Path]) -> Path:
    return write_csv(photos[0].parent / "labels.csv", rated)


def test_a_scorer_against_ratings(ratings: Path, adapter_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(ratings), "--adapter", str(adapter_folder), "--range", "1", "5"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for title in ("SRCC", "KRCC", "PLCC ", "PLCC after fit", "RMSE after fit", "12 pictures", "scored by", "stars@"):
        assert title in text
    assert main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    low, high = figures["srcc_interval"]
    assert 0.3 < low <= figures["srcc"] <= high <= 1
    assert figures["n"] == 12 and figures["identity"]["adapter"] == "stars"


def test_scores_of_a_file_give_the_same_figures(
    ratings: Path, adapter_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        target = str(tmp_path / f"scores.{suffix}")
        assert main(["score", str(ratings.parent), "--adapter", str(adapter_folder), "-o", target, "-q"]) == 0
        assert main(["evaluate", str(ratings), "--scores", target, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert "stars@" in found["scorer"]
        assert main(["evaluate", str(ratings), "--adapter", str(adapter_folder), "--json"]) == 0
        direct = json.loads(capsys.readouterr().out)
        for name in ("n", "srcc", "krcc", "plcc_logistic", "rmse"):
            assert found[name] == pytest.approx(direct[name], abs=1e-4)


def test_ratings_of_which_low_is_best(
    rated: list[dict[str, Any]], photos: list[Path], adapter_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_csv(photos[0].parent / "labels.csv", [{**row, "mos": 6 - row["mos"]} for row in rated])
    target = str(photos[0].parent.parent / "scores.csv")
    assert main(["score", str(photos[0].parent), "--adapter", str(adapter_folder), "-o", target, "-q"]) == 0
    for way in (["--adapter", str(adapter_folder)], ["--scores", target]):
        assert main(["evaluate", str(table), *way, "--range", "1", "5", "--lower-is-better", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["srcc"] > 0.3


def test_the_test_part_is_used_where_it_is_marked(
    rated: list[dict[str, Any]], photos: list[Path], clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = [{**row, "split": "test" if index % 2 else "train"} for index, row in enumerate(rated)]
    table = write_csv(photos[0].parent / "labels.csv", marked)
    for options, count in (([], 6), (["--part", "all"], 12)):
        assert main(["evaluate", str(table), "--model", str(clip_folder), "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out)["n"] == count


def test_pictures_that_taught_are_left_out(
    ratings: Path, photos: list[Path], adapter_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(adapter_folder, adapter)
    names = tuple(path.name for path in photos)
    Split(names[:5], names[5:], "by hand", 0).save(adapter / "split.json")
    assert main(["evaluate", str(ratings), "--adapter", str(adapter), "--json"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["n"] == 7
    assert "5 pictures are left out: the adapter has learnt from them" in streams.err


def test_a_bad_picture_is_left_out_and_the_exit_code_tells(
    ratings: Path, photos: list[Path], clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos[2].write_bytes(b"")
    assert main(["evaluate", str(ratings), "--model", str(clip_folder), "--json"]) == 1
    streams = capsys.readouterr()
    assert json.loads(streams.out)["n"] == 11
    assert "left out" in streams.err and "02.png" in streams.err


def scores_file(folder: Path, rows: list[dict[str, Any]]) -> str:
    return str(write_csv(folder / "scores.csv", rows))


def test_names_are_joined_by_path_and_by_file_name(
    ratings: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = [str(photos[0]), photos[1].name, *(f"elsewhere/{path.name}" for path in photos[2:9])]
    rows = [{"path": form, "score": index} for index, form in enumerate(forms)]
    assert main(["evaluate", str(ratings), "--scores", scores_file(tmp_path, rows), "--json"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["n"] == 9
    assert "3 of 12 rated pictures have no score and are left out" in streams.err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "x/a.png", "score": 1}], "expected at least 5 rated pictures, got 0"),
        ([{"path": "x/a.png", "value": 1}], "expected a score column"),
        ([{"path": "x/a.png", "score": "good"}], "expected numbers, got 1 that are no number"),
    ],
)
def test_scores_that_cannot_be_used(
    rows: list[dict[str, Any]], message: str, ratings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(ratings), "--scores", scores_file(tmp_path, rows)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scores", "none.csv"], "expected a table ending in .csv"),
        (["--part", "test"], "--part test: expected rows marked as test, found none"),
        (["--range", "5", "1"], "--range: expected the low end before the high one, got 5 1"),
        (["--rating-column", "stars"], '"stars"'),
        (["--higher-is-better", "--lower-is-better"], "not allowed with argument"),
    ],
)
def test_wrong_use(options: list[str], message: str, ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(ratings), *options]) == 2
    assert message in capsys.readouterr().err
