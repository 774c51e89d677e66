"""Heads that are linear in the embedding of a picture: a cosine with a direction, and a mean with its sigma.

Letters in shapes: B pictures, D joint width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grmp_hf.modeling.functional import unit_length
from grmp_hf.modeling.heads import Features, GRMPOutput, Head, Text

__all__ = ["Cosine", "MeanSigma"]


class Cosine(Head):
    """Cosine between a picture's embedding and a direction that is learnt::

        mean = sum_v weight_v cos(embedding_v, direction)   in [-1, 1],   quality = (1 + mean) / 2

    Cosines of one base are comparable whatever data set has taught them. The direction begins at random, from torch's
    own generator.

    Args:
        width: D, ``config.clip_config.projection_dim`` of the model.

    Source: the heads of TSN-IQA (arXiv 2107.13429; at test time there) and of LoDa (arXiv 2308.12001).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        """``mean`` ``(B,)`` in [-1, 1], and the quality that it stands for."""
        mean = features.pooled() @ unit_length(self.direction).to(features.embeds)
        return GRMPOutput(quality=(1 + mean) / 2, mean=mean)

    def settings(self) -> dict[str, Any]:
        """The width."""
        return {"width": len(self.direction)}


class MeanSigma(Head):
    """A mean on an open axis, and how far it may be off::

        mean, s = W embedding + b,   sigma = softplus(s),   quality = sigmoid(scale mean + offset)

    Pairs of pictures fix differences of means alone, in units of sigma; where the axis lies on the scale of ratings is
    said by two buffers, scale and offset, 1 and 0 until :meth:`place` sets them. It begins with all means 0 and all
    sigmas 1.

    Args:
        width: D, ``config.clip_config.projection_dim`` of the model.

    Source: UNIQUE (arXiv 2005.13983), on the embedding of a CLIP in the place of bilinear features.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.last = nn.Linear(width, 2)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([0.0, math.log(math.e - 1)]))  # softplus of it is 1
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def place(self, scale: float, offset: float) -> None:
        """Say where the axis lies on the scale; see :func:`~grmp_hf.training.calibration.place_means`."""
        self.scale.fill_(scale)
        self.offset.fill_(offset)

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        """``mean``, ``sigma`` and ``quality``, each ``(B,)``."""
        mean, spread = self.last(features.pooled().to(self.last.weight)).unbind(-1)
        return GRMPOutput(quality=(self.scale * mean + self.offset).sigmoid(), mean=mean, sigma=F.softplus(spread))

    def settings(self) -> dict[str, Any]:
        """The width."""
        return {"width": self.last.in_features}
