"""Standalone scorers, as :func:`~grmp_hf.modeling.baking.bake` makes them: constants, a vision tower, no text tower.

Letters in shapes: A quality anchors, S semantic anchors, D joint width, L prompted layers, M prompts, W vision width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
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

from grmp_hf.modeling.bases import check_loaded
from grmp_hf.modeling.configuration_grmp import CLIP_MEAN, CLIP_STD, IGNORED, anchor_levels, axis_sizes
from grmp_hf.modeling.feature_map import FeatureMap, Sureness
from grmp_hf.modeling.functional import anchor_logits
from grmp_hf.modeling.heads import AnchorHead, Features, GRMPOutput, Text, judge, view_features
from grmp_hf.modeling.known_heads import rebuild
from grmp_hf.modeling.modeling_grmp import as_tuple
from grmp_hf.modeling.patches import exact_patches
from grmp_hf.modeling.prompts import KeysValues, prompt_attention, run_prompted_encoder
from grmp_hf.modeling.side import look_aside, make_side
from grmp_hf.record import Record

__all__ = ["Baked", "GRMPBakedConfig", "GRMPBakedScorer"]


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
        head: name and settings of the head, as a record holds them; None for that of the anchors.
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
    head: Any = None
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
        found = Record(preprocessing=self.preprocessing, scale=self.rating_scale, provenance=self.provenance)
        return found.checked("config.json")

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


class Baked(PreTrainedModel):
    """What standalone scorers share: they are for scoring, and nothing of them can be adapted further."""

    main_input_name = "pixel_values"
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "CLIPVisionEmbeddings"]

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


class GRMPBakedScorer(Baked):
    """Scores as the model that it was baked from does, from the vision tower and constants alone."""

    config_class = GRMPBakedConfig
    base_model_prefix = "vision_model"

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
        self.head: Any = AnchorHead() if config.head is None else rebuild(config.head)
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
        features = self.get_features(pixel_values, side=output_side)
        found = self.say(features, labels, output_semantic=output_semantic, output_side=output_side)
        return found.to_tuple() if as_tuple(return_dict, self.config) else found

    def say(
        self,
        features: Features,
        labels: Tensor | None = None,
        *,
        output_semantic: bool = False,
        output_side: bool = False,
    ) -> GRMPOutput:
        """What there is to say of features, as :meth:`forward` of pictures."""
        text = Text(
            lambda: self.quality_embeds, self._quality_logits, self.config.quality_levels, axis_sizes(self.config)
        )
        semantic = self._semantic_logits if output_semantic else None
        return judge(self.head, features, text, labels, semantic, output_side=output_side)

    def _quality_logits(self, features: Features) -> tuple[Tensor, Sureness | None]:
        logits = anchor_logits(features.pooled(), self.quality_embeds, self.logit_scale)
        calibrated: Tensor = self.calibration_log_scale.exp() * logits + self.calibration_offset
        return (calibrated, None) if self.map is None else self.map(calibrated, features)

    def _semantic_logits(self, image_embeds: Tensor) -> Tensor:
        return anchor_logits(image_embeds, self.semantic_embeds, self.logit_scale)

    @property
    def reads_side(self) -> bool:
        """Whether its head or its map asks for what the side network says."""
        return self.head.needs_side or (self.map is not None and len(self.map.groups) > 1)

    def get_features(self, pixel_values: Tensor, *, side: bool = False) -> Features:
        """What the head sees of pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``; ``side`` of those that do not ask."""
        look = look_aside(self.side, self.config) if self.side is not None and (side or self.reads_side) else None
        return view_features(pixel_values, self.config.view_weights, self._embed, look, self.config.side_size)

    def get_image_embeds(self, pixel_values: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``."""
        return self.get_features(pixel_values).pooled()

    def _embed(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        found = self.vision_model(pixel_values=pixel_values)
        states = self.vision_model.post_layernorm(found.last_hidden_state) if self.head.needs_tokens else None
        return self.visual_projection(found.pooler_output), states


AutoConfig.register(GRMPBakedConfig.model_type, GRMPBakedConfig, exist_ok=True)
AutoModel.register(GRMPBakedConfig, GRMPBakedScorer, exist_ok=True)
AutoModelForImageClassification.register(GRMPBakedConfig, GRMPBakedScorer, exist_ok=True)
