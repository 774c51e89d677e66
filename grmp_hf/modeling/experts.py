"""Several adapters of one base, each of which has learnt from other pictures, as one model.

Letters in shapes: B pictures, V views, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import changes_embedding
from grmp_hf.modeling.gating import KMeansGate
from grmp_hf.modeling.heads import Features, GRMPOutput
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.record import Record

__all__ = ["Experts", "ExpertsOutput", "weighed"]


@dataclass
class ExpertsOutput(GRMPOutput):
    """What experts say of a batch.

    Attributes:
        weights: ``(B, E)``, how much each counts; rows sum to 1.
        judged: ``(B, E)``, the quality by each, in [0, 1].
    """

    weights: Tensor | None = None
    judged: Tensor | None = None


class Experts(nn.Module):
    """Adapters of one base and a gate: ``quality = sum_e weight_e quality_e``.

    Every expert is a model of its own whose frozen weights are those of the base, in the same memory (see
    :func:`~grmp_hf.modeling.adapters.copy_base`): none is switched on or off, what one learns cannot reach another, and
    they may be of different kinds. The quality of each is on one scale, that of the nominal range of its ratings: 0 and
    1 are their ends. Experts that leave the embedding alone are asked about that of the gate; each of the others costs
    a pass of the vision tower.

    Args:
        base: without an adapter.
        experts: name -> adapted model, in the order of the weights.
        gate: of the same experts.
        record: base, preprocessing, scale and origin of all together.

    Raises:
        GRMPError: fewer than two experts, or a gate of others.

    Source: TSN-IQA (arXiv 2107.13429).
    """

    def __init__(
        self,
        base: GRMPForImageQualityAssessment,
        experts: Mapping[str, PeftModel],
        gate: KMeansGate,
        record: Record | None = None,
    ) -> None:
        super().__init__()
        if len(experts) < 2 or tuple(experts) != gate.experts:
            raise GRMPError(
                f"Expected at least two experts and a gate of the same, got {', '.join(experts) or 'none'} and a gate "
                f"of {', '.join(gate.experts)}."
            )
        self.base, self.gate, self.names = base, gate, tuple(experts)
        self.adapted = nn.ModuleList(experts.values())
        self.config = SimpleNamespace()
        (record or Record()).attach(self.config)

    @property
    def experts(self) -> dict[str, Any]:
        """Name -> adapted model."""
        return dict(zip(self.names, self.adapted, strict=True))

    def get_base_model(self) -> GRMPForImageQualityAssessment:
        """The base, under the name that PEFT's models have for it."""
        return self.base

    def forward(self, pixel_values: Tensor, output_side: bool = False) -> ExpertsOutput:
        """Judge pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``; with what the base's side network says, if asked."""
        still = [not changes_embedding(expert) for expert in self.adapted]
        read = any(held and _reads_side(expert) for held, expert in zip(still, self.adapted, strict=True))
        aside = output_side or read
        features = self.base.get_features(pixel_values, side=aside)
        known = {"image_embeds": features.embeds, **({"side": features.side} if aside else {})}
        said = [
            expert(**known) if held and not _reads_tokens(expert) else expert(pixel_values=pixel_values)
            for held, expert in zip(still, self.adapted, strict=True)
        ]
        return weighed(self.gate, features, said, output_side=output_side)


def weighed(gate: KMeansGate, features: Features, said: Sequence[Any], *, output_side: bool) -> ExpertsOutput:
    """What experts say together.

    Args:
        gate: of them.
        features: what the untouched base says of the pictures.
        said: what each expert says of them.
        output_side: also give what the side network says.
    """
    judged = torch.stack([found.quality for found in said], dim=-1)
    weights = gate(features).to(judged)
    return ExpertsOutput(
        quality=(weights * judged).sum(-1),
        image_embeds=features.pooled(),
        side=features.side if output_side else None,
        weights=weights,
        judged=judged,
    )


def _reads_side(expert: Any) -> bool:
    base = expert.get_base_model()
    return bool(base.head.needs_side or base.readout.needs_side)


def _reads_tokens(expert: Any) -> bool:
    return bool(expert.get_base_model().head.needs_tokens)
