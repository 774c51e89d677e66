"""Hand-made picture statistics: one value a 16-pixel cell for the student, and sharpness of a whole picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

CELL = 16
"""Side of a cell in pixels: the student's patch and the stride of the teacher's 112-channel stage."""

STATISTICS = 23
"""Values a cell that ``cell_statistics`` returns."""

# Luminance and two opponent-colour axes, rows on RGB in [0, 1].
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))


def _luminance_maps(luminance: Tensor) -> list[Tensor]:
    """Sharpness, gradient, grain and MSCN maps of ``(B, 1, H, W)`` luminance, same size each."""
    padded = F.pad(luminance, (1, 1, 1, 1), mode="reflect")
    centre = luminance
    north, south = padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1]
    west, east = padded[:, :, 1:-1, :-2], padded[:, :, 1:-1, 2:]
    laplacian = north + south + west + east - 4 * centre
    diagonal = padded[:, :, :-2, :-2] + padded[:, :, :-2, 2:] + padded[:, :, 2:, :-2] + padded[:, :, 2:, 2:]
    grain = diagonal - 2 * (north + south + west + east) + 4 * centre  # Immerkaer's noise mask: blind to edges
    mean = F.avg_pool2d(luminance, 7, 1, 3, count_include_pad=False)
    square = F.avg_pool2d(luminance**2, 7, 1, 3, count_include_pad=False)
    deviation = (square - mean**2).clamp_min(0).sqrt()
    mscn = (luminance - mean) / (deviation + 1 / 255)
    return [laplacian**2, (east - west).abs(), (south - north).abs(), grain.abs(), deviation, mscn.abs(), mscn**2]


def _log(values: Tensor) -> Tensor:
    return torch.log(values.clamp_min(0) + 1e-4)


def cell_statistics(pixels: Tensor) -> Tensor:
    """Statistics of every cell.

    Args:
        pixels: ``(B, 3, H, W)`` float in [0, 1]; H and W multiples of 32.

    Returns:
        ``(B, S, H / 16, W / 16)``: means and log deviations of luminance and opponent colours, dark and bright shares,
        saturation, and the log of sharpness, gradient, grain and MSCN maps at full and at half size.
    """
    axes = torch.einsum("oc,bchw->bohw", torch.tensor(OPPONENT, dtype=pixels.dtype), pixels)
    luminance = axes[:, :1]
    means, squares = F.avg_pool2d(axes, CELL), F.avg_pool2d(axes**2, CELL)
    spread = _log((squares - means**2).clamp_min(0).sqrt())
    saturation = pixels.amax(1, keepdim=True) - pixels.amin(1, keepdim=True)
    shares = torch.cat([(luminance < 0.06).to(pixels.dtype), (luminance > 0.94).to(pixels.dtype), saturation], 1)
    fine = torch.cat(_luminance_maps(luminance), 1)
    coarse = torch.cat(_luminance_maps(F.avg_pool2d(luminance, 2)), 1)
    logs = _log(torch.cat([F.avg_pool2d(fine, CELL), F.avg_pool2d(coarse, CELL // 2)], 1))
    return torch.cat([means, spread, F.avg_pool2d(shares, CELL), logs], 1)


def log_sharpness(picture: NDArray[np.uint8]) -> float:
    """Log variance of the Laplacian of luminance; ``picture``: ``(H, W, 3)``."""
    luminance = picture.astype(np.float32) @ np.asarray(OPPONENT[0], np.float32)
    laplacian = (
        luminance[:-2, 1:-1]
        + luminance[2:, 1:-1]
        + luminance[1:-1, :-2]
        + luminance[1:-1, 2:]
        - 4 * luminance[1:-1, 1:-1]
    )
    return float(np.log(laplacian.var() + 1e-3))
