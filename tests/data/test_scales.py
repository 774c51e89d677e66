"""Scales: the fixed map, its ends, its way back, and the guess of the range."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from grmp_hf.data.scales import RatingScale, infer_scale
from grmp_hf.errors import GRMPError

SCALES = [RatingScale(1, 5), RatingScale(0.1, 0.7), RatingScale(0, 100, higher_is_better=False), RatingScale(-3, 3)]


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_map_and_way_back(scale: RatingScale) -> None:
    best, worst = (scale.high, scale.low) if scale.higher_is_better else (scale.low, scale.high)
    assert (scale.to_quality(best), scale.to_quality(worst)) == (1.0, 0.0)
    assert (scale.to_score(1.0), scale.to_score(0.0)) == (best, worst)
    mos = np.linspace(scale.low, scale.high, 17)
    rounding = 10 * np.finfo(np.float64).eps * max(abs(scale.low), abs(scale.high))  # of which there are four
    np.testing.assert_allclose(scale.to_score(scale.to_quality(mos)), mos, rtol=0, atol=rounding)
    assert RatingScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (RatingScale(1, 5), "1 (worst) to 5 (best)"),
        (RatingScale(0, 100, higher_is_better=False), "0 (best) to 100 (worst)"),
        (RatingScale(0, 0.5, unit="points"), "0 (worst) to 0.5 (best) points"),
    ],
)
def test_text_says_which_way_is_up(scale: RatingScale, text: str) -> None:
    assert str(scale) == text


@pytest.mark.parametrize("ends", [(5, 1), (1, 1), (0, float("inf")), (float("nan"), 1)])
def test_ends_out_of_order(ends: tuple[float, float]) -> None:
    with pytest.raises(GRMPError, match=r"expected a range .* keeps this order and sets higher_is_better=False"):
        RatingScale(*ends)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"low": 1, "high": 5, "higher_is_better": True},
        {"low": "1", "high": 5, "higher_is_better": True, "unit": ""},
        {"low": 1, "high": 5, "higher_is_better": 1, "unit": ""},
        {"low": False, "high": 5, "higher_is_better": True, "unit": ""},
        [1, 5, True, ""],
        "1 to 5",
        {"low": 1, "high": 5, "higher_is_better": True, "unit": "", "more": 0},
    ],
)
def test_from_dict_is_strict(fields: Any) -> None:
    with pytest.raises(GRMPError, match=r"numbers low and high, .* write it with RatingScale.to_dict"):
        RatingScale.from_dict(fields)


@pytest.mark.parametrize(
    ("ratings", "ends"),
    [
        ([0, 1, 1], (0, 1)),
        ([0.2, 0.9], (0, 1)),
        ([1, 5, 3], (1, 5)),
        ([1.0, 2.5], (1, 5)),
        ([0, 4.5], (0, 5)),
        ([1, 6], (1, 10)),
        ([0.5, 6], (0, 10)),
        ([3.9, 88.4], (0, 100)),
    ],
)
def test_narrowest_range_is_assumed_and_told(ratings: list[float], ends: tuple[float, float]) -> None:
    scale, note = infer_scale(ratings)
    assert (scale.low, scale.high) == ends
    assert f"taken as {scale}; --range LOW HIGH changes this" in note
    assert not infer_scale(ratings, higher_is_better=False)[0].higher_is_better


@pytest.mark.parametrize(
    ("ratings", "advice"),
    [
        ([0] * 4 + [1, 2, 3, 4, 5] * 3, "4 of 19 ratings are 0 and the others run from 1 to 5; .* --range 0 5; if it"),
        ([0, 0, 1.5, 4.5], "2 of 4 ratings are 0 and the others run from 1.5 to 4.5; .* --range 0 5; if it stands"),
        ([0] * 3 + list(range(1, 11)), "3 of 13 .* run from 1 to 10; .* --range 0 10; if it stands for"),
        (
            [0, 0.0, 23, 57, 88],
            "2 of 5 .* run from 23 to 88; .* --range 0 100; if it stands for pictures that were not",
        ),
    ],
)
def test_many_zeros_apart_from_the_rest_are_asked_about(ratings: list[float], advice: str) -> None:
    with pytest.raises(GRMPError, match=rf"expected to know what 0 means: {advice}"):
        infer_scale(ratings)
    scale, note = infer_scale([rating for rating in ratings if rating != 0])  # the second way out
    assert "are 0" not in note and scale.low == (0 if scale.high == 100 else 1)


@pytest.mark.parametrize(
    "ratings", [[0, 1, 1, 0], [0, 0, 0.5, 3, 5], [0, 0, 3, 40, 90], [0, 0, -1, 1], [0.0, 0.0, 1.0]]
)
def test_zeros_that_belong_to_a_scale_are_not(ratings: list[float]) -> None:
    if min(ratings) < 0:
        with pytest.raises(GRMPError, match="within one of the usual ranges"):
            infer_scale(ratings)
    else:
        assert "are 0" not in infer_scale(ratings)[1]


def test_a_few_zeros_are_told() -> None:
    scale, note = infer_scale([0] + [1, 2, 3, 4, 5] * 10)
    assert str(scale) == "0 (worst) to 5 (best)"
    assert "1 of 51 ratings are 0 and the others run from 1 to 5: remove the lines where 0 means that a pic" in note


@pytest.mark.parametrize(
    ("ratings", "code", "ends"),
    [
        ([1, 2, 3, 4, 5, 99], "99", "0 100"),
        ([1.5, 2, 3, 4.5, 9], "9", "1 10"),
        ([1, 2, 3, 4, 5, 9, 9], "9", "1 10"),
        ([10, 20, 90, 999, 999], "999", "10 999"),
        ([1, 2, 3, 4, 5, -1], "-1", "-1 5"),
        ([0.1, 0.5, 0.9, -9], "-9", "-9 0.9"),
        ([10, 50, 90, -999], "-999", "-999 90"),
    ],
)
def test_codes_of_missing_ratings_are_asked_about(ratings: list[float], code: str, ends: str) -> None:
    with pytest.raises(
        GRMPError, match=rf"expected to know what {code} means: .* so with --range {ends}; if it stands"
    ):
        infer_scale(ratings)
    infer_scale([rating for rating in ratings if rating != float(code)])


@pytest.mark.parametrize("ratings", [[1, 3, 5, 7, 9], [2, 4, 6, 9, 9], [20, 60, 80, 99], [5, 9], [1, 2, 3, 4, 5, 9]])
def test_nines_that_belong_to_a_scale_are_not(ratings: list[float]) -> None:
    assert infer_scale(ratings)[0].high in (10, 100)


@pytest.mark.parametrize("ratings", [[-2.64, 111.77], [916.7, 1835.9], [-1, 1]])
def test_no_range_fits(ratings: list[float]) -> None:
    with pytest.raises(GRMPError, match=r"within one of the usual ranges .* give the range with --range LOW HIGH"):
        infer_scale(ratings)


@pytest.mark.parametrize("ratings", [[5e-10, 9e-10], [0.0, 0.0004, 0.0099]])
def test_what_fills_less_than_a_hundredth_of_a_range_is_asked_about(ratings: list[float]) -> None:
    with pytest.raises(GRMPError, match=r"less than a hundredth of 0 to 1; give the range with --range LOW HIGH"):
        infer_scale(ratings)


@pytest.mark.parametrize(
    ("ends", "places", "text"),
    [
        ((0, 100), 6, "0 (worst) to 100 (best)"),
        ((0, 1e-9), 15, "0 (worst) to 1e-09 (best)"),
        ((1e6, 1e6 + 1), 6, "1000000 (worst) to 1000001 (best)"),
        ((-2.64002, 111.775), 6, "-2.64002 (worst) to 111.775 (best)"),
        ((1.123456789, 2), 7, "1.123456789 (worst) to 2 (best)"),
    ],
)
def test_no_scale_is_rounded_away(ends: tuple[float, float], places: int, text: str) -> None:
    scale = RatingScale(*ends)
    assert (scale.places, str(scale)) == (places, text)
    assert round(scale.to_score(0.123456), scale.places) == pytest.approx(scale.to_score(0.123456), rel=1e-5)


def test_a_range_of_endless_length_is_none() -> None:
    with pytest.raises(GRMPError, match="expected a range of ratings"):
        RatingScale(-1e308, 1e308)
