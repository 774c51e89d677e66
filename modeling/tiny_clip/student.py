"""The student: a small ``CLIPModel``, its whitened-DCT start, a fast forward pass and training-only heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import idctn
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .captions import PLACEHOLDER

PATCH, GRID = 16, 14
SIDE = PATCH * GRID
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# Luminance, red against green, yellow against blue: unit rows on RGB.
COLOUR_AXES = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float64)
RESPONSE_SCALE = 0.5
CONSTANT_CHANNELS = 8
"""Channels that carry 1 instead of a filter, so that the first layer norm keeps each patch's contrast."""


@dataclass(frozen=True)
class Sizes:
    """Shape of the student; the defaults give 4.4 M parameters, 8.7 MB in half precision."""

    width: int = 192
    layers: int = 8
    heads: int = 3
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 2
    projection: int = 128


def build_student(tokenizer: CLIPTokenizer, sizes: Sizes, context_length: int = 16) -> CLIPModel:
    """A randomly initialised ``CLIPModel``; ``gelu`` because it is fused on CPUs and quick_gelu is not."""
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": sizes.text_width,
            "intermediate_size": 4 * sizes.text_width,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_heads,
            "max_position_embeddings": context_length,
            "projection_dim": sizes.projection,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": sizes.width,
            "intermediate_size": 4 * sizes.width,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "projection_dim": sizes.projection,
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_act": "gelu",
        },
        projection_dim=sizes.projection,
        logit_scale_init_value=float(np.log(10.0)),
    )
    # In training shapes plain attention takes half the time of the fused kernel's backward pass on a CPU.
    model: CLIPModel = CLIPModel._from_config(config, attn_implementation="eager")
    return model


def dct_filters(count: int) -> NDArray[np.float32]:
    """``(count, 3, 16, 16)`` products of 2-D DCT waves and colour axes.

    Seven in ten see luminance: the lowest frequencies completely (four in ten of those), the others spread evenly over
    all higher ones. The rest is shared by the two opponent axes, lowest frequencies first.
    """
    order = sorted(np.ndindex(PATCH, PATCH), key=lambda uv: (uv[0] ** 2 + uv[1] ** 2, uv))
    bright = round(0.7 * count)
    low = round(0.4 * bright)
    spread = np.linspace(low, len(order) - 1, bright - low).round().astype(int)
    red_green = (count - bright + 1) // 2
    chosen = [(0, order[index]) for index in [*range(low), *spread]]
    chosen += [(1, order[index]) for index in range(red_green)]
    chosen += [(2, order[index]) for index in range(count - bright - red_green)]
    filters = np.zeros((count, 3, PATCH, PATCH))
    for index, (axis, (u, v)) in enumerate(chosen):
        wave = np.zeros((PATCH, PATCH))
        wave[u, v] = 1
        colour = COLOUR_AXES[axis] / np.linalg.norm(COLOUR_AXES[axis])
        filters[index] = colour[:, None, None] * idctn(wave, norm="ortho")
    return filters.astype(np.float32)


@torch.no_grad()
def start_from_dct(model: CLIPModel, patches: Tensor) -> None:
    """Set the patch convolution to DCT waves whose responses on ``patches`` ``(N, 768) uint8`` have one spread.

    Without this start the high frequencies of a 16-pixel patch are too faint to be learnt in an hour.
    """
    embeddings = model.vision_model.embeddings
    weight = embeddings.patch_embedding.weight
    filters = torch.from_numpy(dct_filters(weight.shape[0] - CONSTANT_CHANNELS))
    spread = (normalise_patches(patches) @ filters.flatten(1).T).std(0)
    weight.zero_()
    weight[CONSTANT_CHANNELS:] = filters * (RESPONSE_SCALE / spread)[:, None, None, None]
    embeddings.position_embedding.weight[1:, :CONSTANT_CHANNELS] = 1.0


def normalise_patches(patches: Tensor) -> Tensor:
    """``(..., 768) uint8``, channels first inside a patch, to CLIP's normalised float32."""
    values = torch.unflatten(patches.float(), -1, (3, PATCH * PATCH))
    mean, std = (torch.tensor(row)[:, None] for row in (IMAGE_MEAN, IMAGE_STD))
    return torch.flatten((values / 255 - mean) / std, -2)


def _weight_for_bytes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Patch weights ``(width, 768)`` and bias that expect bytes minus 128, exact in bfloat16, for normalised pixels."""
    mean, std = (torch.tensor(row).repeat_interleave(PATCH * PATCH) for row in (IMAGE_MEAN, IMAGE_STD))
    return weight / (255 * std), weight @ ((128 / 255 - mean) / std)


def encode_patches(model: CLIPModel, patches: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The vision tower on some patches of each picture.

    Args:
        patches: ``(B, K, 768) uint8``.
        positions: ``(B, K)`` places of the patches on the 14 x 14 grid.

    Returns:
        Pooled states ``(B, width)`` after the last layer norm, and patch states ``(B, K, width)`` before it.
    """
    tower = model.vision_model
    table = tower.embeddings.position_embedding.weight
    weight, bias = _weight_for_bytes(tower.embeddings.patch_embedding.weight.flatten(1))
    states = (patches.bfloat16() - 128) @ weight.T + (bias + table[positions + 1])
    first = (tower.embeddings.class_embedding + table[0]).expand(len(states), 1, -1)
    states = tower.pre_layrnorm(torch.cat([first, states], 1))
    states = tower.encoder(inputs_embeds=states).last_hidden_state
    return tower.post_layernorm(states[:, 0]), states[:, 1:]


def encode_texts(model: CLIPModel, input_ids: Tensor, placeholder_id: int, noise: Tensor | None = None) -> Tensor:
    """Unit-norm text embeddings ``(T, projection)``.

    Args:
        input_ids: ``(T, L)``, padded with the end token.
        noise: ``(placeholders, text width)`` added to the embeddings of the placeholders, in their order in each text;
            it makes the neighbourhood smooth that soft prompts will explore.
    """
    tower = model.text_model
    inputs = tower.embeddings.token_embedding(input_ids)
    if noise is not None:
        holes = input_ids == placeholder_id
        order = (holes.cumsum(1) - 1).clamp(0, len(noise) - 1)
        inputs = inputs + noise[order] * holes[..., None]
    states = tower.embeddings(inputs_embeds=inputs)
    mask = torch.full((states.shape[1],) * 2, -torch.inf).triu(1)[None, None]
    states = tower.encoder(inputs_embeds=states, attention_mask=mask).last_hidden_state
    ends = (input_ids == tower.eos_token_id).int().argmax(1)
    pooled = tower.final_layer_norm(states)[torch.arange(len(states)), ends]
    return nn.functional.normalize(model.text_projection(pooled), dim=-1)


def placeholder_token(tokenizer: CLIPTokenizer) -> int:
    """Id of the one token that ``X`` becomes."""
    ids = tokenizer(PLACEHOLDER, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise ValueError(f"expected {PLACEHOLDER!r} to be one token, got {len(ids)}")
    return int(ids[0])


class Heads(nn.Module):
    """Linear read-outs that exist during training only."""

    def __init__(self, sizes: Sizes, cell_values: int, head_values: int) -> None:
        super().__init__()
        self.patch_norm = nn.LayerNorm(sizes.width)
        self.cells = nn.Linear(sizes.width, cell_values)
        self.window = nn.Linear(sizes.width, 2 * cell_values)
        self.window_from_embedding = nn.Linear(sizes.projection, 2 * cell_values)
        self.head = nn.Linear(sizes.width, head_values)
