"""Damage of a picture's data that its decoder passes over in silence.

A JPEG has no check sum: lost sectors, or an end that came too early, leave grey or shifted blocks, of which libjpeg
warns and Pillow says nothing; the same in the strips of a TIFF. PNG and otherwise compressed TIFF have check sums or
lengths, so their decoders fail; formats without either (BMP, PPM, plain or PackBits TIFF, WEBP, AVIF) cannot be told
from sound ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import simplejpeg
from PIL import Image

from grmp_hf.data.tiff import jpeg_parts

__all__ = ["DAMAGED", "is_damaged", "is_damaged_jpeg"]

DAMAGED = "damaged"
"""The warning of a picture that could be read although a part of its data is lost."""

_JPEG = b"\xff\xd8\xff"
_LOSS = re.compile("corrupt|premature end", re.IGNORECASE)
_OTHER_KIND = re.compile("unsupported|not supported|not implemented|conver", re.IGNORECASE)


def is_damaged(image: Image.Image, read: Callable[[], bytes]) -> bool:
    """Whether a part of a picture's data is lost of which its decoder says nothing.

    Args:
        image: as Pillow has opened it.
        read: gives the content of its file; called where anything depends on it.
    """
    if image.format in ("JPEG", "MPO"):
        return is_damaged_jpeg(read())
    if image.format != "TIFF":
        return False
    # After a part that it cannot read, the decoder goes on to the next one whatever was wrong.
    return any((said := _complaint(part)) and not _OTHER_KIND.search(said) for part in jpeg_parts(image, read))


def is_damaged_jpeg(content: bytes) -> bool:
    """Whether libjpeg warns of lost data in a JPEG; False for files of any other kind.

    All data are decoded, the pixels at an eighth of the size, which takes a third of the time of decoding.

    Args:
        content: of the file.
    """
    # Kinds of JPEG that this decoder does not take are Pillow's business.
    return content.startswith(_JPEG) and _LOSS.search(_complaint(content)) is not None


def _complaint(content: bytes) -> str:
    """What libjpeg says of a JPEG that it cannot read in full; nothing of a sound one."""
    try:
        simplejpeg.decode_jpeg(content, "GRAY", min_factor=8)
    except ValueError as error:
        return str(error)
    return ""
