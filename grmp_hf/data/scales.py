"""Scales of ratings: the fixed map between the user's own numbers and quality in [0, 1]."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from grmp_hf.errors import GRMPError

__all__ = ["NOMINAL_RANGES", "RatingScale", "infer_scale"]

NOMINAL_RANGES: tuple[tuple[float, float], ...] = ((0, 1), (1, 5), (0, 5), (1, 10), (0, 10), (0, 100))
"""The ranges that `infer_scale` tries, narrowest first."""

_CODES = frozenset((9.0, 99.0, 999.0, 9999.0, -1.0, -9.0, -99.0, -999.0, -9999.0))
"""Numbers that stand for a missing one in many tables."""

_LEAST = 0.01
"""Largest rating from which on ratings may be meant from 0 to 1."""

_Value = TypeVar("_Value", float, NDArray[np.float64])


@dataclass(frozen=True)
class RatingScale:
    """The user's own scale of ratings: its nominal ends, which way is up, and the unit.

    quality = (mos - low) / (high - low), and 1 minus that where low is best.

    Args:
        low: smallest possible rating.
        high: largest possible rating.
        higher_is_better: False for ratings of damage (most DMOS).
        unit: word for a table's head, such as "stars"; empty for none.

    Raises:
        GRMPError: ends that are not finite or not in order.

    Examples:
        >>> scale = RatingScale(1, 5, unit="stars")
        >>> scale.to_quality(4.0), scale.to_score(0.75), str(scale)
        (0.75, 4.0, '1 (worst) to 5 (best) stars')
        >>> RatingScale(0, 100, higher_is_better=False).to_quality(10.0)
        0.9
    """

    low: float
    high: float
    higher_is_better: bool = True
    unit: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and self.low < self.high and math.isfinite(self.high - self.low)):
            raise GRMPError(
                f"expected a range of ratings from a low to a high number, got {self.low} to {self.high}; "
                "a scale where low is best keeps this order and sets higher_is_better=False (--lower-is-better)"
            )

    def to_quality(self, mos: _Value) -> _Value:
        """Map ratings on this scale, a float or an array, to quality in [0, 1], 1 = best."""
        share = (mos - self.low) / (self.high - self.low)
        return share if self.higher_is_better else 1.0 - share

    def to_score(self, quality: _Value) -> _Value:
        """Map quality in [0, 1], a float or an array, to this scale; 0 and 1 give the ends exactly."""
        share = quality if self.higher_is_better else 1.0 - quality
        return self.low * (1.0 - share) + self.high * share

    @property
    def places(self) -> int:
        """Places after the point with which scores are written: to a millionth of the scale, and six at least."""
        return max(6, 6 - math.floor(math.log10(self.high - self.low)))

    def contains(self, mos: float) -> bool:
        """Say whether a rating lies on the scale, ends included."""
        return self.low <= mos <= self.high

    def to_dict(self) -> dict[str, float | bool | str]:
        """Return the four fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> RatingScale:
        """Build the scale from `to_dict`'s output.

        Raises:
            GRMPError: no mapping, or fields that are missing, unknown or of another type.
        """
        known = fields if isinstance(fields, Mapping) else {}
        low, high, up, unit = (known.get(name) for name in ("low", "high", "higher_is_better", "unit"))
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        if len(known) != 4 or not (numbers and isinstance(up, bool) and isinstance(unit, str)):
            raise GRMPError(
                "expected a rating scale with the numbers low and high, the truth value higher_is_better and the "
                f"text unit, got {fields!r}; write it with RatingScale.to_dict"
            )
        return cls(float(low), float(high), up, unit)  # type: ignore[arg-type]  # checked above

    def __str__(self) -> str:
        ends = ("worst", "best") if self.higher_is_better else ("best", "worst")
        return f"{self.low:.15g} ({ends[0]}) to {self.high:.15g} ({ends[1]}) {self.unit}".rstrip()


