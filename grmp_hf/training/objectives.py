"""What a batch teaches: functions from forward passes to named terms, whose gradients are taken one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.feature_map import level_logit
from grmp_hf.modeling.functional import plcc_loss, quality_loss, semantic_cross_entropy
from grmp_hf.modeling.pairwise import CASE_V, MARGIN, better_labels, chance_better, fidelity, pairs_within, sigma_hinge

__all__ = [
    "Batch",
    "Forward",
    "Objective",
    "Term",
    "members",
    "naming",
    "pairwise",
    "plcc",
    "quality",
    "quality_and_semantic",
    "refuse_across",
    "shown",
    "values_of",
]

Batch = dict[str, Tensor]
"""Columns, one row a picture: ``labels`` and ``pixel_values`` or ``image_embeds``, and whatever an objective reads.

``certainty`` ``(B,)``, if there, is how much each picture's quality loss counts, with a mean near 1. ``mos_std``
``(B,)`` is the deviation of its ratings, in quality, NaN where nobody says it; ``dataset`` ``(B,)`` the number of its
data set; ``scene`` and ``distortion`` ``(B, A)`` what it shows, zeros where nobody says it; ``category`` ``(B,)``;
``taught_quality`` ``(B,)`` and ``taught_map`` ``(B, M, G, G)`` what a larger model says.
"""

_COLUMNS = ("certainty", "teacher_logits", "groups", "mos_std", "dataset", "index", "scene", "distortion", "before")
_NOT_SHOWN = ("labels", "category", "taught_quality", "taught_map", *_COLUMNS)


class Term(NamedTuple):
    """One channel's share of a batch.

    Attributes:
        mean: scalar loss, a mean over what it counts.
        weight: how many pictures, pairs or groups it is the mean of; 0 where the batch has none.
    """

    mean: Tensor
    weight: float


Forward = Callable[[Mapping[str, Any]], Any]
"""Arguments of the model's ``forward`` -> its output, under whatever parameters the loop holds."""
Objective = Callable[[Forward, Forward, Batch], Mapping[str, Term]]
"""(student, teacher, batch) -> channel -> term. The teacher is the base without adapter, and takes no gradient.

Gradients are accumulated by channel: the rule sees that of the mean over everything that a channel's weights count, in
all micro-batches of a step and all processes. A loss that is no mean over pictures (over pairs, or a correlation) is
computed within the groups of ``batch["groups"]``, ``(B,)``, which no process cuts. The first channel is the task: its
mean is the loss that is logged, and what the inner loop of an episode descends.
"""


def quality(levels: Sequence[float]) -> Objective:
    """The loss of rated pictures as channel ``"quality"``; see :func:`~grmp_hf.modeling.functional.quality_loss`.

    Args:
        levels: the quality that each of the model's anchors stands for, ``model.config.quality_levels``.
    """

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        output, labels, certainty = student(shown(batch)), batch["labels"], batch.get("certainty")
        judged = quality_loss(output.quality, output.quality_logits, labels, levels, certainty)
        return {"quality": Term(judged, len(labels))}  # pictures: the sum over parts does not depend on the parts

    return terms


def quality_and_semantic(levels: Sequence[float], temperature: float = 1.0) -> Objective:
    """:func:`quality`, and from the same forward pass the semantic loss as channel ``"semantic"``.

    Args:
        levels: as for :func:`quality`.
        temperature: of the semantic loss. What the teacher says is taken from ``teacher_logits`` ``(B, S)`` where the
            batch has them.
    """

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        asked = {**shown(batch), "output_semantic": True}
        output, labels, taught = student(asked), batch["labels"], batch.get("teacher_logits")
        if taught is None:
            taught = teacher(asked).semantic_logits
        judged = quality_loss(output.quality, output.quality_logits, labels, levels, batch.get("certainty"))
        semantic = semantic_cross_entropy(output.semantic_logits, taught, temperature)
        return {"quality": Term(judged, len(labels)), "semantic": Term(semantic, len(labels))}

    return terms


