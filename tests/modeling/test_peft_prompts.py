from __future__ import annotations

import copy
import gc
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import AutoPeftModel, PeftConfig, PeftModel, get_peft_model
from peft.utils import PeftType
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoder

from grmp_hf.errors import GRMPError
from grmp_hf.modeling import peft_injection, peft_prompts
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.bases import base_fingerprint
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_injection import LoDaConfig, LoDaModel
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig, GRMPPromptModel
from grmp_hf.record import ADAPTER_FILES, Record

MakeScorer = Callable[..., Any]
MakeAdapted = Callable[..., PeftModel]
PIXELS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0.1, 0.5, 0.9])


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(PIXELS).quality_logits  # type: ignore[no-any-return]


def save(model: PeftModel, folder: Path) -> Path:
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.mark.parametrize(
    ("home", "name", "config", "tuner"),
    [(peft_prompts, "GRMP", GRMPPromptConfig, GRMPPromptModel), (peft_injection, "LODA", LoDaConfig, LoDaModel)],
)
def test_methods_are_members_of_pefts_enumeration(home: Any, name: str, config: type, tuner: type) -> None:
    """Fails loudly where a new PEFT or Python keeps its methods in another way."""
    home.register()
    kind = PeftType[name]
    assert getattr(PeftType, name) is kind is PeftType(name) and kind.value == name
    assert list(PeftType).count(name) == 1 and json.loads(json.dumps(kind)) == name
    assert peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind] is config
    assert peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[kind] is tuner
    assert peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING[kind] == f"{name.lower()}_"


SETTINGS: dict[str, dict[str, Any]] = {
    "prompts": {},
    "text alone": {"visual_prompts": 0},
    "visual alone": {"text_prompts": 0},
    "some layers": {"visual_layers": 2},
    "readout": {"anchor_residuals": True, "calibrate": True},
    "readout alone": {"text_prompts": 0, "visual_prompts": 0, "anchor_residuals": True},
    "blocks": {"modules_to_save": ["layers.2", "final_layer_norm", "post_layernorm", "text_projection"]},
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS)
def adapted(request: pytest.FixtureRequest, make_adapted: MakeAdapted) -> PeftModel:
    """An adapted model whose trained tensors all differ from their start."""
    model = make_adapted(**request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_save_and_load_changes_nothing(adapted: PeftModel, make_scorer: MakeScorer, tmp_path: Path) -> None:
    expected = logits(adapted)
    save(adapted, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(ADAPTER_FILES)
    own = [w for name, w in adapted.state_dict().items() if ".grmp_" in name or ".modules_to_save." in name]
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(map(Tensor.numel, stored.values())) == sum(map(Tensor.numel, own))
    assert not [name for name in stored if "default" in name]
    for options in ({}, {"low_cpu_mem_usage": True}, {"is_trainable": True}):
        again = PeftModel.from_pretrained(make_scorer(), str(tmp_path), **options)
        assert torch.equal(logits(again), expected)
        assert any(parameter.requires_grad for parameter in again.parameters()) == options.get("is_trainable", False)


def test_disabled_and_unloaded_is_the_base_bit_for_bit(adapted: PeftModel, make_scorer: MakeScorer) -> None:
    expected, moved = logits(make_scorer()), logits(adapted)
    assert not torch.equal(moved, expected)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted), expected)
    assert torch.equal(logits(adapted), moved)
    base = adapted.unload()
    assert torch.equal(logits(base), expected)
    assert type(base.clip.vision_model.encoder) is CLIPEncoder
    assert all(type(layer.self_attn) is CLIPAttention for layer in base.clip.vision_model.encoder.layers)
    untouched = make_scorer().state_dict()
    assert base.state_dict().keys() == untouched.keys()
    assert all(torch.equal(weight, untouched[name]) for name, weight in base.state_dict().items())


def test_teacher_mode_is_the_base_and_leaves_no_trace(adapted: PeftModel, make_scorer: MakeScorer) -> None:
    adapted.train()
    adapted.get_base_model().clip.text_model.eval()
    before = [(p.requires_grad, p.grad) for p in adapted.parameters()], [m.training for m in adapted.modules()]
    loss = adapted(PIXELS, labels=LABELS).loss
    with teacher_mode(adapted):
        teacher = adapted(PIXELS, output_semantic=True)
        assert not teacher.quality_logits.requires_grad
    assert before == (
        [(p.requires_grad, p.grad) for p in adapted.parameters()],
        [m.training for m in adapted.modules()],
    )
    torch.testing.assert_close(teacher.quality_logits, logits(make_scorer()), atol=0, rtol=0)
    loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad and p.numel())


