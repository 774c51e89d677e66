"""Many streams in one table: means, paired intervals, and what learns all at once."""

from __future__ import annotations

import numpy as np
import pytest

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.evaluation.stream import stream_figures
from grmp_hf.evaluation.stream_summary import FIGURES, StreamRun, summarise_streams


def stream(method: str, run: tuple[int, ...], noise: float, *, sets: int = 3, at_once: bool = False) -> StreamRun:
    """Predictions that are off by so much, of ratings that depend on the run alone."""
    ratings = [np.random.default_rng([7, *run, s]).normal(size=40) for s in range(sets)]
    rng = np.random.default_rng([len(method), *run])
    steps = [sets - 1] if at_once else range(sets)
    said = {(t, s): ratings[s] + noise * rng.normal(size=40) for t in steps for s in range(t + 1)}
    return StreamRun(method, run, said, ratings)


def test_figures_are_means_over_streams_and_lie_within_their_intervals() -> None:
    runs = [stream("good", (3, order, 0), 0.5) for order in range(3)]
    found = summarise_streams(runs, "good")["good"]
    alone = [stream_figures([[r.said[t, s] for s in range(t + 1)] for t in range(3)], r.ratings) for r in runs]
    for name in FIGURES[1:]:
        value, low, high = found["figures"][name]
        assert value == pytest.approx(np.mean([getattr(one, name) for one in alone]), abs=1e-12)
        assert low < value < high or name == "stability"  # which draws of few pictures lower
        assert found["minus_reference"][name] == (0, 0, 0)
    final = np.mean([[srcc(run.said[2, s], run.ratings[s]) for s in range(3)] for run in runs])
    assert found["figures"]["final"].value == pytest.approx(final, abs=1e-12)


def test_differences_are_paired_and_over_the_streams_that_both_have() -> None:
    runs = [stream("good", (3, order, 0), 0.5) for order in range(2)]
    runs += [stream("worse", (3, order, 0), 1.0) for order in range(3)]
    found = summarise_streams(runs, "good")["worse"]
    both = summarise_streams(runs[:4], "good")
    assert found["minus_reference"] == both["worse"]["minus_reference"]
    value, low, high = found["minus_reference"]["final"]
    good, worse = (both[name]["figures"]["final"] for name in ("good", "worse"))
    assert value == pytest.approx(worse.value - good.value, abs=1e-12) and low < value < high < 0
    # An interval of the difference of unpaired draws would be wider.
    assert high - low < np.hypot(good.high - good.low, worse.high - worse.low)


def test_what_learns_all_at_once_has_a_final_figure_alone() -> None:
    runs = [stream("experts", (3, 0, 0), 0.5), stream("joint", (3, 0, 0), 0.4, at_once=True)]
    found = summarise_streams(runs, "experts")["joint"]
    assert [*found["figures"]] == [*found["minus_reference"]] == ["final"]


def test_resamples_of_few_pictures_have_figures_too() -> None:
    ratings = [np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.4, 0.8])]
    said = {(0, 0): np.array([0.2, 0.1, 0.9]), (1, 0): np.array([0.2, 0.1, 0.9]), (1, 1): np.array([0.1, 0.4, 0.7])}
    found = summarise_streams([StreamRun("a", (2, 0, 0), said, ratings)], "a")["a"]["figures"]["mpsr"]
    assert np.isfinite(found).all() and found.value == pytest.approx(0.75)  # (.5 + 1 * 1) / 2


def test_a_reference_that_nobody_ran_is_refused() -> None:
    with pytest.raises(GRMPError, match="Expected streams of 'other', got those of good"):
        summarise_streams([stream("good", (3, 0, 0), 0.5)], "other")
