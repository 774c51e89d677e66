"""``clean`` and ``paper``: who may see the ratings of the test pictures, and when.

Under ``clean`` a method gets rated shots and, when it has finished, pictures to score. Ratings of test pictures are no
argument of `run_clean`, so nothing can be chosen by them. Under ``paper`` the published evaluation loop is followed,
which looks at them while it trains (docs/method.md): its figures are upper bounds.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grmp_hf.benchmark.methods import Method
from grmp_hf.benchmark.watching import Fitted
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import plcc, srcc
from grmp_hf.features import Pictures

__all__ = ["Outcome", "TestSelection", "run_clean", "run_paper"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What one fit gives.

    Attributes:
        scores: (n,) quality for each list of pictures to score.
        learnt: every number behind these scores.
        seconds: for each list; the first one bears the learning.
        fit_seconds: of the learning alone; under ``paper`` with the looks at the test part.
        weights: how many numbers an optimizer may have moved.
        selection: how the epoch was chosen, a sentence.
        epochs: the chosen one and the last one, where there was a choice.
        last: (n,) quality of the test part after the last step, where there was a choice.
    """

    scores: tuple[Floats, ...]
    learnt: dict[str, NDArray[Any]]
    seconds: tuple[float, ...]
    fit_seconds: float
    weights: int
    selection: str
    epochs: tuple[int, int] | None = None
    last: Floats | None = None


def run_clean(method: Method, shots: Pictures, quality: Floats, tests: Sequence[Pictures], *, seed: int) -> Outcome:
    """Learn from the shots on the method's own schedule, then score.

    Args:
        method: what learns.
        shots: pictures to learn from.
        quality: (k,) in [0, 1], of the shots.
        tests: pictures to score: the test part, and those of other data sets.
        seed: of everything random.
    """
    start = time.monotonic()
    fitted = method.fit(shots, quality, seed=seed)
    fit_seconds = time.monotonic() - start
    scores, seconds = [], []
    for test in tests:
        scores.append(fitted.predict(test))
        seconds.append(time.monotonic() - start)
        start = time.monotonic()
    selection = "none: fixed schedule, test ratings read once after the last step"
    learnt = fitted.learnt()
    return Outcome(tuple(scores), learnt, tuple(seconds), fit_seconds, _weights(fitted, learnt), selection)


def _weights(fitted: Fitted, learnt: Mapping[str, NDArray[Any]]) -> int:
    return sum(value.size for value in learnt.values()) if fitted.weights is None else fitted.weights


def run_paper(
    method: Method, shots: Pictures, quality: Floats, test: Pictures, test_quality: Floats, *, seed: int
) -> Outcome:
    """Learn from the shots, scaled to [0, 1] among themselves, and report the best of what the test part has seen.

    Args:
        method: what learns; one that does not train by steps has nothing to select from.
        shots: pictures to learn from.
        quality: (k,) in [0, 1], of the shots.
        test: the test part.
        test_quality: (n,) in [0, 1]: read before training and every fifth epoch.
        seed: of everything random.

    Raises:
        GRMPError: shots that are all alike.
    """
    if method.needs_shots and np.ptp(quality) == 0:
        raise GRMPError(f"Expected shots with different ratings, got {len(quality)} that are all alike")
    scaled = (quality - quality.min()) / np.ptp(quality) if method.needs_shots else quality
    if not method.trains_by_steps:
        outcome = run_clean(method, shots, scaled, [test], seed=seed)
        return dataclasses.replace(outcome, selection="none: no epochs to choose from")
    start, selection = time.monotonic(), TestSelection(test, test_quality)
    fitted = method.fit(shots, scaled, seed=seed, observer=selection)
    fit_seconds = time.monotonic() - start
    last, seconds = fitted.predict(test), time.monotonic() - start
    chosen = "on the test part: of every fifth epoch the one with the largest SRCC + PLCC there"
    epochs = selection.epoch, selection.seen
    learnt, weights = selection.learnt, _weights(fitted, selection.learnt)
    return Outcome((selection.scores,), learnt, (seconds,), fit_seconds, weights, chosen, epochs, last)


class TestSelection:
    """The published selection: the epoch with the largest SRCC + PLCC on the test part itself.

    The test part is scored before training and every fifth epoch. At the sixth test in a row without a larger sum the
    learning rate is multiplied by 0.3; training ends when it would fall below 5e-7.

    Args:
        test: the test part.
        quality: (n,), its ratings.

    Attributes:
        epoch: the best so far.
        scores: (n,) at that epoch.
        learnt: every number at that epoch.
        seen: epochs so far.

    Source: LXDxmu/GRMP-IQA, ``finetune.py``, ``train`` and ``main``.
    """

    __test__ = False  # no test of pytest's
    every, patience, decay, smallest = 5, 6, 0.3, 5e-7

    def __init__(self, test: Pictures, quality: Floats) -> None:
        self.test, self.quality = test, quality
        self.epoch, self.seen, self.waited, self.best = 0, 0, 0, -math.inf
        self.scores: Floats = np.empty(0)
        self.learnt: dict[str, NDArray[Any]] = {}

    def __call__(self, epoch: int, fitted: Fitted, rate: float) -> float:
        """Look at the model after an epoch; see `grmp_hf.benchmark.watching.Observer`."""
        self.seen = epoch
        if epoch % self.every:
            return 1.0
        scores = fitted.predict(self.test)
        total = srcc(scores, self.quality) + plcc(scores, self.quality)
        if total > self.best:
            self.best, self.epoch, self.waited = total, epoch, 0
            self.scores, self.learnt = scores, fitted.learnt()
            return 1.0
        self.waited += 1
        if self.waited < self.patience:
            return 1.0
        self.waited = 0
        return 0.0 if rate * self.decay < self.smallest else self.decay
