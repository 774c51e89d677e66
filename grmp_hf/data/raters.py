"""Several ratings of one picture -> one row: each rater's own use of the scale taken out, then the mean.

With y the rating of picture p by rater r, offsets are those of ``y = q_p + o_r`` by least squares with a penalty on
``o``, gains the deviation of a rater's ratings relative to that of all ratings of the same pictures, drawn to 1. Both
are of raters who have rated enough pictures that others rated too; all others are taken as they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.columns import Row, first_few, shown
from grmp_hf.data.scales import RatingScale
from grmp_hf.errors import GRMPError

__all__ = ["Votes", "bring_together", "picture_key", "settle"]

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_ENOUGH = 8  # pictures that others rated too, for a rater to have an offset and a gain
_DRAWN = 8.0  # ratings that an offset of 0 and a gain of 1 count
_LARGEST_GAIN = 4.0
_FAR, _NEAR = 8.0, 3.0  # times the usual range of a rater: another scale, and one where the two ranges do not meet
_SWEEPS = 100
_DOUBT = 3.3  # deviations below 0 of a correlation (Fisher's z): one rater in two thousand by chance


@dataclass(frozen=True)
class Votes:
    """Single ratings, in any order.

    Attributes:
        rows: ``(V,)``, which row of the table each is of.
        raters: ``(V,)`` names; None where nobody is named.
        values: ``(V,)``, on the scale of the table.
        places: ``(V,)``, what messages call each.
    """

    rows: Sequence[int]
    raters: Sequence[str | None]
    values: Sequence[float]
    places: Sequence[str]


def picture_key(row: Row) -> str:
    """What rows of one picture share: its file, whatever it is called, or else its name."""
    return os.path.realpath(row.image) if isinstance(row.image, Path) else row.name


def bring_together(
    rows: Sequence[Row], votes: Votes, scale: RatingScale, where: str, notes: list[str], *, guessed: bool = False
) -> tuple[Row, ...]:
    """One row a picture, the first of each, with mean, deviation and number of its votes.

    Args:
        rows: of the table, several of which may be of one picture; their ratings are not looked at.
        votes: of these rows.
        scale: of the votes; a mean is held to its ends.
        where: name of the table, for messages.
        notes: given a sentence for each thing worth knowing.
        guessed: whether the scale follows from the ratings, which then must be on one.

    Raises:
        GRMPError: a picture in two parts of the table, or raters on scales of their own.
    """
    numbers: dict[str, int] = {}
    first: list[Row] = []
    of_row: list[int] = []
    for row in rows:
        at = numbers.setdefault(picture_key(row), len(first))
        first += [row] if at == len(first) else []
        of_row.append(at)
    parted = [row.name for row, at in zip(rows, of_row, strict=True) if row.split != first[at].split]
    if parted:
        raise GRMPError(
            f"{where}: expected each picture in one part of the table, got {len(parted)} rows that say another: "
            f"{first_few([shown(name) for name in parted])}; correct the column of the parts"
        )
    pictures = np.array(of_row)[list(votes.rows)]
    pictures, raters, values = _once(pictures, votes, where, notes)
    apart = _apart(raters, values)
    if apart is not None and guessed:
        raise GRMPError(
            f"{where}: expected raters on one scale, got ratings {apart}; bring them to one scale or leave some out, "
            "or say that it is one (--range)"
        )
    if apart is not None:
        notes.append(f"{where}: ratings {apart}: are they on one scale?")
    values, said = settle(pictures, raters, values, scale)
    named = len({rater for rater in raters if rater is not None})
    by = f" by {named} raters" if named else ""
    notes += [f"{where}: {len(values)} ratings of {len(first)} pictures{by} are brought together, as means"]
    notes += [f"{where}: {note}" for note in said]
    if any(row.mos_std is not None or row.votes is not None for row in rows):
        notes.append(f"{where}: deviations and numbers of votes are those of these ratings, not of the table's columns")
    means, deviations, counts = _moments(pictures, values, len(first))
    if counts.max() == 1:
        notes.append(f"{where}: no picture has a second rating: check the names of the pictures")
    means = np.clip(means, scale.low, scale.high)
    return tuple(
        replace(
            row,
            mos=float(mean),
            quality=float(scale.to_quality(float(mean))),
            mos_std=float(deviation) if count > 1 else None,
            votes=float(count),
        )
        for row, mean, deviation, count in zip(first, means, deviations, counts, strict=True)
    )


def settle(
    pictures: Places, raters: Sequence[str | None], values: Floats, scale: RatingScale
) -> tuple[Floats, list[str]]:
    """Ratings without what is a rater's own: a scale upside down, an offset, a gain.

    A rater whose ratings fall, beyond doubt, where the mean of at least two others rises has used the scale upside
    down: these ratings are turned round, since their order is worth as much as anybody's, and the rater is named. Where
    those who would be turned are not fewer than those who then agree with them, nobody is.

    Args:
        pictures: ``(V,)``, numbers from 0.
        raters: ``(V,)``, a name or None, once a picture each.
        values: ``(V,)``.
        scale: of the values.

    Returns:
        ``(V,)``, and sentences on what was done.

    """
    names = list(dict.fromkeys(rater for rater in raters if rater is not None))
    if not names:
        return values, []
    places = {name: at for at, name in enumerate(names)}
    nobody = len(names)  # the place of all who are not named
    of = np.array([nobody if rater is None else places[rater] for rater in raters])
    shared = np.bincount(pictures)[pictures] > 1
    often = np.bincount(of[shared], minlength=nobody + 1)
    often[nobody] = 0
    values, notes = _turn(pictures, of, values, often, names, scale)
    settled = values - _offsets(pictures, of, values, often)[of]
    gains, centres, steady = _gains(pictures, of, settled, often)
    settled = centres[of] + (settled - centres[of]) / gains[of]
    if steady.any():
        who = first_few([f'"{shown(names[at])}"' for at in np.flatnonzero(steady).tolist()])
        notes.append(f"ratings by {who} hardly differ: they count, and say nothing of which picture is better")
    few = int((often[:nobody] < _ENOUGH).sum())
    but = f", but for {few} of {nobody}, who have rated fewer than {_ENOUGH} pictures that others rated too"
    notes.append("each rater's own offset and gain are taken out" + (but if few else ""))
    return settled, notes


def _once(pictures: Places, votes: Votes, where: str, notes: list[str]) -> tuple[Places, list[str | None], Floats]:
    """The votes, where a rater who has rated a picture several times counts once, by his mean."""
    kept: dict[tuple[int, object], list[float]] = {}
    for at, (picture, rater) in enumerate(zip(pictures.tolist(), votes.raters, strict=True)):
        kept.setdefault((picture, at if rater is None else rater), []).append(votes.values[at])
    if len(kept) < len(votes.values):
        notes.append(
            f"{where}: {len(votes.values) - len(kept)} ratings are a rater's second of a picture: his mean counts"
        )
    who = [rater if isinstance(rater, str) else None for _, rater in kept]
    found = np.array([float(np.mean(given)) for given in kept.values()])
    return np.array([picture for picture, _ in kept]), who, found


def _turn(
    pictures: Places, of: Places, values: Floats, often: Places, names: Sequence[str], scale: RatingScale
) -> tuple[Floats, list[str]]:
    """Values of raters who are upside down turned round, the most certain first; and sentences on them."""
    notes: list[str] = []
    given, done = values, np.zeros(len(often), dtype=bool)
    while True:
        settled = values - _offsets(pictures, of, values, often)[of]
        certain = _against(pictures, of, settled, often, others=2)
        worst: int = np.where(done, 0, certain[0]).argmin().item()
        if certain[0][worst] > -_DOUBT or done[worst]:
            break
        done[worst] = True
        values = np.where(of == worst, scale.low + scale.high - values, values)
        notes.append(
            f'rater "{shown(names[worst])}" has used the scale upside down (correlation {certain[1][worst]:.2f} with '
            "the mean of the others): these ratings are turned round"
        )
    agree = ~done & (certain[0] >= _DOUBT)
    if done.any() and done.sum() >= agree.sum():
        sides = (first_few([f'"{shown(names[at])}"' for at in np.flatnonzero(side).tolist()]) for side in (done, agree))
        one, other = (side or "nobody" for side in sides)
        notes = [
            f"raters {one} use the scale the other way round than {other}, and neither are clearly more: all ratings "
            "are kept as they are; leave out those that are upside down"
        ]
        return given, notes
    unsure = np.flatnonzero(_against(pictures, of, settled, often, others=1)[0] <= -_DOUBT)
    if len(unsure) > 1 or (len(unsure) and not done.any()):
        who = first_few([f'"{shown(names[at])}"' for at in unsure.tolist()])
        notes.append(f"raters {who} contradict one another, and too few others say which of them is upside down")
    return values, notes


def _against(pictures: Places, of: Places, values: Floats, often: Places, *, others: int) -> tuple[Floats, Floats]:
    """How many deviations above 0 each rater's correlation with the mean of the others is, and the correlation.

    Args:
        others: how many must have rated a picture, beside the rater, for it to count.
    """
    counts, sums = np.bincount(pictures), np.bincount(pictures, values)
    used = counts[pictures] > others
    rest = (sums[pictures[used]] - values[used]) / (counts[pictures[used]] - 1)
    who, own, size = of[used], values[used], len(often)
    n = np.bincount(who, minlength=size)

    def centred(x: Floats) -> Floats:
        found: Floats = x - (np.bincount(who, x, size) / np.maximum(n, 1))[who]
        return found

    own, rest = centred(own), centred(rest)
    products = [np.bincount(who, a * b, size) for a, b in ((own, rest), (own, own), (rest, rest))]
    length = np.sqrt(products[1] * products[2])
    correlation = np.divide(products[0], length, out=np.zeros(size), where=(length > 1e-12) & (n >= _ENOUGH))
    correlation[-1] = 0  # of nobody
    return np.arctanh(np.clip(correlation, -0.999999, 0.999999)) * np.sqrt(np.maximum(n - 3, 0)), correlation


def _offsets(pictures: Places, of: Places, values: Floats, often: Places) -> Floats:
    """Offset ``(R + 1,)`` of each rater; 0 of those who have rated too little with others."""
    counts, size = np.bincount(pictures), len(often)
    shared = counts[pictures] > 1
    found = np.zeros(size)
    for _ in range(_SWEEPS):
        rest = values - (np.bincount(pictures, values - found[of]) / np.maximum(counts, 1))[pictures]
        sums = np.bincount(of[shared], rest[shared], size)
        found = np.where(often >= _ENOUGH, sums / (often + _DRAWN), 0)
    return found


def _apart(raters: Sequence[str | None], values: Floats) -> str | None:
    """Which raters seem to be on another scale than most, in words; None where all are on one."""
    given: dict[str, list[float]] = {}
    for rater, value in zip(raters, values.tolist(), strict=True):
        if rater is not None:
            given.setdefault(rater, []).append(value)
    ends = {name: (min(own), max(own)) for name, own in given.items() if len(own) >= _ENOUGH and min(own) < max(own)}
    by_range = sorted(ends, key=lambda name: ends[name][1] - ends[name][0])
    if len(by_range) < 2:
        return None
    usual = by_range[(len(by_range) - 1) // 2]
    low, high = ends[usual]
    others = []
    for name in by_range:
        first, last = ends[name]
        times, meet = (last - first) / (high - low), first < high and low < last
        if times >= _FAR or (not meet and max(times, 1 / times) >= _NEAR):
            others.append(f'"{shown(name)}" from {first:g} to {last:g}')
    return f'by "{shown(usual)}" from {low:g} to {high:g}, by {first_few(others)}' if others else None


def _gains(pictures: Places, of: Places, values: Floats, often: Places) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Of each rater ``(R + 1,)``: gain, mean of all ratings of the pictures rated with others, and who hardly varies.

    Gains are relative to those of all who vary, so that nobody who does not moves the others.
    """
    counts, size = np.bincount(pictures), len(often)
    shared = counts[pictures] > 1
    at, who, own = pictures[shared], of[shared], values[shared]

    def spread(*sums: Floats) -> tuple[Floats, Floats]:
        n, first, second = (np.bincount(who, x, size) for x in sums)
        mean = first / np.maximum(n, 1)
        return mean, np.sqrt(np.maximum(second / np.maximum(n, 1) - mean**2, 0))

    middle = float(values.mean())  # squares are of what is left, so that equal ratings have no spread but rounding's
    together = [np.bincount(pictures, (values - middle) ** power)[at].astype(np.float64) for power in (0, 1, 2)]
    _, mine = spread(np.ones(len(own)), own - middle, (own - middle) ** 2)
    centre, all_of = spread(*together)
    known = (often >= _ENOUGH) & (all_of > 1e-6 * np.abs(values).max())
    ratio = np.divide(mine, all_of, out=np.ones(size), where=known)
    least = max(float(np.median(ratio[known])) / _LARGEST_GAIN, 1e-6) if known.any() else 0.0
    steady = known & (ratio < least)
    varied = known & ~steady
    usual = np.exp(
        (often[varied] * np.log(ratio[varied])).sum() / max(often[varied].sum(), 1)
    )  # of all: what offsets add
    ratio = np.where(varied, ratio / usual, 1)
    return np.clip(ratio, 1 / _LARGEST_GAIN, _LARGEST_GAIN) ** (often / (often + _DRAWN)), centre + middle, steady


def _moments(pictures: Places, values: Floats, size: int) -> tuple[Floats, Floats, Places]:
    """Mean, deviation and number ``(n,)`` of the votes of each picture."""
    counts = np.bincount(pictures, minlength=size)
    means = np.bincount(pictures, values, size) / np.maximum(counts, 1)
    squares = np.bincount(pictures, np.square(values - means[pictures]), size)
    return means, np.sqrt(squares / np.maximum(counts - 1, 1)), counts