def test_teacher_mode_is_left_on_an_error(make_adapted: MakeAdapted) -> None:
    model = make_adapted()
    expected = logits(model)
    with pytest.raises(ZeroDivisionError), teacher_mode(model):
        1 / 0  # noqa: B018
    assert torch.equal(logits(model), expected)


def test_deepcopy_is_independent(adapted: PeftModel) -> None:
    expected = logits(adapted)
    other = copy.deepcopy(adapted)
    assert torch.equal(logits(other), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    assert torch.equal(logits(adapted), expected) and not torch.equal(logits(other), expected)


def test_trainable_parameters_are_counted(make_adapted: MakeAdapted, capsys: pytest.CaptureFixture[str]) -> None:
    make_adapted().print_trainable_parameters()
    numbers = 4 * 16 + 3 * 5 * 24 + 24 * 24 + 24 + 2 * 24
    assert f"trainable params: {numbers:,} ||" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"freeze_text_prompts": True}, {"grmp_visual"}),
        ({"freeze_visual_prompts": True}, {"grmp_text"}),
        ({"freeze_visual_prompts": True, "freeze_text_prompts": True, "calibrate": True}, {"grmp_readout"}),
    ],
)
def test_what_is_frozen_stays_frozen(make_adapted: MakeAdapted, options: dict[str, Any], trained: set[str]) -> None:
    model = make_adapted(**options)

    def found() -> set[str]:
        return {name.split(".grmp_")[1].split(".")[0] for name, p in model.named_parameters() if p.requires_grad}

    assert {f"grmp_{name}" for name in found()} == trained
    with model.disable_adapter():
        pass
    model.set_adapter("default")
    model.train()
    assert {f"grmp_{name}" for name in found()} == trained


def test_several_adapters_of_different_sizes(
    make_scorer: MakeScorer, make_adapted: MakeAdapted, tmp_path: Path
) -> None:
    options = [{"text_prompts": 2, "visual_prompts": 3}, {"text_prompts": 6, "visual_layers": 1}, {"visual_prompts": 0}]
    expected = []
    for index, kind in enumerate(options):
        model = make_adapted(seed=index, **kind)
        expected.append(logits(model))
        save(model, tmp_path / str(index))
    model = PeftModel.from_pretrained(make_scorer(), str(tmp_path / "0"), adapter_name="n0")
    for index in (1, 2):
        model.load_adapter(str(tmp_path / str(index)), adapter_name=f"n{index}")
    for index in (0, 2, 1, 0):
        model.set_adapter(f"n{index}")
        assert torch.equal(logits(model), expected[index])
    model.delete_adapter("n1")
    assert not [name for name in model.state_dict() if ".n1." in name]
    model.set_adapter("n2")
    assert torch.equal(logits(model), expected[2])
    save(model, tmp_path / "all")
    assert torch.equal(logits(PeftModel.from_pretrained(make_scorer(), str(tmp_path / "all" / "n0"))), expected[0])
    with pytest.raises(GRMPError, match=r"Expected one active adapter, got \['n0', 'n2'\]"):
        model.base_model.set_adapter(["n0", "n2"])
        logits(model)


def test_transformers_own_adapter_methods(make_scorer: MakeScorer, make_adapted: MakeAdapted, tmp_path: Path) -> None:
    adapted = make_adapted()
    folder, expected = save(adapted, tmp_path / "adapter"), logits(adapted)
    model, zero_shot = make_scorer(), logits(make_scorer())
    model.load_adapter(str(folder), adapter_name="first")
    assert torch.equal(logits(model), expected)
    model.add_adapter(GRMPPromptConfig(text_prompts=2, visual_prompts=2), adapter_name="second")
    model.set_adapter("second")
    assert not torch.equal(logits(model), expected)
    model.set_adapter("first")
    model.disable_adapters()
    assert torch.equal(logits(model), zero_shot)
    model.enable_adapters()
    assert torch.equal(logits(model), expected)
    model.delete_adapter("second")
    assert torch.equal(logits(model), expected)
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(PeftModel.from_pretrained(make_scorer(), str(tmp_path / "again"))), expected)


