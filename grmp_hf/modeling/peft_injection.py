"""Local features of the base's side network, injected into its vision tower (LoDa): a PEFT method named ``loda``.

The encoder of the vision tower is wrapped; its layer keeps one :class:`~grmp_hf.modeling.injection.LocalFeatures` for
each adapter. The model shows it the maps of the side network for each view.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.utils import PeftType
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import AdapterLayer, AdapterTuner, register_method
from grmp_hf.modeling.bases import RecordedConfig, meet_base, side_of
from grmp_hf.modeling.injection import LocalFeatures, Statistics, run_injected_encoder
from grmp_hf.modeling.side import Side
from grmp_hf.record import Record

__all__ = ["LoDaConfig", "LoDaModel"]

_NAME = "loda"
_CHOICES = {"up": ("mlp", "linear"), "start": ("zero", "random")}


@dataclass
class LoDaConfig(RecordedConfig):
    """What is learnt; what scoring needs beside it is its record. The defaults are the paper's sizes.

    Args:
        latent: width of the local tokens, and of the attention that takes from them.
        heads: of that attention, a divisor of ``latent``.
        grid: side of the grid to which each map of the side network is averaged; 7 is the last map of a ResNet at 224
            pixels.
        up: how it comes back to the tower's width: ``"mlp"`` as in the paper, or ``"linear"``, a fifth of the weights
            for ViT-B/16.
        start: of the scales: ``"zero"``, with which a new adapter is the base bit for bit, or ``"random"`` as in the
            authors' code, a truncated normal of deviation .02.
        batch_statistics: run the side network's batch normalisations on the statistics of the batch while training, as
            the authors' code does, and keep their running ones as part of the adapter. A step then depends on how a
            batch is cut, so that several processes are refused.
        modules_to_save: modules of the base to train and save as well, by the end of their names, such as a head.
        target_modules: set by the model; leave it alone.
        exclude_modules: as in every PEFT method.

    Raises:
        GRMPError: sizes that do not fit, or a word that is none of the choices.
    """

    latent: int = field(default=64, metadata={"help": "Width of the local tokens."})
    heads: int = field(default=4, metadata={"help": "Heads of the attention to local tokens."})
    grid: int = field(default=7, metadata={"help": "Side of the grid to which maps are averaged."})
    up: str = field(default="mlp", metadata={"help": "Back to the tower's width: mlp or linear."})
    start: str = field(default="zero", metadata={"help": "Where the scales start: zero or random."})
    batch_statistics: bool = field(default=False, metadata={"help": "Batch statistics of the side network, as theirs."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules of the base to train as well."})
    target_modules: Any = field(default=None, metadata={"help": "Set by the model."})
    exclude_modules: Any = field(default=None, metadata={"help": "Modules never to wrap."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.record = Record()
        self.peft_type = PeftType[_NAME.upper()]
        if min(self.latent, self.heads, self.grid) < 1 or self.latent % self.heads:
            raise GRMPError(
                "Expected latent, heads and grid of at least 1, and heads that divide latent, got "
                f"{self.latent}, {self.heads} and {self.grid}."
            )
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise GRMPError(f"Expected {name} {' or '.join(allowed)}, got {getattr(self, name)!r}.")


class InjectionLayer(AdapterLayer):
    """Around the vision tower's encoder: runs it with the active adapter's injections."""

    adapter_layer_names = ("loda_injection",)
    standalone = "score with the adapter itself: grmp_hf.load(adapter=...)"

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.loda_injection = nn.ModuleDict()

    @property
    def needs_maps(self) -> bool:
        """Whether the active adapter reads maps of the side network."""
        return self.active_module is not None

    @property
    def learns_statistics(self) -> bool:
        """Whether the active adapter uses the statistics of each batch in training."""
        features = self.active_module
        return features is not None and features.statistics is not None

    def look(self, side: Side, pixels: Tensor) -> list[Tensor]:
        """The maps of a side network for pixels ``(B, 3, P, P)`` in [0, 1]; no gradient reaches it."""
        statistics = self.active_module.statistics
        with torch.no_grad():
            if statistics is None:
                return side.stages(pixels)
            with statistics.lent(side):
                return side.stages(pixels)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        maps: list[Tensor] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode ``(B, N, W)`` with the maps of :meth:`look`; the vision tower has no mask.

        Raises:
            GRMPError: an adapter is active, and nobody has shown it the maps.
        """
        features = self.active_module
        if features is None:
            return self.base_layer(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        if maps is None:
            raise GRMPError(
                "Expected maps of the side network beside the vision tower's input, got none. Ask the whole model "
                "(forward, get_features), not its CLIP."
            )
        return run_injected_encoder(self.base_layer, inputs_embeds, features.extractor(maps), features.blocks, **kwargs)


class LoDaModel(AdapterTuner):
    """The tuner: injects what a :class:`LoDaConfig` describes into a ``GRMPForImageQualityAssessment``."""

    prefix = f"{_NAME}_"
    tuner_layer_cls = AdapterLayer
    target_module_mapping = {"grmp": ["vision_model.encoder"]}

    def _prepare_model(self, peft_config: LoDaConfig, model: Any) -> None:
        record = meet_base(peft_config, model)
        if model.side is None:
            raise GRMPError(
                "Expected a base with a side network, whose maps are injected, got one without. Load it with "
                "grmp_hf.load(model, side=...), a backbone of transformers' such as a ResNet; or take the default base."
            )
        dataclasses.replace(record, side=side_of(model)).attach(peft_config)

    def _create_and_replace(
        self,
        peft_config: LoDaConfig,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        target = self._put_around(InjectionLayer, target, target_name, parent)
        vision, side = self.model.config.clip_config.vision_config, self.model.side
        features = LocalFeatures(
            side.channels,
            vision.hidden_size,
            vision.num_hidden_layers,
            latent=peft_config.latent,
            heads=peft_config.heads,
            grid=peft_config.grid,
            up=peft_config.up,
            start=peft_config.start,
            statistics=Statistics(side) if peft_config.batch_statistics else None,
        )
        target.add(adapter_name, features, frozen=False)


def register() -> None:
    """Make ``loda`` a PEFT method; harmless when it is one already."""
    register_method(_NAME, LoDaConfig, LoDaModel)


register()
