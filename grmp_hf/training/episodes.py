"""Episodes: a few rated pictures of one task to adapt to (support), and others of it to be judged on (query)."""

from __future__ import annotations

import bisect
import itertools
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.objectives import Batch
from grmp_hf.training.sampling import EpochDataset

__all__ = ["ConcatEpisodes", "Episode", "EpisodeDataset", "Episodes", "collate_episodes", "hold_out_tasks"]

T = TypeVar("T")


class Episode(TypedDict):
    """One task as the inner loop meets it. A plain dictionary, so that loaders and devices know how to move it.

    Attributes:
        task: its name.
        support: batches to adapt to.
        query: batches to be judged on, of other reference photographs.
        fresh_optimizer: whether an inner run that lasts over tasks begins its moments anew here (``authors`` alone).
    """

    task: str
    support: list[Batch]
    query: list[Batch]
    fresh_optimizer: NotRequired[bool]


class Episodes(EpochDataset[Episode]):
    """A data set whose items are episodes, each a function of (epoch, index)."""

    @abstractmethod
    def __len__(self) -> int:
        """Episodes of an epoch."""

    @abstractmethod
    def __getitem__(self, key: int | tuple[int, int]) -> Episode:
        """The episode at ``(epoch, index)``; a bare index means epoch 0."""


class EpisodeDataset(Episodes, Generic[T]):
    """Draws episodes from tasks; every epoch visits all tasks in another order.

    For each episode the references of its task are divided at random in the proportion of support to query, and the
    pictures of each side are drawn from its references: support and query never share one.

    Args:
        tasks: name -> its pictures, as anything that ``load`` understands: rows, indices, (photograph, level).
        load: ``(picture, seed)`` -> one row of a batch, with ``labels`` in [0, 1] on a scale that all tasks share. The
            seed is for whatever is random in it, a crop or a distortion, and differs from episode to episode.
        reference_of: picture -> the photograph that it was made from.
        quality_of: picture -> its label, to refuse tasks whose labels are all alike; None where only ``load`` knows.
        support, query: pictures of each.
        support_batch_size, query_batch_size: pictures of a batch inside an episode; None for all at once.
        visits: episodes of each task in an epoch.
        rescale_labels: spread the labels of the support, and those of the query, over [0, 1], as the reference does.
            The labels of two tasks then no longer mean the same.
        fresh_optimizer: mark the episodes so; see :class:`Episode`.
        seed: of everything random.

    Raises:
        GRMPError: no task, sizes below 1, a task with too few pictures or references, or with constant labels.
    """

    def __init__(
        self,
        tasks: Mapping[str, Sequence[T]],
        load: Callable[[T, int], Batch],
        *,
        reference_of: Callable[[T], Hashable],
        quality_of: Callable[[T], float] | None = None,
        support: int = 16,
        query: int = 16,
        support_batch_size: int | None = None,
        query_batch_size: int | None = None,
        visits: int = 1,
        rescale_labels: bool = False,
        fresh_optimizer: bool = False,
        seed: int = 0,
    ) -> None:
        self.tasks, self.load, self.names = tasks, load, list(tasks)
        self.sizes = (support, query)
        self.batch_sizes = (support_batch_size or support, query_batch_size or query)
        self.visits, self.seed = visits, seed
        self.rescale_labels, self.fresh_optimizer = rescale_labels, fresh_optimizer
        if not tasks or min(*self.sizes, *self.batch_sizes, visits) < 1:
            raise GRMPError(
                f"Expected at least one task, and sizes and visits of at least 1, got {len(tasks)} tasks, "
                f"support={support}, query={query}, batches of {self.batch_sizes}, visits={visits}."
            )
        self._groups = {name: _grouped(pictures, reference_of) for name, pictures in tasks.items()}
        for name, pictures in tasks.items():
            self._check_room(name)
            if quality_of is not None and len({quality_of(picture) for picture in pictures}) == 1:
                raise GRMPError(
                    f"Expected pictures of different quality in task {name!r}, got {len(pictures)} whose labels are "
                    "all alike. Leave the task out, or add pictures of other quality."
                )

    def _check_room(self, name: str) -> None:
        """Raise unless every draw of references leaves enough pictures on both sides."""
        groups = sorted(map(len, self._groups[name]))
        cut = self._cut(len(groups))
        fewest = (sum(groups[:cut]), sum(groups[: len(groups) - cut]))
        if fewest[0] < self.sizes[0] or fewest[1] < self.sizes[1]:
            raise GRMPError(
                f"Expected task {name!r} to have {self.sizes[0]} pictures for the support and {self.sizes[1]} of other "
                f"references for the query, got {sum(groups)} pictures of {len(groups)} references. Add photographs, "
                "or ask for a smaller support or query (of a held-out task, held_out_support or held_out_query)."
            )

    def _cut(self, references: int) -> int:
        share = self.sizes[0] / sum(self.sizes)
        return min(max(round(references * share), 1), references - 1)

    def __len__(self) -> int:
        return self.visits * len(self.names)

    def __getitem__(self, key: int | tuple[int, int]) -> Episode:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index below {len(self)}, got {index}.")
        visit, place = divmod(index, len(self.names))
        order = np.random.default_rng([self.seed, epoch, 0, visit]).permutation(len(self.names))
        name = self.names[order[place]]
        random = np.random.default_rng([self.seed, epoch, 1, index])
        support, query = self._draw(name, random)
        episode: Episode = {
            "task": name,
            "support": self._batches(name, support, self.batch_sizes[0], random),
            "query": self._batches(name, query, self.batch_sizes[1], random),
        }
        return {**episode, "fresh_optimizer": True} if self.fresh_optimizer else episode

    def _draw(self, name: str, random: np.random.Generator) -> tuple[list[int], list[int]]:
        """Places of the support's and of the query's pictures in their task."""
        groups = self._groups[name]
        order, cut = random.permutation(len(groups)), self._cut(len(groups))
        sides = ([i for group in part for i in groups[group]] for part in (order[:cut], order[cut:]))
        support, query = (random.permutation(side)[:n].tolist() for side, n in zip(sides, self.sizes, strict=True))
        return support, query

    def _batches(self, name: str, places: list[int], size: int, random: np.random.Generator) -> list[Batch]:
        seeds = random.integers(2**63, size=len(places)).tolist()
        rows = [self.load(self.tasks[name][place], seed) for place, seed in zip(places, seeds, strict=True)]
        columns = {column: torch.stack([row[column] for row in rows]) for column in rows[0]}
        if self.rescale_labels:
            columns["labels"] = _spread(columns["labels"])
        parts = {column: torch.split(values, size) for column, values in columns.items()}
        return [dict(zip(parts, part, strict=True)) for part in zip(*parts.values(), strict=True)]


