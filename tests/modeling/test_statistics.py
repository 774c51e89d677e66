"""Hand-made statistics in torch against those of numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grmp_hf.evaluation.baselines import STATISTICS, handmade_statistics
from grmp_hf.modeling.statistics import COUNT, picture_statistics


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
    smooth = np.cumsum(rng.normal(0, 3, (72, 96, 3)), axis=1) + 128
    halves = np.zeros((72, 96, 3), np.uint8)
    halves[:, 40:] = 255
    return [noise, np.clip(smooth, 0, 255).astype(np.uint8), halves, np.full((72, 96, 3), 77, np.uint8)]


def test_they_are_those_of_numpy_for_pictures_together_and_alone() -> None:
    expected = np.stack([handmade_statistics(picture) for picture in pictures()])
    pixels = torch.from_numpy(np.stack(pictures())).permute(0, 3, 1, 2).float() / 255
    together = picture_statistics(pixels)
    assert together.shape == (4, COUNT) and len(STATISTICS) == COUNT
    # Logarithms of sums of some 7,000 terms of single precision: a relative error of 7,000 x 6e-8 at the most. A
    # window's deviation is the root of a difference of squares, up to .5^2, of which eight roundings may be left:
    # 3.5e-4 of a mean of .036 where most windows are of one colour (the halves).
    bounds = [1e-2 if name == "local_contrast" else 5e-4 for name in STATISTICS]
    for at in range(4):
        alone = picture_statistics(pixels[at : at + 1])[0]
        assert (np.abs(together[at].numpy() - expected[at]) <= bounds).all()
        assert (np.abs((alone - together[at]).numpy()) <= bounds).all()


@pytest.mark.parametrize("size", [(16, 16), (17, 40)])
def test_small_pictures_have_finite_ones(size: tuple[int, int]) -> None:
    assert bool(picture_statistics(torch.rand(2, 3, *size)).isfinite().all())
