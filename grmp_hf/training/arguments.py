"""``GRMPTrainingArguments``: transformers' own, and what the gradient rule and episodes need."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

from grmp_hf.errors import GRMPError

__all__ = ["GRMPTrainingArguments"]

_CHOICES = {
    "projection_unit": ("tensor", "global"),
    "meta_algorithm": ("fomaml", "maml", "reptile", "authors"),
    "inner_optimizer": ("sgd", "adam"),
}


@dataclass
class GRMPTrainingArguments(TrainingArguments):
    """Arguments of :class:`~grmp_hf.GRMPTrainer`.

    Defaults that differ from ``TrainingArguments``:

    ========================  =====  =====================================================================
    ``remove_unused_columns``  False  batches carry more than the model's ``forward`` takes
    ``max_grad_norm``          0      the method has no clipping
    ``report_to``              none   nothing is sent anywhere unless asked for
    ========================  =====  =====================================================================

    Args:
        regularization_strength: lambda of the paper's quality-aware gradient regularisation, at least 0.
        semantic_temperature: T of the semantic loss, above 0.
        projection_unit: what the rule sees as one vector, see :data:`~grmp_hf.training.rules.UNITS`.
        pull_to_start: strength of (pull / 2) |theta - theta_start|^2, at least 0.
        pull_exempt: last words of the names of tensors that are not pulled.
        joint_batch_size: pictures of a batch over all processes.
        meta_algorithm, inner_learning_rate, inner_optimizer, inner_steps: how an episode of the paper's meta-prompt
            pre-training gives a gradient, see :mod:`~grmp_hf.training.meta_learning`.

    Raises:
        GRMPError: a number out of range or not finite, or a word that is no choice.
    """

    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep all columns of a batch."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Clip the regularised gradient; 0 for no clipping."})
    report_to: None | str | list[str] = field(  # noqa: RUF036 (HfArgumentParser needs None first)
        default="none", metadata={"help": "Where to log beside the console."}
    )
    regularization_strength: float = field(
        default=5.0,
        metadata={
            "help": "lambda of the gradient rule: 0 none, 1 orthogonal to the semantic gradient, 5 the reference's."
        },
    )
    semantic_temperature: float = field(default=1.0, metadata={"help": "T of the semantic loss (reference: 1)."})
    projection_unit: Literal["tensor", "global"] = field(
        default="tensor",
        metadata={
            "help": "What the rule sees as one: each tensor of the reference (q, k, v together), or all of them."
        },
    )
    pull_to_start: float = field(
        default=0.0,
        metadata={"help": "Strength of (pull / 2) |theta - theta_start|^2, added after the rule; 0 for none."},
    )
    joint_batch_size: int | None = field(
        default=None,
        metadata={"help": "Pictures of a batch over all processes; else per_device_train_batch_size of each."},
    )
    pull_exempt: list[str] = field(
        default_factory=lambda: ["offset"],
        metadata={"help": "Last words of the names of tensors that are not pulled."},
    )

    meta_algorithm: Literal["fomaml", "maml", "reptile", "authors"] = field(
        default="fomaml",
        metadata={"help": "How an episode gives a gradient: fomaml, maml, reptile, or authors (one long inner run)."},
    )
    inner_learning_rate: float = field(default=0.01, metadata={"help": "Rate of the inner loop (authors: 1e-4)."})
    inner_optimizer: Literal["sgd", "adam"] = field(
        default="sgd", metadata={"help": "Of the inner loop: sgd, or adam (authors)."}
    )
    inner_steps: int = field(
        default=5,
        metadata={"help": "Steps of the inner loop; authors take two for each support batch instead."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("regularization_strength", "pull_to_start"):
            if not 0 <= getattr(self, name) < math.inf:
                raise GRMPError(f"Expected {name} of at least 0, got {getattr(self, name)}.")
        for name in ("semantic_temperature", "inner_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise GRMPError(f"Expected {name} above 0, got {getattr(self, name)}.")
        if self.inner_steps < 1:
            raise GRMPError(
                f"Expected inner_steps of at least 1, got {self.inner_steps}. To learn without adapting, train on "
                "batches of pictures instead of episodes."
            )
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise GRMPError(f"Expected {name} {' or '.join(map(repr, allowed))}, got {getattr(self, name)!r}.")
