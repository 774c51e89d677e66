"""``GRMPForImageQualityAssessment``: quality of pictures from a CLIP and texts that stand for quality levels.

Letters in shapes: B pictures, V views of a picture, A quality anchors, S semantic anchors, D joint width.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForImageClassification, CLIPModel, PreTrainedModel
from transformers.utils import CONFIG_NAME

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.bases import base_beside, base_fingerprint, check_loaded, check_recorded, find_record
from grmp_hf.modeling.caching import WeightCache, acting_weights, adapter_state
from grmp_hf.modeling.configuration_grmp import (
    EMBEDDED,
    GRMPConfig,
    anchor_length,
    axis_sizes,
    match_views,
    model_place,
)
from grmp_hf.modeling.feature_map import Sureness
from grmp_hf.modeling.functional import anchor_logits, count_tiles, join_tiles, unit_length
from grmp_hf.modeling.heads import AnchorHead, Features, Head, Readout, Text, judge, view_features, weights_of
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, denormalize, preprocessing_in
from grmp_hf.modeling.patches import exact_patches
from grmp_hf.modeling.side import Side, look_aside, make_side, read_side
from grmp_hf.record import Record

__all__ = [
    "GRMPForImageQualityAssessment",
    "as_tuple",
]

_TEXTS = 64  # that go through the text tower at once


def as_tuple(return_dict: bool | None, config: Any) -> bool:
    """Whether ``forward`` is to give a tuple: by its argument, else by the configuration."""
    return not (config.return_dict if return_dict is None else return_dict)


class GRMPForImageQualityAssessment(PreTrainedModel):
    """Blind image quality assessment with an untouched CLIP.

    Quality is read from the similarity of a picture to *quality anchors* ("X X X X high quality." / "... low
    quality."); scene logits on *semantic anchors* serve the gradient rule in training. Without an adapter this is a
    zero-shot scorer; :class:`~grmp_hf.GRMPPromptConfig` adds learned prompts.

    ``from_pretrained`` takes a folder or Hub id of a GRMP model or of any plain CLIP.

    Source: docs/method.md; the reference's two-tower student.
    """

    config_class = GRMPConfig
    base_model_prefix = "clip"
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "CLIPTextEmbeddings", "CLIPVisionEmbeddings"]
    _keys_to_ignore_on_load_unexpected = [r".*embeddings\.position_ids"]

    def __init__(self, config: GRMPConfig) -> None:
        super().__init__(config)
        config.check()  # its fields may have been set since it was made
        self.clip = CLIPModel._from_config(config.clip_config)
        exact_patches(self.clip.vision_model)
        self.side = None if config.side is None else make_side(config.side)
        self.readout = Readout()
        self.head: Head = AnchorHead()
        self._anchors: dict[str, WeightCache[Tensor]] = {
            kind: WeightCache() for kind in ("quality", "semantic", "others")
        }
        self.preprocessing: dict[str, Any] | None = None  # as its folder has it, which it leaves with the model
        self._before_rounding: dict[str, str] = {}  # fingerprint of rounded weights -> of what they were
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a GRMP model, a plain CLIP (as zero-shot scorer) or the folder of one of our adapters.

        Weights are float32 unless ``dtype`` says otherwise, also where the file holds half precision. The name
        ``"grmp_hf/tiny"`` stands for the base inside the package.

        Raises:
            GRMPError: a weight is missing, left over or of another size.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        wanted = kwargs.pop("torch_dtype", None) or kwargs.pop("dtype", None) or torch.float32
        if isinstance(wanted, str) and wanted != "auto":
            wanted = getattr(torch, wanted)
        narrow = wanted in (torch.float16, torch.bfloat16) and kwargs.get("device_map") is None
        # Sizes that differ are reported below instead of raised.
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        kwargs["dtype"] = torch.float32 if narrow else wanted
        name, adapter = pretrained_model_name_or_path, None
        beneath = base_beside(name)
        if beneath is not None:
            name, adapter = beneath, name
        model, info = super().from_pretrained(model_place(name), *args, **kwargs)
        check_loaded(info, f"a CLIP at {str(name)!r}")
        model._put_own_side(name)
        model.preprocessing = preprocessing_in(model_place(name))
        if narrow:  # an adapter knows its base by weights that are not rounded
            before = base_fingerprint(model)
            model = model.to(wanted)
            model._before_rounding = {base_fingerprint(model): before}
        if name == EMBEDDED:
            model.config._name_or_path = model.name_or_path = EMBEDDED
        if adapter is not None:
            model.load_adapter(adapter)
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As transformers' own, with the preprocessing that the model was loaded with beside it."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.preprocessing is not None and (Path(save_directory) / CONFIG_NAME).is_file():
            GRMPImageProcessor(**self.preprocessing).save_pretrained(save_directory)

    def put_beside(self, settings: dict[str, Any], side: Side) -> None:
        """Give the model a frozen side network, see :func:`~grmp_hf.modeling.side.make_side`; nothing else changes.

        Args:
            settings: what the configuration says of it.
            side: the network.
        """
        weight = next(self.clip.parameters())
        self.config.side, self.side = dict(settings), side.to(weight.device, weight.dtype)

    def _put_own_side(self, name: Any) -> None:
        """Put the side network that lies in the folder of a base beside it, where there is one and it has none."""
        place = model_place(name)
        beside = read_side(place) if self.side is None and os.path.isdir(place) else None
        if beside is not None:
            self.put_beside(*beside)

    def load_adapter(
        self, peft_model_id: str | None = None, adapter_name: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load one of our adapters in the way of transformers.

        Raises:
            GRMPError: it was made for another base, or its file lacks a tensor, or holds one more or one of another
                size.
        """
        record = Record()
        if peft_model_id is not None:
            places = getattr(kwargs.get("load_config"), "download_kwargs", None), kwargs.get("adapter_kwargs"), kwargs
            options = {name: value for given in places for name, value in (given or {}).items()}
            found = find_record(peft_model_id, **options)
            if found.side is not None:  # transformers loads an adapter before the base has all that lies beside it
                self._put_own_side(self.name_or_path)
            record = check_recorded(found, self)
        if record.preprocessing is not None:
            match_views(self.config, GRMPImageProcessor(**record.preprocessing))
        kwargs["ignore_mismatched_sizes"] = True
        info = super().load_adapter(peft_model_id, adapter_name, *args, **kwargs)
        check_loaded(vars(info), f"the adapter at {str(peft_model_id)!r}")
        if peft_model_id is not None:
            record.attach(self.peft_config[adapter_name or "default"])
        return info

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_semantic: bool = False,
        image_embeds: Tensor | None = None,
        side: Tensor | None = None,
        output_side: bool = False,
        tokens: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score pictures: a :class:`GRMPOutput`, or a tuple of what it holds where ``return_dict`` is False.

        Args:
            pixel_values: ``(B, 3, H, W)``, or ``(B, V, 3, H, W)`` for V views of each picture.
            labels: ``(B,)`` or ``(B, 1)``, quality in [0, 1].
            output_semantic: also give the scene logits.
            image_embeds: ``(B, D)`` from :meth:`get_image_embeds`, or ``(B, V, D)`` from the ``embeds`` of
                :meth:`get_features`, instead of ``pixel_values``.
            side: ``(B, F)``, the ``side`` of :meth:`get_features` where it is known; needed beside ``image_embeds`` by
                an adapter that reads it.
            output_side: also give what the side network says, of the same pass.
            tokens: ``(B, V, N, W)``, the ``tokens`` of :meth:`get_features`, instead of ``pixel_values``; embeddings
                come from them.

        Raises:
            GRMPError: pixels that are not normalised, labels of another shape, or outside [0, 1], such as ratings from
                1 to 5, or NaN.
        """
        if kwargs:
            raise TypeError(f"forward() got unexpected arguments {sorted(kwargs)}.")
        if sum(given is not None for given in (pixel_values, image_embeds, tokens)) != 1:
            raise TypeError("forward() takes one of pixel_values, image_embeds and tokens.")
        if pixel_values is not None:
            wanted = side is None and bool(self.head.needs_side or self.readout.needs_side or output_side)
            features = self.get_features(pixel_values, tokens=self.head.needs_tokens, side=wanted)
            features = features if side is None else features._replace(side=side)
        else:
            known = cast(Tensor, image_embeds) if tokens is None else self._project(tokens)
            embeds = known if known.ndim == 3 else known.unsqueeze(1)
            weights = weights_of(embeds.shape[1], self.config.view_weights if known.ndim == 3 else None)
            features = Features(embeds, embeds.new_tensor(weights), tokens, side)
        semantic = self._semantic_logits if output_semantic else None
        found = judge(self.head, features, self._text(), labels, semantic, output_side=output_side)
        return found.to_tuple() if as_tuple(return_dict, self.config) else found

    def _text(self) -> Text:
        embeds = functools.partial(self.get_anchor_embeds, "quality")
        return Text(embeds, self._quality_logits, self.config.quality_levels, axis_sizes(self.config))

    def _quality_logits(self, features: Features) -> tuple[Tensor, Sureness | None]:
        found: tuple[Tensor, Sureness | None] = self.readout(
            features, self.get_anchor_embeds("quality"), self.clip.logit_scale
        )
        return found

    def _semantic_logits(self, image_embeds: Tensor) -> Tensor:
        return anchor_logits(image_embeds, self.get_anchor_embeds("semantic"), self.clip.logit_scale)

    def get_features(self, pixel_values: Tensor, *, tokens: bool = False, side: bool = False) -> Features:
        """What a head sees of pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``, with or without ``tokens``, ``side``.

        Raises:
            GRMPError: the side network is asked for, and there is none or no picture for it.
        """
        if side and self.side is None:
            raise GRMPError(
                "Expected a base with a side network, which this adapter reads, got one without. Load it with "
                "grmp_hf.load, which puts the one that the adapter was learnt with beside the base."
            )
        embed = functools.partial(self._embed, tokens=tokens)
        aside = look_aside(self.side, self.config) if side and self.side is not None else None
        return view_features(pixel_values, self.config.view_weights, embed, aside, self.config.side_size)

    def get_side(self, pixel_values: Tensor) -> Tensor:
        """What the side network says ``(B, F)`` of pictures ``(B, V, 3, H, W)``, whose last views are its own."""
        size = self.config.side_size
        if self.side is None or size is None:
            raise GRMPError("Expected a base with a side network and views for it, got none. Load it with side=.")
        tiles = pixel_values[:, -count_tiles(size, pixel_values.shape[-1]) :]
        found: Tensor = look_aside(self.side, self.config)(join_tiles(tiles, size))
        return found

    def get_image_embeds(self, pixel_values: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of pictures ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``."""
        return self.get_features(pixel_values).pooled()

    def _embed(self, pixel_values: Tensor, *, tokens: bool) -> tuple[Tensor, Tensor | None]:
        vision = self.clip.vision_model
        beside = {"maps": self._maps(pixel_values)} if getattr(vision.encoder, "needs_maps", False) else {}
        found = vision(pixel_values=pixel_values, **beside)
        states = vision.post_layernorm(found.last_hidden_state) if tokens else None
        return self.clip.visual_projection(found.pooler_output), states

    def _project(self, tokens: Tensor) -> Tensor:
        """Unit embeddings ``(B, V, D)`` from tokens ``(B, V, N, W)``, the class token first."""
        width = self.config.clip_config.vision_config.hidden_size
        if tokens.ndim != 4 or tokens.shape[-1] != width:
            raise GRMPError(
                f"Expected tokens of shape (batch, views, tokens, {width}), got {tuple(tokens.shape)}. Take those of "
                "get_features(pixel_values, tokens=True)."
            )
        return unit_length(self.clip.visual_projection(tokens[:, :, 0].to(self.clip.visual_projection.weight)))

    def _maps(self, pixel_values: Tensor) -> list[Tensor]:
        """Maps of the side network for views ``(B, 3, H, W)``, as the active adapter looks at them."""
        pixels = denormalize(pixel_values, self.config.image_mean, self.config.image_std)
        found: list[Tensor] = self.clip.vision_model.encoder.look(self.side, pixels)
        return found

    def get_anchor_embeds(self, kind: str) -> Tensor:
        """Unit embeddings of the ``"quality"`` anchors ``(A, D)`` or the ``"semantic"`` ones ``(S, D)``.

        They are computed once for as long as nothing that they depend on changes and no gradient is wanted of it.
        """
        return self._text_embeds(self._anchor_ids(kind), self._anchors[kind])

    def get_text_embeds(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Unit embeddings ``(T, D)`` of other texts, from their token ids, kept as those of anchors are."""
        return self._text_embeds([list(row) for row in ids], self._anchors["others"])

    def _text_embeds(self, ids: list[list[int]], cache: WeightCache[Tensor]) -> Tensor:
        text, projection = self.clip.text_model, self.clip.text_projection
        if self.training and text.config.attention_dropout > 0:
            return self._encode(ids)
        # Scenes hold no placeholder: text prompts do not reach them, and they are the teacher's too.
        spliced = any(self.config.placeholder_token_id in row for row in ids)
        prompts = text.embeddings.token_embedding
        without = prompts if hasattr(prompts, "expand") and not spliced else None
        weights = [*acting_weights(text, without=without), *acting_weights(projection)]
        record = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        state = (*adapter_state(text, without=without), *adapter_state(projection))
        extra = (tuple(map(tuple, ids)), state, self.config.clip_config.text_config._attn_implementation)
        with torch.set_grad_enabled(record):
            return cache.get(weights, extra, lambda: self._encode(ids))

    def _anchor_ids(self, kind: str) -> list[list[int]]:
        ids = getattr(self.config, f"{kind}_input_ids")
        expand = getattr(self.clip.text_model.embeddings.token_embedding, "expand", None)
        return ids if expand is None else [expand(row) for row in ids]

    def _encode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Unit embeddings of texts, of some at a time, so that memory does not depend on their number."""
        return torch.cat([self._encode_part(ids[at : at + _TEXTS]) for at in range(0, len(ids), _TEXTS)])

    def _encode_part(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """The tower runs no further than the longest text's end, which is exact under its mask."""
        ends = [anchor_length(row, self.clip.text_model.eos_token_id) for row in ids]
        padded = [[*row[:end], *[row[end - 1]] * (max(ends) - end)] for row, end in zip(ids, ends, strict=True)]
        pooled = self.clip.text_model(input_ids=torch.tensor(padded, device=self.device)).pooler_output
        return unit_length(self.clip.text_projection(pooled))

    def train(self, mode: bool = True) -> GRMPForImageQualityAssessment:
        """Switch between training and evaluation; where that is a change, anchors computed before are forgotten."""
        if mode != self.training:
            for cache in self._anchors.values():
                cache.clear()
        return super().train(mode)  # type: ignore[no-any-return]


AutoModel.register(GRMPConfig, GRMPForImageQualityAssessment, exist_ok=True)
AutoModelForImageClassification.register(GRMPConfig, GRMPForImageQualityAssessment, exist_ok=True)
