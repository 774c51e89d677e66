"""What the tests of training share: how far rounding may lead, scripts in two processes, and rated views."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from grmp_hf.scoring import Scorer


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
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def sided_base(clip_folder: Path, side_settings: dict[str, Any], tmp_path: Path) -> Scorer:
    """The small CLIP of 32 pixels, saved with a small ResNet beside it, as it sees whole pictures."""
    import grmp_hf
    from grmp_hf.modeling.adapters import copy_base
    from grmp_hf.modeling.side import make_side

    found = grmp_hf.load(clip_folder)
    model = copy_base(found.model)
    torch.manual_seed(5)
    model.put_beside(side_settings, make_side(side_settings))
    model.save_pretrained(tmp_path / "sided")
    grmp_hf.GRMPImageProcessor(found.processor.size, ("whole",)).save_pretrained(tmp_path / "sided")
    return grmp_hf.load(tmp_path / "sided")


_SCORES = "import json, sys, grmp_hf; print(json.dumps(grmp_hf.load(sys.argv[1]).score(sys.argv[2:]).quality.tolist()))"


@pytest.fixture(scope="session")
def scores_elsewhere(elsewhere: Callable[..., Any]) -> Callable[..., list[float]]:
    """`scores_elsewhere(folder, paths)`: what a saved scorer says of pictures in a new process."""

    def ask(folder: Path, paths: list[Path]) -> list[float]:
        found: list[float] = json.loads(elsewhere(_SCORES, folder, *paths).out.splitlines()[-1])
        return found

    return ask


@pytest.fixture
def shots() -> tuple[Tensor, Tensor]:
    """Nine pictures of two views, and their quality."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (9, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return pixels, torch.rand(9, generator=generator)
