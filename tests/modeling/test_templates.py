from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from grmp_hf.errors import GRMPError
from grmp_hf.modeling import modeling_grmp
from grmp_hf.modeling.configuration_grmp import GRMPConfig
from grmp_hf.modeling.functional import axis_logits, expected_quality
from grmp_hf.modeling.templates import AXES, sentences, template_anchors

MakeScorer = Callable[..., Any]


def tokenizer(texts: list[str]) -> dict[str, list[list[int]]]:
    """One id a word."""
    words = sorted({word for text in sentences() for word in text.replace(",", "").split()})
    ids = {"X": 10, **{word: 11 + at for at, word in enumerate(words)}}
    rows = [[62, *(ids.get(word, 5) for word in text.replace(",", "").split()), 63] for text in texts]
    return {"input_ids": rows}


def make_joint(make_scorer: MakeScorer, axes: dict[str, tuple[str, ...]]) -> Any:
    fields = template_anchors(axes)
    ids = tokenizer(fields["quality_anchors"])["input_ids"]
    return make_scorer(text={"max_position_embeddings": 20}, quality_input_ids=ids, **fields)


def test_the_495_sentences_in_their_order(make_scorer: MakeScorer) -> None:
    fields = template_anchors()
    assert fields["quality_levels"] == [0, 0.25, 0.5, 0.75, 1]
    assert len(set(fields["quality_anchors"])) == 495
    at = list(itertools.product(*AXES.values())).index(("good", "night", "jpeg"))
    assert fields["quality_anchors"][at] == (
        "a photo of a night with jpeg compression artifacts, which is of good quality"
    )
    config = GRMPConfig.from_clip(make_scorer().config.clip_config, tokenizer, **fields)
    assert config.quality_axes[2] == ["distortion", list(AXES["distortion"])]
    assert len(config.quality_input_ids) == 495


def test_any_subset_of_axes() -> None:
    assert sentences({"distortion": ("blur",)}) == ["a photo with blur artifacts"]
    assert sentences({"level": ("bad",), "scene": ("plant",)}) == ["a photo of a plant, which is of bad quality"]
    with pytest.raises(GRMPError, match="got weather"):
        sentences({"weather": ("rain",)})
    with pytest.raises(GRMPError, match="at least two values of the axis 'level', from worst to best, got 0"):
        template_anchors({"scene": AXES["scene"]})


def test_uniform_and_one_hot_joints() -> None:
    axes, levels = {name: len(values) for name, values in AXES.items()}, template_anchors()["quality_levels"]
    uniform = axis_logits(torch.zeros(1, 495), axes)
    assert 1 + 4 * expected_quality(uniform["level"], levels).item() == pytest.approx(3)
    for at in (0, 77, 494):
        sure = axis_logits(torch.where(torch.arange(495) == at, 100.0, 0.0)[None], axes)
        place = tuple(int(logits.argmax()) for logits in sure.values())
        assert place == tuple(int(index) for index in torch.unravel_index(torch.tensor(at), tuple(axes.values())))
        assert all(logits.softmax(-1).max().item() == pytest.approx(1) for logits in sure.values())
        assert expected_quality(sure["level"], levels).item() == pytest.approx(levels[place[0]])


@torch.no_grad()
def test_another_order_of_the_sentences_says_the_same(make_scorer: MakeScorer) -> None:
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    orders = [AXES, {name: AXES[name] for name in ("distortion", "level", "scene")}]
    first, second = (make_joint(make_scorer, order)(pixels) for order in orders)
    torch.testing.assert_close(first.quality, second.quality, atol=1e-6, rtol=0)
    for name in AXES:
        pair = (found.axis_logits[name].softmax(-1) for found in (first, second))
        torch.testing.assert_close(*pair, atol=1e-6, rtol=0)


@torch.no_grad()
def test_many_texts_go_through_the_tower_in_parts(make_scorer: MakeScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = make_joint(make_scorer, AXES), []
    monkeypatch.setattr(
        model, "_encode_part", lambda ids: sizes.append(len(ids)) or type(model)._encode_part(model, ids)
    )
    in_parts = model.get_anchor_embeds("quality")
    assert sum(sizes) == 495 and max(sizes) == modeling_grmp._TEXTS
    assert model.get_anchor_embeds("quality") is in_parts and sum(sizes) == 495, "they are kept"
    at_once = type(model)._encode_part(model, model.config.quality_input_ids)
    torch.testing.assert_close(in_parts, at_once, atol=1e-6, rtol=0)