def pairwise(
    levels: Sequence[float],
    *,
    sigma: Literal["fixed", "joint", "detached"] = "fixed",
    fixed: float = CASE_V,
    margin: float | None = MARGIN,
    across: bool = False,
    wins: Tensor | None = None,
) -> Objective:
    """Which picture of a pair is better, for all pairs within a group, as channel ``"fidelity"``; and the order of
    sigmas as channel ``"hinge"``, where sigmas are learnt and ``mos_std`` is known of both pictures.

    A batch without pairs, or without known deviations, counts nothing in that channel. Both channels together need a
    rule, such as :func:`~grmp_hf.training.rules.summed`.

    Args:
        levels: as for :func:`quality`; see :func:`values_of`.
        sigma: the denominator of the probability: ``"fixed"`` for every picture, or the model's own,
            ``"joint"``, or ``"detached"``: there no gradient reaches it, so that it learns from the hinge alone,
            as in UNIQUE's code.
        fixed: sigma of every picture, :data:`~grmp_hf.modeling.pairwise.CASE_V` or
            :data:`~grmp_hf.modeling.pairwise.RELEASED`.
        margin: of the hinge; None for no hinge.
        across: let a group hold pictures of several data sets, whose ratings then have to mean the same.
        wins: ``(n, n)``, how often each picture was chosen before each other one, a tie being half a choice for either,
            in the place of ratings: a pair counts as often as it was compared, and its label is the share of its
            choices. Batches then hold ``index`` ``(B,)``, each picture's number from 0.

    Raises:
        GRMPError: a sigma that does not exist, or, when the objective is asked, a group with pictures of several data
            sets, or a head without sigma.

    Source: UNIQUE (arXiv 2005.13983), TSN-IQA (2107.13429), LIQE (2303.14968).
    """
    if sigma not in ("fixed", "joint", "detached") or not 0 < fixed < math.inf:
        raise GRMPError(f"Expected sigma 'fixed' (above 0), 'joint' or 'detached', got {sigma!r} ({fixed}).")

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        first, second = pairs_within(batch["groups"])
        if not across:
            refuse_across(
                batch, first, second, "Take the plan sampling.within, or across=True where they mean the same."
            )
        output, stds = student(shown(batch)), batch.get("mos_std")
        values, sigmas = values_of(output, levels), _sigmas(output, sigma, fixed)
        label, counts = _rated(batch, first, second) if wins is None else _chosen(batch["index"], wins, first, second)
        spread = sigmas.detach() if sigma == "detached" else sigmas
        chance = chance_better(values[first], values[second], spread[first], spread[second])
        found = {"fidelity": _mean(fidelity(chance, label.to(chance)), counts)}
        if sigma != "fixed" and margin is not None and stds is not None:
            both = (stds[first].isfinite() & stds[second].isfinite()).nonzero(as_tuple=True)[0]
            first, second = first[both], second[both]
            found["hinge"] = _mean(sigma_hinge(sigmas[first], sigmas[second], stds[first], stds[second], margin))
        return found

    return terms


