"""TIFF files that Pillow would read as something else than the picture: refused by name, or mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image, ImagePalette

from grmp_hf.data.image_errors import ImageError

__all__ = ["check_tiff", "inverted", "jpeg_parts"]

_SUBFILE, _OLD_SUBFILE, _BITS, _PHOTOMETRIC, _MAKE = 254, 255, 258, 262, 271
_SAMPLES, _PLANES, _SUB_DIRECTORIES, _EXTRA, _SAMPLE_FORMAT, _DNG = 277, 284, 330, 338, 339, 50706
_WIDTH, _HEIGHT, _COMPRESSION, _FILL_ORDER, _COLOUR_MAP, _SUBSAMPLING = 256, 257, 259, 266, 320, 530
_STRIPS, _ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_WHITE_IS_ZERO, _RGB, _YCBCR, _SENSOR = 0, 2, 6, (32803, 34892)
_SIGNED = 2
_PLAIN, _FAX, _OLD_JPEG, _JPEG, _JPEG_TABLES = 1, (2, 3, 4), 6, 7, 347


def check_tiff(image: Any, prefix: bytes) -> None:
    """Raise for a file whose pixels would be taken for others, and mend a colour map of 8 bits.

    Args:
        image: as Pillow's decoder opened it, not loaded.
        prefix: its first 16 bytes.

    Raises:
        ImageError: "unsupported_format", with what it is and what to do; "truncated" where data are missing.
    """
    _check_kind(image, prefix)
    _check_data(image)
    _mend_palette(image)


def _check_kind(image: Any, prefix: bytes) -> None:
    tags = image.tag_v2
    bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, 1)
    photometric, extra = tags.get(_PHOTOMETRIC), tags.get(_EXTRA)
    colours, plain = 3 if photometric == _RGB else 1, tags.get(_COMPRESSION, _PLAIN) == _PLAIN
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
        "pixels of which nobody says whether zero is black or white; save it with the tag PhotometricInterpretation": (
            photometric is None and tags.get(_COMPRESSION, _PLAIN) not in (*_FAX, _OLD_JPEG)
        ),
        "colours of fewer pixels than there are (YCbCr, subsampled) without compression; save it as RGB": (
            plain and photometric == _YCBCR and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1)
        ),
        f"{max(bits)} bits a sample in reversed order (FillOrder 2); save it with FillOrder 1": (
            plain and max(bits) > 8 and tags.get(_FILL_ORDER) == 2
        ),
    }
    reason = next((reason for reason, applies in refused.items() if applies), None)
    if reason is not None:
        raise ImageError(f"the file holds {reason}", "unsupported_format")


def _check_data(image: Any) -> None:
    """Raise for strips or tiles that are not there, or of which a part is not: decoders leave them black."""
    tags = image.tag_v2
    tiled = _STRIPS not in tags
    offsets, counts = _places(tags)
    needed = list(_part_sizes(tags, tiled))
    compression = tags.get(_COMPRESSION, _PLAIN)
    if compression != _OLD_JPEG and len(offsets) < len(needed):
        kind = "tiles" if tiled else "strips"
        raise ImageError(f"{len(offsets)} {kind} of the {len(needed)} that the size needs; copy it again", "truncated")
    if any(offset == 0 == count for offset, count in zip(offsets, counts, strict=False)):
        raise ImageError("parts were never written (a sparse file); save it in full", "unsupported_format")
    # A count of 0 is one that the writer did not know: the data are there.
    short = [(count, size) for count, size in zip(counts, needed, strict=False) if 0 < count < size]
    if compression == _PLAIN and short:
        raise ImageError(f"{short[0][0]} bytes where the rows need {short[0][1]}; copy it again", "truncated")


def _places(tags: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the strips or tiles of the first page lie, and how long each is."""
    where, length = (_STRIPS, _STRIP_BYTES) if _STRIPS in tags else (_TILES, _TILE_BYTES)
    return _tuple(tags.get(where, ())), _tuple(tags.get(length, ()))


def jpeg_parts(image: Any, read: Callable[[], bytes]) -> Iterator[bytes]:
    """Strips or tiles of the first page as JPEG files, with the tables that they share; none of another compression.

    Args:
        image: as Pillow's decoder opened it.
        read: gives the content of its file; called where there are any.
    """
    tags = image.tag_v2
    if tags.get(_COMPRESSION) != _JPEG:
        return
    content, shared = read(), tags.get(_JPEG_TABLES, b"")
    for offset, count in zip(*_places(tags), strict=False):
        part = content[offset : offset + count]
        yield shared[:-2] + part[2:] if shared else part


def _part_sizes(tags: Any, tiled: bool) -> Iterator[int]:
    """Bytes of each strip or tile of the first page without compression, in the order of the file."""
    width, height, bits, samples = tags[_WIDTH], tags[_HEIGHT], _tuple(tags.get(_BITS, (1,))), tags.get(_SAMPLES, 1)
    planes = samples if tags.get(_PLANES, 1) == 2 else 1
    pixel = bits[0] * (samples // planes)
    if tiled:
        tile = tags[_TILE_HEIGHT] * -(-tags[_TILE_WIDTH] * pixel // 8)
        yield from [tile] * (-(-width // tags[_TILE_WIDTH]) * -(-height // tags[_TILE_HEIGHT]) * planes)
        return
    rows = min(tags.get(_ROWS) or height, height)
    for _ in range(planes):
        for top in range(0, height, rows):
            yield min(rows, height - top) * -(-width * pixel // 8)


def _mend_palette(image: Any) -> None:
    """Read a colour map whose numbers end at 255 as one of 8 bits, as libtiff does; Pillow would see black."""
    colours = _tuple(image.tag_v2.get(_COLOUR_MAP, ()))
    if image.mode in ("P", "PA") and colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def inverted(image: Any) -> Image.Image | None:
    """A loaded picture of 16 bits in which white is zero, the right way round; None for any other."""
    if image.tag_v2.get(_PHOTOMETRIC) != _WHITE_IS_ZERO or not image.mode.startswith("I;16"):
        return None
    import numpy as np

    return Image.fromarray(np.uint16(65535) - np.asarray(image).astype(np.uint16))


def _tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
