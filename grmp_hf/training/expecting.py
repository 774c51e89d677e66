"""What more ratings would bring, from the rated pictures alone.

The shots are divided again and again: a quarter is held out, and of the others more and more teach, at the strengths
that all have decided. How well the held-out ratings are then ordered is a learning curve, which is taken to follow a
power law in the number m of those that teach::

    correlation(m) = limit - b / sqrt(m)

Few shots say little about their own curve, and the strengths, which grow with them, are fixed. So what the curve says
is blended with what more ratings have brought elsewhere, and the bounds are those of other worlds
(benchmarks/bench_suggest.py). Letters in shapes: n shots, d features of a group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grmp_hf.training.evidence import Belief

__all__ = ["MORE", "ExpectedGain", "blend", "expected_gain", "slope_of_curve"]

Floats = NDArray[np.float64]
Places = NDArray[np.integer[Any]]

MORE = 20
"""Ratings whose gain is foretold."""

_DIVISIONS = 40
_SHARES = (0.25, 0.375, 0.5, 0.625, 0.75)  # of the shots, that teach
_HELD_OUT = 0.25
_FEWEST = 3  # held out; two are always in perfect order, or in the opposite one
_OWN, _ELSEWHERE = 0.85, 1.8  # what the shots' own curve counts, and what is usual
_BELOW, _ABOVE = 2.2, 3.1  # of the bounds


class ExpectedGain(NamedTuple):
    """What more ratings would bring.

    Attributes:
        ratings: how many more.
        gain: of the rank correlation with new ratings.
        low, high: between them the gain of 90 of 100 such draws lies.
    """

    ratings: int
    gain: float
    low: float
    high: float

    def __str__(self) -> str:
        """In words.

        >>> str(ExpectedGain(20, 0.021, -0.004, 0.046))
        '20 more ratings would bring about +.02 SRCC (90 % between -.00 and +.05)'
        """
        gain, low, high = (f"{value:+.2f}".replace("0.", ".") for value in self[1:])
        return f"{self.ratings} more ratings would bring about {gain} SRCC (90 % between {low} and {high})"


def expected_gain(
    groups: Mapping[str, Floats],
    base: Floats,
    ratings: Floats,
    belief: Belief,
    *,
    noise: Floats | None = None,
    more: int = MORE,
) -> ExpectedGain:
    """What more ratings, of pictures drawn as these were, would bring; nothing in it is random.

    Args:
        groups, base, ratings, noise: of the shots, as :func:`~grmp_hf.training.evidence.believe` takes them.
        belief: what it gives.
        more: ratings.
    """
    return blend(slope_of_curve(groups, base, ratings, belief, noise=noise), len(ratings), more=more)


def blend(slope: float, shots: int, *, more: int = MORE) -> ExpectedGain:
    """The gain from what the shots' own learning curve says and from what is usual.

    Args:
        slope: b of the curve, see :func:`slope_of_curve`.
        shots: n.
        more: ratings.
    """
    own = max(slope, 0.0) * (1 / math.sqrt(shots) - 1 / math.sqrt(shots + more))
    usual = 1 / shots - 1 / (shots + more)
    gain = _OWN * own + _ELSEWHERE * usual
    return ExpectedGain(more, gain, gain - _BELOW / shots, gain + _ABOVE / shots)


def slope_of_curve(
    groups: Mapping[str, Floats], base: Floats, ratings: Floats, belief: Belief, *, noise: Floats | None = None
) -> float:
    """b of the learning curve among the shots; arguments as for :func:`expected_gain`."""
    shots = len(ratings)
    held = max(_FEWEST, round(_HELD_OUT * shots))
    sizes = np.array([size for share in _SHARES if 2 <= (size := round(share * shots)) <= shots - held])
    if len(np.unique(sizes)) < 2:
        return 0.0
    y = (ratings - ratings.mean()) / ratings.std()
    kernel = sum((belief.strengths[name] * x @ x.T / max(x.shape[1], 1) for name, x in groups.items()), np.zeros(()))
    relative = np.ones(shots) if noise is None else noise / noise.mean()
    found = np.zeros((_DIVISIONS, len(sizes)))
    for seed in range(_DIVISIONS):
        order = np.random.RandomState(seed).permutation(shots)  # whose stream is frozen for good
        for place, size in enumerate(sizes):
            taught, tests = order[:size], order[-held:]
            predicted = _predict(kernel, base, y, relative, belief, taught, tests)
            found[seed, place] = _correlation(predicted, y[tests])
    curve = np.column_stack([np.ones(len(sizes)), -1 / np.sqrt(sizes)])
    return float(np.linalg.lstsq(curve, found.mean(0), rcond=None)[0][1])


def _predict(
    kernel: Floats, base: Floats, ratings: Floats, noise: Floats, belief: Belief, taught: Places, tests: Places
) -> Floats:
    """Ratings of some pictures from those of others; see :mod:`grmp_hf.training.evidence`."""
    slope, free = belief.slope, belief.prior.freedom
    rest = ratings - slope * base
    among = kernel[np.ix_(taught, taught)] + free * np.outer(base[taught], base[taught]) + np.diag(noise[taught])
    ones = np.ones(len(taught))
    solved = np.linalg.solve(among, np.column_stack([rest[taught], ones]))
    offset = solved[:, 0].sum() / solved[:, 1].sum()
    across = kernel[np.ix_(tests, taught)] + free * np.outer(base[tests], base[taught])
    found: Floats = slope * base[tests] + across @ (solved[:, 0] - offset * solved[:, 1])
    return found


def _correlation(left: Floats, right: Floats) -> float:
    spread = float(left.std() * right.std())
    return float(((left - left.mean()) * (right - right.mean())).mean()) / spread if spread > 1e-12 else 0.0
