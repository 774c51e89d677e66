from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageClassification, CLIPConfig, CLIPModel, CLIPTokenizer

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.configuration_grmp import GRMPConfig
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment

MakeScorer = Callable[..., GRMPForImageQualityAssessment]
MakeAdapted = Callable[..., PeftModel]


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def close(left: Tensor, right: Tensor, bound: float | None = None) -> None:
    """Equal but for rounding: sums of at most 64 terms and a margin of 64, unless a bound is given."""
    rounding = 64 * torch.finfo(right.dtype).eps * 64**0.5 * max(1.0, right.abs().max().item())
    torch.testing.assert_close(left, right, atol=rounding if bound is None else bound, rtol=0)


@torch.no_grad()
def test_zero_shot_is_transformers_own_clip(make_scorer: MakeScorer) -> None:
    model, pixels = make_scorer(), pictures(4)
    ids = torch.tensor(model.config.quality_input_ids)
    close(model(pixels).quality_logits, model.clip(input_ids=ids, pixel_values=pixels).logits_per_image)


@torch.no_grad()
def test_a_batch_is_its_pictures_one_by_one(make_adapted: MakeAdapted) -> None:
    model, pixels = make_adapted(), pictures(7)
    whole = model(pixels, output_semantic=True)
    for size in (1, 2, 3):
        parts = [model(part, output_semantic=True) for part in pixels.split(size)]
        close(torch.cat([part.quality for part in parts]), whole.quality)
        close(torch.cat([part.semantic_logits for part in parts]), whole.semantic_logits)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    close(model(pixels[order]).quality, whole.quality[order])


@torch.no_grad()
def test_views_are_averaged_by_their_weights_in_any_order(make_scorer: MakeScorer) -> None:
    weights, order = [0.5, 0.2, 0.3], [2, 0, 1]
    model, turned = make_scorer(view_weights=weights), make_scorer(view_weights=[weights[i] for i in order])
    pixels = pictures(4, 3)
    logits = model(pixels).quality_logits
    each = [model(pixels[:, view]).quality_logits * weight for view, weight in enumerate(weights)]
    close(logits, sum(each))
    close(turned(pixels[:, order]).quality_logits, logits)
    close(make_scorer()(pixels).image_embeds, sum(model(pixels[:, v]).image_embeds for v in range(3)) / 3)
    close(model(pixels[:, :1]).quality_logits, model(pixels[:, 0]).quality_logits)


@pytest.mark.parametrize("shape", [(1,), (2,), (2, 2), (1, 4), ()])
def test_labels_of_another_shape_are_refused(shape: tuple[int, ...], make_scorer: MakeScorer) -> None:
    with pytest.raises(GRMPError, match=r"Expected labels of shape \(4,\), one for each picture, got \("):
        make_scorer()(pictures(4), labels=torch.full(shape, 0.5))


def test_pixels_that_are_not_normalised_are_refused(make_scorer: MakeScorer) -> None:
    with pytest.raises(GRMPError, match=r"Expected pixel_values that are normalised, got uint8. Use the model's"):
        make_scorer()(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_loss_takes_labels_as_rows_or_as_a_column(make_scorer: MakeScorer) -> None:
    model, pixels, labels = make_scorer(), pictures(4), torch.rand(4)
    loss = model(pixels, labels=labels).loss
    assert loss is not None and loss.requires_grad
    assert model(pixels, labels=labels[:, None]).loss == loss
    assert model(pixels).loss is None and model(pixels).semantic_logits is None


def test_embeddings_stand_for_pictures(make_scorer: MakeScorer) -> None:
    model, pixels = make_scorer(), pictures(4)
    embeds = model.get_image_embeds(pixels)
    close(model(image_embeds=embeds).quality, model(pixels).quality, 0)
    for arguments in ({}, {"pixel_values": pixels, "image_embeds": embeds}):
        with pytest.raises(TypeError, match="one of pixel_values, image_embeds and tokens"):
            model(**arguments)
    with pytest.raises(TypeError, match=r"unexpected arguments \['pixels'\]"):
        model(pixels, pixels=1)


@pytest.mark.parametrize("adapted", [False, True])
@torch.no_grad()
def test_cut_text_tower_equals_padding_to_full_length(
    make_scorer: MakeScorer, make_adapted: MakeAdapted, adapted: bool
) -> None:
    model = make_adapted().get_base_model() if adapted else make_scorer()
    length = model.config.clip_config.text_config.max_position_embeddings
    rows = model.config.semantic_input_ids
    cut = model.get_anchor_embeds("semantic")
    for filler in (63, 0):
        padded = torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])
        full = model.clip.text_projection(model.clip.text_model(input_ids=padded).pooler_output)
        close(cut, full / full.norm(dim=-1, keepdim=True))
    model.config.semantic_input_ids = [[*row, *[0] * (length - len(row))] for row in rows]
    close(model.get_anchor_embeds("semantic"), cut)


