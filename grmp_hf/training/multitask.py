"""Quality, scene and distortion learnt together, from anchors with these axes: the losses of LIQE.

Letters in shapes: B pictures, A values of an axis, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.configuration_grmp import LEVEL
from grmp_hf.modeling.pairwise import EPSILON, RELEASED, better_labels, chance_better, fidelity, pairs_within
from grmp_hf.modeling.templates import DISTORTION, SCENE
from grmp_hf.training.objectives import Batch, Forward, Objective, Term, refuse_across, shown

__all__ = ["group_fidelity", "multi_label_fidelity", "multitask", "single_label_fidelity"]


def multitask(axes: Mapping[str, int], *, sigma: float = RELEASED) -> Objective:
    """Channels ``"quality"``, ``"scene"`` and ``"distortion"``, of one forward pass; those that the model has axes for.

    Quality is the fidelity loss of all pairs within a group, whose pictures a plan such as
    :func:`~grmp_hf.training.sampling.within` takes from one data set, on a scale from 1 to the number of levels. The
    batch may hold ``scene`` and ``distortion`` ``(B, A)`` from :func:`~grmp_hf.data.axis_labels.axis_labels`, a row of
    zeros where a picture has no label; what has no label counts nothing, and a channel without any has weight 0.

    Args:
        axes: name -> number of values, of the model's anchors
            (:func:`~grmp_hf.modeling.configuration_grmp.axis_sizes`).
        sigma: of each picture's value, see :func:`~grmp_hf.modeling.pairwise.chance_better`.

    Raises:
        GRMPError: anchors without a second axis; or, when the objective is asked, pairs across data sets, or labels of
            another number of values.

    Source: LIQE (arXiv 2303.14968), its released code.
    """
    if len(axes) < 2 or LEVEL not in axes:
        raise GRMPError(
            f"Expected a model whose anchors have the axes {LEVEL}, and {SCENE} or {DISTORTION}, got "
            f"{', '.join(axes)}. Make it with grmp_hf.modeling.templates.template_anchors."
        )
    losses = {SCENE: multi_label_fidelity, DISTORTION: single_label_fidelity}

    def terms(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
        refuse_across(batch, *pairs_within(batch["groups"]))
        output = student(shown(batch))
        value = 1 + (axes[LEVEL] - 1) * output.quality
        found = {"quality": group_fidelity(value, batch["labels"].flatten().to(value), batch["groups"], sigma)}
        for name, loss in losses.items():
            if name in axes:
                found[name] = _labelled(name, loss, output.axis_logits[name].softmax(-1), batch.get(name))
        return found

    return terms


def _labelled(name: str, loss: Callable[[Tensor, Tensor], Tensor], shares: Tensor, labels: Tensor | None) -> Term:
    """The mean over pictures with a label."""
    if labels is None:
        return Term(shares.sum() * 0, 0)
    if labels.shape != shares.shape:
        raise GRMPError(
            f"Expected labels {name} of shape {tuple(shares.shape)}, one column for each value of the model, got "
            f"{tuple(labels.shape)}. Make them with grmp_hf.data.axis_labels.axis_labels."
        )
    known = (labels.sum(-1) > 0).nonzero(as_tuple=True)[0]
    told = loss(shares[known], labels[known].to(shares))
    return Term(told.sum() / max(len(known), 1), len(known))


def group_fidelity(values: Tensor, labels: Tensor, groups: Tensor, sigma: float = RELEASED) -> Term:
    """The mean over groups of the mean fidelity loss of all pairs within each; its weight is the groups with a pair.

    Args:
        values: ``(B,)``, higher is better.
        labels: ``(B,)``, ratings: 1 for the pair whose first is rated higher, 0, or .5 for equal ones.
        groups: ``(B,)``.
        sigma: of each value.
    """
    first, second = pairs_within(groups)
    chance = chance_better(values[first], values[second], sigma, sigma)
    losses = fidelity(chance, better_labels(labels[first], labels[second]))
    kinds, place, counts = torch.unique(groups[first], return_inverse=True, return_counts=True)
    means = losses.new_zeros(len(kinds)).index_add(0, place, losses) / counts
    return Term(means.sum() / max(len(kinds), 1), len(kinds))


def multi_label_fidelity(shares: Tensor, labels: Tensor, epsilon: float = EPSILON) -> Tensor:
    """``(B,)``: the mean over values of the fidelity loss of each, for pictures that may show several.

    Args:
        shares: ``(B, A)``, marginals of the softmax.
        labels: ``(B, A)``, 1 for what a picture shows.
        epsilon: under the roots.

    >>> uniform, one = torch.full((1, 9), 1 / 9, dtype=torch.float64), torch.eye(9, dtype=torch.float64)[:1]
    >>> round(multi_label_fidelity(uniform, one, 0.0).item(), 6)
    0.12491
    """
    return fidelity(shares, labels, epsilon).mean(-1)


def single_label_fidelity(shares: Tensor, labels: Tensor, epsilon: float = EPSILON) -> Tensor:
    """``(B,)``: ``1 - sum_i sqrt(p_i g_i + eps)``, for pictures that show one value.

    Args:
        shares, labels, epsilon: as for :func:`multi_label_fidelity`.

    >>> uniform, one = torch.full((1, 11), 1 / 11, dtype=torch.float64), torch.eye(11, dtype=torch.float64)[:1]
    >>> round(single_label_fidelity(uniform, one, 0.0).item(), 6)
    0.698489
    """
    return 1 - (shares * labels + epsilon).sqrt().sum(-1)
