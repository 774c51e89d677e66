from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.combining import combine
from grmp_hf.data import Row, Split
from grmp_hf.record import Record


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


def tolerance(scores: Path) -> float:
    """What figures may differ by: scores are equal to 1e-5, which counts by their spread; the margin is ten."""
    with open(scores, newline="", encoding="utf-8") as file:
        return 10 * 1e-5 / float(np.std([float(row["score"]) for row in csv.DictReader(file)]))


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
            assert found[name] == pytest.approx(direct[name], abs=tolerance(tmp_path / "scores.csv"))


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


def what_scores(way: str, pictures: Path, adapter: Path, place: Path) -> Path:
    """What an option takes: the adapter, or for --scores a file of what it gives to the pictures in a folder."""
    if way != "--scores":
        return adapter
    scores = place / "scores.csv"
    assert main(["score", str(pictures), "--adapter", str(adapter), "-o", str(scores), "-q"]) == 0
    return scores


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
    table = write_csv(photos[0].parent / "labels.csv", rows)
    given = what_scores(way, photos[0].parent, taught, tmp_path)
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
    table = write_csv(elsewhere / "labels.csv", rows)
    given = what_scores(way, photos[0].parent, taught, tmp_path)
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
    table = write_csv(others / "labels.csv", rated)
    given = what_scores(way, others, taught, tmp_path)
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
    assert "5 pictures are left out: the adapter has learnt from them" in told
    assert "split.json is of an earlier version and tells pictures by name alone" in told


