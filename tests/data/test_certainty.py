"""Noise of ratings: by hand, and where nothing is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grmp_hf.data import RatingScale, Row, relative_noise

SCALE = RatingScale(0, 100)


def rows(deviations: list[float | None], votes: list[float | None] | None = None) -> list[Row]:
    """Pictures rated 20 and 60 in turn, whose quality has a variance of .04."""
    votes = votes or [None] * len(deviations)
    return [
        Row(Path("a.png"), str(at), mos, mos / 100, mos_std=deviation, votes=count)
        for at, (deviation, count) in enumerate(zip(deviations, votes, strict=True))
        for mos in [20.0 + 40 * (at % 2)]
    ]


def test_the_misfit_and_the_variance_of_the_mean_by_hand() -> None:
    noise = relative_noise(rows([10, 30], [5, 5]), SCALE)
    pooled = (0.01 + 0.09) / 2
    variances = np.array([(4 * own + 4 * pooled) / 8 / 5 for own in (0.01, 0.09)])
    assert noise == pytest.approx((0.02 + variances) / (0.02 + variances).mean())
    assert noise is not None and noise.mean() == pytest.approx(1)


def test_without_votes_deviations_decide_moderately() -> None:
    noise = relative_noise(rows([0, 20]), SCALE)
    assert noise == pytest.approx(np.array([1, 1.5]) / 1.25)


def test_without_deviations_votes_decide() -> None:
    noise = relative_noise(rows([None, None], [1, 4]), SCALE)
    assert noise == pytest.approx(np.array([0.06, 0.03]) / 0.045)


def test_many_votes_leave_the_misfit_alone() -> None:
    noise = relative_noise(rows([20, 20], [100, 10000]), SCALE)
    assert noise is not None and np.ptp(noise) < 0.03


def test_two_equal_votes_are_not_a_certainty() -> None:
    noise = relative_noise(rows([0, 20], [2, 20]), SCALE)
    assert noise is not None and noise[0] > noise[1]


def test_a_picture_of_which_nothing_is_known_counts_as_the_mean() -> None:
    noise = relative_noise(rows([5, None, 30, None], [9, None, 2, None]), SCALE)
    assert noise is not None and noise[1] == noise[3] == pytest.approx(1)


@pytest.mark.parametrize(
    ("deviations", "votes"),
    [([None, None], None), ([7, 7], None), ([7, 7], [3, 3]), ([None, None], [4, 4]), ([0, 0], None), ([7, None], None)],
)
def test_equal_or_unknown_noise_is_none(deviations: list[float | None], votes: list[float | None] | None) -> None:
    assert relative_noise(rows(deviations, votes), SCALE) is None


def test_the_unit_of_the_ratings_changes_nothing() -> None:
    given = rows([10, 30], [5, 2])
    tenth = [Row(r.image, r.name, r.mos / 10, r.quality, (r.mos_std or 0) / 10, votes=r.votes) for r in given]
    assert relative_noise(tenth, RatingScale(0, 10)) == pytest.approx(relative_noise(given, SCALE))
