"""PNG files whose data are fewer than their header promises, which decoders leave black without a word."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from grmp_hf.data.image_errors import ImageError

__all__ = ["check_png"]

_PIECE = 2**18
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced picture: first column, first row, step of columns, step of rows (Adam7)."""


def check_png(image: Any, colours: int, stream: BinaryIO) -> None:
    """Raise for a loaded picture of which a part is not in the file.

    Args:
        image: loaded.
        colours: that the palette in the file has, if any.
        stream: of the file, at its beginning.

    Raises:
        ImageError: "unreadable", a colour that the palette lacks; "truncated", rows that are missing.
    """
    if image.mode == "P" and (highest := image.getextrema()[1]) >= colours:
        raise ImageError(f"uses the colour {highest} of a palette of {colours}; save it again", "unreadable")
    if not _ends_filled(image):
        _check_rows(stream)


def _ends_filled(image: Any) -> bool:
    """Say whether the last two rows hold anything but zero, which is memory that no row has filled.

    One of the two is the last to be filled, interlaced or not; to look at them costs nothing.
    """
    last = np.asarray(image.crop((0, max(0, image.height - 2), image.width, image.height)))
    return image.height > 1 and bool(last.reshape(len(last), -1).any(axis=1).all())


def _check_rows(stream: BinaryIO) -> None:
    width, height, depth, colour, _, _, interlaced = _header(stream)
    needed = sum(_sizes(width, height, depth * _SAMPLES[colour], bool(interlaced)))
    found = _inflated(_data(stream), needed)
    if found < needed:
        raise ImageError(f"ends too early ({found} of {needed} bytes of pixels); copy it again", "truncated")


def _header(stream: BinaryIO) -> tuple[int, ...]:
    head = stream.read(33)
    return (int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"), *head[24:29])


def _sizes(width: int, height: int, bits: int, interlaced: bool) -> Iterator[int]:
    """Bytes of each pass, a filter byte for each row with them."""
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            yield rows * (1 + -(-columns * bits // 8))


def _data(stream: BinaryIO) -> Iterator[bytes]:
    """Compressed data of the picture in small pieces; the stream stands behind the header."""
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        left = int.from_bytes(head[:4], "big")
        while head[4:] == b"IDAT" and left > 0 and (piece := stream.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
        stream.seek(left + 4, 1)


def _inflated(pieces: Iterator[bytes], enough: int) -> int:
    """How many bytes compressed data hold, counted up to enough; memory stays small."""
    inflater, found = zlib.decompressobj(), 0
    try:
        for piece in pieces:
            while piece and not inflater.eof and found < enough:
                found += len(inflater.decompress(piece, _PIECE))
                piece = inflater.unconsumed_tail
        return found if inflater.eof or found >= enough else found + len(inflater.flush())
    except zlib.error:
        return found
