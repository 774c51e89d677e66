"""Adapters that act in the vision tower, as methods of the benchmark: experts of TSN-IQA's kinds, and LoDa.

They see pictures, not embeddings. Under `paper`, where ratings of the test part choose the epoch, they have none to
choose from: they are scored after their last step.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from grmp_hf.benchmark.looking import Looking
from grmp_hf.benchmark.watching import Fitted, Observer, fitted_adapter
from grmp_hf.data import Row
from grmp_hf.errors import GRMPError
from grmp_hf.features import Pictures
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.scoring import Scorer
from grmp_hf.scratch import scratch_folder
from grmp_hf.teaching import cropped_pictures, rated_pictures
from grmp_hf.training.expert_fitting import begin, learn
from grmp_hf.training.local_features import LoDaRecipe, adapt_locally
from grmp_hf.training.stream_recipe import StreamRecipe

__all__ = ["Expert", "LoDa"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Expert:
    """An adapter of norms, LoRA or prompts with a head for one data set, learnt from pairs as an expert of a stream is.

    Attributes:
        name: in the results.
        base: a scorer without adapter.
        recipe: see `StreamRecipe`; its method is that of experts, whatever it says.
    """

    name: str
    base: Scorer
    recipe: StreamRecipe = StreamRecipe()  # noqa: RUF009 (frozen)
    needs_shots = True
    trains_by_steps = False
    columns = ()

    def settings(self) -> dict[str, Any]:
        """The recipe."""
        return {"method": "expert", **dataclasses.asdict(self.recipe)}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Learn the head on embeddings, then adapter and head on pictures."""
        model = begin(cast(GRMPForImageQualityAssessment, self.base.model), self.recipe, 1, seed=seed)
        pictures = rated_pictures(self._look.seen, rated(shots, quality))
        sets = torch.zeros(len(quality), dtype=torch.long)
        with scratch_folder() as folder:
            learnt = learn(model, pictures, sets, [0], recipe=self.recipe, seed=seed, output_dir=folder)
        return described(self._look, learnt)

    @functools.cached_property
    def _look(self) -> Looking:
        return Looking(self.base.without_tiles())


@dataclass(frozen=True)
class LoDa:
    """Local features of the base's side network injected into its vision tower.

    Attributes:
        name: in the results.
        base: a scorer without adapter, with a side network.
        recipe: see `LoDaRecipe`.
    """

    name: str
    base: Scorer
    recipe: LoDaRecipe = LoDaRecipe()  # noqa: RUF009 (frozen)
    needs_shots = True
    trains_by_steps = False
    columns = ()

    def __post_init__(self) -> None:
        model: Any = self.base.model
        if model.side is None:
            raise GRMPError(
                "expected a base with a side network, whose maps are injected, got one without; take the default as "
                "the key model, or the folder that grmp_hf.load(model, side=...).save has written"
            )

    def settings(self) -> dict[str, Any]:
        """The recipe."""
        return {"method": "loda", **dataclasses.asdict(self.recipe)}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Learn from random crops, and place the scale by the views that are scored."""
        seen, rows = self._look.seen, rated(shots, quality)
        crops, views = cropped_pictures(seen, rows, seed=seed), rated_pictures(seen, rows)
        model = cast(GRMPForImageQualityAssessment, seen.model)
        with scratch_folder() as folder:
            learnt = adapt_locally(model, crops, views=views, recipe=self.recipe, seed=seed, output_dir=folder)
        return described(self._look, learnt)

    @functools.cached_property
    def _look(self) -> Looking:
        return Looking(self.base.without_tiles())


def rated(shots: Pictures, quality: Floats) -> list[Row]:
    """Rows of shots with the quality that a method is given."""
    pairs = zip(shots.rows, quality.tolist(), strict=True)
    return [dataclasses.replace(row, quality=value, mos=value) for row, value in pairs]


def described(look: Looking, model: PeftModel) -> Fitted:
    """An adapted model as what a method has made of the shots."""
    scorer = dataclasses.replace(look.seen, model=cast(nn.Module, model).eval())
    return fitted_adapter(model, lambda pictures: np.concatenate([scorer.quality(pixels) for pixels in look(pictures)]))
