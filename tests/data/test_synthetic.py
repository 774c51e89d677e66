from __future__ import annotations

import itertools

import pytest

from grmp_hf.data.distortions import LEVELS
from grmp_hf.data.synthetic import level_quality
from grmp_hf.errors import GRMPError


def test_quality_falls_in_equal_steps_from_the_undistorted_picture() -> None:
    qualities = [level_quality(level) for level in (0, *LEVELS)]
    assert qualities[0] == 1
    assert all(0 < quality <= 1 for quality in qualities)
    falls = [a - b for a, b in itertools.pairwise(qualities)]
    assert falls == pytest.approx([1 / 6] * 5)


@pytest.mark.parametrize("level", [-1, 6, 1.5])
def test_other_levels_are_refused(level: int) -> None:
    with pytest.raises(
        GRMPError, match=rf"expected a level of 0 \(not distorted\) to 5 \(strong\), got {level}; choose"
    ):
        level_quality(level)
