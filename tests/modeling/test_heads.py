from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LNTuningConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.bases import base_fingerprint
from grmp_hf.modeling.functional import expected_quality, unit_length
from grmp_hf.modeling.heads import (
    AnchorHead,
    Features,
    GRMPOutput,
    Head,
    Text,
    view_features,
    weights_of,
)
from grmp_hf.modeling.known_heads import check_kept, describe, rebuild
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig

MakeScorer = Callable[..., Any]
LABELS = torch.tensor([0.1, 0.5, 0.9])


def pictures(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Leaning(Head):
    """Mean cosine between each view and a direction that is learnt, from [-1, 1] to [0, 1]."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.ones(width))

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        each = features.embeds @ unit_length(self.direction)
        return GRMPOutput(quality=((each * features.weights).sum(1) + 1) / 2)

    def settings(self) -> dict[str, Any]:
        return {"width": len(self.direction)}


class Weighted(Head):
    """Scores of patches, weighted by a second stream."""

    needs_tokens = True

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.score, self.weight = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        assert features.tokens is not None
        patches = features.tokens[:, :, 1:]
        weights = nn.functional.softplus(self.weight(patches))
        each = (weights * self.score(patches).sigmoid()).sum((2, 3)) / weights.sum((2, 3))
        return GRMPOutput(quality=(each * features.weights).sum(1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 16, 16), "got (3, 16, 16)"), ((2, 4, 3, 16, 16), "at most 2 views of each picture"), ((2, 8), "got (2, 8)")],
)
def test_pictures_of_another_shape(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        view_features(torch.zeros(shape), [0.5, 0.5], lambda pixels: (pixels.flatten(1), None))


@pytest.mark.parametrize(
    ("views", "given", "expected"),
    [(2, None, [0.5, 0.5]), (2, [0.6, 0.4], [0.6, 0.4]), (2, [0.6, 0.2, 0.2], [0.75, 0.25]), (1, [0.0, 1.0], [1.0])],
)
def test_weights_of_views(views: int, given: list[float] | None, expected: list[float]) -> None:
    assert weights_of(views, given) == pytest.approx(expected)


@torch.no_grad()
def test_features_hold_every_view_and_the_tokens_that_a_head_asks_for(make_scorer: MakeScorer) -> None:
    model, pixels = make_scorer(view_weights=[0.5, 0.2, 0.3]), pictures(4, 3)
    features = model.get_features(pixels)
    assert features.embeds.shape == (4, 3, 12) and features.tokens is None
    torch.testing.assert_close(features.weights, torch.tensor([0.5, 0.2, 0.3]))
    for view in range(3):
        torch.testing.assert_close(features.embeds[:, view], model.get_image_embeds(pixels[:, view]))
    tokens = model.get_features(pixels, tokens=True).tokens
    assert tokens.shape == (4, 3, 17, 24)
    torch.testing.assert_close(unit_length(model.clip.visual_projection(tokens[:, :, 0])), features.embeds)


@torch.no_grad()
def test_embeddings_of_views_stand_for_pictures(make_scorer: MakeScorer) -> None:
    model, pixels = make_scorer(view_weights=[0.5, 0.2, 0.3]), pictures(4, 3)
    for head in (AnchorHead(), Leaning()):
        model.head = head
        expected, embeds = model(pixels).quality, model.get_features(pixels).embeds
        assert torch.equal(model(image_embeds=embeds).quality, expected)
        torch.testing.assert_close(model(image_embeds=model.get_image_embeds(pixels)).quality, expected)


@torch.no_grad()
def test_tokens_stand_for_pictures(make_scorer: MakeScorer) -> None:
    model, pixels = make_scorer(view_weights=[0.5, 0.2, 0.3]), pictures(4, 3)
    tokens = model.get_features(pixels, tokens=True).tokens
    for head in (AnchorHead(), Leaning(), Weighted()):
        model.head = head
        torch.testing.assert_close(model(tokens=tokens).quality, model(pixels).quality)
    with pytest.raises(GRMPError, match=r"tokens of shape \(batch, views, tokens, 24\), got \(4, 17, 24\)"):
        model(tokens=tokens[:, 0])
    with pytest.raises(TypeError, match="one of pixel_values, image_embeds and tokens"):
        model(pixels, tokens=tokens)


@torch.no_grad()
def test_a_head_that_reads_tokens(make_scorer: MakeScorer) -> None:
    model, pixels = make_scorer(), pictures(4, 2)
    model.head = Weighted()
    score = model.head.score
    equal = copy.deepcopy(model)
    nn.init.zeros_(equal.head.weight.weight)
    patches = equal.get_features(pixels, tokens=True).tokens[:, :, 1:]
    torch.testing.assert_close(equal(pixels).quality, score(patches).sigmoid().mean((1, 2, 3)))
    with pytest.raises(GRMPError, match="Expected pixel_values or tokens, got image_embeds"):
        model(image_embeds=torch.zeros(4, 12))


# Axes ---------------------------------------------------------------------------------------------------------------

AXES = [["level", ["bad", "fair", "good"]], ["scene", ["a", "b"]], ["distortion", ["c", "d", "e", "f"]]]
LEVELS = [0.0, 0.5, 1.0]


def make_joint(make_scorer: MakeScorer, axes: list[Any]) -> Any:
    """A scorer whose anchors are the combinations of axes, each told by one word for each of its values."""
    words = {"level": 10, "scene": 20, "distortion": 30}
    rows: list[list[int]] = [[]]
    for name, values in axes:
        rows = [[*row, (words[name] + at)] for row in rows for at in range(len(values))]
    ids = [[62, 7, 7, *sorted(row), 63] for row in rows]
    return make_scorer(
        quality_anchors=[str(row) for row in rows], quality_levels=LEVELS, quality_axes=axes, quality_input_ids=ids
    )


@torch.no_grad()
def test_quality_is_read_from_the_marginal_of_the_level(make_scorer: MakeScorer) -> None:
    model, pixels = make_joint(make_scorer, AXES), pictures(3, 2)
    output = model(pixels, labels=LABELS)
    joint = model._text().logits(model.get_features(pixels))[0].softmax(-1).view(3, 3, 2, 4)
    marginals = {"level": joint.sum((2, 3)), "scene": joint.sum((1, 3)), "distortion": joint.sum((1, 2))}
    assert list(output.axis_logits) == list(marginals)
    for name, expected in marginals.items():
        torch.testing.assert_close(output.axis_logits[name].softmax(-1), expected)
    torch.testing.assert_close(output.quality, (marginals["level"] * torch.tensor(LEVELS)).sum(1))
    shares = torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.2, 0.8]])
    torch.testing.assert_close(output.loss, -(shares * marginals["level"].log()).sum(1).mean())


@torch.no_grad()
def test_the_order_of_axes_does_not_matter(make_scorer: MakeScorer) -> None:
    pixels = pictures(3)
    first, second = (make_joint(make_scorer, axes)(pixels) for axes in (AXES, [AXES[2], AXES[0], AXES[1]]))
    torch.testing.assert_close(first.quality, second.quality)
    for name, _ in AXES:
        torch.testing.assert_close(first.axis_logits[name], second.axis_logits[name])


def test_a_uniform_joint_of_levels_scenes_and_distortions() -> None:
    """Five levels, nine scenes, eleven distortions: quality 3 on a scale from 1 to 5, distortion loss 0.698489."""
    axes, levels = {"level": 5, "scene": 9, "distortion": 11}, [0.0, 0.25, 0.5, 0.75, 1.0]
    text = Text(lambda: torch.zeros(495, 8), lambda features: (torch.zeros(2, 495), None), levels, axes)
    output = AnchorHead()(Features(torch.zeros(2, 3, 8), torch.tensor([0.5, 0.2, 0.3])), text)
    assert output.axis_logits is not None and output.quality is not None
    torch.testing.assert_close(1 + 4 * output.quality, torch.tensor([3.0, 3.0]))
    share = output.axis_logits["distortion"].softmax(-1)[0, 4].item()
    assert 1 - math.sqrt(share) == pytest.approx(0.698489, abs=1e-6)


def test_one_axis_is_what_it_was(make_scorer: MakeScorer) -> None:
    model, named = make_scorer(), make_scorer(quality_axes=[["level", ["high", "low"]]])
    with torch.no_grad():
        output, same = model(pictures(3)), named(pictures(3))
    assert output.axis_logits is None and torch.equal(output.quality_logits, same.quality_logits)
    assert torch.equal(output.quality, expected_quality(output.quality_logits, [1.0, 0.0]))


@torch.no_grad()
def test_axes_are_saved_adapted_and_baked(make_scorer: MakeScorer, tmp_path: Path) -> None:
    base = make_joint(make_scorer, AXES)
    base.save_pretrained(tmp_path / "base")
    again = type(base).from_pretrained(tmp_path / "base")
    assert again.config.quality_axes == AXES
    with pytest.raises(GRMPError, match="Expected anchors of one axis to calibrate"):
        get_peft_model(make_joint(make_scorer, AXES), GRMPPromptConfig(calibrate=True))
    model = get_peft_model(again, GRMPPromptConfig(text_prompts=2, visual_prompts=2, anchor_residuals=True)).eval()
    nn.init.normal_(model.get_base_model().readout.grmp_readout["default"].residual)
    expected, baked = model(pictures(3)), bake(model)
    baked.save_pretrained(tmp_path / "baked")
    for other in (baked, type(baked).from_pretrained(tmp_path / "baked")):
        found = other(pictures(3))
        torch.testing.assert_close(found.quality, expected.quality, atol=2e-5, rtol=1e-5)
        assert list(found.axis_logits) == ["level", "scene", "distortion"]
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(make_joint(make_scorer, AXES), str(tmp_path / "adapter"))
    assert torch.equal(loaded(pictures(3)).quality, expected.quality)
    other_order = make_joint(make_scorer, [AXES[0], AXES[2], AXES[1]])
    with pytest.raises(GRMPError, match="got one with other anchors"):
        PeftModel.from_pretrained(other_order, str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    "axes",
    [[["scene", ["a", "b"]]], [["level", ["a", "b", "c"]]], [["level", ["a", "b"]], ["level", ["a", "b"]]]],
    ids=["no level", "another number of levels", "one name twice"],
)
def test_axes_that_cannot_be(make_scorer: MakeScorer, axes: list[Any]) -> None:
    with pytest.raises(GRMPError, match="one of them 'level' with 2 values"):
        make_scorer(quality_axes=axes)


def test_axes_have_an_anchor_for_each_combination(make_scorer: MakeScorer) -> None:
    with pytest.raises(GRMPError, match=r"one combination .* of the 2 quality anchors, got 4 combinations and 2 lists"):
        make_scorer(quality_axes=[["level", ["a", "b"]], ["scene", ["a", "b"]]])


# A head of one's own ------------------------------------------------------------------------------------------------

NORMS = r".*\.(layer_norm1|layer_norm2|pre_layrnorm|post_layernorm)"
CONFIGS: dict[str, Callable[[], PeftConfig]] = {
    "LayerNorm": lambda: LNTuningConfig(target_modules=NORMS, modules_to_save=["head"]),
    "prompts": lambda: GRMPPromptConfig(text_prompts=0, visual_prompts=3, modules_to_save=["head"]),
}


def with_cosine(base: Any) -> Any:
    base.head = Leaning()
    return base


def learn(model: PeftModel, steps: int = 3) -> None:
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(pictures(3, 2), labels=LABELS).loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("make_config", CONFIGS.values(), ids=CONFIGS)
def test_a_head_is_learnt_saved_and_loaded_with_an_adapter(
    make_scorer: MakeScorer, tmp_path: Path, make_config: Callable[[], PeftConfig]
) -> None:
    base, pixels = with_cosine(make_scorer()), pictures(3, 2)
    with torch.no_grad():
        untouched = base(pixels, output_semantic=True)
    model = get_peft_model(base, make_config())
    learn(model)
    with torch.no_grad():
        expected = model(pixels)
        with model.disable_adapter():
            assert torch.equal(model(pixels).quality, untouched.quality)
        with teacher_mode(model):
            taught = model(pixels, output_semantic=True)
            assert torch.equal(taught.semantic_logits, untouched.semantic_logits)
            assert torch.equal(taught.quality, untouched.quality)
    assert expected.quality_logits is None
    saved = model.get_base_model().head.modules_to_save["default"].direction
    assert not torch.equal(saved, torch.ones(12))
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    again = PeftModel.from_pretrained(with_cosine(make_scorer()), str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.equal(again(pixels).quality, expected.quality)
        again.base_model.disable_adapter_layers()
        assert torch.equal(again(pixels).quality, untouched.quality)


@pytest.mark.parametrize("make_config", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_each_adapter_has_its_own_head(make_scorer: MakeScorer, make_config: Callable[[], PeftConfig]) -> None:
    model, pixels = get_peft_model(with_cosine(make_scorer()), make_config()), pictures(3, 2)
    with torch.enable_grad():
        learn(model)
    expected = model(pixels).quality
    model.add_adapter("other", make_config())
    model.set_adapter("other")
    with torch.enable_grad():
        learn(model, 2)
    assert not torch.equal(model(pixels).quality, expected)
    model.set_adapter("default")
    assert torch.equal(model(pixels).quality, expected)


def test_prompts_without_their_head_do_not_load(make_scorer: MakeScorer, tmp_path: Path) -> None:
    get_peft_model(with_cosine(make_scorer()), CONFIGS["prompts"]()).save_pretrained(
        str(tmp_path), save_embedding_layers=False
    )
    with pytest.raises(GRMPError, match=r"brings the head 'Leaning', got one with 'AnchorHead'.*head=\.\.\."):
        PeftModel.from_pretrained(make_scorer(), str(tmp_path))


def test_a_head_is_no_part_of_the_base(make_scorer: MakeScorer) -> None:
    plain = base_fingerprint(make_scorer())
    assert base_fingerprint(with_cosine(make_scorer())) == plain
    assert base_fingerprint(get_peft_model(with_cosine(make_scorer()), CONFIGS["prompts"]())) == plain


def test_a_head_that_no_adapter_holds(make_scorer: MakeScorer) -> None:
    base = with_cosine(make_scorer())
    adapted = get_peft_model(with_cosine(make_scorer()), LNTuningConfig(target_modules=NORMS))
    for model in (base, adapted):
        with pytest.raises(GRMPError, match=r"Expected an adapter that holds the head 'Leaning'.*modules_to_save"):
            check_kept(model)
    for model in (make_scorer(), bake(make_scorer()), get_peft_model(base, CONFIGS["LayerNorm"]())):
        check_kept(model)


def test_loss_without_logits_is_the_error_of_the_quality(make_scorer: MakeScorer) -> None:
    output = with_cosine(make_scorer())(pictures(3), labels=LABELS[:, None])
    torch.testing.assert_close(output.loss, (output.quality - LABELS).square().mean())


def test_a_head_of_ones_own_is_not_baked(make_scorer: MakeScorer) -> None:
    with pytest.raises(GRMPError, match=r"Expected a head out of .*, got 'Leaning', which is none of this package"):
        bake(with_cosine(make_scorer()))


def test_a_head_is_described_and_made_anew(make_scorer: MakeScorer) -> None:
    plain, described = describe(make_scorer().head), describe(Leaning(5))
    assert json.loads(json.dumps(plain)) == plain and type(rebuild(plain)) is AnchorHead
    assert described == {"name": "Leaning", "settings": {"width": 5}}
    trained = get_peft_model(with_cosine(make_scorer()), CONFIGS["LayerNorm"]()).get_base_model().head
    assert describe(trained) == {"name": "Leaning", "settings": {"width": 12}}
    given = Leaning(5)
    assert rebuild(described, given) is given


@pytest.mark.parametrize(
    ("described", "given", "message"),
    [
        ({"name": "Leaning"}, None, "got 'Leaning', which is none of this package. Make it yourself"),
        ({"name": "os.system"}, None, "got 'os.system'"),
        ({}, None, "got None"),
        ({"name": "Leaning"}, Weighted(), "Expected the head 'Leaning' that is recorded, got 'Weighted'"),
        ({"name": "AnchorHead", "settings": {"a": 1}}, None, "Expected settings of the head 'AnchorHead'"),
    ],
)
def test_a_head_that_cannot_be_made(described: dict[str, Any], given: Head | None, message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        rebuild(described, given)


def test_a_head_without_forward_says_what_it_lacks() -> None:
    class Empty(Head):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty says nothing of quality: give it forward\(features, text\)"):
        Empty()(None, None)
