"""What data sets and the generator call their distortions, and the eleven types that these names stand for.

Source: Zhang, Zhai, Wei, Yang and Ma, "Blind image quality assessment via vision-language correspondence: a multitask
learning perspective" (CVPR 2023): 33 names of LIVE, CSIQ, BID, LIVE Challenge, KonIQ-10k and KADID-10k, and types.
What other names stand for, here of TID2013 and of whole data sets, follows from those.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType

from grmp_hf.data.columns import shown
from grmp_hf.data.distortions import DISTORTIONS
from grmp_hf.errors import GRMPError

__all__ = ["DISTORTION_NAMES", "DISTORTION_TYPES", "distortion_type"]

_NAMES = {
    "jpeg2000": ("jpeg2000 compression", "fastfading"),
    "jpeg": ("jpeg compression",),
    "noise": (
        *("white noise", "white with color", "impulse", "multiplicative", "white noise with denoise", "fnoise"),
        "realistic noise",
    ),
    "blur": ("gaussian blur", "lens", "motion", "shifting", "realistic blur"),
    "color": ("diffusion", "oversaturation", "desaturation"),
    "contrast": ("contrast", "sharpness", "realistic contrast change"),
    "overexposure": ("brighten", "overexposure"),
    "underexposure": ("darken", "underexposure"),
    "spatial": ("jitter", "noneccentricity patch", "pixelate", "color blocking"),
    "quantization": ("quantization", "color quantization"),
    "other": ("shifting the mean", "other realistic"),
}
"""The type -> the published names that stand for it."""

_KADID = (
    *("gaussian blur", "lens", "motion", "diffusion", "shifting", "color quantization", "desaturation"),
    *("oversaturation", "jpeg2000 compression", "jpeg compression", "white noise", "white with color", "impulse"),
    *("multiplicative", "white noise with denoise", "brighten", "darken", "shifting the mean", "jitter"),
    *("noneccentricity patch", "pixelate", "quantization", "color blocking", "sharpness", "contrast"),
)
"""The published names of KADID-10k's 25 types, in its order, which is that of the generator."""

_TID2013 = {
    "additive gaussian noise": "noise",
    "additive noise in color components": "noise",
    "spatially correlated noise": "noise",
    "masked noise": "noise",
    "high frequency noise": "noise",
    "impulse noise": "noise",
    "quantization noise": "quantization",
    "gaussian blur": "blur",
    "image denoising": "noise",
    "jpeg compression": "jpeg",
    "jpeg2000 compression": "jpeg2000",
    "jpeg transmission errors": "jpeg",
    "jpeg2000 transmission errors": "jpeg2000",
    "non eccentricity pattern noise": "spatial",
    "local block wise distortions": "spatial",
    "mean shift": "other",
    "contrast change": "contrast",
    "change of color saturation": "color",
    "multiplicative gaussian noise": "noise",
    "comfort noise": "noise",
    "lossy compression of noisy images": "noise",
    "image color quantization with dither": "quantization",
    "chromatic aberrations": "color",
    "sparse sampling and reconstruction": "spatial",
}
"""The 24 types of TID2013, in its order."""

_OTHERS = {
    # LIVE's folders, CSIQ's and their label files
    **{"jp2k": "jpeg2000", "wn": "noise", "gblur": "blur", "fast fading": "jpeg2000", "ff": "jpeg2000"},
    **{"awgn": "noise", "jpeg 2000": "jpeg2000", "jpeg2000": "jpeg2000", "jpeg": "jpeg", "noise": "noise"},
    **{"blur": "blur", "pink noise": "noise"},
    # plain words
    **{"color": "color", "spatial": "spatial", "other": "other"},
    **{"lens blur": "blur", "motion blur": "blur", "out of focus": "blur", "defocus": "blur"},
}

_NUMBERED = {"kadid10k": tuple(DISTORTIONS), "tid2013": tuple(_TID2013)}
"""The data set -> its types in the order of their numbers, from 1."""


def _key(name: str) -> str:
    """A name as it is compared: small letters, American spelling, blanks for whatever is no letter or digit."""
    words = re.sub(r"[^a-z0-9]+", " ", name.strip().casefold()).strip().replace("colour", "color")
    return words.replace("quantisation", "quantization").replace("noneccentricity", "non eccentricity")


def _table() -> dict[str, str]:
    published = {_key(name): kind for kind, names in _NAMES.items() for name in names}
    kadid = {_key(kind): published[_key(name)] for kind, name in zip(DISTORTIONS, _KADID, strict=True)}
    more = {_key(name): kind for name, kind in {**_TID2013, **_OTHERS}.items()}
    return {**kadid, **more, **published}


DISTORTION_TYPES: tuple[str, ...] = tuple(_NAMES)
"""The eleven types, in the published order."""
DISTORTION_NAMES: Mapping[str, str] = MappingProxyType(_table())
"""A name, in small letters with blanks -> its type: the 33 published ones, those of the generator, of TID2013, LIVE and
CSIQ."""


def distortion_type(name: str, data_set: str | None = None) -> str:
    """The type that the name of a distortion stands for.

    Args:
        name: as a data set or `grmp_hf.data.distortions` writes it; case, hyphens and underscores do not matter.
        data_set: whose name it is, needed where that is a number: "kadid10k" or "tid2013".

    Returns:
        One of `DISTORTION_TYPES`.

    Raises:
        GRMPError: an unknown name, with the near ones.

    Examples:
        >>> distortion_type("Gaussian blur"), distortion_type("white_noise_colour"), distortion_type("jp2k")
        ('blur', 'noise', 'jpeg2000')
        >>> distortion_type("10", "kadid10k"), distortion_type("23", "tid2013")
        ('jpeg', 'color')
    """
    numbered, number = _NUMBERED.get(data_set or "", ()), int(name) if name.strip().isdecimal() else 0
    key = _key(numbered[number - 1] if 1 <= number <= len(numbered) else name)
    if key in DISTORTION_NAMES:
        return DISTORTION_NAMES[key]
    close = difflib.get_close_matches(key, DISTORTION_NAMES, n=3, cutoff=0.5)
    hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    raise GRMPError(
        f"Expected the name of a distortion, got {shown(name)!r}{hint}. Name one of the types "
        f"{', '.join(DISTORTION_TYPES)}, or leave the cell empty."
    )
