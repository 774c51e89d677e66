from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from grmp_hf.data.distortions import DISTORTIONS, LEVELS, Pixels, distort
from grmp_hf.data.gmsd import gmsd, gmsd_quality
from grmp_hf.errors import GRMPError


def scene(seed: int, height: int = 61, width: int = 80) -> Pixels:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(30, 226, (6, 8, 3), dtype=np.uint8))
    values = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    return np.clip(values + random.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)


SINGLE = 100 * float(
    np.finfo(np.float32).eps
)  # of numbers up to 1 in single precision; the margin is a hundred roundings


def by_definition(reference: Pixels, distorted: Pixels) -> float:
    """The paper's steps with scipy's filters, in double precision, without the outermost pixels."""

    def magnitude(picture: Pixels) -> np.ndarray:
        luminance = picture.astype(np.float64) @ [0.299, 0.587, 0.114]
        half = ndimage.correlate(luminance, np.full((2, 2), 0.25), origin=-1)[:-1:2, :-1:2]
        prewitt = np.array([[1, 0, -1]] * 3) / 3
        return np.hypot(ndimage.convolve(half, prewitt), ndimage.convolve(half, prewitt.T))[1:-1, 1:-1]

    m, n = magnitude(reference), magnitude(distorted)
    return float(((2 * m * n + 170) / (m**2 + n**2 + 170)).std())


@pytest.mark.parametrize("kind", ["gaussian_blur", "white_noise", "jpeg"])
@pytest.mark.parametrize("shape", [(60, 80), (61, 83)], ids=str)
def test_it_is_the_paper_s_with_other_filters(kind: str, shape: tuple[int, int]) -> None:
    picture = scene(0, *shape)
    distorted = distort(picture, kind, 4, seed=0)
    assert gmsd(picture, distorted) == pytest.approx(by_definition(picture, distorted), abs=SINGLE)
    assert gmsd(distorted, picture) == pytest.approx(gmsd(picture, distorted), abs=SINGLE)


def test_equal_pictures_differ_by_nothing_and_bounds_hold() -> None:
    picture = scene(1)
    assert gmsd(picture, picture) == 0
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, dtype=np.uint8)
    assert 0.15 < gmsd(picture, noise) <= 0.5
    assert gmsd(picture, np.clip(picture.astype(int) + 20, 0, 255).astype(np.uint8)) < 0.01  # no gradient changes


def test_quality_falls_from_one_to_zero() -> None:
    qualities = [gmsd_quality(value) for value in np.linspace(0, 0.35, 20)]
    assert qualities[0] == 1 and qualities[-1] == pytest.approx(0)
    assert all(high > low for high, low in itertools.pairwise(qualities))
    assert gmsd_quality(0.5) == 0


def test_quality_of_photographs_falls_with_the_level(biq2021_folder: Path) -> None:
    """Of 500 photograph x type pairs, at least 95 % are in order but for at most one swap of neighbouring levels."""
    paths = sorted((biq2021_folder / "unlabelled").iterdir())[::60]
    falls, steps = [], []
    for seed, path in enumerate(paths):
        with Image.open(path) as image:
            picture = np.asarray(image.convert("RGB"))[192:320, 192:320]
        for kind in DISTORTIONS:
            pictures = [picture, *(distort(picture, kind, level, seed=seed) for level in LEVELS)]
            qualities = [gmsd_quality(gmsd(picture, other)) for other in pictures]
            steps += [high > low for high, low in itertools.pairwise(qualities)]
            falls.append(np.ptp(qualities) > 0 and stats.spearmanr(range(6), qualities).statistic < -0.94)
    assert len(falls) == 20 * 25
    assert np.mean(falls) >= 0.95
    assert np.mean(steps) >= 0.97


@pytest.mark.parametrize("shapes", [((8, 8, 3), (8, 9, 3)), ((5, 8, 3), (5, 8, 3))], ids=str)
def test_pictures_that_cannot_be_compared_are_named(shapes: tuple[tuple[int, ...], ...]) -> None:
    first, second = (np.zeros(shape, np.uint8) for shape in shapes)
    with pytest.raises(GRMPError, match="expected two pictures of the same shape with sides of at least 6 pixels"):
        gmsd(first, second)
