"""The 25 distortion types of KADID-10k at five levels, as pure functions on pictures.

Operations and parameters are those of the published generator of KADIS-700k, which made KADID-10k (Lin, Hosu, Saupe,
QoMEX 2019; Matlab, here written anew). Where a level of theirs leaves the picture as it is, or the levels do not run
from mild to strong, ours differ; the docstring of the function says how.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from grmp_hf.data.distortions.blur import gaussian_blur, lens_blur, motion_blur
from grmp_hf.data.distortions.brightness import brighten, darken, mean_shift
from grmp_hf.data.distortions.colour import (
    colour_diffusion,
    colour_quantisation,
    colour_saturation_hsv,
    colour_saturation_lab,
    colour_shift,
)
from grmp_hf.data.distortions.compression import jpeg, jpeg2000
from grmp_hf.data.distortions.noise import (
    denoise,
    impulse_noise,
    multiplicative_noise,
    white_noise,
    white_noise_colour,
)
from grmp_hf.data.distortions.pictures import Pixels
from grmp_hf.data.distortions.sharpness import contrast, sharpen
from grmp_hf.data.distortions.spatial import colour_block, jitter, non_eccentricity_patch, pixelate, quantisation
from grmp_hf.errors import GRMPError

__all__ = ["DISTORTIONS", "LEVELS", "SMALLEST_SIDE", "Distortion", "Pixels", "distort"]

LEVELS = (1, 2, 3, 4, 5)
"""Mild to strong."""
SMALLEST_SIDE = 16
"""Pixels that a picture needs in height and width."""


@dataclass(frozen=True)
class Distortion:
    """One type of distortion.

    Attributes:
        name: as in `DISTORTIONS`.
        number: 1 to 25, the type's number in KADID-10k.
        family: the group in which KADID-10k's paper puts it.
        parameter: what the values are, with their unit.
        values: (5,), the parameter at levels 1 to 5.
        random: whether the result depends on the seed.
        function: (picture, value, generator) -> picture; `distort` checks its input.
    """

    name: str
    number: int
    family: str
    parameter: str
    values: tuple[float, ...]
    random: bool
    function: Callable[[Pixels, float, np.random.Generator], Pixels]


_FIXED, _RANDOM = False, True

DISTORTIONS: Mapping[str, Distortion] = MappingProxyType(
    {
        function.__name__: Distortion(function.__name__, number, family, parameter, values, random, function)
        for number, (family, function, random, parameter, values) in enumerate(
            (
                ("blur", gaussian_blur, _FIXED, "sigma, pixels", (0.4, 0.5, 1, 2, 5)),
                ("blur", lens_blur, _FIXED, "radius, pixels", (1, 2, 4, 6, 8)),
                ("blur", motion_blur, _RANDOM, "length, pixels", (1, 2, 4, 6, 10)),
                ("colour", colour_diffusion, _FIXED, "amount", (1, 3, 6, 8, 12)),
                ("colour", colour_shift, _RANDOM, "distance, pixels", (1, 3, 6, 8, 12)),
                ("colour", colour_quantisation, _FIXED, "colours", (64, 48, 32, 16, 8)),
                ("colour", colour_saturation_hsv, _FIXED, "factor of S", (0.4, 0.2, 0.1, 0, -0.4)),
                ("colour", colour_saturation_lab, _FIXED, "factor of a and b", (1.5, 2, 3, 6, 9)),
                ("compression", jpeg2000, _FIXED, "ratio", (16, 32, 45, 120, 400)),
                ("compression", jpeg, _FIXED, "quality", (43, 36, 24, 7, 4)),
                ("noise", white_noise, _RANDOM, "variance", (0.001, 0.002, 0.003, 0.005, 0.01)),
                ("noise", white_noise_colour, _RANDOM, "variance", (0.0001, 0.0005, 0.001, 0.002, 0.003)),
                ("noise", impulse_noise, _RANDOM, "share of the values", (0.001, 0.005, 0.01, 0.02, 0.03)),
                ("noise", multiplicative_noise, _RANDOM, "variance", (0.001, 0.005, 0.01, 0.02, 0.05)),
                ("noise", denoise, _RANDOM, "variance", (0.01, 0.03, 0.05, 0.1, 0.15)),
                ("brightness", brighten, _FIXED, "amount", (0.1, 0.2, 0.4, 0.7, 1.1)),
                ("brightness", darken, _FIXED, "amount", (0.05, 0.1, 0.2, 0.4, 0.8)),
                ("brightness", mean_shift, _RANDOM, "amount, up or down", (0.04, 0.08, 0.11, 0.15, 0.2)),
                ("spatial", jitter, _RANDOM, "spread, pixels", (0.11, 0.22, 0.45, 1.12, 2.24)),
                ("spatial", non_eccentricity_patch, _RANDOM, "patches", (20, 40, 60, 80, 100)),
                ("spatial", pixelate, _FIXED, "strength", (0.01, 0.05, 0.1, 0.2, 0.5)),
                ("spatial", quantisation, _FIXED, "thresholds", (20, 16, 13, 10, 7)),
                ("spatial", colour_block, _RANDOM, "blocks", (2, 4, 6, 8, 10)),
                ("sharpness", sharpen, _FIXED, "amount", (1, 2, 3, 6, 12)),
                ("sharpness", contrast, _RANDOM, "amount, stronger or weaker", (0.025, 0.05, 0.075, 0.1, 0.125)),
            ),
            start=1,
        )
    }
)
"""The 25 types by name, in KADID-10k's order."""


