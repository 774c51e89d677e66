"""From maps of several scales to a map of quality, and to a score: convolutions that weigh their channels.

Letters in shapes: B pictures, C channels of a map, F channels that are fused, M channels of the map of quality, G side
of its grid.

Source: Fu et al., "DP-IQA: Utilizing diffusion prior for blind image quality assessment in the wild" (arXiv
2405.19996), the quality feature decoder of its released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grmp_hf.errors import GRMPError

__all__ = ["MultiScaleDecoder", "SqueezeExcitation"]

REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Channels weighted by what their means say: ``x sigmoid(V relu(U mean(x)))``, without biases.

    Args:
        channels: at least ``reduction``.
        reduction: of the channels between U and V.

    Source: Hu, Shen and Sun, "Squeeze-and-excitation networks" (CVPR 2018).
    """

    def __init__(self, channels: int, reduction: int = REDUCTION) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.weigh = nn.Sequential(
            nn.Linear(channels, inner, bias=False), nn.ReLU(), nn.Linear(inner, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        weights: Tensor = self.weigh(maps.mean((2, 3)))
        return maps * weights[:, :, None, None]


class MultiScaleDecoder(nn.Module):
    """Maps of a network to quality::

        x_k = SE(conv3x3(bicubic_GxG(map_k)))                  of each map, F channels
        x = SE(conv3x3(concat x_k)),   map = relu conv1x1 relu conv1x1 relu conv1x1 x
        score = W3 relu W2 relu W1 flatten(map)

    Args:
        channels: C of each map.
        grid: G, such as the side of the latent.
        fused: F.
        narrowed: channels behind each of the last convolutions; the last of them is M.
        hidden: units of the two layers between map and score.

    Raises:
        GRMPError: no map, or a size below 1.

    The defaults are the authors' sizes: 42,934,697 weights for the four maps of Stable Diffusion 1.5, without the batch
    normalisation and the classifier that their module holds and never calls.
    """

    def __init__(
        self,
        channels: Sequence[int] = (1280, 1280, 640, 320),
        grid: int = 64,
        fused: int = 512,
        narrowed: Sequence[int] = (128, 32, 8),
        hidden: int = 512,
    ) -> None:
        super().__init__()
        sizes = [*channels, *narrowed, grid, fused, hidden]
        if not channels or not narrowed or min(sizes) < 1:
            raise GRMPError(
                f"Expected at least one map and one narrowing, and sizes of at least 1, got channels "
                f"{tuple(channels)}, narrowed {tuple(narrowed)}, grid {grid}, fused {fused} and hidden {hidden}."
            )
        self.grid = grid
        self.scales = nn.ModuleList(_weighed(width, fused) for width in channels)
        self.fuse = _weighed(fused * len(channels), fused)
        widths = [fused, *narrowed]
        self.narrow = nn.Sequential(
            *(layer for at, width in enumerate(narrowed) for layer in (nn.Conv2d(widths[at], width, 1), nn.ReLU()))
        )
        self.score = nn.Sequential(
            *(nn.Linear(narrowed[-1] * grid**2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps ``(B, C, ., .)`` to scores ``(B,)`` on an open axis, and the map ``(B, M, G, G)``, at least 0.

        Raises:
            GRMPError: another number of maps.
        """
        if len(maps) != len(self.scales):
            raise GRMPError(f"Expected {len(self.scales)} maps, got {len(maps)}. Make a decoder for as many.")
        found = [
            scale(F.interpolate(states.float(), size=(self.grid, self.grid), mode="bicubic", align_corners=False))
            for scale, states in zip(self.scales, maps, strict=True)
        ]
        quality_map: Tensor = self.narrow(self.fuse(torch.cat(found, dim=1)))
        score: Tensor = self.score(quality_map.flatten(1)).squeeze(1)
        return score, quality_map


def _weighed(channels: int, fused: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, fused, 3, padding=1), SqueezeExcitation(fused))
