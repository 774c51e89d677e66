"""The feature map: zero at the start, set to what the shots say, saved, baked, and how sure it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model

from grmp_hf import GRMPForImageQualityAssessment, GRMPPromptConfig
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.feature_map import FeatureMap, level_logit, quality_interval
from grmp_hf.modeling.peft_prompts import feature_groups
from grmp_hf.training.feature_fitting import agreement, fit_features, logit_of, pull_of_map
from tests.modeling.test_side import views, with_side

MakeScorer = Callable[..., GRMPForImageQualityAssessment]
LEVELS = {"two": [1.0, 0.0], "five": [1.0, 0.75, 0.5, 0.25, 0.0]}


@pytest.fixture
def base(make_scorer: MakeScorer) -> GRMPForImageQualityAssessment:
    return with_side(make_scorer)


def adapt(base: GRMPForImageQualityAssessment, **options: Any) -> PeftModel:
    config = GRMPPromptConfig(text_prompts=4, visual_prompts=0, features=feature_groups(base), **options)
    return get_peft_model(copy_base(base), config).eval()


def learn(base: GRMPForImageQualityAssessment, count: int = 24) -> tuple[PeftModel, torch.Tensor, torch.Tensor, Any]:
    """An adapter whose map has seen pictures, the pictures, their quality, and the belief."""
    pixels, adapted = views(count), adapt(base)
    with torch.no_grad():
        features = base.get_features(pixels, side=True)
        logits = base(image_embeds=features.embeds).quality_logits
        seen = features.side[:, -8]
        quality = (0.55 + 0.15 * (seen - seen.mean()) / seen.std()).clamp(0.05, 0.95)
        belief, _ = fit_features(adapted, features.pooled(), features.side, logits, quality)
    return adapted, pixels, quality, belief


@torch.no_grad()
def test_a_new_map_changes_nothing(base: GRMPForImageQualityAssessment) -> None:
    adapted, pixels = adapt(base), views()
    torch.testing.assert_close(adapted(pixels).quality_logits, base(pixels).quality_logits)
    assert base(pixels).deviation is None


@torch.no_grad()
def test_the_map_says_to_first_order_what_is_believed(base: GRMPForImageQualityAssessment) -> None:
    adapted, pixels, quality, belief = learn(base)
    found = adapted(pixels)
    shift = level_logit(found.quality_logits, [1.0, 0.0])
    centre = float(quality.mean())
    linear = centre + centre * (1 - centre) * (shift - math.log(centre / (1 - centre)))
    assert np.corrcoef(linear.numpy(), quality.numpy())[0, 1] > 0.8
    # A shot that is there is predicted better than one that is left out.
    assert (quality - linear).abs().mean() < np.abs(belief.residuals).mean()
    assert found.deviation.shape == found.degrees.shape == found.novelty.shape == (24,)
    assert bool((found.deviation > 0).all()) and float(found.degrees[0]) == belief.degrees


@torch.no_grad()
def test_disabled_it_is_the_base_bit_for_bit(base: GRMPForImageQualityAssessment) -> None:
    adapted, pixels, *_ = learn(base)
    with adapted.disable_adapter():
        off = adapted(pixels)
    assert torch.equal(off.quality, base(pixels).quality) and off.deviation is None
    assert not torch.equal(adapted(pixels).quality, off.quality)


@torch.no_grad()
def test_saved_loaded_and_baked_it_says_the_same(base: GRMPForImageQualityAssessment, tmp_path: Path) -> None:
    adapted, pixels, *_ = learn(base)
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy_base(base), str(tmp_path)).eval()
    expected, again, baked = adapted(pixels), loaded(pixels), bake(adapted)(pixels)
    for name in ("quality", "deviation", "degrees", "novelty"):
        assert torch.equal(again[name], expected[name]), name
        torch.testing.assert_close(baked[name], expected[name])


@torch.no_grad()
def test_pictures_of_another_kind_are_unlike(base: GRMPForImageQualityAssessment) -> None:
    adapted, pixels, *_ = learn(base, 40)
    assert (adapted(pixels).novelty > 0).float().mean() <= 0.1
    flat = torch.zeros_like(pixels[:5]) + 0.4
    assert bool((adapted(flat).novelty > 0).all())


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_the_link_is_the_mean_level(levels: list[float]) -> None:
    for quality in (0.1, 0.5, 0.83):
        shift = torch.tensor(logit_of(quality, levels))
        direction = torch.tensor(levels) - np.mean(levels)
        assert float((shift * direction).softmax(0) @ torch.tensor(levels)) == pytest.approx(quality, abs=1e-6)


@torch.no_grad()
def test_any_number_of_anchors_learns(make_scorer: MakeScorer) -> None:
    ids = [[62, 7, 7, 7, 7, word, 30, 31, 63] for word in (11, 12, 13)]
    anchors = {"quality_anchors": ["a", "b", "c"], "quality_levels": [1.0, 0.5, 0.0], "quality_input_ids": ids}
    base = with_side(make_scorer, **anchors)
    adapted, pixels, quality, _ = learn(base)
    assert np.corrcoef(adapted(pixels).quality.numpy(), quality.numpy())[0, 1] > 0.8


def test_the_pull_is_that_of_the_gaussian_form() -> None:
    quality = torch.tensor([0.2, 0.4, 0.6])
    assert pull_of_map(quality, [1.0, 0.0]) == pytest.approx(0.4 * 0.6 / 3, rel=1e-6)


def test_the_interval_is_within_the_scale_and_grows_with_the_share() -> None:
    quality, deviation = torch.tensor([0.95, 0.5]), torch.tensor([0.1, 0.1])
    low, high = quality_interval(quality, deviation, 10 * torch.ones(2), 0.9)
    wider = quality_interval(quality, deviation, 10 * torch.ones(2), 0.99)
    assert bool((wider[0] < low).all()) and bool((low < quality).all()) and float(high[0]) == 1.0
    assert float(high[1] - 0.5) == pytest.approx(float(0.5 - low[1])) == pytest.approx(0.18125, abs=1e-4)


def test_what_was_decided_is_said_in_words(base: GRMPForImageQualityAssessment) -> None:
    *_, quality, belief = learn(base)
    spread = float(quality.std())
    assert "pull" in agreement(belief, spread)
    against = agreement(dataclasses.replace(belief, base_weight=-0.6 * spread), spread)
    assert "go against the base" in against and "lowest rating the best" in against


def test_the_map_is_named_by_its_groups() -> None:
    assert FeatureMap({"embeds": 2, "deep": 3}, [1.0, 0.0]).weights.shape == (5,)
