"""The prompts as a PEFT method named ``grmp``: the one file that touches PEFT's internals (tried with 0.21.2).

Three modules of the model are wrapped: the token embedding of the text tower, whose layer holds the text prompts, the
encoder of the vision tower, whose layer holds everything visual, and the readout. Each layer keeps one plain module of
:mod:`grmp_hf.modeling.prompts` for each adapter, so saving, freezing, switching and deleting are PEFT's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, PeftType, register_peft_method
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.caching import WeightCache, adapter_state
from grmp_hf.modeling.configuration_grmp import axis_sizes
from grmp_hf.modeling.modeling_grmp import base_fingerprint
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

__all__ = ["GRMPPromptConfig", "GRMPPromptModel", "base_fingerprint", "check_base", "teacher_mode"]

_NAME = "grmp"


@dataclass
class GRMPPromptConfig(PeftConfig):
    """What is learnt, and all that scoring with it needs. The defaults are the paper's sizes.

    Args:
        text_prompts: T, learned tokens in the place of the X of the quality anchors; 0 for none.
        visual_prompts: M, prompts of each vision layer; 0 for none.
        text_start: ``"placeholder"`` starts the text prompts from the embedding of the X that they replace, so that a
            fresh adapter reads like the zero-shot model; ``"random"`` as in the reference.
        anchor_residuals: also learn a shift of each quality anchor (not in the paper).
        calibrate: also have a scale (set, not learned) and a learned offset of the quality logits (not in the paper).
        visual_layers: number of vision layers, from the first, that get prompts; None for all.
        prompt_dropout: share of projected visual prompts dropped while training (reference: 0.1).
        freeze_text_prompts: keep the text prompts as they are while training.
        freeze_visual_prompts: keep the visual prompts, their projection and the prompt norm as they are while
            training (what the reference's fine-tuning does).
        modules_to_save: modules of the base to train and save as well, by the end of their names.
        target_modules: set by the model; leave it alone.
        exclude_modules: as in every PEFT method.
        anchors: anchors, levels and token ids of the model that the adapter belongs to; filled in on injection.
        base_sizes: sizes of that model; filled in on injection.
        base_fingerprint: of the base's weights; filled in on injection.
        rating_scale: the user's scale (low, high, higher_is_better, unit).
        preprocessing: settings of the image processor that it was trained with.
        provenance: base and revision, data hash, shots, seed, recipe, versions.
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
    visual_layers: int | None = field(default=None, metadata={"help": "Vision layers with prompts; None for all."})
    prompt_dropout: float = field(default=0.1, metadata={"help": "Dropout on projected visual prompts in training."})
    freeze_text_prompts: bool = field(default=False, metadata={"help": "Do not train the text prompts."})
    freeze_visual_prompts: bool = field(default=False, metadata={"help": "Do not train anything visual."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules of the base to train as well."})
    target_modules: Any = field(default=None, metadata={"help": "Set by the model."})
    exclude_modules: Any = field(default=None, metadata={"help": "Modules never to wrap."})
    anchors: dict[str, Any] | None = field(default=None, metadata={"help": "Anchors of the model, filled in."})
    base_sizes: dict[str, int] | None = field(default=None, metadata={"help": "Sizes of the base, filled in."})
    base_fingerprint: str | None = field(default=None, metadata={"help": "Of the base's weights, filled in."})
    rating_scale: dict[str, Any] | None = field(default=None, metadata={"help": "Scale of the ratings."})
    preprocessing: dict[str, Any] | None = field(default=None, metadata={"help": "Image processor settings."})
    provenance: dict[str, Any] | None = field(default=None, metadata={"help": "Where the adapter comes from."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[_NAME.upper()]
        for name, low in (("text_prompts", 0), ("visual_prompts", 0), ("visual_layers", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise GRMPError(f"Expected {name} of at least {low}, got {value}.")
        if not 0 <= self.prompt_dropout < 1:
            raise GRMPError(f"Expected prompt_dropout in [0, 1), got {self.prompt_dropout}.")
        if self.text_start not in ("placeholder", "random"):
            raise GRMPError(f"Expected text_start 'placeholder' or 'random', got {self.text_start!r}.")
        if not (self.text_prompts or self.visual_prompts or self.anchor_residuals or self.modules_to_save):
            raise GRMPError(
                "Expected something to train, got text_prompts=0 and visual_prompts=0 without anchor_residuals or "
                "modules_to_save. Set one of them."
            )


class _PromptLayer(nn.Module, BaseTunerLayer):
    """What the layers share: one prompt module for each adapter, of which one is active."""

    adapter_layer_names: tuple[str, ...]
    base_layer: Any
    # From BaseTunerLayer, which has no types:
    active_adapters: Any
    disable_adapters: Any
    set_adapter: Any
    _move_adapter_to_device_of_base_layer: Any

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}

    def add(
        self, adapter_name: str, prompts: nn.Module | None, *, frozen: bool, device: torch.device | None = None
    ) -> None:
        """Hold the prompts of an adapter; None where it has none of this kind."""
        container = self.adapter_layer_names[0]
        if prompts is not None:
            getattr(self, container)[adapter_name] = prompts
            if frozen:
                self.frozen_peft_weight_names[adapter_name] = (container,)
            self._move_adapter_to_device_of_base_layer(adapter_name, device)
        self.set_adapter(self.active_adapters)

    @property
    def active_prompts(self) -> Any:
        """The prompt module in use, or None."""
        if self.disable_adapters:
            return None
        if len(self.active_adapters) > 1:
            raise GRMPError(
                f"Expected one active adapter, got {self.active_adapters}. Prompts cannot be added up: use "
                "set_adapter(name)."
            )
        container = getattr(self, self.adapter_layer_names[0])
        return next((container[name] for name in self.active_adapters if name in container), None)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
        weight = next(base_layer.parameters(), None)  # the readout has none
        return (None, None) if weight is None else (weight.device, weight.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: prompts are inputs, not weights."""
        raise GRMPError(
            "Prompts cannot be merged into the base: they are inputs, not weights. Use unload() to get the base back, "
            "or grmp_hf.modeling.baking.bake() for a standalone scorer."
        )


class TextPromptLayer(_PromptLayer):
    """Around the text tower's token embedding: puts the active adapter's context tokens over the placeholders."""

    adapter_layer_names = ("grmp_text",)

    def __init__(self, base_layer: nn.Embedding, placeholder: int) -> None:
        super().__init__(base_layer)
        self.grmp_text = nn.ModuleDict()
        self.placeholder = placeholder

    def expand(self, ids: list[int]) -> list[int]:
        """Give a text as many placeholders as the active adapter has text prompts."""
        prompts = self.active_prompts
        return ids if prompts is None else expand_placeholders(ids, self.placeholder, len(prompts.context))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed ``(A, N)`` token ids as ``(A, N, D)``."""
        embeds = self.base_layer(input_ids)
        prompts = self.active_prompts
        return embeds if prompts is None else prompts(embeds, input_ids == self.placeholder)  # type: ignore[no-any-return]


class VisualPromptLayer(_PromptLayer):
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
        prompts = self.active_prompts
        if prompts is None:
            return self.base_layer(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        return run_prompted_encoder(
            self.base_layer, inputs_embeds, self.keys_values(len(inputs_embeds)), prompts.norm, **kwargs
        )

    def keys_values(self, batch_size: int) -> list[KeysValues]:
        """Keys and values of the active adapter's prompts in every prompted layer."""
        prompts, encoder = self.active_prompts, self.base_layer
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


class ReadoutLayer(_PromptLayer):
    """Around the readout: shifts the quality anchors and calibrates their logits."""

    adapter_layer_names = ("grmp_readout",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.grmp_readout = nn.ModuleDict()

    def forward(self, image_embeds: Tensor, anchor_embeds: Tensor, logit_scale: Tensor) -> Tensor:
        """``(B, D)``, ``(A, D)`` and a scalar to ``(B, A)``."""
        prompts = self.active_prompts
        if prompts is None:
            return self.base_layer(image_embeds, anchor_embeds, logit_scale)  # type: ignore[no-any-return]
        logits = self.base_layer(image_embeds, prompts.shift(anchor_embeds), logit_scale)
        return prompts.calibrate(logits)  # type: ignore[no-any-return]


class GRMPPromptModel(BaseTuner):
    """The tuner: injects the prompts of a :class:`GRMPPromptConfig` into a ``GRMPForImageQualityAssessment``."""

    prefix = f"{_NAME}_"
    tuner_layer_cls = _PromptLayer
    model: Any
    target_module_mapping = {"grmp": ["text_model.embeddings.token_embedding", "vision_model.encoder", "readout"]}

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        if model_config.get("model_type") not in self.target_module_mapping:
            raise GRMPError(
                f"Expected a GRMPForImageQualityAssessment, got a model of type {model_config.get('model_type')!r}. "
                "Load the CLIP with GRMPForImageQualityAssessment.from_pretrained first."
            )
        return super()._prepare_adapter_config(peft_config, model_config)

    def _prepare_model(self, peft_config: GRMPPromptConfig, model: Any) -> None:
        check_base(peft_config, model)
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
        if peft_config.text_prompts:
            for ids in model.config.quality_input_ids:
                self._check_room(ids, peft_config.text_prompts, model.config)

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
        config = self.model.config
        if not isinstance(target, _PromptLayer):
            wrap = {"encoder": VisualPromptLayer, "readout": ReadoutLayer}.get(target_name)
            layer = TextPromptLayer(target, config.placeholder_token_id) if wrap is None else wrap(target)
            layer._active_adapter = self.active_adapters
            self._replace_module(parent, target_name, layer, target)
            target = layer
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
        if not (config.anchor_residuals or config.calibrate):
            return None
        anchors, width = len(self.model.config.quality_input_ids), self.model.config.clip_config.projection_dim
        return ReadoutPrompts(anchors, width, residuals=config.anchor_residuals, calibrate=config.calibrate)

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

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's own copies ``weight`` from the child, which an encoder does not have.
        setattr(parent, child_name, new_module)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        own = re.compile(rf"\.(grmp_\w+|modules_to_save)\.{re.escape(adapter_name)}\.")
        _check_exact({name: weight for name, weight in model.state_dict().items() if own.search(name)}, remapped)
        return remapped  # type: ignore[no-any-return]

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT's own looks for the name at the end, but ours are modules with modules inside.
        return re.sub(rf"(\.grmp_\w+)\.{re.escape(adapter_name)}(?=\.)", r"\1", key)

    def unload(self) -> Any:
        """The untouched base; PEFT's own would leave the trained copies of ``modules_to_save`` in it."""
        wrapped = [(k, m) for k, m in self.model.named_modules() if isinstance(m, AuxiliaryTrainingWrapper)]
        for key, module in wrapped:
            parent, _, name = key.rpartition(".")
            setattr(self.model.get_submodule(parent), name, module.original_module)
        return super().unload()


def _check_exact(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    """Raise unless an adapter's file holds exactly the tensors that its config asks for."""
    missing, unexpected = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    resized = [
        f"{name} {tuple(got[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & got.keys())
        if got[name].shape != expected[name].shape
    ]
    if missing or unexpected or resized:
        raise GRMPError(
            f"Expected the {len(expected)} tensors of the adapter's config; missing: {missing or 'none'}, unexpected: "
            f"{unexpected or 'none'}, other sizes: {resized or 'none'}. The adapter's file is damaged or of another "
            "base."
        )


def base_sizes(model: Any) -> dict[str, int]:
    """The sizes of a base that an adapter depends on."""
    clip = model.config.clip_config
    vision, text = clip.vision_config, clip.text_config
    return {
        "vision_width": vision.hidden_size,
        "vision_layers": vision.num_hidden_layers,
        "patch_size": vision.patch_size,
        "image_size": vision.image_size,
        "text_width": text.hidden_size,
        "text_layers": text.num_hidden_layers,
        "vocabulary": text.vocab_size,
        "projection": clip.projection_dim,
    }


def check_base(config: GRMPPromptConfig, model: Any) -> None:
    """Fill an adapter's record of its base, or raise where the record says another one.

    Raises:
        GRMPError: the adapter was made for a base of other sizes, other anchors or other weights.
    """
    anchors = {
        name: [list(row) if isinstance(row, list | tuple) else row for row in getattr(model.config, name)]
        for name in ("quality_anchors", "quality_levels", "quality_input_ids")
    }
    if model.config.quality_axes is not None:
        anchors["quality_axes"] = [[name, list(values)] for name, values in model.config.quality_axes]
    found = {"base_sizes": base_sizes(model), "anchors": anchors}
    if not any(weight.is_meta for weight in model.parameters()):
        found["base_fingerprint"] = base_fingerprint(model)
    for name, value in found.items():
        recorded = getattr(config, name)
        if recorded is None:
            setattr(config, name, value)
        elif recorded != value:
            named = config.base_model_name_or_path or "the base it was trained on"
            raise GRMPError(
                f"Expected the base that this adapter was made for ({named}), got one with other {name}: "
                f"{recorded} recorded, {value} found. Load it with that base."
            )


@contextmanager
def teacher_mode(model: nn.Module) -> Iterator[None]:
    """Within this context the model is its untouched base: no adapter, evaluation mode, no gradient.

    Only flags of the layers are switched and put back, so no ``requires_grad`` changes (PEFT's own
    ``disable_adapter`` switches them on) and a graph built before can still be differentiated.
    """
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    disabled, modes = [layer._disable_adapters for layer in layers], [(m, m.training) for m in model.modules()]
    try:
        for layer in layers:
            layer._disable_adapters = True
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for layer, flag in zip(layers, disabled, strict=True):
            layer._disable_adapters = flag
        for module, mode in modes:
            module.training = mode


def register() -> None:
    """Make ``grmp`` a PEFT method; harmless when it is one already.

    PEFT takes methods only whose name is a member of its closed enumeration, so the member is added first.
    """
    if _NAME.upper() not in PeftType.__members__:
        member = str.__new__(PeftType, _NAME.upper())
        member._name_, member._value_ = _NAME.upper(), _NAME.upper()
        PeftType._member_map_[_NAME.upper()] = member
        PeftType._value2member_map_[_NAME.upper()] = member
        PeftType._member_names_.append(_NAME.upper())
        type.__setattr__(PeftType, _NAME.upper(), member)
    if PeftType[_NAME.upper()] not in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=_NAME, config_cls=GRMPPromptConfig, model_cls=GRMPPromptModel)


register()
