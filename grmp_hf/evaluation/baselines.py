"""What any new scorer has to beat: ridge regression on frozen embeddings, and on hand-made statistics of the picture.

The third baseline, zero-shot, is the base without an adapter and needs nothing from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, check_rgb, finite_array

__all__ = ["STATISTICS", "RidgeModel", "colourfulness", "fit_ridge", "handmade_statistics", "luminance"]

_ALPHAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # times the number of features
_CLIP = 5.0  # standardised features beyond it are outliers of few labels
_LONGEST = 512
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RidgeModel:
    """A fitted ridge regression: standardise, clip to +-5, `intercept + z @ weights`. All arrays are `(d,)`."""

    mean: FloatArray
    scale: FloatArray
    weights: FloatArray
    intercept: float
    alpha: float

    def predict(self, features: npt.ArrayLike) -> FloatArray:
        """Features `(n, d)` -> predictions `(n,)`, in the unit of the labels and not clipped to their range.

        Raises:
            GRMPError: another number of features than in fitting, NaN or infinity.
        """
        x = finite_array(features, "features", 2)
        if x.shape[1] != len(self.mean):
            raise GRMPError(f"features: expected {len(self.mean)} columns as in fitting, got {x.shape[1]}")
        return self.intercept + _standardise(x, self.mean, self.scale) @ self.weights


def fit_ridge(features: npt.ArrayLike, quality: npt.ArrayLike) -> RidgeModel:
    """Ridge regression whose strength is chosen by leave-one-out over alpha = d x {.03, .1, .3, 1, 3, 10}.

    min over w, b of |quality - b - Z w|^2 + alpha |w|^2, with Z the standardised features clipped to +-5. The residual
    without picture i is e_i / (1 - h_ii), h the diagonal of the hat matrix: exact, one decomposition for all alphas.

    Args:
        features: `(n, d)`, n >= 2.
        quality: `(n,)`, any unit.

    Raises:
        GRMPError: shapes that do not fit together, fewer than two pictures, NaN or infinity.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(60, 3))
    >>> model = fit_ridge(features[:50], features[:50] @ [1.0, 2.0, 0.0] + 7)
    >>> bool(np.abs(model.predict(features[50:]) - features[50:] @ [1.0, 2.0, 0.0] - 7).max() < 0.1)
    True
    """
    x, y = finite_array(features, "features", 2), finite_array(quality, "quality")
    if len(x) != len(y):
        raise GRMPError(f"Expected one label a row of features, got {len(x)} rows and {len(y)} labels")
    if len(x) < 2:
        raise GRMPError(f"Expected at least two labelled pictures, got {len(x)}; label more")
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(x).max(axis=0), scale, np.inf)  # a constant feature says nothing
    z = _standardise(x, mean, scale)
    centre, offset = z.mean(axis=0), float(y.mean())  # clipping moves the mean
    u, s, vt = np.linalg.svd(z - centre, full_matrices=False)
    errors = {}
    for alpha in np.multiply(_ALPHAS, x.shape[1]):
        shrunk = u * (s**2 / (s**2 + alpha))
        leverage = (shrunk * u).sum(axis=1) + 1 / len(y)
        residual = y - offset - shrunk @ (u.T @ (y - offset))
        errors[float(alpha)] = float(np.square(residual / np.maximum(1 - leverage, 1e-12)).sum())
    alpha = min(errors, key=errors.__getitem__)
    weights = vt.T @ (s / (s**2 + alpha) * (u.T @ (y - offset)))
    return RidgeModel(mean, scale, weights, offset - float(centre @ weights), alpha)


def _standardise(x: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
    return np.clip((x - mean) / scale, -_CLIP, _CLIP)


STATISTICS = (
    "sharpness",
    "centre_sharpness",
    "edges",
    "local_contrast",
    "entropy",
    "colourfulness",
    "luminance",
    "contrast",
    "dark_share",
    "bright_share",
    "noise",
    "blockiness",
    "tail_weight",
    "neighbour_product",
)
"""Names of the hand-made statistics, in their order."""


def handmade_statistics(rgb: npt.NDArray[np.uint8]) -> FloatArray:
    """Fourteen untrained statistics of a picture, `(H, W, 3)` uint8 -> `(14,)`, in the order of `STATISTICS`.

    The picture is shrunk until its longer side is at most 512 pixels, never enlarged. Values are finite for any
    picture of at least one pixel; magnitudes are logarithms, which a line through few labels follows better.

    - sharpness, centre_sharpness: log variance of the Laplacian of the picture and of its middle quarter;
    - edges: log of the 99th percentile of the gradient; local_contrast: log mean standard deviation in 9 x 9 windows;
    - entropy: of 64 levels of luminance, in bits; colourfulness: Hasler and Suesstrunk (2003), log;
    - luminance, contrast: mean and standard deviation; dark_share, bright_share: luminance below .06, above .94;
    - noise: Immerkaer (1996), log mean response to a mask that cancels edges;
    - blockiness: log ratio of steps across the borders of 8 x 8 blocks to steps elsewhere
      (in a picture that had to be shrunk the grid is gone, and so is what this sees);
    - tail_weight, neighbour_product: of locally normalised luminance (Mittal, Moorthy, Bovik, 2012): log of mean square
      over squared mean magnitude; mean product of neighbours.

    Raises:
        GRMPError: another shape or dtype.

    >>> grey = np.full((64, 64, 3), 128, np.uint8)
    >>> dict(zip(STATISTICS, handmade_statistics(grey).round(3).tolist()))["luminance"]
    0.502
    """
    check_rgb(rgb)
    colour: Plane = _shrink(rgb).astype(np.float32) / np.float32(255)
    grey, colours = luminance(colour), float(np.log(np.float32(colourfulness(colour)) + 0.01))
    values = [*_detail(grey), colours, *_tone(grey), _noise(grey), _blockiness(grey), *_normalised(grey)]
    return np.array(values, dtype=np.float64)


def _shrink(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """At most 512 x 512 with the same proportions, and at least 3 x 3 so that every filter has a place to stand."""
    height, width = rgb.shape[:2]
    factor = min(1.0, _LONGEST / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = rgb if factor == 1 else np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
    return np.pad(small, [(0, max(0, 3 - small.shape[0])), (0, max(0, 3 - small.shape[1])), (0, 0)], mode="edge")


def _detail(grey: Plane) -> tuple[float, float, float, float, float]:
    """sharpness, centre_sharpness, edges, local_contrast, entropy."""
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    rows, columns = (slice(n // 4, n - n // 4) for n in laplacian.shape)
    gradient = np.hypot(grey[:-1, 1:] - grey[:-1, :-1], grey[1:, :-1] - grey[:-1, :-1])
    local = uniform_filter(grey**2, 9) - uniform_filter(grey, 9) ** 2
    share = np.bincount((grey * 63.999).astype(np.intp).ravel(), minlength=64) / grey.size
    share = share[share > 0]
    return (
        float(np.log(laplacian.var() + 1e-6)),
        float(np.log(laplacian[rows, columns].var() + 1e-6)),
        float(np.log(np.percentile(gradient, 99) + 1e-3)),
        float(np.log(np.sqrt(np.maximum(local, 0)).mean() + 1e-3)),
        float(-(share * np.log2(share)).sum()),
    )


def luminance(colour: Plane) -> Plane:
    """Luminance `(H, W)` of colours `(H, W, 3)`, both in [0, 1] (ITU-R BT.601)."""
    return colour @ _LUMINANCE


def colourfulness(colour: Plane) -> float:
    """How colourful a picture `(H, W, 3)` in [0, 1] is, 0 for grey (Hasler and Suesstrunk, 2003)."""
    red_green = colour[..., 0] - colour[..., 1]
    yellow_blue = (colour[..., 0] + colour[..., 1]) / 2 - colour[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def _tone(grey: Plane) -> tuple[float, float, float, float]:
    """luminance, contrast, dark_share, bright_share."""
    return float(grey.mean()), float(grey.std()), float((grey < 0.06).mean()), float((grey > 0.94).mean())


def _noise(grey: Plane) -> float:
    """Mean magnitude under the mask (1, -2, 1) x (1, -2, 1), as the standard deviation of noise that would cause it."""
    rows = grey[:-2] - 2 * grey[1:-1] + grey[2:]
    response = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.log(np.abs(response).mean() * np.sqrt(np.pi / 2) / 6 + 1e-4))


def _blockiness(grey: Plane) -> float:
    """Mean over both directions; 0 for a picture of less than one block."""
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        border = np.arange(len(steps)) % 8 == 7
        if border.any():
            ratios.append(np.log((steps[border].mean() + 1e-3) / (steps[~border].mean() + 1e-3)))
    return float(np.mean(ratios)) if ratios else 0.0


def _normalised(grey: Plane) -> tuple[float, float]:
    """tail_weight, neighbour_product of (luminance - local mean) / (local deviation + 1/255), Gaussian windows."""
    mean = gaussian_filter(grey, 7 / 6, truncate=3)
    deviation = np.sqrt(np.maximum(gaussian_filter(grey**2, 7 / 6, truncate=3) - mean**2, 0))
    z = (grey - mean) / (deviation + 1 / 255)
    tail = np.log((np.square(z).mean() + 1e-6) / (np.abs(z).mean() ** 2 + 1e-6))
    product = ((z[:, 1:] * z[:, :-1]).mean() + (z[1:] * z[:-1]).mean()) / 2
    return float(tail), float(product)
