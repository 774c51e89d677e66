"""Agreement of scores with ratings, each figure with a bootstrap interval.

All functions take arrays and return floats. Two conventions hold throughout: a constant array carries no order, so any
correlation with it is 0.0 (not NaN: tables, JSON and resamples stay finite), and no function ever warns. "Constant" is
a spread below 1e-13 of the values themselves, which is what rounding leaves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, is_constant, paired_arrays
from .logistic import fit_logistic
from .weighted import BLOCK, WeightedMetric, weighted_krcc, weighted_plcc, weighted_rmse, weighted_srcc

__all__ = [
    "Interval",
    "Metric",
    "bootstrap_interval",
    "caveats",
    "checked_count",
    "evaluate_scores",
    "krcc",
    "percentiles",
    "plcc",
    "plcc_logistic",
    "point_figures",
    "resampled_metric",
    "rmse",
    "rmse_logistic",
    "srcc",
]

Metric = Callable[[npt.ArrayLike, npt.ArrayLike], float]
Tell = Callable[[str, float], None]


class Interval(NamedTuple):
    """A figure and its interval."""

    value: float
    low: float
    high: float


def srcc(scores: npt.ArrayLike, mos: npt.ArrayLike) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; in [-1, 1].

    Equal to `scipy.stats.spearmanr`, but 0.0 if either array is constant.

    Args:
        scores: `(n,)`, n >= 2.
        mos: `(n,)`, ratings of the same pictures.

    Raises:
        GRMPError: different lengths, fewer than two pictures, NaN or infinity.

    >>> round(srcc([0.1, 0.4, 0.3, 0.9], [1, 2, 3, 4]), 6)
    0.8
    """
    return _once(weighted_srcc, scores, mos)


def krcc(scores: npt.ArrayLike, mos: npt.ArrayLike) -> float:
    """Kendall's rank correlation tau-b; in [-1, 1]. Arguments and errors as for `srcc`.

    Equal to `scipy.stats.kendalltau`, but 0.0 if either array is constant.

    >>> round(krcc([0.1, 0.4, 0.3, 0.9], [1, 2, 3, 4]), 6)
    0.666667
    """
    x, y = paired_arrays(scores, mos)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(kendalltau(x, y).statistic)


def plcc(scores: npt.ArrayLike, mos: npt.ArrayLike) -> float:
    """Pearson's linear correlation of the raw scores; in [-1, 1]. Arguments and errors as for `srcc`.

    Equal to `scipy.stats.pearsonr`, but 0.0 if either array is constant.

    >>> round(plcc([1, 2, 3, 5], [1, 2, 3, 4]), 6)
    0.982708
    """
    return _once(weighted_plcc, scores, mos)


def plcc_logistic(scores: npt.ArrayLike, mos: npt.ArrayLike, parameters: int = 4) -> float:
    """Pearson's correlation after a logistic fit of the scores to the ratings (see `fit_logistic`).

    Negative where the fitted curve falls: a scorer that orders pictures the wrong way round is no good one.

    >>> x = np.linspace(0, 4, 40)
    >>> round(plcc(x, np.tanh(x)), 3), round(plcc_logistic(x, np.tanh(x)), 3)
    (0.818, 1.0)
    """
    return point_figures(scores, mos, parameters)["plcc_logistic"]


def rmse(scores: npt.ArrayLike, mos: npt.ArrayLike) -> float:
    """Root of the mean squared difference, in the unit of the ratings; map the scores to that unit first.

    >>> rmse([1, 2, 3], [1, 2, 6])
    1.7320508075688772
    """
    return _once(weighted_rmse, scores, mos)


def rmse_logistic(scores: npt.ArrayLike, mos: npt.ArrayLike, parameters: int = 4) -> float:
    """Root of the mean squared difference after a logistic fit of the scores to the ratings, in their unit.

    >>> rmse_logistic([0.1, 0.2, 0.3], [10.0, 20.0, 30.0]) < 1e-12
    True
    """
    return rmse(fit_logistic(scores, mos, parameters)(scores), mos)


def point_figures(scores: npt.ArrayLike, mos: npt.ArrayLike, parameters: int = 4) -> dict[str, float]:
    """`srcc`, `krcc`, `plcc`, and `plcc_logistic` and `rmse` after one logistic fit; arguments as for `plcc_logistic`.

    >>> figures = point_figures([6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 7])
    >>> {name: round(value, 3) for name, value in figures.items()}
    {'srcc': -1.0, 'krcc': -1.0, 'plcc': -0.99, 'plcc_logistic': -0.997, 'rmse': 0.158}
    """
    return {name: metric(values, y) for name, metric, values, y in _figure_inputs(scores, mos, parameters)}


def caveats(scores: npt.ArrayLike, mos: npt.ArrayLike) -> list[str]:
    """What a reader must know before reading figures of these arrays: nothing, or a sentence for each that is constant.

    >>> caveats([0.5, 0.5, 0.5], [1, 2, 3])
    ['all 3 scores are 0.5: they order nothing, and correlations are given as 0, without an interval']
    """
    x, y = paired_arrays(scores, mos)
    return [
        f"all {len(values)} {name} are {values[0]:g}: they order nothing, and correlations are given as 0, without an "
        "interval"
        for name, values in (("scores", x), ("ratings", y))
        if is_constant(values)
    ]


