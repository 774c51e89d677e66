"""From embeddings of pictures to their quality.

Letters in shapes: B pictures, V views of a picture, A quality anchors, S semantic anchors, D joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import (
    anchor_logits,
    expected_quality,
    pool_views,
    quality_cross_entropy,
    unit_length,
)

__all__ = ["GRMPOutput", "Readout", "assemble_output", "pool_pictures"]


@dataclass
class GRMPOutput(ModelOutput):
    """What the model says of a batch.

    Attributes:
        loss: scalar soft-label cross-entropy, where labels were given.
        quality: ``(B,)`` in [0, 1], 1 = best.
        quality_logits: ``(B, A)``.
        semantic_logits: ``(B, S)``, where asked for.
        image_embeds: ``(B, D)``, the weighted mean of the views' unit embeddings.
    """

    loss: Tensor | None = None
    quality: Tensor | None = None
    quality_logits: Tensor | None = None
    semantic_logits: Tensor | None = None
    image_embeds: Tensor | None = None

    @property
    def logits(self) -> Tensor | None:
        """``quality_logits``, under the name that transformers' tools for classification look for."""
        return self.quality_logits


class Readout(nn.Module):
    """Quality logits from embeddings; without parameters, so that an adapter can be put around it."""

    def forward(self, image_embeds: Tensor, anchor_embeds: Tensor, logit_scale: Tensor) -> Tensor:
        """``(B, D)``, ``(A, D)`` and a scalar to ``(B, A)``; see :func:`~grmp_hf.modeling.functional.anchor_logits`."""
        return anchor_logits(image_embeds, anchor_embeds, logit_scale)


def assemble_output(
    image_embeds: Tensor, logits: Tensor, semantic: Tensor | None, labels: Tensor | None, levels: Sequence[float]
) -> GRMPOutput:
    """What follows from quality logits ``(B, A)``: quality, and the loss where there are labels ``(B,)``."""
    if labels is not None and not torch.compiler.is_compiling():
        _check_labels(labels)
    return GRMPOutput(
        loss=None if labels is None else quality_cross_entropy(logits, labels.flatten(), levels),
        quality=expected_quality(logits, levels),
        quality_logits=logits,
        semantic_logits=semantic,
        image_embeds=image_embeds,
    )


def _check_labels(labels: Tensor) -> None:
    if not bool(((labels >= 0) & (labels <= 1)).all()):  # false of NaN too
        raise GRMPError(
            f"Expected labels that are a quality in [0, 1], 1 = best, got {labels.min():g} to {labels.max():g}. Map "
            "ratings with RatingScale.to_quality, or read them with grmp_hf.read_ratings and take their quality."
        )


def pool_pictures(pixel_values: Tensor, view_weights: Sequence[float] | None, embed: Any) -> Tensor:
    """Embed pictures of one or several views.

    Args:
        pixel_values: ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``.
        view_weights: weights summing to 1, one for each view; of fewer views, the first weights divided by their sum;
            None for equal ones.
        embed: maps ``(N, 3, H, W)`` to ``(N, D)``.

    Returns:
        ``(B, D)``; see :func:`~grmp_hf.modeling.functional.pool_views`.

    Raises:
        GRMPError: another number of dimensions, or more views than there are weights.
    """
    if pixel_values.ndim == 4:
        return unit_length(embed(pixel_values))
    if pixel_values.ndim != 5:
        raise GRMPError(
            "Expected pixel_values of shape (batch, 3, height, width) or (batch, views, 3, height, width), got "
            f"{tuple(pixel_values.shape)}. Use the model's GRMPImageProcessor."
        )
    batch, views = pixel_values.shape[:2]
    weights = [1 / views] * views if view_weights is None else list(view_weights[:views])
    if len(weights) < views:
        raise GRMPError(
            f"Expected at most {len(weights)} views of each picture, one for each of the model's view_weights, got "
            f"{views}. "
            "Use the image processor saved with the model, or change view_weights in its config."
        )
    if view_weights is not None and views < len(view_weights):
        total = sum(weights)
        weights = [weight / total if total else 1 / views for weight in weights]
    embeds = unit_length(embed(pixel_values.flatten(0, 1))).view(batch, views, -1)
    return pool_views(embeds, embeds.new_tensor(weights))
