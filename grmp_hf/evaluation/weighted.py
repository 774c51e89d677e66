"""Metrics of many bootstrap resamples at once: each picture has a weight, how often a resample holds it.

Every function takes scores `(n,)`, ratings `(n,)` and weights `(R, n)`, and returns `(R,)`. Weight one everywhere is
the plain metric.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .arrays import FloatArray

__all__ = ["BLOCK", "WeightedMetric", "weighted_krcc", "weighted_plcc", "weighted_rmse", "weighted_srcc"]

WeightedMetric = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

BLOCK = 1 << 20
"""How many numbers of a large matrix are held at a time."""

_CONSTANT = 1e-13  # a relative spread below this is rounding


def weighted_plcc(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson's correlation; `x` and `y` may also be `(R, n)`, another array in each resample."""
    x, x_spread = _centred(x, weights)
    y, y_spread = _centred(y, weights)
    return _ratio(np.einsum("rn,rn,rn->r", weights, x, y), x_spread * y_spread)


def weighted_srcc(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson's correlation of the mean ranks."""
    return weighted_plcc(_ranks(x, weights), _ranks(y, weights), weights)


def weighted_krcc(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Kendall's tau-b = (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y).

    The numerator is w' S w / 2 with S[i, j] = sign(x_i - x_j) sign(y_i - y_j): one matrix product for all resamples.
    Counts and their sums are integers below 2^24, hence exact in float32.
    """
    n = len(x)
    counts, numerator = weights.astype(np.float32), np.zeros(len(weights))
    step = max(1, BLOCK // n)
    for start in range(0, n, step):
        part = slice(start, start + step)
        signs = np.sign(x[:, None] - x[part]) * np.sign(y[:, None] - y[part])  # (n, step)
        numerator += np.einsum("rn,rn->r", counts @ signs.astype(np.float32), counts[:, part], dtype=np.float64)
    square = weights.sum(axis=1) ** 2
    x_untied, y_untied = (square - (_tie_groups(v, weights)[1] ** 2).sum(axis=1) for v in (x, y))
    return _ratio(numerator, np.sqrt(x_untied) * np.sqrt(y_untied))


def weighted_rmse(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Root of the mean squared difference."""
    return np.asarray(np.sqrt(weights @ (x - y) ** 2 / weights.sum(axis=1)))


def _centred(x: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """x less its weighted mean, on a scale where nothing over- or underflows, `(R or 1, n)`, and its norm `(R,)`.

    Zeros and norm 0 for a constant.
    """
    x = np.atleast_2d(x)
    size = np.abs(x).max(axis=1, keepdims=True)
    x = x - x.mean(axis=1, keepdims=True)
    spread = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(spread > _CONSTANT * size, spread, np.inf)
    total = weights.sum(axis=1)
    x = x - (np.einsum("rn,rn->r", weights, np.broadcast_to(x, weights.shape)) / total)[:, None]
    norm = np.sqrt(np.einsum("rn,rn,rn->r", weights, x, x))
    return x, np.where(norm > _CONSTANT * np.sqrt(total), norm, 0.0)


def _ranks(x: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean rank of every picture in each resample, `(R, n)`, from one sort of x."""
    group, counts = _tie_groups(x, weights)
    ranks = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return np.asarray(ranks[:, group])


def _tie_groups(x: FloatArray, weights: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Which distinct value each picture has, `(n,)`, and how much weight each value has, `(R, groups)`, ascending."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(x[order], prepend=-np.inf))
    group = np.empty(len(x), dtype=np.intp)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(x)))
    return group, np.add.reduceat(weights[:, order], starts, axis=1)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """A correlation from its two parts: 0 where the denominator is 0, kept inside [-1, 1] against rounding."""
    defined = denominator > 0
    return np.clip(np.where(defined, numerator, 0) / np.where(defined, denominator, 1), -1, 1)
