"""Pictures that Pillow has opened already: the treatment of their files, as far as these are still at hand."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, cast

from PIL import Image, ImageFile

from grmp_hf.data.damage import DAMAGED, is_damaged
from grmp_hf.data.formats import PREFIX, find_decoder
from grmp_hf.data.image_errors import ImageError
from grmp_hf.data.images import MAX_PIXELS, check_header, load_pixels, pillow_errors, shown

__all__ = ["decode_opened"]

_JPEG = ("JPEG", "MPO")


def decode_opened(
    image: Image.Image, *, max_pixels: int = MAX_PIXELS, warn: Callable[[str], None] | None = None
) -> Image.Image:
    """A picture of Pillow's as RGB, upright, as :func:`~grmp_hf.data.images.decode_image` gives that of a file.

    What was opened is loaded, so the frame that it stands at and what was drawn into it count. Its file is looked at
    for what Pillow forgets; without it, a JPEG's damage is not seen, and a PNG of unknown depth is refused.

    Args:
        image: of any mode, loaded or not.
        max_pixels, warn: as for a file; a picture made in memory may have any size.

    Returns:
        Maybe the same object.

    Raises:
        ImageError: as for a file.
    """
    opened = image if isinstance(image, ImageFile.ImageFile) else None
    with pillow_errors(_name(image)):
        content = None if opened is None else _content(opened)
        if opened is not None:
            check_header(opened, (content or b"")[:PREFIX], max_pixels, _depth(opened, content))
        load_pixels(image, None if content is None else io.BytesIO(content))
        found = shown(image)
    if warn is not None and content is not None and is_damaged(image, lambda: content or b""):
        warn(DAMAGED)
    return found


def _name(image: Image.Image) -> str:
    return os.fsdecode(getattr(image, "filename", "") or "picture")


def _content(image: ImageFile.ImageFile) -> bytes | None:
    """The file of a picture; None where it is gone or another one by now, or where nothing depends on it."""
    if image.format not in ("PNG", "TIFF", *_JPEG):
        return None
    try:
        content = _read(image)
        header = find_decoder(content[:PREFIX])(io.BytesIO(content), _name(image))
    except Exception:  # what cannot be read again is gone
        return None
    same = sorted(header.size) == sorted(image.size)  # Pillow turns a TIFF while it loads
    return content if same and header.format == image.format.replace("MPO", "JPEG") else None


def _read(image: ImageFile.ImageFile) -> bytes:
    stream = cast(Any, image.fp)
    if stream is None or stream.closed:
        with open(image.filename, "rb") as file:
            return file.read()
    place = stream.tell()
    stream.seek(0)
    content: bytes = stream.read()
    stream.seek(place)
    return content


def _depth(image: ImageFile.ImageFile, content: bytes | None) -> str:
    """What Pillow calls the numbers in the file of a PNG.

    Raises:
        ImageError: nothing says so any more, and a transparent colour depends on it.
    """
    if image.format != "PNG":
        return ""
    if content is not None:
        return str(find_decoder(content)(io.BytesIO(content), "").tile[0][3])
    colour = image.info.get("transparency")
    if (isinstance(colour, tuple) and max(colour) > 255) or (image.mode == "L" and colour in range(1, 16)):
        raise ImageError(
            "a transparent colour, maybe in another depth than the pixels were read in, and the file is gone; give the "
            "file or its bytes",
            "unsupported_format",
        )
    return ""
