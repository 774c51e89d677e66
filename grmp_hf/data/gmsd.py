"""Gradient magnitude similarity deviation: how much worse a distorted picture is than the one that it was made from."""

from __future__ import annotations

import numpy as np

from grmp_hf.data.distortions.pictures import Floats, Pixels
from grmp_hf.errors import GRMPError

__all__ = ["gmsd", "gmsd_quality"]

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_C = np.float32(170)  # the paper's constant, for values from 0 to 255
_WORST = 0.35


def gmsd(reference: Pixels, distorted: Pixels) -> float:
    """Standard deviation over the picture of the similarity of two gradient magnitudes.

    With m and n the Prewitt gradient magnitudes of the two luminances, each halved in size by the mean of 2 x 2::

        similarity = (2 m n + c) / (m^2 + n^2 + c),   gmsd = std(similarity),   c = 170

    Args:
        reference: (H, W, 3) uint8, sides of at least 6 pixels.
        distorted: of the same shape.

    Returns:
        0 for equal pictures, at most 0.5. It does not see a change of colour at constant luminance.

    Raises:
        GRMPError: pictures of different or too small shapes.

    Source: Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation", IEEE Transactions on Image Processing,
    2014. Here the outermost pixels, whose gradients would need values beyond the border, are left out.

    Examples:
        >>> steps = np.repeat(np.arange(0, 256, 8, dtype=np.uint8), 32 * 3).reshape(32, 32, 3)
        >>> gmsd(steps, steps)
        0.0
    """
    if reference.shape != distorted.shape or min(reference.shape[:2]) < 6:
        raise GRMPError(
            "expected two pictures of the same shape with sides of at least 6 pixels, got "
            f"{reference.shape} and {distorted.shape}; compare a picture with what was made of it"
        )
    m, n = _gradients(reference), _gradients(distorted)
    return float(((2 * m * n + _C) / (m * m + n * n + _C)).std())


def gmsd_quality(value: float) -> float:
    """Quality that a deviation stands for: max(0, 1 - gmsd / 0.35), the same for every type of distortion.

    0.35 lies above what the strongest levels of `grmp_hf.data.distortions` reach on photographs (0.24 on average for
    the worst type), so that hardly any two of them get the same quality.

    Returns:
        quality in [0, 1], 1 = no difference.

    Examples:
        >>> gmsd_quality(0.0), round(gmsd_quality(0.07), 2), gmsd_quality(0.4)
        (1.0, 0.8, 0.0)
    """
    return max(0.0, 1 - value / _WORST)


def _gradients(picture: Pixels) -> Floats:
    """Magnitude of the gradient of the luminance at half the size."""
    height, width = (side // 2 for side in picture.shape[:2])
    luminance = picture[: 2 * height, : 2 * width] @ _LUMINANCE
    half = luminance.reshape(height, 2, width, 2).mean(axis=(1, 3))
    rows, columns = half[:-2] + half[1:-1] + half[2:], half[:, :-2] + half[:, 1:-1] + half[:, 2:]
    magnitude: Floats = np.hypot(rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]) / 3
    return magnitude
