from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.data import ImageError
from grmp_hf.errors import GRMPError
from grmp_hf.pipelines import TASK, ImageQualityAssessmentPipeline, register


def test_a_folder_of_a_plain_clip(clip_folder: Path, photos: list[Path]) -> None:
    scores = pipeline(TASK, model=str(clip_folder))
    assert isinstance(scores, ImageQualityAssessmentPipeline)
    expected = grmp_hf.load(clip_folder).score(photos).quality
    found = scores([str(path) for path in photos], batch_size=5)
    assert [row["quality"] for row in found] == pytest.approx(expected, abs=1e-5)
    assert scores(Image.open(photos[0]))["score"] == pytest.approx(expected[0], abs=1e-5)


def test_an_adapter_brings_its_scale_and_preprocessing(adapter_folder: Path, photos: list[Path]) -> None:
    scorer = grmp_hf.load(adapter=adapter_folder)
    found = pipeline(TASK, model=scorer.model)([str(path) for path in photos])
    assert [row["score"] for row in found] == pytest.approx(scorer.score(photos).score, abs=1e-5)


def test_the_folder_of_an_adapter(adapter_folder: Path, photos: list[Path]) -> None:
    found = pipeline(TASK, model=str(adapter_folder))(str(photos[0]))
    expected = grmp_hf.load(adapter=adapter_folder).score(photos[0]).score[0]
    assert found["score"] == pytest.approx(expected, abs=1e-5)


def test_other_preprocessing_can_be_given(clip_folder: Path, photos: list[Path]) -> None:
    own = grmp_hf.GRMPImageProcessor.authors(32)
    scores = pipeline(TASK, model=str(clip_folder), image_processor=own)
    assert scores.image_processor is own


def test_half_precision_weights_are_computed_with_in_full(tmp_path: Path, clip_folder: Path) -> None:
    scorer = grmp_hf.load(clip_folder, dtype="fp16")
    scorer.model.save_pretrained(tmp_path)  # type: ignore[operator]
    assert str(pipeline(TASK, model=str(tmp_path)).model.dtype) == "torch.float32"


def test_bad_pictures_and_options(clip_folder: Path, tmp_path: Path) -> None:
    scores = pipeline(TASK, model=str(clip_folder))
    with pytest.raises(ImageError, match="does not exist"):
        scores(str(tmp_path / "gone.jpg"))
    with pytest.raises(TypeError, match="takes no options but explain, got \\['top_k'\\]"):
        scores(str(tmp_path / "gone.jpg"), top_k=2)


def test_registering_twice_is_harmless(caplog: Any) -> None:
    register()
    register()
    assert not caplog.records


def test_a_baked_scorer_keeps_its_scale_and_preprocessing(
    adapter_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    assert main(["bake", str(tmp_path / "baked"), "--model", str(adapter_folder)]) == 0
    expected = grmp_hf.load(adapter=adapter_folder).score(photos).score
    for model in (str(tmp_path / "baked"), grmp_hf.load(tmp_path / "baked").model):
        found = pipeline(TASK, model=model)([str(path) for path in photos])
        assert [row["score"] for row in found] == pytest.approx(expected, abs=1e-5)


def test_the_scale_is_that_of_the_adapter_which_is_active(
    points_adapter: Path, stars_adapter: Path, photos: list[Path]
) -> None:
    model: Any = grmp_hf.load(adapter=points_adapter).model
    model.load_adapter(str(stars_adapter), "second")
    scores = pipeline("image-quality-assessment", model=model)
    for name, folder in (("default", points_adapter), ("second", stars_adapter), ("default", points_adapter)):
        model.set_adapter(name)
        expected = grmp_hf.load(adapter=folder).score(photos[0]).score[0]
        assert scores(str(photos[0]))["score"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 4, 4, 3), np.uint8), np.array([], dtype=str)])
def test_no_pictures_are_refused_in_words(nothing: Any) -> None:
    with pytest.raises(GRMPError, match="Expected at least one picture to score, got none"):
        pipeline(TASK, model=grmp_hf.load().model)(nothing)
