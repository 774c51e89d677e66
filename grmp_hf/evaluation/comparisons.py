"""Paired comparison of two methods: over the same pictures, or over the same draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, finite_array, paired_arrays
from .metrics import Metric, checked_count, percentiles, resampled_metric

__all__ = ["Comparison", "paired_difference", "paired_over_draws"]


class Comparison(NamedTuple):
    """Difference of two methods, its interval, and the share of resamples in which the first had the larger value."""

    difference: float
    low: float
    high: float
    share: float


def paired_difference(
    metric: Metric,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    mos: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Paired bootstrap of metric(first) - metric(second) over the same pictures, and over draws if there are several.

    Both methods see the same resampled pictures, so what is hard for both cancels. With `(d, n)` scores, row k of both
    methods belongs to the same draw of labels; the difference is the mean over draws, and draws are resampled as well.

    Args:
        metric: function of (scores, mos).
        first: `(n,)` or `(d, n)` scores of one method.
        second: the same shape, scores of the other method.
        mos: `(n,)`.
        resamples: at least 1.
        seed: same seed, same interval.
        level: in (0, 1).

    Raises:
        GRMPError: shapes that do not match, a level outside (0, 1), no resamples.
    """
    methods = [finite_array(np.atleast_2d(np.asarray(s)), n, 2) for s, n in ((first, "first"), (second, "second"))]
    if methods[0].shape != methods[1].shape:
        raise GRMPError(f"Expected scores of one shape, got {methods[0].shape} and {methods[1].shape}")
    y = paired_arrays(methods[0][0], mos)[1]
    count, draws = checked_count(resamples, level), len(methods[0])
    plain = [np.array([metric(row, y) for row in method]) for method in methods]  # (d,) each
    many = [
        np.stack([resampled_metric(metric, row, y, count, seed) for row in method]) for method in methods
    ]  # (d, R) each
    chosen = np.random.default_rng([seed, 1]).integers(draws, size=(draws, count))
    differences = np.take_along_axis(many[0] - many[1], chosen, axis=0).mean(axis=0)  # (R,)
    return _compared(float((plain[0] - plain[1]).mean()), differences, level)


def paired_over_draws(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Paired bootstrap of the mean of first - second over draws, each with shots and test pictures of its own.

    For figures of which only the value in each draw is comparable; where all draws are tested on the same pictures,
    `paired_difference` also resamples these. The interval holds the spread over draws alone, and is too narrow for
    fewer than about ten.

    Args:
        first: `(d,)`, d >= 2, a metric of one method in each draw.
        second: `(d,)`, the same metric of the other method in the same draws.
        resamples: at least 1.
        seed: same seed, same interval.
        level: in (0, 1).

    Raises:
        GRMPError: different lengths, fewer than two draws, NaN or infinity, a level outside (0, 1), no resamples.

    >>> found = paired_over_draws([0.60, 0.64, 0.61], [0.58, 0.60, 0.62])
    >>> [round(value, 3) for value in found[:3]]
    [0.017, -0.01, 0.04]
    """
    a, b = finite_array(first, "first"), finite_array(second, "second")
    if len(a) != len(b) or len(a) < 2:
        raise GRMPError(f"Expected values of both methods in the same draws, at least two, got {len(a)} and {len(b)}")
    each = a - b
    chosen = np.random.default_rng(seed).integers(len(each), size=(checked_count(resamples, level), len(each)))
    return _compared(float(each.mean()), each[chosen].mean(axis=1), level)


def _compared(difference: float, resampled: FloatArray, level: float) -> Comparison:
    share = float((resampled > 0).mean() + 0.5 * (resampled == 0).mean())
    return Comparison(difference, *percentiles(resampled, level), share)
