"""From the cells of a table to the fields of rows: pictures' names, ratings, and the columns that may be there."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grmp_hf.data.columns import (
    BLANKS,
    IMAGE_NAMES,
    RATING_NAMES,
    SPLIT_WORDS,
    column_key,
    find_column,
    find_optional,
    first_few,
    is_absent,
    is_empty,
    shown,
)
from grmp_hf.data.commas import rating_cells, vote_cells
from grmp_hf.data.formats import READABLE
from grmp_hf.data.numbers import NestedCell, parse_ratings
from grmp_hf.data.raters import Votes
from grmp_hf.data.tables import Table
from grmp_hf.data.text import legacy
from grmp_hf.errors import GRMPError

__all__ = [
    "choose_images",
    "choose_ratings",
    "gather_votes",
    "is_inside",
    "is_score_table",
    "match_columns",
    "optional_cells",
    "picture_names",
]

_SUMS = {*"mean avg average median std stdev sd var variance count num votes mos sum total".split()}
_LEAST = {"mos_std": ("deviations", 0), "votes": ("numbers of votes", 1)}
_SCORE_COLUMNS = {"path", "score", "quality", "status", "scorer"}


def is_score_table(table: Table) -> bool:
    """Say whether a table has the columns that ``grmp-iqa score`` and ``adapt`` write."""
    return {column_key(name) for name in table.columns} >= _SCORE_COLUMNS


def choose_images(table: Table, wanted: str | None) -> tuple[str, str | None]:
    """The column of the pictures, and one that was passed over: because it names no files where this one does, or
    names files where this one holds pictures under an unusual name.

    Raises:
        GRMPError: no such column, or several of that name.
    """
    inside = [name for name, cells in table.columns.items() if is_inside(cells)]
    inside.sort(key=lambda name: column_key(name) not in IMAGE_NAMES)
    remedy, usual = _name_column(table, "--image-column", wanted or "image"), [*inside, *IMAGE_NAMES]
    found = find_column(list(table.columns), usual, wanted=wanted, kind="picture", remedy=remedy, where=table.where)
    passed = None
    others = [n for n in table.columns if column_key(n) in IMAGE_NAMES and _names_files(table.columns[n])]
    others.sort(key=lambda name: IMAGE_NAMES.index(column_key(name)))
    if wanted is None and others and inside and column_key(found) not in IMAGE_NAMES:
        passed = others[0]
    elif wanted is None and others and not inside and not _names_files(table.columns[found]):
        passed, found = found, others[0]
    _check_single(table, found, "--image-column")
    return found, passed


def choose_ratings(table: Table, wanted: str | None) -> tuple[str, list[str]]:
    """The column of the ratings, and others that may be ratings as well.

    Raises:
        GRMPError: no such column, several of that name, or only scores that this package has given.
    """
    usual = [name for name in RATING_NAMES if not (is_score_table(table) and name in ("score", "quality"))]
    if wanted is None and is_score_table(table) and not {column_key(name) for name in table.columns} & set(usual):
        raise GRMPError(
            f"{table.where}: expected ratings, got scores that a model has given; name the table of the ratings here "
            "(`grmp-iqa evaluate RATINGS --scores FILE` compares it with this one)"
        )
    remedy = _name_column(table, "--rating-column", wanted or "mos")
    if len(table.columns) > 2 and wanted is None:
        remedy += ", or those of one rater each with --rating-columns"
    found = find_column(list(table.columns), usual, wanted=wanted, kind="rating", remedy=remedy, where=table.where)
    _check_single(table, found, "--rating-column")
    return found, [name for name in table.columns if column_key(name) in usual and name != found]


def _name_column(table: Table, option: str, usual: str) -> str:
    """What to do about a column that is not found: name it, where a table has others."""
    return f"name the column with {option}" if len(table.columns) > 1 else f'add a column "{usual}"'


def is_inside(cells: Sequence[Any]) -> bool:
    """Say whether a column holds pictures themselves, not their names."""
    return any(hasattr(cell, "read") for cell in cells[:1])


def picture_names(table: Table, column: str, notes: list[str], *, repeated: bool = False) -> list[str]:
    """Names of the pictures, as written; those inside a table go by another column's names, or by their place.

    Args:
        table: with this column.
        column: of the pictures.
        notes: given a sentence for each thing worth knowing.
        repeated: whether a name that comes again is the same picture; else such names are not used.

    Raises:
        GRMPError: a row without a picture, or with something that is no name.
    """
    cells = table.columns[column]
    empty = [place for cell, place in zip(cells, table.places, strict=True) if is_empty(cell)]
    if empty:
        raise GRMPError(
            f'{table.where}, column "{shown(column)}": expected a picture in each row, got {len(empty)} without: '
            f"{first_few(empty)}; name the pictures or remove the lines"
        )
    if isinstance(cells[0], NestedCell):
        raise GRMPError(
            f'{table.where}, column "{shown(column)}": expected pictures or their names, got {cells[0]}; '
            "write one picture a row, or name another column with --image-column"
        )
    if not is_inside(cells):
        return [str(cell).strip(BLANKS) for cell in cells]
    for other in [name for name in table.columns if name != column and column_key(name) in IMAGE_NAMES]:
        names = [str(cell) for cell in table.columns[other]]
        if is_inside(table.columns[other]) or any(is_empty(cell) for cell in table.columns[other]):
            continue
        if repeated or len(set(names)) == len(names):
            return names
        notes.append(
            f'{table.where}: column "{other}" gives some pictures the same name, so rows go by their number; '
            "whether one picture is in two parts is seen by its content"
        )
    return list(table.places)


def match_columns(table: Table, patterns: Sequence[str], images: str, notes: list[str]) -> list[str]:
    """The columns that names or shell patterns mean, in the order of the table; never that of the pictures.

    A pattern passes over what sums up ratings (their mean, deviation, number), which a name may mean; a note says so.

    Raises:
        GRMPError: a pattern that means none, fewer than two columns, or several of one name.
    """
    found: set[str] = set()
    passed: dict[str, None] = {}
    columns = [name for name in table.columns if name != images]
    for pattern in patterns:
        key = column_key(pattern)
        matched = [name for name in columns if name == pattern or fnmatch.fnmatchcase(column_key(name), key)]
        if not matched:
            listed = first_few([f'"{shown(name)}"' for name in columns], limit=8)
            raise GRMPError(
                f'{table.where}: expected columns of ratings such as "{shown(pattern)}", found {listed or "none"}; '
                "correct --rating-columns"
            )
        sums = [name for name in matched if name != pattern and _sums_up(name)]
        passed.update(dict.fromkeys(sums))
        found.update(name for name in matched if name not in sums)
    if len(found) < 2:
        raise GRMPError(
            f"{table.where}: expected columns of at least two raters for --rating-columns, got one; "
            "name it with --rating-column"
        )
    left = [f'"{shown(name)}"' for name in passed if name not in found]
    if left:
        notes.append(f"{table.where}: no raters, by their names: columns {', '.join(left)}; name them to take them")
    for name in found:
        _check_single(table, name, "--rating-columns")
    return [name for name in columns if name in found]


def _sums_up(name: str) -> bool:
    """Whether a column is called as what is computed from ratings."""
    words = column_key(name).split("_")
    return len(words) > 1 and not _SUMS.isdisjoint((words[0], words[-1]))


def gather_votes(
    table: Table,
    columns: Sequence[str],
    rater_column: str | None,
    places: Sequence[str],
    notes: list[str],
    *,
    wide: bool,
) -> Votes:
    """The single ratings of a table.

    Args:
        table: with these columns.
        columns: of the ratings: one, or with ``wide`` one a rater, whose empty cells are left out.
        rater_column: who has rated; None where nobody is named.
        places: what messages call each row.
        notes: given a sentence for each thing worth knowing.
        wide: whether the columns are those of one rater each.

    Raises:
        GRMPError: cells that are no numbers, a picture that nobody has rated, or no such column of raters.
    """
    rows: list[int] = []
    raters: list[str | None] = []
    values: list[float] = []
    for column in columns:
        cells = rating_cells(table, column, notes)
        known = [at for at in range(len(cells)) if not (wide and is_absent(cells[at]))]
        where = f'{table.where}, column "{shown(column)}"'
        values += parse_ratings([cells[at] for at in known], [places[at] for at in known], where=where)
        rows += known
        raters += [legacy(column) if wide else None] * len(known)
    if unrated := sorted(set(range(len(places))) - set(rows)):
        raise GRMPError(
            f"{table.where}: expected a rating by somebody in each row, got {len(unrated)} without: "
            f"{first_few([places[at] for at in unrated])}; rate these pictures or remove their lines"
        )
    if rater_column is not None:
        remedy = "name the column of the raters with --rater-column, or take --raters average"
        listed = list(table.columns)
        found = find_column(listed, (), wanted=rater_column, kind="rater", remedy=remedy, where=table.where)
        raters = [None if is_absent(cell) else legacy(str(cell).strip()) for cell in table.columns[found]]
    return Votes(rows, raters, values, [places[at] for at in rows])


def optional_cells(
    table: Table,
    used: set[str],
    places: Sequence[str],
    split_column: str | None,
    notes: list[str],
    width: float = math.inf,
) -> dict[str, list[Any]]:
    """Field of a row -> cells, for the optional columns that a table has.

    Raises:
        GRMPError: deviations that are no numbers of at least 0 or more than the width of the scale allows, votes that
            are no whole ones of at least 1, or a column of parts that was asked for and has none.
    """
    most = 1.01 * width / math.sqrt(2)  # of two ratings at the ends, and what rounding may add
    columns = [name for name in table.columns if name not in used]
    chosen = find_optional(columns)
    if split_column is not None:
        remedy = "name the column with --split-column, or leave it out"
        chosen["split"] = find_column(columns, (), wanted=split_column, kind="split", remedy=remedy, where=table.where)
    result: dict[str, list[Any]] = {}
    for field, column in list(chosen.items()):
        if column in table.repeated and not (field == "split" and split_column is not None):
            notes.append(f'{table.where}: column "{chosen.pop(field)}" is not used: several have this name')
            continue
        _check_single(table, column, "--split-column")
        if field in _LEAST:
            where = f'{table.where}, column "{column}"'
            cells = (rating_cells if field == "mos_std" else vote_cells)(table, column, notes)
            numbers = result[field] = _parse_numbers(cells, places, where, *_LEAST[field])
            if field == "mos_std":
                wrong = [f"{number:g} in {place}" for number, place in _given(numbers, places) if number > most]
                remedy = "correct them, or give the range with --range LOW HIGH"
                _refuse(wrong, where, f"deviations of at most {most:g}, all that the scale allows", remedy)
            else:
                wrong = [f"{number:g} in {place}" for number, place in _given(numbers, places) if number % 1]
                _refuse(wrong, where, "whole numbers of votes", "correct or rename the column")
        else:
            result[field] = [None if is_absent(cell) else legacy(str(cell).strip()) for cell in table.columns[column]]
    if "split" in result:
        result["split"] = [cell and SPLIT_WORDS.get(cell.casefold(), cell) for cell in result["split"]]
        if not _check_parts(result["split"], chosen["split"], split_column, table.where, notes):
            del result["split"], chosen["split"]
    if chosen:
        pairs = ", ".join(f'{field} from "{column}"' for field, column in chosen.items())
        notes.append(f"{table.where}: also {pairs}")
    return result


def _check_parts(cells: Sequence[str | None], column: str, wanted: str | None, where: str, notes: list[str]) -> bool:
    """Say whether a column tells parts, with a note on what it holds beside them."""
    parts = sorted({part for part in cells if part is not None})
    if "test" not in parts and wanted is not None:
        raise GRMPError(
            f'{where}, column "{column}": expected train and test (and validation), '
            f"got {first_few([shown(part) for part in parts]) or 'empty cells'}; "
            "write these words or leave --split-column out"
        )
    if not set(parts) & set(SPLIT_WORDS.values()):
        notes.append(f'{where}: column "{column}" is not used: it holds no train, validation or test')
        return False
    if others := [part for part in parts if part not in SPLIT_WORDS.values()]:
        notes.append(
            f'{where}, column "{column}": {sum(part in others for part in cells)} rows are in '
            f"other parts than train, validation and test: {first_few(others)}; they never test, and teach only where "
            "no row is marked train"
        )
    return True


def _parse_numbers(
    cells: Sequence[Any], places: Sequence[str], where: str, what: str, least: int
) -> list[float | None]:
    known = [i for i, cell in enumerate(cells) if not is_absent(cell)]
    numbers = parse_ratings([cells[i] for i in known], [places[i] for i in known], where=where)
    found: list[float | None] = [None] * len(cells)
    for i, number in zip(known, numbers, strict=True):
        found[i] = number
    below = [f"{number:g} in {place}" for number, place in _given(found, places) if number < least]
    if below:
        raise GRMPError(
            f"{where}: expected {what}, got {len(below)} below {least}: {first_few(below)}; "
            "correct or rename the column"
        )
    return found


def _given(numbers: Sequence[float | None], places: Sequence[str]) -> list[tuple[float, str]]:
    return [(number, place) for number, place in zip(numbers, places, strict=True) if number is not None]


def _refuse(wrong: Sequence[str], where: str, expected: str, remedy: str) -> None:
    if wrong:
        raise GRMPError(f"{where}: expected {expected}, got {len(wrong)} others: {first_few(wrong)}; {remedy}")


def _check_single(table: Table, column: str, option: str) -> None:
    if column in table.repeated:
        raise GRMPError(
            f'{table.where}: expected each column once, got "{shown(column)}" more than once with other cells; rename '
            f"one, or name another column with {option}"
        )


def _names_files(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, str) and Path(cell).suffix.lower() in READABLE for cell in cells)
