"""Places: jitter, patches, coarse pixels, few values, blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from grmp_hf.data.distortions.pictures import Pixels, to_picture

__all__ = ["colour_block", "jitter", "non_eccentricity_patch", "pixelate", "quantisation"]

KADID_AREA = 512 * 384
"""Pixels of the pictures for which KADID-10k's sizes of patches and blocks were chosen."""


def jitter(picture: Pixels, spread: float, rng: np.random.Generator) -> Pixels:
    """Take each pixel from a place nearby, with a Gaussian distance of a spread in pixels, between four neighbours.

    Source: KADIS-700k, `imjitter`, which does this five times with 1 / sqrt(5) of the spread.
    """
    shape = picture.shape[:2]
    places = np.indices(shape, np.float32) + np.float32(spread) * rng.standard_normal((2, *shape), np.float32)
    channels = [ndimage.map_coordinates(picture[..., c], places, np.float32, order=1, mode="nearest") for c in range(3)]
    return to_picture(np.stack(channels, axis=-1))


def non_eccentricity_patch(picture: Pixels, count: float, rng: np.random.Generator) -> Pixels:
    """Copy a number of square patches to places up to half a side away.

    A patch has 16 x 16 pixels in a picture of 512 x 384, and the same share of the area in others.

    Source: KADIS-700k, `imnoneccentricity`.
    """
    patched = picture.copy()
    side = _side(picture, 16)
    room = np.array(picture.shape[:2]) - side
    for _ in range(round(count)):
        start = np.rint(rng.random(2) * room).astype(int)
        end = np.clip(start + np.rint((rng.random(2) - 0.5) * side).astype(int), 0, room)
        patch = patched[start[0] : start[0] + side, start[1] : start[1] + side].copy()
        patched[end[0] : end[0] + side, end[1] : end[1] + side] = patch
    return patched


def pixelate(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Shrink to 0.95 - strength^0.6 of the size and enlarge again, both to the nearest pixel.

    Source: KADIS-700k, `impixelate`.
    """
    del rng
    height, width, _ = picture.shape
    share = 0.95 - strength**0.6
    small = Image.fromarray(picture).resize((round(share * width), round(share * height)), Image.Resampling.NEAREST)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def quantisation(picture: Pixels, thresholds: float, rng: np.random.Generator) -> Pixels:
    """Keep few values: thresholds of least variance within their classes (Otsu), and each class's mean.

    One set of thresholds, that of the values of all channels together, serves the three channels.

    Source: KADIS-700k, `imnoisequantize`, where each class takes its upper threshold instead of its mean.
    """
    del rng
    counts = np.bincount(picture.reshape(-1), minlength=256)
    return _means_of_classes(counts.astype(np.float64), round(thresholds) + 1)[picture]


def colour_block(picture: Pixels, count: float, rng: np.random.Generator) -> Pixels:
    """Cover a number of squares with random colours.

    A square has 32 x 32 pixels in a picture of 512 x 384, and the same share of the area in others.

    Source: KADIS-700k, `imcolorblock`.
    """
    covered = picture.copy()
    side = _side(picture, 32)
    room = np.array(picture.shape[:2]) - side
    for _ in range(round(count)):
        top, left = np.rint(rng.random(2) * room).astype(int)
        covered[top : top + side, left : left + side] = rng.integers(0, 256, 3)
    return covered


def _side(picture: Pixels, side: int) -> int:
    height, width, _ = picture.shape
    return max(2, round(side * math.sqrt(height * width / KADID_AREA)))


def _means_of_classes(counts: NDArray[np.float64], classes: int) -> Pixels:
    """The mean of each value's class, (256,), for the classes of neighbours with the least sum of squares.

    Dynamic programming: the best k classes of the values below j are the best k - 1 classes of the values below some
    i and the class of those from i to j.
    """
    value = np.arange(256)
    number, total, squares = (np.concatenate(([0.0], np.cumsum(counts * value**power))) for power in (0, 1, 2))
    inside = np.maximum(number[None] - number[:, None], 1e-9)  # [i, j]: of the values from i to j - 1
    cost = squares[None] - squares[:, None] - (total[None] - total[:, None]) ** 2 / inside
    cost = np.where(np.arange(257)[:, None] <= np.arange(257), np.maximum(cost, 0), np.inf)
    best, starts = cost[0], []
    for _ in range(classes - 1):
        options = best[:, None] + cost
        starts.append(options.argmin(axis=0))
        best = options.min(axis=0)
    ends = [256]
    for start in reversed(starts):
        ends.append(int(start[ends[-1]]))
    means = np.zeros(256)
    for begin, end in itertools.pairwise([0, *reversed(ends)]):
        means[begin:end] = (total[end] - total[begin]) / max(number[end] - number[begin], 1)
    return to_picture(means)
