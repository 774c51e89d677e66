from __future__ import annotations

import dataclasses
import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import pipeline

import grmp_hf
from grmp_hf import scoring
from grmp_hf.data import IMAGE_ERROR_CODES, ImageError, RatingScale
from grmp_hf.data.image_errors import ImageWarning
from grmp_hf.data.images import to_rgb
from grmp_hf.errors import GRMPError
from grmp_hf.scoring import Scorer


@pytest.fixture(scope="module")
def scorer(clip_folder: Path, adapter_folder: Path) -> Scorer:
    return grmp_hf.load(adapter=adapter_folder)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
def test_batch_and_order_do_not_change_a_score(scorer: Scorer, photos: list[Path], batch_size: int) -> None:
    alone = {path: scorer.score(path).score[0] for path in photos}
    assert np.ptp(list(alone.values())) > 0.01
    shuffled = random.Random(0).sample(photos, len(photos))
    for path, score in zip(shuffled, scorer.score(shuffled, batch_size=batch_size).score, strict=True):
        assert score == pytest.approx(alone[path], abs=1e-5)


def test_a_file_its_content_a_picture_and_an_array_are_the_same(scorer: Scorer, photos: list[Path]) -> None:
    picture = Image.open(photos[3])
    forms = [photos[3], str(photos[3]), photos[3].read_bytes(), picture, np.asarray(picture)]
    assert np.ptp(scorer.score(forms).quality) < 1e-6


def test_grey_and_transparent_pictures_are_converted(scorer: Scorer) -> None:
    grey = Image.effect_noise((50, 40), 80)
    as_rgb = scorer.score([grey, grey.convert("RGB"), grey.convert("RGBA"), np.asarray(grey)]).quality
    assert np.ptp(as_rgb) < 1e-6


def test_scores_are_on_the_users_scale(scorer: Scorer, photos: list[Path]) -> None:
    quality, score, *_ = scorer.score(photos)
    assert scorer.scale == RatingScale(1, 5, unit="stars")
    np.testing.assert_allclose(score, 1 + 4 * quality)


def test_a_scorer_is_shown_in_a_line(scorer: Scorer) -> None:
    assert repr(scorer) == f"Scorer({scorer.identity['model']} + stars; 1 (worst) to 5 (best) stars; cpu)"
    both = Scorer(scorer.model, scorer.processor, None, {**scorer.identity, "model": "a/clip", "adapter": "mine"})
    assert repr(both) == "Scorer(a/clip + mine; 0 (worst) to 1 (best); cpu)"
    assert repr(Scorer(scorer.model, scorer.processor, None, {})).startswith(f"Scorer({type(scorer.model).__name__};")


def test_a_scale_where_low_is_best(scorer: Scorer, photos: list[Path]) -> None:
    damage = Scorer(scorer.model, scorer.processor, RatingScale(0, 10, higher_is_better=False), scorer.identity)
    quality, score, *_ = damage.score(photos)
    np.testing.assert_allclose(score, 10 - 10 * quality)


