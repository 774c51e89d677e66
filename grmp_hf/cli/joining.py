"""Scores of one table beside the ratings of another, joined by picture: path, content, and name at last."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grmp_hf.data.cells import is_score_table
from grmp_hf.data.columns import IMAGE_NAMES, find_column, first_few, is_empty, shown
from grmp_hf.data.commas import rating_cells
from grmp_hf.data.identity import first_copies, name_parts
from grmp_hf.data.numbers import parse_ratings
from grmp_hf.data.sources import open_table
from grmp_hf.data.tables import Table
from grmp_hf.errors import GRMPError

if TYPE_CHECKING:
    from grmp_hf.data import Row

__all__ = ["Joined", "Score", "ScoreTable", "join", "read_scores"]

_ROUNDING = 1e-4  # of two scores of one picture
_UNKNOWN = "unknown: the table has no column scorer"


class Score(NamedTuple):
    """One row of a table of scores.

    Attributes:
        path: as written.
        value: None where the picture could not be scored.
        status: of such a picture.
    """

    path: str
    value: float | None
    status: str


@dataclass(frozen=True)
class ScoreTable:
    """Scores as a file holds them.

    Attributes:
        file: where they are.
        scores: each picture once.
        scorer: who gave them.
        quality: whether they are qualities from 0 to 1, 1 = best; else high is taken for good.
        column: where they stand.
        about: what the file beside the table, or parquet's own metadata, says of the scorer.
        notes: what was found and assumed.
    """

    file: Path
    scores: tuple[Score, ...]
    scorer: str
    quality: bool
    column: str
    about: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def adapter(self) -> dict[str, str] | None:
        """Name and weights' hash, or its beginning, of the adapter that scored; empty for a base, None if not known."""
        identity = self.about.get("identity")
        if isinstance(identity, dict) and {"adapter", "adapter_sha256"} <= identity.keys() and identity["adapter"]:
            return {"adapter": identity["adapter"], "adapter_sha256": identity["adapter_sha256"]}
        told = re.search(r" \+ (?P<adapter>.+)@(?P<adapter_sha256>[0-9a-f]{12})$", self.scorer)
        return told.groupdict() if told else None if self.scorer == _UNKNOWN else {}


class Joined(NamedTuple):
    """Rated pictures beside their scores, and notes on how they were found and on those that have none.

    Where the picture of a row is not there, but that of its score is, the row has the latter.
    """

    rows: list[Row]
    values: list[float]
    failed: int
    notes: list[str]


def read_scores(file: Path, *, rated_in: str | None) -> ScoreTable:
    """Read a table of scores.

    Args:
        file: csv, jsonl or parquet, with a column `path` (or another usual name) and one of scores.
        rated_in: the column that was read as ratings, if they come from the same file.

    Raises:
        GRMPError: no such file or column, a score that is no number, or a picture with two scores.
    """
    if not file.is_file():
        raise GRMPError(f"--scores {file}: expected a table of scores, found no such file; check the path")
    table, notes = open_table(file)
    paths = find_column(
        list(table.columns), ("path", *IMAGE_NAMES), wanted=None, kind="picture",
        remedy="rename the column of the pictures to path", where=table.where,
    )  # fmt: skip
    # "quality" is this package's own word, whose direction is known; elsewhere it may be a rating.
    usual = [
        name for name in (("quality", "score") if is_score_table(table) else ("score", "quality")) if name != rated_in
    ]
    beside = f', which holds the ratings beside "{rated_in}"' if rated_in else ""
    column = find_column(
        [name for name in table.columns if name != rated_in], usual, wanted=None, kind="score",
        remedy=f"name the column of the scores score{beside}", where=table.where,
    )  # fmt: skip
    scores = _parse(table, paths, column, notes)
    who = sorted({str(cell) for cell in table.columns.get("scorer", [_UNKNOWN])})
    if len(who) > 1:
        notes.append(f"{file}: rows of {len(who)} scorers are taken together")
    about = _read_about(file)
    return ScoreTable(
        file, scores, "; ".join(who), is_score_table(table) and column == "quality", column,
        about if about.get("scorer") in (None, *who) else {}, (*notes, *table.notes),
    )  # fmt: skip


def join(rows: Sequence[Row], table: ScoreTable) -> Joined:
    """Find the score of each rated picture.

    By path: both mean the same file. By content: both files are there and hold the same picture. By name as written,
    and at last by what names end with (the file's name alone, if need be), where that is clear on both sides, and only
    if the files are not both there to be compared.

    Raises:
        GRMPError: a picture with two scores, under two names.
    """
    found: dict[int, int] = {}  # place of a row -> that of its score
    files = [_file_of(score.path, table) for score in table.scores]
    there = _by_file(table, files)
    pictures = [row.image if isinstance(row.image, Path) and row.image.is_file() else None for row in rows]
    for at, path in enumerate(pictures):
        if path is not None and os.path.realpath(path) in there:
            found[at] = there[os.path.realpath(path)]
    _join_contents(rows, files, found)
    loose = [at for at in range(len(rows)) if at not in found]
    notes = _join_names(rows, [score.path for score in table.scores], loose, _comparable(rows, pictures, files), found)
    kept = [at for at in range(len(rows)) if at in found and table.scores[found[at]].value is not None]
    bad = [f"{shown(rows[at].name)} ({table.scores[found[at]].status})" for at in sorted({*found} - {*kept})]
    if bad:
        notes.append(f"{len(bad)} pictures could not be scored and are left out: {first_few(bad)}")
    if absent := [f'"{shown(row.name)}"' for at, row in enumerate(rows) if at not in found]:
        notes.append(f"{len(absent)} of {len(rows)} rated pictures have no score and are left out: {first_few(absent)}")
    values = [table.scores[found[at]].value for at in kept]
    seen = [rows[at] if pictures[at] else _seen(rows[at], files[found[at]]) for at in kept]
    return Joined(seen, [value for value in values if value is not None], len(bad), notes)