def test_folder_of_an_adapter_is_enough(make_scorer: MakeScorer, make_adapted: MakeAdapted, tmp_path: Path) -> None:
    make_scorer().save_pretrained(tmp_path / "base")
    model = make_adapted(GRMPForImageQualityAssessment.from_pretrained(tmp_path / "base"))
    folder = save(model, tmp_path / "adapter")
    again = AutoPeftModel.from_pretrained(str(folder), import_allowlist=["grmp_hf"])
    assert torch.equal(logits(again), logits(model))
    assert torch.equal(logits(GRMPForImageQualityAssessment.from_pretrained(folder)), logits(model))
    assert type(PeftConfig.from_pretrained(str(folder))) is GRMPPromptConfig
    config = GRMPPromptConfig.from_pretrained(str(folder))
    for name in set(config.to_dict()) - {"target_modules", "auto_mapping", "inference_mode"}:
        assert getattr(config, name) == getattr(model.peft_config["default"], name), name
    head = Record.of(config).head or {}
    assert head["anchors"]["quality_anchors"] == ["X X X X high quality.", "X X X X low quality."]
    assert head["name"] == "AnchorHead"


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_merging_is_refused(make_adapted: MakeAdapted, merge: str) -> None:
    with pytest.raises(GRMPError, match="cannot be merged into the base"):
        getattr(make_adapted(), merge)()


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "wider": ({"vision": {"hidden_size": 32}}, "other base_fingerprint"),
    "deeper": ({"vision": {"num_hidden_layers": 4}}, "other base_fingerprint"),
    "other patches": ({"vision": {"patch_size": 8}}, "other base_fingerprint"),
    "other anchors": ({"quality_anchors": ["X good", "X bad"]}, "other anchors"),
    "other levels": ({"quality_levels": [0.0, 1.0]}, "other anchors"),
    "other weights": ({"seed": 5}, "other base_fingerprint"),
}


