"""Which files are pictures, by their first bytes, and what decodes them.

The decoders are called directly, not through `Image.open`, whose check of the size warns first and names neither width
nor height, and whose list of formats is longer than what is wanted here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from grmp_hf.data.image_errors import ImageError
from grmp_hf.data.text import describe_stand_in

__all__ = ["PREFIX", "READABLE", "UNREADABLE", "find_decoder", "readable_suffixes", "remedy"]

PREFIX = 64
"""Bytes at the head of a file that say what it is."""

Decoder = Callable[[Any, str], ImageFile.ImageFile]

_DECODERS: tuple[tuple[re.Pattern[bytes], Decoder], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"), TiffImagePlugin.TiffImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    (re.compile(rb"P[1-6f]\s"), PpmImagePlugin.PpmImageFile),
)
READABLE = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm .pfm .avif .heic .heif .hif".split()
)
"""Suffixes of pictures that are read, here or where a decoder is installed; see `readable_suffixes`."""

_RAW = frozenset(".dng .nef .cr2 .cr3 .arw .orf .rw2 .raf .pef .srw".split())
UNREADABLE = _RAW | frozenset(".jxl .jp2 .j2k .svg .psd .xcf .exr .hdr".split())
"""Suffixes of pictures that are not read."""

_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_JXL = re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n")
_NAMES = "JPEG, PNG, WEBP, BMP, TIFF, GIF, PPM, AVIF or HEIC"


def find_decoder(prefix: bytes) -> Decoder:
    """The decoder of a file.

    Args:
        prefix: its first `PREFIX` bytes.

    Raises:
        ImageError: "empty", or "unsupported_format" with what to do.
    """
    if not prefix:
        raise ImageError("the file is empty; copy it again or leave it out", "empty")
    found = next((decoder for magic, decoder in _DECODERS if magic.match(prefix)), None)
    brands = _brands(prefix)
    if brands & _AVIF:
        found = _avif()
    elif brands & _HEIC:
        found = _heif()
    if found is not None:
        return found
    if brands & (_AVIF | _HEIC):
        raise ImageError(remedy(".avif" if brands & _AVIF else ".heic"), "unsupported_format")
    if _JXL.match(prefix):
        raise ImageError(remedy(".jxl"), "unsupported_format")
    found_instead = describe_stand_in(prefix) or "bytes of another kind; convert it"
    raise ImageError(f"expected {_NAMES}, got {found_instead}", "unsupported_format")


def remedy(suffix: str) -> str:
    """What to do about pictures with a suffix that are not read.

    >>> remedy(".jxl")
    'JXL is not read; convert it to JPEG or PNG'
    """
    if suffix in (".heic", ".heif", ".hif"):
        return "HEIC is read where pillow-heif is installed; install it with: pip install 'grmp_hf[heic]'"
    if suffix == ".avif":
        return "AVIF is read by newer versions of Pillow; install one with: pip install --upgrade pillow"
    if suffix in _RAW:
        return "a camera's raw file is not read; export it as JPEG, PNG or TIFF"
    return f"{suffix.removeprefix('.').upper()} is not read; convert it to JPEG or PNG"


def readable_suffixes() -> frozenset[str]:
    """Suffixes of pictures that can be read on this machine, in lower case."""
    without = {".avif"} if _avif() is None else set()
    without |= {".heic", ".heif", ".hif"} if _heif() is None else set()
    return READABLE - without


def _brands(prefix: bytes) -> set[bytes]:
    """Brands of a file of the family of HEIF; empty for any other."""
    if prefix[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(prefix[:4], "big"), len(prefix))
    return {prefix[8:12], *(prefix[at : at + 4] for at in range(16, end - 3, 4))}


@functools.cache
def _avif() -> Decoder | None:
    if not features.check("avif"):
        return None
    from PIL import AvifImagePlugin

    return AvifImagePlugin.AvifImageFile


@functools.cache
def _heif() -> Decoder | None:
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        return None
    return HeifImageFile
