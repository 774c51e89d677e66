"""The hand-made statistics of :mod:`grmp_hf.evaluation.baselines`, in torch, of a batch of pictures of one size.

Letters in shapes: B pictures.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["COUNT", "picture_statistics"]

COUNT = 14
"""Statistics of a picture."""

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_WINDOW = 9  # of local contrast
_SIGMA, _RADIUS = 7 / 6, 4  # of local normalisation


def picture_statistics(pixels: Tensor) -> Tensor:
    """Fourteen untrained statistics of each picture, in the order of `grmp_hf.evaluation.baselines.STATISTICS`.

    Args:
        pixels: ``(B, 3, H, W)`` in [0, 1], sides from 16 to 512: larger ones are not shrunk.

    Returns:
        ``(B, 14)``, those of ``handmade_statistics`` up to rounding.
    """
    grey = torch.stack([weight * plane for weight, plane in zip(_LUMINANCE, pixels.unbind(1), strict=True)]).sum(0)
    columns = [
        *_detail(grey),
        _colourfulness(pixels),
        *_tone(grey),
        _noise(grey),
        _blockiness(grey),
        *_normalised(grey),
    ]
    return torch.stack(columns, 1)


def _flat(planes: Tensor) -> Tensor:
    return planes.flatten(1)


def _variance(planes: Tensor) -> Tensor:
    """Of each picture; torch's own takes ten times as long on a CPU."""
    flat = _flat(planes)
    return (flat - flat.mean(1, keepdim=True)).square_().mean(1)


def _detail(grey: Tensor) -> tuple[Tensor, ...]:
    """sharpness, centre_sharpness, edges, local_contrast, entropy."""
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    laplacian = around - 4 * grey[:, 1:-1, 1:-1]
    rows, columns = (slice(n // 4, n - n // 4) for n in laplacian.shape[1:])
    across, down = grey[:, :-1, 1:] - grey[:, :-1, :-1], grey[:, 1:, :-1] - grey[:, :-1, :-1]
    centred = grey - grey.mean((1, 2), keepdim=True)  # in single precision, squares of large values hide small ones
    local = _blurred(centred**2, _box()) - _blurred(centred, _box()) ** 2
    return (
        (_variance(laplacian) + 1e-6).log(),
        (_variance(laplacian[:, rows, columns]) + 1e-6).log(),
        (_percentile(_flat(torch.hypot(across, down)), 0.99) + 1e-3).log(),
        (_flat(local.clamp_min(0).sqrt()).mean(1) + 1e-3).log(),
        _entropy(_flat(grey)),
    )


def _percentile(values: Tensor, share: float) -> Tensor:
    """Of each row, between its neighbours in order; the largest ones alone are sorted."""
    place = share * (values.shape[1] - 1)
    below = math.floor(place)
    largest = values.topk(values.shape[1] - below, 1).values
    upper = largest[:, -2] if largest.shape[1] > 1 else largest[:, -1]
    return torch.lerp(largest[:, -1], upper, place - below)


def _entropy(grey: Tensor) -> Tensor:
    """Of 64 levels, in bits."""
    levels = (grey * 63.999).long().clamp(0, 63)
    counts = grey.new_zeros(len(grey), 64).scatter_add_(1, levels, torch.ones_like(grey))
    share = counts / grey.shape[1]
    return -torch.xlogy(share, share).sum(1) / math.log(2)


def _colourfulness(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(1)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = (_variance(red_green) + _variance(yellow_blue)).sqrt()
    return (spread + 0.3 * torch.hypot(_flat(red_green).mean(1), _flat(yellow_blue).mean(1)) + 0.01).log()


def _tone(grey: Tensor) -> tuple[Tensor, ...]:
    """luminance, contrast, dark_share, bright_share."""
    flat = _flat(grey)
    dark, bright = (flat < 0.06).to(flat), (flat > 0.94).to(flat)
    return flat.mean(1), _variance(grey).sqrt(), dark.mean(1), bright.mean(1)


def _noise(grey: Tensor) -> Tensor:
    rows = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    response = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return (_flat(response.abs()).mean(1) * math.sqrt(math.pi / 2) / 6 + 1e-4).log()


def _blockiness(grey: Tensor) -> Tensor:
    ratios = []
    for axis in (1, 2):
        steps = grey.diff(dim=axis).abs().mean(3 - axis)
        border = torch.arange(steps.shape[1], device=grey.device) % 8 == 7
        ratios.append(((steps[:, border].mean(1) + 1e-3) / (steps[:, ~border].mean(1) + 1e-3)).log())
    return torch.stack(ratios).mean(0)


def _normalised(grey: Tensor) -> tuple[Tensor, Tensor]:
    """tail_weight, neighbour_product of luminance less its local mean over its local deviation."""
    kernel = _gaussian()
    mean = _blurred(grey, kernel)
    z = (grey - mean) / ((_blurred(grey**2, kernel) - mean**2).clamp_min(0).sqrt() + 1 / 255)
    tail = ((_flat(z**2).mean(1) + 1e-6) / (_flat(z.abs()).mean(1) ** 2 + 1e-6)).log()
    return tail, (_flat(z[:, :, 1:] * z[:, :, :-1]).mean(1) + _flat(z[:, 1:] * z[:, :-1]).mean(1)) / 2


def _box() -> list[float]:
    return [1 / _WINDOW] * _WINDOW


def _gaussian() -> list[float]:
    weights = [math.exp(-((place / _SIGMA) ** 2) / 2) for place in range(-_RADIUS, _RADIUS + 1)]
    return [weight / sum(weights) for weight in weights]


def _blurred(grey: Tensor, kernel: list[float]) -> Tensor:
    """Planes ``(B, H, W)`` under a symmetric kernel along both axes; beyond the edge they are mirrored."""
    reach = len(kernel) // 2
    for axis in (1, 2):
        size = grey.shape[axis]
        edges = [grey.narrow(axis, 0, reach).flip(axis), grey, grey.narrow(axis, size - reach, reach).flip(axis)]
        wide, found = torch.cat(edges, axis), torch.zeros_like(grey)
        for place, weight in enumerate(kernel):  # a convolution of one channel takes many times as long on a CPU
            found = found.add_(wide.narrow(axis, place, size), alpha=weight)
        grey = found
    return grey
