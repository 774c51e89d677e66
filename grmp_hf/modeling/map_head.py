"""A head that draws a map of quality on the grid of a vision tower's patches, and reads the score from it.

Letters in shapes: B pictures, V views, N = G^2 patches of a view, W width of the tower, M channels of the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.heads import Features, GRMPOutput, Head, Text

__all__ = ["MapHead", "MapOutput"]


@dataclass
class MapOutput(GRMPOutput):
    """What a head with a map says.

    Attributes:
        quality_map: ``(B, V, M, G, G)``, at least 0.
    """

    quality_map: Tensor | None = None


class MapHead(Head):
    """A map of the patches, and from it the quality::

        map = softplus(conv3x3(tokens on their grid)),   quality = sigmoid(w relu(A flatten(map) + a) + b)

    of each view, then the mean with the views' weights. The class token is left out. It has
    ``9 W M + M + (M G^2 + 2) H + 1`` weights. It can learn what a larger model's map is; see
    :mod:`grmp_hf.training.distilling`.

    Args:
        width: W, ``config.clip_config.vision_config.hidden_size`` of the model.
        grid: G, its ``image_size // patch_size``.
        channels: M.
        hidden: H, units between map and score.

    Raises:
        GRMPError: a size below 1.

    Source: after the student of DP-IQA (arXiv 2405.19996), whose map comes of an EfficientNet-B7, and is bounded by a
    relu: of a few channels those that it closes learn nothing more.
    """

    needs_tokens = True

    def __init__(self, width: int, grid: int, channels: int = 8, hidden: int = 64) -> None:
        super().__init__()
        if min(width, grid, channels, hidden) < 1:
            raise GRMPError(f"Expected sizes of at least 1, got {width}, {grid}, {channels} and {hidden}.")
        self.grid = grid
        self.draw = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1), nn.Softplus())
        self.read = nn.Sequential(nn.Linear(channels * grid**2, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, features: Features, text: Text) -> MapOutput:
        """``quality`` ``(B,)`` and the map.

        Raises:
            GRMPError: tokens of another width, or of another number of patches.
        """
        tokens = cast(Tensor, features.tokens)[:, :, 1:]
        width, found = cast(nn.Conv2d, self.draw[0]).in_channels, math.isqrt(tokens.shape[2])
        if tokens.shape[2:] != (self.grid**2, width):
            raise GRMPError(
                f"Expected {self.grid**2} patches of width {width}, got {tokens.shape[2]} of {tokens.shape[3]}. Make "
                f"the head with width={tokens.shape[3]} and grid={found}."
            )
        laid = tokens.flatten(0, 1).transpose(1, 2).reshape(-1, width, self.grid, self.grid)
        drawn: Tensor = self.draw(laid.to(cast(nn.Linear, self.read[0]).weight))
        said = self.read(drawn.flatten(1)).sigmoid().view(tokens.shape[:2])
        quality = (said * features.weights.to(said)).sum(1)
        return MapOutput(quality=quality, quality_map=drawn.view(*tokens.shape[:2], *drawn.shape[1:]))

    def settings(self) -> dict[str, Any]:
        """Its arguments."""
        drawn, read = cast(nn.Conv2d, self.draw[0]), cast(nn.Linear, self.read[0])
        return {
            "width": drawn.in_channels,
            "grid": self.grid,
            "channels": drawn.out_channels,
            "hidden": read.out_features,
        }
