"""What a batch teaches: functions from forward passes to named terms, whose gradients are taken one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from grmp_hf.modeling.functional import quality_loss, semantic_cross_entropy

__all__ = ["Batch", "Forward", "Objective", "Term", "quality", "quality_and_semantic"]

Batch = dict[str, Tensor]
"""Columns, one row a picture: ``labels`` and ``pixel_values`` or ``image_embeds``, and whatever an objective reads.

``certainty`` ``(B,)``, if there, is how much each picture's quality loss counts, with a mean near 1.
"""

_NOT_SHOWN = ("labels", "certainty", "teacher_logits", "groups")


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
        output, labels, certainty = student(_pictures(batch)), batch["labels"], batch.get("certainty")
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
        shown = {**_pictures(batch), "output_semantic": True}
        output, labels, taught = student(shown), batch["labels"], batch.get("teacher_logits")
        if taught is None:
            taught = teacher(shown).semantic_logits
        judged = quality_loss(output.quality, output.quality_logits, labels, levels, batch.get("certainty"))
        semantic = semantic_cross_entropy(output.semantic_logits, taught, temperature)
        return {"quality": Term(judged, len(labels)), "semantic": Term(semantic, len(labels))}

    return terms


def _pictures(batch: Batch) -> Batch:
    """What the model is shown of a batch."""
    return {name: column for name, column in batch.items() if name not in _NOT_SHOWN}