def plcc(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
    """How far the pictures of a group are from rising linearly with their labels, as channel ``"plcc"``; see
    :func:`~grmp_hf.modeling.functional.plcc_loss`.

    It is the mean over groups with different labels, each counting once. A plan such as
    :func:`~grmp_hf.training.sampling.within` makes them, and no process cuts one; a batch of an episode is one group.
    The value of a picture is the ``mean`` of a head that gives one, else its quality.

    Source: LoDa (arXiv 2308.12001), whose one group is the batch.
    """
    output, labels = student(shown(batch)), batch["labels"].flatten()
    values = output.quality if getattr(output, "mean", None) is None else output.mean
    groups = members(batch, len(labels))
    losses = [plcc_loss(values[at], labels[at]) for at in groups if bool((labels[at] != labels[at][0]).any())]
    return {"plcc": Term(torch.stack(losses).mean() if losses else values.sum() * 0, len(losses))}


def members(batch: Batch, pictures: int) -> list[Tensor]:
    """Places ``(n,)`` of the pictures of each group of a batch; one that says nothing of groups is one group."""
    groups = batch.get("groups", torch.zeros(pictures))
    return [torch.nonzero(groups == group).flatten() for group in dict.fromkeys(groups.tolist())]


def values_of(output: Any, levels: Sequence[float]) -> Tensor:
    """Values ``(B,)`` of pictures on an open axis, higher is better, on which differences are taken.

    They are the ``mean`` of a head that gives one, the logit of the level of anchors
    (:func:`~grmp_hf.modeling.feature_map.level_logit`), or else the logit of the quality.

    Args:
        output: what the model says.
        levels: the quality that each of the anchors stands for.
    """
    if getattr(output, "mean", None) is not None:
        found: Tensor = output.mean
        return found
    if output.quality_logits is not None:
        return level_logit(output.quality_logits, levels)
    return torch.logit(output.quality, eps=1e-6)


def _sigmas(output: Any, sigma: str, fixed: float) -> Tensor:
    if sigma == "fixed":
        return torch.full_like(output.quality, fixed)
    found: Tensor | None = getattr(output, "sigma", None)
    if found is None:
        raise GRMPError(
            f"Expected a head that says sigma, such as MeanSigma, for sigma={sigma!r}, got one without. Take "
            "sigma='fixed', or another head."
        )
    return found


def refuse_across(batch: Batch, first: Tensor, second: Tensor, remedy: str = "Take the plan sampling.within.") -> None:
    """Raise where pairs ``(P,)``, ``(P,)`` of a batch's pictures are of two data sets.

    Raises:
        GRMPError: with the way out.
    """
    sets = batch.get("dataset")
    if sets is not None and bool((sets[first] != sets[second]).any()):
        raise GRMPError(
            f"Expected pairs of pictures of one data set, got some of two, whose ratings do not compare. {remedy}"
        )


def _rated(batch: Batch, first: Tensor, second: Tensor) -> tuple[Tensor, None]:
    """Labels of pairs by ratings; each counts once."""
    labels, stds = batch["labels"].flatten(), batch.get("mos_std")
    known = (None, None) if stds is None else (stds[first], stds[second])
    return better_labels(labels[first], labels[second], *known), None


def _chosen(index: Tensor, wins: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Labels of pairs by choices, and how many there were; .5 and 0 of pairs that nobody has compared."""
    wins = wins.to(index.device)
    won, lost = wins[index[first], index[second]], wins[index[second], index[first]]
    counts = won + lost
    return torch.where(counts > 0, won / counts.clamp(min=0.5), 0.5), counts


def _mean(losses: Tensor, counts: Tensor | None = None) -> Term:
    """The mean over pairs, each as often as it counts; of none, a zero that counts nothing."""
    if counts is None:
        return Term(losses.mean() if len(losses) else losses.sum(), len(losses))
    total = float(counts.sum())
    return Term((losses * counts.to(losses)).sum() / max(total, 1.0), total)


@contextmanager
def naming(batch: Batch) -> Iterator[None]:
    """Say which column a batch lacks, where an objective misses one."""
    try:
        yield
    except KeyError as error:
        name = error.args[0] if error.args else None
        if name in batch or name not in _NOT_SHOWN:
            raise
        raise GRMPError(
            f"Expected a column {name!r} of numbers in the rows that teach, got {', '.join(sorted(batch))}. Give "
            "each row its own: text never gets here; the quality of ratings is RatingScale.to_quality."
        ) from error


def shown(batch: Batch, *, labels: bool = False) -> Batch:
    """What the model is shown of a batch: all but what objectives alone read, with or without its labels."""
    return {name: column for name, column in batch.items() if name not in _NOT_SHOWN or (labels and name == "labels")}
