"""Objectives and penalties of one adapter that learns one data set after the other.

Letters in shapes: B pictures, H data sets that have been learnt before or are being learnt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from grmp_hf.modeling.pairwise import CASE_V, chance_better, fidelity, pairs_within
from grmp_hf.training.gradients import Gradients
from grmp_hf.training.objectives import Batch, Forward, Objective, Term, pairwise, shown
from grmp_hf.training.rules import Rule

__all__ = ["distilled", "hold", "importance", "own_axis"]


def own_axis(output: Any, sets: Tensor) -> Any:
    """An output whose ``mean`` is that of each picture's own data set.

    Args:
        output: with ``means`` ``(B, H)``.
        sets: ``(B,)``, numbers of data sets below H.
    """
    means = output.means.gather(1, sets.long().view(-1, 1)).squeeze(1)
    return type(output)(**{**output, "mean": means})


def distilled(levels: Sequence[float], *, sigma: float = CASE_V) -> Objective:
    """Pairs of the data sets at hand as channel ``"fidelity"``, and what was said before of the same pairs as channel
    ``"distillation"``::

        loss = l(p_own, g) + strength * sum_{h before} l(p_h, p_h before)

    with ``l`` the fidelity loss and ``p_h`` the probability, by the axis of data set h, that a picture is better; the
    strength is the rule's, such as ``summed({"distillation": 10.0})``. What the adapter before says of the pictures is
    a column ``before`` ``(B, h)``, computed once, through which no gradient can go; batches without it, or one of no
    columns, teach the first channel alone.

    Args:
        levels: as for :func:`~grmp_hf.training.objectives.quality`.
        sigma: of every picture.

    Source: CL-BIQA (arXiv 2102.09717), with heads of earlier data sets that are kept as they are.
    """
    told = pairwise(levels, fixed=sigma)

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        output = student(shown(batch))
        own = own_axis(output, batch["dataset"])
        found = dict(told(lambda _: own, teacher, batch))
        before = batch.get("before")
        if before is not None and before.shape[1]:
            first, second = pairs_within(batch["groups"])
            now, then = output.means[:, : before.shape[1]], before.to(output.means)
            chance, taught = (chance_better(said[first], said[second], sigma, sigma) for said in (now, then))
            lost = fidelity(chance, taught)  # (pairs, h)
            pairs = len(lost)
            found["distillation"] = Term(lost.sum(1).mean() if pairs else lost.sum(), pairs)
        return found

    return terms


def hold(rule: Rule, strength: float, start: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Rule:
    """A rule, and after it the gradient of ``(strength / 2) sum_i F_i (theta_i - theta_start_i)^2``: elastic weight
    consolidation.

    Args:
        rule: of the gradients alone.
        strength: at least 0.
        start: name -> value that it is held to; names that are missing are free.
        weights: name -> F, of :func:`importance`.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (2017).
    """

    def held(gradients: dict[str, Gradients], parameters: Mapping[str, Tensor]) -> Gradients:
        step = rule(gradients, parameters)
        found = {}
        for name, part in step.items():
            if name in start:
                moved = parameters[name].detach() - start[name].to(parameters[name])
                part = part + strength * weights[name].to(part) * moved.to(part)
            found[name] = part
        return found

    return held


def importance(gradients: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The diagonal of the empirical Fisher matrix: the mean of squared gradients, of the loss of a group each.

    Args:
        gradients: name -> gradient, for each group.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for part in gradients:
        count += 1
        for name, gradient in part.items():
            square = gradient.detach().square()
            total[name] = square if name not in total else total[name] + square
    return {name: square / count for name, square in total.items()}
