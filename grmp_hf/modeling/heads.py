"""Heads: from features of pictures, and from what the texts say of them, to their quality.

Letters in shapes: B pictures, V views of a picture, A quality anchors, S semantic anchors, D joint width, N tokens of a
view, W width of the vision tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from transformers.utils import ModelOutput

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.configuration_grmp import LEVEL
from grmp_hf.modeling.feature_map import Sureness
from grmp_hf.modeling.functional import (
    anchor_logits,
    axis_logits,
    count_tiles,
    expected_quality,
    join_tiles,
    pool_views,
    quality_loss,
    unit_length,
)

__all__ = [
    "AnchorHead",
    "Features",
    "GRMPOutput",
    "Head",
    "Readout",
    "Text",
    "judge",
    "view_features",
    "weights_of",
]


@dataclass
class GRMPOutput(ModelOutput):
    """What the model says of a batch. A head gives ``quality`` at least, the model adds what it was asked for.

    Attributes:
        loss: scalar, where labels were given; see :func:`judge`.
        quality: ``(B,)`` in [0, 1], 1 = best.
        quality_logits: ``(B, levels)``, of heads that tell levels of quality apart.
        semantic_logits: ``(B, S)``, where asked for.
        image_embeds: ``(B, D)``, the weighted mean of the views' unit embeddings.
        axis_logits: by the name of the axis, ``(B, its values)``, of anchors with several axes.
        mean, sigma: ``(B,)``, of heads that place pictures on an open axis, on which values are compared: higher is
            better, and quality rises with it; sigma above 0 is how far a value may be off, where the head says it.
        deviation, degrees, novelty: ``(B,)``, how sure an adapter is that has learnt it; see
            :class:`~grmp_hf.modeling.feature_map.Sureness`.
        side: ``(B, F)``, what the side network says, where asked for.
    """

    loss: Tensor | None = None
    quality: Tensor | None = None
    quality_logits: Tensor | None = None
    semantic_logits: Tensor | None = None
    image_embeds: Tensor | None = None
    axis_logits: dict[str, Tensor] | None = None
    mean: Tensor | None = None
    sigma: Tensor | None = None
    deviation: Tensor | None = None
    degrees: Tensor | None = None
    novelty: Tensor | None = None
    side: Tensor | None = None

    @property
    def logits(self) -> Tensor | None:
        """``quality_logits``, under the name that transformers' tools for classification look for."""
        return self.quality_logits


class Features(NamedTuple):
    """What a head sees of pictures.

    Attributes:
        embeds: ``(B, V, D)``, a unit embedding of each view.
        weights: ``(V,)``, what each view counts, summing to 1.
        tokens: ``(B, V, N, W)``, the vision tower's states after its last norm, the class token first; None where the
            head does not ask for them.
        side: ``(B, F)``, what the base's side network says; None where nobody asks for it.
    """

    embeds: Tensor
    weights: Tensor
    tokens: Tensor | None = None
    side: Tensor | None = None

    def pooled(self) -> Tensor:
        """``(B, D)``, the weighted mean of the views; see :func:`~grmp_hf.modeling.functional.pool_views`."""
        return pool_views(self.embeds, self.weights)


@dataclass(frozen=True)
class Text:
    """What a head sees of the quality anchors; a text tower runs when it is asked for something.

    Attributes:
        embeds: gives the unit embeddings ``(A, D)``.
        logits: maps features to the anchors' logits ``(B, A)``, as the active adapter changes them, and to how sure
            it is of them, where it knows.
        levels: the quality in [0, 1] that each value of the axis ``"level"`` stands for.
        axes: name -> number of values, in the order in which the anchors combine them.
    """

    embeds: Callable[[], Tensor]
    logits: Callable[[Features], tuple[Tensor, Sureness | None]]
    levels: Sequence[float]
    axes: Mapping[str, int]


class Head(nn.Module):
    """From features to quality. One of one's own is set as ``model.head``, before an adapter is put around the model.

    What it learns belongs to the adapter: name ``"head"`` in its ``modules_to_save``.

    Attributes:
        needs_tokens, needs_side: whether ``forward`` reads ``features.tokens`` and ``features.side``.
    """

    needs_tokens = False
    needs_side = False

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        """The quality ``(B,)`` of pictures, in [0, 1], and whatever else the head has to say."""
        raise NotImplementedError(f"{type(self).__name__} says nothing of quality: give it forward(features, text)")

    def settings(self) -> dict[str, Any]:
        """The arguments, as JSON takes them, with which the head is made anew."""
        return {}


class AnchorHead(Head):
    """Quality as the mean level of the anchors that a picture is close to; without parameters of its own.

    Anchors that combine several axes, such as level, scene and distortion, give quality from the marginal of the level,
    and logits of every axis.
    """

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        """Logits of the pooled views, and quality from those of the level."""
        logits, sure = text.logits(features)
        by_axis = axis_logits(logits, text.axes)
        return GRMPOutput(
            quality=expected_quality(by_axis[LEVEL], text.levels),
            quality_logits=by_axis[LEVEL],
            axis_logits=by_axis if len(by_axis) > 1 else None,
            **({} if sure is None else sure._asdict()),
        )


