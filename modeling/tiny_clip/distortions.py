"""Synthetic camera and processing faults on 8-bit pictures, each with a level in [0, 1].

Every function takes a picture ``(H, W, 3) uint8``, a level and a generator, and returns a picture of the same shape.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

Picture = NDArray[np.uint8]
Distortion = Callable[[Picture, float, np.random.Generator], Picture]

FILTERS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def to_picture(values: NDArray[np.float32]) -> Picture:
    """Round and clip values on the 0..255 scale."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _interpolate(level: float, start: float, end: float) -> float:
    """Geometric interpolation: equal steps of the level are equal ratios of the setting."""
    return float(start * (end / start) ** level)


def blur(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Gaussian blur, sigma .5 to 4 pixels."""
    del rng
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(_interpolate(level, 0.5, 4.0))))


def motion(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Mean along a straight line of 3 to 23 pixels in a random direction."""
    length = round(_interpolate(level, 3, 23))
    angle = rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, length)
    reach = length // 2 + 1
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    height, width = picture.shape[:2]
    total = np.zeros(picture.shape, np.uint16)
    for step in steps:
        top = reach + round(step * np.sin(angle))
        left = reach + round(step * np.cos(angle))
        total += padded[top : top + height, left : left + width]
    return (total // length).astype(np.uint8)


def low_resolution(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Shrink by 1.3 to 6 and enlarge again with a random filter."""
    height, width = picture.shape[:2]
    factor = _interpolate(level, 1.3, 6.0)
    small = Image.fromarray(picture).resize((round(width / factor), round(height / factor)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), FILTERS[rng.integers(len(FILTERS))]))


def noise(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Gaussian noise, sigma 4 to 50; grey or in colour, three in ten times smoothed as denoised cameras do."""
    grey = rng.random() < 0.4
    grain = rng.standard_normal((*picture.shape[:2], 1 if grey else 3), dtype=np.float32)
    if rng.random() < 0.3:
        grain = 2 * ndimage.uniform_filter(grain, (2, 2, 1))
    return to_picture(picture + np.float32(_interpolate(level, 4, 50)) * grain)


def jpeg(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """JPEG of quality 60 down to 6."""
    del rng
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=round(_interpolate(level, 60, 6)))
    return np.asarray(Image.open(buffer).convert("RGB"))


def over(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Over-exposure: gain in linear light of .3 to 2.5 stops, then clipping."""
    del rng
    gain = 2 ** (_interpolate(level, 0.3, 2.5) / 2.2)
    return to_picture(picture.astype(np.float32) * np.float32(gain))


def under(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Under-exposure by .5 to 4.5 stops, with the noise that dark exposures carry."""
    gain = np.float32(2 ** (-_interpolate(level, 0.5, 4.5) / 2.2))
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    return to_picture(picture * gain + np.float32(level * rng.uniform(0, 6)) * grain)


def contrast(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Contrast around the mean reduced to .8 down to .15."""
    del rng
    mean = np.float32(picture.mean())
    return to_picture(mean + (picture - mean) * np.float32(_interpolate(level, 0.8, 0.15)))


def banding(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Only 16 down to 3 values a channel."""
    del rng
    step = np.float32(255 / (round(_interpolate(level, 16, 3)) - 1))
    return to_picture(np.rint(picture / step) * step)


def haze(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Mix with light grey, stronger towards the top."""
    light = np.float32(rng.uniform(190, 245))
    ramp = np.linspace(1, 0.5, picture.shape[0], dtype=np.float32)[:, None, None]
    share = np.float32(_interpolate(level, 0.15, 0.85)) * ramp
    return to_picture(picture * (1 - share) + light * share)


def colour(picture: Picture, level: float, rng: np.random.Generator) -> Picture:
    """Desaturation or a colour cast."""
    values = picture.astype(np.float32)
    if rng.random() < 0.5:
        grey = values.mean(axis=2, keepdims=True)
        return to_picture(grey + (values - grey) * np.float32(1 - level))
    cast = rng.standard_normal(3).astype(np.float32)
    cast *= np.float32(_interpolate(level, 0.06, 0.45)) / np.abs(cast).max()
    return to_picture(values * (1 + cast))


DISTORTION_FUNCTIONS: dict[str, Distortion] = {
    "blur": blur,
    "motion": motion,
    "low_resolution": low_resolution,
    "noise": noise,
    "jpeg": jpeg,
    "over": over,
    "under": under,
    "contrast": contrast,
    "banding": banding,
    "haze": haze,
    "colour": colour,
}

SEVERITY = {
    "blur": 4.5,
    "motion": 4.5,
    "low_resolution": 4.5,
    "noise": 3.5,
    "jpeg": 3.5,
    "over": 3.0,
    "under": 3.0,
    "contrast": 2.5,
    "banding": 2.5,
    "haze": 2.2,
    "colour": 1.2,
}
"""Loss of latent quality at level 1; set once by judgement, no rating enters."""