@torch.no_grad()
def test_old_end_token_rule(make_scorer: MakeScorer) -> None:
    """Checkpoints that say `eos_token_id` 2 are pooled at the largest id."""
    old, new = make_scorer(text={"eos_token_id": 2}), make_scorer()
    close(old.get_anchor_embeds("quality"), new.get_anchor_embeds("quality"), 0)
    ids = torch.tensor(old.config.quality_input_ids)
    close(old(pictures(2)).quality_logits, old.clip(input_ids=ids, pixel_values=pictures(2)).logits_per_image)


SIZES = {
    "larger patches": {"patch_size": 8},
    "other picture": {"image_size": 24},
    "wide": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
    "one layer": {"num_hidden_layers": 1},
    "gelu": {"hidden_act": "gelu"},
}


@pytest.mark.parametrize("vision", SIZES.values(), ids=SIZES)
@torch.no_grad()
def test_other_sizes(make_scorer: MakeScorer, make_adapted: MakeAdapted, vision: dict[str, Any]) -> None:
    base = make_scorer(vision=vision)
    size = vision.get("image_size", 16)
    pixels = torch.randn(2, 3, size, size)
    zero_shot = base(pixels).quality
    model = make_adapted(base)
    assert model(pixels).quality.shape == (2,) and not torch.equal(model(pixels).quality, zero_shot)
    with model.disable_adapter():
        assert torch.equal(model(pixels).quality, zero_shot)


@pytest.mark.parametrize("anchors", [3, 5])
@torch.no_grad()
def test_more_quality_anchors(make_scorer: MakeScorer, make_adapted: MakeAdapted, anchors: int) -> None:
    levels = torch.linspace(1, 0, anchors).tolist()
    ids = [[62, 7, 7, 20 + index, 63] for index in range(anchors)]
    model = make_adapted(make_scorer(quality_anchors=["a"] * anchors, quality_levels=levels, quality_input_ids=ids))
    output = model(pictures(4), labels=torch.tensor([0.0, 0.2, 0.7, 1.0]))
    assert output.quality_logits.shape == (4, anchors) and output.loss.isfinite()
    assert ((output.quality >= 0) & (output.quality <= 1)).all()


@torch.no_grad()
def test_kinds_of_attention_agree(make_scorer: MakeScorer, make_adapted: MakeAdapted) -> None:
    base = make_scorer()
    model, pixels = make_adapted(base), pictures(4)
    quality = model(pixels).quality_logits
    base.set_attn_implementation("eager")
    assert base.clip.vision_model.config._attn_implementation == "eager"
    close(model(pixels).quality_logits, quality)


