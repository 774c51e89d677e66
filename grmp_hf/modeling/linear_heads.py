"""Heads that are linear in the embedding: cosines with directions, a mean with its sigma, and a projection.

Letters in shapes: B pictures, D joint width, H data sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grmp_hf.modeling.configuration_grmp import anchor_levels
from grmp_hf.modeling.functional import pool_views, unit_length
from grmp_hf.modeling.heads import AnchorHead, Features, GRMPOutput, Head, Text

__all__ = ["Cosine", "Cosines", "MeanSigma", "Projected", "ProjectedOutput", "SeveralMeans", "end_anchors"]


def end_anchors(model: Any) -> tuple[Tensor, Tensor]:
    """Unit embeddings ``(D,)`` of a model's best and of its worst quality anchor."""
    levels, anchors = anchor_levels(model.config), model.get_anchor_embeds("quality")
    return anchors[levels.index(max(levels))], anchors[levels.index(min(levels))]


class _Placed(Head):
    """A head whose axis is laid on the scale of ratings by two buffers."""

    scale: Tensor
    offset: Tensor

    def place(self, scale: float, offset: float) -> None:
        """Say where the axis lies on the scale; see :func:`~grmp_hf.training.calibration.place_means`."""
        self.scale.fill_(scale)
        self.offset.fill_(offset)


class Cosine(_Placed):
    """Cosine between a picture's embedding and a direction that is learnt::

        mean = sum_v weight_v cos(embedding_v, direction)   in [-1, 1],   quality = (1 + mean) / 2

    Cosines of one base are comparable whatever data set has taught them. The direction begins at random, from torch's
    own generator.

    A loss such as that of a correlation leaves open where the cosines lie on the scale of ratings. With ``placed``, two
    buffers say it: ``quality = sigmoid(scale mean + offset)``, 2 and 0 until :meth:`place` sets them.

    Args:
        width: D, ``config.clip_config.projection_dim`` of the model; with ``token``, the width of its vision tower.
        token: read the class token after the tower's last norm in the place of the joint embedding, as LoDa does.
        dropout: share of what is read that is dropped in training, for each picture (LoDa: .1).
        placed: have scale and offset.

    Source: the heads of TSN-IQA (arXiv 2107.13429; at test time there) and of LoDa (arXiv 2308.12001).
    """

    def __init__(self, width: int, token: bool = False, dropout: float = 0.0, placed: bool = False) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.needs_tokens, self.placed, self.dropout = token, placed, nn.Dropout(dropout)
        if placed:
            self.register_buffer("scale", torch.full((), 2.0))
            self.register_buffer("offset", torch.zeros(()))

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        """``mean`` ``(B,)`` in [-1, 1], and the quality that it stands for."""
        views = cast(Tensor, features.tokens)[:, :, 0] if self.needs_tokens else features.embeds
        if self.needs_tokens or (self.training and self.dropout.p):
            views = unit_length(self.dropout(views))
        seen = pool_views(views, features.weights)
        mean = seen @ unit_length(self.direction).to(seen)
        quality = (self.scale * mean + self.offset).sigmoid() if self.placed else (1 + mean) / 2
        return GRMPOutput(quality=quality, mean=mean)

    def settings(self) -> dict[str, Any]:
        """Its arguments; those at their defaults are left out."""
        more = {"token": self.needs_tokens, "dropout": self.dropout.p, "placed": self.placed}
        return {"width": len(self.direction), **{name: value for name, value in more.items() if value}}


@dataclass
class SeveralMeans(GRMPOutput):
    """What a head says that has a direction for each of several data sets.

    Attributes:
        means: ``(B, H)``, the value of a picture on the axis of each data set; ``mean`` is one of them.
    """

    means: Tensor | None = None