@pytest.mark.parametrize("way", ["--adapter", "--scores"])
def test_an_adapter_without_its_split_is_told(
    way: str, ratings: Path, adapter_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = what_scores(way, ratings.parent, adapter_folder, tmp_path)
    figures, told = evaluate(capsys, ratings, way, given)
    assert figures["n"] == 12
    assert "has no split.json of its own run beside it: whether it has learnt from these pictures is not known" in told


def test_pictures_that_taught_are_known_by_the_files_of_their_scores(
    rated: list[dict[str, Any]],
    photos: list[Path],
    taught: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere, scores = tmp_path / "elsewhere", tmp_path / "scores.csv"
    elsewhere.mkdir()
    table = write_csv(elsewhere / "labels.csv", [{**row, "image": f"./any/{row['image']}"} for row in rated])
    assert main(["score", str(photos[0].parent), "--adapter", str(taught), "-o", str(scores), "-q"]) == 0
    assert evaluate(capsys, table, "--scores", scores)[0]["n"] == 7
    for path in photos:  # neither file is there: the names are all that is left
        path.unlink()
    write_csv(table, [{**row, "image": f"./{row['image']}"} for row in rated])
    figures, told = evaluate(capsys, table, "--scores", scores)
    assert figures["n"] == 7
    assert "12 pictures cannot be read here: whether they have taught is told by name alone" in told


def test_a_split_of_another_run_is_told(ratings: Path, taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataclasses.replace(Record.load(taught), provenance={"split_hash": "another"}).save(taught)
    figures, told = evaluate(capsys, ratings, "--adapter", taught)
    assert figures["n"] == 12 and "has no split.json of its own run beside it: whether it has learnt" in told


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
    with open(moved / "adapter_model.safetensors", "ab") as file:
        file.write(b" ")
    assert main(["evaluate", str(ratings), "--scores", str(printed), "--adapter", str(moved)]) == 2
    assert "expected the adapter that has given the scores, taught with weights" in capsys.readouterr().err
    with open(printed, newline="") as file:
        rows = [{"path": row["path"], "score": row["score"]} for row in csv.DictReader(file)]
    nameless = write_csv(tmp_path / "nameless.csv", rows)
    figures, told = evaluate(capsys, ratings, "--scores", nameless)
    assert figures["n"] == 12 and "whoever has given the scores is not named in their table: whether it has" in told
    assert evaluate(capsys, ratings, "--scores", nameless, "--adapter", moved)[0]["n"] == 7


def test_a_baked_scorer_has_learnt_what_its_adapter_has(
    ratings: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bake", str(tmp_path / "baked"), "--adapter", str(taught)]) == 0
    assert evaluate(capsys, ratings, "--model", tmp_path / "baked")[0]["n"] == 7
    (tmp_path / "baked" / "split.json").unlink()
    assert (
        "adapter taught: has no split.json of its own run beside it"
        in evaluate(capsys, ratings, "--model", tmp_path / "baked")[1]
    )


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


def test_one_reader_of_ratings_whether_a_model_or_a_file_has_scored(
    rated: list[dict[str, Any]],
    photos: list[Path],
    adapter_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Repeats, parts, range, direction and columns mean the same for both ways, and say the same."""
    marked = [
        {"picture": row["image"], "Stars": 6 - row["mos"], "phase": "test" if index % 3 else "train"}
        for index, row in enumerate(rated)
    ]
    table, scores = write_csv(photos[0].parent / "labels.csv", [*marked, *marked[:4]]), tmp_path / "scores.csv"
    assert main(["score", str(photos[0].parent), "--adapter", str(adapter_folder), "-o", str(scores), "-q"]) == 0
    options = [
        *("--rating-column", "Stars", "--split-column", "phase", "--range", "0", "10", "--lower-is-better"),
        *("--unit", "grade"),
    ]
    for part, count in (([], 8), (["--part", "test"], 8), (["--part", "all"], 12)):
        by_file, told = evaluate(capsys, table, "--scores", scores, *options, *part)
        by_model, also = evaluate(capsys, table, "--adapter", adapter_folder, *options, *part)
        assert by_file["n"] == by_model["n"] == count and by_file["srcc"] > 0.3
        assert by_file["rating_scale"] == by_model["rating_scale"]
        assert by_file["data_hash"] == by_model["data_hash"]
        for name in ("srcc", "krcc", "plcc", "plcc_logistic", "rmse"):
            assert by_file[name] == pytest.approx(by_model[name], abs=tolerance(scores))
        for text in (told, also):
            assert "4 rows repeat a picture with the same rating and are merged" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--range", "1", "2"], "expected ratings from 1 (worst) to 2 (best)"),
        (["--part", "test"], "--part test: expected rows marked as test, found none"),
        (["--split-column", "phase"], 'expected a split column "phase"'),
        (["--rating-column", "stars"], 'expected a rating column "stars"'),
    ],
)
def test_what_is_refused_is_refused_beside_scores_too(
    options: list[str], message: str, ratings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = scores_file(tmp_path, [{"path": "00.png", "score": 1}])
    for way in ([], ["--scores", scores]):
        assert main(["evaluate", str(ratings), *way, *options]) == 2
        assert message in capsys.readouterr().err


def test_a_picture_that_is_rated_twice_is_refused_beside_scores_too(
    rated: list[dict[str, Any]], photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [*rated, {**rated[0], "mos": 6 - rated[0]["mos"]}]
    table = write_csv(photos[0].parent / "labels.csv", again)
    assert main(["evaluate", str(table), "--scores", scores_file(tmp_path, [{"path": "00.png", "score": 1}])]) == 2
    assert "got 1 repeated with another rating or split" in capsys.readouterr().err


def test_pictures_need_not_be_there(
    rated: list[dict[str, Any]], photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    table = write_csv(elsewhere / "labels.csv", rated)
    rows = [{"path": row["image"], "score": row["mos"] + index % 2} for index, row in enumerate(rated)]
    for path in photos:
        path.unlink()
    figures, told = evaluate(capsys, table, "--scores", scores_file(tmp_path, rows))
    assert figures["n"] == 12 and "joined by" not in told


def test_pictures_of_two_folders_with_the_same_name_are_two(
    rated: list[dict[str, Any]], photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in photos[:6]:
        shutil.copy(photos[11 - int(path.stem)], other / path.name)
    rows = [{**row, "image": f"photos/{row['image']}"} for row in rated]
    table = write_csv(tmp_path / "labels.csv", rows)
    scores = [{"path": str(path), "score": int(path.stem)} for path in (*photos[6:], *sorted(other.glob("*.png")))]
    figures, told = evaluate(capsys, table, "--scores", scores_file(tmp_path, scores))
    assert figures["n"] == 6 and "6 of 12 rated pictures have no score and are left out" in told
    # the same names without any of the files: the folder's name tells them apart
    named = [{"path": f"/gone/{folder}/{row['image']}", "score": at} for folder in ("photos", "other")
             for at, row in enumerate(rated)]  # fmt: skip
    for path in photos:
        path.unlink()
    figures, told = evaluate(capsys, table, "--scores", scores_file(tmp_path, named))
    assert figures["n"] == 12 and "joined by the name of the file alone" not in told


def test_the_name_of_the_file_alone_joins_only_where_it_is_clear_and_said(
    rated: list[dict[str, Any]], photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    table = write_csv(elsewhere / "labels.csv", [{**row, "image": f"a/{row['image']}"} for row in rated])
    rows = [{"path": f"b/{row['image']}", "score": at} for at, row in enumerate(rated)]
    figures, told = evaluate(capsys, table, "--scores", scores_file(tmp_path, rows))
    assert figures["n"] == 12 and "12 pictures are joined by the name of the file alone, in other folders" in told
    twice = [*rows, {"path": "c/00.png", "score": 7}]
    assert evaluate(capsys, table, "--scores", scores_file(tmp_path, twice))[0]["n"] == 11


def test_contents_join_where_names_say_nothing(
    ratings: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "renamed").mkdir()
    rows = []
    for path in photos:
        shutil.copy(path, tmp_path / "renamed" / f"{99 - int(path.stem)}.png")
        rows.append({"path": f"renamed/{99 - int(path.stem)}.png", "score": int(path.stem)})
    figures, told = evaluate(capsys, ratings, "--scores", scores_file(tmp_path, rows))
    assert figures["n"] == 12 and "joined by" not in told


def test_a_picture_with_two_scores_is_refused(
    ratings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"path": "00.png", "score": 1}, {"path": "00.png", "score": 2}]
    assert main(["evaluate", str(ratings), "--scores", scores_file(tmp_path, rows)]) == 2
    assert 'expected one score a picture, got another one of "00.png" in line 3' in capsys.readouterr().err


def test_a_picture_with_two_scores_under_two_names_is_refused(
    ratings: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos[0].parent
    rows = [{"path": str(path), "score": at} for at, path in enumerate(photos)]
    again = [{"path": f"{folder}/./{path.name}", "score": at} for at, path in enumerate(photos)]
    figures, _ = evaluate(capsys, ratings, "--scores", scores_file(tmp_path, [*rows, *again]))
    assert figures["n"] == 12
    again[3]["score"] = 7
    assert main(["evaluate", str(ratings), "--scores", scores_file(tmp_path, [*rows, *again])]) == 2
    assert f'got another one of "{folder}/./03.png", which is "{folder}/03.png" too' in capsys.readouterr().err


def test_paths_mean_what_they_meant_when_they_were_scored(
    photos: list[Path],
    adapter_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other pictures of the same names, where evaluate is called, are not those that were scored."""
    for name, order in (("a", photos), ("b", photos[::-1])):
        (tmp_path / name).mkdir()
        for at, path in enumerate(order):
            shutil.copy(path, tmp_path / name / f"{at}.png")
    lines = [f"{at}.png,{1 + at % 5}" for at in range(6)]  # of b: none of the six that are scored
    (tmp_path / "b" / "ratings.csv").write_text("\n".join(["image,mos", *lines]))
    monkeypatch.chdir(tmp_path / "a")
    names = [f"{at}.png" for at in range(6)]
    assert main(["score", *names, "--adapter", str(adapter_folder), "-o", "out/scores.csv", "-q"]) == 0
    monkeypatch.chdir(tmp_path / "b")
    assert main(["evaluate", "ratings.csv", "--scores", "../a/out/scores.csv"]) == 2
    assert "got 0" in capsys.readouterr().err
    (tmp_path / "a" / "out" / "scores.csv.json").unlink()  # then the table's folder, and here at last
    shutil.move(tmp_path / "a" / "out" / "scores.csv", tmp_path / "a" / "scores.csv")
    assert main(["evaluate", "ratings.csv", "--scores", "../a/scores.csv"]) == 2


@pytest.mark.parametrize("said", [5, [1], {"identity": "stars"}, {"identity": {"adapter": "stars"}}])
def test_what_is_said_of_scores_may_be_of_another_form(
    said: Any, ratings: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = scores_file(tmp_path, [{"path": str(path), "score": at} for at, path in enumerate(photos)])
    Path(f"{scores}.json").write_text(json.dumps(said))
    assert evaluate(capsys, ratings, "--scores", scores)[0]["n"] == 12


def test_scores_with_decimal_commas(
    ratings: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{path.name};{str(at / 8).replace('.', ',')}" for at, path in enumerate(photos)]
    (tmp_path / "excel.csv").write_text("\n".join(["path;score", *rows]))
    figures, told = evaluate(capsys, ratings, "--scores", str(tmp_path / "excel.csv"))
    assert figures["n"] == 12 and "decimal commas are read as points" in told


def test_scores_are_not_taken_for_ratings(
    ratings: Path, photos: list[Path], adapter_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "scores.csv"
    assert main(["score", str(photos[0].parent), "--adapter", str(adapter_folder), "-o", str(scores), "-q"]) == 0
    assert main(["evaluate", str(scores), "--scores", str(scores)]) == 2
    assert "expected ratings, got scores that a model has given" in capsys.readouterr().err
    # as adapt writes them: scores and ratings side by side, which is a table of both
    with open(scores, newline="") as file:
        rows = [{**row, "rating": 1 + at % 5} for at, row in enumerate(csv.DictReader(file))]
    both = write_csv(tmp_path / "both.csv", rows)
    figures, _ = evaluate(capsys, both, "--scores", both)
    assert figures["n"] == 12 and abs(figures["srcc"]) < 0.9
    assert figures == evaluate(capsys, both, "--scores", scores)[0] | {"scores": str(both), "notes": figures["notes"]}


def test_one_table_of_anybody_s_ratings_and_scores(
    rated: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = write_csv(tmp_path / "both.csv", [{**row, "score": at} for at, row in enumerate(rated)])
    assert abs(evaluate(capsys, both, "--scores", both)[0]["srcc"]) < 0.95
    one = write_csv(tmp_path / "one.csv", [{"image": row["image"], "score": row["mos"]} for row in rated])
    assert main(["evaluate", str(one), "--scores", str(one)]) == 2
    told = capsys.readouterr().err
    assert "expected a score column one of quality, found" in told and 'the ratings beside "score"' in told
    copy = write_csv(tmp_path / "copy.csv", [{"image": row["image"], "score": row["mos"]} for row in rated])
    assert "scores and ratings are the same numbers" in evaluate(capsys, one, "--scores", copy)[1]


@pytest.fixture
def damage_adapter(adapter_folder: Path, tmp_path: Path) -> Path:
    """The same adapter, for a scale of which low is best."""
    folder = tmp_path / "damage"
    shutil.copytree(adapter_folder, folder)
    record = Record.load(folder)
    dataclasses.replace(record, scale={**(record.scale or {}), "higher_is_better": False}).save(folder)
    return folder


@pytest.mark.parametrize("way", ["--adapter", "--scores"])
def test_the_direction_is_the_adapter_s_where_nothing_else_is_said(
    way: str,
    rated: list[dict[str, Any]],
    photos: list[Path],
    damage_adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = write_csv(photos[0].parent / "labels.csv", [{**row, "mos": 6 - row["mos"]} for row in rated])
    given = what_scores(way, photos[0].parent, damage_adapter, tmp_path)
    figures, told = evaluate(capsys, table, way, given)
    assert figures["srcc"] > 0.3 and not figures["rating_scale"]["higher_is_better"]
    assert "low is taken for best, as the adapter's own scale has it; --higher-is-better changes this" in told
    figures, told = evaluate(capsys, table, way, given, "--higher-is-better")
    assert figures["srcc"] < -0.3 and figures["plcc_logistic"] < 0
    assert "--higher-is-better is how these ratings are read; the adapter's own scale is 1 (best) to 5 (worst)" in told
    assert "SRCC is negative: the scorer orders these pictures the other way round" in told
    assert "if low is best, add --lower-is-better" in told
    assert evaluate(capsys, table, way, given, "--lower-is-better")[0]["srcc"] > 0.3


def test_constant_test_ratings_are_told(
    rated: list[dict[str, Any]], photos: list[Path], clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "mos": 3 if at < 6 else row["mos"], "split": "test" if at < 6 else "train"}
            for at, row in enumerate(rated)]  # fmt: skip
    table = write_csv(photos[0].parent / "labels.csv", rows)
    assert main(["evaluate", str(table), "--model", str(clip_folder)]) == 0
    streams = capsys.readouterr()
    assert "SRCC            0.000\n" in streams.out and "[0.000, 0.000]" not in streams.out
    assert "note: all 6 ratings are 3: they order nothing" in streams.err
    figures, _ = evaluate(capsys, table, "--model", clip_folder)
    assert figures["srcc_interval"] is None and "NaN" not in json.dumps(figures)


def test_many_zeros_are_asked_about_and_both_ways_out_work(
    rated: list[dict[str, Any]], photos: list[Path], clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "mos": 0 if at < 3 else max(1, row["mos"])} for at, row in enumerate(rated)]
    table, options = write_csv(photos[0].parent / "labels.csv", rows), ["--model", str(clip_folder)]
    assert main(["evaluate", str(table), *options]) == 2
    assert (
        "if 0 is a rating, say so with --range 0 5; if it stands for pictures that were not" in capsys.readouterr().err
    )
    assert evaluate(capsys, table, *options, "--range", "0", "5")[0]["n"] == 12
    write_csv(table, rows[3:])
    assert evaluate(capsys, table, *options)[0]["n"] == 9


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


def test_pictures_inside_a_table_are_joined_and_left_out_by_content(
    rated: list[dict[str, Any]], photos: list[Path], taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, scores = tmp_path / "inside.parquet", tmp_path / "scores.csv"
    columns = {"image": [path.read_bytes() for path in photos], "mos": [row["mos"] for row in rated]}
    pq.write_table(pa.table(columns), inside)
    assert main(["score", str(photos[0].parent), "--adapter", str(taught), "-o", str(scores), "-q"]) == 0
    for way, given in (("--scores", scores), ("--adapter", taught)):
        figures, told = evaluate(capsys, inside, way, given)
        assert figures["n"] == 7 and "5 pictures are left out: the adapter has learnt from them" in told


@pytest.mark.parametrize("there", [True, False])
def test_pictures_that_taught_experts_are_known_by_name_alone(
    ratings: Path,
    taught: Path,
    clip_folder: Path,
    photos: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    there: bool,
) -> None:
    parts = {"one": taught, "two": tmp_path / "two"}
    shutil.copytree(taught, parts["two"])
    shown = dict.fromkeys(parts, photos[:4])
    combine(grmp_hf.load(clip_folder), parts, pictures=shown).save(tmp_path / "both")
    assert json.loads((tmp_path / "both" / "split.json").read_text())["train"][0].startswith("one/")
    scores = tmp_path / "scores.csv"
    assert main(["score", str(photos[0].parent), "--adapter", str(tmp_path / "both"), "-o", str(scores), "-q"]) == 0
    if not there:
        for path in photos:
            path.unlink()
    assert evaluate(capsys, ratings, "--scores", scores)[0]["n"] == 7
