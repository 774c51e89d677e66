"""Paired comparison of two methods: over pictures and over draws."""

from __future__ import annotations

import numpy as np
import pytest

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.arrays import FloatArray
from grmp_hf.evaluation.comparisons import paired_difference, paired_over_draws
from grmp_hf.evaluation.metrics import bootstrap_interval, krcc, srcc


def rated(n: int = 120, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Scores and ratings with a correlation of about .7; ratings on a grid, so that many tie."""
    rng = np.random.default_rng(seed)
    mos = rng.normal(size=n)
    return mos + rng.normal(size=n), np.round(mos * 3) / 3


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    x, y = rated(300)
    better = x + 0.3 * y
    found = paired_difference(srcc, better, x, y)
    assert found.difference == pytest.approx(srcc(better, y) - srcc(x, y), abs=1e-15)
    assert 0 < found.low < found.difference < found.high
    assert found.share == 1.0
    single = bootstrap_interval(srcc, x, y)
    assert found.high - found.low < 0.5 * (single.high - single.low)
    back = paired_difference(srcc, x, better, y)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=1e-12)


def test_a_method_equals_itself() -> None:
    x, y = rated()
    assert paired_difference(krcc, x, x, y) == (0.0, 0.0, 0.0, 0.5)


def test_draws_are_averaged_and_widen_the_interval() -> None:
    x, y = rated(200)
    rng = np.random.default_rng(1)
    first, second = (np.stack([x + noise * rng.normal(size=200) for _ in range(8)]) for noise in (0.5, 1.5))
    found = paired_difference(srcc, first, second, y)
    each = [srcc(a, y) - srcc(b, y) for a, b in zip(first, second, strict=True)]
    assert found.difference == pytest.approx(np.mean(each), abs=1e-12)
    # The same draw eight times over brings no spread between draws.
    same = paired_difference(srcc, np.repeat(first[:1], 8, 0), np.repeat(second[:1], 8, 0), y)
    one = paired_difference(srcc, first[0], second[0], y)
    assert same == pytest.approx(one, abs=1e-12)
    with pytest.raises(GRMPError, match=r"scores of one shape, got \(8, 200\) and \(1, 200\)"):
        paired_difference(srcc, first, second[0], y)


def test_values_of_draws_are_compared_in_pairs() -> None:
    second = np.random.default_rng(0).normal(0.6, 0.1, size=10)  # draws differ much, methods by little in each of them
    first = second + np.linspace(0.01, 0.03, 10)
    found = paired_over_draws(first, second)
    assert found.difference == pytest.approx(0.02, abs=1e-12)
    assert 0.01 < found.low < 0.02 < found.high < 0.03
    assert found.share == 1.0
    assert paired_over_draws(second, first)[:3] == pytest.approx(
        (-found.difference, -found.high, -found.low), abs=1e-12
    )
    assert paired_over_draws(first, second, seed=1) != found == paired_over_draws(first, second)
    narrow = paired_over_draws(first, second, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high
    assert paired_over_draws(first, first) == (0.0, 0.0, 0.0, 0.5)


def test_interval_over_draws_has_the_width_of_the_mean() -> None:
    differences = np.random.default_rng(1).normal(size=400)
    found = paired_over_draws(differences, np.zeros(400), resamples=5000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * differences.std() / 20, rel=0.05)


@pytest.mark.parametrize(
    ("first", "second", "options", "match"),
    [
        ([0.1, 0.2], [0.1], {}, "values of both methods in the same draws, at least two, got 2 and 1"),
        ([0.1], [0.1], {}, "at least two, got 1 and 1"),
        ([0.1, np.nan], [0.1, 0.2], {}, "first: expected finite numbers, got nan at position 1"),
        ([0.1, 0.2], [0.1, 0.2], {"resamples": 0}, "resamples: expected at least 1, got 0"),
    ],
)
def test_draws_that_cannot_be_compared(
    first: list[float], second: list[float], options: dict[str, int], match: str
) -> None:
    with pytest.raises(GRMPError, match=match):
        paired_over_draws(first, second, **options)
