"""Choices between two pictures, without any score -> rated pictures: what each is worth, and how sure that is.

Bradley and Terry's model: picture i is chosen before j with probability ``sigmoid(v_i - v_j)``, a tie is half a choice
for either, and ``v ~ N(0, 1.5^2)``, so that pictures that no choice connects, and a picture that always wins, have a
value. The quality of a picture is ``sigmoid(v)``: how often it would be chosen before one in the middle.

Source: Bradley and Terry, "Rank Analysis of Incomplete Block Designs" (1952); the prior as in ridge regression.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.columns import BLANKS, RatedTable, Row, column_key, find_column, first_few, is_absent, shown
from grmp_hf.data.files import find_pictures
from grmp_hf.data.numbers import MIN_RATINGS
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.sources import open_table
from grmp_hf.data.tables import Table
from grmp_hf.errors import GRMPError

__all__ = ["fit_choices", "read_pairs"]

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_BETTER = ("better", "winner", "chosen", "preferred")
_WORSE = ("worse", "loser", "rejected")
_FIRST = ("a", "first", "left", "image_a", "picture_a", "image_1", "image1")
_SECOND = ("b", "second", "right", "image_b", "picture_b", "image_2", "image2")
_CHOICE = ("choice", "answer", "winner", "better", "preferred", "preference", "vote")
_SIDES = (("a", "first", "left", "1"), ("b", "second", "right", "2"))
_TIES = ("tie", "equal", "same", "draw", "both", "neither", "=")
_COUNTS = ("count", "counts", "n", "times", "weight", "votes", "n_votes", "num_votes", "vote_count")
_SPREAD = 1.5  # of the values, before any choice is seen


def read_pairs(source: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None) -> RatedTable:
    """Read choices between pictures: one a row, as ``better,worse`` or as ``a,b,choice``.

    Args:
        source: a table (.csv, .tsv, .txt, .jsonl, .ndjson, .parquet). A choice is ``a`` or ``b`` (also first and
            second, left and right, 1 and 2), the name of its picture or of its column, or a tie (tie, equal, same,
            draw, both, neither, =).
        images: folder of the pictures; found as by :func:`~grmp_hf.data.read_ratings`.

    Returns:
        A row a picture, in the order in which they come, on a scale from 0 to 1; ``mos_std`` is the deviation of its
        quality. ``votes`` is open, so that deviations decide moderately (:mod:`grmp_hf.data.certainty`).

    Raises:
        GRMPError: no such table or columns, no choice in a row, pictures that are not there, a picture against itself,
            fewer than five pictures, or choices that say nothing.

    >>> read_pairs("pairs.csv", images="photos")  # doctest: +SKIP
    """
    path = Path(source)
    if not path.is_file():
        raise GRMPError(f"{path}: expected a table of choices between pictures, found no such file; check the spelling")
    table, notes = open_table(path)
    notes += table.notes
    first, second, share = _choices(table, notes)
    notes += [
        f'{table.where}: column "{shown(name)}" is not used: a row is one choice; repeat rows that stand for several'
        for name, cells in table.columns.items()
        if column_key(name) in _COUNTS and any(str(cell).strip(BLANKS) not in ("", "1", "1.0") for cell in cells)
    ]
    names, places, of = _unique([*first, *second], [*table.places, *table.places])
    told = Table(table.where, {"picture": names}, places, table.folder)
    pictures, written = find_pictures(told, "picture", names, None if images is None else Path(images), True)
    of, kept = _same_files(pictures, of)
    one, other = np.split(of, 2)
    _check(table, one, other, len(kept))
    values, variances = fit_choices(one, other, share, len(kept))
    if np.ptp(values) < 1e-9:
        raise GRMPError(f"{table.where}: expected choices that tell pictures apart, got none; compare other pictures")
    notes += _describe(table.where, one, other, share, len(kept))
    quality = 1 / (1 + np.exp(-values))
    deviations = quality * (1 - quality) * np.sqrt(variances)
    rows = tuple(
        Row(pictures[at], written[at], float(q), float(q), float(s), dataset=path.resolve().name)
        for at, q, s in zip(kept, quality, deviations, strict=True)
    )
    names = [row.name for row in rows]
    choices = tuple((names[a], names[b], float(s)) for a, b, s in zip(one, other, share, strict=True))
    return RatedTable(path.resolve().name, rows, RatingScale(0.0, 1.0), tuple(notes), choices=choices)


def fit_choices(
    first: Places, second: Places, share: Floats, pictures: int, *, spread: float = _SPREAD
) -> tuple[Floats, Floats]:
    """Value and variance of each picture under the model at the head of this module: the mode, and Laplace's variance.

    The posterior is concave whatever was chosen: cycles and pictures that were never compared do no harm.

    Args:
        first, second: ``(C,)`` numbers from 0, the pictures of each choice.
        share: ``(C,)`` in [0, 1], how much of the choice is the first picture's: 1, 0, or .5 for a tie.
        pictures: n.
        spread: deviation of the values before any choice is seen.

    Returns:
        ``(n,)`` and ``(n,)``.

    >>> values, variances = fit_choices(np.array([0, 0]), np.array([1, 1]), np.array([1.0, 0.0]), 3)
    >>> values.tolist(), bool(variances[0] < variances[2])
    ([0.0, 0.0, 0.0], True)
    """
    from scipy import optimize

    precision = spread**-2

    def chance(values: Floats) -> Floats:
        found: Floats = 1 / (1 + np.exp(values[second] - values[first]))
        return found

    def loss(values: Floats) -> float:
        ahead = values[first] - values[second]
        choices = np.logaddexp(0, ahead) - share * ahead
        return float(choices.sum() + precision / 2 * values @ values)

    def slope(values: Floats) -> Floats:
        wrong = chance(values) - share
        found: Floats = np.bincount(first, wrong, pictures) - np.bincount(second, wrong, pictures) + precision * values
        return found

    def curvature(values: Floats) -> Floats:
        at = chance(values)
        found = np.diag(np.full(pictures, precision))
        for left, right, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
            np.add.at(found, (left, right), sign * at * (1 - at))
        return found

    begin, options = np.zeros(pictures), {"gtol": 1e-9}
    found = optimize.minimize(loss, begin, jac=slope, hess=curvature, method="trust-exact", options=options)
    values: Floats = found.x
    return values, np.diag(np.linalg.inv(curvature(values)))


def _choices(table: Table, notes: list[str]) -> tuple[list[str], list[str], Floats]:
    """Names of both pictures of each row, and the share of the first one."""
    columns = list(table.columns)
    keys = {column_key(name) for name in columns}
    if keys & set(_BETTER) and keys & set(_WORSE):
        better, worse = _column(table, _BETTER), _column(table, _WORSE)
        notes.append(f'{table.where}: pictures from column "{shown(better)}" were chosen before "{shown(worse)}"')
        return _names(table, better), _names(table, worse), np.ones(len(table.places))
    if not (keys & set(_FIRST) and keys & set(_SECOND) and keys & set(_CHOICE)):
        raise GRMPError(
            f'{table.where}: expected columns "better" and "worse", or "a", "b" and "choice", found '
            f"{first_few([shown(name) for name in columns], limit=8)}; rename them"
        )
    first, second, choice = (_column(table, usual) for usual in (_FIRST, _SECOND, _CHOICE))
    notes.append(f'{table.where}: choices between "{shown(first)}" and "{shown(second)}" from column "{shown(choice)}"')
    one, other = _names(table, first), _names(table, second)
    sides = [{*words, column_key(name)} for words, name in zip(_SIDES, (first, second), strict=True)]
    found = [
        _share(str(cell).strip(BLANKS), pair, sides)
        for cell, pair in zip(table.columns[choice], zip(one, other, strict=True), strict=True)
    ]
    wrong = [
        f'"{shown(cell)}" in {place}'
        for cell, place, share in zip(table.columns[choice], table.places, found, strict=True)
        if share is None
    ]
    if wrong:
        raise GRMPError(
            f'{table.where}, column "{shown(choice)}": expected a, b, the name of a picture of the row, or tie, got '
            f"{len(wrong)} others: {first_few(wrong)}; correct them or remove their lines"
        )
    return one, other, np.array([share for share in found if share is not None])


def _share(cell: str, pair: tuple[str, str], sides: Sequence[set[str]]) -> float | None:
    """What a cell says of the first picture: 1, 0 or .5; None where it is no answer."""
    if cell in pair and pair[0] != pair[1]:
        return float(cell == pair[0])
    key = column_key(cell)
    if key in sides[0]:
        return 1.0
    if key in sides[1]:
        return 0.0
    return 0.5 if key in _TIES else None


def _column(table: Table, usual: Sequence[str]) -> str:
    found = find_column(list(table.columns), usual, wanted=None, kind="choice", remedy="rename it", where=table.where)
    if found in table.repeated:
        raise GRMPError(f'{table.where}: expected each column once, got "{shown(found)}" more than once; rename one')
    return found


def _names(table: Table, column: str) -> list[str]:
    cells = table.columns[column]
    empty = [place for cell, place in zip(cells, table.places, strict=True) if is_absent(cell)]
    if empty:
        raise GRMPError(
            f'{table.where}, column "{shown(column)}": expected the name of a picture in each row, got {len(empty)} '
            f"without: {first_few(empty)}; name the pictures or remove the lines"
        )
    if not all(isinstance(cell, str) for cell in cells):
        raise GRMPError(f'{table.where}, column "{shown(column)}": expected names of picture files, got others')
    return [cell.strip(BLANKS) for cell in cells]


def _unique(names: Sequence[str], places: Sequence[str]) -> tuple[list[str], list[str], Places]:
    """Names without repetition, where each comes first, and the number of each of the given ones."""
    numbers: dict[str, int] = {}
    for name in names:
        numbers.setdefault(name, len(numbers))
    seen: dict[str, str] = {}
    for name, place in zip(names, places, strict=True):
        seen.setdefault(name, place)
    return list(numbers), [seen[name] for name in numbers], np.array([numbers[name] for name in names])


def _same_files(pictures: Sequence[Path], of: Places) -> tuple[Places, list[int]]:
    """Numbers of files instead of names, and which name stands for each."""
    files: dict[str, int] = {}
    kept: list[int] = []
    number: list[int] = []
    for at, picture in enumerate(pictures):
        key = os.path.realpath(picture)
        if key not in files:
            files[key] = len(kept)
            kept.append(at)
        number.append(files[key])
    return np.array(number)[of], kept


def _check(table: Table, first: Places, second: Places, pictures: int) -> None:
    itself = [table.places[at] for at in np.flatnonzero(first == second).tolist()]
    if itself:
        raise GRMPError(
            f"{table.where}: expected choices between two pictures, got {len(itself)} of a picture against itself: "
            f"{first_few(itself)}; remove these lines"
        )
    if pictures < MIN_RATINGS:
        raise GRMPError(
            f"{table.where}: expected choices between at least {MIN_RATINGS} pictures, got {pictures}; compare more"
        )


def _describe(where: str, first: Places, second: Places, share: Floats, pictures: int) -> list[str]:
    """Sentences on what was chosen."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = coo_array((np.ones(len(first)), (first, second)), shape=(pictures, pictures))
    parts = int(connected_components(pairs, directed=False, return_labels=False))
    ties = int((share == 0.5).sum())
    notes = [f"{where}: {len(share)} choices between {pictures} pictures, {ties} of them ties, give values from 0 to 1"]
    decided = share != 0.5
    winners, losers = np.where(share > 0.5, first, second)[decided], np.where(share > 0.5, second, first)[decided]
    graph = coo_array((np.ones(len(winners)), (winners, losers)), shape=(pictures, pictures))
    _, member = connected_components(graph, directed=True, connection="strong")
    circled = int((np.bincount(member)[member] > 1).sum())
    if circled:
        notes.append(
            f"{where}: choices go in circles among {circled} pictures, which is allowed: values lie between them"
        )
    if parts > 1:
        notes.append(f"{where}: {parts} groups of pictures that no choice connects: their middles are taken for equal")
    return notes
