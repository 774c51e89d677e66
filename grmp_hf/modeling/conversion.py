"""The reference's checkpoints: its parameter names and ours, complete in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import CLIPConfig

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.configuration_grmp import GRMPConfig
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig

__all__ = ["from_authors_state_dict", "load_authors_file", "to_authors_name", "to_authors_state_dict"]

_TOWERS = {"image_encoder": "vision_model", "text_encoder": "text_model"}

# Reference name -> (our name below ``clip.``, transposed).
_PLAIN = {
    "logit_scale": ("logit_scale", False),
    "image_encoder.class_embedding": ("vision_model.embeddings.class_embedding", False),
    "image_encoder.conv1.weight": ("vision_model.embeddings.patch_embedding.weight", False),
    "image_encoder.positional_embedding": ("vision_model.embeddings.position_embedding.weight", False),
    "image_encoder.ln_pre.weight": ("vision_model.pre_layrnorm.weight", False),
    "image_encoder.ln_pre.bias": ("vision_model.pre_layrnorm.bias", False),
    "image_encoder.ln_post.weight": ("vision_model.post_layernorm.weight", False),
    "image_encoder.ln_post.bias": ("vision_model.post_layernorm.bias", False),
    "image_encoder.proj": ("visual_projection.weight", True),
    "text_encoder.token_embedding.weight": ("text_model.embeddings.token_embedding.weight", False),
    "text_encoder.positional_embedding": ("text_model.embeddings.position_embedding.weight", False),
    "text_encoder.ln_final.weight": ("text_model.final_layer_norm.weight", False),
    "text_encoder.ln_final.bias": ("text_model.final_layer_norm.bias", False),
    "text_encoder.text_projection": ("text_projection.weight", True),
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_PROMPTS = {
    "prompt_learner2.ctx": "text_model.embeddings.token_embedding.grmp_text.default.context",
    "image_encoder.prompt_embeddings": "vision_model.encoder.grmp_visual.default.first",
    "image_encoder.deep_prompt_embeddings": "vision_model.encoder.grmp_visual.default.deep",
    "image_encoder.prompt_proj.weight": "vision_model.encoder.grmp_visual.default.projection.weight",
    "image_encoder.prompt_proj.bias": "vision_model.encoder.grmp_visual.default.projection.bias",
    "image_encoder.prompt_norm.weight": "vision_model.encoder.grmp_visual.default.norm.weight",
    "image_encoder.prompt_norm.bias": "vision_model.encoder.grmp_visual.default.norm.bias",
}
_REDUNDANT = ("prompt_learner2.token_prefix", "prompt_learner2.token_suffix")


def _layer_names(layers: Mapping[str, int]) -> dict[str, list[tuple[str, bool]]]:
    """Reference name -> our names (three for packed q, k, v) of every encoder layer."""
    names: dict[str, list[tuple[str, bool]]] = {}
    for tower, ours in _TOWERS.items():
        for index in range(layers[tower]):
            source, target = f"{tower}.transformer.resblocks.{index}", f"{ours}.encoder.layers.{index}"
            for kind in ("weight", "bias"):
                names |= {f"{source}.{a}.{kind}": [(f"{target}.{b}.{kind}", False)] for a, b in _LAYER.items()}
                packed = [(f"{target}.self_attn.{letter}_proj.{kind}", False) for letter in "qkv"]
                names[f"{source}.attn.in_proj_{kind}"] = packed
    return names


def _base_names(layers: Mapping[str, int]) -> dict[str, list[tuple[str, bool]]]:
    return {name: [target] for name, target in _PLAIN.items()} | _layer_names(layers)


def to_authors_name(name: str) -> str:
    """The reference's name of one of our parameters, wherever it stands (base, adapter or ``modules_to_save``).

    >>> to_authors_name("base_model.model.clip.vision_model.encoder.base_layer.layers.2.self_attn.q_proj.weight")
    'image_encoder.transformer.resblocks.2.attn.in_proj_weight'

    Raises:
        KeyError: not a parameter of this model.
    """
    plain = re.sub(r"^(base_model\.model\.)?clip\.|\.base_layer|\.original_module|\.modules_to_save\.[^.]+", "", name)
    plain = re.sub(r"\.(grmp_text|grmp_visual)\.[^.]+", r".\1.default", plain)
    found = re.fullmatch(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", plain)
    if found:
        tower = {ours: theirs for theirs, ours in _TOWERS.items()}[found[1]]
        prefix = f"{tower}.transformer.resblocks.{found[2]}"
        if re.fullmatch(r"self_attn\.[qkv]_proj", found[3]):
            return f"{prefix}.attn.in_proj_{found[4]}"
        return f"{prefix}.{ {ours: theirs for theirs, ours in _LAYER.items()}[found[3]] }.{found[4]}"
    return {**{ours: theirs for theirs, (ours, _) in _PLAIN.items()}, **{o: t for t, o in _PROMPTS.items()}}[plain]


def from_authors_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    quality_input_ids: Sequence[Sequence[int]] | Tensor | None = None,
    semantic_input_ids: Sequence[Sequence[int]] | Tensor | None = None,
    placeholder_token_id: int | None = None,
    vision_heads: int | None = None,
    text_heads: int | None = None,
) -> PeftModel:
    """Our model, with the prompts as an adapter, from a state dict under the reference's names.

    All sizes are read from the tensors.

    Args:
        state_dict: the reference's student; the ``module.`` prefix of data-parallel training is known.
        quality_input_ids: ``(2, N)``; CLIP's tokenisation of the default anchors if None.
        semantic_input_ids: ``(S, N)``; likewise.
        placeholder_token_id: the id that ``ctx`` replaces; CLIP's ``X`` if None.
        vision_heads: width / 64 if None.
        text_heads: width / 64 if None.

    Returns:
        A ``PeftModel`` in evaluation mode.

    Raises:
        GRMPError: keys are missing or left over, or the redundant ``token_prefix`` / ``token_suffix`` contradict the
            token embedding.

    Source: docs/method.md.
    """
    source = _without_prefix(state_dict)
    layers = {tower: _count_layers(source, tower) for tower in _TOWERS}
    names = _base_names(layers)
    wanted = {*names, *_PROMPTS, *_REDUNDANT}
    missing, unused = sorted(wanted - source.keys()), sorted(source.keys() - wanted)
    if missing or unused or not all(layers.values()):
        raise GRMPError(
            f"Expected the state dict of the reference's student, missing: {missing or 'none'}, unused: "
            f"{unused or 'none'}. A checkpoint of prompts alone lacks the towers: convert the fine-tuned model."
        )
    quality, semantic = _ids(quality_input_ids), _ids(semantic_input_ids)
    clip_config = _clip_config(source, layers, vision_heads, text_heads, quality)
    options = {
        "quality_input_ids": quality,
        "semantic_input_ids": semantic,
        "placeholder_token_id": placeholder_token_id,
    }
    config = GRMPConfig(clip_config=clip_config, **{k: v for k, v in options.items() if v is not None})
    _check_redundant(source, config)
    deep = source["image_encoder.deep_prompt_embeddings"]
    adapter = GRMPPromptConfig(
        text_prompts=len(source["prompt_learner2.ctx"]), visual_prompts=deep.shape[1], visual_layers=len(deep) + 1
    )
    base = GRMPForImageQualityAssessment(config)
    targets: dict[str, Tensor] = {}
    for name, ours in names.items():
        pieces = source[name].chunk(len(ours)) if len(ours) > 1 else [source[name]]
        targets |= {f"clip.{key}": w.T if turned else w for (key, turned), w in zip(ours, pieces, strict=True)}
    base.load_state_dict(targets)
    model = get_peft_model(base, adapter)
    source["image_encoder.prompt_embeddings"] = source["image_encoder.prompt_embeddings"][0]
    prompts = {f"base_model.model.clip.{key}": source[name] for name, key in _PROMPTS.items()}
    _load_prompts(model, prompts)
    return model.eval()


def _load_prompts(model: PeftModel, prompts: Mapping[str, Tensor]) -> None:
    """Load the tensors of a new adapter, all of them and nothing else."""
    own = {name for name in model.state_dict() if ".grmp_" in name}
    if own != prompts.keys():
        raise GRMPError(
            f"Expected the prompts {sorted(own)}, got {sorted(prompts)}. This version of peft names them otherwise: "
            "install the one that grmp_hf was made with, pip install 'peft==0.21.*'."
        )
    model.load_state_dict(prompts, strict=False)  # the base has its weights already


def to_authors_state_dict(model: PeftModel) -> dict[str, Tensor]:
    """The inverse of :func:`from_authors_state_dict`: the active adapter and its base under the reference's names.

    Copies trained through ``modules_to_save`` take the place of the base's own.

    Raises:
        GRMPError: an adapter that learns what the reference has no name for, or without visual prompts.
    """
    name = model.active_adapters[0]
    inactive = re.compile(rf"\.(grmp_text|grmp_visual|modules_to_save)\.(?!{re.escape(name)}\.)")
    grouped: dict[str, dict[str, Tensor]] = {}
    copied = f".modules_to_save.{name}"
    copies = {key.replace(copied, "") for key, _ in model.named_parameters() if f"{copied}." in key}
    for key, weight in model.named_parameters():
        if inactive.search(key) or key.replace(".original_module", "") in copies - {key}:
            continue
        try:
            grouped.setdefault(to_authors_name(key), {})[key] = weight.detach()
        except KeyError as error:
            raise GRMPError(f"Expected text and visual prompts, as the reference has them, got {key}.") from error
    packed = {key: _pack(pieces) for key, pieces in grouped.items()}
    turned = {key for key, (_, transposed) in _PLAIN.items() if transposed}
    result = {key: weight.T.contiguous() if key in turned else weight for key, weight in packed.items()}
    if "image_encoder.prompt_embeddings" not in result:
        raise GRMPError("Expected an adapter with visual prompts, as the reference always has them, got one without.")
    result["image_encoder.prompt_embeddings"] = result["image_encoder.prompt_embeddings"][None]
    return result | _redundant(result, model.get_base_model().config)


def _pack(pieces: Mapping[str, Tensor]) -> Tensor:
    """One tensor of the reference from ours: q, k and v of an attention lie in this order in it."""
    if len(pieces) == 1:
        return next(iter(pieces.values()))
    letters = {found[1]: weight for name, weight in pieces.items() if (found := re.search(r"\.([qkv])_proj\.", name))}
    return torch.cat([letters[letter] for letter in "qkv"])


def load_authors_file(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint of the reference without running code from it.

    Raises:
        GRMPError: the file is missing, is not a state dict, or its pickle holds more than tensors.
    """
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise GRMPError(f"Expected a checkpoint at {str(path)!r}, found nothing there.") from error
    except Exception as error:  # torch raises many kinds for a bad pickle
        raise GRMPError(
            f"Expected a file with tensors alone at {str(path)!r}, got one that cannot be read safely "
            f"({type(error).__name__}). Save it again with torch.save(model.state_dict(), ...)."
        ) from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(weight, Tensor) for weight in loaded.values()):
        raise GRMPError(f"Expected a state dict (name -> tensor) in {str(path)!r}, got {type(loaded).__name__}.")
    return loaded


