from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPAttention

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.prompts import (
    PromptedAttention,
    TextPrompts,
    VisualPrompts,
    expand_placeholders,
    prompt_attention,
    unprompt_attention,
)

MakeScorer = Callable[..., Any]


def insert_after_class_token(clip: Any, prompts: VisualPrompts, pixels: Tensor) -> Tensor:
    """The published way: prompts are rows of the sequence, thrown away after each layer. Embeddings `(B, D)`."""
    vision = clip.vision_model
    states = vision.pre_layrnorm(vision.embeddings(pixels))
    learned = [prompts.first, *prompts.deep]
    for index, layer in enumerate(vision.encoder.layers):
        rows = prompts.projection(learned[index]) if index < len(learned) else states.new_zeros(0, states.shape[-1])
        rows = rows.expand(len(states), -1, -1)
        states = layer(torch.cat([states[:, :1], rows, states[:, 1:]], dim=1), None)
        states = torch.cat([states[:, :1], states[:, 1 + rows.shape[1] :]], dim=1)
    return clip.visual_projection(vision.post_layernorm(prompts.norm(states)[:, 0]))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keys_and_values_equal_rows_after_the_class_token(
    make_scorer: MakeScorer, make_adapted: Callable[..., PeftModel], layers: int, attention: str
) -> None:
    base = make_scorer()
    base.set_attn_implementation(attention)
    model = make_adapted(base, visual_layers=layers).double()
    clip = model.get_base_model().clip
    prompts = clip.vision_model.encoder.grmp_visual["default"]
    plain = copy.deepcopy(model).unload().clip
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    got = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)
    expected = insert_after_class_token(plain, prompts, pixels)
    # Eager attention takes its softmax in single precision: sums of 24 terms, and a margin of 64.
    bound = 1e-10 if attention == "sdpa" else 64 * torch.finfo(torch.float32).eps * 24**0.5
    torch.testing.assert_close(got, expected, atol=bound, rtol=0)
    trained = [parameter for parameter in prompts.parameters() if parameter.numel()]
    pairs = zip(
        torch.autograd.grad(got.square().sum(), trained),
        torch.autograd.grad(expected.square().sum(), trained),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=10 * bound, rtol=10 * bound)


@torch.no_grad()
def test_order_of_prompts_does_not_matter(make_adapted: Callable[..., PeftModel]) -> None:
    model = make_adapted().double()
    prompts = model.get_base_model().clip.vision_model.encoder.grmp_visual["default"]
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    before = model(pixels).quality_logits
    for learned in (prompts.first, *prompts.deep):
        learned.copy_(learned[torch.randperm(len(learned))])
    torch.testing.assert_close(model(pixels).quality_logits, before, atol=1e-10, rtol=0)


def test_dropout_is_drawn_for_each_picture_and_layer(make_scorer: MakeScorer) -> None:
    encoder = make_scorer().clip.vision_model.encoder
    prompts = VisualPrompts(2, 5, 24, dropout=0.5).train()
    drawn = prompts.keys_values(encoder, batch_size=4)
    assert [pair.keys.shape for pair in drawn] == [(4, 5, 24)] * 2
    assert not torch.equal(drawn[0].keys[0], drawn[0].keys[1])
    fixed = prompts.eval().keys_values(encoder, batch_size=4)
    assert [pair.keys.shape for pair in fixed] == [(1, 5, 24)] * 2
    sampled = torch.stack([prompts.train().dropout(torch.ones(1000)) for _ in range(20)]).mean()
    assert abs(sampled.item() - 1) < 0.05


def test_start_values_are_the_references() -> None:
    torch.manual_seed(0)
    visual, text = VisualPrompts(12, 100, 768), TextPrompts(4, 512)
    assert sum(parameter.numel() for module in (visual, text) for parameter in module.parameters()) == 1_515_776
    for learned in (visual.first, visual.deep):
        assert 0.062 < learned.abs().max() <= 0.0625
    assert visual.projection.weight.std().item() == pytest.approx((2 / 768) ** 0.5, rel=0.01)
    assert (visual.norm.eps, visual.norm.weight.mean(), visual.norm.bias.mean()) == (1e-6, 1, 0)
    assert visual.dropout.p == 0.1
    assert text.context.std().item() == pytest.approx(0.02, rel=0.1)


def test_context_tokens_take_the_places_of_the_placeholders() -> None:
    prompts = TextPrompts(2, 3)
    embeds = torch.zeros(3, 5, 3)
    places = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
    spliced = prompts(embeds, places)
    assert torch.equal(spliced[0, 1:3], prompts.context) and torch.equal(spliced[1, 3:], prompts.context)
    assert not spliced[~places].any()
    assert prompts(embeds.bfloat16(), places).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("ids", "count", "expected"),
    [([1, 7, 7, 2], 4, [1, 7, 7, 7, 7, 2]), ([1, 7, 7, 7, 2], 1, [1, 7, 2]), ([1, 3, 2], 4, [1, 3, 2])],
)
def test_placeholders_are_counted_out(ids: list[int], count: int, expected: list[int]) -> None:
    assert expand_placeholders(ids, 7, count) == expected


def test_scattered_placeholders_are_refused() -> None:
    with pytest.raises(GRMPError, match=re.escape("placeholder 7 in one run, got ids [1, 7, 3, 7, 2]")):
        expand_placeholders([1, 7, 3, 7, 2], 7, 4)


@torch.no_grad()
def test_prompted_attention_without_prompts_is_the_attention_it_was(make_scorer: MakeScorer) -> None:
    encoder = make_scorer().clip.vision_model.encoder
    states, names = torch.randn(2, 17, 24), list(encoder.state_dict())
    before = encoder(inputs_embeds=states).last_hidden_state
    prompt_attention(encoder)
    assert all(type(layer.self_attn) is PromptedAttention for layer in encoder.layers)
    assert list(encoder.state_dict()) == names
    assert torch.equal(encoder(inputs_embeds=states).last_hidden_state, before)
    unprompt_attention(encoder)
    assert all(type(layer.self_attn) is CLIPAttention for layer in encoder.layers)
