"""The 25 kinds of distortion: what every kind promises, then what single kinds do."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grmp_hf.data.distortions import DISTORTIONS, LEVELS, Distortion, Pixels, distort
from grmp_hf.data.distortions.pictures import convolve, from_lab, gaussian_kernel, to_lab
from grmp_hf.errors import GRMPError

KINDS = list(DISTORTIONS)
FAMILIES = ["blur"] * 3 + ["colour"] * 5 + ["compression"] * 2 + ["noise"] * 5
FAMILIES += ["brightness"] * 3 + ["spatial"] * 5 + ["sharpness"] * 2


def scene(seed: int, height: int = 96, width: int = 128) -> Pixels:
    """Coarse colours, an edge and fine grain: what a photograph has for every kind to work on."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(30, 226, (6, 8, 3), dtype=np.uint8))
    values = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    values[:, width // 3 : width // 2] *= 0.6
    values += random.normal(0, 6, (height, width, 1))
    return np.clip(values, 0, 255).astype(np.uint8)


def difference(first: Pixels, second: Pixels) -> float:
    """Mean absolute difference, 0 to 255."""
    return float(np.abs(first.astype(np.int16) - second).mean())


def test_the_kinds_are_those_of_kadid_in_its_order() -> None:
    assert [distortion.number for distortion in DISTORTIONS.values()] == list(range(1, 26))
    assert [distortion.name for distortion in DISTORTIONS.values()] == KINDS
    assert [distortion.family for distortion in DISTORTIONS.values()] == FAMILIES
    assert all(len(distortion.values) == len(LEVELS) == 5 for distortion in DISTORTIONS.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("error")
def test_every_level_keeps_the_form_and_the_input_and_repeats(kind: str) -> None:
    picture = scene(0)
    original = picture.copy()
    picture.flags.writeable = False
    for level in LEVELS:
        distorted = distort(picture, kind, level, seed=5)
        assert (distorted.shape, distorted.dtype) == (picture.shape, np.uint8)
        assert distorted.flags.writeable and distorted.flags.c_contiguous
        assert not np.shares_memory(distorted, picture)
        np.testing.assert_array_equal(distorted, distort(picture, kind, level, seed=5))
    np.testing.assert_array_equal(picture, original)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stronger_level_changes_more(kind: str) -> None:
    for seed in range(4):
        picture = scene(seed)
        changes = [difference(picture, distort(picture, kind, level, seed=seed)) for level in LEVELS]
        assert changes[0] > 0
        assert changes == sorted(set(changes)), changes


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_matters_where_the_table_says_so(kind: str) -> None:
    picture = scene(1)
    results = {distort(picture, kind, 4, seed=seed).tobytes() for seed in range(8)}
    assert (len(results) > 1) == DISTORTIONS[kind].random


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (16, 300), (61, 17)], ids=str)
@pytest.mark.filterwarnings("error")
def test_small_long_grey_and_flat_pictures(kind: str, size: tuple[int, int]) -> None:
    grey = np.repeat(scene(2, *size)[..., :1], 3, axis=2)
    pictures = [scene(3, *size), grey, *(np.full((*size, 3), value, np.uint8) for value in (0, 128, 255))]
    for picture in pictures:
        for level in (1, 5):
            assert distort(picture, kind, level, seed=0).shape == picture.shape


@pytest.mark.parametrize("kind", KINDS)
def test_views_of_a_larger_picture_are_taken_as_they_are_seen(kind: str) -> None:
    larger = scene(4, 120, 200)
    view = larger[10:74, ::-1][:, 20:84]
    np.testing.assert_array_equal(distort(view, kind, 3, seed=1), distort(view.copy(), kind, 3, seed=1))


