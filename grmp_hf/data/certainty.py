"""How sure a rating is: what raters disagree about, and what no rater explains, as a noise for each picture.

With ``v_i`` the variance of picture i's mean rating and ``q`` the quality of all pictures, both in [0, 1]::

    noise_i = var(q) / 2 + v_i,   v_i = mos_std_i^2 / votes_i

The first share is the readout's own misfit, which every picture has: a readout that orders pictures well (a correlation
of .7) leaves half of their variance. So a picture of a thousand votes counts no more than one of a hundred, and one of
two votes not next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.columns import Row
from grmp_hf.data.scales import RatingScale

__all__ = ["relative_noise"]

Floats = NDArray[np.float64]

_MISFIT = 0.5  # of the variance of the ratings
_POOLED = 4.0  # votes that the deviation of all pictures counts against a picture's own, which few votes say badly
_USUAL = 0.2  # deviation among raters, of the length of the scale, where no picture says it
_UNCOUNTED = 0.25  # of the misfit: mean share of the raters where nobody has counted them


def relative_noise(rows: Sequence[Row], scale: RatingScale) -> Floats | None:
    """The variance of each rating relative to the others; None where all are equally sure, or nothing is known.

    A picture of which nothing is known counts as the mean of the others. Without any ``votes``, deviations alone
    decide, and they decide moderately: their squares, brought to a mean of a fourth of the misfit, stand for ``v_i``.

    Args:
        rows: n rated pictures, with ``mos_std`` or ``votes`` or neither.
        scale: of their ratings.

    Returns:
        ``(n,)``, of mean 1.
    """
    deviations = _column([row.mos_std for row in rows]) / (scale.high - scale.low)
    votes = _column([row.votes for row in rows])
    misfit = _MISFIT * float(np.var([row.quality for row in rows]))
    counted = bool(np.isfinite(votes).any())
    variance = _of_means(deviations, votes) if counted else _uncounted(deviations, misfit)
    known = np.isfinite(variance)
    if not known.any() or misfit == 0:
        return None
    noise = misfit + np.where(known, variance, variance[known].mean())
    if np.ptp(noise) <= 1e-9 * noise.max():
        return None
    found: Floats = noise / noise.mean()
    return found


def _of_means(deviations: Floats, votes: Floats) -> Floats:
    """Variance of each mean; NaN where nobody has counted the votes."""
    free = np.where(np.isfinite(deviations) & np.isfinite(votes), votes - 1, 0)
    squares = np.where(free > 0, np.square(deviations), 0)
    pooled = float((free * squares).sum() / free.sum()) if free.sum() else _USUAL**2
    found: Floats = (free * squares + _POOLED * pooled) / (free + _POOLED) / votes
    return found


def _uncounted(deviations: Floats, misfit: float) -> Floats:
    """Variances that follow the deviations alone; NaN where there is none."""
    squares = np.square(deviations)
    known = squares[np.isfinite(squares)]
    if not known.any():
        return np.full(len(squares), np.nan)
    found: Floats = _UNCOUNTED * misfit * squares / known.mean()
    return found


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
