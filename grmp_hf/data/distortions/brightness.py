"""Brightness: brighter, darker, a shifted mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.distortions.pictures import Pixels, from_lab, look_up, to_lab, to_picture

__all__ = ["brighten", "darken", "mean_shift"]


def brighten(picture: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Lift the middle: two parts of the curve on R, G, B, one part of the same curve on L of Lab.

    The curve is the parabola through (0, 0), (0.5, 0.5 + amount / 2) and (1, 1), clipped to [0, 1].

    Source: KADIS-700k, `imbrighten`.
    """
    del rng
    lab = to_lab(picture)
    lab[..., 0] = 100 * _parabola(lab[..., 0] / 100, amount)
    curved = look_up(picture, _parabola(np.arange(256) / 255, amount))
    return to_picture((2 * curved.astype(np.float32) + from_lab(lab)) / 3)


def darken(picture: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Lower the middle: the parabola through (0, 0), (0.5, 0.5 - amount / 2) and (1, 1) on R, G, B.

    Source: KADIS-700k, `imdarken`.
    """
    del rng
    return look_up(picture, _parabola(np.arange(256) / 255, -amount))


def mean_shift(picture: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Add an amount, on the scale 0 to 1, to all values, or take it away: the seed decides.

    Source: KADIS-700k, `immeanshift`, whose levels run from 0.15 through 0 to -0.15, so that the third changes nothing.
    """
    return look_up(picture, np.arange(256) / 255 + rng.choice((-1, 1)) * amount)


def _parabola(values: NDArray[np.floating], amount: float) -> NDArray[np.floating]:
    return np.clip((1 + 2 * amount) * values - 2 * amount * values**2, 0, 1)
