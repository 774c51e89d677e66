"""Fragments: small native pieces of a picture, one from each cell of a grid, put together to a square.

What is local in a picture (noise, blocks, blur) is in them at its own size, and little of what it shows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError

__all__ = ["GRID", "PIECE", "Places", "cut", "draw_places", "mirrored"]

GRID, PIECE = 7, 32
"""Pieces of a row, and pixels of a piece's side: squares of 224 pixels."""

Places = tuple[list[int], list[int]]
"""Top rows and left columns of all pieces, row by row."""


def draw_places(height: int, width: int, rng: np.random.Generator, *, grid: int = GRID, piece: int = PIECE) -> Places:
    """A random place for a piece in each cell of a grid over a picture; in cells that are smaller, pieces overlap.

    Args:
        height, width: of the picture, at least ``piece`` each.
        rng: decides about the places.
        grid: cells of a row.
        piece: side of a piece, pixels.

    Raises:
        GRMPError: a smaller picture.
    """
    if min(height, width) < piece or grid < 1:
        raise GRMPError(
            f"Expected pictures of at least {piece} x {piece} pixels and a grid of at least 1, got {height} x {width} "
            f"and {grid}. Leave smaller ones out, or take smaller pieces."
        )
    ends = [np.arange(grid + 1) * side // grid for side in (height, width)]
    places = []
    for axis, (cells, side) in enumerate(zip(ends, (height, width), strict=True)):
        free = np.maximum(np.diff(cells) - piece, 0) + 1
        starts = np.minimum(cells[:-1], side - piece)
        shape = (grid, grid)
        drawn = np.broadcast_to(free if axis else free[:, None], shape)
        begin = np.broadcast_to(starts if axis else starts[:, None], shape)
        places.append((begin + rng.integers(drawn)).ravel().tolist())
    return places[0], places[1]


def cut(pictures: Tensor, places: Places, *, piece: int = PIECE) -> Tensor:
    """Pieces of pictures ``(..., 3, H, W)`` at the same places of each, as ``(..., 3, grid piece, grid piece)``.

    Args:
        pictures: of any type.
        places: of :func:`draw_places`.
        piece: side of a piece, pixels.

    >>> ramp = torch.arange(48.0).expand(1, 48, 48)
    >>> cut(ramp, draw_places(48, 48, np.random.default_rng(0), grid=3, piece=16), piece=16).shape
    torch.Size([1, 48, 48])
    """
    grid = round(len(places[0]) ** 0.5)
    parts = [pictures[..., top : top + piece, left : left + piece] for top, left in zip(*places, strict=True)]
    rows = [torch.cat(parts[at : at + grid], -1) for at in range(0, len(parts), grid)]
    return torch.cat(rows, -2)


def mirrored(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures ``(..., H, W)``, all of them turned over or not, from left to right and from top to bottom."""
    axes = [axis for axis, flip in zip((-1, -2), rng.random(2) < 0.5, strict=True) if flip]
    return pictures.flip(axes) if axes else pictures
