"""Safe decoding of picture files: formats by allow-list, limits before decoding, one treatment for each mode.

What happens to a picture, always the same way:

| input | treatment |
|---|---|
| orientation in EXIF, XMP or TIFF | applied; an unreadable tag counts as none |
| animation (GIF, WEBP, APNG), several pages (TIFF, MPO) | the first frame, or the default picture of the file |
| grey, with or without alpha; black and white | the value repeated in the three channels |
| palette | looked up |
| alpha, a transparent colour | laid over white: the paper and the page on which people see such pictures |
| alpha of a BMP that is 0 everywhere | ignored: writers leave the fourth byte empty |
| GIF whose first frame is smaller than its screen | the frame on white |
| CMYK, inverted CMYK of Adobe's JPEG | Pillow's conversion without colour profiles |
| 16 bit grey | divided by 257 and rounded, so that 65535 is white (Pillow itself would clip at 255) |
| 16 bit colour | Pillow's decoder keeps the upper byte |
| TIFF: white is zero | turned round |
| TIFF: raw files, previews, samples of unknown meaning, wide separate planes, signed or 32 bit integers | refused |
| TIFF without photometric tag, with parts left out, uncompressed with colours or bits of other order | refused |
| TIFF: palette of 8 bit numbers | as libtiff reads it |
| TIFF, PNG: fewer data than the size needs | an error, "truncated" |
| 32 bit integer (PPM, and from Python) | as 16 bit; a value outside 0..65535 is an error |
| JPEG, alone or in a TIFF, whose data are damaged | decoded as far as they go, with a warning |
| AVIF; HEIC where pillow-heif is installed | decoded |
| float | 0.0 is black, 1.0 is white; a value outside is an error, since its scale cannot be known |
| YCbCr, HSV, CIELAB | converted to sRGB |
| embedded colour profile, PNG's gamma | ignored, as in the training of every public CLIP |
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import GifImagePlugin, Image, ImageCms, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin

from grmp_hf.data.damage import DAMAGED, is_damaged
from grmp_hf.data.formats import PREFIX, find_decoder
from grmp_hf.data.image_errors import IMAGE_ERROR_CODES, ImageError, ImageErrorCode, at_its_end
from grmp_hf.data.opening import open_picture
from grmp_hf.data.png import check_png
from grmp_hf.data.tiff import check_tiff, inverted

__all__ = [
    "IMAGE_ERROR_CODES",
    "MAX_PIXELS",
    "ImageError",
    "ImageErrorCode",
    "check_header",
    "decode_image",
    "load_pixels",
    "pillow_errors",
    "shown",
    "to_rgb",
    "upright",
]

MAX_PIXELS = 2**27
"""Default limit of width x height (134 million). Pillow holds 4 bytes a pixel; alpha or rotation need a second copy."""

BACKGROUND = (255, 255, 255)

_ORIENTATION_TAG = 0x0112


def decode_image(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    warn: Callable[[str], None] | None = None,
) -> Image.Image:
    """Decode one picture to RGB, upright, as the table at the head of this module says.

    Args:
        source: path, content of a file, or binary file object (read from its position, left open).
        max_pixels: largest width x height, read from the header before any pixel is decoded.
        warn: told the code of what a decoder passes over in silence ("damaged": a part of the data is lost).

    Returns:
        RGB picture, fully loaded, without metadata (nobody can apply the orientation twice).

    Raises:
        ImageError: with a `code`, for everything that is wrong with this one picture.

    Examples:
        >>> import io
        >>> from PIL import Image
        >>> stream = io.BytesIO()
        >>> Image.new("LA", (4, 2), (0, 0)).save(stream, "PNG")
        >>> decode_image(stream.getvalue()).getpixel((0, 0))
        (255, 255, 255)
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else str(getattr(source, "name", "picture"))
    with _open_stream(source) as stream, pillow_errors(name):
        start = stream.tell()
        image = _read_header(stream, name, max_pixels)
        load_pixels(image, stream, start)
        rgb = shown(image)
        if rgb is image:
            rgb = image.copy()  # a plain picture, free of the file

        def content() -> bytes:
            stream.seek(start)
            return stream.read()

        if warn is not None and is_damaged(image, content):
            warn(DAMAGED)
    rgb.info = {}
    return rgb