def test_photographs_change_more_at_a_stronger_level(biq2021_folder: Path) -> None:
    with (biq2021_folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        names = [row["image"] for row in csv.DictReader(stream) if row["split"] == "train"][:20]
    falls = []
    for seed, name in enumerate(names):
        with Image.open(biq2021_folder / "images" / name) as image:
            image.draft("RGB", (192, 192))
            picture = np.asarray(image.convert("RGB").resize((160, 120), Image.Resampling.BOX))
        for kind in KINDS:
            changes = [difference(picture, distort(picture, kind, level, seed=seed)) for level in LEVELS]
            falls.append(changes[0] > 0 and changes == sorted(set(changes)))
    assert len(falls) == 20 * 25
    assert np.mean(falls) >= 0.95


@pytest.mark.parametrize(
    ("kind", "level", "seed", "message"),
    [
        (
            "gausian_blur",
            1,
            0,
            r'unknown distortion "gausian_blur" \(did you mean "gaussian_blur"\?\); choose from gaus',
        ),
        ("sepia", 1, 0, r'unknown distortion "sepia"; choose from gaussian_blur, lens_blur, .*, contrast$'),
        ("jpeg", 0, 0, r"jpeg: expected a level of 1 \(mild\) to 5 \(strong\), got 0; choose one of these"),
        ("jpeg", 6, 0, r"jpeg: expected a level .* got 6"),
        ("jpeg", 1, -1, r"jpeg: expected a seed of 0 or more, got -1; choose another"),
    ],
)
def test_wrong_arguments_are_named(kind: str, level: int, seed: int, message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        distort(scene(0), kind, level, seed=seed)


@pytest.mark.parametrize(
    "picture",
    [scene(0)[..., 0], scene(0)[..., :2], scene(0).astype(np.float32), scene(0)[:15]],
    ids=["grey", "two channels", "float", "15 rows"],
)
def test_wrong_pictures_are_named(picture: Pixels) -> None:
    message = (
        rf"jpeg: expected a picture \(H, W, 3\) uint8 .* got {re.escape(str(picture.shape))} {picture.dtype}; conv"
    )
    with pytest.raises(GRMPError, match=message):
        distort(picture, "jpeg", 1, seed=0)


def test_convolution_is_that_of_scipy() -> None:
    from scipy import ndimage

    values = scene(5, 40, 30).astype(np.float64)
    kernel = np.random.default_rng(0).random((5, 9))
    expected = np.stack([ndimage.convolve(values[..., c], kernel, mode="reflect") for c in range(3)], axis=-1)
    single = (
        10 * 255 * np.finfo(np.float32).eps
    )  # in single precision; the margin is ten roundings of the largest value
    np.testing.assert_allclose(convolve(values, kernel), expected, rtol=0, atol=single * kernel.sum())
    expected = ndimage.gaussian_filter(values, (4, 4, 0), mode="reflect", truncate=3)
    np.testing.assert_allclose(convolve(values, gaussian_kernel(4)), expected, rtol=0, atol=single)


def test_lab_has_the_published_values_and_leads_back() -> None:
    # D65, from the definition of CIE Lab (CIE 15:2004) and of sRGB (IEC 61966-2-1)
    colours = np.array([[[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)
    lab = [[100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [0, 0, 0]]
    np.testing.assert_allclose(to_lab(colours)[0], lab, atol=0.12)
    values = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert np.abs(from_lab(to_lab(values)).astype(np.int16) - values).max() <= 1


def test_noise_has_the_variance_of_the_table() -> None:
    flat = np.full((256, 256, 3), 128, np.uint8)
    for kind in ("white_noise", "multiplicative_noise"):
        scale = 255 if kind == "white_noise" else 128
        for level, variance in zip(LEVELS, DISTORTIONS[kind].values, strict=True):
            noise = (distort(flat, kind, level, seed=0).astype(np.float64) - 128) / scale
            assert abs(noise.mean()) < 0.001
            assert noise.var() == pytest.approx(variance, rel=6 * (2 / noise.size) ** 0.5)  # six of its deviations


def test_impulses_are_black_and_white_in_equal_shares() -> None:
    flat = np.full((512, 512, 3), 128, np.uint8)
    for level, density in zip(LEVELS, DISTORTIONS["impulse_noise"].values, strict=True):
        noisy = distort(flat, "impulse_noise", level, seed=0)
        assert set(np.unique(noisy)) == {0, 128, 255}
        for value in (0, 255):
            expected = density / 2 * noisy.size
            assert (noisy == value).sum() == pytest.approx(expected, abs=6 * expected**0.5)  # six of its deviations


def test_brightness_moves_up_down_and_either_way() -> None:
    picture = scene(6)
    means = {kind: [distort(picture, kind, level, seed=0).mean() for level in LEVELS] for kind in KINDS}
    assert picture.mean() < means["brighten"][0] and means["brighten"] == sorted(means["brighten"])
    assert picture.mean() > means["darken"][0] and means["darken"] == sorted(means["darken"], reverse=True)
    flat = np.full((16, 16, 3), 128, np.uint8)
    shifts = {int(distort(flat, "mean_shift", 2, seed=seed)[0, 0, 0]) - 128 for seed in range(8)}
    assert shifts == {-20, 20}  # 0.08 of 255


def test_contrast_is_stronger_or_weaker_for_good() -> None:
    picture = scene(7)
    grows = []
    for seed in range(8):
        spreads = [distort(picture, "contrast", level, seed=seed).std() for level in LEVELS]
        grows.append(spreads[0] > picture.std())
        assert spreads == sorted(spreads, reverse=not grows[-1])
    assert set(grows) == {True, False}


def test_saturation_of_hsv_is_the_textbook_one() -> None:
    import colorsys

    picture = scene(8, 16, 16)
    for level, factor in zip((1, 4), (0.4, 0.0), strict=True):
        distorted = distort(picture, "colour_saturation_hsv", level, seed=0)
        for pixel, result in zip(picture.reshape(-1, 3), distorted.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
            expected = np.rint(255 * np.array(colorsys.hsv_to_rgb(hue, saturation * factor, value)))
            assert np.abs(result - expected).max() <= 1
    assert np.ptp(distort(picture, "colour_saturation_hsv", 4, seed=0), axis=2).max() == 0


@pytest.mark.parametrize("level", LEVELS)
def test_quantisation_keeps_as_many_values_as_it_says(level: int) -> None:
    picture = scene(9)
    thresholds = DISTORTIONS["quantisation"].values[level - 1]
    assert len(np.unique(distort(picture, "quantisation", level, seed=0))) == thresholds + 1
    colours = distort(picture, "colour_quantisation", level, seed=0).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) <= DISTORTIONS["colour_quantisation"].values[level - 1]


def test_quantisation_has_the_least_variance_within_its_classes() -> None:
    picture = scene(10, 16, 16)
    picture[...] = np.random.default_rng(0).choice([10, 12, 60, 61, 62, 130, 200, 250], picture.shape)
    distorted = distort(picture, "quantisation", 5, seed=0)  # eight classes: nothing is lost
    np.testing.assert_array_equal(distorted, picture)
    picture[:2] = 64  # a ninth value: 61 and 62, or 62 and 64, or 10 and 12, ... share a class; least loss decides
    merged = distort(picture, "quantisation", 5, seed=0)
    assert len(np.unique(merged)) == 8
    assert np.abs(merged.astype(np.int16) - picture).max() <= 1


def test_blocks_and_patches_cover_the_same_share_at_every_size() -> None:
    for size, side in (((384, 512), 32), ((96, 128), 8)):
        flat = np.full((*size, 3), 128, np.uint8)
        blocks = (distort(flat, "colour_block", 1, seed=3) != 128).any(axis=2)
        assert blocks.sum() == 2 * side**2
        ramp = np.zeros((*size, 3), np.uint8)
        ramp[...] = np.linspace(0, 255, size[1])[None, :, None]
        moved = (distort(ramp, "non_eccentricity_patch", 1, seed=0) != ramp).any(axis=2).mean()
        assert 0.01 < moved < 20 * 16**2 / (384 * 512)


def test_blocks_of_a_level_are_among_those_of_the_next() -> None:
    picture = scene(11)
    for level in (1, 2, 3, 4):
        weaker, stronger = (distort(picture, "colour_block", k, seed=2) for k in (level, level + 1))
        untouched = (stronger == picture).all(axis=2)
        np.testing.assert_array_equal(weaker[untouched], picture[untouched])


def test_motion_blurs_along_one_line() -> None:
    point = np.zeros((33, 33, 3), np.uint8)
    point[16, 16] = 255
    for seed in range(4):
        rows, columns = np.nonzero(distort(point, "motion_blur", 5, seed=seed)[..., 0])
        spread = np.linalg.eigvalsh(np.cov(np.stack((rows, columns)).astype(float)))
        assert spread[1] > 6 * spread[0]


def test_compressed_sizes_follow_the_ratio() -> None:
    picture = scene(12)
    low, high = (difference(picture, distort(picture, "jpeg2000", level, seed=0)) for level in (1, 5))
    assert 0 < low < high / 2


def test_the_document_has_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\w+) \| `(\w+)` \| (.+?) \| (.+?) \| (.*?) \|$", text, re.MULTILINE)
    assert len(rows) == 25
    for number, family, name, parameter, values, seeded in rows:
        expected = DISTORTIONS[name]
        assert isinstance(expected, Distortion)
        assert (int(number), family, parameter) == (expected.number, expected.family, expected.parameter)
        assert tuple(map(float, values.split(", "))) == expected.values
        assert (seeded == "yes") == expected.random
