"""A head of two streams on the tokens of the frozen base, after LPF, as a method of the benchmark."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from grmp_hf.benchmark.watching import Fitted, Observer, Watcher, fitted_adapter
from grmp_hf.features import BATCH, Pictures
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.scoring import Scorer
from grmp_hf.scratch import scratch_folder
from grmp_hf.training.shots import Columns
from grmp_hf.training.two_stream import TwoStreamRecipe, adapt_streams

__all__ = ["TwoStream"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TwoStream:
    """What `adapt_streams` learns from tokens that are computed once for all draws.

    Attributes:
        name: in the results.
        base: a scorer without adapter.
        recipe: see `TwoStreamRecipe`.
    """

    name: str
    base: Scorer
    recipe: TwoStreamRecipe = TwoStreamRecipe()  # noqa: RUF009 (frozen)
    needs_shots = True
    trains_by_steps = True
    columns = ("tokens",)

    def settings(self) -> dict[str, Any]:
        """The recipe."""
        return {"method": "two_stream", **dataclasses.asdict(self.recipe)}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Learn the head; the category of a shot is the bin of its rating, since methods know no distortions."""
        model = cast(GRMPForImageQualityAssessment, self.base.model)
        labels = torch.tensor(quality, dtype=torch.float32)
        rows = Columns({"labels": labels, "tokens": torch.from_numpy(shots["tokens"])})
        callbacks = [] if observer is None else [Watcher(observer, _describe)]
        with scratch_folder() as folder:
            return _describe(
                adapt_streams(model, rows, recipe=self.recipe, seed=seed, output_dir=folder, callbacks=callbacks)
            )


def _describe(model: nn.Module) -> Fitted:
    return fitted_adapter(model, functools.partial(_predict, model))


def _predict(model: nn.Module, pictures: Pictures) -> Floats:
    model.eval()
    device = next(model.parameters()).device
    tokens = torch.from_numpy(pictures["tokens"])
    with torch.inference_mode():
        found = [model(tokens=part.to(device)).quality.double().cpu() for part in torch.split(tokens, BATCH)]
    return torch.cat([*found, torch.empty(0, dtype=torch.float64)]).numpy()