def _seen(row: Row, file: Path | None) -> Row:
    return row if file is None or not isinstance(row.image, Path) else replace(row, image=file)


def _parse(table: Table, paths: str, column: str, notes: list[str]) -> tuple[Score, ...]:
    cells, where = rating_cells(table, column, notes), f'{table.where}, column "{column}"'
    good = [at for at, cell in enumerate(cells) if not is_empty(cell)]
    numbers = parse_ratings([cells[at] for at in good], [table.places[at] for at in good], where=where)
    values: dict[int, float] = dict(zip(good, numbers, strict=True))
    statuses = table.columns.get("status", ["no score"] * len(cells))
    once: dict[str, Score] = {}
    for at, name in enumerate(table.columns[paths]):
        score = Score(str(name), values.get(at), str(statuses[at]))
        _check_same(once.setdefault(score.path, score), score, where, f'"{shown(name)}" in {table.places[at]}')
    return tuple(once.values())


def _check_same(kept: Score, other: Score, where: str, what: str) -> None:
    """Raise where two rows give one picture two scores, up to what its neighbours in a batch may change."""
    if kept.value is None or other.value is None:
        same = kept.value == other.value
    else:
        same = math.isclose(kept.value, other.value, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    if not same:
        raise GRMPError(
            f"{where}: expected one score a picture, got another one of {what}; keep the rows of one scorer"
        )


def _by_file(table: ScoreTable, files: Sequence[Path | None]) -> dict[str, int]:
    """Where each file lies -> the place of its score; raise where it stands under two names, with two scores."""
    once: dict[str, int] = {}
    for at, (score, file) in enumerate(zip(table.scores, files, strict=True)):
        if file is not None:
            kept = table.scores[once.setdefault(os.path.realpath(file), at)]
            what = f'"{shown(score.path)}", which is "{shown(kept.path)}" too'
            _check_same(kept, score, f'{table.file}, column "{table.column}"', what)
    return once


def _read_about(file: Path) -> dict[str, Any]:
    beside = file.with_name(f"{file.name}.json")
    try:
        if beside.is_file():
            return dict(json.loads(beside.read_text(encoding="utf-8")))
        if file.suffix.lower() == ".parquet":
            import pyarrow.parquet

            return dict(json.loads((pyarrow.parquet.read_schema(file).metadata or {}).get(b"grmp_hf", b"{}")))
    except (OSError, ValueError, TypeError):
        pass
    return {}


def _file_of(path: str, table: ScoreTable) -> Path | None:
    """The file that a path means: from where it was scored, else from the table's folder, and from here at last."""
    folders, scored = [table.file.parent, Path()], table.about.get("folder")
    if isinstance(scored, str):
        folders.insert(0, Path(os.path.realpath(table.file.parent), scored))
    for place in (folder / path for folder in folders):
        try:
            if place.is_file():
                return place
        except (OSError, ValueError):
            continue
    return None


def _join_contents(rows: Sequence[Row], files: Sequence[Path | None], found: dict[int, int]) -> None:
    scored = [at for at, path in enumerate(files) if path is not None]
    loose = [at for at in range(len(rows)) if at not in found]
    if not (scored and loose):
        return
    sources = [path for path in files if path is not None] + [rows[at].image for at in loose]
    for at, first in zip(loose, first_copies(sources)[len(scored) :], strict=True):
        if first < len(scored):
            found[at] = scored[first]


def _comparable(
    rows: Sequence[Row], pictures: Sequence[Path | None], files: Sequence[Path | None]
) -> Callable[[int, int], bool]:
    """Whether a row and a score have both been looked at, so that no name can make them one picture."""
    inside = [not isinstance(row.image, Path) for row in rows]
    return lambda row, score: (pictures[row] is not None or inside[row]) and files[score] is not None


def _join_names(
    rows: Sequence[Row],
    paths: Sequence[str],
    loose: Sequence[int],
    comparable: Callable[[int, int], bool],
    found: dict[int, int],
) -> list[str]:
    """Join what is left by name, the whole of it first, then what two names end with; each score once."""
    rated, scored = [name_parts(row.name) for row in rows], [name_parts(path) for path in paths]
    used, ended = set(found.values()), 0
    longest = max((len(parts) for parts in (*rated, *scored)), default=0)
    for length in (None, *range(longest, 0, -1)):
        left, right = (_unique(names, length) for names in (rated, scored))
        for at in [at for at in loose if at not in found]:
            score = right.get(_end(rated[at], length))
            clear = score is not None and left.get(_end(rated[at], length)) == at and score not in used
            if score is not None and clear and not comparable(at, score):
                found[at] = score
                used.add(score)
                ended += length == 1 and rated[at] != scored[score]
    return [f"{ended} pictures are joined by the name of the file alone, in other folders"] if ended else []


def _end(parts: tuple[str, ...], length: int | None) -> tuple[str, ...] | None:
    return parts if length is None else parts[-length:] if len(parts) >= length else None


def _unique(names: Iterable[tuple[str, ...]], length: int | None) -> dict[tuple[str, ...] | None, int]:
    """End of a name -> its place, for those ends that only one has."""
    ends = [_end(parts, length) for parts in names]
    counts = Counter(ends)
    return {end: at for at, end in enumerate(ends) if end is not None and counts[end] == 1}
