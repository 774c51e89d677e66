"""Blur: Gaussian, out of focus, moved camera."""

from __future__ import annotations

import numpy as np

from grmp_hf.data.distortions.pictures import Pixels, convolve, gaussian_kernel, to_picture

__all__ = ["gaussian_blur", "lens_blur", "motion_blur"]


def gaussian_blur(picture: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Blur with a Gaussian of sigma pixels.

    Source: KADIS-700k, `imblurgauss`; its mildest sigma, 0.1, leaves every value as it is, so ours is larger.
    """
    del rng
    return to_picture(convolve(picture, gaussian_kernel(sigma)))


def lens_blur(picture: Pixels, radius: float, rng: np.random.Generator) -> Pixels:
    """Blur with a disk of a radius in pixels, as a lens out of focus does.

    Source: KADIS-700k, `imblurlens`.
    """
    del rng
    reach = np.arange(-np.ceil(radius), np.ceil(radius) + 1)
    disk = np.clip(radius + 0.5 - np.hypot(reach[:, None], reach), 0, 1)  # the share of each pixel, nearly
    return to_picture(convolve(picture, disk / disk.sum()))


def motion_blur(picture: Pixels, length: float, rng: np.random.Generator) -> Pixels:
    """Mean along a straight line of a length in pixels, in a random direction.

    Source: KADIS-700k, `imblurmotion`; there a line of length 1 is a point that changes nothing, here it has ends.
    """
    angle = rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    along = (np.arange(64) + 0.5) / 64 - 0.5
    rows, columns = reach + length * along * np.sin(angle), reach + length * along * np.cos(angle)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    for down in (0, 1):  # each point of the line is shared by its four neighbours
        for right in (0, 1):
            share = (1 - np.abs(rows - top - down)) * (1 - np.abs(columns - left - right))
            np.add.at(kernel, (top + down, left + right), share)
    return to_picture(convolve(picture, kernel / kernel.sum()))
