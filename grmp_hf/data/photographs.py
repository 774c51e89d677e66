"""A folder of photographs in memory, read once, as training draws from them again and again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from grmp_hf.data.distortions import Pixels
from grmp_hf.data.images import ImageError, decode_image
from grmp_hf.data.listing import list_images
from grmp_hf.data.opening import read_content
from grmp_hf.errors import GRMPError

__all__ = ["Photographs", "middle", "read_photographs"]

_LARGEST_SIDE = 512
_MEMORY = 10**9
"""Bytes that the pixels of all photographs may take, as long as each keeps a crop of the size asked for."""


@dataclass(frozen=True)
class Photographs:
    """Pixels of photographs.

    Attributes:
        pictures: (H, W, 3) uint8 each.
        content_hash: SHA-256, in hexadecimal, of all files' content, whatever their names and order.
        notes: a sentence for each file that was left out.
    """

    pictures: tuple[Pixels, ...]
    content_hash: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)


def read_photographs(
    folder: str | os.PathLike[str],
    size: int,
    shrink: Callable[[Image.Image], Image.Image],
    *,
    tell: Callable[[float], None] = lambda share: None,
) -> Photographs:
    """Read all photographs of a folder once.

    Of each, the middle is kept after shrinking: at most 512 x 512 pixels, and less of each where there are so many that
    they would take more than 1 GB, but never less than `size`.

    Args:
        folder: with all below it, in natural order.
        size: of the crops that will be taken.
        shrink: RGB picture -> one with sides of at least `size`.
        tell: told which share has been read.

    Returns:
        The photographs that could be read; the others are notes.

    Raises:
        GRMPError: no picture in the folder, or none that can be read.
    """
    listing = list_images([folder])
    paths, left_out = [Path(path) for path in listing.paths], listing.note()
    side = max(size, min(_LARGEST_SIDE, int((_MEMORY / (3 * len(paths))) ** 0.5)))

    def read(path: Path) -> tuple[Pixels, bytes] | ImageError:
        try:
            content = read_content(path)
            return middle(shrink(decode_image(content)), side), hashlib.sha256(content).digest()
        except ImageError as error:
            return error

    pictures: list[Pixels] = []
    digests: list[bytes] = []
    notes: list[str] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (path, found) in enumerate(zip(paths, pool.map(read, paths), strict=True), start=1):
            if isinstance(found, ImageError):
                notes.append(f"{path.name}: {found}")
            else:
                pictures.append(found[0])
                digests.append(found[1])
            tell(done / len(paths))
    if not pictures:
        raise GRMPError(f"{folder}: expected photographs, got {len(paths)} files that cannot be read: {notes[0]}")
    said = () if left_out is None else (left_out,)
    return Photographs(tuple(pictures), _hash(digests), (*said, *notes))


def middle(picture: Image.Image, side: int) -> Pixels:
    """The middle square of a side of a picture, or what there is of it: (H, W, 3), an array of its own."""
    pixels = np.asarray(picture)
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side].copy()


def _hash(digests: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
