"""Shots as pairs: which of them compare, what is known of each, and how a recipe learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.objectives import pairwise
from grmp_hf.training.sampling import within

__all__ = ["Compared"]


@dataclass(frozen=True)
class Compared:
    """What says which of two shots is better, beside their ratings.

    Attributes:
        sets: ``(n,)``, the data set of each shot; pairs are taken within one. None for one data set.
        stds: ``(n,)``, the deviation of each rating, in quality, NaN where nobody says it; None where nobody says any.
        wins: ``(n, n)``, how often each shot was chosen before each other one, in the place of ratings; a tie is half a
            choice for either. None for ratings.

    Raises:
        GRMPError: sizes that differ, a data set of a single shot, or no choice among the shots.
    """

    sets: Sequence[str] | None = None
    stds: Tensor | None = None
    wins: Tensor | None = None

    def __post_init__(self) -> None:
        sizes = {len(part) for part in (self.sets, self.stds, self.wins) if part is not None}
        if len(sizes) > 1:
            raise GRMPError(
                f"Expected data sets, deviations and choices of the same shots, got {sorted(sizes)} of them."
            )
        if self.sets is not None:
            within(self.sets, 2)  # which refuses those that leave no pair, before anything is looked at
        if self.wins is not None and not bool(self.wins.any()):
            raise GRMPError(
                "Expected choices between pictures that teach, got none: each is with a picture that tests. Let more "
                "pictures teach."
            )

    def columns(self, shots: int) -> dict[str, Tensor]:
        """What each shot's row holds for the objective.

        Raises:
            GRMPError: another number of shots.
        """
        sizes = {len(part) for part in (self.sets, self.stds, self.wins) if part is not None}
        if not sizes <= {shots}:
            raise GRMPError(f"Expected what compares {shots} shots, got that of {sizes.pop()}. Give that of the shots.")
        known = {} if self.stds is None or self.wins is not None else {"mos_std": self.stds}
        return {**known, "index": torch.arange(shots)}

    def digest(self) -> list[str]:
        """Of what no column holds."""
        return [*([] if self.sets is None else self.sets), *([] if self.wins is None else [digest([self.wins])])]

    def settings(self, levels: Sequence[float], shots: int, size: int, seed: int) -> dict[str, Any]:
        """Objective and plan for the Trainer.

        A step is a group of each data set, with all pairs in it; of choices, which few pairs have, it is all of them.

        Args:
            levels: the quality that each of the model's anchors stands for.
            shots: n.
            size: pictures of a group; of a smaller data set, all.
            seed: of the order.
        """
        sets = ["one"] * shots if self.sets is None else self.sets
        together = max(size, 2) if self.wins is None else shots
        plan = within(sets, together, len(set(sets)), seed=seed)
        return {"objective": pairwise(levels, wins=self.wins), "plan": plan}