def distort(picture: Pixels, kind: str, level: int, *, seed: int) -> Pixels:
    """Distort a picture.

    Random numbers are a function of seed and kind alone: the levels of one seed share them. So one noise grows, and the
    blocks of a level are among those of the next.

    Args:
        picture: (H, W, 3) uint8, sRGB, sides of at least 16 pixels; it is not written to.
        kind: a name in `DISTORTIONS`.
        level: 1 (mild) to 5 (strong).
        seed: 0 or more; without effect where `DISTORTIONS[kind].random` is False.

    Returns:
        (H, W, 3) uint8, an array of its own that may be written to.

    Raises:
        GRMPError: an unknown kind, another level, a negative seed, or something that is no such picture.

    Examples:
        >>> grey = np.full((16, 24, 3), 100, np.uint8)
        >>> distort(grey, "darken", 5, seed=0)[0, 0].tolist(), DISTORTIONS["darken"].values[4]
        ([3, 3, 3], 0.8)
    """
    if kind not in DISTORTIONS:
        close = difflib.get_close_matches(kind, DISTORTIONS, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        raise GRMPError(f'unknown distortion "{kind}"{hint}; choose from {", ".join(DISTORTIONS)}')
    if level not in LEVELS:
        raise GRMPError(f"{kind}: expected a level of 1 (mild) to 5 (strong), got {level!r}; choose one of these")
    if seed < 0:
        raise GRMPError(f"{kind}: expected a seed of 0 or more, got {seed}; choose another")
    if (
        picture.dtype != np.uint8
        or picture.ndim != 3
        or picture.shape[2] != 3
        or min(picture.shape[:2]) < SMALLEST_SIDE
    ):
        raise GRMPError(
            f"{kind}: expected a picture (H, W, 3) uint8 with sides of at least {SMALLEST_SIDE} pixels, got "
            f"{picture.shape} {picture.dtype}; convert or enlarge it"
        )
    distortion = DISTORTIONS[kind]
    rng = np.random.default_rng((seed, distortion.number))
    distorted = distortion.function(picture, distortion.values[LEVELS.index(level)], rng)
    return np.require(distorted, requirements=("C", "W"))  # what Pillow returns cannot be written to
