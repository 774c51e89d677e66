from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.data import Row, Split


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


@pytest.fixture
def taught(photos: list[Path], adapter_folder: Path, tmp_path: Path) -> Path:
    """An adapter that has learnt from the first five pictures."""
    adapter = tmp_path / "taught"
    shutil.copytree(adapter_folder, adapter)
    names = tuple(path.name for path in photos)
    rows = [Row(path, path.name, 1.0, 0.0) for path in photos]
    Split(names[:5], names[5:], "by hand", 0).with_contents(rows).save(adapter / "split.json")
    return adapter


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    """Figures, and what is said beside them."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    streams = capsys.readouterr()
    return json.loads(streams.out), streams.err


SPELLINGS: dict[str, Callable[[Path], str]] = {
    "plain": lambda path: path.name,
    "dot in front": lambda path: f"./{path.name}",
    "by another folder": lambda path: f"../{path.parent.name}/{path.name}",
    "capitals": lambda path: path.name.upper(),
    "absolute": str,
    "backslash": lambda path: f".\\{path.name}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("way", ["--adapter", "--model", "--scores"])
def test_pictures_that_taught_are_left_out_whatever_they_are_called(
    spelling: str,
    way: str,
    rated: list[dict[str, Any]],
    photos: list[Path],
    taught: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{**row, "image": SPELLINGS[spelling](path)} for row, path in zip(rated, photos, strict=True)]
    table, given = write_csv(photos[0].parent / "labels.csv", rows), taught
    if way == "--scores":
        given = tmp_path / "scores.csv"
        assert main(["score", str(photos[0].parent), "--adapter", str(taught), "-o", str(given), "-q"]) == 0
    figures, told = evaluate(capsys, table, way, given)
    assert figures["n"] == 7
    assert told.count("5 pictures are left out: the adapter has learnt from them\n") == 1


@pytest.mark.parametrize("way", ["--adapter", "--scores"])
def test_links_and_copies_elsewhere_are_the_pictures_that_taught(
    way: str,
    rated: list[dict[str, Any]],
    photos: list[Path],
    taught: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for index, path in enumerate(photos):
        new = elsewhere / f"other {index}.png"
        if index % 3 == 0:
            new.symlink_to(path)
        elif index % 3 == 1:
            os.link(path, new)
        else:
            shutil.copy(path, new)
    rows = [{**row, "image": f"other {index}.png"} for index, row in enumerate(rated)]
    table, given = write_csv(elsewhere / "labels.csv", rows), taught
    if way == "--scores":
        given = tmp_path / "scores.csv"
        assert main(["score", str(photos[0].parent), "--adapter", str(taught), "-o", str(given), "-q"]) == 0
    assert evaluate(capsys, table, way, given)[0]["n"] == 7  # with --scores the names say nothing, the contents join


@pytest.mark.parametrize("way", ["--adapter", "--scores"])
def test_other_pictures_of_the_same_names_are_kept(
    way: str,
    rated: list[dict[str, Any]],
    photos: list[Path],
    taught: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    for path, other in zip(photos, reversed(photos), strict=True):
        with Image.open(other) as picture:
            picture.rotate(180).save(others / path.name)
    table, given = write_csv(others / "labels.csv", rated), taught
    if way == "--scores":
        given = tmp_path / "scores.csv"
        assert main(["score", str(others), "--adapter", str(taught), "-o", str(given), "-q"]) == 0
    figures, told = evaluate(capsys, table, way, given)
    assert figures["n"] == 12 and "left out" not in told


def test_split_of_an_earlier_version_tells_by_name(
    ratings: Path, taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = json.loads((taught / "split.json").read_text())
    del fields["contents"]
    (taught / "split.json").write_text(json.dumps(fields))
    figures, told = evaluate(capsys, ratings, "--adapter", taught)
    assert figures["n"] == 7
    assert "5 pictures are left out: the adapter has learnt from them, 5 of them told by name alone" in told
    assert "split.json is of an earlier version and tells pictures by name alone" in told


@pytest.mark.parametrize("way", ["--adapter", "--scores"])
def test_an_adapter_without_its_split_is_told(
    way: str, ratings: Path, adapter_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = adapter_folder
    if way == "--scores":
        given = tmp_path / "scores.csv"
        assert main(["score", str(ratings.parent), "--adapter", str(adapter_folder), "-o", str(given), "-q"]) == 0
    figures, told = evaluate(capsys, ratings, way, given)
    assert figures["n"] == 12
    assert "has no split.json beside it: whether it has learnt from these pictures is not known" in told


def test_a_split_of_another_run_is_told(ratings: Path, taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = json.loads((taught / "adapter_config.json").read_text())
    settings["provenance"] = {"split_hash": "another"}
    (taught / "adapter_config.json").write_text(json.dumps(settings))
    figures, told = evaluate(capsys, ratings, "--adapter", taught)
    assert figures["n"] == 12 and "the split.json beside it is of another run: whether it has learnt" in told


def test_the_adapter_of_scores_is_found_and_told_where_it_is_not(
    ratings: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores, printed = tmp_path / "elsewhere" / "scores.csv", tmp_path / "printed" / "scores.csv"
    assert main(["score", str(ratings.parent), "--adapter", "taught", "-o", str(scores), "-q"]) == 0
    assert evaluate(capsys, ratings, "--scores", scores)[0]["n"] == 7
    printed.parent.mkdir()
    printed.write_text(scores.read_text())  # without the file beside it, as after > scores.csv
    assert evaluate(capsys, ratings, "--scores", printed)[0]["n"] == 7
    moved = taught.rename(tmp_path / "moved")
    figures, told = evaluate(capsys, ratings, "--scores", printed)
    assert figures["n"] == 12
    assert "adapter taught, which has given the scores, is not found here (--adapter DIR says where it is)" in told
    assert evaluate(capsys, ratings, "--scores", printed, "--adapter", moved)[0]["n"] == 7


def test_a_baked_scorer_has_learnt_what_its_adapter_has(
    ratings: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bake", str(tmp_path / "baked"), "--adapter", str(taught)]) == 0
    assert evaluate(capsys, ratings, "--model", tmp_path / "baked")[0]["n"] == 7
    (tmp_path / "baked" / "split.json").unlink()
    assert "adapter taught: has no split.json beside it" in evaluate(capsys, ratings, "--model", tmp_path / "baked")[1]


def test_nothing_is_left_to_evaluate_on(
    ratings: Path, photos: list[Path], taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(path.name for path in photos)
    rows = [Row(path, path.name, 1.0, 0.0) for path in photos]
    Split(names, (), "all", 0).with_contents(rows).save(taught / "split.json")
    assert main(["evaluate", str(ratings), "--adapter", str(taught)]) == 2
    assert "expected pictures that the adapter has not learnt from, got 12 from which it has" in capsys.readouterr().err


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
        (
            [{"path": "x/a.png", "score": 1}],
            "expected at least 5 rated pictures with a score, got 0; ratings name 00.png, scores x/a.png",
        ),
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
        (["--scores", "none.csv"], "expected a table of scores, found no such file"),
        (["--part", "test"], "--part test: expected rows marked as test, found none"),
        (["--range", "5", "1"], "--range: expected the low end before the high one, got 5 1"),
        (["--rating-column", "stars"], '"stars"'),
        (["--higher-is-better", "--lower-is-better"], "not allowed with argument"),
    ],
)
def test_wrong_use(options: list[str], message: str, ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(ratings), *options]) == 2
    assert message in capsys.readouterr().err
