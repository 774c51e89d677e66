"""Learning leaves a process as it was: random numbers go on where they were, and one model learns at a time."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["aside"]

_learning = threading.RLock()


def _renew() -> None:
    """In a process that was forked while another thread was learning, which it will never see the end of."""
    global _learning
    _learning = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def aside() -> Iterator[None]:
    """Let what trains within change nothing that its caller draws next, and run in one thread at a time.

    The Trainer seeds the generators of Python, NumPy and torch, so that whoever draws pictures between two trainings
    would draw the same ones each time; and what it stands on (accelerate) holds its state once for the whole process,
    so that two trainings at once would take it from each other. Of a function that trains: ``@aside()``.
    """
    with _learning, _random_numbers_kept():
        yield


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    plain, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
