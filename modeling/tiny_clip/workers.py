"""Data-parallel training on one machine: one single-threaded process a core, gradients averaged every step.

On a few shared cores this is about twice as fast as one process with several threads, whose many small operations wait
for each other.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


def run_workers(work: Path, count: int, train: Callable[[int], None]) -> None:
    """Run ``train(rank)`` in ``count`` forked processes that share what the caller has loaded, and wait for all.

    The caller must not have used more than one thread in torch before: OpenMP does not survive a fork.
    """
    if count == 1:
        train(0)
        return
    meeting = work / "meeting"
    meeting.unlink(missing_ok=True)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(rank, count, meeting, train)) for rank in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError(f"training failed: exit codes {[worker.exitcode for worker in workers]}")


def _worker(rank: int, count: int, meeting: Path, train: Callable[[int], None]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting.resolve().as_uri(), rank=rank, world_size=count)
    train(rank)
    dist.destroy_process_group()


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter], seconds: float, workers: int) -> float:
    """Replace every gradient by its mean over the workers; also return the mean of ``seconds``, equal everywhere."""
    if workers == 1:
        return seconds
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([seconds])])
    dist.all_reduce(flat)
    flat /= workers
    pieces = torch.split(flat, [*(gradient.numel() for gradient in gradients), 1])
    torch._foreach_copy_(gradients, [piece.view_as(old) for piece, old in zip(pieces, gradients, strict=False)])
    return float(flat[-1])


@torch.no_grad()
def share_updates(shards: Sequence[Sequence[nn.Parameter]]) -> None:
    """After each worker has updated its own shard of the parameters, give every worker all shards."""
    if len(shards) == 1:
        return
    for rank, shard in enumerate(shards):
        flat: Tensor = torch.cat([parameter.flatten() for parameter in shard])
        dist.broadcast(flat, src=rank)
        pieces = torch.split(flat, [parameter.numel() for parameter in shard])
        torch._foreach_copy_(list(shard), [piece.view_as(old) for piece, old in zip(pieces, shard, strict=True)])
