"""Figures of a scorer that learns one data set after the other: what it learns, what it keeps.

Letters in shapes: T data sets, in the order in which they were learnt; n_s test pictures of data set s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, finite_array
from .metrics import srcc

__all__ = ["StreamFigures", "average", "mpsr", "plasticity", "stability", "stream_figures", "stream_matrix"]

Predictions = Sequence[Sequence[npt.ArrayLike]]
"""`predictions[t][s]`: `(n_s,)`, what was predicted of data set s, at most t, after t was learnt."""

_ROUNDING = 1e-12


class StreamFigures(NamedTuple):
    """The four figures of a stream; see the functions of their names."""

    plasticity: float
    average: float
    stability: float
    mpsr: float


def stream_matrix(predictions: Predictions, ratings: Sequence[npt.ArrayLike]) -> FloatArray:
    """`R[t, s]`: SRCC on data set s after t was learnt, `(T, T)`; NaN where s was not learnt yet.

    Args:
        predictions: see :data:`Predictions`.
        ratings: `(n_s,)` of each data set.

    Raises:
        GRMPError: predictions of another number of data sets, or what `srcc` refuses.
    """
    _check_triangle(predictions, len(ratings))
    found = np.full((len(ratings), len(ratings)), np.nan)
    for t, row in enumerate(predictions):
        found[t, : t + 1] = [srcc(said, rated) for said, rated in zip(row, ratings, strict=False)]
    return found


def plasticity(matrix: npt.ArrayLike) -> float:
    """How well each data set is learnt when its turn comes: the mean of `R[t, t]`.

    Args:
        matrix: `(T, T)`, SRCC on s after t was learnt; what stands above the diagonal is not looked at.

    Raises:
        GRMPError: no square, or a number that is needed and not finite.

    Source: TSN-IQA (arXiv 2107.13429), CL-BIQA (arXiv 2102.09717).

    >>> round(plasticity([[0.8, np.nan], [0.6, 0.9]]), 6)
    0.85
    """
    return float(np.diag(_lower(matrix)).mean())


def average(matrix: npt.ArrayLike) -> float:
    """How well all data sets so far are judged, over the whole stream: the mean over t of `mean_{s<=t} R[t, s]`.

    Arguments, errors and source as for `plasticity`.

    >>> round(average([[0.8, np.nan], [0.6, 0.9]]), 6)
    0.775
    """
    lower = _lower(matrix)
    return float(np.mean([row[: t + 1].mean() for t, row in enumerate(lower)]))


def stability(predictions: Predictions) -> float:
    """How little the predictions change that were once learnt: the mean over t of `mean_{s<t} SRCC(now, then)`.

    `now` are the predictions of data set s after t was learnt, `then` those after s was learnt; the first data set has
    none before it and counts 1. No rating is looked at: a scorer that never changes is stable, however bad it is.

    Args:
        predictions: see :data:`Predictions`.

    Raises:
        GRMPError: as for `stream_matrix`.

    Source: the released code of TSN-IQA (arXiv 2107.13429).

    >>> stability([[[1, 2, 3]], [[1, 2, 3], [5, 4]]]), round(stability([[[1, 2, 3, 4]], [[2, 1, 3, 4], [5, 4]]]), 6)
    (1.0, 0.9)
    """
    _check_triangle(predictions, len(predictions))
    kept = [1.0]
    for t in range(1, len(predictions)):
        kept.append(float(np.mean([_agreement(predictions[t][s], predictions[s][s]) for s in range(t)])))
    return float(np.mean(kept))


def mpsr(matrix: npt.ArrayLike) -> float:
    """Mean plasticity-stability ratio: what is learnt, discounted by what is forgotten meanwhile.

    The mean over t of `R[t, t] * mean_{s<t} R'[t, s] / R'[s, s]`, with `R' = (R + 1) / 2`, which is at least 0; the
    first data set has none before it, and its ratio is 1. Of a data set that was learnt upside down (`R[s, s]` of -1 to
    rounding, as a few test pictures easily are) nothing can be kept: its ratios are 0.

    Arguments, errors and source as for `plasticity`.

    >>> round(mpsr([[0.8, np.nan], [0.6, 0.9]]), 6)  # (0.8 + 0.9 * 0.8 / 0.9) / 2
    0.8
    """
    lower = _lower(matrix)
    shifted = (lower + 1) / 2
    learnt = np.diag(shifted)
    upright = learnt > _ROUNDING
    kept = np.divide(shifted, learnt, out=np.zeros_like(shifted), where=upright)
    ratios = [1.0, *(kept[t, :t].mean() for t in range(1, len(lower)))]
    return float(np.mean(np.diag(lower) * ratios))


def stream_figures(predictions: Predictions, ratings: Sequence[npt.ArrayLike]) -> StreamFigures:
    """All four; arguments and errors as for `stream_matrix` and `stability`."""
    matrix = stream_matrix(predictions, ratings)
    return StreamFigures(plasticity(matrix), average(matrix), stability(predictions), mpsr(matrix))


def _agreement(now: npt.ArrayLike, then: npt.ArrayLike) -> float:
    """SRCC of two predictions; exactly 1 where nothing has changed, even where all pictures are predicted alike."""
    return 1.0 if np.array_equal(np.asarray(now), np.asarray(then)) else srcc(now, then)


def _check_triangle(predictions: Predictions, sets: int) -> None:
    found = [len(row) for row in predictions]
    if not sets or found != list(range(1, sets + 1)):
        raise GRMPError(
            f"Expected predictions of data sets 1 to t after each t, of {sets} in all, got those of {found}. Predict "
            "every data set that was learnt, after each one."
        )


def _lower(matrix: npt.ArrayLike) -> FloatArray:
    """The lower triangle of a square matrix, zeros above it."""
    square = np.asarray(matrix, dtype=np.float64)
    if square.ndim != 2 or square.shape[0] != square.shape[1] or not len(square):
        raise GRMPError(f"Expected a matrix of T times T correlations, got the shape {square.shape}.")
    return finite_array(np.tril(np.where(np.tri(len(square), dtype=bool), square, 0.0)), "matrix", 2)