class ConcatEpisodes(Episodes):
    """One data set of episodes after another, as the reference goes through TID2013 and then KADID-10k."""

    def __init__(self, parts: Sequence[Episodes]) -> None:
        self.parts = list(parts)
        self.ends = list(itertools.accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, key: int | tuple[int, int]) -> Episode:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index below {len(self)}, got {index}.")
        part = bisect.bisect_right(self.ends, index)
        return self.parts[part][epoch, index - (self.ends[part - 1] if part else 0)]


def _grouped(pictures: Sequence[T], reference_of: Callable[[T], Hashable]) -> list[list[int]]:
    """Places of the pictures of each reference."""
    groups: dict[Hashable, list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(reference_of(picture), []).append(place)
    return list(groups.values())


def _spread(labels: Tensor) -> Tensor:
    """Labels ``(n,)`` moved so that the lowest is 0 and the highest 1; equal ones stay what they are."""
    low, high = labels.min(), labels.max()
    return (labels - low) / (high - low) if high > low else labels


def collate_episodes(episodes: Sequence[Episode]) -> dict[str, Any]:
    """A batch of episodes, as :class:`~grmp_hf.GRMPTrainer` knows it: they stay apart."""
    return {"episodes": list(episodes)}


def hold_out_tasks(
    tasks: Mapping[str, Sequence[T]],
    names: Sequence[str],
    *,
    reference_of: Callable[[T], Hashable],
    share: float = 0.2,
    seed: int = 0,
) -> tuple[dict[str, list[T]], dict[str, list[T]]]:
    """Divide tasks into some to learn from and some to choose a checkpoint by; no reference is in both.

    Args:
        tasks: as for :class:`EpisodeDataset`.
        names: tasks to hold out.
        reference_of: picture -> the photograph that it was made from.
        share: of all references, those of the held-out tasks.
        seed: of the choice of references.

    Returns:
        The other tasks with the other references, and the held-out tasks with theirs.

    Raises:
        GRMPError: a name that is no task, no task left to learn from, or a share that leaves one side empty.
    """
    unknown = sorted(set(names) - set(tasks))
    if unknown or not names or len(set(names)) == len(tasks):
        raise GRMPError(
            f"Expected some but not all of the tasks {', '.join(tasks)} to hold out, got {', '.join(names) or 'none'}."
        )
    references = list(dict.fromkeys(reference_of(picture) for pictures in tasks.values() for picture in pictures))
    count = round(share * len(references))
    if not 0 < count < len(references):
        raise GRMPError(
            f"Expected a share that leaves references on both sides, got {share} of {len(references)} references."
        )
    order = np.random.default_rng(seed).permutation(len(references))
    held = {references[place] for place in order[:count]}
    learning = {name: [p for p in tasks[name] if reference_of(p) not in held] for name in tasks if name not in names}
    return learning, {name: [p for p in tasks[name] if reference_of(p) in held] for name in names}
