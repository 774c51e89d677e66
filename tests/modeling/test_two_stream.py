from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LNTuningConfig, LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.heads import AnchorHead, Features, Text
from grmp_hf.modeling.known_heads import describe, rebuild
from grmp_hf.modeling.two_stream import WEIGHTS, TwoStreamHead, weighted_mean

HELD = {"modules_to_save": ["head"]}
CONFIGS: dict[str, Callable[[], Any]] = {
    "head alone": lambda: grmp_hf.GRMPPromptConfig(text_prompts=0, visual_prompts=0, **HELD),
    "prompts": lambda: grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=2, **HELD),
    "layer norm": lambda: LNTuningConfig(target_modules=["layer_norm1", "layer_norm2"], **HELD),
    "lora": lambda: LoraConfig(target_modules=["q_proj", "v_proj"], r=2, **HELD),
}


def texts() -> Text:
    raise AssertionError("no text tower should be asked")


def made(width: int = 6, latent: int = 5, **options: Any) -> TwoStreamHead:
    torch.manual_seed(2)
    return TwoStreamHead(width, latent, **options).eval()


def seen(seed: int = 0, width: int = 6, weights: tuple[float, ...] = (0.75, 0.25)) -> Features:
    tokens = torch.randn(4, len(weights), 10, width, generator=torch.Generator().manual_seed(seed))
    return Features(torch.zeros(4, len(weights), 3), torch.tensor(weights), tokens)


@torch.no_grad()
@pytest.mark.parametrize("weight", WEIGHTS)
def test_it_is_the_weighted_mean_of_what_patches_score(weight: str) -> None:
    head, features = made(weight=weight), seen()
    found = head(features, texts)
    each = []
    for view in features.tokens[:, :, 1:].unbind(1):  # type: ignore[index]
        latent = F.layer_norm(F.relu(head.latent[0](view)), (5,))
        scores, said = head.score(latent)[..., 0].sigmoid(), head.counts(latent)[..., 0]
        weights = F.softplus(said) if weight == "softplus" else said.sigmoid()
        each.append((weights * scores).sum(-1) / weights.sum(-1))
    torch.testing.assert_close(found.quality, 0.75 * each[0] + 0.25 * each[1])
    assert found.patch_quality.shape == found.patch_weights.shape == (4, 2, 9)
    assert found.patch_weights.amax(-1).eq(1).all() and found.patch_weights.std(-1).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("weight", WEIGHTS)
def test_equal_weights_are_the_plain_mean_bit_for_bit(weight: str) -> None:
    head, features = made(weight=weight), seen(weights=(1.0,))
    unequal = head(features, texts)
    nn.init.zeros_(head.counts.weight)
    for bias in (-200.0, -1.3, 0.0, 7.0):
        nn.init.constant_(head.counts.bias, bias)
        found = head(features, texts)
        assert torch.equal(found.quality, found.patch_quality.mean(-1)[:, 0])
    assert not torch.equal(found.quality, unequal.quality)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_that_vanish_still_have_a_mean_and_a_gradient(weight: str) -> None:
    head = made(weight=weight)
    nn.init.constant_(head.counts.bias, -300.0)
    found = head(seen(), texts)
    found.quality.sum().backward()
    gradients = [parameter.grad for parameter in head.parameters()]
    assert found.quality.isfinite().all() and all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert head.counts.weight.grad.abs().max() > 0