def shown(image: Image.Image) -> Image.Image:
    """A loaded picture as people see it: RGB, upright, white where white is meant; maybe the same object."""
    mended = inverted(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    rgb = to_rgb(upright(image) if mended is None else mended)
    frame = image.dispose_extent if isinstance(image, GifImagePlugin.GifImageFile) and not image.tell() else None
    if frame in (None, (0, 0, *rgb.size)):
        return rgb
    page = Image.new("RGB", rgb.size, BACKGROUND)
    page.paste(rgb.crop(frame), frame)
    return page


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB, as the table at the head of this module says.

    Args:
        image: loaded picture; its orientation tag is not looked at.

    Returns:
        RGB picture; the same object if it is RGB without a transparent colour.

    Raises:
        ImageError: "unsupported_format" for values outside the stated range and for unknown modes.

    Examples:
        >>> from PIL import Image
        >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        grey = _scale_to_grey(image, white=65535)
        transparent = image.info.get("transparency")  # one value of 16 bits, of which Pillow makes nothing
        if isinstance(transparent, int):
            grey.paste(BACKGROUND, mask=Image.fromarray(np.asarray(image) == transparent))
        return grey
    if mode == "F":
        return _scale_to_grey(image, white=1)
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return cast(Image.Image, converted)
    if mode in {"RGBA", "RGBa", "LA", "PA"} or (mode in {"1", "L", "P", "RGB"} and image.has_transparency_data):
        rgba = image if mode == "RGBA" else image.convert("RGBA")
        if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
            return rgba.convert("RGB")
        flat = Image.new("RGB", image.size, BACKGROUND)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat
    if mode == "RGB":
        return image
    if mode in {"1", "L", "P", "RGBX", "CMYK", "YCbCr", "HSV"}:
        return image.convert("RGB")
    raise ImageError(
        f'pixels of the kind "{mode}" are not known; save the picture as 8 bit grey, RGB or RGBA', "unsupported_format"
    )


@contextlib.contextmanager
def _open_stream(source: Any) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    if not isinstance(source, str | os.PathLike):
        yield source
        return
    with open_picture(source) as stream:
        yield stream


@contextlib.contextmanager
def pillow_errors(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError`: one bad picture must never end a run over many."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f'"{name}": {error}', error.code) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f'"{name}" is larger than Pillow allows ({error}); shrink it', "too_large") from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        reason = str(error) or type(error).__name__
        if "unknown pixel mode" in reason:
            raise ImageError(
                f'"{name}": bits or channels of a kind that is not known; save it as grey or RGB of 8 or 16 bits',
                "unsupported_format",
            ) from error
        if isinstance(error, EOFError) or re.search(r"truncat|premature|end of (file|data)", reason, re.IGNORECASE):
            raise ImageError(f'"{name}" ends too early ({reason}); copy it again', "truncated") from error
        raise ImageError(f'"{name}" cannot be decoded ({reason}); save it again', "unreadable") from error


def _read_header(stream: BinaryIO, name: str, max_pixels: int) -> ImageFile.ImageFile:
    start = stream.tell()
    prefix = stream.read(PREFIX)
    if start and not prefix:
        raise at_its_end(start)
    stream.seek(start)
    image = find_decoder(prefix)(stream, name)
    check_header(image, prefix, max_pixels, str(image.tile[0][3]) if image.format == "PNG" else "")
    return image


def check_header(image: ImageFile.ImageFile, prefix: bytes, max_pixels: int, depth: str = "") -> None:
    """Raise for a picture that is too large, or that Pillow would read as something else.

    Args:
        image: as Pillow has opened it.
        prefix: first bytes of its file, as far as they are known.
        max_pixels: largest width x height.
        depth: of a PNG, how Pillow calls the numbers in the file.

    Raises:
        ImageError: "too_large" or "unsupported_format".
    """
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels are over the limit of {max_pixels} pixels; shrink it", "too_large")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        check_tiff(image, prefix)
    if image.format == "PNG" and "transparency" in image.info and depth in ("RGB;16B", "L;2", "L;4"):
        raise ImageError(
            "a transparent colour in another depth than the pixels are read in; save it with an alpha channel",
            "unsupported_format",
        )


def load_pixels(image: Image.Image, stream: BinaryIO | None = None, start: int = 0) -> None:
    """Decode a picture whose size has been allowed; the rows of a PNG are counted where its file is at hand.

    Raises:
        ImageError: "truncated" or "unreadable", of a PNG; see :func:`~grmp_hf.data.png.check_png`.
    """
    colours = 0 if image.palette is None else len(image.palette.palette) // 3  # of the file; loading may fill it up
    _load_any_size(image)
    if stream is not None and isinstance(image, PngImagePlugin.PngImageFile):
        stream.seek(start)
        check_png(image, colours, stream)


def _load_any_size(image: Image.Image) -> None:
    pillow_limit = Image.MAX_IMAGE_PIXELS
    if pillow_limit is None or image.width * image.height <= pillow_limit:
        image.load()
        return
    # Some decoders warn again here, about a size that has just been allowed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image.load()


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its orientation tag says, and take the tag away so that nobody turns it again.

    Args:
        image: as Pillow opens it.

    Returns:
        The same object where there is nothing to turn; an unreadable tag counts as none.

    Raises:
        Exception: whatever its decoder raises of pixels that are not loaded yet.
    """
    image.load()  # reading a PNG's tag does so too, and a damaged picture is no unreadable tag
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
    except Exception:  # a damaged tag block says nothing about the pixels; Pillow raises nearly anything here
        return image


def _scale_to_grey(image: Image.Image, *, white: int) -> Image.Image:
    values = np.asarray(image)
    grey = np.empty(values.shape, dtype=np.uint8)
    for top in range(0, len(values), 256):  # in strips: the wide intermediate never holds the whole picture
        strip = values[top : top + 256].astype(np.float64)
        if not ((strip >= 0) & (strip <= white)).all():
            raise ImageError(f"values outside 0 to {white}; save the picture with 8 or 16 bits", "unsupported_format")
        grey[top : top + 256] = np.rint(strip * (255 / white))
    return Image.fromarray(grey).convert("RGB")
