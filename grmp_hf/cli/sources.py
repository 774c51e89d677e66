"""Where tasks come from: photographs that are distorted on the fly, or rated pictures; ready for episodes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from grmp_hf.data import ImageError, RatedTable, Row, decode_row
from grmp_hf.data.distortions import Picture
from grmp_hf.data.photographs import Photographs
from grmp_hf.data.synthetic import LABELS, Labeller, SyntheticPicture, distorted_crop, random_crop, synthetic_tasks
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, normalize
from grmp_hf.training.episodes import Batch, EpisodeDataset

__all__ = ["Source", "from_photographs", "from_table"]


@dataclass(frozen=True)
class Source:
    """Tasks of one kind, and what episodes need to know of their pictures; all of it can be sent to loading processes.

    Attributes:
        name: of the folder or table.
        tasks: name -> pictures.
        load: (picture, seed) -> a row of a batch.
        reference_of: picture -> the photograph that it was made from.
        quality_of: picture -> label; None where only `load` knows.
        content_hash: of photographs or ratings.
        dataset: short name of an official data set, else that of the table.
    """

    name: str
    tasks: Mapping[str, Sequence[Any]]
    load: Callable[[Any, int], Batch]
    reference_of: Callable[[Any], Hashable]
    quality_of: Callable[[Any], float] | None
    content_hash: str
    dataset: str

    def episodes(self, tasks: Mapping[str, Sequence[Any]], **options: Any) -> EpisodeDataset[Any]:
        """Episodes of some of the tasks, or of a part of their pictures; options are those of `EpisodeDataset`."""
        return EpisodeDataset(tasks, self.load, reference_of=self.reference_of, quality_of=self.quality_of, **options)


def from_photographs(
    name: str,
    photographs: Photographs,
    processor: GRMPImageProcessor,
    labels: str,
    quality: Sequence[float] | None = None,
) -> Source:
    """Tasks by distorting photographs on the fly.

    Args:
        name: of their folder.
        photographs: with sides of at least the processor's size, see `GRMPImageProcessor.uncropped`.
        processor: says size and normalisation of a view.
        labels: a name in `LABELS`.
        quality: of each photograph, in [0, 1], before it is distorted, by which its labels are multiplied; None where
            all are taken for perfect.
    """
    load = _SyntheticLoader(photographs.pictures, processor, LABELS[labels], quality)
    tasks = synthetic_tasks(len(photographs))
    return Source(name, tasks, load, attrgetter("photograph"), None, photographs.content_hash, name)


def from_table(table: RatedTable, processor: GRMPImageProcessor) -> Source:
    """Tasks by the column `distortion` of ratings; without that column the table is one task.

    Rows of a test part are left out: what tests an adapter later must not teach its start.

    Raises:
        GRMPError: all rows are of a test part.
    """
    rows = [row for row in table.rows if row.split != "test"]
    if not rows:
        raise GRMPError(f"{table.name}: expected ratings to learn from, got {len(table.rows)} that are all for testing")
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.distortion or table.name, []).append(row)
    reference_of = functools.partial(_reference, column=table.content)
    dataset = rows[0].dataset or table.name
    load = _RatedLoader(processor)
    return Source(table.name, tasks, load, reference_of, attrgetter("quality"), table.content_hash, dataset)


def _reference(row: Row, column: str) -> Hashable:
    return getattr(row, column) or row.name


@dataclass(frozen=True)
class _SyntheticLoader:
    photographs: Sequence[Picture]
    processor: GRMPImageProcessor
    label: Labeller
    quality: Sequence[float] | None

    def __call__(self, picture: SyntheticPicture, seed: int) -> Batch:
        photograph, size = self.photographs[picture.photograph], self.processor.size
        made, kept = distorted_crop(photograph, picture.kind, picture.level, size=size, seed=seed, label=self.label)
        own = 1.0 if self.quality is None else self.quality[picture.photograph]
        return _row(made, own * kept, self.processor)


@dataclass(frozen=True)
class _RatedLoader:
    processor: GRMPImageProcessor

    def __call__(self, row: Row, seed: int) -> Batch:
        try:
            picture = np.asarray(self.processor.uncropped(decode_row(row)))
        except ImageError as error:
            raise GRMPError(f"{row.name}: {error}; the same command then goes on") from error
        return _row(random_crop(picture, self.processor.size, np.random.default_rng(seed)), row.quality, self.processor)


def _row(picture: Picture, quality: float, processor: GRMPImageProcessor) -> Batch:
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    values = normalize(pixels, processor.image_mean, processor.image_std)
    return {"pixel_values": values, "labels": torch.tensor(quality, dtype=torch.float32)}
