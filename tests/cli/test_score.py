from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grmp_hf.cli.main import main
from grmp_hf.data import RatingScale
from grmp_hf.record import Record
from grmp_hf.scoring import ScoredPicture, Scorer

Run = Callable[..., int]


@pytest.fixture
def score(adapter_folder: Path, photos: list[Path]) -> Run:
    """Runs the command on the twelve pictures with the adapter."""
    return lambda *options: main(
        ["score", str(photos[0].parent), "--adapter", str(adapter_folder), "--batch-size", "3", *map(str, options)]
    )


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {k: float(v) if k in ("score", "quality") and v else v for k, v in row.items()}
                for row in csv.DictReader(file)
            ]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]


def test_the_formats_hold_the_same_rows(score: Run, photos: list[Path], tmp_path: Path) -> None:
    tables = []
    for suffix in ("csv", "jsonl", "parquet"):
        assert score("--output", tmp_path / f"scores.{suffix}") == 0
        rows = read(tmp_path / f"scores.{suffix}")  # CSV knows no None
        tables.append([{name: "" if cell is None else cell for name, cell in row.items()} for row in rows])
    assert tables[0] == tables[1] == tables[2]
    assert [row["path"] for row in tables[0]] == [str(path) for path in photos]
    for row in tables[0]:
        assert list(row)[:4] == ["path", "score", "quality", "low"]
        assert row["score"] == pytest.approx(1 + 4 * row["quality"], abs=(1 + 4) * 1e-6)  # six decimals of both
        assert row["status"] == "ok"
        assert row["scale"] == "1 (worst) to 5 (best) stars"
        assert "weights-" in row["scorer"] and "stars@" in row["scorer"]
    about = json.loads((tmp_path / "scores.csv.json").read_text())
    assert about["identity"]["adapter_sha256"] and about["failed"] == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(
        f"scores.{suffix}{more}" for suffix in ("csv", "jsonl", "parquet") for more in ("", ".json")
    )


def test_parquet_carries_the_identity(score: Run, tmp_path: Path) -> None:
    import pyarrow.parquet

    score("--output", tmp_path / "scores.parquet")
    metadata = pyarrow.parquet.read_schema(tmp_path / "scores.parquet").metadata
    assert json.loads(metadata[b"grmp_hf"])["identity"]["adapter"] == "stars"


