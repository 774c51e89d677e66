"""TIFF files that Pillow would read as something else than the picture: refused by name, or mended."""

from __future__ import annotations

from typing import Any

from PIL import Image

from grmp_hf.data.image_errors import ImageError

__all__ = ["check_tiff", "inverted"]

_SUBFILE, _OLD_SUBFILE, _BITS, _PHOTOMETRIC, _MAKE = 254, 255, 258, 262, 271
_SAMPLES, _PLANES, _SUB_DIRECTORIES, _EXTRA, _SAMPLE_FORMAT, _DNG = 277, 284, 330, 338, 339, 50706
_WHITE_IS_ZERO, _RGB, _SENSOR = 0, 2, (32803, 34892)
_SIGNED = 2


def check_tiff(image: Any, prefix: bytes) -> None:
    """Raise for a file whose pixels would be taken for others.

    Args:
        image: as Pillow's decoder opened it, not loaded.
        prefix: its first 16 bytes.

    Raises:
        ImageError: "unsupported_format", with what it is and what to do.
    """
    tags = image.tag_v2
    bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, 1)
    photometric, extra = tags.get(_PHOTOMETRIC), tags.get(_EXTRA)
    colours = 3 if photometric == _RGB else 1
    raw = (
        _DNG in tags or photometric in _SENSOR or prefix[8:10] == b"CR" or (_MAKE in tags and _SUB_DIRECTORIES in tags)
    )
    refused = {
        "a camera's raw file, of which only a preview could be read; export it as JPEG, PNG or TIFF": raw,
        "a preview of another picture in the file; export the picture itself": (
            bool(tags.get(_SUBFILE, 0) & 1) or tags.get(_OLD_SUBFILE) == 2
        ),
        f"{samples} samples a pixel, of which {samples - colours} may be transparency or anything else; save it with "
        "the tag ExtraSamples, or without them": photometric in (0, 1, _RGB) and samples > colours and extra is None,
        f"{max(bits)} bits in planes one after the other; save the pixels together (planar configuration 1)": (
            tags.get(_PLANES, 1) == 2 and max(bits) > 8
        ),
        f"{max(bits)} bits a sample, which are read as if they were 16; save 8 or 16": 8 < max(bits) < 16,
        "signed numbers, of which nobody says how white they are; save 8 or 16 bits without sign": (
            _SIGNED in _tuple(tags.get(_SAMPLE_FORMAT, 1))
        ),
        "integers of 32 bits, of which nobody says how white they are; save 8 or 16 bits": image.mode == "I",
        f"pixels of the kind {image.mode!r} in which white is zero; save them the other way round": (
            photometric == _WHITE_IS_ZERO and max(bits) > 8 and not image.mode.startswith("I;16")
        ),
    }
    reason = next((reason for reason, applies in refused.items() if applies), None)
    if reason is not None:
        raise ImageError(f"the file holds {reason}", "unsupported_format")


def inverted(image: Any) -> Image.Image | None:
    """A loaded picture of 16 bits in which white is zero, the right way round; None for any other."""
    if image.tag_v2.get(_PHOTOMETRIC) != _WHITE_IS_ZERO or not image.mode.startswith("I;16"):
        return None
    import numpy as np

    return Image.fromarray(np.uint16(65535) - np.asarray(image).astype(np.uint16))


def _tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
