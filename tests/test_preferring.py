from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LNTuningConfig, get_peft_model

import grmp_hf
from grmp_hf.data.image_errors import ImageError
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.heads import GRMPOutput
from grmp_hf.modeling.linear_heads import MeanSigma
from grmp_hf.preferring import chances, compare


def phi(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def output(**given: list[float]) -> GRMPOutput:
    return GRMPOutput(**{name: torch.tensor(values) for name, values in given.items()})


def test_a_scorer_that_does_not_know_is_off_by_the_noise() -> None:
    chance, known_by = chances(output(quality=[0.7, 0.3, 0.7]), 0.2)
    expected = phi(0.4 / (0.2 * math.sqrt(2)))
    assert known_by == "assumed"
    np.testing.assert_allclose(chance[0], [0.5, expected, 0.5], atol=1e-6)
    np.testing.assert_allclose(chance + chance.T, 1, atol=1e-12)
    assert chances(output(quality=[0.7, 0.3]), 1.0)[0][0, 1] < expected


def test_a_head_of_means_says_it_by_its_sigmas() -> None:
    chance, known_by = chances(output(quality=[0.9, 0.1], mean=[1.0, 0.0], sigma=[0.6, 0.8]))
    assert known_by == "sigma" and chance[0, 1].item() == pytest.approx(0.841345, abs=1e-6)
    cosine = chances(output(quality=[0.7, 0.3], mean=[0.4, -0.4]))
    assert cosine[1] == "assumed"  # a mean alone says nothing of errors


def test_an_adapter_says_it_by_what_its_ratings_have_told() -> None:
    known = {"deviation": [0.3, 0.4], "degrees": [1.0, 1.0], "novelty": [0.0, 0.0]}
    chance, known_by = chances(output(quality=[0.8, 0.3], **known))
    assert known_by == "ratings"
    assert chance[0, 1].item() == pytest.approx(0.75, abs=1e-6)  # Student's distribution of one degree: Cauchy's
    surer = chances(output(quality=[0.8, 0.3], **{**known, "degrees": [1e9, 1e9]}))[0][0, 1].item()
    assert surer == pytest.approx(phi(1.0), abs=1e-5)


def test_a_model_that_gives_no_number_is_refused(clip_folder: Path, photos: list[Path]) -> None:
    scorer = grmp_hf.load(clip_folder)
    model: Any = scorer.model
    with torch.no_grad():
        model.clip.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(GRMPError, match=r"numbers of 2 pictures, got none of 2; look for weights that are not finite"):
        compare(scorer, photos[:2])


@pytest.fixture
def table(photos: list[Path]) -> Path:
    path = photos[0].parent / "ratings.csv"
    path.write_text("image,mos\n" + "".join(f"{photo.name},{1 + at % 5}\n" for at, photo in enumerate(photos)))
    return path


def with_sigma(base: Any) -> Any:
    model = copy_base(base.model)
    model.head = MeanSigma(8)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.last.weight, std=5.0)
    config = LNTuningConfig(target_modules=["layer_norm1"], modules_to_save=["head"])
    return dataclasses.replace(base, model=get_peft_model(model, config).eval())


@pytest.mark.parametrize("kind", ["base", "adapted", "baked", "sigma"])
def test_every_kind_of_scorer_compares(
    kind: str, clip_folder: Path, photos: list[Path], table: Path, tmp_path: Path
) -> None:
    base = grmp_hf.load(clip_folder)
    if kind in ("adapted", "baked"):
        scorer = grmp_hf.adapt(base, grmp_hf.read_ratings(table, scale=(1, 5), higher_is_better=False), shots=8)
    else:
        scorer = with_sigma(base) if kind == "sigma" else base
    if kind == "baked":
        scorer = dataclasses.replace(scorer, model=bake(scorer.model))
    found = compare(scorer, photos, batch_size=5)
    assert found.known_by == {"base": "assumed", "sigma": "sigma"}.get(kind, "ratings")
    assert found.chance.shape == (12, 12)
    np.testing.assert_allclose(found.chance + found.chance.T, 1, atol=1e-12)
    ranked = found.scores.quality[found.order]
    assert (np.diff(ranked) <= 0).all() and np.ptp(ranked) > 1e-4
    first, second = found.order[0], found.order[-1]
    assert found.chance[first, second] > 0.5
    alone = scorer.compare(photos[first], photos[second])
    assert alone == pytest.approx(found.chance[first, second], abs=1e-5)
    assert scorer.compare(photos[second], photos[first]) == pytest.approx(1 - alone, abs=1e-6)
    for at in range(11):  # what is ranked higher is the better one of any two, whatever the scale's direction
        assert (found.chance[found.order[at], found.order[at + 1 :]] >= 0.5 - 1e-9).all()


def test_what_cannot_be_compared(clip_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    scorer = grmp_hf.load(clip_folder)
    with pytest.raises(GRMPError, match="Expected 2 to 2000 pictures to compare, got 1"):
        compare(scorer, photos[:1])
    for noise in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(GRMPError, match="Expected a noise above 0, in quality"):
            scorer.compare(*photos[:2], noise=noise)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError):
        scorer.compare(photos[0], broken)
