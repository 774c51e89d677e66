from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grmp_hf import suggesting
from grmp_hf.cli.main import main
from grmp_hf.data import read_ratings

Run = Callable[..., int]


@pytest.fixture
def suggest(clip_folder: Path) -> Run:
    return lambda *options: main(["suggest", "--model", str(clip_folder), *map(str, options)])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path) -> None:
    """Write a rating into every line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rated = [line.replace(",,", f",{1 + at % 5},", 1) for at, line in enumerate(lines[1:])]
    path.write_text("\n".join([lines[0], *rated]) + "\n", encoding="utf-8")


def test_a_table_that_is_filled_in_can_be_learnt_from(
    suggest: Run, photos: list[Path], clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "to_rate.csv"
    assert suggest("photos", "--count", 9, "--output", table) == 0
    assert f"9 of 12 pictures to rate in {table}" in capsys.readouterr().out
    rows = read(table)
    assert list(rows[0]) == ["image", "mos", "reason"] and len(rows) == 9
    assert rows[0]["image"].startswith("../photos/") and not rows[0]["mos"] and "closest choice" in rows[0]["reason"]
    assert main(["adapt", "--data", str(table), "--output", "a", "--model", str(clip_folder)]) == 2
    assert "rate these pictures or remove their lines" in capsys.readouterr().err
    fill_in(table)
    assert [row.image for row in read_ratings(table).rows] == [table.parent / row["image"] for row in rows]
    options = ["--model", str(clip_folder), "--range", "1", "5"]
    assert main(["adapt", "--data", str(table), "--shots", "6", "--output", "a", *options]) == 0
    said = capsys.readouterr().err
    assert "20 more ratings would bring about" in said
    found = json.loads((tmp_path / "a" / "metrics.json").read_text())["evidence"]
    assert found["expected_gain"]["ratings"] == 20 and found["more"] in said
    assert main(["suggest", "photos", "--adapter", "a", "--output", "more.csv"]) == 0
    assert len(read(tmp_path / "more.csv")) == 6
    assert main(["evaluate", str(table), "--adapter", "a", "--range", "1", "5"]) in (0, 2)


def test_json_lists_and_notes(suggest: Run, photos: list[Path], tmp_path: Path, capsys) -> None:
    photos[3].write_bytes(b"")
    (tmp_path / "names.txt").write_text("\n".join(map(str, photos[:8])))
    command = ("--list", tmp_path / "names.txt", "--count", 4, "--json", "--quiet", "-o", tmp_path / "a.csv")
    assert suggest(*command) == 0
    streams = capsys.readouterr()
    found = json.loads(streams.out)
    assert found["suggested"] == 4 and found["pictures"] == 8 and not streams.err
    assert found["notes"] == ["pictures that cannot be read, left out: 1 empty"]
    assert {row["image"] for row in read(tmp_path / "a.csv")} <= {str(path) for path in photos}


def test_ratings_are_never_overwritten(suggest: Run, photos: list[Path], tmp_path: Path, capsys) -> None:
    table, command = tmp_path / "a.csv", (photos[0].parent, "--quiet", "--count", 3, "-o", tmp_path / "a.csv")
    assert suggest(*command) == 0
    assert suggest(*command) == 2
    assert "exists; choose another name or add --overwrite" in capsys.readouterr().err
    assert suggest(*command, "--overwrite") == 0
    fill_in(table)
    before = table.read_bytes()
    assert suggest(*command, "--overwrite") == 2
    assert "is no table of suggestions without ratings" in capsys.readouterr().err
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["photos", "-o", "a.xlsx"], "expected a name ending in .csv"),
        (["photos", "-o", "no/a.csv"], "there is no folder no"),
        (["photos", "-o", "folder.csv"], "is a folder; name a file"),
        (["-o", "a.csv"], "the following arguments are required: PATH, or --list FILE"),
        (["photos", "-o", "a.csv", "--count", "0"], "expected at least 1, got 0"),
        (["nothing", "-o", "a.csv"], "is neither a file nor a folder"),
        (["--list", "none.txt", "-o", "a.csv"], "--list none.txt: cannot be read"),
    ],
)
def test_wrong_use_is_one_line(
    options: list[str], said: str, suggest: Run, photos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(photos[0].parent.parent)
    Path("folder.csv").mkdir()
    try:
        assert suggest(*options) == 2
    except SystemExit as end:
        assert end.code == 2
    assert said in capsys.readouterr().err


def test_ratings_that_are_given_meanwhile_stay(
    suggest: Run, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    table, command = tmp_path / "a.csv", (photos[0].parent, "--quiet", "--count", 3, "-o", tmp_path / "a.csv")
    assert suggest(*command) == 0
    original = suggesting.suggest

    def slow(*args: Any, **options: Any) -> Any:
        found = original(*args, **options)
        fill_in(table)
        return found

    monkeypatch.setattr(suggesting, "suggest", slow)
    assert suggest(*command, "--overwrite") == 2
    assert "is no table of suggestions without ratings" in capsys.readouterr().err
    assert all(row["mos"] for row in read(table))
