"""The forward pass against numbers of the authors' own modules."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.conversion import to_authors_state_dict
from grmp_hf.modeling.functional import quality_cross_entropy, semantic_cross_entropy, unit_length
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, authors_training_view

BOUND = 2e-5


@pytest.fixture
def model(make_golden_model: Callable[[], PeftModel]) -> PeftModel:
    return make_golden_model()


def outputs_of(module: nn.Module, call: Callable[[], object]) -> Tensor:
    """The tensor that a module gives while `call` runs."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _args, output: seen.append(output))
    call()
    handle.remove()
    return seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]


@torch.no_grad()
def test_student(model: PeftModel, golden: dict[str, Tensor]) -> None:
    pixels, clip = golden["in.pixel_values"], model.get_base_model().clip
    output = model(pixels, labels=golden["in.labels"], output_semantic=True)
    vision = clip.vision_model(pixel_values=pixels, output_hidden_states=True)
    tokens = clip.visual_projection(clip.vision_model.post_layernorm(vision.last_hidden_state))
    got = {
        "logits": output.quality_logits,
        "logits_train_dropout0": model.train()(pixels).quality_logits,
        "score": output.quality,
        "image_features": output.image_embeds,
        "semantic_logits": output.semantic_logits,
        "xe_loss": output.loss,
        "visual_prompt_norm": vision.last_hidden_state,
        "dense_features": unit_length(tokens[:, 1:]).mT.unflatten(-1, (4, 4)),
        **{f"visual_block{i}": vision.hidden_states[i + 1] for i in range(4)},
    }
    for name, value in got.items():
        torch.testing.assert_close(value, golden[f"out.{name}"], atol=BOUND, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", ["quality", "semantic"])
@torch.no_grad()
def test_anchors(model: PeftModel, golden: dict[str, Tensor], kind: str) -> None:
    base = model.get_base_model()
    raw = outputs_of(base.clip.text_projection, lambda: base.get_anchor_embeds(kind))
    torch.testing.assert_close(raw, golden[f"out.{kind}_text_features_raw"], atol=BOUND, rtol=0)
    torch.testing.assert_close(base.get_anchor_embeds(kind), golden[f"out.{kind}_text_features"], atol=BOUND, rtol=0)


@pytest.mark.parametrize("layer", range(4))
@torch.no_grad()
def test_text_blocks_up_to_the_cut(model: PeftModel, golden: dict[str, Tensor], layer: int) -> None:
    base = model.get_base_model()
    states = outputs_of(base.clip.text_model.encoder.layers[layer], lambda: base.get_anchor_embeds("quality"))
    cut = 1 + int((golden["in.quality_input_ids"] == 63).int().argmax(1).max())
    assert states.shape[1] == cut < golden["in.quality_input_ids"].shape[1]
    torch.testing.assert_close(states, golden[f"out.text_block{layer}"][:, :cut], atol=BOUND, rtol=0)


@torch.no_grad()
def test_teacher(model: PeftModel, golden: dict[str, Tensor]) -> None:
    base = model.get_base_model()
    with teacher_mode(model):
        teacher = model(golden["in.pixel_values"], output_semantic=True)
        base.config.quality_input_ids = golden["in.teacher_quality_input_ids"].tolist()
        texts = model(golden["in.pixel_values"])
        got = {
            "teacher_logits_sce": teacher.semantic_logits,
            "teacher_image_features": teacher.image_embeds,
            "teacher_semantic_text_features": base.get_anchor_embeds("semantic"),
            "teacher_logits": texts.quality_logits,
            "teacher_quality_text_features": base.get_anchor_embeds("quality"),
        }
    for name, value in got.items():
        torch.testing.assert_close(value, golden[f"out.{name}"], atol=BOUND, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_losses(golden: dict[str, Tensor]) -> None:
    student, teacher = golden["out.semantic_logits"], golden["out.teacher_logits_sce"]
    entropy = -(teacher.softmax(-1) * teacher.log_softmax(-1)).sum(-1).mean()
    got = {
        "xe_loss": quality_cross_entropy(golden["out.logits"], golden["in.labels"].flatten(), [1.0, 0.0]),
        "kl_loss": semantic_cross_entropy(student, teacher),
        "kl_loss_T2": semantic_cross_entropy(student, teacher, temperature=2.0),
        "kl_minus_teacher_entropy": semantic_cross_entropy(student, teacher) - entropy,
    }
    for name, value in got.items():
        assert math.isclose(value.item(), golden[f"out.{name}"].item(), abs_tol=BOUND), name


def test_preprocessing(golden: dict[str, Tensor]) -> None:
    stored = golden["prep.images_u8"]
    pictures = [picture.permute(1, 2, 0).numpy() for picture in stored]
    test = GRMPImageProcessor.authors(32)(pictures)["pixel_values"]
    torch.testing.assert_close(test, golden["prep.test_pixel_values"], atol=1e-6, rtol=0)
    for epoch, expected in enumerate(golden["prep.train_pixel_values"]):
        torch.testing.assert_close(authors_training_view(stored, epoch, 32), expected, atol=1e-6, rtol=0)


def test_names_go_there_and_back(model: PeftModel, golden: dict[str, Tensor]) -> None:
    back = to_authors_state_dict(model)
    assert {f"state.{name}" for name in back} == {name for name in golden if name.startswith("state.")}
    assert all(torch.equal(weight, golden[f"state.{name}"]) for name, weight in back.items())
