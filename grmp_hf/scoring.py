"""``Scorer``: a model with its preprocessing and scale, turned on pictures one batch at a time.

Letters in shapes: B pictures, V views, S side of a view.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grmp_hf.data.columns import Row
from grmp_hf.data.image_errors import ImageWarning
from grmp_hf.data.images import ImageError
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.sources import decode_row
from grmp_hf.data.splits import Split
from grmp_hf.errors import GRMPError
from grmp_hf.explaining import explain_output, explainer_for
from grmp_hf.modeling.caching import acting_adapters, check_acting
from grmp_hf.modeling.explaining import Explainer
from grmp_hf.modeling.feature_map import quality_interval
from grmp_hf.modeling.image_processing_grmp import TILES, GRMPImageProcessor, normalize
from grmp_hf.pictures import Picture, as_path, content_of, each_picture, is_picture, no_pictures, read_picture
from grmp_hf.record import Record
from grmp_hf.scores import ScoredPicture, Scores, remedy
from grmp_hf.views import all_views, iter_warned, large_alone

__all__ = ["INTERVAL", "Picture", "ScoredPicture", "Scorer", "Scores", "joined", "warn_of"]

INTERVAL = 0.9
"""Share of new ratings that lie between the bounds of a score, unless told otherwise."""

_UNIT = RatingScale(0.0, 1.0)
_ON_CPU = 4  # pictures of one pass, which fit its caches: 16 take longer (benchmarks/bench_scoring_profile.py)


@dataclass(frozen=True)
class Scorer:
    """Scores pictures; made by :func:`grmp_hf.load`.

    Attributes:
        model: ``GRMPForImageQualityAssessment``, alone (zero-shot) or with an adapter as ``PeftModel``, ``Experts``, or
            a ``GRMPBakedScorer``; in eval mode.
        processor: makes the views.
        scale: the user's own scale; None without an adapter, or with one that records none: the score is the quality.
        identity: what exactly scores: model, revision, base_fingerprint, side_fingerprint, adapter, adapter_revision,
            adapter_sha256, preprocessing, dtype, versions.
        taught: which pictures have taught it and which test it, where that is known.
    """

    model: nn.Module
    processor: GRMPImageProcessor
    scale: RatingScale | None
    identity: dict[str, Any]
    taught: Split | None = None
    _acting: Any = dataclasses.field(default=None, repr=False, compare=False)  # the model, what acted in it at first

    def __post_init__(self) -> None:
        if self._acting is None or self._acting[0] is not self.model:
            object.__setattr__(self, "_acting", (self.model, acting_adapters(self.model)))
        object.__setattr__(self, "identity", dict(self.identity))

    def __repr__(self) -> str:
        by = " + ".join(str(self.identity[name]) for name in ("model", "adapter") if self.identity.get(name))
        return f"Scorer({by or type(self.model).__name__}; {self.unit}; {self.device})"

    def check_adapter(self) -> None:
        """Raise unless the adapter that acts in the model is the one that scale and identity speak of.

        Raises:
            GRMPError: another one has been made active, put there or taken out since, or it is disabled.
        """
        check_acting(self.model, self._acting[1], self.identity.get("adapter"))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def unit(self) -> RatingScale:
        """The scale on which scores are given; 0 (worst) to 1 (best) where the scorer has none."""
        return self.scale or _UNIT

    @property
    def about_base(self) -> dict[str, Any]:
        """What decides about all that the base says of a picture: a part of the identity."""
        return {
            name: self.identity[name] for name in ("base_fingerprint", "side_fingerprint", "preprocessing", "dtype")
        }

    @property
    def origin(self) -> dict[str, Any]:
        """What has taught it, and how, as far as its adapter or model records it."""
        model: Any = self.model
        config = getattr(model, "active_peft_config", None) or model.config
        return dict(Record.of(config).provenance or {})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what is needed to load it again; see :func:`grmp_hf.saving.save`."""
        from grmp_hf.saving import save

        save(self, folder)

    def score(
        self,
        pictures: Picture | Iterable[Picture],
        *,
        batch_size: int = 16,
        interval: float = INTERVAL,
        explain: bool = False,
    ) -> Scores:
        """Score one picture or any number of them.

        Args:
            pictures: a :data:`~grmp_hf.pictures.Picture`, or an iterable of them: a list, a generator, an array, a
                column of a `datasets.Dataset` or a data set with one column of pictures.
            batch_size: pictures that go through the model at once; changes nothing but speed.
            interval: share of new ratings that lie between ``low`` and ``high``, in (0, 1).
            explain: say which distortion and scene each picture shows, from the same pass.

        Returns:
            Arrays ``(B,)``, with B = 1 for a single picture.

        Raises:
            ImageError: a picture cannot be read; :meth:`iter_scores` reports it instead.
            GRMPError: it is to explain, and cannot; see :attr:`explainer`.
        """
        judge = self._judging(interval, explain)
        parts = all_views(each_picture(pictures), self.views, batch_size=batch_size, numbered=not is_picture(pictures))
        found = [judge(pixels) for pixels in parts]
        if not found:
            raise no_pictures()
        return Scores._make(None if part[0] is None else np.concatenate(part) for part in zip(*found, strict=True))

    def compare(self, first: Picture, second: Picture, *, noise: float | None = None) -> float:
        """The probability that the first of two pictures is better; see :func:`grmp_hf.preferring.compare`.

        Args:
            first, second: see :data:`Picture`.
            noise: of scorers that do not know how sure they are, in quality; .2 if None.

        Raises:
            ImageError: a picture cannot be read.
        """
        from grmp_hf.preferring import NOISE, compare

        return float(compare(self, [first, second], noise=NOISE if noise is None else noise).chance[0, 1])

    def iter_scores(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        batch_size: int = 16,
        workers: int | None = None,
        interval: float = INTERVAL,
        explain: bool = False,
    ) -> Iterator[list[ScoredPicture]]:
        """Score files as a stream: a list of ``batch_size`` rows at a time, in the order of the paths.

        Pictures are decoded in threads ahead of the model; never more than three batches of views are held.

        Args:
            paths: any number of files.
            batch_size: rows of each list (the last may be shorter).
            workers: decoding threads; the number of cores, at most 8, if None.
            interval, explain: as for :meth:`score`.

        Raises:
            ImageError: what is no path is among them.
            GRMPError: a single file or picture instead, or it is to explain, and cannot.
        """
        if is_picture(paths) or not isinstance(paths, Iterable):
            raise GRMPError(f"Expected an iterable of files, got one: {paths!r}. Put it into a list, or use score().")
        return self._iter_scores(paths, batch_size, workers, self._judging(interval, explain))

    def _iter_scores(
        self,
        paths: Iterable[Any],
        batch_size: int,
        workers: int | None,
        judge: Callable[[Tensor], Scores],
    ) -> Iterator[list[ScoredPicture]]:
        for part in iter_warned(map(as_path, paths), self.views, batch_size=batch_size, workers=workers):
            good = [views for _, views, _ in part if isinstance(views, Tensor)]
            judged = map(judge(torch.stack(good)).of, itertools.count()) if good else iter(())
            rows = []
            for path, views, warning in part:
                row = self.row(os.fspath(path), views if isinstance(views, ImageError) else next(judged))
                rows.append(row._replace(warning=warning if row.status == "ok" else ""))
            yield rows

    def row(self, path: str, found: float | Scores | ImageError) -> ScoredPicture:
        """The row of one picture, from its quality or its scores (:meth:`Scores.of`), or from what is wrong with it."""
        if isinstance(found, ImageError):
            return ScoredPicture(path, None, None, found.code, str(found))
        scores = found if isinstance(found, Scores) else None
        quality = float(found.quality if isinstance(found, Scores) else found)
        if not math.isfinite(quality):
            return ScoredPicture(path, None, None, "not_finite", f"the model gave no number; {remedy(self.identity)}")
        row = ScoredPicture(path, round(self.unit.to_score(quality), self.unit.places), round(quality, 6), "ok", "")
        if scores is not None and scores.explained is not None:
            row = row._replace(**scores.explained.cells())  # type: ignore[attr-defined]
        if scores is not None and scores.experts is not None:
            names: Any = self.model.names
            shares = [round(share, 6) for share in scores.experts.tolist()]
            row = row._replace(experts=dict(zip(names, shares, strict=True)))
        if scores is None or scores.low is None or scores.high is None:
            return row
        low, high = (round(float(bound), self.unit.places) for bound in (scores.low, scores.high))
        return row._replace(low=low, high=high, unlike=bool(scores.unlike))

    def views(self, picture: Picture | Row, *, warn: Callable[[str], None] | None = None) -> Tensor:
        """The views of a picture, or of that of a rated row, before normalisation: uint8 ``(V, 3, S, S)``.

        Args:
            picture: see :data:`Picture`.
            warn: told "damaged" of a file that can be read although a part of its data is lost; a Python warning if
                None.

        Raises:
            ImageError: it cannot be read.
        """

        tell = warn or functools.partial(warn_of, picture)
        picture = content_of(picture)  # an open file is read once

        def decode(max_pixels: int) -> Tensor:
            decoder: Any = decode_row if isinstance(picture, Row) else read_picture
            return self.processor.pixels(decoder(picture, max_pixels=max_pixels, warn=tell))

        return large_alone(decode)

    def without_tiles(self) -> Scorer:
        """The same without the views that only a side network reads, for what learns on the tower's own views."""
        settings = self.processor.settings()
        fewer = {**settings, "views": [view for view in settings["views"] if view != TILES]}
        identity = {**self.identity, "preprocessing": fewer}
        return dataclasses.replace(self, processor=GRMPImageProcessor(**fewer), identity=identity)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Normalise views, uint8 ``(B, V, 3, S, S)``, for the model: its device and type.

        Raises:
            GRMPError: another adapter acts in it than at first, or none.
        """
        self.check_adapter()
        weight = next(self.model.parameters())
        self.identity["dtype"] = str(weight.dtype).removeprefix("torch.")  # which .half() changes
        values = normalize(pixels, self.processor.image_mean, self.processor.image_std)
        return values.to(weight.device, weight.dtype)

    def quality(self, pixels: Tensor) -> NDArray[np.float64]:
        """Quality ``(B,)`` of views, uint8 ``(B, V, 3, S, S)``."""
        return _array(self.outputs(pixels).quality)

    @functools.cached_property
    def explainer(self) -> Explainer:
        """What tells which distortion and scene a picture shows.

        Raises:
            GRMPError: the model has nothing that could.
        """
        return explainer_for(self.model)

    def _judging(self, interval: float, explain: bool) -> Callable[[Tensor], Scores]:
        """:meth:`judge`; what cannot be explained is refused here, before the first picture."""
        _ = self.explainer if explain else None
        return functools.partial(self.judge, interval=interval, explain=explain)

    def judge(self, pixels: Tensor, interval: float = INTERVAL, *, explain: bool = False) -> Scores:
        """Scores of views, uint8 ``(B, V, 3, S, S)``; see :meth:`score`."""
        if not 0 < interval < 1:
            raise GRMPError(f"Expected an interval that holds a share of new ratings, in (0, 1), got {interval}.")
        found = self.outputs(pixels, side=explain and self.explainer.needs_side)
        scores = self.scores(found, interval)
        if not explain:
            return scores
        return scores._replace(explained=np.array(explain_output(self.explainer, found), dtype=object))

    def scores(self, found: Any, interval: float = INTERVAL) -> Scores:
        """Scores from the model's ``GRMPOutput``; see :meth:`score`."""
        quality = _array(found.quality)
        score = self.unit.to_score(quality)
        weights = getattr(found, "weights", None)
        experts = None if weights is None else _array(weights)
        if found.deviation is None:
            return Scores(quality, score, experts=experts)
        bounds = quality_interval(found.quality, found.deviation, found.degrees, interval)
        low, high = np.sort([self.unit.to_score(_array(bound)) for bound in bounds], axis=0)
        return Scores(quality, score, low, high, _array(found.novelty) > 0)

    def outputs(self, pixels: Tensor, *, side: bool = False) -> Any:
        """The model's ``GRMPOutput`` for views, uint8 ``(B, V, 3, S, S)``, nothing recorded, nothing rounded.

        Args:
            pixels: the views.
            side: also give what the side network says.
        """
        options = {"output_side": True} if side else {}
        with torch.inference_mode():
            return joined([self.model(pixel_values=part, **options) for part in self.passes(pixels)])

    def passes(self, pixels: Tensor) -> Iterator[Tensor]:
        """Views, uint8 ``(B, V, 3, S, S)``, normalised, as many pictures at once as the device takes best."""
        size = _ON_CPU if self.device.type == "cpu" else max(len(pixels), 1)
        return map(self.prepare, torch.split(pixels, size))


def joined(parts: Sequence[Any]) -> Any:
    """One ``GRMPOutput`` of several."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(**{name: _cat([part[name] for part in parts]) for name in parts[0]})


def _cat(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: torch.cat([value[name] for value in values]) for name in values[0]}
    return torch.cat(list(values))


def _array(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found


def warn_of(picture: Any, code: str) -> None:
    """Warn of what a decoder passed over in silence."""
    named = isinstance(picture, str | os.PathLike)
    name = picture.name if isinstance(picture, Row) else os.fspath(picture) if named else "a picture"
    warnings.warn(f"{name}: a part of its data is lost ({code}); it is scored as it is", ImageWarning, stacklevel=2)
