"""Soft prompts as plain modules: learned text tokens, and deep visual prompts that only ever are keys and values.

Letters in shapes: A anchors, N tokens of a text or patches of a picture (with the class token), T text prompts,
M visual prompts of a layer, L prompted layers, D width of the tower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoder, eager_attention_forward

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.feature_map import FeatureMap, Sureness
from grmp_hf.modeling.functional import unit_length
from grmp_hf.modeling.heads import Features

__all__ = [
    "KeysValues",
    "PromptedAttention",
    "ReadoutPrompts",
    "TextPrompts",
    "VisualPrompts",
    "expand_placeholders",
    "prompt_attention",
    "run_prompted_encoder",
    "unprompt_attention",
]


def expand_placeholders(ids: Sequence[int], placeholder: int, count: int) -> list[int]:
    """Give a text ``count`` placeholders in the place of the ones it has; a text without any stays as it is.

    >>> expand_placeholders([1, 7, 7, 5, 2], placeholder=7, count=3)
    [1, 7, 7, 7, 5, 2]

    Raises:
        GRMPError: the placeholders do not stand side by side.
    """
    ids, found = list(ids), list(ids).count(placeholder)
    if not found:
        return ids
    start = ids.index(placeholder)
    if ids[start : start + found] != [placeholder] * found:
        raise GRMPError(f"Expected the placeholder {placeholder} in one run, got ids {ids}. Keep the X side by side.")
    return ids[:start] + [placeholder] * count + ids[start + found :]


class TextPrompts(nn.Module):
    """Learned context tokens, shared by all quality anchors (the reference's ``ctx``).

    Args:
        count: T, number of tokens.
        width: D of the text tower.
        start: ``(D,)``, the value that each of them starts from; None for random ones.
        init_std: random ones start from ``N(0, init_std^2)``, as in the reference.
    """

    def __init__(self, count: int, width: int, *, start: Tensor | None = None, init_std: float = 0.02) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.empty(count, width).normal_(std=init_std))
        if start is not None:
            self.context.data.copy_(start.detach())

    def forward(self, embeds: Tensor, placeholders: Tensor) -> Tensor:
        """Put the k-th context token in the place of the k-th placeholder of each text.

        Args:
            embeds: ``(A, N, D)`` token embeddings, before positions are added.
            placeholders: ``(A, N)`` boolean, T true in each row that has any.

        Returns:
            ``(A, N, D)`` in the type of ``embeds``.
        """
        order = (placeholders.cumsum(1) - 1).clamp(min=0, max=len(self.context) - 1)
        return torch.where(placeholders.unsqueeze(-1), self.context.to(embeds.dtype)[order], embeds)


class ReadoutPrompts(nn.Module):
    """Learned shifts of the quality anchors in the joint space, and a calibration or a feature map of their logits::

        anchors' = unit(anchors + residual),   logits' = exp(log_scale) logits + offset

    With two anchors the calibration changes no ranking: it lets ratings whose mean or spread is not the base's be met
    without bending the prompts. All start at 0, where nothing changes. The scale is a buffer: it is set before training
    and not trained, since a free scale takes over the work of the residuals (docs/decisions.md).

    Args:
        anchors: A.
        width: D of the joint space.
        residuals: learn the shifts.
        calibrate: learn the calibration.
        features: groups that a :class:`~grmp_hf.modeling.feature_map.FeatureMap` sees; None for no map.
        levels: of the anchors, one each.

    Source: the residuals are those of "Task Residual for Tuning Vision-Language Models" (CVPR 2023).
    """

    def __init__(
        self,
        anchors: int,
        width: int,
        *,
        residuals: bool,
        calibrate: bool,
        features: Mapping[str, int] | None = None,
        levels: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.map = None if features is None else FeatureMap(features, levels)
        self.residual = nn.Parameter(torch.zeros(anchors, width)) if residuals else None
        self.register_buffer("log_scale", torch.zeros(()) if calibrate else None)
        self.offset = nn.Parameter(torch.zeros(anchors)) if calibrate else None

    log_scale: Tensor | None

    def shift(self, anchor_embeds: Tensor) -> Tensor:
        """Shifted anchors ``(A, D)`` of length 1."""
        return anchor_embeds if self.residual is None else unit_length(anchor_embeds + self.residual.to(anchor_embeds))

    def calibrate(self, logits: Tensor) -> Tensor:
        """Calibrated logits ``(B, A)``."""
        if self.log_scale is None or self.offset is None:
            return logits
        return self.log_scale.exp().to(logits) * logits + self.offset.to(logits)

    def read(self, logits: Tensor, features: Features) -> tuple[Tensor, Sureness | None]:
        """Logits ``(B, A)`` of the shifted anchors as they come out, and how sure they are where there is a map."""
        calibrated = self.calibrate(logits)
        return (calibrated, None) if self.map is None else self.map(calibrated, features)


class KeysValues(NamedTuple):
    """What the prompts of one layer add to its attention: both ``(1, M, D)``, or ``(B, M, D)`` under dropout."""

    keys: Tensor
    values: Tensor


class VisualPrompts(nn.Module):
    """Deep visual prompts with one projection and one norm for all layers.

    Layer i attends over its own keys and the prompts' as well::

        p_i = dropout(W_p e_i + b_p)
        K = [K(x); W_k LN1(p_i)],   V = [V(x); W_v LN1(p_i)]

    and ``norm`` is applied to the output of the last layer. The reference inserts ``p_i`` after the class token and
    throws their output rows away before the next layer, which gives the same class and patch states (attention has no
    order) for 28 % more work.

    Args:
        layers: L, the first layers of the tower that get prompts, at least 1.
        count: M, prompts of each layer.
        width: D of the vision tower.
        patch_size: of the vision tower; sets the range of the initial values as in the reference.
        dropout: share of the projected values dropped while training, drawn for each picture and layer.

    Source: the reference's prompted ``VisionTransformer`` (``prompt_embeddings``, ``deep_prompt_embeddings``,
    ``prompt_proj``, ``prompt_norm``).
    """

    def __init__(self, layers: int, count: int, width: int, *, patch_size: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * patch_size**2 + width))
        self.first = nn.Parameter(torch.empty(count, width).uniform_(-bound, bound))
        self.deep = nn.Parameter(torch.empty(layers - 1, count, width).uniform_(-bound, bound))
        self.projection = nn.Linear(width, width)
        nn.init.normal_(self.projection.weight, std=math.sqrt(2 / width))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    @property
    def is_random(self) -> bool:
        """Whether the keys and values differ from call to call."""
        return self.training and self.dropout.p > 0

    def keys_values(self, encoder: CLIPEncoder, batch_size: int) -> list[KeysValues]:
        """Keys and values of every prompted layer.

        Args:
            encoder: the vision tower's encoder, whose LayerNorm and projections make them.
            batch_size: number of pictures; each gets a dropout mask of its own while training.

        Returns:
            L pairs. ``(batch_size, M, D)`` each under dropout, else ``(1, M, D)``.
        """
        # Row by row, so that layer i's projection is rounded alike for any number of layers.
        return [self._layer(embeds, encoder.layers[i], batch_size) for i, embeds in enumerate([self.first, *self.deep])]

    def _layer(self, embeds: Tensor, layer: Any, batch_size: int) -> KeysValues:
        attention = layer.self_attn
        prompts = self.projection(embeds.to(self.projection.weight.dtype)).unsqueeze(0)
        if self.is_random:
            prompts = self.dropout(prompts.expand(batch_size, -1, -1))
        normed = layer.layer_norm1(prompts.to(layer.layer_norm1.weight.dtype))
        return KeysValues(attention.k_proj(normed), attention.v_proj(normed))


class PromptedAttention(CLIPAttention):
    """CLIP's attention that also accepts the prompts' keys and values.

    It is put over an existing ``CLIPAttention`` by :func:`prompt_attention` and shares all of its state, so parameter
    names, hooks and the choice of the attention kernel stay as they were. Without prompts it is that attention.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        prompts: KeysValues | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over ``hidden_states`` ``(B, N, D)`` and the M prompts.

        Returns:
            ``(B, N, D)``, and the ``(B, heads, N, N + M)`` weights where the kernel gives them.
        """
        if prompts is None:
            return super().forward(hidden_states, attention_mask, **kwargs)  # type: ignore[no-any-return]
        batch, tokens, width = hidden_states.shape
        queries = self._heads(self.q_proj(hidden_states))
        keys = self._heads(_append(self.k_proj(hidden_states), prompts.keys))
        values = self._heads(_append(self.v_proj(hidden_states), prompts.values))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout if self.training else 0.0
        attended, weights = attend(
            self, queries, keys, values, attention_mask, scaling=self.scale, dropout=dropout, **kwargs
        )
        return self.out_proj(attended.reshape(batch, tokens, width)), weights

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)


def _append(states: Tensor, prompts: Tensor) -> Tensor:
    return torch.cat([states, prompts.to(states.dtype).expand(states.shape[0], -1, -1)], dim=1)


def prompt_attention(encoder: CLIPEncoder) -> None:
    """Let every attention of an encoder accept prompts, in place."""
    _retype(encoder, CLIPAttention, PromptedAttention)


def unprompt_attention(encoder: CLIPEncoder) -> None:
    """Undo :func:`prompt_attention`, in place."""
    _retype(encoder, PromptedAttention, CLIPAttention)


def _retype(encoder: CLIPEncoder, old: type[CLIPAttention], new: type[CLIPAttention]) -> None:
    for module in encoder.modules():
        if type(module) is old:
            module.__class__ = new


def run_prompted_encoder(
    encoder: CLIPEncoder, inputs_embeds: Tensor, prompts: Sequence[KeysValues], norm: nn.LayerNorm, **kwargs: Any
) -> BaseModelOutput:
    """Run a vision encoder whose first ``len(prompts)`` layers attend over prompts as well.

    Args:
        encoder: prepared by :func:`prompt_attention`.
        inputs_embeds: ``(B, N, D)``.
        prompts: keys and values of the prompted layers.
        norm: applied to the last state (the prompt norm).

    Returns:
        ``last_hidden_state`` of shape ``(B, N, D)``: no row of a prompt is in it.
    """
    hidden_states = inputs_embeds
    for index, layer in enumerate(encoder.layers):
        prompt = prompts[index] if index < len(prompts) else None
        hidden_states = layer(hidden_states, None, prompts=prompt, **kwargs)
    normed = norm(hidden_states.to(norm.weight.dtype))
    return BaseModelOutput(last_hidden_state=normed.to(hidden_states.dtype))