class Calls:
    """Counts how often a module is run."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.count = 0
        module.register_forward_hook(self.add)

    def add(self, *_: object) -> None:
        self.count += 1

    def since(self) -> int:
        count, self.count = self.count, 0
        return count


def reload(model: PeftModel) -> None:
    model.load_state_dict({name: weight * 1.1 for name, weight in model.state_dict().items()})


def optimize(model: PeftModel, fused: bool = False) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=fused)
    with torch.enable_grad():
        model(pictures(2), labels=torch.rand(2)).loss.backward()
    optimizer.step()


def replace_adapter(model: PeftModel) -> None:
    config = model.peft_config["default"]
    model.add_adapter("other", config)
    model.set_adapter("other")
    model.delete_adapter("default")
    model.add_adapter("default", config)
    model.set_adapter("default")


def add_second(model: PeftModel) -> None:
    model.add_adapter("second", model.peft_config["default"])
    model.set_adapter("second")


CHANGES: dict[str, Callable[[PeftModel], object]] = {
    "optimizer step": optimize,
    "fused optimizer step": lambda model: optimize(model, fused=True),
    "load_state_dict": reload,
    "set_adapter": add_second,
    "same name, new adapter": replace_adapter,
    "disabled": lambda model: model.base_model.disable_adapter_layers(),
    "cast": lambda model: model.double(),
    "trained and evaluated": lambda model: model.train().eval(),
    "all of a base weight through data": lambda model: (
        model.get_base_model().clip.text_model.encoder.layers[1].mlp.fc1.weight.data.mul_(1.5)
    ),
    "projection": lambda model: model.get_base_model().clip.text_projection.weight.mul_(torch.rand(12, 16)),
    "base weight": lambda model: torch.nn.init.zeros_(
        model.get_base_model().clip.text_model.encoder.layers[0].mlp.fc1.weight
    ),
    "other anchors": lambda model: setattr(model.get_base_model().config, "quality_input_ids", [[62, 7, 5, 63]] * 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@torch.no_grad()
def test_constants_are_computed_once_and_again_after(
    make_adapted: MakeAdapted, change: Callable[[PeftModel], object]
) -> None:
    model = make_adapted()
    base = model.get_base_model()
    dtype = torch.float64 if change is CHANGES["cast"] else torch.float32
    towers = Calls(base.clip.text_model)
    prompts = [Calls(base.clip.vision_model.encoder.grmp_visual["default"].projection)]
    for _ in range(3):
        model(pictures(2), output_semantic=True)
    assert towers.since() == 2  # quality and semantic anchors
    assert prompts[0].since() == 3  # three layers
    change(model)
    towers.since()
    changed = model(pictures(2).to(dtype))
    assert towers.since() == 1
    base.train().eval()
    fresh = model(pictures(2).to(dtype))
    assert torch.equal(changed.quality_logits, fresh.quality_logits)


def test_scenes_are_computed_once_while_only_prompts_are_trained(make_adapted: MakeAdapted) -> None:
    model = make_adapted().train()
    calls = Calls(model.get_base_model().clip.text_model)
    for _ in range(3):
        output = model(pictures(2), labels=torch.rand(2), output_semantic=True)
        output.loss.backward()
    assert calls.since() == 3 + 1  # quality anchors at each step


def test_a_teacher_is_computed_once_whatever_its_student_learns(make_adapted: MakeAdapted) -> None:
    model = make_adapted().train()
    calls = Calls(model.get_base_model().clip.text_model)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    for _ in range(3):
        model.train()
        with teacher_mode(model):
            model(pictures(2), output_semantic=True)
        output = model(pictures(2), labels=torch.rand(2), output_semantic=True)
        output.loss.backward()
        optimizer.step()
    assert calls.since() == 3 + 1 + 1  # quality anchors at each step, those of the teacher, scenes


@torch.no_grad()
def test_adapters_side_by_side_are_computed_once(make_adapted: MakeAdapted) -> None:
    model = make_adapted()
    add_second(model)
    base = model.get_base_model()
    calls = [Calls(base.clip.text_model), *map(Calls, projections(base))]
    found = []
    for _ in range(2):
        for name in ("default", "second"):
            model.set_adapter(name)
            found.append(model(pictures(2), output_semantic=True).quality_logits)
        with model.disable_adapter():
            found.append(model(pictures(2), output_semantic=True).quality_logits)
    assert [call.since() for call in calls] == [3 + 1, 3, 3]  # three layers have prompts
    assert all(torch.equal(*pair) for pair in zip(found[:3], found[3:], strict=True))


def projections(base: GRMPForImageQualityAssessment) -> list[torch.nn.Module]:
    return [prompts.projection for prompts in base.clip.vision_model.encoder.grmp_visual.values()]


@torch.no_grad()
def test_weights_that_an_adapter_was_merged_into_are_others(make_scorer: MakeScorer) -> None:
    base = make_scorer()
    zero_shot = base(pictures(2), output_semantic=True)
    config = LoraConfig(target_modules=r".*text_model.*(q_proj|v_proj)", init_lora_weights=False)
    merged = get_peft_model(base, config).merge_and_unload()
    found = merged(pictures(2), output_semantic=True)
    expected = merged.train().eval()(pictures(2), output_semantic=True)
    for name in ("quality_logits", "semantic_logits"):
        assert not torch.equal(expected[name], zero_shot[name])
        assert torch.equal(found[name], expected[name])


def test_gradients_after_inference_mode(make_adapted: MakeAdapted) -> None:
    model, pixels = make_adapted(), pictures(2)
    with torch.inference_mode():
        model(pixels, output_semantic=True)
    output = model(pixels, labels=torch.rand(2), output_semantic=True)
    (output.loss + output.semantic_logits.sum()).backward()
    with torch.no_grad():
        close(model(pixels).quality, output.quality.detach())


@torch.no_grad()
def test_autocast_leaves_nothing_behind(make_adapted: MakeAdapted) -> None:
    model, pixels = make_adapted(), pictures(2)
    before = model(pixels).quality_logits
    with torch.autocast("cpu", torch.bfloat16):
        half = model(pixels).quality_logits
    assert half.dtype == torch.float32
    close(half, before, 0.3)
    assert torch.equal(model(pixels).quality_logits, before)


# Loading ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_folder(make_scorer: MakeScorer, tmp_path: Path) -> Path:
    """A plain CLIP with a tokenizer of its own words."""
    letters = [chr(code) for code in [*range(97, 123), 46, 95]]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: index for index, token in enumerate(vocabulary)}, merges=[])
    end = len(tokenizer) - 1
    text = {"vocab_size": len(tokenizer), "eos_token_id": end, "bos_token_id": end - 1, "max_position_embeddings": 40}
    clip = make_scorer(text=text, quality_input_ids=[[end]] * 2, semantic_input_ids=[[end]] * 3).clip
    clip.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@torch.no_grad()
def test_any_clip_folder_is_a_zero_shot_scorer(plain_folder: Path) -> None:
    model = GRMPForImageQualityAssessment.from_pretrained(plain_folder)
    clip, tokenizer = CLIPModel.from_pretrained(plain_folder), CLIPTokenizer.from_pretrained(plain_folder)
    assert model.config.quality_anchors[0] == "X X X X high quality." and not model.training
    texts = tokenizer(model.config.quality_anchors, return_tensors="pt", padding=True)
    expected = clip(**texts, pixel_values=pictures(3)).logits_per_image
    close(model(pictures(3)).quality_logits, expected)


@torch.no_grad()
def test_clips_own_vocabulary_needs_no_tokenizer(make_tiny_clip: Callable[[int], CLIPModel], tmp_path: Path) -> None:
    clip = make_tiny_clip(0)
    clip.save_pretrained(tmp_path)
    model = GRMPForImageQualityAssessment.from_pretrained(tmp_path)
    assert model.config.quality_input_ids == GRMPConfig().quality_input_ids
    pixels = torch.randn(3, 3, 32, 32)
    expected = clip(input_ids=torch.tensor(model.config.quality_input_ids), pixel_values=pixels).logits_per_image
    close(model(pixels).quality_logits, expected)


def test_another_vocabulary_without_tokenizer(plain_folder: Path) -> None:
    (plain_folder / "tokenizer.json").unlink()
    (plain_folder / "tokenizer_config.json").unlink()
    with pytest.raises(GRMPError, match="Expected a tokenizer that knows the words of the anchors"):
        GRMPForImageQualityAssessment.from_pretrained(plain_folder)


def test_single_precision_unless_asked_otherwise(plain_folder: Path) -> None:
    CLIPModel.from_pretrained(plain_folder).half().save_pretrained(plain_folder)
    assert load_file(plain_folder / "model.safetensors")["visual_projection.weight"].dtype == torch.float16
    assert GRMPForImageQualityAssessment.from_pretrained(plain_folder).dtype == torch.float32
    asked = GRMPForImageQualityAssessment.from_pretrained(plain_folder, dtype=torch.bfloat16)
    assert asked.dtype == torch.bfloat16 and asked(pictures(2).bfloat16()).quality.dtype == torch.float32


def drop(weights: dict[str, Tensor]) -> None:
    del weights["vision_model.post_layernorm.bias"]


def add(weights: dict[str, Tensor]) -> None:
    weights["vision_model.extra.weight"] = torch.zeros(2)


def shrink(weights: dict[str, Tensor]) -> None:
    weights["visual_projection.weight"] = weights["visual_projection.weight"][:5].clone()


def old_positions(weights: dict[str, Tensor]) -> None:
    weights["text_model.embeddings.position_ids"] = torch.arange(40)[None]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (drop, pytest.raises(GRMPError, match=r"missing keys: clip\.vision_model\.post_layernorm\.bias")),
        (add, pytest.raises(GRMPError, match=r"unexpected keys: vision_model\.extra\.weight")),
        (
            shrink,
            pytest.raises(
                GRMPError, match=r"mismatched keys: clip\.visual_projection\.weight \(5, 24\) instead of \(12, 24\)"
            ),
        ),
        (old_positions, contextlib.nullcontext()),
    ],
    ids=["missing", "unexpected", "other size", "harmless"],
)
def test_weights_must_be_exactly_those_of_the_clip(
    plain_folder: Path, change: Callable[[dict[str, Tensor]], None], expected: Any
) -> None:
    weights = load_file(plain_folder / "model.safetensors")
    change(weights)
    save_file(weights, plain_folder / "model.safetensors", {"format": "pt"})
    with expected:
        GRMPForImageQualityAssessment.from_pretrained(plain_folder)


def test_no_weights_at_all(tmp_path: Path) -> None:
    CLIPConfig().save_pretrained(tmp_path)
    with pytest.raises((GRMPError, OSError), match=r"model\.safetensors"):
        GRMPForImageQualityAssessment.from_pretrained(tmp_path)


@torch.no_grad()
def test_save_and_load(make_scorer: MakeScorer, tmp_path: Path) -> None:
    model = make_scorer(view_weights=[0.75, 0.25])
    model.save_pretrained(tmp_path)
    assert {name.split(".")[0] for name in load_file(tmp_path / "model.safetensors")} == {"clip"}
    for again in (
        GRMPForImageQualityAssessment.from_pretrained(tmp_path),
        AutoModelForImageClassification.from_pretrained(tmp_path),
    ):
        assert type(again) is GRMPForImageQualityAssessment
        assert torch.equal(again(pictures(2, 2)).quality, model(pictures(2, 2)).quality)
    _, info = GRMPForImageQualityAssessment.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_gradient_checkpointing_changes_nothing(make_adapted: MakeAdapted) -> None:
    model = make_adapted().train()
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        output = model(pictures(3), labels=torch.tensor([0.1, 0.5, 0.9]), output_semantic=True)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        semantic = torch.autograd.grad(
            output.semantic_logits.square().sum(), parameters, retain_graph=True, allow_unused=True
        )
        gradients.append([*torch.autograd.grad(output.loss, parameters), *(g for g in semantic if g is not None)])
    assert model.get_base_model().is_gradient_checkpointing
    for plain, checkpointed_too in zip(*gradients, strict=True):
        close(plain, checkpointed_too)


@torch.no_grad()
def test_of_fewer_views_the_first_weights_count(make_scorer: MakeScorer) -> None:
    model, pixels = make_scorer(view_weights=[0.6, 0.2, 0.2]), pictures(2, 3)
    two = make_scorer(view_weights=[0.75, 0.25])
    torch.testing.assert_close(model(pixels[:, :2]).quality, two(pixels[:, :2]).quality)
    assert torch.equal(model(pixels[:, :1]).quality, model(pixels[:, 0]).quality)
    last = make_scorer(view_weights=[0.0, 0.0, 1.0])
    assert torch.isfinite(last(pixels[:, :2]).quality).all()
    with pytest.raises(GRMPError, match=r"at most 3 views of each picture, .* got 4"):
        model(pictures(2, 4))
