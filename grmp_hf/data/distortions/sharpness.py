"""Sharpness and contrast: over-sharpened, contrast too strong or too weak."""

from __future__ import annotations

import numpy as np
from scipy import interpolate

from grmp_hf.data.distortions.pictures import Pixels, convolve, from_lab, gaussian_kernel, look_up, to_lab

__all__ = ["contrast", "sharpen"]


def sharpen(picture: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Add an amount of L - G(L) to L of Lab, with G a Gaussian of 3 pixels (unsharp masking).

    Source: KADIS-700k, `imsharpenHi`.
    """
    del rng
    lab = to_lab(picture)
    light = lab[..., :1]
    lab[..., :1] = np.clip(light + np.float32(amount) * (light - convolve(light, gaussian_kernel(3))), 0, 100)
    return from_lab(lab)


def contrast(picture: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Stronger or weaker contrast, the seed decides: a curve that moves 0.3 and 0.7 apart or together by the amount.

    The curve is the cubic spline through 0, 0.3 -+ amount, 0.5, 0.7 +- amount, 1 at 0, 0.3, 0.5, 0.7, 1.

    Source: KADIS-700k, `imcontrastc`, whose levels run from +0.125 to -0.1 in our amount, so that the third is its
    mildest.
    """
    move = rng.choice((-1, 1)) * amount
    spline = interpolate.CubicSpline((0, 0.3, 0.5, 0.7, 1), (0, 0.3 - move, 0.5, 0.7 + move, 1))
    return look_up(picture, spline(np.arange(256) / 255))
