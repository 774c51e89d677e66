"""Several experts and their gate as one standalone scorer.

Letters in shapes: B pictures, V views, E experts, K centres, D joint width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, PreTrainedConfig

from grmp_hf.modeling.baked import Baked, GRMPBakedConfig, GRMPBakedScorer
from grmp_hf.modeling.experts import weighed
from grmp_hf.modeling.gating import TEMPERATURE, KMeansGate
from grmp_hf.modeling.modeling_grmp import as_tuple
from grmp_hf.record import Record

__all__ = ["GRMPBakedExperts", "GRMPBakedExpertsConfig"]

_SEEING = ("view_weights", "side_size", "image_mean", "image_std")


class GRMPBakedExpertsConfig(PreTrainedConfig):
    """Configuration of :class:`GRMPBakedExperts`; :func:`~grmp_hf.modeling.baking.bake` makes it.

    Args:
        base: configuration of the untouched base, which the gate looks at.
        experts: their names, in the order of the weights.
        parts: configuration of each.
        own: names of the weights of each that are not those of the base.
        centers: K of each.
        temperature: of the gate.
        view_weights, side_size, image_mean, image_std: as in ``GRMPConfig``; None for those of the base.
        rating_scale, preprocessing, provenance: those of all together.
    """

    model_type = "grmp_baked_experts"

    base: Any = None
    experts: Any = ()
    parts: Any = ()
    own: Any = ()
    centers: Any = ()
    temperature: float = TEMPERATURE
    view_weights: Any = None
    side_size: Any = None
    image_mean: Any = None
    image_std: Any = None
    rating_scale: Any = None
    preprocessing: Any = None
    provenance: Any = None
    tie_word_embeddings: bool = True  # the word by which transformers knows weights that are held once

    @property
    def record(self) -> Record:
        """What it has of the record of the experts."""
        found = Record(preprocessing=self.preprocessing, scale=self.rating_scale, provenance=self.provenance)
        return found.checked("config.json")

    @property
    def vision_config(self) -> Any:
        """Of the vision tower that all have."""
        return self.part(self.base).vision_config

    def part(self, settings: Any) -> GRMPBakedConfig:
        """The configuration of the base or of an expert, which sees pictures as all do."""
        found = GRMPBakedConfig(**{name: value for name, value in (settings or {}).items() if name != "model_type"})
        for name in _SEEING if self.image_mean is not None else ():
            setattr(found, name, getattr(self, name))
        return found


class GRMPBakedExperts(Baked):
    """Scores as the :class:`~grmp_hf.modeling.experts.Experts` that it was baked from; what they share is held once."""

    config_class = GRMPBakedExpertsConfig
    base_model_prefix = "base"

    def __init__(self, config: GRMPBakedExpertsConfig) -> None:
        super().__init__(config)
        self.names = tuple(config.experts)
        self.base = GRMPBakedScorer(config.part(config.base))
        self.experts = nn.ModuleList(GRMPBakedScorer(config.part(part)) for part in config.parts)
        width = self.base.config.projection_dim
        self.centers = nn.ParameterList(
            nn.Parameter(torch.zeros(count, width), requires_grad=False) for count in config.centers
        )
        known = dict(self.base.named_parameters())
        self._tied_weights_keys = {
            f"experts.{at}.{name}": f"base.{name}"
            for at, (expert, own) in enumerate(zip(self.experts, config.own, strict=True))
            for name, _ in expert.named_parameters()
            if name in known and name not in own
        }
        self.post_init()

    def forward(
        self, pixel_values: Tensor, output_side: bool = False, return_dict: bool | None = None, **kwargs: Any
    ) -> Any:
        """Judge pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``: an ``ExpertsOutput``, or a tuple of what it holds."""
        if kwargs:
            raise TypeError(f"forward() got unexpected arguments {sorted(kwargs)}.")
        experts: list[Any] = list(self.experts)
        features = self.base.get_features(pixel_values, side=output_side or any(e.reads_side for e in experts))
        said = [
            expert.say(features if self._held(at) else expert.get_features(pixel_values))
            for at, expert in enumerate(experts)
        ]
        found = weighed(self.gate, features, said, output_side=output_side)
        return found.to_tuple() if as_tuple(return_dict, self.config) else found

    @property
    def gate(self) -> KMeansGate:
        """The gate, with its centres as they are now."""
        return KMeansGate(dict(zip(self.names, self.centers, strict=True)), self.config.temperature)

    def _held(self, at: int) -> bool:
        """Whether an expert leaves embeddings what the base says."""
        expert: Any = self.experts[at]
        tower = ("vision_model.", "visual_projection.")
        return not expert.head.needs_tokens and not any(name.startswith(tower) for name in self.config.own[at])


AutoConfig.register(GRMPBakedExpertsConfig.model_type, GRMPBakedExpertsConfig, exist_ok=True)
AutoModel.register(GRMPBakedExpertsConfig, GRMPBakedExperts, exist_ok=True)
AutoModelForImageClassification.register(GRMPBakedExpertsConfig, GRMPBakedExperts, exist_ok=True)
