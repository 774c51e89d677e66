"""The task ``image-quality-assessment`` for ``transformers.pipeline``; registered when this module is imported."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from grmp_hf.data.scales import RatingScale
from grmp_hf.errors import GRMPError
from grmp_hf.explaining import explainer_for, most_likely
from grmp_hf.hub import load, preprocessing_beside
from grmp_hf.modeling.caching import disabled_adapters
from grmp_hf.modeling.configuration_grmp import match_views
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.explaining import EXPLAINED, Explainer
from grmp_hf.modeling.feature_map import quality_interval
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.pictures import each_picture, is_data_set, is_picture, no_pictures, read_picture
from grmp_hf.record import Record
from grmp_hf.scoring import INTERVAL, warn_of

__all__ = ["TASK", "ImageQualityAssessmentPipeline", "register"]

TASK = "image-quality-assessment"

_SAID = "probabilities_of_"


class _AnyScorer:
    """What ``transformers.pipeline`` loads a name with: everything that :func:`grmp_hf.load` takes."""

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, dtype: Any = "auto", **_: Any) -> Any:
        """The model alone, in single precision unless another was asked for."""
        return load(name, revision=revision, dtype=None if dtype == "auto" else dtype).model


class ImageQualityAssessmentPipeline(Pipeline):
    """Scores pictures -> ``{"quality": ..., "score": ...}`` for each.

    It takes what ``Scorer.score`` takes: one picture of any kind, or many of them (a list, a generator, a batch as
    array, a column of a data set or the data set).

    ``quality`` is in [0, 1], 1 = best; ``score`` is the same on the scale of the adapter's ratings, or the quality
    where there is none. The model is a folder, a Hub id, a ``GRMPForImageQualityAssessment`` or a ``PeftModel`` around
    one, such as ``grmp_hf.load(...).model``; the preprocessing is ``image_processor=`` if given, else the adapter's,
    else that of the model's folder. Where another adapter of the model is made active, its scale and preprocessing are
    taken; where it is disabled, those of the model without it.

    Of baked experts there is also ``experts``, name -> how much each has counted.

    With ``explain=True`` there are also ``distortion`` and ``scene``, each name -> probability, the most likely first.

    A picture that cannot be read raises ``grmp_hf.data.ImageError``; for many files ``Scorer.iter_scores`` reports it
    as a row instead.
    """

    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_processor = False
    _load_video_processor = False

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(model, Experts):
            raise GRMPError(
                "Expected one model, got several experts behind a gate. Make one of them, grmp-iqa bake OUT --adapter "
                "DIR, and give OUT."
            )
        self._given = kwargs.pop("image_processor", None)
        super().__init__(model, *args, **kwargs)
        self._settle()

    def _settle(self) -> None:
        """Take scale and preprocessing from the record of the adapter that is active now."""
        self._settled = _active_config(self.model)
        record = Record.of(self._settled or self.model.config)  # a baked scorer's own holds the same
        scale = record.scale
        self.scale = RatingScale(0.0, 1.0) if scale is None else RatingScale.from_dict(scale)
        self.image_processor = self._given or _preprocessing(self.model, record.preprocessing)
        match_views(self.model.config, self.image_processor)

    def _sanitize_parameters(
        self, explain: bool | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"{TASK} takes no options but explain, got {sorted(kwargs)}")
        return {}, {} if explain is None else {"explain": explain}, {}

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """A dictionary for one picture, an iterator of them for an iterator or torch data set, else a list.

        Raises:
            GRMPError: many pictures that are none.
        """
        if _active_config(self.model) is not self._settled:
            self._settle()
        if isinstance(inputs, Mapping):
            return super().__call__([inputs], **kwargs)[0]
        if hasattr(inputs, "__len__") and not is_picture(inputs) and not len(inputs):
            raise no_pictures()
        plain = isinstance(inputs, list | torch.utils.data.Dataset) and not is_data_set(inputs)
        if plain or is_picture(inputs):
            return super().__call__(inputs, **kwargs)
        found = super().__call__((picture for picture in each_picture(inputs)), **kwargs)
        return found if isinstance(inputs, Iterator) else list(found)

    def preprocess(self, input_: Any, **_: Any) -> Any:
        """Views of one picture."""
        return self.image_processor(read_picture(input_, warn=functools.partial(warn_of, input_)))

    @functools.cached_property
    def _explainer(self) -> Explainer:
        return explainer_for(self.model)

    def _forward(self, input_tensors: Any, explain: bool = False, **_: Any) -> Any:
        aside = {"output_side": True} if explain and self._explainer.needs_side else {}
        found = self.model(**input_tensors, **aside)
        names = ("quality", "deviation", "degrees", "novelty", "weights")
        said = {name: found[name] for name in names if name in found}
        return (
            {**said, **{f"{_SAID}{name}": part for name, part in self._explainer(found).items()}} if explain else said
        )

    def postprocess(self, model_outputs: Any, **_: Any) -> dict[str, Any]:
        """Quality and score of one picture, and how sure they are where the adapter knows."""
        quality = float(model_outputs["quality"])
        said: dict[str, Any] = {"quality": quality, "score": self.scale.to_score(quality)}
        for name in EXPLAINED:
            if f"{_SAID}{name}" in model_outputs:
                said[name] = most_likely(self._explainer.values[name], model_outputs[f"{_SAID}{name}"][0].tolist())
        if "weights" in model_outputs:
            said["experts"] = dict(zip(self.model.names, model_outputs["weights"][0].tolist(), strict=True))
        if "deviation" not in model_outputs:
            return said
        known = (model_outputs["quality"], model_outputs["deviation"], model_outputs["degrees"])
        bounds = quality_interval(*known, INTERVAL)
        low, high = sorted(self.scale.to_score(float(bound)) for bound in bounds)
        return {**said, "low": low, "high": high, "unlike": float(model_outputs["novelty"]) > 0}


def _active_config(model: Any) -> Any:
    """Config of the active adapter, held by peft's model or by transformers' own; None without one, or disabled."""
    if not getattr(model, "peft_config", None):
        return None
    names = model.active_adapters  # a list in peft, a method in transformers
    name = (names() if callable(names) else names)[0]
    return None if name in disabled_adapters(model) else model.peft_config[name]


def _preprocessing(model: Any, settings: dict[str, Any] | None) -> GRMPImageProcessor:
    if settings is not None:
        return GRMPImageProcessor(**settings)
    return preprocessing_beside(model.config._name_or_path, model.config)


def register() -> None:
    """Make the task known to ``transformers.pipeline``; harmless when it is known already."""
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=ImageQualityAssessmentPipeline,
            pt_model=_AnyScorer,
            type="image",
        )


register()
