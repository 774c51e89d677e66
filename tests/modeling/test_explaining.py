from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import grmp_hf
from grmp_hf.embedded import embedded_folder
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.explaining import (
    EXPLAINER,
    LEARNT,
    NONE,
    OWN,
    ZERO_SHOT,
    Probe,
    explainer_of,
    read_probes,
    standardised,
)
from grmp_hf.modeling.functional import anchor_logits
from grmp_hf.modeling.linear_heads import Cosine
from grmp_hf.modeling.templates import AXES, sentences

MakeScorer = Callable[..., Any]
PIXELS = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Tokenizer:
    """One id a word, as long as there are ids."""

    unk_token_id = 1

    def __init__(self, words: int = 45) -> None:
        known = sorted({word for name in AXES for text in sentences({name: AXES[name]}) for word in self.split(text)})
        self.ids = {word: 11 + at for at, word in enumerate(known[:words])}

    def split(self, text: str) -> list[str]:
        return text.replace(",", "").split()

    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[62, *(self.ids.get(word, 1) for word in self.split(text)), 63] for text in texts]}


@torch.no_grad()
def test_zero_shot_is_the_sentence_that_a_picture_is_close_to(make_scorer: MakeScorer) -> None:
    model = make_scorer()
    explainer = explainer_of(model, Tokenizer)
    output = model(PIXELS)
    assert explainer.sources == {"distortion": ZERO_SHOT, "scene": ZERO_SHOT} and not explainer.needs_side
    for name, shares in explainer(output).items():
        ids = Tokenizer()(sentences({name: AXES[name]}))["input_ids"]
        expected = anchor_logits(output.image_embeds, model.get_text_embeds(ids), model.clip.logit_scale).softmax(-1)
        torch.testing.assert_close(shares, expected)
        assert explainer.values[name] == AXES[name]


@torch.no_grad()
def test_texts_follow_the_weights(make_scorer: MakeScorer) -> None:
    model = make_scorer()
    explainer = explainer_of(model, Tokenizer)
    before = explainer(model(PIXELS))["scene"]
    model.clip.text_projection.weight.mul_(-1)
    assert not torch.allclose(explainer(model(PIXELS))["scene"], before)


@torch.no_grad()
def test_axes_of_the_model_itself_come_first(make_scorer: MakeScorer) -> None:
    axes = [["scene", ["a", "b", "c"]], ["level", ["high", "low"]]]
    anchors = {"quality_anchors": list("123456"), "quality_input_ids": [[62, 20 + at, 63] for at in range(6)]}
    model = make_scorer(quality_axes=axes, **anchors)
    explainer, output = explainer_of(model, Tokenizer), model(PIXELS)
    assert explainer.sources == {"distortion": ZERO_SHOT, "scene": OWN}
    torch.testing.assert_close(explainer(output)["scene"], output.axis_logits["scene"].softmax(-1))
    baked = explainer_of(bake(model), Tokenizer)
    assert baked.sources == {"scene": OWN}, "a baked scorer holds its anchors, and no other texts"


@torch.no_grad()
def test_axes_of_the_model_itself_explain_also_where_another_head_judges(make_scorer: MakeScorer) -> None:
    axes = [["scene", ["a", "b", "c"]], ["level", ["high", "low"]]]
    anchors = {"quality_anchors": list("123456"), "quality_input_ids": [[62, 20 + at, 63] for at in range(6)]}
    model = make_scorer(quality_axes=axes, **anchors)
    expected = explainer_of(model, Tokenizer)(model(PIXELS))["scene"]
    model.head = Cosine(12)
    for other in (model, bake(model)):
        torch.testing.assert_close(explainer_of(other, Tokenizer)(other(PIXELS))["scene"], expected)


def test_what_cannot_explain_is_refused(make_scorer: MakeScorer) -> None:
    with pytest.raises(GRMPError, match="got a baked scorer without texts and without side network"):
        explainer_of(bake(make_scorer()), Tokenizer)
    with pytest.raises(GRMPError, match="Expected a tokenizer that knows the words"):
        explainer_of(make_scorer(), lambda: Tokenizer(3))
    short = make_scorer(text={"max_position_embeddings": 5}, semantic_anchors=[], semantic_input_ids=[],
                        quality_input_ids=[[62, 10, 63], [62, 11, 63]])  # fmt: skip
    with pytest.raises(GRMPError, match="Expected a text tower that takes 8 tokens"):
        explainer_of(short, Tokenizer)


def test_a_probe_reads_its_groups_of_what_the_side_network_says(tmp_path: Path) -> None:
    side: Any = grmp_hf.load().model.side
    features = torch.randn(4, sum(side.groups.values()), generator=torch.Generator().manual_seed(0)) + side.mean
    phi = standardised(features, side, ("statistics", "mid"))
    start = side.groups["deep"] + side.groups["mid"]
    first = (features[:, start] - side.mean[start]) / side.spread[start]
    torch.testing.assert_close(phi[:, 0], first.clamp(-5, 5))
    assert phi.shape == (4, side.groups["statistics"] + side.groups["mid"]) and phi.abs().max() <= 5
    probe = Probe(("a", "b"), ("statistics",), torch.randn(2, 14), torch.tensor([0.5, 0.0]))
    found = probe.logits(features, side)
    torch.testing.assert_close(found, phi[:, :14] @ probe.weight.T + probe.bias)
    said = {"scene": {"values": ["a", "b"], "groups": ["statistics"]}}
    save_file({"scene.weight": probe.weight, "scene.bias": probe.bias}, tmp_path / "p", {"axes": json.dumps(said)})
    torch.testing.assert_close(read_probes(tmp_path / "p")["scene"].logits(features, side), found)
    assert read_probes(tmp_path / "none") == {}


def test_the_embedded_base_explains_from_its_side_network() -> None:
    file = Path(embedded_folder()) / EXPLAINER
    assert file.stat().st_size < 200_000
    probes = read_probes(file)
    assert probes["distortion"].values == (*AXES["distortion"], NONE) and probes["scene"].values == AXES["scene"]
    model: Any = grmp_hf.load().model
    explainer = explainer_of(model, Tokenizer)
    assert explainer.sources == {"distortion": LEARNT, "scene": LEARNT} and explainer.needs_side
    model.config.side_size = None
    with pytest.raises(GRMPError, match="Expected preprocessing with a picture for the side network"):
        explainer_of(model, Tokenizer)
