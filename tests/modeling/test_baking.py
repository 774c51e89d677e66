from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageClassification

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.baked import GRMPBakedConfig, GRMPBakedScorer
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig

OPTIONS = {
    "nothing": None,
    "text": {"text_prompts": 3, "visual_prompts": 0},
    "visual": {"text_prompts": 0, "visual_prompts": 5},
    "some layers": {"text_prompts": 2, "visual_prompts": 5, "visual_layers": 2},
    "readout": {"text_prompts": 2, "visual_prompts": 0, "anchor_residuals": True, "calibrate": True},
    "trained blocks": {"text_prompts": 2, "visual_prompts": 4, "modules_to_save": ["layers.2", "post_layernorm"]},
}


def scorer(make_scorer, name: str):
    """A model whose adapter, if any, has random values everywhere."""
    base = make_scorer()
    if OPTIONS[name] is None:
        return base
    model = get_peft_model(base, GRMPPromptConfig(**OPTIONS[name]))
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in [w for w in model.parameters() if w.requires_grad]:
            weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


@pytest.mark.parametrize("name", OPTIONS)
def test_baked_equals_adapted_also_after_saving(name: str, make_scorer, tmp_path: Path) -> None:
    model = scorer(make_scorer, name)
    pixels = torch.randn(3, 2, 3, 16, 16)
    labels = torch.tensor([0.1, 0.5, 0.9])
    baked = bake(model)
    baked.save_pretrained(tmp_path)
    loaded = GRMPBakedScorer.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(pixels, labels=labels, output_semantic=True)
        for other in (baked, loaded):
            output = other(pixels, labels=labels, output_semantic=True)
            for key in ("quality", "quality_logits", "semantic_logits", "image_embeds", "loss"):
                torch.testing.assert_close(output[key], expected[key], rtol=1e-5, atol=2e-5)
    assert not any("text" in key for key in baked.state_dict())


def test_baking_changes_nothing_of_the_model(make_scorer) -> None:
    model = scorer(make_scorer, "trained blocks").train()
    model.get_base_model().clip.text_model.eval()
    modes = [module.training for module in model.modules()]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    bake(model)
    assert modes == [module.training for module in model.modules()]
    assert flags == {name: weight.requires_grad for name, weight in model.named_parameters()}
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_model_that_cannot_be_baked_keeps_its_modes(make_scorer) -> None:
    model = scorer(make_scorer, "visual").train()
    model.add_adapter("other", GRMPPromptConfig(**OPTIONS["visual"]))
    model.base_model.set_adapter(["default", "other"])
    modes = [module.training for module in model.modules()]
    with pytest.raises(GRMPError, match="Expected one active adapter"):
        bake(model)
    assert any(modes) and modes == [module.training for module in model.modules()]


@torch.no_grad()
def test_what_is_switched_off_is_not_baked_in(make_scorer) -> None:
    model, pixels = scorer(make_scorer, "trained blocks"), torch.randn(3, 3, 16, 16)
    with model.disable_adapter():
        expected, baked = model(pixels).quality, bake(model)
    torch.testing.assert_close(baked(pixels).quality, expected, rtol=1e-5, atol=2e-6)
    assert (model(pixels).quality - expected).abs().max() > 1e-4


def test_auto_classes_know_it_and_loading_is_strict(make_scorer, tmp_path: Path) -> None:
    bake(make_scorer()).save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GRMPBakedConfig)
    assert isinstance(AutoModelForImageClassification.from_pretrained(tmp_path), GRMPBakedScorer)
    config = GRMPBakedConfig.from_pretrained(tmp_path)
    config.prompts, config.prompted_layers = 2, 1
    config.save_pretrained(tmp_path)
    with pytest.raises(GRMPError, match="exactly the weights of a baked scorer"):
        GRMPBakedScorer.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="unexpected arguments"):
        bake(make_scorer())(torch.zeros(1, 3, 16, 16), output_attentions=True)


@pytest.mark.parametrize("views", [1, 2])
def test_a_baked_scorer_is_exported_with_any_number_of_pictures(views: int, make_adapted: Callable[..., Any]) -> None:
    class Quality(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scorer = bake(make_adapted())

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.scorer(pixel_values=pixel_values).quality

    def pictures(count: int) -> Tensor:
        shape = (count, 3, 16, 16) if views == 1 else (count, views, 3, 16, 16)
        return torch.randn(shape, generator=torch.Generator().manual_seed(count))

    module = Quality().eval()
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1, max=64)
        exported = torch.export.export(module, (pictures(3),), dynamic_shapes={"pixel_values": {0: batch}}).module()
        for count in (1, 2, 7):
            torch.testing.assert_close(exported(pictures(count)), module(pictures(count)), atol=1e-6, rtol=0)


def test_outputs_are_what_transformers_tools_expect(make_adapted: Callable[..., Any]) -> None:
    adapted = make_adapted()
    for model in (adapted.get_base_model(), bake(adapted)):
        pixels = torch.randn(2, 3, 16, 16)
        with torch.no_grad():
            found = model(pixel_values=pixels, labels=torch.tensor([0.2, 0.7]))
            as_tuple = model(pixel_values=pixels, labels=torch.tensor([0.2, 0.7]), return_dict=False)
        assert found.logits is found.quality_logits
        assert all(torch.equal(left, right) for left, right in zip(as_tuple, found.to_tuple(), strict=True))
