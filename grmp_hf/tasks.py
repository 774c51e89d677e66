"""Tasks to pre-train on, from photographs that are distorted on the fly or from rated pictures; ready for episodes."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from grmp_hf.data import ImageError, RatedTable, Row, decode_row
from grmp_hf.data.distortions import Pixels
from grmp_hf.data.photographs import Photographs
from grmp_hf.data.splits import own_parts
from grmp_hf.data.synthetic import LABELS, Labeller, SyntheticPicture, distorted_crop, random_crop, synthetic_tasks
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, normalize
from grmp_hf.training.episodes import ConcatEpisodes, EpisodeDataset, Episodes, hold_out_tasks
from grmp_hf.training.objectives import Batch
from grmp_hf.training.recipes import PretrainRecipe

__all__ = ["HELD_OUT", "Source", "Tasks", "divide", "from_photographs", "from_table"]

HELD_OUT = ("lens_blur", "jpeg", "multiplicative_noise", "darken")
"""Types of distortion that are held out unless others are named: of four families, so that each is learnt from too."""

_EVERY = 5  # of the tasks of a table that has none of these types, every fifth is held out


@dataclass(frozen=True)
class Source:
    """Tasks of one kind, and what episodes need to know of their pictures; all of it can be sent to loading processes.

    Attributes:
        name: of the folder or table.
        tasks: name -> pictures.
        load: (picture, seed) -> a row of a batch.
        reference_of: picture -> the photograph that it was made from.
        quality_of: picture -> label; None where only `load` knows.
        content_hash: of photographs, or of ratings and their scale.
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

    def judged(self, judge: Callable[[Sequence[Pixels]], Sequence[float]]) -> Source:
        """With labels that are multiplied by the quality of the photographs; rated pictures stay as they are.

        Args:
            judge: photographs as arrays -> quality in [0, 1] of each, before it is distorted.
        """
        if not isinstance(self.load, _SyntheticLoader):
            return self
        return replace(self, load=replace(self.load, quality=judge(self.load.photographs)))


@dataclass(frozen=True)
class Tasks:
    """Tasks to learn from, and others that choose the checkpoint.

    Attributes:
        learning, held_out: their names.
        episodes, judging: episodes of them.
        contents: name of each source -> hash of its photographs or ratings.
    """

    learning: tuple[str, ...]
    held_out: tuple[str, ...]
    episodes: Episodes
    judging: Episodes
    contents: Mapping[str, str]

    @property
    def data_hash(self) -> str:
        """SHA-256, in hexadecimal, of all sources."""
        return hashlib.sha256(json.dumps(dict(self.contents), sort_keys=True).encode()).hexdigest()


def divide(
    sources: Sequence[Source], recipe: PretrainRecipe, *, held_out: Sequence[str] | None = None, seed: int = 0
) -> Tasks:
    """Divide the tasks of all sources into some to learn from and some that choose the checkpoint.

    Args:
        sources: at least one.
        recipe: says how large episodes are and how many references are held out.
        held_out: names of tasks; None for `HELD_OUT`, or every fifth task of a table that has none of these.
        seed: of the division and of episodes.

    Raises:
        GRMPError: a name that no source has, nothing left on one side, or too few pictures for an episode.
    """
    known = [name for source in sources for name in source.tasks]
    unknown = [name for name in held_out or () if name not in known]
    if unknown:
        raise GRMPError(f"held_out (--held-out): expected tasks out of {', '.join(known)}, got {', '.join(unknown)}")
    episodes: tuple[list[Episodes], list[Episodes]] = ([], [])
    names: tuple[list[str], list[str]] = ([], [])
    sizes = (recipe.learning_episodes, recipe.held_out_episodes)
    for source in sources:
        held = [name for name in source.tasks if name in (_usual(source) if held_out is None else held_out)]
        fresh = source.dataset in recipe.fresh_optimizer
        for found, kept, tasks, size in zip(episodes, names, _parts(source, held, recipe, seed), sizes, strict=True):
            if tasks:
                found.append(source.episodes(tasks, fresh_optimizer=fresh, seed=seed, **size))
                kept.extend(tasks)
    if not all(episodes):
        raise GRMPError(
            f"Expected tasks to learn from and others to choose a checkpoint by, got {len(names[0])} and "
            f"{len(names[1])}. Add pictures of other distortions, or name others to hold out (--held-out)."
        )
    contents = {source.name: source.content_hash for source in sources}
    learning, judging = map(ConcatEpisodes, episodes)
    return Tasks(tuple(names[0]), tuple(names[1]), learning, judging, contents)


def _usual(source: Source) -> list[str]:
    """Tasks to hold out where nobody names any."""
    return [name for name in HELD_OUT if name in source.tasks] or sorted(source.tasks)[_EVERY - 1 :: _EVERY]


def _parts(
    source: Source, held: Sequence[str], recipe: PretrainRecipe, seed: int
) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Sequence[Any]]]:
    if not held:
        return source.tasks, {}
    if len(held) == len(source.tasks):
        return {}, source.tasks
    return hold_out_tasks(source.tasks, held, reference_of=source.reference_of, share=recipe.held_out_share, seed=seed)


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

    Only rows that may teach are taken, see `own_parts`: what tests an adapter later must not teach its start.

    Raises:
        GRMPError: all rows are of a test part.
    """
    rows, _ = own_parts(table)
    if not rows:
        raise GRMPError(f"{table.name}: expected ratings to learn from, got {len(table.rows)} that are all for testing")
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.distortion or table.name, []).append(row)
    reference_of = functools.partial(_reference, column=table.content)
    dataset = rows[0].dataset or table.name
    load = _RatedLoader(processor)
    said = json.dumps([table.content_hash, table.scale.to_dict()], sort_keys=True)
    content_hash = hashlib.sha256(said.encode()).hexdigest()
    return Source(table.name, tasks, load, reference_of, attrgetter("quality"), content_hash, dataset)


def _reference(row: Row, column: str) -> Hashable:
    return getattr(row, column) or row.name


@dataclass(frozen=True)
class _SyntheticLoader:
    photographs: Sequence[Pixels]
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


def _row(picture: Pixels, quality: float, processor: GRMPImageProcessor) -> Batch:
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    values = normalize(pixels, processor.image_mean, processor.image_std)
    return {"pixel_values": values, "labels": torch.tensor(quality, dtype=torch.float32)}
