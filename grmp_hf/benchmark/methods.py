"""Methods that learn a scorer from rated pictures. Each sees the shots and their quality, and nothing else.

Letters in shapes: n pictures, d features.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn

from grmp_hf.benchmark.looking import Looking
from grmp_hf.benchmark.watching import Fitted, Observer, Watcher, fitted_adapter
from grmp_hf.evaluation.baselines import fit_ridge
from grmp_hf.features import OwnColumns, Pictures, first_views
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.saving import adapter_sha256
from grmp_hf.scoring import Scorer
from grmp_hf.scratch import scratch_folder
from grmp_hf.training.checking import check_settings
from grmp_hf.training.few_shot import FewShotRecipe, adapt, adapt_embeds
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.starts import read_start
from grmp_hf.views import all_views

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

    @property
    def columns(self) -> tuple[str, ...]:
        """What it has to know of pictures beside the usual columns of a `FeatureStore`."""

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
    columns = ()

    def settings(self) -> dict[str, Any]:
        """None."""
        return {"method": "zero_shot"}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Nothing is learnt."""
        return Fitted(lambda pictures: pictures["zero_shot"], dict)


@dataclass(frozen=True)
class Regression:
    """A regression on frozen features.

    Attributes:
        name: in the results.
        features: pictures -> (n, d).
        regressor: see `Regressor`.
        about: its settings.
        own: columns that it computes itself.
    """

    name: str
    features: Callable[[Pictures], NDArray[Any]]
    regressor: Regressor
    about: Mapping[str, Any]
    own: OwnColumns = OwnColumns()  # noqa: RUF009 (a tuple)
    needs_shots = True
    trains_by_steps = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Its own."""
        return self.own.names

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
        start: folder of an adapter whose prompts are where training begins; None to start from the base.
        views: how many views of each picture training and scoring see, the first ones; None for all.
    """

    name: str
    base: Scorer
    recipe: FewShotRecipe
    start: Path | None = None
    views: int | None = None
    needs_shots = True
    trains_by_steps = True
    columns = ()

    def __post_init__(self) -> None:
        check_settings(self)
        if self.views is not None:
            first_views(self.base, self.views)

    def settings(self) -> dict[str, Any]:
        """The recipe, the hash of the start's weights, and the number of views where they are not all."""
        more: dict[str, Any] = {} if self.start is None else {"start": adapter_sha256(self.start)}
        more |= {} if self.views is None else {"views_seen": self.views}
        return {"method": "grmp", **dataclasses.asdict(self.recipe), **more}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Adapt the base, from embeddings computed before where the recipe leaves them as they are."""
        model = cast(GRMPForImageQualityAssessment, self.base.model)
        labels = torch.tensor(quality, dtype=torch.float32)
        callbacks = [] if observer is None else [Watcher(observer, self._describe)]
        with scratch_folder() as folder:
            common: dict[str, Any] = {"recipe": dataclasses.replace(self.recipe, save_steps=0), "start": self.start}
            noise = shots.columns.get("noise")
            common |= {"noise": None if noise is None else torch.from_numpy(noise)}
            common |= {"seed": seed, "output_dir": folder, "callbacks": callbacks}
            if not self._taught.moves_embeddings:
                embeds = torch.from_numpy(self._embeds(shots))
                return self._describe(adapt_embeds(model, embeds, labels, side=self._side(shots), **common))
            seen, rows = self._seen, shots.rows
            pictures = RatedPictures(
                lambda index: seen.views(rows[index]), labels, seen.processor.image_mean, seen.processor.image_std
            )
            return self._describe(adapt(model, pictures, **common))

    @functools.cached_property
    def _begun(self) -> GRMPPromptConfig | None:
        return None if self.start is None else read_start(self.start)

    @functools.cached_property
    def _seen(self) -> Scorer:
        """The base with the views that are seen: those of its side network only where the recipe reads it."""
        seen = self.base if self.views is None else first_views(self.base, self.views)
        return seen if self._taught.features else seen.without_tiles()

    @functools.cached_property
    def _taught(self) -> FewShotRecipe:
        """The recipe with what an adapter that training begins from decides."""
        return self.recipe if self._begun is None else self.recipe.begun_from(self._begun)

    def _side(self, pictures: Pictures) -> Tensor | None:
        """What the side network says of pictures, where the recipe maps it."""
        known = self._taught.features and "side" in pictures.columns
        return torch.from_numpy(pictures["side"]) if known else None

    def _embeds(self, pictures: Pictures) -> NDArray[np.float32]:
        """Embeddings (n, D) before training: the base's, or those with the visual prompts of the start."""
        if self.views is None and (self._begun is None or not self._begun.visual_prompts):
            return pictures["embeds"]
        prompted, known = self._prompted
        keys = [(row.dataset, row.name) for row in pictures.rows]
        missing = [row for row, key in zip(pictures.rows, keys, strict=True) if key not in known]
        # One picture at a time: the last digits then do not depend on which pictures came together.
        for row, pixels in zip(missing, all_views(missing, prompted.views, batch_size=1), strict=True):
            known[row.dataset, row.name] = prompted.outputs(pixels).image_embeds[0].float().cpu().numpy()
        return np.array([known[key] for key in keys], dtype=np.float32).reshape(len(keys), pictures["embeds"].shape[1])

    @functools.cached_property
    def _prompted(self) -> tuple[Scorer, dict[tuple[str | None, str], NDArray[np.float32]]]:
        """The base with the prompts of the start, and the embeddings that it has given."""
        model: nn.Module = copy_base(self.base.model)
        if self.start is not None:
            model = PeftModel.from_pretrained(model, str(self.start))
        return dataclasses.replace(self._seen, model=model.eval()), {}

    @functools.cached_property
    def _look(self) -> Looking:
        return Looking(self._seen)

    def _describe(self, model: nn.Module) -> Fitted:
        return fitted_adapter(model, functools.partial(self._predict, model))

    def _predict(self, model: nn.Module, pictures: Pictures) -> Floats:
        scorer = dataclasses.replace(self._seen, model=model.eval())
        if self._taught.moves_embeddings:
            return np.concatenate([scorer.quality(pixels) for pixels in self._look(pictures)])
        device, side = next(model.parameters()).device, self._side(pictures)
        embeds = torch.from_numpy(self._embeds(pictures)).to(device)
        with torch.inference_mode():
            found = model(image_embeds=embeds, side=None if side is None else side.to(device))
        return found.quality.double().cpu().numpy()  # type: ignore[no-any-return]