def test_gradients_are_those_of_the_definition() -> None:
    """That weights are taken beside the largest of their row changes no gradient."""
    head = made().double()
    features = seen()._replace(tokens=seen().tokens.double())  # type: ignore[union-attr]
    latent = head.latent(features.tokens[:, :, 1:])  # type: ignore[index]
    weights, scores = F.softplus(head.counts(latent)[..., 0]), head.score(latent)[..., 0].sigmoid()
    expected = (weighted_mean(scores, weights) * features.weights).sum(1)
    for left, right in zip(
        torch.autograd.grad(head(features, texts).quality.square().sum(), list(head.parameters())),
        torch.autograd.grad(expected.square().sum(), list(head.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


@torch.no_grad()
def test_the_class_token_is_left_out() -> None:
    head, features = made(), seen()
    other = features.tokens.clone()  # type: ignore[union-attr]
    other[:, :, 0] += 1
    assert torch.equal(head(features, texts).quality, head(features._replace(tokens=other), texts).quality)
    other[:, :, 1] += 1
    assert not torch.equal(head(features, texts).quality, head(features._replace(tokens=other), texts).quality)


@pytest.mark.parametrize(("width", "latent"), [(6, 5), (192, 64), (768, 128)])
def test_its_size_is_the_formula(width: int, latent: int) -> None:
    with torch.device("meta"):
        head = TwoStreamHead(width, latent)
    assert sum(weight.numel() for weight in head.parameters()) == width * latent + 5 * latent + 2


def test_auxiliary_heads_are_there_in_training_within_their_context() -> None:
    head, features = made(dropout=0.0), seen()
    state = list(head.state_dict())
    assert head.train()(features, texts).category_logits is None
    with head.beside(categories=3, comparison=True):
        assert len(head.state_dict()) == len(state) + 4
        found = head(features, texts)
        assert head.eval()(features, texts).better_logits is None
        latent = head.latent(features.tokens[:, :, 1:]).mean(2)  # type: ignore[index]
        pooled = (latent * features.weights[:, None]).sum(1)
        torch.testing.assert_close(found.category_logits, head.auxiliary["category"](pooled))
        pairs = torch.stack([torch.cat([left, right]) for left in pooled for right in pooled])
        torch.testing.assert_close(found.better_logits, head.auxiliary["comparison"](pairs).view(4, 4))
    assert list(head.state_dict()) == state and head.train()(features, texts).better_logits is None
    with head.beside(comparison=True):
        assert head(features, texts).category_logits is None


def moved(model: PeftModel) -> PeftModel:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def adapted(base: Any, method: str) -> PeftModel:
    model = copy_base(base.model)
    model.head = TwoStreamHead(16, 7, weight="sigmoid")
    return moved(get_peft_model(model, CONFIGS[method]()))


@pytest.mark.parametrize("method", CONFIGS)
def test_it_is_saved_with_any_adapter_and_known_by_name(
    method: str, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    base = grmp_hf.load(clip_folder)
    scorer = dataclasses.replace(base, model=adapted(base, method))
    expected = scorer.score(photos[:4]).quality
    scorer.save(tmp_path / "mine")
    loaded = grmp_hf.load(tmp_path / "mine")
    assert np.ptp(expected) > 1e-4
    card = (tmp_path / "mine" / "README.md").read_text()
    assert ("A head on the frozen tower for" in card) == (method == "head alone")
    np.testing.assert_array_equal(loaded.score(photos[:4]).quality, expected)
    settings = {"width": 16, "latent": 7, "dropout": 0.1, "weight": "sigmoid"}
    assert describe(loaded.model.get_base_model().head) == {"name": "TwoStreamHead", "settings": settings}
    assert describe(rebuild(describe(TwoStreamHead(**settings))))["settings"] == settings


_SCORE = """
import json, sys, grmp_hf
scorer = grmp_hf.load(sys.argv[1])
print(json.dumps([scorer.score(path).quality.tolist() for path in sys.argv[2:]]))
"""


def test_another_process_gives_the_same_scores(
    clip_folder: Path, photos: list[Path], tmp_path: Path, elsewhere: Callable[..., Any]
) -> None:
    base = grmp_hf.load(clip_folder)
    scorer = dataclasses.replace(base, model=adapted(base, "head alone"))
    scorer.save(tmp_path / "mine")
    done = elsewhere(_SCORE, tmp_path / "mine", *photos[:3])
    assert json.loads(done.out) == [scorer.score(photo).quality.tolist() for photo in photos[:3]]


@torch.no_grad()
@pytest.mark.parametrize("method", CONFIGS)
def test_disabled_it_is_the_base_bit_for_bit(method: str, clip_folder: Path, photos: list[Path]) -> None:
    base = grmp_hf.load(clip_folder)
    plain = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    pixels = base.prepare(torch.stack([base.views(photo) for photo in photos[:4]]))
    expected, quality = base.model.get_features(pixels, tokens=True), base.model(pixels).quality
    model = adapted(base, method)
    with model.disable_adapter():
        found = model.get_base_model().get_features(pixels, tokens=True)
        assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.embeds, expected.embeds)
    after = model.unload()
    after.head = AnchorHead()
    assert torch.equal(after(pixels).quality, quality) and torch.equal(base.model(pixels).quality, quality)
    assert all(torch.equal(base.model.state_dict()[name], weight) for name, weight in plain.items())


@pytest.mark.parametrize("wrong", [(0,), (4, 0), (4, 4, 1.0), (4, 4, 0.0, "relu")], ids=str)
def test_what_it_cannot_be_is_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(GRMPError, match="Expected width and latent of at least 1, dropout in"):
        TwoStreamHead(*wrong)


def test_tokens_of_another_width_are_refused() -> None:
    with pytest.raises(GRMPError, match="Expected tokens of width 6, got 8"):
        made()(seen(width=8), texts)


def quality_of(tokens: Tensor) -> float:
    with torch.no_grad():
        return float(made()(Features(torch.zeros(1, 1, 3), torch.ones(1), tokens), texts).quality)


def test_a_patch_counts_as_often_as_it_is_there() -> None:
    tokens = torch.randn(1, 1, 4, 6, generator=torch.Generator().manual_seed(7))
    twice = torch.cat([tokens, tokens[:, :, 1:]], dim=2)
    assert quality_of(twice) == pytest.approx(quality_of(tokens), abs=1e-6)
