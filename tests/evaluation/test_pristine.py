from __future__ import annotations

import numpy as np
import pytest

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import handmade_statistics
from grmp_hf.evaluation.pristine import (
    distance,
    moments,
    patches,
    pristine_moments,
    sharp_and_colourful,
    zero_shot_score,
)


def draw(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def describe(cut: np.ndarray) -> np.ndarray:
    return np.stack([handmade_statistics(patch) for patch in cut])


def test_patches_overlap_by_half() -> None:
    rgb = picture(200, 300)
    found = patches(rgb)
    assert found.shape == (3 * 5, 96, 96, 3)
    np.testing.assert_array_equal(found[0], rgb[:96, :96])
    np.testing.assert_array_equal(found[1], rgb[:96, 48:144])
    np.testing.assert_array_equal(found[5], rgb[48:144, :96])
    np.testing.assert_array_equal(patches(rgb, 200)[1], rgb[:200, 100:300])


@pytest.mark.parametrize("shape", [(1, 1), (20, 300), (95, 96), (200, 10)])
def test_small_pictures_are_mirrored_up_to_a_patch(shape: tuple[int, int]) -> None:
    rgb = picture(*shape)
    found = patches(rgb)
    height, width = (min(side, 96) for side in shape)
    assert len(found) >= 1
    np.testing.assert_array_equal(found[0, :height, :width], rgb[:height, :width])


def test_the_distance_of_identical_sets_is_zero() -> None:
    features = draw(40, 6)
    assert distance(moments(features), moments(features)) == 0
    assert distance(moments(features), moments(features[::-1])) == pytest.approx(0, abs=1e-6)
    assert distance(moments(features[:1]), moments(features[:1])) == 0


def test_the_distance_is_that_of_mahalanobis() -> None:
    first, second = draw(50, 4), draw(30, 4, seed=1) * 2 + 1
    spread = (np.cov(first.T, bias=True) + np.cov(second.T, bias=True)) / 2 + 1e-3 * np.eye(4)
    apart = first.mean(0) - second.mean(0)
    expected = np.sqrt(apart @ np.linalg.inv(spread) @ apart)
    assert distance(moments(first), moments(second)) == pytest.approx(expected)
    assert distance(moments(second), moments(first)) == pytest.approx(expected)
    far = [distance(moments(first), moments(first + shift)) for shift in (0.1, 1, 10)]
    assert far == sorted(far) and far[2] == pytest.approx(100 * far[0])


def test_fewer_patches_than_features_have_a_distance() -> None:
    assert 0 < distance(moments(draw(3, 20)), moments(draw(4, 20, seed=1))) < np.inf


def test_sharp_and_colourful_patches_are_chosen() -> None:
    sharp = picture(96, 96)
    grey = np.repeat((sharp @ [0.299, 0.587, 0.114]).astype(np.uint8)[..., None], 3, axis=2)
    flat = np.broadcast_to(np.array([200, 90, 90], np.uint8), (96, 96, 3))
    assert sharp_and_colourful(np.stack([sharp, grey, flat])).tolist() == [True, False, False]
    assert sharp_and_colourful(np.stack([sharp, grey, flat]), colourful=0.0).tolist() == [True, True, False]
    assert sharp_and_colourful(np.stack([flat, flat])).all(), "nothing is sharper or more colourful"


def test_pristine_statistics_are_those_of_the_chosen_patches() -> None:
    photographs = [picture(200, 200, seed) // (1 + seed) for seed in range(3)]
    photographs[1][:, 100:] = 128
    chosen = [patches(photograph)[sharp_and_colourful(patches(photograph))] for photograph in photographs]
    assert len(chosen[1]) < 9
    found, expected = pristine_moments(photographs, describe), moments(describe(np.concatenate(chosen)))
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found.covariance, expected.covariance)
    with pytest.raises(GRMPError, match="at least two sharp and colourful patches of pristine photographs, got 1"):
        pristine_moments([picture(96, 96)], describe)


def test_spoiled_pictures_are_further_away() -> None:
    from grmp_hf.data.distortions import distort

    rng = np.random.default_rng(0)
    smooth = [np.kron(rng.integers(0, 256, (20, 20, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(8)]
    pristine = pristine_moments(smooth[1:], describe)

    def far(rgb: np.ndarray) -> float:
        return distance(pristine, moments(describe(patches(rgb))))

    assert far(smooth[0]) < min(far(distort(smooth[0], kind, 5, seed=0)) for kind in ("gaussian_blur", "white_noise"))


def test_the_zero_shot_score() -> None:
    lead, apart = np.array([-0.05, 0.0, 0.2]), np.array([0.0, 50.0, 1e6])
    expected = 1 / (1 + np.exp(-10 * lead)) + 1 - 1 / (1 + np.exp(-apart / 100))
    np.testing.assert_allclose(zero_shot_score(lead, apart), expected)
    assert zero_shot_score([0.0], [1e9])[0] == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: patches(np.zeros((10, 10), np.uint8)),
            r"uint8 array of shape \(height, width, 3\), got uint8 of shape",
        ),
        (lambda: patches(np.zeros((0, 10, 3), np.uint8)), "decode to 8-bit RGB first"),
        (lambda: distance(moments(draw(3, 4)), moments(draw(3, 5))), "statistics of the same features, got 4 and 5"),
        (lambda: moments([[np.nan, 1.0]]), "expected finite numbers, got nan"),
    ],
)
def test_what_cannot_be_described_is_refused(call: object, message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        call()  # type: ignore[operator]
