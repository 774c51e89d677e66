"""Methods that learn a scorer from rated pictures. Each sees the shots and their quality, and nothing else.

Letters in shapes: n pictures, d features.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from grmp_hf.benchmark.features import Pictures, iter_pixels
from grmp_hf.benchmark.watching import Fitted, Observer, Watcher
from grmp_hf.evaluation.baselines import fit_ridge
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.scoring import Scorer
from grmp_hf.training.few_shot import FewShotRecipe, adapt, adapt_embeds

__all__ = ["GRMP", "Method", "Regression", "Regressor", "ZeroShot", "ridge"]

Floats = NDArray[np.float64]
Predict = Callable[[Floats], Floats]
Learnt = dict[str, NDArray[Any]]

Regressor: TypeAlias = Callable[[Floats, Floats, int], tuple[Predict, Learnt]]
"""(features (n, d), quality (n,), seed) -> features to predictions, and the numbers that were learnt."""


class Method(Protocol):
    """What the benchmark compares."""

    @property
    def name(self) -> str:
        """In the results."""

    @property
    def needs_shots(self) -> bool:
        """Whether it learns from ratings at all."""

    @property
    def trains_by_steps(self) -> bool:
        """Whether there is anything to observe."""

    def settings(self) -> dict[str, Any]:
        """All that decides about its scores beside base, pictures, quality and seed, as JSON values."""

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Learn from pictures and their quality, (n,) in [0, 1]; the result is a function of the arguments alone."""


@dataclass(frozen=True)
class ZeroShot:
    """The base without an adapter."""

    name: str = "zero_shot"
    needs_shots = False
    trains_by_steps = False

    def settings(self) -> dict[str, Any]:
        """None."""
        return {"method": "zero_shot"}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Nothing is learnt."""
        return Fitted(lambda pictures: pictures.zero_shot, dict)


@dataclass(frozen=True)
class Regression:
    """A regression on frozen features.

    Attributes:
        name: in the results.
        features: pictures -> (n, d).
        regressor: see `Regressor`.
        about: its settings.
    """

    name: str
    features: Callable[[Pictures], NDArray[Any]]
    regressor: Regressor
    about: Mapping[str, Any]
    needs_shots = True
    trains_by_steps = False

    def settings(self) -> dict[str, Any]:
        """As given."""
        return dict(self.about)

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Fit the regression; there are no steps to observe."""
        predict, learnt = self.regressor(np.asarray(self.features(shots), dtype=np.float64), quality, seed)
        return Fitted(lambda pictures: predict(np.asarray(self.features(pictures), dtype=np.float64)), lambda: learnt)


def ridge(features: Floats, quality: Floats, seed: int) -> tuple[Predict, Learnt]:
    """Ridge regression, its strength by leave-one-out; see `fit_ridge`."""
    model = fit_ridge(features, quality)
    return model.predict, {name: np.atleast_1d(value) for name, value in dataclasses.asdict(model).items()}


@dataclass(frozen=True)
class GRMP:
    """Prompts and what else a recipe trains, around the base.

    Attributes:
        name: in the results.
        base: a scorer without adapter.
        recipe: see `FewShotRecipe`.
    """

    name: str
    base: Scorer
    recipe: FewShotRecipe
    needs_shots = True
    trains_by_steps = True

    def settings(self) -> dict[str, Any]:
        """The recipe."""
        return {"method": "grmp", **dataclasses.asdict(self.recipe)}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Adapt a copy of the base, from the frozen embeddings where the recipe leaves them as they are."""
        model = cast(GRMPForImageQualityAssessment, copy.deepcopy(self.base.model))
        labels = torch.tensor(quality, dtype=torch.float32)
        callbacks = [] if observer is None else [Watcher(observer, self._describe)]
        with tempfile.TemporaryDirectory() as folder:
            common: dict[str, Any] = {"recipe": dataclasses.replace(self.recipe, save_steps=0), "seed": seed}
            common |= {"output_dir": folder, "callbacks": callbacks}
            if not self.recipe.moves_embeddings:
                return self._describe(adapt_embeds(model, torch.from_numpy(shots.embeds), labels, **common))
            processor = self.base.processor
            pixels = torch.cat(list(iter_pixels(self.base, shots.rows)))
            common |= {"mean": processor.image_mean, "std": processor.image_std}
            return self._describe(adapt(model, pixels, labels, **common))

    def _describe(self, model: nn.Module) -> Fitted:
        return Fitted(functools.partial(self._predict, model), lambda: _adapter(cast(PeftModel, model)))

    def _predict(self, model: nn.Module, pictures: Pictures) -> Floats:
        scorer = dataclasses.replace(self.base, model=model.eval())
        if self.recipe.moves_embeddings:
            return np.concatenate([scorer.quality(pixels) for pixels in iter_pixels(scorer, pictures.rows)])
        embeds = torch.from_numpy(pictures.embeds).to(next(model.parameters()).device)
        with torch.inference_mode():
            return model(image_embeds=embeds).quality.double().cpu().numpy()  # type: ignore[no-any-return]


def _adapter(model: PeftModel) -> Learnt:
    """A copy of the adapter's tensors, under the names by which it is saved."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().float().numpy().copy() for name, tensor in state.items()}
