"""What several kinds of distortion share: pictures, filters, the Lab colour space."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["Floats", "Pixels", "convolve", "from_lab", "gaussian_kernel", "look_up", "to_lab", "to_picture"]

Pixels: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) sRGB, 0 to 255."""
Floats: TypeAlias = NDArray[np.float32]

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_TO_CONES = (_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)  # white is (1, 1, 1)
_FROM_CONES = np.linalg.inv(_TO_CONES)
_STEPS = 8191  # of the tables below; fine enough for every step of 8 bits, also near black


def to_picture(values: NDArray[Any]) -> Pixels:
    """Round and clip values on the scale 0 to 255."""
    picture: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return picture


def look_up(picture: Pixels, curve: NDArray[Any]) -> Pixels:
    """Replace each value v of a picture by curve[v]; curve: (256,) on the scale 0 to 1."""
    return to_picture(curve * 255)[picture]


def gaussian_kernel(sigma: float) -> NDArray[np.float64]:
    """Sampled Gaussian that sums to 1, (2 r + 1, 2 r + 1) with r = ceil(3 sigma)."""
    reach = np.arange(-np.ceil(3 * sigma), np.ceil(3 * sigma) + 1)
    profile = np.exp(-(reach**2) / (2 * sigma**2))
    weights: NDArray[np.float64] = profile / profile.sum()
    return np.outer(weights, weights)


def convolve(values: NDArray[Any], kernel: NDArray[np.floating]) -> Floats:
    """Convolve each channel with a kernel of odd sides; beyond its border the picture is mirrored.

    Args:
        values: (H, W, C).
        kernel: (2 r + 1, 2 s + 1).

    Returns:
        (H, W, C) float32. The time does not depend on the kernel's size.
    """
    height, width, _ = values.shape
    r, s = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(np.asarray(values, np.float32), ((r, r), (s, s), (0, 0)), mode="symmetric").transpose(2, 0, 1)
    shape = [fft.next_fast_len(side, real=True) for side in padded.shape[1:]]
    spectrum = fft.rfft2(padded, shape)
    spectrum *= fft.rfft2(kernel.astype(np.float32), shape)
    result = fft.irfft2(spectrum, shape)[:, 2 * r : 2 * r + height, 2 * s : 2 * s + width]
    return result.transpose(1, 2, 0)  # type: ignore[no-any-return]


def to_lab(picture: Pixels) -> Floats:
    """CIE Lab of an sRGB picture, white point D65: (H, W, 3), L in 0 to 100."""
    cones = _linear_of_srgb()[picture] @ _TO_CONES.T
    x, y, z = np.moveaxis(_lightness_of_linear()[(cones * _STEPS + 0.5).astype(np.int32)], -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


def from_lab(lab: Floats) -> Pixels:
    """The sRGB picture of CIE Lab values; colours outside sRGB are clipped channel by channel."""
    y = (lab[..., :1] + 16) / 116
    f = np.concatenate((y + lab[..., 1:2] / 500, y, y - lab[..., 2:] / 200), axis=-1)
    cones = np.where(f > 6 / 29, f * f * f, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip(cones @ _FROM_CONES.T, 0, 1)
    picture: Pixels = _srgb_of_linear()[(linear * _STEPS + 0.5).astype(np.int32)]
    return picture


@cache
def _linear_of_srgb() -> Floats:
    """(256,) light, 0 to 1, of each value of sRGB (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@cache
def _srgb_of_linear() -> Pixels:
    """The value of sRGB of light 0 to 1 in steps of 1 / 8191."""
    light = np.arange(_STEPS + 1) / _STEPS
    return to_picture(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


@cache
def _lightness_of_linear() -> Floats:
    """The function f of CIE Lab at 0 to 1 in steps of 1 / 8191."""
    light = np.arange(_STEPS + 1) / _STEPS
    return np.where(light > (6 / 29) ** 3, np.cbrt(light), light * (29 / 6) ** 2 / 3 + 4 / 29).astype(np.float32)
