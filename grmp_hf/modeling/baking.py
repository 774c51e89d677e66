"""Bake: adapter, head and anchors folded into a standalone scorer, or several experts and their gate into one."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import adapter_weights, merged_copy
from grmp_hf.modeling.baked import GRMPBakedConfig, GRMPBakedScorer
from grmp_hf.modeling.baked_experts import GRMPBakedExperts, GRMPBakedExpertsConfig
from grmp_hf.modeling.caching import adapter_state
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.feature_map import FeatureMap
from grmp_hf.modeling.known_heads import acting, describe, rebuild
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.modes import evaluating
from grmp_hf.modeling.prompts import KeysValues
from grmp_hf.record import Record

__all__ = ["bake"]


@torch.no_grad()
def bake(model: PeftModel | GRMPForImageQualityAssessment | Experts) -> GRMPBakedScorer | GRMPBakedExperts:
    """Fold the active adapter (if any), the head and the anchors into a standalone scorer.

    Args:
        model: an adapted model, the zero-shot model itself, or experts with their gate; it is not changed.

    Returns:
        A scorer in evaluation mode, on the CPU, equal to ``model`` in evaluation mode up to rounding.

    Raises:
        GRMPError: several adapters that are active, one that injects local features, or a head that is none of this
            package.
    """
    with evaluating(model):
        return _bake_experts(model) if isinstance(model, Experts) else _bake_one(model)


def _bake_experts(model: Experts) -> GRMPBakedExperts:
    parts = {name: _bake_one(expert) for name, expert in model.experts.items()}
    reading = next((part for part in parts.values() if part.side is not None), None)
    bare = _bake_one(model.base, None if reading is None else reading.config.side)
    known, own = bare.state_dict(), []
    for part in parts.values():
        weights = part.named_parameters()
        own.append([name for name, weight in weights if name not in known or not torch.equal(weight, known[name])])
    record = Record.of(model.config)
    config = GRMPBakedExpertsConfig(
        base=bare.config.to_dict(),
        experts=[*parts],
        parts=[part.config.to_dict() for part in parts.values()],
        own=own,
        centers=[len(model.gate.centers[name]) for name in parts],
        temperature=model.gate.temperature,
        rating_scale=record.scale,
        preprocessing=record.preprocessing,
        provenance=record.provenance,
    )
    baked = GRMPBakedExperts(config)
    baked.base.load_state_dict(known)
    for own_part, part in zip(baked.experts, parts.values(), strict=True):
        own_part.load_state_dict(part.state_dict())
    for held, centers in zip(baked.centers, model.gate.centers.values(), strict=True):
        held.copy_(centers)
    baked.eval()
    return baked


def _bake_one(model: PeftModel | GRMPForImageQualityAssessment, side: Any = None) -> GRMPBakedScorer:
    """One adapter or none; ``side``: settings of the side network to keep although nothing of the adapter reads it."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    head = describe(base.head)
    rebuild(head, remedy="Score with the model itself: a baked scorer makes its head anew.")
    if getattr(base.clip.vision_model.encoder, "needs_maps", False):
        raise GRMPError(
            "Expected an adapter that folds into constants, got one of LoDa: a baked scorer holds no injected local "
            "features. Score with the adapter itself: grmp_hf.load(adapter=...), --adapter."
        )
    active = {name for names, _ in adapter_state(base) for name in names}
    configs = getattr(base, "peft_config", {})
    encoder, readout = base.clip.vision_model.encoder, base.readout
    prompts = getattr(encoder, "active_module", None)
    adjustment = getattr(readout, "active_module", None)
    constants = {f"head.{name}": weight for name, weight in acting(base.head).state_dict().items()}
    constants |= {"logit_scale": base.clip.logit_scale, "semantic_embeds": base.get_anchor_embeds("semantic")}
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
            side = base.config.side
    if side is None and getattr(acting(base.head), "needs_side", False):
        side = base.config.side
    if side is not None:
        constants |= {f"side.{name}": value for name, value in base.side.state_dict().items()}
    adapter = next((configs[name] for name in active if name in configs), None)
    kept = {"head": head, "side": side}
    scorer = GRMPBakedScorer(_baked_config(base, adapter, None if prompts is None else pairs, found, kept))
    state = {**_vision_state(base, active, wrapped=prompts is not None), **constants}
    expected = scorer.state_dict()
    scorer.load_state_dict({**{n: w for n, w in expected.items() if n.startswith("calibration_")}, **state})
    scorer.eval()
    return scorer


def _baked_config(
    base: Any, adapter: Any, pairs: list[KeysValues] | None, found: FeatureMap | None, given: dict[str, Any]
) -> GRMPBakedConfig:
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
        **kept,
        **given,
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