@pytest.mark.parametrize(("options", "message"), OTHERS.values(), ids=OTHERS)
def test_an_adapter_of_another_base(
    make_scorer: MakeScorer, make_adapted: MakeAdapted, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    folder = save(make_adapted(), tmp_path)
    for load in (PeftModel.from_pretrained, lambda base, path: base.load_adapter(path)):
        with pytest.raises(GRMPError, match=message):
            load(make_scorer(**options), str(folder))


def test_the_fingerprint_is_of_the_base_alone(make_scorer: MakeScorer, make_adapted: MakeAdapted) -> None:
    plain = base_fingerprint(make_scorer())
    adapted = make_adapted(modules_to_save=["layers.2"], anchor_residuals=True)
    assert base_fingerprint(adapted) == base_fingerprint(make_scorer().bfloat16()) == plain
    assert Record.of(adapted.active_peft_config).fingerprint == plain != base_fingerprint(make_scorer(seed=1))


def missing(weights: dict[str, Tensor]) -> None:
    weights.pop(next(name for name in weights if "grmp_text" in name))


def extra(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.clip.vision_model.encoder.grmp_visual.other"] = torch.zeros(2)


def stray(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.clip.vision_model.post_layernorm.weight"] = torch.zeros(24)


def resized(weights: dict[str, Tensor]) -> None:
    name = next(name for name in weights if name.endswith("context"))
    weights[name] = torch.zeros(5, 16)


DAMAGES = {
    missing: r"missing.*: .*grmp_text.*context",
    extra: r"unexpected.*: .*grmp_visual.*other",
    stray: r"unexpected.*: .*post_layernorm",
    resized: r"context \(5, 16\) instead of \(4, 16\)",
}


@pytest.mark.parametrize(
    ("method", "damage"),
    # transformers takes a weight of the base for one
    [
        (method, damage)
        for method in ("peft", "transformers")
        for damage in DAMAGES
        if (method, damage) != ("transformers", stray)
    ],
)
def test_a_damaged_adapter(
    make_scorer: MakeScorer,
    make_adapted: MakeAdapted,
    tmp_path: Path,
    method: str,
    damage: Callable[[dict[str, Tensor]], None],
) -> None:
    file = save(make_adapted(), tmp_path) / "adapter_model.safetensors"
    weights = load_file(file)
    damage(weights)
    save_file(weights, file)
    with pytest.raises(GRMPError, match=DAMAGES[damage]):
        if method == "peft":
            PeftModel.from_pretrained(make_scorer(), str(tmp_path))
        else:
            make_scorer().load_adapter(str(tmp_path))


def test_a_trained_block_that_is_missing(make_scorer: MakeScorer, make_adapted: MakeAdapted, tmp_path: Path) -> None:
    file = save(make_adapted(modules_to_save=["post_layernorm"]), tmp_path) / "adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if "post_layernorm.bias" not in name}, file)
    with pytest.raises(KeyError, match=r"post_layernorm\.bias"):  # PEFT's own
        PeftModel.from_pretrained(make_scorer(), str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_prompts": -1}, "text_prompts of at least 0, got -1"),
        ({"visual_layers": 0}, "visual_layers of at least 1, got 0"),
        ({"text_start": "zeros"}, "text_start 'placeholder' or 'random', got 'zeros'"),
        ({"prompt_dropout": 1.0}, "prompt_dropout in [0, 1), got 1.0"),
        ({"text_prompts": 0, "visual_prompts": 0}, "Expected something to train"),
        ({"visual_layers": 4}, "at most 3 visual_layers, got 4"),
        ({"text_prompts": 12}, "at most 16 tokens, got 17 with 12 text prompts"),
    ],
)
def test_settings_that_cannot_be(make_scorer: MakeScorer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        get_peft_model(make_scorer(), GRMPPromptConfig(**options))


def test_anchors_without_a_place_for_text_prompts(make_scorer: MakeScorer) -> None:
    base = make_scorer(quality_input_ids=[[62, 11, 63], [62, 12, 63]])
    with pytest.raises(GRMPError, match="Expected the placeholder 7 in every quality anchor"):
        get_peft_model(base, GRMPPromptConfig())
    get_peft_model(base, GRMPPromptConfig(text_prompts=0))


def test_another_kind_of_model(make_scorer: MakeScorer) -> None:
    with pytest.raises(GRMPError, match="a GRMPForImageQualityAssessment, got a model of type 'clip'"):
        get_peft_model(make_scorer().clip, GRMPPromptConfig())


@torch.no_grad()
def test_states_and_attentions_are_captured(make_scorer: MakeScorer, make_adapted: MakeAdapted) -> None:
    base = make_scorer()
    base.set_attn_implementation("eager")
    vision = make_adapted(base).get_base_model().clip.vision_model
    output = vision(pixel_values=PIXELS, output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(3, 17, 24)] * 4
    assert [tuple(weights.shape) for weights in output.attentions] == [(3, 4, 17, 17 + 5)] * 3
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(3, 4, 17))


@pytest.mark.parametrize("upcast", [True, False])
def test_half_precision_base(make_scorer: MakeScorer, upcast: bool) -> None:
    torch.manual_seed(0)
    config = GRMPPromptConfig(visual_prompts=5, anchor_residuals=True, calibrate=True)
    model = get_peft_model(make_scorer().bfloat16(), config, autocast_adapter_dtype=upcast)
    dtypes = {p.dtype for name, p in model.named_parameters() if ".grmp_text" in name or ".grmp_visual" in name}
    assert dtypes == {torch.float32 if upcast else torch.bfloat16}
    loss = model(PIXELS.bfloat16(), labels=LABELS).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert model.eval()(PIXELS.bfloat16()).quality.dtype == torch.float32


def test_adapter_of_the_papers_sizes_is_small(tmp_path: Path) -> None:
    from grmp_hf.modeling.configuration_grmp import GRMPConfig

    clip = {
        "vision_config": {"patch_size": 16, "intermediate_size": 8},
        "text_config": {"intermediate_size": 8, "num_hidden_layers": 1},
    }
    model = get_peft_model(GRMPForImageQualityAssessment(GRMPConfig(clip_config=clip)), GRMPPromptConfig())
    file = save(model, tmp_path) / "adapter_model.safetensors"
    assert sum(weight.numel() for weight in load_file(file).values()) == 1_515_776
    assert file.stat().st_size <= 6.1e6


def test_only_the_listed_tensors_get_gradients(adapted: PeftModel) -> None:
    adapted.train()(PIXELS, labels=LABELS).loss.backward()
    for name, parameter in adapted.named_parameters():
        listed = ".grmp_" in name or ".modules_to_save.default" in name
        assert parameter.requires_grad == listed, name
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (listed and parameter.numel() > 0), name


def test_nothing_keeps_a_model_alive(make_adapted: MakeAdapted) -> None:
    import weakref

    model = make_adapted()
    logits(model)
    reference = weakref.ref(model.get_base_model())
    del model
    gc.collect()
    assert reference() is None
