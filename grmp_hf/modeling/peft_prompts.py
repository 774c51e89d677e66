"""The prompts as a PEFT method named ``grmp``.

Three modules of the model are wrapped: the token embedding of the text tower, whose layer holds the text prompts, the
encoder of the vision tower, whose layer holds everything visual, and the readout. Each layer keeps one plain module of
:mod:`grmp_hf.modeling.prompts` for each adapter, so saving, freezing, switching and deleting are PEFT's own.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import InitVar, dataclass, field
from typing import Any

from peft.utils import PeftType
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import AdapterLayer, AdapterTuner, register_method
from grmp_hf.modeling.bases import RecordedConfig, meet_base, side_of
from grmp_hf.modeling.caching import WeightCache, adapter_state
from grmp_hf.modeling.configuration_grmp import anchor_levels, axis_sizes
from grmp_hf.modeling.feature_map import EMBEDS, Sureness
from grmp_hf.modeling.heads import Features
from grmp_hf.modeling.prompts import (
    KeysValues,
    ReadoutPrompts,
    TextPrompts,
    VisualPrompts,
    expand_placeholders,
    prompt_attention,
    run_prompted_encoder,
    unprompt_attention,
)
from grmp_hf.record import Record

__all__ = ["GRMPPromptConfig", "GRMPPromptModel", "feature_groups"]

_NAME = "grmp"


@dataclass
class GRMPPromptConfig(RecordedConfig):
    """What is learnt; what scoring needs beside it is its record. The defaults are the paper's sizes.

    Args:
        text_prompts: T, learned tokens in the place of the X of the quality anchors; 0 for none.
        visual_prompts: M, prompts of each vision layer; 0 for none.
        text_start: ``"placeholder"`` starts the text prompts from the embedding of the X that they replace, so that a
            fresh adapter reads like the zero-shot model; ``"random"`` as in the reference.
        anchor_residuals: also learn a shift of each quality anchor (not in the paper).
        calibrate: also have a scale (set, not learned) and a learned offset of the quality logits (not in the paper).
        features: have the readout map groups of features to the anchors' logits: name -> size, ``"embeds"`` of the
            joint embedding alone, or with all groups of the base's side network (not in the paper); None for no map.
        visual_layers: number of vision layers, from the first, that get prompts; None for all.
        prompt_dropout: share of projected visual prompts dropped while training (reference: 0.1).
        freeze_text_prompts: keep the text prompts as they are while training.
        freeze_visual_prompts: keep the visual prompts, their projection and the prompt norm as they are while
            training (what the reference's fine-tuning does).
        modules_to_save: modules of the base to train and save as well, by the end of their names.
        target_modules: set by the model; leave it alone.
        exclude_modules: as in every PEFT method.
        anchors, base_fingerprint, preprocessing, rating_scale, provenance, base_sizes: of earlier versions, whose
            adapters held here what their record holds now.
    """

    text_prompts: int = field(default=4, metadata={"help": "Learned text tokens in the quality anchors."})
    visual_prompts: int = field(default=100, metadata={"help": "Visual prompts of each vision layer."})
    text_start: str = field(
        default="placeholder", metadata={"help": "Where text prompts start: placeholder or random."}
    )
    anchor_residuals: bool = field(default=False, metadata={"help": "Learn a shift of each quality anchor."})
    calibrate: bool = field(
        default=False, metadata={"help": "Calibrate the quality logits: a set scale, a learned offset."}
    )
    features: dict[str, int] | None = field(
        default=None, metadata={"help": "Groups of features that the readout maps to the anchors' logits."}
    )
    visual_layers: int | None = field(default=None, metadata={"help": "Vision layers with prompts; None for all."})
    prompt_dropout: float = field(default=0.1, metadata={"help": "Dropout on projected visual prompts in training."})
    freeze_text_prompts: bool = field(default=False, metadata={"help": "Do not train the text prompts."})
    freeze_visual_prompts: bool = field(default=False, metadata={"help": "Do not train anything visual."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules of the base to train as well."})
    target_modules: Any = field(default=None, metadata={"help": "Set by the model."})
    exclude_modules: Any = field(default=None, metadata={"help": "Modules never to wrap."})
    anchors: InitVar[Any] = None
    base_fingerprint: InitVar[Any] = None
    preprocessing: InitVar[Any] = None
    rating_scale: InitVar[Any] = None
    provenance: InitVar[Any] = None
    base_sizes: InitVar[Any] = None

    def __post_init__(self, *earlier: Any) -> None:
        super().__post_init__()
        self.record = Record.earlier(*earlier[:-1])
        self.peft_type = PeftType[_NAME.upper()]
        for name, low in (("text_prompts", 0), ("visual_prompts", 0), ("visual_layers", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise GRMPError(f"Expected {name} of at least {low}, got {value}.")
        if not 0 <= self.prompt_dropout < 1:
            raise GRMPError(f"Expected prompt_dropout in [0, 1), got {self.prompt_dropout}.")
        if self.text_start not in ("placeholder", "random"):
            raise GRMPError(f"Expected text_start 'placeholder' or 'random', got {self.text_start!r}.")
        if not (
            self.text_prompts or self.visual_prompts or self.anchor_residuals or self.features or self.modules_to_save
        ):
            raise GRMPError(
                "Expected something to train, got text_prompts=0 and visual_prompts=0 without anchor_residuals or "
                "modules_to_save. Set one of them."
            )


def feature_groups(model: Any) -> dict[str, int]:
    """Name and size of each group of features that an adapter of a base may read, in their order."""
    side = {} if model.side is None else model.side.groups
    return {EMBEDS: model.config.clip_config.projection_dim, **side}


class TextPromptLayer(AdapterLayer):
    """Around the text tower's token embedding: puts the active adapter's context tokens over the placeholders."""

    adapter_layer_names = ("grmp_text",)

    def __init__(self, base_layer: nn.Embedding, placeholder: int) -> None:
        super().__init__(base_layer)
        self.grmp_text = nn.ModuleDict()
        self.placeholder = placeholder

    def expand(self, ids: list[int]) -> list[int]:
        """Give a text as many placeholders as the active adapter has text prompts."""
        prompts = self.active_module
        return ids if prompts is None else expand_placeholders(ids, self.placeholder, len(prompts.context))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed ``(A, N)`` token ids as ``(A, N, D)``."""
        embeds = self.base_layer(input_ids)
        prompts = self.active_module
        return embeds if prompts is None else prompts(embeds, input_ids == self.placeholder)  # type: ignore[no-any-return]


class VisualPromptLayer(AdapterLayer):
    """Around the vision tower's encoder: runs it with the active adapter's keys and values, then the prompt norm.

    Keys and values do not depend on the pictures unless dropout is on: they are computed once in evaluation.
    """

    adapter_layer_names = ("grmp_visual",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.grmp_visual = nn.ModuleDict()
        self._cache: WeightCache[list[KeysValues]] = WeightCache()
        prompt_attention(base_layer)

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """Encode ``(B, N, D)``; the vision tower has no mask."""
        prompts = self.active_module
        if prompts is None:
            return self.base_layer(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        return run_prompted_encoder(
            self.base_layer, inputs_embeds, self.keys_values(len(inputs_embeds)), prompts.norm, **kwargs
        )

    def keys_values(self, batch_size: int) -> list[KeysValues]:
        """Keys and values of the active adapter's prompts in every prompted layer."""
        prompts, encoder = self.active_module, self.base_layer
        if prompts.is_random:
            return prompts.keys_values(encoder, batch_size)  # type: ignore[no-any-return]
        used = (layer.layer_norm1 for layer in encoder.layers)
        weights = [*prompts.parameters(), *(w for norm in used for w in norm.parameters())]
        for layer in encoder.layers:
            weights += [*layer.self_attn.k_proj.parameters(), *layer.self_attn.v_proj.parameters()]
        return self._cache.get(weights, adapter_state(self), lambda: prompts.keys_values(encoder, batch_size))

    def train(self, mode: bool = True) -> VisualPromptLayer:
        """Switch between training and evaluation; where that is a change, what was computed before is forgotten."""
        if mode != self.training:
            self._cache.clear()
        return super().train(mode)

    def unload_and_optionally_merge_module(self, merge: bool, safe_merge: bool, adapter_names: Any) -> nn.Module:
        """Give the untouched encoder back."""
        if merge:
            self.merge()
        unprompt_attention(self.base_layer)
        return self.base_layer  # type: ignore[no-any-return]


class ReadoutLayer(AdapterLayer):
    """Around the readout: shifts the quality anchors, calibrates their logits and adds what features say."""

    adapter_layer_names = ("grmp_readout",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.grmp_readout = nn.ModuleDict()

    @property
    def needs_side(self) -> bool:
        """Whether the active adapter reads the base's side network."""
        prompts = self.active_module
        return prompts is not None and prompts.map is not None and len(prompts.map.groups) > 1

    def forward(self, features: Features, anchor_embeds: Tensor, logit_scale: Tensor) -> tuple[Tensor, Sureness | None]:
        """Features, ``(A, D)`` and a scalar to ``(B, A)``, and how sure the adapter is of it."""
        prompts = self.active_module
        if prompts is None:
            return self.base_layer(features, anchor_embeds, logit_scale)  # type: ignore[no-any-return]
        logits, _ = self.base_layer(features, prompts.shift(anchor_embeds), logit_scale)
        return prompts.read(logits, features)  # type: ignore[no-any-return]


class GRMPPromptModel(AdapterTuner):
    """The tuner: injects the prompts of a :class:`GRMPPromptConfig` into a ``GRMPForImageQualityAssessment``."""

    prefix = f"{_NAME}_"
    tuner_layer_cls = AdapterLayer
    target_module_mapping = {"grmp": ["text_model.embeddings.token_embedding", "vision_model.encoder", "readout"]}

    def _prepare_model(self, peft_config: GRMPPromptConfig, model: Any) -> None:
        record = meet_base(peft_config, model)
        vision = model.config.clip_config.vision_config
        if (peft_config.visual_layers or 0) > vision.num_hidden_layers:
            raise GRMPError(
                f"Expected at most {vision.num_hidden_layers} visual_layers, got {peft_config.visual_layers}."
            )
        axes = list(axis_sizes(model.config))
        if peft_config.calibrate and len(axes) > 1:
            raise GRMPError(
                f"Expected anchors of one axis to calibrate, got those of the axes {axes}. Set calibrate to False."
            )
        if peft_config.features is not None:
            self._check_features(peft_config.features, model)
            if len(peft_config.features) > 1:
                dataclasses.replace(record, side=side_of(model)).attach(peft_config)
        if peft_config.text_prompts:
            for ids in model.config.quality_input_ids:
                self._check_room(ids, peft_config.text_prompts, model.config)

    @staticmethod
    def _check_features(features: dict[str, int], model: Any) -> None:
        found = feature_groups(model)
        if features not in (found, {EMBEDS: found[EMBEDS]}):
            raise GRMPError(
                f"Expected features of the base, {found}, got those that an adapter reads, {features}. Load the base "
                "with the side network that the adapter was learnt with (grmp_hf.load does)."
            )

    @staticmethod
    def _check_room(ids: list[int], count: int, config: Any) -> None:
        text = config.clip_config.text_config
        if config.placeholder_token_id not in ids:
            raise GRMPError(
                f"Expected the placeholder {config.placeholder_token_id} in every quality anchor, got ids {ids}. "
                "Write an X where the text prompts belong, or set text_prompts=0."
            )
        length = len(expand_placeholders(ids, config.placeholder_token_id, count))
        if length > text.max_position_embeddings:
            raise GRMPError(
                f"Expected anchors of at most {text.max_position_embeddings} tokens, got {length} with {count} text "
                "prompts."
            )

    def _create_and_replace(
        self,
        peft_config: GRMPPromptConfig,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        of_tokens = functools.partial(TextPromptLayer, placeholder=self.model.config.placeholder_token_id)
        wrap = {"encoder": VisualPromptLayer, "readout": ReadoutLayer}.get(target_name, of_tokens)
        target = self._put_around(wrap, target, target_name, parent)
        if target_name == "encoder":
            target.add(adapter_name, self._visual_prompts(peft_config), frozen=peft_config.freeze_visual_prompts)
        elif target_name == "readout":
            readout = self._readout_prompts(peft_config)
            target.add(adapter_name, readout, frozen=False, device=self.model.clip.logit_scale.device)
        else:
            prompts = self._text_prompts(peft_config, target.base_layer.weight)
            target.add(adapter_name, prompts, frozen=peft_config.freeze_text_prompts)

    def _text_prompts(self, config: GRMPPromptConfig, embeds: Tensor) -> TextPrompts | None:
        if not config.text_prompts:
            return None
        start = embeds[self.model.config.placeholder_token_id] if config.text_start == "placeholder" else None
        return TextPrompts(config.text_prompts, embeds.shape[1], start=start)

    def _readout_prompts(self, config: GRMPPromptConfig) -> ReadoutPrompts | None:
        if not (config.anchor_residuals or config.calibrate or config.features):
            return None
        anchors, width = len(self.model.config.quality_input_ids), self.model.config.clip_config.projection_dim
        return ReadoutPrompts(
            anchors,
            width,
            residuals=config.anchor_residuals,
            calibrate=config.calibrate,
            features=config.features and {k: d for k, d in feature_groups(self.model).items() if k in config.features},
            levels=anchor_levels(self.model.config),
        )

    def _visual_prompts(self, config: GRMPPromptConfig) -> VisualPrompts | None:
        vision = self.model.config.clip_config.vision_config
        if not config.visual_prompts:
            return None
        layers = config.visual_layers or vision.num_hidden_layers
        return VisualPrompts(
            layers,
            config.visual_prompts,
            vision.hidden_size,
            patch_size=vision.patch_size,
            dropout=config.prompt_dropout,
        )


def register() -> None:
    """Make ``grmp`` a PEFT method; harmless when it is one already."""
    register_method(_NAME, GRMPPromptConfig, GRMPPromptModel)


register()
