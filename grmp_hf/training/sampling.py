"""Plans: which pictures a step learns from, the same for any number of processes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from grmp_hf.errors import GRMPError

__all__ = [
    "EpochDataset",
    "EpochLoader",
    "Group",
    "Grouped",
    "Key",
    "Plan",
    "PlanSampler",
    "collate_groups",
    "in_order",
    "repeated",
    "shuffled",
    "within",
]

Item = TypeVar("Item", covariant=True)

Key = tuple[int, int]
"""(epoch, index) of a row."""
Group = Sequence[Key]
"""Rows that belong together: a picture alone, a pair, ten of which one is compared with nine. No process cuts it."""
Plan = Callable[[int], Iterable[Sequence[Group]]]
"""Epoch -> its joint batches, of all processes together; as many in every epoch, and a function of the epoch alone."""


class EpochDataset(Dataset[Item]):
    """A data set that is asked by (epoch, index), so that what is random in a row may differ from epoch to epoch."""


def shuffled(length: int, joint: int, *, seed: int = 0, drop_last: bool = False) -> Plan:
    """Every row once in an epoch, each for itself, in an order that is a function of (seed, epoch).

    Args:
        length: of the data set.
        joint: rows of all processes together.
        seed: of the order.
        drop_last: leave out the last joint batch of an epoch if it has fewer.
    """

    def plan(epoch: int) -> list[list[Group]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return _cut(torch.randperm(length, generator=generator).tolist(), epoch, joint, drop_last)

    return plan


def in_order(length: int, joint: int, *, drop_last: bool = False) -> Plan:
    """:func:`shuffled` without the shuffling: for episodes, whose data set has an order of its own in each epoch."""
    return lambda epoch: _cut(range(length), epoch, joint, drop_last)


def within(sets: Sequence[Any], size: int, joint: int = 1, *, seed: int = 0, across: bool = False) -> Plan:
    """Groups of pictures of one data set, whose pairs teach; every picture once in an epoch, in a seeded order.

    Groups have ``size`` pictures, and as many more, one each, as it takes to leave none alone: a data set of 7 in
    groups of 3 gives one of 3 and one of 4. A group of n pictures has n (n - 1) / 2 pairs.

    Args:
        sets: ``(n,)``, the data set of each row, such as its column ``dataset``.
        size: pictures of a group, at least 2; a smaller data set is one group.
        joint: groups of a joint batch, of all processes together.
        seed: of the order, which is a function of (seed, epoch).
        across: let pictures of different data sets meet, whose ratings then have to mean the same.

    Raises:
        GRMPError: sizes that leave no pair, or a data set of a single picture.
    """
    if size < 2 or joint < 1:
        raise GRMPError(
            f"Expected groups of at least 2 pictures, since one has no pair, and at least 1 in a joint batch, got "
            f"groups of {size} and {joint} of them."
        )
    places: dict[Any, list[int]] = {}
    for index, name in enumerate(sets):
        places.setdefault("all" if across else name, []).append(index)
    alone = [str(name) for name, rows in places.items() if len(rows) < 2]
    if alone or not places:
        raise GRMPError(
            f"Expected at least 2 pictures of each data set, since pairs are taken within one, got 1 of "
            f"{', '.join(alone) or 'none'}. Leave it out, or, in a plan of your own, take across=True where ratings "
            "mean the same in all."
        )

    def plan(epoch: int) -> list[list[Group]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        groups: list[Group] = []
        for rows in places.values():
            order = torch.randperm(len(rows), generator=generator).tolist()
            groups += [[(epoch, rows[at]) for at in part] for part in _evenly(order, max(len(order) // size, 1))]
        mixed = [groups[at] for at in torch.randperm(len(groups), generator=generator).tolist()]
        return [mixed[at : at + joint] for at in range(0, len(mixed), joint)]

    return plan


def repeated(plan: Plan, passes: int) -> Plan:
    """Several passes over the data as one epoch, each asking for rows of its own epoch: crops differ in every pass.

    With one crop a row this is ``passes`` crops of every picture in an epoch, each an example of its own, a function of
    (seed, epoch, index).

    Args:
        plan: of one pass; its epochs ``passes * e`` to ``passes * (e + 1) - 1`` are epoch e.
        passes: at least 1.
    """
    return lambda epoch: itertools.chain.from_iterable(plan(passes * epoch + at) for at in range(passes))


def _evenly(order: Sequence[int], parts: int) -> list[Sequence[int]]:
    """Cut into parts whose lengths differ by at most one."""
    ends = [len(order) * part // parts for part in range(parts + 1)]
    return [order[begin:end] for begin, end in itertools.pairwise(ends)]


def _cut(order: Sequence[int], epoch: int, joint: int, drop_last: bool) -> list[list[Group]]:
    end = len(order) - len(order) % joint if drop_last else len(order)
    return [[((epoch, index),) for index in order[at : min(at + joint, end)]] for at in range(0, end, joint)]


class PlanSampler(Sampler[list[Group]]):
    """This process's part of every joint batch of a plan.

    Parts differ by at most one group and may be empty, and no group is repeated, so that N processes see what one
    process sees.

    Args:
        plan: see :data:`Plan`.
        processes: N.
        rank: of this process.

    Raises:
        GRMPError: when an epoch has more or fewer joint batches than the first.
    """

    def __init__(self, plan: Plan, *, processes: int = 1, rank: int = 0) -> None:
        self.plan, self.processes, self.rank, self.epoch = plan, processes, rank, 0
        first = list(plan(0))
        self.length = len(first)
        sizes = [sum(map(len, _part(batch, processes, rank))) for batch in first]
        self.batch_size = max([1, *sizes])  # for accelerate

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[Group]]:
        batches = list(self.plan(self.epoch))
        if len(batches) != self.length:
            raise GRMPError(
                f"Expected a plan with {self.length} joint batches in every epoch, as in the first, got {len(batches)} "
                f"in epoch {self.epoch}: a run that is taken up again could not tell where it was."
            )
        for batch in batches:
            yield _part(batch, self.processes, self.rank)


def _part(groups: Sequence[Group], processes: int, rank: int) -> list[Group]:
    size, more = divmod(len(groups), processes)
    start = rank * size + min(rank, more)
    return list(groups[start : start + size + (rank < more)])


class Grouped(Dataset[list[Any]]):
    """Groups of rows of a data set, asked by (epoch, index) if it is an :class:`EpochDataset`, else by index."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.by_epoch = rows, isinstance(rows, EpochDataset)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, group: Group) -> list[Any]:
        return [self.rows[key if self.by_epoch else key[1]] for key in group]


def collate_groups(collator: Callable[[list[Any]], Mapping[str, Any]], groups: Sequence[list[Any]]) -> dict[str, Any]:
    """One batch of all rows, and the number of each row's group ``(B,)`` as ``groups``; empty without any row."""
    rows = [row for group in groups for row in group]
    if not rows:
        return {}
    sizes = torch.tensor([len(group) for group in groups])
    return {**collator(rows), "groups": torch.arange(len(groups)).repeat_interleave(sizes)}


class EpochLoader(DataLoader[Any]):
    """A loader that hands the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
