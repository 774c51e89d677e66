"""grmp_hf.evaluation.baselines: ridge equals brute force, statistics react to what they are named after."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import STATISTICS, RidgeModel, fit_ridge, handmade_statistics
from grmp_hf.evaluation.metrics import srcc

Rgb = npt.NDArray[np.uint8]


def solve(z: npt.NDArray[np.float64], y: npt.NDArray[np.float64], alpha: float) -> npt.NDArray[np.float64]:
    """Weights and, last, the unpenalised intercept, from the normal equations."""
    design = np.column_stack([z, np.ones(len(z))])
    penalty = alpha * np.diag([1.0] * z.shape[1] + [0.0])
    return np.linalg.solve(design.T @ design + penalty, design.T @ y)


def standardised(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.clip((x - x.mean(axis=0)) / x.std(axis=0), -5, 5)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 40)])
def test_ridge_equals_leave_one_out_by_brute_force(n: int, d: int) -> None:
    rng = np.random.default_rng(d)
    x = rng.standard_t(2, size=(n, d))  # heavy tails: some features are clipped
    y = x[:, 0] + rng.normal(size=n)
    z = standardised(x)
    model = fit_ridge(x, y)
    errors = {}
    for alpha in d * np.array([0.03, 0.1, 0.3, 1, 3, 10]):
        left = [y[i] - np.append(z[i], 1) @ solve(np.delete(z, i, 0), np.delete(y, i), alpha) for i in range(n)]
        errors[alpha] = np.square(left).sum()
    assert model.alpha == pytest.approx(min(errors, key=errors.__getitem__))
    np.testing.assert_allclose(model.predict(x), np.column_stack([z, np.ones(n)]) @ solve(z, y, model.alpha), atol=1e-9)


def test_ridge_survives_constant_features_and_wild_pictures() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=20), np.full(20, 0.1)])
    model = fit_ridge(x, 2 * x[:, 0])
    far = model.predict([[1e9, 0.1], [1e9, 1e9]])
    assert far[0] == far[1]
    assert abs(far[0]) < 2 * 5 * x[:, 0].std() + 1


def test_ridge_without_information_predicts_the_mean() -> None:
    model = fit_ridge(np.ones((10, 3)), np.arange(10))
    np.testing.assert_allclose(model.predict(np.zeros((2, 3))), 4.5)


@pytest.mark.parametrize(
    ("features", "quality", "message"),
    [
        (np.ones((3, 2)), [1, 2], "one label a row of features, got 3 rows and 2 labels"),
        (np.ones((1, 2)), [1], "at least two labelled pictures, got 1"),
        (np.ones(3), [1, 2, 3], r"features: expected 2 dimension\(s\), got the shape \(3,\)"),
        ([[1, 2], [3, np.nan]], [1, 2], "features: expected finite numbers, got nan at position 1, 1"),
    ],
)
def test_unfit_labels_are_named(features: npt.ArrayLike, quality: npt.ArrayLike, message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        fit_ridge(features, quality)


def test_prediction_needs_the_features_of_the_fit() -> None:
    model = RidgeModel(np.zeros(3), np.ones(3), np.ones(3), 0.0, 1.0)
    with pytest.raises(GRMPError, match="expected 3 columns as in fitting, got 2"):
        model.predict(np.zeros((4, 2)))


def photograph(size: int = 256) -> Rgb:
    """Overlapping coloured boxes of many sizes: edges, flat parts and colour, as a photograph has."""
    rng = np.random.default_rng(0)
    picture = np.full((size, size, 3), 120, np.uint8)
    for _ in range(150):
        y, x = rng.integers(size, size=2)
        height, width = rng.integers(4, size // 4, size=2)
        picture[y : y + height, x : x + width] = rng.integers(30, 226, 3)
    return picture


def statistic(rgb: Rgb, name: str) -> float:
    return float(handmade_statistics(rgb)[STATISTICS.index(name)])


def changed(rgb: Rgb, kind: str) -> Rgb:
    """The picture with one defect."""
    image = Image.fromarray(rgb)
    if kind == "blur":
        return np.asarray(image.filter(ImageFilter.GaussianBlur(3)))
    if kind == "grey":
        return np.asarray(image.convert("L").convert("RGB"))
    if kind == "blocks":
        small = image.resize((32, 32), Image.Resampling.BOX)
        return np.asarray(small.resize(image.size, Image.Resampling.NEAREST))
    values = rgb.astype(float)
    if kind == "noise":
        values += np.random.default_rng(1).normal(0, 20, rgb.shape)
    else:
        values = {"dark": values / 8, "bright": values * 4, "flat": 120 + (values - 120) / 8}[kind]
    return values.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "name", "sign"),
    [
        ("blur", "sharpness", -1),
        ("blur", "centre_sharpness", -1),
        ("blur", "edges", -1),
        ("flat", "local_contrast", -1),
        ("flat", "entropy", -1),
        ("grey", "colourfulness", -1),
        ("dark", "luminance", -1),
        ("flat", "contrast", -1),
        ("dark", "dark_share", 1),
        ("bright", "bright_share", 1),
        ("noise", "noise", 1),
        ("blocks", "blockiness", 1),
        ("noise", "tail_weight", -1),
        ("noise", "neighbour_product", -1),
    ],
)
def test_each_statistic_moves_with_its_defect(kind: str, name: str, sign: int) -> None:
    clean = photograph()
    assert sign * (statistic(changed(clean, kind), name) - statistic(clean, name)) > 0.02


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 700), (700, 2), (3, 3), (17, 31)])
@pytest.mark.parametrize("fill", [0, 255, None])
def test_statistics_are_finite_for_any_picture(shape: tuple[int, int], fill: int | None) -> None:
    noise = np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8)
    found = handmade_statistics(noise if fill is None else np.full_like(noise, fill))
    assert found.shape == (14,) == (len(STATISTICS),)
    assert np.isfinite(found).all()


def test_large_pictures_are_measured_at_512_pixels() -> None:
    large = np.asarray(Image.fromarray(photograph(1024)))
    small = np.asarray(Image.fromarray(large).resize((512, 512), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(handmade_statistics(large), handmade_statistics(small))


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "x"])
def test_only_rgb_bytes_are_taken(wrong: object) -> None:
    with pytest.raises(GRMPError, match=r"uint8 array of shape \(height, width, 3\)"):
        handmade_statistics(wrong)


def test_statistics_with_ridge_rank_real_photographs(biq2021_folder: Path) -> None:
    """A quarter of the train photographs; labels of 100 give at least .5 on the rest, sharpness alone .45."""
    with (biq2021_folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"][::4]
    mos = np.array([float(row["mos"]) for row in rows])
    pictures = (Image.open(biq2021_folder / "images" / row["image"]) for row in rows)
    features = np.stack([handmade_statistics(np.asarray(picture.convert("RGB"))) for picture in pictures])
    order = np.random.default_rng(0).permutation(len(rows))
    labelled, rest = order[:100], order[100:]
    assert srcc(fit_ridge(features[labelled], mos[labelled]).predict(features[rest]), mos[rest]) > 0.5
    assert srcc(features[:, STATISTICS.index("sharpness")], mos) > 0.45