def bootstrap_interval(
    metric: Metric,
    scores: npt.ArrayLike,
    mos: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a metric over pictures drawn with replacement.

    `srcc`, `krcc`, `plcc` and `rmse` are computed for all resamples at once; any other function of two arrays works,
    one resample at a time.

    Args:
        metric: function of (scores, mos).
        scores: `(n,)`.
        mos: `(n,)`.
        resamples: at least 1.
        seed: same seed, same interval.
        level: in (0, 1).

    Raises:
        GRMPError: arrays that do not fit together, a level outside (0, 1), no resamples.

    >>> rng = np.random.default_rng(0)
    >>> mos = rng.normal(size=200)
    >>> value, low, high = bootstrap_interval(srcc, mos + rng.normal(size=200), mos)
    >>> 0.5 < low < value < high < 0.8
    True
    """
    x, y = paired_arrays(scores, mos)
    values = resampled_metric(metric, x, y, checked_count(resamples, level), seed)
    return Interval(metric(x, y), *percentiles(values, level))


def evaluate_scores(
    scores: npt.ArrayLike,
    mos: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    tell: Tell | None = None,
) -> dict[str, int | float | list[float] | None]:
    """Every figure that is reported for scores against ratings, ready for JSON.

    Args:
        scores: `(n,)`, n >= 2.
        mos: `(n,)`, ratings of the same pictures.
        resamples, seed, level: of the bootstrap intervals.
        tell: told what is done and how far it is; ten thousand pictures take some ten seconds.

    Returns:
        `n`, then `srcc`, `krcc`, `plcc` (raw), `plcc_logistic` and `rmse` (both after the four-parameter logistic fit,
        `rmse` in the unit of `mos`), each followed by `<name>_interval` as `[low, high]`. The curve is fitted once to
        all pictures and held while resampling. Where an array is constant, correlations have no interval (None), since
        every resample is as empty as the whole; nor has `rmse` where all ratings are equal.

    Raises:
        GRMPError: as for `srcc` and `bootstrap_interval`.

    >>> figures = evaluate_scores([1.0, 2.0, 4.0, 3.0, 5.0, 6.0], [1, 2, 3, 4, 5, 6], resamples=100)
    >>> round(figures["srcc"], 4), sorted(name for name in figures if not name.endswith("_interval"))
    (0.9429, ['krcc', 'n', 'plcc', 'plcc_logistic', 'rmse', 'srcc'])
    """
    inputs = _figure_inputs(scores, mos, 4)
    _, _, x, y = inputs[0]
    figures: dict[str, int | float | list[float] | None] = {"n": len(x)}
    for at, (name, metric, values, _) in enumerate(inputs):
        part = None if tell is None else functools.partial(_tell_part, tell, at / len(inputs), 1 / len(inputs))
        resampled = resampled_metric(metric, values, y, checked_count(resamples, level), seed, part)
        value, (low, high) = metric(values, y), percentiles(resampled, level)
        empty = is_constant(y) or (is_constant(x) and metric is not rmse)
        figures |= {name: value, f"{name}_interval": None if empty else [low, high]}
    return figures


def _tell_part(tell: Tell, start: float, width: float, share: float) -> None:
    tell("bootstrap intervals", start + width * share)


def _figure_inputs(
    scores: npt.ArrayLike, mos: npt.ArrayLike, parameters: int
) -> list[tuple[str, Metric, FloatArray, FloatArray]]:
    """Name, metric, and the two arrays that it compares, for every figure."""
    x, y = paired_arrays(scores, mos)
    fitted = fit_logistic(x, y, parameters)(x)
    directed = fitted if plcc(x, fitted) >= 0 else -fitted
    return [
        ("srcc", srcc, x, y),
        ("krcc", krcc, x, y),
        ("plcc", plcc, x, y),
        ("plcc_logistic", plcc, directed, y),
        ("rmse", rmse, fitted, y),
    ]


_WEIGHTED: dict[Metric, WeightedMetric] = {
    srcc: weighted_srcc,
    krcc: weighted_krcc,
    plcc: weighted_plcc,
    rmse: weighted_rmse,
}


def _once(weighted: WeightedMetric, scores: npt.ArrayLike, mos: npt.ArrayLike) -> float:
    """A weighted metric with weight one on every picture."""
    x, y = paired_arrays(scores, mos)
    return float(weighted(x, y, np.ones((1, len(x))))[0])


def checked_count(resamples: int, level: float) -> int:
    """The number of resamples; raises if it, or the level, cannot be one."""
    if not 0 < level < 1:
        raise GRMPError(f"level: expected a number between 0 and 1, got {level}")
    if resamples < 1:
        raise GRMPError(f"resamples: expected at least 1, got {resamples}")
    return resamples


def percentiles(values: FloatArray, level: float) -> tuple[float, float]:
    """The ends of the middle share `level` of resampled values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_metric(
    metric: Metric, x: FloatArray, y: FloatArray, count: int, seed: int, tell: Callable[[float], None] | None = None
) -> FloatArray:
    """The metric on `count` resamples of the pictures, `(count,)`; a function of (n, count, seed) and the data."""
    n, rng = len(x), np.random.default_rng(seed)
    weighted = _WEIGHTED.get(metric)
    step = max(1, BLOCK // n)
    parts = []
    for start in range(0, count, step):
        if tell is not None:
            tell(start / count)
        rows = min(step, count - start)
        chosen = rng.integers(n, size=(rows, n))
        if weighted is None:
            parts.append(np.array([metric(x[row], y[row]) for row in chosen]))
        else:  # how often each picture was drawn, (rows, n)
            flat = np.bincount((chosen + n * np.arange(rows)[:, None]).ravel(), minlength=rows * n)
            parts.append(weighted(x, y, flat.reshape(rows, n).astype(np.float64)))
    return np.concatenate(parts)
