"""Cells that should be ratings: what is a number, and what is refused, with its line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from grmp_hf.data.columns import first_few, is_empty, shown
from grmp_hf.data.scales import RatingScale
from grmp_hf.errors import GRMPError

__all__ = ["MIN_RATINGS", "NestedCell", "check_ratings", "parse_ratings"]

MIN_RATINGS = 5
"""Fewer ratings than this say nothing about a taste, and no correlation means anything."""


@dataclass(frozen=True)
class NestedCell:
    """In the place of a cell that holds several values: what it is, for messages."""

    kind: str

    def __str__(self) -> str:
        return self.kind


def parse_ratings(cells: Sequence[object], places: Sequence[str], *, where: str) -> list[float]:
    """Turn the cells of a column into finite numbers.

    Args:
        cells: (N,) text or numbers.
        places: (N,) what to call each cell in a message, such as "line 3 (a.jpg)".
        where: table and column, for the message.

    Returns:
        (N,) finite floats.

    Raises:
        GRMPError: cells that are empty, hold several values, are written with a comma, other text, NaN or infinite.

    Examples:
        >>> parse_ratings(["3.5", 4], ["line 2", "line 3"], where="labels.csv")
        [3.5, 4.0]
    """
    faults = (
        (is_empty, "empty", "rate these pictures or remove their lines"),
        (_is_nested, "that hold several values", "write one number a picture, such as the mean of its votes"),
        (_has_comma, "with a comma", "write a decimal point, and nothing between thousands"),
        (_is_no_number, "that are no number", "correct them or remove their lines"),
        (_is_not_finite, "NaN or infinite", "correct them or remove their lines"),
    )
    for is_faulty, fault, remedy in faults:
        bad = [f'"{shown(cell)}" in {place}' for cell, place in zip(cells, places, strict=True) if is_faulty(cell)]
        if bad:
            raise GRMPError(f"{where}: expected numbers, got {len(bad)} {fault}: {first_few(bad)}; {remedy}")
    return [float(cell) for cell in cells]  # type: ignore[arg-type]  # every cell is a number by now


def check_ratings(
    ratings: Sequence[float], places: Sequence[str], *, where: str, scale: RatingScale | None = None
) -> None:
    """Refuse ratings from which nothing can be learnt or measured.

    Args:
        ratings: (N,) finite.
        places: (N,) as for `parse_ratings`.
        where: table and column, for the message.
        scale: the scale on which all of them must lie, when it is known.

    Raises:
        GRMPError: fewer than `MIN_RATINGS`, all equal, or some outside the scale.
    """
    if len(ratings) < MIN_RATINGS:
        raise GRMPError(
            f"{where}: expected at least {MIN_RATINGS} rated pictures, got {len(ratings)}; "
            "fewer say nothing about a taste: rate some more, ten or better fifty"
        )
    if min(ratings) == max(ratings):
        raise GRMPError(
            f"{where}: expected ratings that differ, got {ratings[0]:g} for all {len(ratings)} pictures; "
            "check the rating column, or rate good and bad pictures"
        )
    if scale is None:
        return
    outside = [f"{mos:g} in {place}" for mos, place in zip(ratings, places, strict=True) if not scale.contains(mos)]
    if outside:
        raise GRMPError(
            f"{where}: expected ratings from {scale}, got {len(outside)} outside: {first_few(outside)}; "
            "correct them, or widen the range with --range LOW HIGH"
        )


def _is_nested(cell: object) -> bool:
    return isinstance(cell, NestedCell | list | tuple | dict)


def _has_comma(cell: object) -> bool:
    return isinstance(cell, str) and re.fullmatch(r"\s*[+-]?[0-9.]*,[0-9.,]*\s*", cell) is not None


def _is_no_number(cell: object) -> bool:
    if isinstance(cell, bool) or not isinstance(cell, str | int | float | Decimal):
        return True
    if isinstance(cell, str) and "_" in cell:  # Python reads "3_5" as 35
        return True
    try:
        float(cell)
    except (ValueError, OverflowError):
        return True
    return False


def _is_not_finite(cell: object) -> bool:
    return not math.isfinite(float(cell))  # type: ignore[arg-type]  # _is_no_number has been asked before
