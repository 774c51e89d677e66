from __future__ import annotations

import numpy as np
import pytest

from grmp_hf.data.distortions import DISTORTIONS, distort
from grmp_hf.data.gmsd import gmsd, gmsd_quality
from grmp_hf.data.versions import by_gmsd, make_versions, similarities
from grmp_hf.errors import GRMPError


@pytest.fixture
def photograph() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 10, 3))
    return np.kron(coarse, np.ones((6, 6, 1))).astype(np.uint8)


def test_versions_are_those_of_the_generator(photograph: np.ndarray) -> None:
    pictures, made = make_versions(photograph, 8, seed=3)
    assert pictures.shape == (9, 48, 60, 3) and len({kind for kind, _ in made}) == 8
    np.testing.assert_array_equal(pictures[0], photograph)
    for version, (kind, level) in zip(pictures[1:], made, strict=True):
        np.testing.assert_array_equal(version, distort(photograph, kind, level, seed=3))
    np.testing.assert_array_equal(make_versions(photograph, 8, seed=3)[0], pictures)
    assert make_versions(photograph, 8, seed=4)[1] != made


def test_all_kinds_and_levels_are_met(photograph: np.ndarray) -> None:
    met = [pair for seed in range(40) for pair in make_versions(photograph[:16, :16], 8, seed=seed)[1]]
    assert {kind for kind, _ in met} == set(DISTORTIONS) and {level for _, level in met} == {1, 2, 3, 4, 5}


def test_similarities_are_those_of_each_pair(photograph: np.ndarray) -> None:
    pictures, _ = make_versions(photograph, 3, seed=1, kinds=["jpeg", "gaussian_blur", "white_noise"])
    found = similarities(pictures)
    assert found.dtype == np.float32 and np.array_equal(found, found.T) and np.array_equal(np.diag(found), np.ones(4))
    for at in range(4):
        for beyond in range(at):
            assert found[at, beyond] == pytest.approx(gmsd_quality(gmsd(pictures[at], pictures[beyond])))
            assert by_gmsd(pictures[at], pictures[beyond]) == by_gmsd(pictures[beyond], pictures[at])
    assert 0 <= found.min() < 0.9

    def means(first: np.ndarray, second: np.ndarray) -> float:
        return float(1 - abs(first.mean() - second.mean()) / 255)

    assert similarities(pictures, means)[1, 2] == pytest.approx(means(pictures[1], pictures[2]))


def test_what_cannot_be_is_refused(photograph: np.ndarray) -> None:
    with pytest.raises(GRMPError, match="Expected 1 to 2 versions, one for each kind of distortion, got 3"):
        make_versions(photograph, 3, seed=0, kinds=["jpeg", "darken"])
    with pytest.raises(GRMPError, match="unknown distortion"):
        make_versions(photograph, 1, seed=0, kinds=["dust"])
    for value in (1.5, -0.1, float("nan")):
        with pytest.raises(GRMPError, match="Expected a similarity from 0 to 1 for equal pictures, got"):
            similarities(np.stack([photograph] * 2), lambda first, second, value=value: value)
