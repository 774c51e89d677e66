"""What the tests of training share: how far rounding may lead, scripts in two processes, and rated views."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def rounding() -> Callable[..., float]:
    """`rounding(weights, steps)`: what weights may differ by after steps whose sums were taken in another order.

    A step rounds some numbers of the size of the largest weight, each by half an `eps` of it at most. Margin: twenty
    of them a step, all in one direction.
    """

    def bound(weights: Mapping[str, Tensor], steps: int) -> float:
        largest = max(weight.abs().max().item() for weight in weights.values() if weight.numel())
        return 10 * steps * torch.finfo(next(iter(weights.values())).dtype).eps * largest

    return bound


@pytest.fixture(scope="session")
def in_two_processes() -> Callable[..., None]:
    """`in_two_processes(script, *arguments)`: run it in two processes at once, to the end."""

    def run(script: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
        done = subprocess.run(
            [*command, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.fixture
def shots() -> tuple[Tensor, Tensor]:
    """Nine pictures of two views, and their quality."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (9, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return pixels, torch.rand(9, generator=generator)
