"""What is learnt of features beside the anchors: a linear map to their logits, and how sure it is.

Letters in shapes: B pictures, A quality anchors, F features of all groups, and one more, what the base says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

__all__ = ["EMBEDS", "RANK", "FeatureMap", "Sureness", "level_direction", "level_logit", "novelty", "quality_interval"]

EMBEDS = "embeds"
"""The group of the joint embedding itself."""

RANK = 64
"""Directions in which what is known of a picture is kept."""

_LARGEST = 5.0  # standardised features beyond it are outliers of few pictures


class Sureness(NamedTuple):
    """How sure a readout is of pictures.

    Attributes:
        deviation: ``(B,)``, of a new rating around the prediction, in quality.
        degrees: ``(B,)``, of freedom, of Student's distribution.
        novelty: ``(B,)``, how unlike the rated pictures a picture is; above 0, more than they are unlike each other.
    """

    deviation: Tensor
    degrees: Tensor
    novelty: Tensor


def level_direction(levels: Sequence[float], like: Tensor) -> Tensor:
    """``(A,)``: by how much a shift of quality moves each anchor's logit; it sums to 0.

    >>> level_direction([1.0, 0.0], torch.zeros(()))
    tensor([ 0.5000, -0.5000])
    """
    values = like.new_tensor(levels)
    return values - values.mean()


def level_logit(logits: Tensor, levels: Sequence[float]) -> Tensor:
    """``(B,)``: how far logits ``(B, A)`` point the way of the levels; of two anchors, the difference of theirs.

    >>> level_logit(torch.tensor([[3.0, 1.0]]), [1.0, 0.0])
    tensor([2.])
    """
    direction = level_direction(levels, logits)
    return logits @ direction / direction.square().sum()


def quality_interval(quality: Tensor, deviation: Tensor, degrees: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Bounds ``(B,)`` of the quality that a new rating would say, worst and best, within [0, 1].

    Args:
        quality, deviation, degrees: ``(B,)``, see :class:`Sureness`.
        share: of new ratings that lie within, in (0, 1).
    """
    reach = deviation * deviation.new_tensor(stdtrit(degrees.double().cpu().numpy(), (1 + share) / 2))
    return (quality - reach).clamp(0, 1), (quality + reach).clamp(0, 1)


class FeatureMap(nn.Module):
    """A linear map from features to a shift of quality, zero at the start::

        logits' = scale logits + direction (offset + phi . weights),   phi = strength standardised(features)

    Features are standardised and held to +-5; the strengths say how far each may go, so that one pull holds all the
    weights alike. The last feature is what the base says, :func:`level_logit`; its weight is not trained. The other
    buffers say how sure the map is (:class:`Sureness`); they are set from the shots, not trained.

    Args:
        groups: name -> number of features, in their order; see :class:`~grmp_hf.modeling.side.Side`.
        levels: of the anchors, one each.
    """

    def __init__(self, groups: Mapping[str, int], levels: Sequence[float]) -> None:
        super().__init__()
        self.groups, self.levels = dict(groups), list(levels)
        size = sum(self.groups.values())
        self.weights = nn.Parameter(torch.zeros(size))
        self.offset = nn.Parameter(torch.zeros(()))
        buffers = {
            "scale": torch.ones(()),
            "mean": torch.zeros(size + 1),
            "spread": torch.ones(size + 1),
            "strength": torch.zeros(size + 1),
            "factor": torch.zeros(RANK, size + 1),
            "drift": torch.zeros(size + 1),
            "centre_variance": torch.zeros(()),
            "noise": torch.zeros(()),
            "degrees": torch.ones(()),
            "shot_mean": torch.zeros(size),
            "shot_spread": torch.ones(size),
            "usual": torch.zeros(()),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value)

    scale: Tensor
    mean: Tensor
    spread: Tensor
    strength: Tensor
    factor: Tensor
    drift: Tensor
    centre_variance: Tensor
    noise: Tensor
    degrees: Tensor
    shot_mean: Tensor
    shot_spread: Tensor
    usual: Tensor

    def standardised(self, features: Tensor) -> Tensor:
        """Features ``(B, F + 1)``."""
        return ((features.to(self.mean) - self.mean) / self.spread).clamp(-_LARGEST, _LARGEST)

    def forward(self, logits: Tensor, features: Any) -> tuple[Tensor, Sureness]:
        """Logits ``(B, A)``, and how sure they are.

        Args:
            logits: ``(B, A)``, what the base says.
            features: what a head sees of the same pictures (:class:`~grmp_hf.modeling.heads.Features`).
        """
        side = [] if len(self.groups) == 1 else [features.side]
        seen = torch.cat([features.pooled(), *side], 1)
        said = level_logit(logits, self.levels).unsqueeze(1)
        standardised = self.standardised(torch.cat([seen, said.to(seen)], 1))
        phi = standardised * self.strength
        shift = self.offset + phi[:, :-1] @ self.weights
        direction = level_direction(self.levels, logits)
        moved = self.scale.to(logits) * logits + shift.to(logits).unsqueeze(1) * direction
        return moved, self._sureness(standardised, phi)

    def _sureness(self, standardised: Tensor, phi: Tensor) -> Sureness:
        known = phi.square().sum(1) - (phi @ self.factor.T).square().sum(1)
        variance = 1 + known.clamp_min(0) + (1 - phi @ self.drift).square() * self.centre_variance
        unlike = self.unlike(standardised[:, :-1])
        return Sureness(self.noise * variance.sqrt(), self.degrees.expand_as(unlike), unlike)

    def unlike(self, standardised: Tensor) -> Tensor:
        """``(B,)``: how unlike the shots pictures are, from standardised features ``(B, F)``; see :class:`Sureness`."""
        beside_shots = (standardised - self.shot_mean) / self.shot_spread
        return novelty(beside_shots, self.groups) - self.usual


def novelty(standardised: Tensor, groups: Mapping[str, int]) -> Tensor:
    """``(B,)``: the logarithm of the mean over groups of the mean square of features ``(B, F)``, each held to +-5."""
    parts = torch.split(standardised.clamp(-_LARGEST, _LARGEST), list(groups.values()), 1)
    return torch.stack([part.square().mean(1) for part in parts]).mean(0).clamp_min(1e-12).log()
