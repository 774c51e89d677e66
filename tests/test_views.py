"""grmp_hf.views: many pictures at a time, a little ahead, and no more large ones at once than memory has room for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import grmp_hf
from grmp_hf import views
from grmp_hf.scoring import Scorer
from grmp_hf.views import iter_views


@pytest.fixture(scope="module")
def scorer(adapter_folder: Path) -> Scorer:
    return grmp_hf.load(adapter=adapter_folder)


def test_pictures_are_read_at_most_three_batches_ahead(scorer: Scorer, photos: list[Path]) -> None:
    started = 0

    def endless() -> object:
        nonlocal started
        while True:
            started += 1
            yield photos[0]

    stream = iter_views(endless(), scorer.views, batch_size=2)  # type: ignore[arg-type]
    next(stream)
    assert started <= 7
    stream.close()  # type: ignore[attr-defined]


def test_large_pictures_are_decoded_one_at_a_time_and_score_the_same(
    scorer: Scorer, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scorer.score(photos).quality
    monkeypatch.setattr(views, "_LARGE", 3000)
    assert np.array_equal(scorer.score(photos).quality, expected)


_FORKED = """
import os, sys, grmp_hf
from grmp_hf import views
views._LARGE = 3000
scorer = grmp_hf.load(adapter=sys.argv[1])
before = scorer.score(sys.argv[2]).quality[0]
child = os.fork()
if child == 0:
    import torch
    torch.set_num_threads(1)
    os._exit(0 if scorer.views(sys.argv[2]).shape[0] == len(scorer.processor.views) else 1)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    import time; time.sleep(0.1)
os.kill(child, 9)
sys.exit(3)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_worker_decodes_large_pictures(adapter_folder: Path, photos: list[Path]) -> None:
    done = subprocess.run([sys.executable, "-c", _FORKED, str(adapter_folder), str(photos[5])], timeout=120)
    assert done.returncode == 0