def infer_scale(ratings: Sequence[float], *, higher_is_better: bool = True) -> tuple[RatingScale, str]:
    """Choose the narrowest of `NOMINAL_RANGES` that holds all ratings, and say so.

    The guess is a convention, not knowledge: ratings given from 0 to 10 that happen to lie between 1 and 5 look like
    stars. Orders and correlations are the same either way, the printed scores are not. So the sentence must be shown.

    Args:
        ratings: finite numbers, at least one.
        higher_is_better: which way is up, in the result.

    Returns:
        The scale, and one sentence with what was found, assumed, and how to change it.

    Raises:
        GRMPError: no range holds all ratings, or all of them are below .01; or many are 0 and no other is near, or the
            largest is 9, 99, 999 or the smallest -1, -9, -99 and far from the others, which may mean "not rated".

    Examples:
        >>> scale, note = infer_scale([2.5, 4.0, 3.0])
        >>> print(note)
        ratings run from 2.5 to 4 and no range was given: taken as 1 (worst) to 5 (best); --range LOW HIGH changes this
    """
    smallest, largest = min(ratings), max(ratings)
    _check_codes(ratings)
    zeros = _check_zeros(ratings)
    for low, high in NOMINAL_RANGES:
        if low <= smallest and largest <= high:
            _check_share(smallest, largest)
            scale = RatingScale(float(low), float(high), higher_is_better)
            found = f"ratings run from {smallest:g} to {largest:g} and no range was given"
            return scale, f"{found}: taken as {scale}; --range LOW HIGH changes this{zeros}"
    known = ", ".join(f"{low:g} to {high:g}" for low, high in NOMINAL_RANGES)
    raise GRMPError(
        f"expected ratings within one of the usual ranges ({known}), got {smallest:g} to {largest:g}; "
        "give the range with --range LOW HIGH, or scale=RatingScale(low, high) in Python"
    )


def _check_share(smallest: float, largest: float) -> None:
    """Refuse to take for 0 to 1 what fills less than a hundredth of it: errors, distances, shares of a sum."""
    if 0 < largest < _LEAST:
        raise GRMPError(
            f"expected ratings that use one of the usual ranges, got {smallest:g} to {largest:g}, less than a "
            "hundredth of 0 to 1; give the range with --range LOW HIGH, or scale=RatingScale(low, high) in Python"
        )


def _check_zeros(ratings: Sequence[float]) -> str:
    """Refuse many zeros apart from all other ratings; return what to say of a few."""
    others = [rating for rating in ratings if rating != 0]
    if len(others) == len(ratings) or not others or min(others) <= 0 or max(others) <= 1:
        return ""
    zeros, lowest, highest = len(ratings) - len(others), min(others), max(others)
    if lowest < (1 if highest <= 10 else 10):
        return ""
    apart = _apart(ratings, 0)
    if zeros < 2 or zeros < 0.05 * len(ratings):
        return f"; {apart}: remove the lines where 0 means that a picture was not rated"
    end = next((high for low, high in NOMINAL_RANGES if low == 0 and highest <= high), highest)
    _ask(ratings, 0, (0, end))


def _check_codes(ratings: Sequence[float]) -> None:
    """Refuse numbers by which programs of statistics say that there is none, far from all other ratings."""
    for code in {min(ratings), max(ratings)} & _CODES:
        others = [rating for rating in ratings if rating != code]
        if len(others) < 3:
            continue
        lowest, highest = min(others), max(others)
        gap, whole = max(lowest - code, code - highest), highest - lowest
        repeated = len(ratings) - len(others) > 1
        if gap > whole or (gap == whole and repeated) or (code < 0 and lowest >= 1):
            ends = min(code, lowest), max(code, highest)
            fitting = ((low, high) for low, high in NOMINAL_RANGES if low <= ends[0] and ends[1] <= high)
            _ask(ratings, code, next(fitting, ends))


def _apart(ratings: Sequence[float], code: float) -> str:
    others = [rating for rating in ratings if rating != code]
    count = len(ratings) - len(others)
    return f"{count} of {len(ratings)} ratings are {code:g} and the others run from {min(others):g} to {max(others):g}"


def _ask(ratings: Sequence[float], code: float, ends: tuple[float, float]) -> NoReturn:
    raise GRMPError(
        f"expected to know what {code:g} means: {_apart(ratings, code)}; if {code:g} is a rating, say so with "
        f"--range {ends[0]:g} {ends[1]:g}; if it stands for pictures that were not rated, remove their lines"
    )
