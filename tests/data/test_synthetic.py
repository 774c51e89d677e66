from __future__ import annotations

import itertools

import numpy as np
import pytest

from grmp_hf.data.distortions import DISTORTIONS, LEVELS, Pixels, distort
from grmp_hf.data.gmsd import gmsd, gmsd_quality
from grmp_hf.data.synthetic import LABELS, distorted_crop, level_quality, random_crop, synthetic_tasks
from grmp_hf.errors import GRMPError


@pytest.fixture
def photograph() -> Pixels:
    """Every pixel tells its place by red and green."""
    rows, columns = np.mgrid[:60, :90]
    return np.stack([3 * rows, 2 * columns, (rows * columns) % 255], axis=-1).astype(np.uint8)


def place_of(crop: Pixels) -> tuple[int, int]:
    return int(crop[0, 0, 0]) // 3, int(crop[0, 0, 1]) // 2


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


def test_a_task_holds_every_photograph_at_every_level() -> None:
    tasks = synthetic_tasks(3)
    assert list(tasks) == list(DISTORTIONS)
    for kind, pictures in tasks.items():
        assert {picture.kind for picture in pictures} == {kind}
        pairs = [(picture.photograph, picture.level) for picture in pictures]
        assert pairs == list(itertools.product(range(3), range(6)))
    assert list(synthetic_tasks(1, ["jpeg", "denoise"])) == ["jpeg", "denoise"]


@pytest.mark.parametrize(("photographs", "kinds", "found"), [(0, ["jpeg"], "got 0"), (2, ["sepia"], "kinds sepia")])
def test_tasks_of_nothing_are_refused(photographs: int, kinds: list[str], found: str) -> None:
    with pytest.raises(GRMPError, match=found):
        synthetic_tasks(photographs, kinds)


def test_a_crop_is_pixels_of_the_photograph_anywhere(photograph: Pixels) -> None:
    places = set()
    for seed in range(200):
        crop = random_crop(photograph, 56, np.random.default_rng(seed))
        top, left = place_of(crop)
        np.testing.assert_array_equal(crop, photograph[top : top + 56, left : left + 56])
        places.add((top, left))
    assert {top for top, _ in places} == set(range(5))
    assert {left for _, left in places} == set(range(35))
    np.testing.assert_array_equal(random_crop(photograph[:, :60], 60, np.random.default_rng(0)), photograph[:, :60])


def test_the_crop_is_distorted_and_the_seed_decides_about_both(photograph: Pixels) -> None:
    original = photograph.copy()
    made = [distorted_crop(photograph, "white_noise", 3, size=32, seed=5, label=LABELS["gmsd"]) for _ in range(2)]
    np.testing.assert_array_equal(made[0][0], made[1][0])
    crop = random_crop(photograph, 32, np.random.default_rng(5))
    np.testing.assert_array_equal(made[0][0], distort(crop, "white_noise", 3, seed=5))
    assert made[0][1] == made[1][1] == gmsd_quality(gmsd(crop, made[0][0]))
    other, _ = distorted_crop(photograph, "white_noise", 3, size=32, seed=6, label=LABELS["gmsd"])
    assert not np.array_equal(made[0][0], other)
    np.testing.assert_array_equal(photograph, original)


@pytest.mark.parametrize("label", LABELS)
def test_labels_begin_at_one_and_fall(photograph: Pixels, label: str) -> None:
    made = [distorted_crop(photograph, "jpeg", level, size=48, seed=1, label=LABELS[label]) for level in (0, 2, 5)]
    np.testing.assert_array_equal(made[0][0], random_crop(photograph, 48, np.random.default_rng(1)))
    qualities = [quality for _, quality in made]
    assert qualities[0] == 1 > qualities[1] > qualities[2] >= 0
