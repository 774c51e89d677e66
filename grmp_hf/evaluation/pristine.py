"""How far a picture's patches are from those of good photographs, and a zero-shot score that counts it (after GRepQ).

Letters in shapes: P patches, S side of a patch, d features of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, check_rgb, finite_array
from .baselines import colourfulness, luminance

__all__ = [
    "COLOURFUL",
    "PATCH",
    "SHARP",
    "Describe",
    "Moments",
    "distance",
    "moments",
    "patches",
    "pristine_moments",
    "sharp_and_colourful",
    "zero_shot_score",
]

PATCH = 96
"""Pixels of a patch's side; neighbours overlap by half."""
SHARP, COLOURFUL = 0.75, 0.8
"""Shares of a picture's most and most colourful patch that a pristine patch has to reach."""

_RIDGE = 1e-3  # on the diagonal of the covariance
_WINDOW = 7 / 6  # sigma, pixels, of the window in which deviations are taken

Pixels = npt.NDArray[np.uint8]
Describe = Callable[[Pixels], FloatArray]
"""Patches `(P, S, S, 3)` uint8 -> features `(P, d)`."""


class Moments(NamedTuple):
    """Mean `(d,)` and covariance `(d, d)` of features."""

    mean: FloatArray
    covariance: FloatArray


def patches(rgb: Pixels, side: int = PATCH) -> Pixels:
    """Squares of a picture that overlap by half: `(H, W, 3)` uint8 -> `(P, side, side, 3)`, row by row.

    A picture that is smaller is mirrored at its edges up to one patch; what is left over at the right and at the
    bottom is seen by no patch.

    Raises:
        GRMPError: no such picture.

    >>> patches(np.zeros((96, 200, 3), np.uint8)).shape
    (3, 96, 96, 3)
    """
    check_rgb(rgb)
    height, width = rgb.shape[:2]
    whole = np.pad(rgb, [(0, max(0, side - height)), (0, max(0, side - width)), (0, 0)], mode="symmetric")
    cut = np.lib.stride_tricks.sliding_window_view(whole, (side, side), axis=(0, 1))[:: side // 2, :: side // 2]
    return np.ascontiguousarray(cut.transpose(0, 1, 3, 4, 2)).reshape(-1, side, side, 3)


def sharp_and_colourful(cut: Pixels, sharp: float = SHARP, colourful: float = COLOURFUL) -> npt.NDArray[np.bool_]:
    """Which patches `(P, S, S, 3)` of a picture reach shares of its sharpest and of its most colourful one, `(P,)`.

    Sharpness is the mean of the local standard deviation of the luminance (as in NIQE), colourfulness that of Hasler
    and Suesstrunk (2003). There may be none.
    """
    colours = [patch.astype(np.float32) / np.float32(255) for patch in cut]
    sharpness = np.array([_sharpness(luminance(colour)) for colour in colours])
    colour = np.array([colourfulness(colour) for colour in colours])
    chosen: npt.NDArray[np.bool_] = (sharpness >= sharp * sharpness.max()) & (colour >= colourful * colour.max())
    return chosen


def _sharpness(grey: npt.NDArray[np.float32]) -> float:
    mean = gaussian_filter(grey, _WINDOW, truncate=3)
    return float(np.sqrt(np.maximum(gaussian_filter(grey**2, _WINDOW, truncate=3) - mean**2, 0)).mean())


def moments(features: npt.ArrayLike) -> Moments:
    """Mean and covariance of features `(n, d)`, divided by n; of a single row the covariance is 0.

    Raises:
        GRMPError: another shape, nothing in it, NaN or infinity.
    """
    x = finite_array(features, "features", 2)
    mean = x.mean(axis=0)
    return Moments(mean, (x - mean).T @ (x - mean) / len(x))


def distance(first: Moments, second: Moments, ridge: float = _RIDGE) -> float:
    """`sqrt((m1 - m2)' ((C1 + C2) / 2 + ridge I)^-1 (m1 - m2))`, at least 0, and 0 for equal means.

    Raises:
        GRMPError: other numbers of features.

    >>> standard = moments([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(distance(standard, standard._replace(mean=np.array([0.0, 2.0])), 0.0), 3)
    2.828
    """
    if first.mean.shape != second.mean.shape:
        raise GRMPError(
            f"Expected statistics of the same features, got {len(first.mean)} and {len(second.mean)} of them; describe "
            "patches and pristine photographs alike"
        )
    apart = first.mean - second.mean
    spread = (first.covariance + second.covariance) / 2 + ridge * np.eye(len(apart))
    return math.sqrt(max(0.0, float(apart @ np.linalg.solve(spread, apart))))


def pristine_moments(
    photographs: Iterable[Pixels],
    describe: Describe,
    *,
    side: int = PATCH,
    sharp: float = SHARP,
    colourful: float = COLOURFUL,
) -> Moments:
    """Statistics of the sharp and colourful patches of photographs; see :func:`sharp_and_colourful`.

    Args:
        photographs: `(H, W, 3)` uint8 each.
        describe: features of patches.
        side: of a patch.
        sharp, colourful: shares of what the best patch of each photograph has.

    Raises:
        GRMPError: fewer than two such patches.
    """
    found = []
    for photograph in photographs:
        cut = patches(photograph, side)
        chosen = cut[sharp_and_colourful(cut, sharp, colourful)]
        if len(chosen):
            found.append(describe(chosen))
    count = sum(map(len, found))
    if count < 2:
        raise GRMPError(
            f"Expected at least two sharp and colourful patches of pristine photographs, got {count}; give more or "
            "larger photographs (or, in Python, ask for less of sharp and colourful)"
        )
    return moments(np.concatenate(found))


def zero_shot_score(lead: npt.ArrayLike, apart: npt.ArrayLike) -> FloatArray:
    """`1 / (1 + exp(-10 lead)) + 1 - sigmoid(apart / 100)`, above 0 and at most 1.5; higher is better.

    Args:
        lead: `(n,)`, by how much the cosine with the text of a good picture exceeds that with the text of a bad one.
        apart: `(n,)`, :func:`distance` from pristine patches.

    Source: GRepQ (arXiv 2312.04838).

    >>> zero_shot_score([0.0, 0.1], [0.0, 100.0]).round(4).tolist()
    [1.0, 1.0]
    """
    leads, distances = finite_array(lead, "lead"), finite_array(apart, "apart")
    score: FloatArray = expit(10 * leads) + 1 - expit(distances / 100)
    return score