def test_a_table_on_the_terminal(score: Run, photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert score() == 0
    streams = capsys.readouterr()
    lines = streams.out.splitlines()
    assert lines[0].startswith("# scores from 1 (worst) to 5 (best) stars")
    assert len(lines) == 2 + len(photos)
    assert lines[-1].endswith(str(photos[-1]))
    assert "12 of 12 pictures" in streams.err and "pictures/s" in streams.err
    assert "weights-" in streams.err


def test_scores_on_a_short_scale_are_not_rounded_away(photos: list[Path], tmp_path: Path, capsys: Any) -> None:
    ratings = photos[0].parent / "ratings.csv"
    ratings.write_text("image,mos\n" + "".join(f"{p.name},{(1 + at % 5) * 1e-9}\n" for at, p in enumerate(photos)))
    given = ["--data", str(ratings), "--range", "0", "6e-9", "--shots", "8", "--output", str(tmp_path / "mine")]
    assert main(["adapt", *given]) == 0
    scored = ["score", str(photos[0]), "--adapter", str(tmp_path / "mine"), "--quiet"]
    assert main([*scored, "--output", str(tmp_path / "scores.csv")]) == 0
    (row,) = read(tmp_path / "scores.csv")
    for name in ("score", "low", "high"):
        assert 0 <= float(row[name]) <= 6e-9, name
    assert float(row["score"]) == pytest.approx(6e-9 * float(row["quality"]), abs=1e-14)
    assert row["scale"] == "0 (worst) to 6e-09 (best)"
    (tested, *_) = read(tmp_path / "mine" / "scores.csv")
    assert all(0 < float(tested[name]) < 6e-9 for name in ("rating", "score", "zero_shot", "ridge"))
    capsys.readouterr()
    assert main(scored) == 0
    assert float(capsys.readouterr().out.splitlines()[-1].split()[0]) == pytest.approx(float(row["score"]), rel=1e-3)


def test_json_for_machines(score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score("--json", "--quiet") == 0
    streams = capsys.readouterr()
    found = json.loads(streams.out)
    assert len(found["rows"]) == 12 and found["failed"] == 0 and not streams.err
    assert score("--json", "--output", tmp_path / "a.csv") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["output"] == str(tmp_path / "a.csv") and "rows" not in summary


@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
def test_bad_files_are_rows_and_the_exit_code_tells(
    score: Run, photos: list[Path], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos[4].write_bytes(photos[4].read_bytes()[:60])
    photos[7].write_bytes(b"")
    assert score("--format", kind, "--output", tmp_path / "scores.x") == 1
    text = (tmp_path / "scores.x").read_text()
    assert "truncated" in text and "empty" in text
    assert "2 of 12 pictures could not be scored" in capsys.readouterr().err
    if kind == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["status"] for row in rows].count("ok") == 10
        assert rows[4]["score"] is None and "04.png" in rows[4]["message"]


def test_a_missing_file_is_a_row_and_patterns_are_expanded(
    photos: list[Path], clip_folder: Path, tmp_path: Path
) -> None:
    pattern, missing = str(photos[0].parent / "0[12].p*"), str(tmp_path / "gone.jpg")
    target = tmp_path / "scores.jsonl"
    assert main(["score", pattern, missing, "--model", str(clip_folder), "-o", str(target)]) == 1
    assert [row["status"] for row in read(target)] == ["ok", "ok", "not_found"]


class Killed(BaseException):
    """Stands for a signal."""


def kill_after(batches: int) -> Callable[..., Iterator[list[ScoredPicture]]]:
    original = Scorer.iter_scores

    def dying(self: Scorer, *arguments: Any, **options: Any) -> Iterator[list[ScoredPicture]]:
        for number, rows in enumerate(original(self, *arguments, **options)):
            if number == batches:
                raise Killed
            yield rows

    return dying


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("tail", ["", '["half a row'])
def test_a_killed_run_ends_with_the_same_table(
    score: Run, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int, tail: str
) -> None:
    photos[1].write_bytes(b"")
    assert score("--output", tmp_path / "whole.csv") == 1
    target = tmp_path / "scores.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "iter_scores", kill_after(batches))
        with pytest.raises(Killed):
            score("--output", target)
    assert not target.exists()
    part = tmp_path / "scores.csv.part"
    with open(part, "a") as file:
        file.write(tail)
    scored: list[int] = []
    original = Scorer.iter_scores

    def counting(self: Scorer, paths: Any, **options: Any) -> Iterator[list[ScoredPicture]]:
        scored.append(len(paths))
        return original(self, paths, **options)

    monkeypatch.setattr(Scorer, "iter_scores", counting)
    assert score("--output", target) == 1
    assert scored == [12 - 3 * batches]
    assert target.read_text() == (tmp_path / "whole.csv").read_text()
    assert not part.exists()


def test_rows_of_other_pictures_or_another_scorer_are_not_used(
    score: Run, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "iter_scores", kill_after(2))
        with pytest.raises(Killed):
            score("--output", tmp_path / "a.csv")
    photos[0].write_bytes(photos[5].read_bytes())
    assert score("--output", tmp_path / "a.csv") == 0
    rows = read(tmp_path / "a.csv")
    assert rows[0]["score"] == pytest.approx(rows[5]["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "there.csv"], "there.csv: exists; choose another name"),
        (["--output", "folder"], "is a folder; name a file"),
        (["--output", "scores.xls"], "expected a name ending in .csv .jsonl .ndjson .parquet .txt, or --format"),
        (["--format", "parquet"], "--format parquet: expected a file to write to, got none"),
        (["--output", "there.csv/a.csv"], "cannot be written"),
    ],
)
def test_where_nothing_can_be_written(
    score: Run,
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("mine")
    Path("folder").mkdir()
    assert score(*options) == 2
    assert message in capsys.readouterr().err
    assert Path("there.csv").read_text() == "mine"


def test_overwrite(score: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("somebody's")
    assert score("--output", tmp_path / "a.csv", "--overwrite") == 2
    assert (tmp_path / "a.csv").read_text() == "somebody's"
    assert score("--output", tmp_path / "b.csv") == 0
    before = (tmp_path / "b.csv").stat().st_mtime_ns
    assert score("--output", tmp_path / "b.csv") == 2
    assert score("--output", tmp_path / "b.csv", "--overwrite") == 0
    assert len(read(tmp_path / "b.csv")) == 12 and (tmp_path / "b.csv").stat().st_mtime_ns > before


def annotate(table: Path) -> None:
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},mine", *(f"{line},1" for line in lines[1:])]))


def link(table: Path) -> None:
    table.rename(table.with_name("target.csv"))
    table.symlink_to("target.csv")


@pytest.mark.parametrize("change", [annotate, lambda table: table.write_text("notes of months"), link])
def test_a_table_that_was_changed_since_is_never_replaced(
    score: Run, tmp_path: Path, change: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "a.csv"
    assert score("--output", table) == 0
    change(table)
    before = {path.name: (path.is_symlink(), path.read_bytes()) for path in tmp_path.glob("*.csv*")}
    capsys.readouterr()
    assert score("--output", table) == 2 and "add --overwrite" not in capsys.readouterr().err
    assert score("--output", table, "--overwrite") == 2
    assert "was changed since this command made it; move it away or choose another" in capsys.readouterr().err
    assert before == {path.name: (path.is_symlink(), path.read_bytes()) for path in tmp_path.glob("*.csv*")}
    table.unlink()  # moved away, as was advised
    assert score("--output", table, "--overwrite") == 0 and len(read(table)) == 12


def test_a_dash_is_standard_output(
    score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert score("--output", "-", "--format", "csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 13 and not Path("-").exists()


@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
def test_names_are_printed_whatever_the_locale(photos: list[Path], clip_folder: Path, kind: str) -> None:
    path = photos[0].rename(photos[0].with_name("☃.png"))
    command = [sys.executable, "-m", "grmp_hf.cli.main", "score", str(path), "--model", str(clip_folder)]
    done = subprocess.run(
        [*command, "--format", kind], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
    )
    assert done.returncode == 0, done.stderr
    written = {"table": rb"\u2603.png", "csv": "☃.png".encode(), "jsonl": rb"\u2603.png"}[kind]
    assert written in done.stdout and b"Traceback" not in done.stderr


def test_a_folder_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert main(["score", str(tmp_path / "none")]) == 2
    assert "holds no picture" in capsys.readouterr().err


ODD_NAMES = [
    *(
        "a\nb.png",
        "\x1b[31mred\x1b[0m.png",
        "\rstart.png",
        "tab\t.png",
        'q"uo"te.png',
        "co,mma;semi|bar.png",
        "#hash.png",
    ),
    *("=1+1.png", "e\u0301.png", "\u202eltr.png", "\u5199.png", os.fsdecode(b"caf\xe9.png")),
]


@pytest.fixture
def odd(photos: list[Path]) -> list[Path]:
    """The twelve pictures under names with all that a name may hold."""
    if sys.platform != "linux":
        pytest.skip("only Linux allows all of these names")
    return [path.rename(path.parent / name) for path, name in zip(photos, ODD_NAMES, strict=True)]


def test_a_printed_table_has_one_line_a_picture_whatever_its_name(
    score: Run, odd: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (odd[0].parent / "bad\n.png").write_bytes(b"")
    assert score("-q") == 1
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 2 + 13 + 1 and all(line.isprintable() for line in lines)
    for shown in (r"a\nb.png", r"\x1b[31mred\x1b[0m.png", r"\rstart.png", "\u5199.png", r"caf\udce9.png", r"bad\n.png"):
        assert sum(line.endswith(shown) or f"{shown}  #" in line for line in lines) == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_scores_of_odd_names_are_joined_with_their_ratings(
    kind: str, score: Run, odd: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"scores.{kind}"
    assert score("--output", target, "-q") == 0
    if kind != "parquet":  # whose text can hold no odd bytes: escapes stand for them
        assert {row["path"] for row in read_kept(target)} == {str(path) for path in odd}
    with open(odd[0].parent / "labels.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("image", "mos"), *((path.name, 1 + at % 5) for at, path in enumerate(odd))])
    assert main(["evaluate", str(odd[0].parent), "--scores", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 12


def read_kept(path: Path) -> list[dict[str, str]]:
    """Rows with the bytes of names as Python has them."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["table", "csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_names_can_be_printed(
    kind: str, encoding: str, score: Run, odd: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if encoding == "ascii" and kind == "csv":
        pytest.skip("there is no way to write such names")
    stdout = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert score("--format", kind, "-q") == 0
    stdout.flush()
    content = stdout.buffer.getvalue()  # type: ignore[attr-defined]
    assert (b"caf\xe9.png" if kind == "csv" else rb"caf\udce9.png") in content


def test_paths_are_written_as_they_were_given(
    adapter_folder: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos[0].parent)
    given = ["./00.png", "../photos/01.png", "02.png"]
    assert main(["score", *given, "--adapter", str(adapter_folder), "--format", "csv", "-q"]) == 0
    assert [row["path"] for row in csv.DictReader(capsys.readouterr().out.splitlines())] == given


def test_paths_come_from_a_list_too_and_what_is_left_out_is_said(
    clip_folder: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos[0].parent / "x.jxl").touch()
    listed = tmp_path / "names.txt"
    listed.write_bytes(b"\n".join(os.fsencode(path) for path in photos[2:4]) + b"\n\n")
    command = ["score", "--model", str(clip_folder), "--json", "--list", str(listed)]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["path"] for row in rows] == [str(path) for path in photos[2:4]]
    assert main([*command, str(photos[0].parent)]) == 0
    streams = capsys.readouterr()
    assert len(json.loads(streams.out)["rows"]) == 12
    assert "12 pictures; left out: 1 JXL (JXL is not read; convert it to JPEG or PNG)" in streams.err
    assert main(["score", "--list", str(tmp_path / "none.txt")]) == 2
    assert "--list" in capsys.readouterr().err


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_table_that_appears_or_changes_meanwhile_stays(
    score: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], overwrite: bool
) -> None:
    table, options = tmp_path / "a.csv", ["--overwrite"] if overwrite else []
    if overwrite:
        assert score("--output", table) == 0
    original, scored = Scorer.iter_scores, 0

    def slow(self: Scorer, paths: Any, **options: Any) -> Iterator[list[ScoredPicture]]:
        nonlocal scored
        for rows in original(self, paths, **options):
            scored += len(rows)
            yield rows
            if scored == 12:  # its user writes on while the pictures are scored
                with open(table, "a") as file:
                    file.write("mine\n")

    monkeypatch.setattr(Scorer, "iter_scores", slow)
    assert score("--output", table, *options) == 2
    assert "was made or changed by others meanwhile; move it away" in capsys.readouterr().err
    assert table.read_text().endswith("mine\n") and len(table.read_text().splitlines()) == (14 if overwrite else 1)
    table.rename(tmp_path / "mine.csv")
    assert score("--output", table, *options) == 0 and len(read(table)) == 12 and scored == 12


def test_rows_on_another_scale_are_not_used(
    adapter_folder: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = shutil.copytree(adapter_folder, tmp_path / "adapter")

    def scored(output: str) -> int:
        command = ["score", str(photos[0].parent), "--adapter", str(adapter), "--batch-size", "3", "-q"]
        return main([*command, "--output", str(tmp_path / output)])

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "iter_scores", kill_after(2))
        with pytest.raises(Killed):
            scored("a.csv")
    dataclasses.replace(Record.load(adapter), scale=RatingScale(0, 1000).to_dict()).save(adapter)
    assert scored("a.csv") == scored("whole.csv") == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "whole.csv").read_text()
