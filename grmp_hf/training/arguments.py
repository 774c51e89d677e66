"""``GRMPTrainingArguments``: transformers' own, and what the gradient rule needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

from grmp_hf.errors import GRMPError

__all__ = ["GRMPTrainingArguments"]


@dataclass
class GRMPTrainingArguments(TrainingArguments):
    """Arguments of :class:`~grmp_hf.GRMPTrainer`.

    Defaults that differ from ``TrainingArguments``:

    ========================  =====  =====================================================================
    ``remove_unused_columns``  False  batches carry more than the model's ``forward`` takes
    ``max_grad_norm``          0      the method has no clipping
    ``report_to``              none   nothing is sent anywhere unless asked for
    ========================  =====  =====================================================================
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

    pull_exempt: list[str] = field(
        default_factory=lambda: ["offset"],
        metadata={"help": "Last words of the names of tensors that are not pulled."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("regularization_strength", "pull_to_start"):
            if getattr(self, name) < 0:
                raise GRMPError(f"Expected {name} of at least 0, got {getattr(self, name)}.")
        if self.semantic_temperature <= 0:
            raise GRMPError(f"Expected semantic_temperature above 0, got {self.semantic_temperature}.")
        if self.projection_unit not in ("tensor", "global"):
            raise GRMPError(f"Expected projection_unit 'tensor' or 'global', got {self.projection_unit!r}.")