def bad_files(folder: Path, good: Path) -> dict[Path, str]:
    content = good.read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no picture")
    (folder / "half.png").write_bytes(content[: len(content) // 2])
    (folder / "folder.jpg").mkdir()
    codes = {"empty.jpg": "empty", "text.png": "unsupported_format", "half.png": "truncated"}
    codes |= {"folder.jpg": "is_a_directory", "missing.jpg": "not_found"}
    return {folder / name: code for name, code in codes.items()}


def test_bad_files_are_rows_with_a_code(scorer: Scorer, photos: list[Path], tmp_path: Path) -> None:
    bad = bad_files(tmp_path, photos[0])
    paths = [photos[0], *bad, photos[1]]
    rows = [row for part in scorer.iter_scores(paths, batch_size=2) for row in part]
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert [row.status for row in rows] == ["ok", *bad.values(), "ok"]
    assert set(bad.values()) <= set(IMAGE_ERROR_CODES)
    for row in rows[1:-1]:
        assert row.score is None and row.quality is None and Path(row.path).name in row.message
    expected = scorer.score([photos[0], photos[1]]).score
    assert [rows[0].score, rows[-1].score] == pytest.approx(expected, abs=2e-6)


def test_a_bad_picture_alone_is_an_error(scorer: Scorer, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        scorer.score([photos[0], tmp_path / "missing.jpg"])


def test_a_score_that_is_no_number_is_a_row_too(scorer: Scorer) -> None:
    assert scorer.row("a.jpg", float("nan"))[:4] == ("a.jpg", None, None, "not_finite")


def test_nothing_to_score_and_no_batch(scorer: Scorer, photos: list[Path]) -> None:
    with pytest.raises(GRMPError, match="at least one picture to score"):
        scorer.score([])
    with pytest.raises(GRMPError, match="batch size of at least 1, got 0"):
        next(scorer.iter_scores(photos, batch_size=0))


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), "too_large"), (OverflowError("too wide"), "unreadable"), (RecursionError(), "unreadable")],
)
def test_whatever_one_picture_raises_is_its_row(
    error: Exception, code: str, scorer: Scorer, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = scoring.read_picture

    def failing(source: Path, **options: int) -> Image.Image:
        if source == photos[2]:
            raise error
        return decode(source, **options)

    monkeypatch.setattr(scoring, "read_picture", failing)
    (rows,) = scorer.iter_scores(photos, batch_size=50)
    assert [row.status for row in rows] == ["ok", "ok", code, *["ok"] * (len(photos) - 3)]
    with pytest.raises(ImageError):
        scorer.score(photos)


def test_thin_pictures_are_scored(scorer: Scorer, tmp_path: Path) -> None:
    for size in ((1, 65_000), (4000, 1)):
        Image.new("RGB", size, (10, 200, 30)).save(tmp_path / f"{size[0]}.png")
    (rows,) = scorer.iter_scores([tmp_path / "1.png", tmp_path / "4000.png"])
    assert [row.status for row in rows] == ["ok", "ok"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "LA"])
def test_a_picture_is_turned_once_whatever_the_door(
    mode: str, orientation: int, scorer: Scorer, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    stored = Image.fromarray(noise).resize((90, 50), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    shown = ImageOps.exif_transpose(Image.open(path))
    assert shown.size == ((90, 50) if orientation < 5 else (50, 90))
    opened = Image.open(path)
    forms = [path, path.read_bytes(), opened, np.asarray(to_rgb(shown)), shown]
    assert np.ptp(scorer.score(forms).quality) < 1e-6
    by_pipeline = pipeline("image-quality-assessment", model=scorer.model)
    for form in (str(path), opened, shown):
        assert by_pipeline(form)["quality"] == pytest.approx(scorer.score(path).quality[0], abs=1e-6)
    if mode == "RGB":
        assert torch.equal(
            scorer.processor(opened)["pixel_values"], scorer.prepare(scorer.views(path)).squeeze(0)[None]
        )


def test_a_damaged_picture_is_scored_with_a_warning(scorer: Scorer, photos: list[Path], tmp_path: Path) -> None:
    path, sound = tmp_path / "damaged.jpg", io.BytesIO()
    Image.open(photos[9]).resize((200, 160)).save(sound, "JPEG")
    content = sound.getvalue()
    path.write_bytes(content[: len(content) // 2] + bytes(300) + content[len(content) // 2 + 300 :])
    (rows,) = scorer.iter_scores([photos[0], path, tmp_path / "gone.jpg"])
    assert [(row.status, row.warning) for row in rows] == [("ok", ""), ("ok", "damaged"), ("not_found", "")]
    with pytest.warns(ImageWarning, match=r"damaged\.jpg: a part of its data is lost"):
        scorer.score(path)


def test_a_large_batch_on_a_cpu_goes_through_the_model_in_parts(scorer: Scorer) -> None:
    seen: list[int] = []
    scorer.model.register_forward_pre_hook(lambda *given: seen.append(len(given[2]["pixel_values"])), with_kwargs=True)
    views = len(scorer.processor.settings()["views"])
    pixels = torch.randint(0, 256, (11, views, 3, scorer.processor.size, scorer.processor.size), dtype=torch.uint8)
    whole = scorer.outputs(pixels)
    assert seen == [4, 4, 3] and whole.quality.shape == (11,) and whole.image_embeds.shape[0] == 11
    np.testing.assert_allclose(
        whole.quality, scorer.model(pixel_values=scorer.prepare(pixels)).quality.detach(), atol=1e-6
    )


def test_the_identity_names_the_type_that_the_weights_have(clip_folder: Path, photos: list[Path]) -> None:
    scorer = grmp_hf.load(clip_folder)
    other = dataclasses.replace(scorer)
    scorer.model.to(torch.bfloat16)
    scorer.score(photos[0])
    assert scorer.identity["dtype"] == "bfloat16" and other.identity["dtype"] == "float32"
