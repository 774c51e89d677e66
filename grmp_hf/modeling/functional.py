"""From embeddings to quality, and the two losses: pure functions on tensors.

Letters in shapes: B pictures, V views of a picture, A quality anchors, S semantic anchors, D joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from grmp_hf.errors import GRMPError

__all__ = [
    "anchor_logits",
    "axis_logits",
    "count_tiles",
    "expected_quality",
    "join_tiles",
    "plcc_loss",
    "pool_views",
    "quality_cross_entropy",
    "quality_loss",
    "semantic_cross_entropy",
    "soft_labels",
    "unit_length",
]


def unit_length(features: Tensor) -> Tensor:
    """Scale features ``(..., D)`` to length 1, in at least single precision."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    norm: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / norm


def pool_views(embeds: Tensor, weights: Tensor) -> Tensor:
    """Average the unit embeddings of the views of each picture.

    Logits are linear in the embedding, so the logits of this average are the weighted average of the views' logits.

    Args:
        embeds: ``(B, V, D)``, each of length 1.
        weights: ``(V,)``, non-negative, summing to 1.

    Returns:
        ``(B, D)``, of length at most 1.
    """
    return (embeds * weights.to(embeds).unsqueeze(-1)).sum(1)


def count_tiles(side_size: int, size: int) -> int:
    """Views of ``size`` pixels that hold as many pixels as a square of ``side_size``.

    >>> count_tiles(320, 224), count_tiles(32, 16)
    (3, 4)
    """
    return -(-(side_size**2) // size**2)


def join_tiles(tiles: Tensor, side_size: int) -> Tensor:
    """The square ``(B, 3, P, P)`` whose pixels, in their order, fill views ``(B, T, 3, S, S)`` but for an end."""
    pixels = tiles.transpose(1, 2).flatten(2)
    return pixels[..., : side_size**2].reshape(len(tiles), 3, side_size, side_size)


def anchor_logits(image_embeds: Tensor, anchor_embeds: Tensor, logit_scale: Tensor) -> Tensor:
    """``exp(logit_scale) * image_embeds @ anchor_embeds.T``.

    Args:
        image_embeds: ``(B, D)``.
        anchor_embeds: ``(A, D)``, each of length 1.
        logit_scale: scalar, the logarithm of the scale, as CLIP stores it.

    Returns:
        ``(B, A)`` in the wider of the two inputs' types, under autocast too: a scale of 100 leaves half precision
        with steps of 0.1.
    """
    dtype = torch.promote_types(image_embeds.dtype, anchor_embeds.dtype)
    with torch.autocast(image_embeds.device.type, enabled=False):
        return logit_scale.exp().to(dtype) * image_embeds.to(dtype) @ anchor_embeds.to(dtype).T


def axis_logits(logits: Tensor, axes: Mapping[str, int]) -> dict[str, Tensor]:
    """Logits of each axis of anchors that stand for combinations, such as of a level, a scene and a distortion.

    Their softmax is the marginal of the softmax over all combinations; of a single axis they are ``logits`` themselves.

    Args:
        logits: ``(B, A)``, the combinations in the order of :func:`itertools.product`: the last axis changes fastest.
        axes: name -> number of its values; their product is A.

    Returns:
        Name -> ``(B, number of its values)``.

    >>> found = axis_logits(torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]), {"level": 2, "scene": 3})
    >>> [list(logits.shape) for logits in found.values()]
    [[1, 2], [1, 3]]
    """
    if len(axes) == 1:
        return dict.fromkeys(axes, logits)
    joint, places = logits.view(*logits.shape[:-1], *axes.values()), range(1, len(axes) + 1)
    return {name: joint.logsumexp([p for p in places if p != at]) for at, name in enumerate(axes, start=1)}


def expected_quality(logits: Tensor, levels: Sequence[float]) -> Tensor:
    """Quality as the mean level of the anchors under ``softmax(logits)``.

    With the two default anchors at levels 1 and 0 this is the probability of "high quality", the score of the
    reference's ``test``.

    Args:
        logits: ``(B, A)``.
        levels: the quality in [0, 1] that each anchor stands for.

    Returns:
        ``(B,)`` in [0, 1].

    >>> expected_quality(torch.tensor([[0.0, 0.0]]), [1.0, 0.0]).item()
    0.5
    """
    return (logits.softmax(-1) * logits.new_tensor(levels)).sum(-1)


def soft_labels(quality: Tensor, levels: Sequence[float]) -> Tensor:
    """Spread a quality over the two anchors whose levels enclose it, so that their mean level is the quality again.

    Args:
        quality: ``(B,)`` in [0, 1].
        levels: as in :func:`expected_quality`; distinct, the smallest 0 and the largest 1.

    Returns:
        ``(B, A)``, rows summing to 1. With levels 1 and 0: ``[y, 1 - y]``.

    >>> soft_labels(torch.tensor([0.75, 0.25]), [1.0, 0.5, 0.0]).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    grid, order = quality.new_tensor(levels).sort()
    upper = torch.searchsorted(grid, quality.contiguous()).clamp(1, len(grid) - 1)
    share = (quality - grid[upper - 1]) / (grid[upper] - grid[upper - 1])
    labels = quality.new_zeros(len(quality), len(grid))
    labels.scatter_(1, order[upper - 1].unsqueeze(1), (1 - share).unsqueeze(1))
    return labels.scatter(1, order[upper].unsqueeze(1), share.unsqueeze(1))


def quality_cross_entropy(
    logits: Tensor, quality: Tensor, levels: Sequence[float], certainty: Tensor | None = None
) -> Tensor:
    """Soft-label cross-entropy ``L_q``: mean over pictures of ``-sum_a soft_label_a log softmax(logits)_a``.

    Log-softmax is used where the reference takes the logarithm of a softmax: equal until that saturates.

    Args:
        logits: ``(B, A)``.
        quality: ``(B,)`` in [0, 1].
        levels: see :func:`soft_labels`.
        certainty: ``(B,)``, a factor of each picture's loss before the mean is taken; None for 1.

    Returns:
        Scalar.
    """
    losses = -(soft_labels(quality.to(logits.dtype), levels) * logits.log_softmax(-1)).sum(-1)
    return losses.mean() if certainty is None else (losses * certainty.to(losses)).mean()


def quality_loss(
    quality: Tensor,
    logits: Tensor | None,
    labels: Tensor,
    levels: Sequence[float],
    certainty: Tensor | None = None,
) -> Tensor:
    """The loss of rated pictures under any head: :func:`quality_cross_entropy` of the levels' logits, or the mean
    squared error of the quality where the head gives none.

    Args:
        quality: ``(B,)`` in [0, 1].
        logits: ``(B, A)``, or None.
        labels: ``(B,)`` or ``(B, 1)``, quality in [0, 1].
        levels: see :func:`soft_labels`.
        certainty: see :func:`quality_cross_entropy`.

    Returns:
        Scalar.

    Raises:
        GRMPError: labels of another shape, or outside [0, 1], such as ratings from 1 to 5, or NaN.
    """
    if not torch.compiler.is_compiling() and labels.shape not in ((len(quality),), (len(quality), 1)):
        raise GRMPError(
            f"Expected labels of shape ({len(quality)},), one for each picture, got {tuple(labels.shape)}. Give each "
            "picture its own."
        )
    if not torch.compiler.is_compiling() and not bool(((labels >= 0) & (labels <= 1)).all()):  # false of NaN too
        raise GRMPError(
            f"Expected labels that are a quality in [0, 1], 1 = best, got {labels.min():g} to {labels.max():g}. Map "
            "ratings with RatingScale.to_quality, or read them with grmp_hf.read_ratings and take their quality."
        )
    if logits is not None:
        return quality_cross_entropy(logits, labels.flatten(), levels, certainty)
    squares = (quality - labels.flatten().to(quality)).square()
    return squares.mean() if certainty is None else (squares * certainty.to(squares)).mean()


def semantic_cross_entropy(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Semantic loss ``L_s = -T^2 mean_b sum_s softmax(teacher / T)_s log softmax(student / T)_s``.

    The reference's ``ProGradLoss`` calls it a KL loss; it is the cross-entropy, whose gradient is the same because the
    teacher is constant.

    Args:
        logits: ``(B, S)`` of the model being trained.
        teacher_logits: ``(B, S)`` of the untouched base; no gradient flows into them.
        temperature: ``T``, greater than 0.

    Returns:
        Scalar.
    """
    teacher = (teacher_logits.detach() / temperature).softmax(-1).to(logits.dtype)
    return F.cross_entropy(logits / temperature, teacher) * temperature**2


def plcc_loss(values: Tensor, labels: Tensor) -> Tensor:
    """How far values are from rising linearly with labels, whatever their mean and spread::

        v, y standardised,   rho = mean(v y),   loss = (mean((v - y)^2) + mean((rho v - y)^2)) / 8

    0 where they are linear in the labels, .5 where they are linear the wrong way round. Values that are all alike are
    linear in nothing: .25.

    Args:
        values, labels: ``(n,)`` of pictures whose labels mean the same.

    Returns:
        Scalar.

    Source: the authors' code of LoDa (arXiv 2308.12001).
    """
    v, y = (_standardised(part.flatten()) for part in (values, labels.to(values)))
    rho = (v * y).mean()
    return ((v - y).square().mean() + (rho * v - y).square().mean()) / 8


def _standardised(values: Tensor) -> Tensor:
    centred = values - values.mean()
    # Bounded below, so that the gradient of values that are all alike is a number.
    return centred / (centred.square().mean().clamp(min=1e-16).sqrt() + 1e-8)
