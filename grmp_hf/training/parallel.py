"""Quality, category and comparison learnt side by side, after LPF: the objective, and what a category is.

Letters in shapes: B pictures of a batch, n rated pictures, K categories, A values of an axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.pairwise import better_labels
from grmp_hf.training.objectives import Batch, Forward, Objective, Term, refuse_across, shown

__all__ = ["BINS", "NO_CATEGORY", "categories", "in_parallel", "partners"]

BINS = 5
"""Categories of ratings, where nobody says which distortion pictures show."""

NO_CATEGORY = -1


def categories(quality: Tensor, distortion: Tensor | None = None, bins: int = BINS) -> tuple[Tensor, int]:
    """What the category head learns of rated pictures: the distortion where it is known, else how high the rating is.

    Args:
        quality: ``(n,)``.
        distortion: ``(n, A)`` of :func:`~grmp_hf.data.axis_labels.axis_labels`, one 1 in the row of a picture and zeros
            where nobody says what it shows; None, or zeros alone, for ``bins`` of equally many pictures.
        bins: at least 2; equal ratings stay together, so that there may be fewer.

    Returns:
        ``(n,)`` from 0, :data:`NO_CATEGORY` where nobody knows it, and K.

    Raises:
        GRMPError: labels of distortions that are not one for each picture, or fewer than two bins.

    Source: our reading of LPF (arXiv 2402.12043), which leaves open what a category of authentic pictures is.

    >>> categories(torch.tensor([0.1, 0.5, 0.9, 0.2, 0.3]), bins=2)
    (tensor([0, 1, 1, 0, 1]), 2)
    """
    if distortion is not None and bool(distortion.any()):
        if distortion.shape[:-1] != quality.shape or bool((distortion.sum(-1) > 1).any()):
            raise GRMPError(
                f"Expected one distortion or none of each of {len(quality)} pictures, got labels of shape "
                f"{tuple(distortion.shape)}. Make them with grmp_hf.data.axis_labels.axis_labels."
            )
        return torch.where(distortion.any(-1), distortion.argmax(-1), NO_CATEGORY), distortion.shape[-1]
    if bins < 2:
        raise GRMPError(f"Expected at least 2 bins of ratings, got {bins}. Ask for more, or leave the category out.")
    ordered = quality.sort().values
    edges = torch.unique(torch.stack([ordered[len(ordered) * part // bins] for part in range(1, bins)]))
    edges = edges[edges > ordered[0]]  # below which there is somebody
    return torch.bucketize(quality, edges, right=True), len(edges) + 1


def partners(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Both pictures of a pair for each picture that is not alone in its group: itself, and the next one of the group.

    After the last comes the first. A plan has shuffled the groups, so that partners differ from epoch to epoch.

    >>> partners(torch.tensor([0, 0, 1, 0]))
    (tensor([0, 1, 3]), tensor([1, 3, 0]))
    """
    members = [(groups == group).nonzero(as_tuple=True)[0] for group in torch.unique(groups)]
    first = [part for part in members if len(part) > 1]
    if not first:
        return groups.new_zeros(0, dtype=torch.long), groups.new_zeros(0, dtype=torch.long)
    return torch.cat(first), torch.cat([part.roll(-1) for part in first])


def in_parallel(*, category: bool = True, comparison: bool = True) -> Objective:
    """What a head of two streams learns at once, from one forward pass:

    - channel ``"quality"``: the mean absolute error of the quality, weighted by ``certainty`` where the batch has it;
    - channel ``"category"``: the cross-entropy of the batch's column ``category`` ``(B,)``; pictures of
      :data:`NO_CATEGORY` count nothing;
    - channel ``"comparison"``: the binary cross-entropy of "i is better" for each picture i and its partner in the
      group; .5 is told of equal ratings, and soft labels where the batch has ``mos_std``.

    Several channels need a rule, such as :func:`~grmp_hf.training.rules.summed` with a weight of each.

    Args:
        category, comparison: which of the two others there are; see
            :meth:`~grmp_hf.modeling.two_stream.TwoStreamHead.beside`.

    Raises:
        GRMPError: when the objective is asked: a head without the auxiliary heads, a batch without categories, or a
            group with pictures of several data sets.

    Source: after LPF (arXiv 2402.12043); pairs, categories and weights are our reading.
    """

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        output, labels, certainty = student(shown(batch)), batch["labels"].flatten(), batch.get("certainty")
        errors = (output.quality - labels.to(output.quality)).abs()
        errors = errors if certainty is None else errors * certainty.to(errors)
        found = {"quality": Term(errors.mean(), len(labels))}
        if category:
            found["category"] = _category(_said(output, "category_logits"), batch)
        if comparison:
            found["comparison"] = _comparison(_said(output, "better_logits"), labels, batch)
        return found

    return terms


def _said(output: object, name: str) -> Tensor:
    found: Tensor | None = getattr(output, name, None)
    if found is None:
        raise GRMPError(
            f"Expected {name} of a model in training, got none. Train a TwoStreamHead within its context beside(...)."
        )
    return found


def _category(logits: Tensor, batch: Batch) -> Term:
    told = batch.get("category")
    if told is None:
        raise GRMPError(
            "Expected a column category, got none. Make it with grmp_hf.training.parallel.categories, or take "
            "in_parallel(category=False)."
        )
    losses = F.cross_entropy(logits, told.flatten(), ignore_index=NO_CATEGORY, reduction="sum")
    known = int((told != NO_CATEGORY).sum())
    return Term(losses / max(known, 1), known)


def _comparison(logits: Tensor, labels: Tensor, batch: Batch) -> Term:
    first, second = partners(batch["groups"])
    refuse_across(batch, first, second)
    stds = batch.get("mos_std")
    known = (None, None) if stds is None else (stds[first], stds[second])
    better = better_labels(labels[first], labels[second], *known)
    said = logits[first, second]
    losses = F.binary_cross_entropy_with_logits(said, better.to(said), reduction="sum")
    return Term(losses / max(len(first), 1), len(first))
