"""Noise: white, in colour, impulses, multiplicative, and what a denoiser leaves."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from grmp_hf.data.distortions.pictures import Floats, Pixels, to_picture

__all__ = ["denoise", "impulse_noise", "multiplicative_noise", "white_noise", "white_noise_colour"]

# ITU-R BT.601 with Y in 16 to 235, Cb and Cr in 16 to 240: what one unit of each adds to R, G, B
_RGB_OF_YCBCR = np.array(
    [[255 / 219, 0, 1.596027], [255 / 219, -0.391762, -0.812968], [255 / 219, 2.017232, 0]], np.float32
)


def white_noise(picture: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise of a variance, on the scale 0 to 1, to each channel.

    Source: KADIS-700k, `imnoisegauss`.
    """
    return to_picture(picture + _gaussian(picture, variance, rng))


def white_noise_colour(picture: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise of a variance, on the scale 0 to 1, to Y, Cb and Cr.

    Source: KADIS-700k, `imnoisecolorcomp`.
    """
    return to_picture(picture + _gaussian(picture, variance, rng) @ _RGB_OF_YCBCR.T)


def impulse_noise(picture: Pixels, density: float, rng: np.random.Generator) -> Pixels:
    """Set a share of the values of all channels to 0 or 255, half of it each.

    Source: KADIS-700k, `imnoiseimpulse` (Matlab's salt and pepper).
    """
    chance = rng.random(picture.shape, dtype=np.float32)
    noisy = np.where(chance < density / 2, np.uint8(0), picture)
    return np.where(chance > 1 - density / 2, np.uint8(255), noisy)


def multiplicative_noise(picture: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Multiply each value by 1 + n, with n uniform, of mean 0 and a variance.

    Source: KADIS-700k, `imnoisemultiplicative` (Matlab's speckle).
    """
    reach = np.float32((3 * variance) ** 0.5)
    return to_picture(picture * (1 + reach * (2 * rng.random(picture.shape, dtype=np.float32) - 1)))


def denoise(picture: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise of a variance, on the scale 0 to 1, and remove it with a local Wiener filter.

    With mean m and variance s of the 7 x 7 values around it, a noisy value v becomes m + max(s - variance, 0) / s
    (v - m): flat parts are smoothed, edges keep their noise.

    Source: KADIS-700k, `imdenoise`, where a trained network (DnCNN) removes the noise; this filter is that of
    Lee (1980).
    """
    noisy = np.clip(picture + _gaussian(picture, variance, rng), 0, 255)
    mean = ndimage.uniform_filter(noisy, (7, 7, 1))
    spread = np.maximum(ndimage.uniform_filter(noisy * noisy, (7, 7, 1)) - mean * mean, 1)
    kept = np.maximum(1 - np.float32(variance * 255**2) / spread, 0)
    return to_picture(mean + kept * (noisy - mean))


def _gaussian(picture: Pixels, variance: float, rng: np.random.Generator) -> Floats:
    return np.float32(255 * variance**0.5) * rng.standard_normal(picture.shape, dtype=np.float32)
