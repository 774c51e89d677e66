"""Batches that are the same pictures for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

__all__ = ["EpochDataLoader", "JointBatchSampler", "JointEpisodeSampler"]


class JointBatchSampler(Sampler[list[Any]]):
    """Cuts every joint batch into one part for each process.

    The last joint batch of an epoch may have fewer pictures. Parts differ by at most one picture and may be empty, and
    no picture is repeated, so that N processes see what one process sees. The order is a function of (seed, epoch).

    Args:
        length: of the data set.
        joint: pictures of all processes together.
        processes: N.
        rank: of this process.
        seed: of the order.
        shuffle: else in the data set's order.
        drop_last: leave an incomplete joint batch out.
    """

    def __init__(
        self,
        length: int,
        joint: int,
        *,
        processes: int = 1,
        rank: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.length, self.joint, self.drop_last = length, joint, drop_last
        self.batch_size = -(-joint // processes)  # of the largest part, for accelerate
        self.processes, self.rank = processes, rank
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.joint if self.drop_last else -(-self.length // self.joint)

    def __iter__(self) -> Iterator[list[Any]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator) if self.shuffle else torch.arange(self.length)
        for batch in range(len(self)):
            part = order[batch * self.joint : (batch + 1) * self.joint].tensor_split(self.processes)[self.rank]
            yield part.tolist()


class JointEpisodeSampler(JointBatchSampler):
    """Asks for episodes by (epoch, index), in the data set's own order, which differs from epoch to epoch."""

    def __iter__(self) -> Iterator[list[Any]]:
        for part in super().__iter__():
            yield [(self.epoch, index) for index in part]


class EpochDataLoader(DataLoader[Any]):
    """A loader that hands the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
