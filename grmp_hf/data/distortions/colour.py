"""Colour: diffusion, shift, quantisation, saturation."""

from __future__ import annotations

import numpy as np
from PIL import Image

from grmp_hf.data.distortions.pictures import Pixels, convolve, from_lab, gaussian_kernel, to_lab, to_picture

__all__ = [
    "colour_diffusion",
    "colour_quantisation",
    "colour_saturation_hsv",
    "colour_saturation_lab",
    "colour_shift",
]


def colour_diffusion(picture: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Blur the colours a and b of Lab with a Gaussian of 1.5 amount + 2 pixels, and multiply them by the amount.

    Source: KADIS-700k, `imcolordiffuse`.
    """
    del rng
    lab = to_lab(picture)
    lab[..., 1:] = amount * convolve(lab[..., 1:], gaussian_kernel(1.5 * amount + 2))
    return from_lab(lab)


def colour_shift(picture: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Near edges, move green by an amount of pixels in a random direction to the lower right.

    The strength of edges is the gradient of the grey picture, blurred with a Gaussian of 4 pixels, from 0 at its first
    to 1 at its 99th percentile; it blends the moved green with the old.

    Source: KADIS-700k, `imcolorshift`.
    """
    angle = rng.uniform(0, np.pi / 2)
    grey = picture @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    gradient = np.hypot(*np.gradient(grey))[..., None]
    edges = convolve(gradient, gaussian_kernel(4))[..., 0]
    low, high = np.percentile(edges, (1, 99))
    strength = np.clip((edges - low) / max(high - low, 1e-6), 0, 1)
    down, right = round(amount * np.sin(angle)), round(amount * np.cos(angle))
    height, width, _ = picture.shape
    green = picture[..., 1]
    moved = np.pad(green, ((down, 0), (right, 0)), mode="symmetric")[:height, :width]
    shifted = picture.copy()
    shifted[..., 1] = to_picture(green + strength * (moved.astype(np.float32) - green))
    return shifted


def colour_quantisation(picture: Pixels, colours: float, rng: np.random.Generator) -> Pixels:
    """Keep a number of colours, chosen for the picture, with dither.

    Source: KADIS-700k, `imcolorquantize` (Matlab's `rgb2ind`); here the colours are the median cut of 64 x 64
    of the pixels, since that of all of them would take a hundred times as long.
    """
    del rng
    image = Image.fromarray(picture)
    sample = image.resize((64, 64), Image.Resampling.NEAREST)
    palette = sample.quantize(round(colours), Image.Quantize.MEDIANCUT)
    return np.asarray(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))


def colour_saturation_hsv(picture: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    """Multiply the saturation of HSV, with hue and value as they are; below 0 colours become their opposites.

    A channel c of a pixel with value v = max(R, G, B) becomes v - factor (v - c).

    Source: KADIS-700k, `imcolorsaturate`.
    """
    del rng
    value = picture.max(axis=2, keepdims=True).astype(np.float32)
    return to_picture(value - np.float32(factor) * (value - picture))


def colour_saturation_lab(picture: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    """Multiply a and b of Lab, so that colours glow.

    Source: KADIS-700k, `imsaturate`; its mildest factor, 1, leaves the picture as it is, so ours is larger.
    """
    del rng
    lab = to_lab(picture)
    lab[..., 1:] *= np.float32(factor)
    return from_lab(lab)