class Readout(nn.Module):
    """Quality logits from features; without parameters, so that an adapter can be put around it."""

    needs_side = False

    def forward(self, features: Features, anchor_embeds: Tensor, logit_scale: Tensor) -> tuple[Tensor, Sureness | None]:
        """Features, ``(A, D)`` and a scalar to ``(B, A)``; see :func:`~grmp_hf.modeling.functional.anchor_logits`."""
        return anchor_logits(features.pooled(), anchor_embeds, logit_scale), None


def judge(
    head: nn.Module,
    features: Features,
    text: Text,
    labels: Tensor | None,
    semantic: Callable[[Tensor], Tensor] | None,
    *,
    output_side: bool = False,
) -> GRMPOutput:
    """All that a model says of features.

    Args:
        head: gives the quality.
        features, text: what it sees.
        labels: ``(B,)`` or ``(B, 1)`` in [0, 1], for the loss; see
            :func:`~grmp_hf.modeling.functional.quality_loss`.
        semantic: maps ``(B, D)`` to the scene logits ``(B, S)``; None where they are not asked for.
        output_side: also give ``features.side``.

    Raises:
        GRMPError: labels outside [0, 1], or a head that needs more than was given.
    """
    if getattr(head, "needs_tokens", False) and features.tokens is None:
        raise GRMPError(
            "Expected pixel_values or tokens, got image_embeds: this head reads the tokens of the vision tower."
        )
    found, pooled = head(features, text), features.pooled()
    more = {"image_embeds": pooled, "semantic_logits": None if semantic is None else semantic(pooled)}
    if output_side:
        more["side"] = features.side
    if labels is not None:
        more["loss"] = quality_loss(cast(Tensor, found.quality), found.quality_logits, labels, text.levels)
    return type(found)(**{**found, **more})  # type: ignore[no-any-return]


def view_features(
    pixel_values: Tensor,
    view_weights: Sequence[float] | None,
    embed: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    side: Callable[[Tensor], Tensor] | None = None,
    side_size: int | None = None,
) -> Features:
    """Embed pictures of one or several views.

    Args:
        pixel_values: ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``; the last views may hold the picture of a side network.
        view_weights: see :func:`weights_of`.
        embed: maps ``(M, 3, H, W)`` to embeddings ``(M, D)`` and, where asked for, tokens ``(M, N, W)``.
        side: maps the picture of a side network, ``(B, 3, P, P)``, to its features ``(B, F)``; None where nobody asks
            for them.
        side_size: P; None where no views hold such a picture.

    Raises:
        GRMPError: another number of dimensions, whole numbers, more views than there are weights, or no picture for a
            side network.
    """
    if pixel_values.ndim not in (4, 5):
        raise GRMPError(
            "Expected pixel_values of shape (batch, 3, height, width) or (batch, views, 3, height, width), got "
            f"{tuple(pixel_values.shape)}. Use the model's GRMPImageProcessor."
        )
    if not pixel_values.is_floating_point():
        raise GRMPError(
            f"Expected pixel_values that are normalised, got {str(pixel_values.dtype).removeprefix('torch.')}. Use the "
            "model's GRMPImageProcessor, or Scorer.prepare for its views."
        )
    if pixel_values.ndim == 4:
        pixel_values, view_weights = pixel_values.unsqueeze(1), None
    tiles = None
    if side_size is not None and view_weights is not None:
        held = count_tiles(side_size, pixel_values.shape[-1])
        if pixel_values.shape[1] == len(view_weights) + held:
            pixel_values, tiles = pixel_values[:, :-held], pixel_values[:, -held:]
    if side is not None and tiles is None:
        raise GRMPError(
            "Expected the views of a side network, the last ones of a picture, which are read here, got none. Use the "
            "processor of the scorer that grmp_hf.load gives."
        )
    shape = pixel_values.shape[:2]
    weights = weights_of(shape[1], view_weights)
    embeds, tokens = embed(pixel_values.flatten(0, 1))
    embeds = unit_length(embeds).view(*shape, -1)
    return Features(
        embeds,
        embeds.new_tensor(weights),
        None if tokens is None else tokens.view(*shape, *tokens.shape[1:]),
        None if side is None or tiles is None or side_size is None else side(join_tiles(tiles, side_size)),
    )


def weights_of(views: int, view_weights: Sequence[float] | None) -> list[float]:
    """What each of some views counts.

    Args:
        views: V.
        view_weights: weights summing to 1, one for each view; of fewer views, the first weights divided by their sum;
            None for equal ones.

    Raises:
        GRMPError: more views than there are weights.
    """
    if view_weights is None:
        return [1 / views] * views
    if len(view_weights) < views:
        raise GRMPError(
            f"Expected at most {len(view_weights)} views of each picture, one for each of the model's view_weights, "
            f"got {views}. Use the image processor saved with the model, or change view_weights in its config."
        )
    weights = list(view_weights[:views])
    if views == len(view_weights):
        return weights
    total = sum(weights)
    return [weight / total if total else 1 / views for weight in weights]