class Cosines(Head):
    """A direction for each data set, as pairs teach them and as ratings place them::

        means = embedding . direction_h = |direction_h| cos_h,   quality = sigmoid(scale_h mean_h + offset_h)

    Directions are not brought to unit length: their lengths say how surely pairs are told apart, and are learnt; no
    order depends on them. Where an axis lies on the scale of ratings is said by two buffers, as in :class:`MeanSigma`;
    until they are set, the quality is nearly that of :class:`Cosine`. One data set says what the quality is.
    Directions begin at random, from torch's own generator.

    Args:
        width: D, ``config.clip_config.projection_dim`` of the model.
        sets: H.
        judge: the number of the data set whose axis gives ``mean`` and ``quality``, from 0; the last if -1.

    Source: the heads of TSN-IQA (arXiv 2107.13429) and CL-BIQA (arXiv 2102.09717), which are normalised at test time
    alone.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, width: int, sets: int = 1, judge: int = -1) -> None:
        super().__init__()
        self.judge = judge
        self.directions = nn.ParameterList(torch.randn(width) / math.sqrt(width) for _ in range(sets))
        self.register_buffer("scale", torch.full((sets,), 2.0))
        self.register_buffer("offset", torch.zeros(sets))

    def forward(self, features: Features, text: Text) -> SeveralMeans:
        """``means`` ``(B, H)``, and ``mean`` and ``quality`` ``(B,)`` of the data set that judges."""
        pooled = features.pooled()
        means = torch.stack([pooled @ direction.to(pooled) for direction in self.directions], dim=-1)
        return SeveralMeans(quality=self.qualities(means)[:, self.judge], mean=means[:, self.judge], means=means)

    def qualities(self, means: Tensor) -> Tensor:
        """The quality ``(B, H)`` that values ``(B, H)`` on the axes stand for."""
        return (self.scale * means + self.offset).sigmoid()

    def settings(self) -> dict[str, Any]:
        """Width, number of data sets, and which of them judges."""
        return {"width": len(self.directions[0]), "sets": len(self.directions), "judge": self.judge}


class MeanSigma(_Placed):
    """A mean on an open axis, and how far it may be off::

        mean, s = W embedding + b,   sigma = softplus(s),   quality = sigmoid(scale mean + offset)

    Pairs of pictures fix differences of means alone, in units of sigma; where the axis lies on the scale of ratings is
    said by two buffers, scale and offset, 1 and 0 until :meth:`place` sets them. It begins with all means 0 and all
    sigmas 1.

    Args:
        width: D, ``config.clip_config.projection_dim`` of the model.

    Source: UNIQUE (arXiv 2005.13983), on the embedding of a CLIP in the place of bilinear features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.last = nn.Linear(width, 2)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([0.0, math.log(math.e - 1)]))  # softplus of it is 1
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        """``mean``, ``sigma`` and ``quality``, each ``(B,)``."""
        mean, spread = self.last(features.pooled().to(self.last.weight)).unbind(-1)
        return GRMPOutput(quality=(self.scale * mean + self.offset).sigmoid(), mean=mean, sigma=F.softplus(spread))

    def settings(self) -> dict[str, Any]:
        """The width."""
        return {"width": self.last.in_features}


@dataclass
class ProjectedOutput(GRMPOutput):
    """What a head says that projects embeddings.

    Attributes:
        projected: ``(B, P)``, at least 0.
    """

    projected: Tensor | None = None


class Projected(AnchorHead):
    """The quality that the anchors give, and a projection ``relu(W embedding + b)`` on which contrasts are learnt.

    It changes no score: what it projects is of use in training alone. It begins at random, from torch's own generator.

    Args:
        width: D, ``config.clip_config.projection_dim`` of the model.
        to: P.
        trained: learn W and b; False: they stay what they are, as in GRepQ's code, whose optimizer never sees them.

    Source: GRepQ (arXiv 2312.04838).
    """

    def __init__(self, width: int, to: int = 128, trained: bool = True) -> None:
        super().__init__()
        first, self.trained = nn.Linear(width, to), trained
        self.weight: Tensor
        self.bias: Tensor
        for name, value in first.named_parameters():
            if trained:
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value.detach())

    def forward(self, features: Features, text: Text) -> ProjectedOutput:
        """What :class:`~grmp_hf.modeling.heads.AnchorHead` says, and ``projected``."""
        pooled = features.pooled()
        projected = F.linear(pooled.to(self.weight), self.weight, self.bias).relu()
        return ProjectedOutput(**super().forward(features, text), projected=projected)

    def settings(self) -> dict[str, Any]:
        """Its arguments."""
        return {"width": self.weight.shape[1], "to": len(self.weight), "trained": self.trained}
