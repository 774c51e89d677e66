"""``Scorer``: a model with its preprocessing and scale, turned on pictures one batch at a time.

Letters in shapes: B pictures, V views, S side of a view.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, normalize
from grmp_hf.pictures import Picture, each_picture, is_picture, read_picture
from grmp_hf.record import Record
from grmp_hf.views import all_views, iter_views, large_alone

__all__ = [
    "Picture",
    "ScoredPicture",
    "Scorer",
    "Scores",
    "warn_of",
]

_UNIT = RatingScale(0.0, 1.0)
_ON_CPU = 4  # pictures of one pass, which fit its caches: 16 take longer (benchmarks/bench_scoring_profile.py)


class Scores(NamedTuple):
    """Scores of B pictures.

    Attributes:
        quality: ``(B,)`` in [0, 1], 1 = best.
        score: ``(B,)``, the same on the scorer's scale.
    """

    quality: NDArray[np.float64]
    score: NDArray[np.float64]


class ScoredPicture(NamedTuple):
    """One row of a table of scores.

    Attributes:
        path: as it was given.
        score: on the scorer's scale, rounded to six digits; None for a bad picture.
        quality: in [0, 1], 1 = best, rounded to six digits; None for a bad picture.
        status: "ok", "not_finite", or one of ``grmp_hf.data.IMAGE_ERROR_CODES``.
        message: what is wrong and what to do; empty for a good picture.
        warning: "damaged" for a picture that was scored although a part of its data is lost; else empty.
    """

    path: str
    score: float | None
    quality: float | None
    status: str
    message: str
    warning: str = ""


@dataclass(frozen=True)
class Scorer:
    """Scores pictures; made by :func:`grmp_hf.load`.

    Attributes:
        model: ``GRMPForImageQualityAssessment``, alone (zero-shot) or with an adapter as ``PeftModel``, or a
            ``GRMPBakedScorer``; in eval mode.
        processor: makes the views.
        scale: the user's own scale; None without an adapter, or with one that records none: the score is the quality.
        identity: what exactly scores: model, revision, base_fingerprint, adapter, adapter_revision, adapter_sha256,
            preprocessing, dtype, versions.
        taught: which pictures have taught it and which test it, where that is known.
    """

    model: nn.Module
    processor: GRMPImageProcessor
    scale: RatingScale | None
    identity: dict[str, Any]
    taught: Split | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def unit(self) -> RatingScale:
        """The scale on which scores are given; 0 (worst) to 1 (best) where the scorer has none."""
        return self.scale or _UNIT

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

    def score(self, pictures: Picture | Iterable[Picture], *, batch_size: int = 16) -> Scores:
        """Score one picture or any number of them.

        Args:
            pictures: a :data:`~grmp_hf.pictures.Picture`, or an iterable of them: a list, a generator, a batch as
                array, a column of a `datasets.Dataset` or a data set with one column of pictures.
            batch_size: pictures that go through the model at once; changes nothing but speed.

        Returns:
            Arrays ``(B,)``, with B = 1 for a single picture.

        Raises:
            ImageError: a picture cannot be read; :meth:`iter_scores` reports it instead.
        """
        parts = all_views(each_picture(pictures), self.views, batch_size=batch_size)
        quality = [self.quality(pixels) for pixels in parts]
        if not quality:
            raise GRMPError("Expected at least one picture to score, got none.")
        joined = np.concatenate(quality)
        return Scores(joined, self.unit.to_score(joined))

    def iter_scores(
        self, paths: Iterable[str | os.PathLike[str]], *, batch_size: int = 16, workers: int | None = None
    ) -> Iterator[list[ScoredPicture]]:
        """Score files as a stream: a list of ``batch_size`` rows at a time, in the order of the paths.

        Pictures are decoded in threads ahead of the model; never more than three batches of views are held.

        Args:
            paths: any number of files.
            batch_size: rows of each list (the last may be shorter).
            workers: decoding threads; the number of cores, at most 8, if None.

        Raises:
            GRMPError: a single file or picture instead.
        """
        if is_picture(paths):
            raise GRMPError(f"Expected an iterable of files, got one: {paths!r}. Put it into a list, or use score().")
        return self._iter_scores(paths, batch_size, workers)

    def _iter_scores(
        self, paths: Iterable[str | os.PathLike[str]], batch_size: int, workers: int | None
    ) -> Iterator[list[ScoredPicture]]:
        warned: dict[int, str] = {}

        def look(item: tuple[int, str | os.PathLike[str]]) -> Tensor:
            return self.views(item[1], warn=functools.partial(warned.__setitem__, item[0]))

        for part in iter_views(enumerate(paths), look, batch_size=batch_size, workers=workers):
            good = [views for _, views in part if isinstance(views, Tensor)]
            quality = iter(self.quality(torch.stack(good)) if good else ())
            rows = []
            for (at, path), views in part:
                row = self.row(os.fspath(path), views if isinstance(views, ImageError) else next(quality))
                rows.append(row._replace(warning=warned.pop(at, "") if row.status == "ok" else ""))
            yield rows

    def row(self, path: str, found: float | ImageError) -> ScoredPicture:
        """The row of one picture, from its quality or from what is wrong with it."""
        if isinstance(found, ImageError):
            return ScoredPicture(path, None, None, found.code, str(found))
        quality = float(found)
        if not math.isfinite(quality):
            return ScoredPicture(path, None, None, "not_finite", "the model gave no number; use --dtype fp32")
        return ScoredPicture(path, round(self.unit.to_score(quality), 6), round(quality, 6), "ok", "")

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

        def decode(max_pixels: int) -> Tensor:
            decoder: Any = decode_row if isinstance(picture, Row) else read_picture
            return self.processor.pixels(decoder(picture, max_pixels=max_pixels, warn=tell))

        return large_alone(decode)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Normalise views, uint8 ``(B, V, 3, S, S)``, for the model: its device and type."""
        weight = next(self.model.parameters())
        values = normalize(pixels, self.processor.image_mean, self.processor.image_std)
        return values.to(weight.device, weight.dtype)

    def quality(self, pixels: Tensor) -> NDArray[np.float64]:
        """Quality ``(B,)`` of views, uint8 ``(B, V, 3, S, S)``."""
        return self.outputs(pixels).quality.double().cpu().numpy()  # type: ignore[no-any-return]

    def outputs(self, pixels: Tensor) -> Any:
        """The model's ``GRMPOutput`` for views, uint8 ``(B, V, 3, S, S)``, nothing recorded, nothing rounded."""
        size = _ON_CPU if self.device.type == "cpu" else max(len(pixels), 1)
        with torch.inference_mode():
            parts = [self.model(pixel_values=self.prepare(part)) for part in torch.split(pixels, size)]
        if len(parts) == 1:
            return parts[0]
        return type(parts[0])(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def warn_of(picture: Any, code: str) -> None:
    """Warn of what a decoder passed over in silence."""
    named = isinstance(picture, str | os.PathLike)
    name = picture.name if isinstance(picture, Row) else os.fspath(picture) if named else "a picture"
    warnings.warn(f"{name}: a part of its data is lost ({code}); it is scored as it is", ImageWarning, stacklevel=2)
