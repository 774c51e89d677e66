"""A standalone scorer: adapter and anchors folded into constants, and no text tower.

Letters in shapes: A quality anchors, S semantic anchors, D joint width, L prompted layers, M prompts, W vision width.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    CLIPVisionConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.clip.modeling_clip import CLIPVisionModel

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import adapter_weights, merged_copy
from grmp_hf.modeling.caching import adapter_state
from grmp_hf.modeling.configuration_grmp import CLIP_MEAN, CLIP_STD, IGNORED, anchor_levels, axis_sizes
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.feature_map import FeatureMap, Sureness
from grmp_hf.modeling.functional import anchor_logits
from grmp_hf.modeling.heads import AnchorHead, Features, Text, judge, view_features
from grmp_hf.modeling.known_heads import require_anchors
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment, as_tuple, check_loaded
from grmp_hf.modeling.patches import exact_patches
from grmp_hf.modeling.prompts import KeysValues, prompt_attention, run_prompted_encoder
from grmp_hf.modeling.side import look_aside, make_side
from grmp_hf.record import Record

__all__ = ["GRMPBakedConfig", "GRMPBakedScorer", "bake"]


class GRMPBakedConfig(PreTrainedConfig):
    """Configuration of a :class:`GRMPBakedScorer`; :func:`bake` makes it.

    Args:
        vision_config: of the vision tower, as a ``CLIPVisionConfig`` or its dictionary.
        projection_dim: D.
        quality_anchors: A texts, for the record.
        quality_levels, quality_axes: as in ``GRMPConfig``.
        semantic_anchors: S texts, for the record.
        view_weights: as in ``GRMPConfig``.
        prompts: M; 0 for no visual prompts and no prompt norm.
        prompted_layers: L.
        features: groups of the feature map, name -> size, in their order as pairs; None for no map.
        side, side_size, image_mean, image_std: as in ``GRMPConfig``.
        rating_scale, preprocessing, provenance: those of the adapter.
    """

    model_type = "grmp_baked"
    sub_configs = {"vision_config": CLIPVisionConfig}

    vision_config: Any = None
    projection_dim: int = 512
    quality_anchors: Any = ()
    quality_levels: Any = (1.0, 0.0)
    quality_axes: Any = None
    semantic_anchors: Any = ()
    view_weights: Any = None
    prompts: int = 0
    prompted_layers: int = 0
    features: Any = None
    side: Any = None
    side_size: int | None = None
    image_mean: Any = CLIP_MEAN
    image_std: Any = CLIP_STD
    rating_scale: Any = None
    preprocessing: Any = None
    provenance: Any = None
    keys_to_ignore_at_inference: Any = IGNORED

    @property
    def record(self) -> Record:
        """What it has of the record of its adapter."""
        return Record(preprocessing=self.preprocessing, scale=self.rating_scale, provenance=self.provenance)

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None:
            self.vision_config = CLIPVisionConfig()
        elif isinstance(self.vision_config, dict):
            self.vision_config = CLIPVisionConfig(**{k: v for k, v in self.vision_config.items() if k != "model_type"})
        lists = ("quality_anchors", "quality_levels", "semantic_anchors", "keys_to_ignore_at_inference")
        for name in (*lists, "image_mean", "image_std"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)


class _ConstantPrompts(nn.Module):
    """An encoder whose prompts' keys and values are constants ``(L, M, W)``, with the prompt norm after it."""

    def __init__(self, base_layer: nn.Module, layers: int, count: int, width: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.keys, self.values = (
            nn.Parameter(torch.zeros(layers, count, width), requires_grad=False) for _ in range(2)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        prompt_attention(base_layer)

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """Encode ``(B, N, W)``; the vision tower has no mask."""
        prompts = [KeysValues(k[None], v[None]) for k, v in zip(self.keys, self.values, strict=True)]
        return run_prompted_encoder(self.base_layer, inputs_embeds, prompts, self.norm, **kwargs)


class GRMPBakedScorer(PreTrainedModel):
    """Scores as the model that it was baked from does, from the vision tower and constants alone.

    It is for scoring: nothing of it can be adapted further.
    """

    config_class = GRMPBakedConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "CLIPVisionEmbeddings"]

    def __init__(self, config: GRMPBakedConfig) -> None:
        super().__init__(config)
        vision, width = config.vision_config, config.projection_dim
        self.vision_model = CLIPVisionModel._from_config(vision)
        exact_patches(self.vision_model)
        if config.prompts:
            self.vision_model.encoder = _ConstantPrompts(
                self.vision_model.encoder, config.prompted_layers, config.prompts, vision.hidden_size
            )
        self.visual_projection = nn.Linear(vision.hidden_size, width, bias=False)
        self.side = None if config.side is None else make_side(config.side)
        self.map = None if config.features is None else FeatureMap(dict(config.features), anchor_levels(config))
        self.head = AnchorHead()
        anchors = math.prod(axis_sizes(config).values())
        constants = {
            "quality_embeds": torch.zeros(anchors, width),
            "semantic_embeds": torch.zeros(len(config.semantic_anchors), width),
            "logit_scale": torch.zeros(()),
            "calibration_log_scale": torch.zeros(()),
            "calibration_offset": torch.zeros(anchors),
        }
        for name, value in constants.items():
            setattr(self, name, nn.Parameter(value, requires_grad=False))
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a baked scorer, in float32 unless ``dtype`` says otherwise.

        Raises:
            GRMPError: a weight is missing or left over.
        """
        kwargs = {"dtype": kwargs.pop("torch_dtype", None) or torch.float32, **kwargs}
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        check_loaded(info, f"a baked scorer at {str(pretrained_model_name_or_path)!r}")
        return (model, info) if wants_info else model

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_semantic: bool = False,
        output_side: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score pictures; arguments and result as in ``GRMPForImageQualityAssessment.forward``."""
        if kwargs:
            raise TypeError(f"forward() got unexpected arguments {sorted(kwargs)}.")
        text = Text(
            lambda: self.quality_embeds, self._quality_logits, self.config.quality_levels, axis_sizes(self.config)
        )
        semantic = self._semantic_logits if output_semantic else None
        features = self.get_features(pixel_values)
        found = judge(self.head, features, text, labels, semantic, output_side=output_side)
        return found.to_tuple() if as_tuple(return_dict, self.config) else found

    def _quality_logits(self, features: Features) -> tuple[Tensor, Sureness | None]:
        logits = anchor_logits(features.pooled(), self.quality_embeds, self.logit_scale)
        calibrated: Tensor = self.calibration_log_scale.exp() * logits + self.calibration_offset
        return (calibrated, None) if self.map is None else self.map(calibrated, features)

    def _semantic_logits(self, image_embeds: Tensor) -> Tensor:
        return anchor_logits(image_embeds, self.semantic_embeds, self.logit_scale)

    def get_features(self, pixel_values: Tensor) -> Features:
        """What the head sees of pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``."""
        side = None if self.side is None else look_aside(self.side, self.config)
        return view_features(pixel_values, self.config.view_weights, self._embed, side, self.config.side_size)

    def get_image_embeds(self, pixel_values: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``."""
        return self.get_features(pixel_values).pooled()

    def _embed(self, pixel_values: Tensor) -> tuple[Tensor, None]:
        return self.visual_projection(self.vision_model(pixel_values=pixel_values).pooler_output), None


@torch.no_grad()
def bake(model: PeftModel | GRMPForImageQualityAssessment) -> GRMPBakedScorer:
    """Fold the active adapter (if any) and the anchors into a standalone scorer.

    Args:
        model: an adapted model, or the zero-shot model itself; it is not changed.

    Returns:
        A scorer in evaluation mode, on the CPU, equal to ``model`` in evaluation mode up to rounding.

    Raises:
        GRMPError: experts, several adapters that are active, one that injects local features, or the model has another
            head than that of the anchors.
    """
    if isinstance(model, Experts):
        raise GRMPError(
            f"Expected one adapter to bake, got the experts {', '.join(model.names)}, which have a tower each. Load "
            "them as they are (they share the base), or bake each of them: its folder is in experts/."
        )
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    require_anchors(base, "to bake, for a baked scorer holds anchors alone")
    if getattr(base.clip.vision_model.encoder, "needs_maps", False):
        raise GRMPError(
            "Expected an adapter that folds into constants, got one of LoDa: a baked scorer holds no injected local "
            "features. Score with the adapter itself: grmp_hf.load(adapter=...), --adapter."
        )
    active = {name for names, _ in adapter_state(base) for name in names}
    configs = getattr(base, "peft_config", {})
    training = model.training
    model.eval()
    encoder, readout = base.clip.vision_model.encoder, base.readout
    prompts = getattr(encoder, "active_module", None)
    adjustment = getattr(readout, "active_module", None)
    constants = {"logit_scale": base.clip.logit_scale, "semantic_embeds": base.get_anchor_embeds("semantic")}
    anchors = base.get_anchor_embeds("quality")
    constants["quality_embeds"] = anchors if adjustment is None else adjustment.shift(anchors)
    if adjustment is not None and adjustment.offset is not None:
        constants |= {"calibration_log_scale": adjustment.log_scale, "calibration_offset": adjustment.offset}
    if prompts is not None:
        pairs = encoder.keys_values(1)
        constants["vision_model.encoder.keys"] = torch.cat([pair.keys for pair in pairs])
        constants["vision_model.encoder.values"] = torch.cat([pair.values for pair in pairs])
        constants |= {f"vision_model.encoder.norm.{n}": w for n, w in prompts.norm.named_parameters()}
    found = None if adjustment is None else adjustment.map
    if found is not None:
        constants |= {f"map.{name}": value for name, value in found.state_dict().items()}
        if len(found.groups) > 1:
            constants |= {f"side.{name}": value for name, value in base.side.state_dict().items()}
    adapter = next((configs[name] for name in active if name in configs), None)
    scorer = GRMPBakedScorer(_baked_config(base, adapter, None if prompts is None else pairs, found))
    state = {**_vision_state(base, active, wrapped=prompts is not None), **constants}
    expected = scorer.state_dict()
    scorer.load_state_dict({**{n: w for n, w in expected.items() if n.startswith("calibration_")}, **state})
    model.train(training)
    scorer.eval()
    return scorer


def _baked_config(base: Any, adapter: Any, pairs: list[KeysValues] | None, found: FeatureMap | None) -> GRMPBakedConfig:
    config = base.config
    names = ("quality_anchors", "quality_levels", "quality_axes", "semantic_anchors", "view_weights")
    kept = {name: getattr(config, name) for name in (*names, "side_size", "image_mean", "image_std")}
    record = Record() if adapter is None else Record.of(adapter)
    return GRMPBakedConfig(
        vision_config=config.clip_config.vision_config.to_dict(),
        projection_dim=config.clip_config.projection_dim,
        prompts=0 if pairs is None else pairs[0].keys.shape[1],
        prompted_layers=0 if pairs is None else len(pairs),
        features=None if found is None else [[name, size] for name, size in found.groups.items()],
        side=config.side if found is not None and len(found.groups) > 1 else None,
        **kept,
        rating_scale=record.scale,
        preprocessing=record.preprocessing,
        provenance=record.provenance,
    )


def _vision_state(base: Any, active: set[str], *, wrapped: bool) -> dict[str, Tensor]:
    """The vision tower's weights under the names of a baked scorer; trained copies take the place of the base's own."""
    found: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    parts = {name: merged_copy(getattr(base.clip, name)) for name in ("vision_model", "visual_projection")}
    named = ((part, f"{part}.{name}", w) for part in parts for name, w in parts[part].named_parameters())
    added = {part: adapter_weights(module) for part, module in parts.items()}
    for part, short, weight in named:
        if id(weight) in added[part]:
            continue
        copy = re.search(r"\.modules_to_save\.([^.]+)", short)
        if copy is not None and copy[1] not in active:
            continue
        plain = re.sub(r"\.base_layer|\.original_module|\.modules_to_save\.[^.]+", "", short)
        if wrapped:
            plain = plain.replace("vision_model.encoder.", "vision_model.encoder.base_layer.")
        (found if copy is None else copies)[plain] = weight
    return {**found, **copies}


AutoConfig.register(GRMPBakedConfig.model_type, GRMPBakedConfig, exist_ok=True)
AutoModel.register(GRMPBakedConfig, GRMPBakedScorer, exist_ok=True)
AutoModelForImageClassification.register(GRMPBakedConfig, GRMPBakedScorer, exist_ok=True)
