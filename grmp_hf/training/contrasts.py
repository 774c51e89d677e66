"""Objectives that need no ratings: versions of one photograph, and groups of good and bad photographs (after GRepQ).

Letters in shapes: B pictures, F families, N versions of a photograph, S side.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.contrastive import TEMPERATURE, group_contrast, similarity_weights, version_contrast
from grmp_hf.training.objectives import Batch, Forward, Objective, Term, members, shown

__all__ = ["SHARE", "RankedBy", "group_contrasts", "version_contrasts"]

SHARE = 32
"""One picture in so many of a group is among its best, and one among its worst, in the paper."""

RankedBy = Literal["labels", "teacher", "student"]
"""Whose quality ranks pictures: what ``batch["labels"]`` says of it, what the base without adapter says of what is
shown, or what the model says as it is at that step."""


def version_contrasts(temperature: float = TEMPERATURE, *, outside: bool = False) -> Objective:
    """The loss of two views of versions of photographs, as channel ``"contrast"``: a mean over families.

    A row of the batch is a family: ``pixel_values`` ``(F, 2, N, 3, S, S)`` and ``similarity`` ``(F, N, N)`` in [0, 1].
    The model's output has ``projected`` ``(F, 2, N, d)``.

    Args:
        temperature, outside: see :func:`~grmp_hf.modeling.contrastive.version_contrast`.
    """
    _check(temperature)

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        first, second = student({"pixel_values": batch["pixel_values"]}).projected.unbind(1)
        weights = similarity_weights(batch["similarity"])
        losses = version_contrast(first, second, weights, temperature, outside=outside)
        return {"contrast": Term(losses.mean(), len(losses))}

    return terms


def group_contrasts(
    *, share: int = SHARE, temperature: float = TEMPERATURE, ranked_by: RankedBy = "labels"
) -> Objective:
    """The loss of the best against the worst pictures of each group, as channel ``"contrast"``: a mean over groups.

    A plan such as :func:`~grmp_hf.training.sampling.within` makes the groups (the paper's one group is the batch),
    and no process cuts one. Of n pictures, n / share, at least 2, are the best and as many the worst; a group of fewer
    than four counts nothing. Contrasted is what the head has ``projected``, or the embedding where it projects nothing.
    Unless the model itself ranks them, it is shown these alone, a sixteenth of the pictures with the paper's share.

    Args:
        share: at least 2.
        temperature: see :func:`~grmp_hf.modeling.contrastive.group_contrast`.
        ranked_by: see :data:`RankedBy`.

    Raises:
        GRMPError: a share or a temperature that cannot be, or somebody else to rank by.

    Source: GRepQ (arXiv 2312.04838).
    """
    _check(temperature)
    if share < 2 or ranked_by not in get_args(RankedBy):
        raise GRMPError(
            f"Expected a share of at least 2 and ranked_by out of {', '.join(get_args(RankedBy))}, got {share} and "
            f"{ranked_by!r}."
        )

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        output = student(shown(batch)) if ranked_by == "student" else None
        judged = output if output is not None or ranked_by == "labels" else teacher(shown(batch))
        ranks = batch["labels"].flatten() if judged is None else judged.quality
        chosen = [ends for at in members(batch, len(ranks)) for ends in _ends(at, ranks.detach(), share)]
        if not chosen:
            return {"contrast": Term(ranks.new_zeros(()), 0)}
        at = torch.cat(chosen)
        features = _contrasted(output)[at] if output is not None else _contrasted(student(_rows(shown(batch), at)))
        halves = (part.chunk(2) for part in torch.split(features, [len(part) for part in chosen]))
        losses = [group_contrast(top, bottom, temperature) for top, bottom in halves]
        return {"contrast": Term(torch.stack(losses).mean(), len(losses))}

    return terms


def _ends(at: Tensor, ranks: Tensor, share: int) -> list[Tensor]:
    """Places of the best and then of as many of the worst pictures of a group, if it is large enough."""
    count = max(2, len(at) // share)
    order = at[ranks[at].argsort(descending=True, stable=True)]
    return [torch.cat([order[:count], order[-count:]])] if len(at) >= 2 * count else []


def _rows(batch: Batch, at: Tensor) -> Batch:
    return {name: column[at.to(column.device)] for name, column in batch.items()}


def _contrasted(output: Any) -> Tensor:
    projected: Tensor | None = getattr(output, "projected", None)
    found: Tensor = output.image_embeds if projected is None else projected
    return found


def _check(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise GRMPError(f"Expected a temperature above 0, got {temperature}.")
