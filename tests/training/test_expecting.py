"""The gain of more ratings, foretold from those that are there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from grmp_hf.training.evidence import Prior, believe
from grmp_hf.training.expecting import ExpectedGain, blend, expected_gain, slope_of_curve

Floats = np.ndarray


def shots(count: int, free: float) -> tuple[dict[str, Floats], Floats, Floats]:
    """Ratings that follow the base, and a part of the features that few ratings do not tell."""
    rng = np.random.default_rng(0)
    groups, base = {"deep": rng.normal(size=(count, 40))}, rng.normal(size=count)
    ratings = base + free * groups["deep"][:, :20].sum(1) / np.sqrt(20) + 0.2 * rng.normal(size=count)
    return groups, base, ratings


def test_what_is_still_to_be_learnt_is_foretold() -> None:
    slopes = []
    for free in (0.0, 2.0):
        groups, base, ratings = shots(60, free)
        slopes.append(slope_of_curve(groups, base, ratings, believe(groups, base, ratings)))
    assert slopes[1] > 5 * abs(slopes[0]) > 0


def test_it_is_the_same_every_time_whatever_the_unit() -> None:
    groups, base, ratings = shots(30, 1.0)
    noise = np.ones(30)
    first = expected_gain(groups, base, ratings, believe(groups, base, ratings))
    again = expected_gain(
        groups, base, 3 + 2 * ratings, believe(groups, base, 3 + 2 * ratings, noise=noise), noise=noise
    )
    assert first == pytest.approx(again) and first.low < first.gain < first.high


def test_the_curve_is_that_of_what_was_believed_before() -> None:
    groups, base, ratings = shots(60, 1.0)
    free = believe(groups, base, ratings, prior=Prior(freedom=5.0))
    stiff = dataclasses.replace(free, prior=Prior())
    slopes = [slope_of_curve(groups, base, ratings, belief) for belief in (free, stiff)]
    assert slopes[0] - slopes[1] != pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("count", [2, 4, 5, 8])
def test_few_shots_say_what_is_usual(count: int) -> None:
    groups, base, ratings = shots(count, 1.0)
    found = expected_gain(groups, base, ratings, believe(groups, base, ratings))
    assert np.isfinite(found).all()
    if count <= 5:
        assert found == blend(0.0, count)


def test_more_ratings_bring_less() -> None:
    gains = [blend(1.0, count) for count in (10, 20, 50, 200)]
    assert [gain.gain for gain in gains] == sorted((gain.gain for gain in gains), reverse=True)
    assert gains[3].high - gains[3].low < 0.05


def test_a_line_says_it() -> None:
    said = str(ExpectedGain(20, 0.024, -0.012, 0.061))
    assert said == "20 more ratings would bring about +.02 SRCC (90 % between -.01 and +.06)"
