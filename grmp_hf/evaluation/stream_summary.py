"""Figures of many streams, with intervals: what methods come to over orders, lengths and draws.

Letters in shapes: n_s test pictures of data set s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grmp_hf.errors import GRMPError

from .arrays import FloatArray
from .metrics import Interval, srcc
from .stream import stream_figures

__all__ = ["FIGURES", "StreamRun", "summarise_streams"]

FIGURES = ("final", "plasticity", "average", "stability", "mpsr")
"""``final`` is the mean SRCC over all data sets at the end; for the others see :class:`~.stream.StreamFigures`."""


@dataclass(frozen=True)
class StreamRun:
    """One stream that a method has learnt.

    Attributes:
        method: its name.
        run: order, draw and whatever else tells streams of a method apart; those of one number are paired.
        said: (t, s) -> ``(n_s,)``, what was predicted of data set s after t was learnt; of what learns all at once, for
            the last t alone.
        ratings: ``(n_s,)`` of each data set.
    """

    method: str
    run: tuple[int, ...]
    said: Mapping[tuple[int, int], FloatArray]
    ratings: Sequence[FloatArray]

    def figures(self, rng: np.random.Generator | None = None) -> dict[str, float]:
        """Those of :data:`FIGURES` that there are, of its test pictures or of as many drawn from them."""
        picks = [np.arange(len(r)) if rng is None else rng.integers(0, len(r), len(r)) for r in self.ratings]
        ratings = [rated[pick] for rated, pick in zip(self.ratings, picks, strict=True)]
        last = len(ratings) - 1
        said = {(t, s): values[picks[s]] for (t, s), values in self.said.items()}
        final = {"final": float(np.mean([srcc(said[last, s], ratings[s]) for s in range(last + 1)]))}
        if any(t < last for t, _ in said):
            rows = [[said[t, s] for s in range(t + 1)] for t in range(last + 1)]
            return final | stream_figures(rows, ratings)._asdict()
        return final


def summarise_streams(
    runs: Sequence[StreamRun], reference: str, *, resamples: int = 200, seed: int = 0, level: float = 0.95
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Means over the streams of each method, with percentile bootstrap intervals over test pictures.

    Every resample draws the same pictures for all methods, so that differences are paired. Differences are over the
    streams that both have.

    Args:
        runs: of all methods.
        reference: name of the method that the others are compared with.
        resamples: at least 2.
        seed: same seed, same intervals.
        level: in (0, 1).

    Returns:
        method -> ``"figures"`` and ``"minus_reference"`` -> name of :data:`FIGURES` -> interval.

    Raises:
        GRMPError: no stream of the reference.
    """
    methods = dict.fromkeys(run.method for run in runs)
    if reference not in methods:
        raise GRMPError(f"Expected streams of {reference!r}, got those of {', '.join(methods) or 'nothing'}.")
    found = {
        (run.method, run.run): [
            run.figures(np.random.default_rng([seed, turn, *run.run]) if turn else None)
            for turn in range(resamples + 1)
        ]
        for run in runs
    }
    result: dict[str, dict[str, dict[str, Interval]]] = {}
    for method in methods:
        own = [key for key in found if key[0] == method]
        both = [run for _, run in own if (reference, run) in found]
        names = [name for name in FIGURES if name in found[own[0]][0]]
        shared = [name for name in names if both and name in found[reference, both[0]][0]]
        minus = {
            name: _mean([found[method, run] for run in both], name) - _mean([found[reference, r] for r in both], name)
            for name in shared
        }
        result[method] = {
            "figures": {name: _interval(_mean([found[key] for key in own], name), level) for name in names},
            "minus_reference": {name: _interval(values, level) for name, values in minus.items()},
        }
    return result


def _mean(streams: Sequence[Sequence[Mapping[str, float]]], name: str) -> FloatArray:
    """``(1 + resamples,)``, the mean over streams of a figure."""
    mean: FloatArray = np.mean([[turn[name] for turn in turns] for turns in streams], axis=0)
    return mean


def _interval(values: FloatArray, level: float) -> Interval:
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values[0]), float(low), float(high))