def _without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if state_dict and all(name.startswith("module.") for name in state_dict):
        return {name.removeprefix("module."): weight for name, weight in state_dict.items()}
    return dict(state_dict)


def _count_layers(source: Mapping[str, Tensor], tower: str) -> int:
    pattern = re.compile(rf"{tower}\.transformer\.resblocks\.(\d+)\.")
    return 1 + max((int(found[1]) for name in source if (found := pattern.match(name))), default=-1)


def _ids(ids: Sequence[Sequence[int]] | Tensor | None) -> list[list[int]] | None:
    return None if ids is None else [[int(token) for token in row] for row in ids]


def _heads(tower: str, width: int, given: int | None) -> int:
    """Attention heads of a tower; every published CLIP has one for each 64 columns."""
    heads = given or (width // 64 if width % 64 == 0 else 0)
    if not heads or width % heads:
        raise GRMPError(
            f"Expected the number of attention heads of the {tower} tower, whose {width} columns it divides, got "
            f"{given or 'none'}. Give that of the checkpoint: --{tower}-heads N, or {tower}_heads=N."
        )
    return heads


def _clip_config(
    source: Mapping[str, Tensor],
    layers: Mapping[str, int],
    vision_heads: int | None,
    text_heads: int | None,
    quality_ids: list[list[int]] | None,
) -> CLIPConfig:
    patches, patch = source["image_encoder.conv1.weight"], source["image_encoder.conv1.weight"].shape[-1]
    vocabulary, text_width = source["text_encoder.token_embedding.weight"].shape
    side = round((len(source["image_encoder.positional_embedding"]) - 1) ** 0.5)
    end = vocabulary - 1 if quality_ids is None else max(map(max, quality_ids))
    joint = source["text_encoder.text_projection"].shape[1]
    first = "{}.transformer.resblocks.0.mlp.c_fc.weight"
    vision = {
        "hidden_size": len(patches),
        "intermediate_size": len(source[first.format("image_encoder")]),
        "num_hidden_layers": layers["image_encoder"],
        "num_attention_heads": _heads("vision", len(patches), vision_heads),
        "patch_size": patch,
        "image_size": side * patch,
    }
    text = {
        "vocab_size": vocabulary,
        "hidden_size": text_width,
        "intermediate_size": len(source[first.format("text_encoder")]),
        "num_hidden_layers": layers["text_encoder"],
        "num_attention_heads": _heads("text", text_width, text_heads),
        "max_position_embeddings": len(source["text_encoder.positional_embedding"]),
        "eos_token_id": end,
        "bos_token_id": end - 1,
        "pad_token_id": end,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=joint)


def _redundant(source: Mapping[str, Tensor], config: GRMPConfig) -> dict[str, Tensor]:
    """What ``token_prefix`` and ``token_suffix`` must be; rows beyond an anchor's end are padding, not compared."""
    count = len(source["prompt_learner2.ctx"])
    length = config.clip_config.text_config.max_position_embeddings
    ids = torch.tensor([[*row, *[0] * (length - len(row))][:length] for row in config.quality_input_ids])
    embeds = source["text_encoder.token_embedding.weight"][ids]
    return dict(zip(_REDUNDANT, (embeds[:, :1], embeds[:, 1 + count :]), strict=True))


def _check_redundant(source: Mapping[str, Tensor], config: GRMPConfig) -> None:
    ends = [len(row) if 0 not in row else row.index(max(row)) + 1 for row in config.quality_input_ids]
    for name, expected in _redundant(source, config).items():
        offset = 0 if name.endswith("prefix") else 1 + len(source["prompt_learner2.ctx"])
        for row, end in enumerate(ends):
            kept = slice(0, max(end - offset, 0))
            if not torch.equal(source[name][row, kept], expected[row, kept].to(source[name].dtype)):
                raise GRMPError(
                    f"Expected {name} to be rows of the token embedding at the quality anchors' ids, got other values "
                    f"for anchor {row}. Give from_authors_state_dict the quality_input_ids and placeholder_token_id of "
                    "the checkpoint; the command line knows CLIP's own alone."
                )
