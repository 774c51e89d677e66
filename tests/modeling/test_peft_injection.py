"""Injected local features as a PEFT method: what is trained, saved, refused, and the network that they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPEncoder

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.bases import side_of
from grmp_hf.modeling.linear_heads import Cosine
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.modeling.side import make_side
from grmp_hf.record import ADAPTER_FILES, Record

PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0.1, 0.4, 0.6, 0.9])
SMALL = {"latent": 8, "heads": 2, "grid": 2}


@pytest.fixture
def make_injected(make_sided: Callable[..., Any]) -> Callable[..., PeftModel]:
    """`make_injected(**options)`: with an adapter that differs from its start everywhere."""

    def make(base: Any = None, **options: Any) -> PeftModel:
        torch.manual_seed(1)
        model = get_peft_model(base or make_sided(), LoDaConfig(**{**SMALL, **options}))
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(0.2 * torch.randn_like(weight))
        return model.eval()

    return make


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(PIXELS).quality_logits  # type: ignore[no-any-return]


def save(model: PeftModel, folder: Path) -> Path:
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.mark.parametrize("up", ["mlp", "linear"])
def test_a_new_adapter_is_the_base_bit_for_bit(up: str, make_sided: Callable[..., Any]) -> None:
    expected = logits(make_sided())
    assert torch.equal(logits(get_peft_model(make_sided(), LoDaConfig(up=up, **SMALL))), expected)
    random = get_peft_model(make_sided(), LoDaConfig(up=up, start="random", **SMALL))
    assert 0 < (logits(random) - expected).abs().max() < 0.1


def test_gradients_reach_the_adapter_alone(make_injected: Callable[..., PeftModel]) -> None:
    model = make_injected().train()
    model(PIXELS, labels=LABELS).loss.backward()
    for name, weight in model.named_parameters():
        assert (".loda_injection.default." in name) == weight.requires_grad, name
        assert (weight.grad is not None and bool(weight.grad.any())) == weight.requires_grad, name


@pytest.mark.parametrize("options", [{}, {"up": "linear"}, {"batch_statistics": True}], ids=str)
def test_save_and_load_changes_nothing(
    options: dict[str, Any], make_sided: Callable[..., Any], make_injected: Callable[..., PeftModel], tmp_path: Path
) -> None:
    model = make_injected(**options)
    expected = logits(model)
    save(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(ADAPTER_FILES)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    own = {name: value for name, value in model.state_dict().items() if ".loda_injection." in name}
    assert sum(map(Tensor.numel, stored.values())) == sum(map(Tensor.numel, own.values()))
    for more in ({}, {"low_cpu_mem_usage": True}, {"is_trainable": True}):
        again = PeftModel.from_pretrained(make_sided(), str(tmp_path), **more)
        assert torch.equal(logits(again), expected)
        assert any(weight.requires_grad for weight in again.parameters()) == more.get("is_trainable", False)
    config = LoDaConfig.from_pretrained(str(tmp_path))
    for name in set(config.to_dict()) - {"target_modules", "auto_mapping", "inference_mode"}:
        assert getattr(config, name) == getattr(model.peft_config["default"], name), name
    assert Record.of(config).side == side_of(make_sided())
    base = model.unload()
    assert type(base.clip.vision_model.encoder) is CLIPEncoder and torch.equal(logits(base), logits(make_sided()))


def test_the_ways_of_peft_and_transformers(
    make_sided: Callable[..., Any], make_injected: Callable[..., PeftModel], tmp_path: Path
) -> None:
    make_sided().save_pretrained(tmp_path / "base")
    model = make_injected(GRMPForImageQualityAssessment.from_pretrained(tmp_path / "base"))
    folder, expected = save(model, tmp_path / "adapter"), logits(model)
    again = AutoPeftModel.from_pretrained(str(folder), import_allowlist=["grmp_hf"])
    assert torch.equal(logits(again), expected)
    assert torch.equal(logits(GRMPForImageQualityAssessment.from_pretrained(folder)), expected)
    plain, zero_shot = make_sided(), logits(make_sided())
    plain.load_adapter(str(folder), adapter_name="first")
    assert torch.equal(logits(plain), expected)
    plain.add_adapter(LoDaConfig(up="linear", **SMALL), adapter_name="second")
    plain.set_adapter("second")
    assert torch.equal(logits(plain), zero_shot)
    plain.set_adapter("first")
    plain.disable_adapters()
    assert torch.equal(logits(plain), zero_shot)
    plain.enable_adapters()
    plain.delete_adapter("second")
    assert torch.equal(logits(plain), expected)


def test_sizes_may_differ_between_adapters_of_a_model(
    make_sided: Callable[..., Any], make_injected: Callable[..., PeftModel], tmp_path: Path
) -> None:
    kinds: list[dict[str, Any]] = [{}, {"latent": 12, "heads": 3, "grid": 5, "up": "linear"}]
    expected = []
    for at, kind in enumerate(kinds):
        model = make_injected(**kind)
        expected.append(logits(model))
        save(model, tmp_path / str(at))
    model = PeftModel.from_pretrained(make_sided(), str(tmp_path / "0"), adapter_name="n0")
    model.load_adapter(str(tmp_path / "1"), adapter_name="n1")
    for at in (0, 1, 0):
        model.set_adapter(f"n{at}")
        assert torch.equal(logits(model), expected[at])
    with pytest.raises(GRMPError, match=r"Expected one active adapter, got \['n0', 'n1'\]"):
        model.base_model.set_adapter(["n0", "n1"])
        logits(model)


def test_another_base_and_another_side_network_are_refused(
    make_sided: Callable[..., Any],
    make_scorer: Callable[..., Any],
    make_injected: Callable[..., PeftModel],
    tmp_path: Path,
) -> None:
    folder = save(make_injected(), tmp_path / "adapter")
    for base, message in (
        (make_sided(seed=7), "other base_fingerprint"),
        (make_sided(side=6), "other side network"),
        (make_scorer(), "other side network: .* None found"),
    ):
        with pytest.raises(GRMPError, match=message):
            PeftModel.from_pretrained(base, str(folder))
        with pytest.raises(GRMPError, match=message):
            base.load_adapter(str(folder))
    with pytest.raises(GRMPError, match="side network, whose maps are injected"):
        get_peft_model(make_scorer(), LoDaConfig())
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: value for name, value in tensors.items() if "blocks.1.scale" not in name},
        folder / "adapter_model.safetensors",
    )
    with pytest.raises(GRMPError, match=r"missing: \['[\w.]+blocks.1.scale'\]"):
        PeftModel.from_pretrained(make_sided(), str(folder))


def test_what_does_not_fit_is_refused(make_injected: Callable[..., PeftModel], make_scorer: Callable[..., Any]) -> None:
    with pytest.raises(GRMPError, match="heads that divide latent, got 8, 3 and 7"):
        LoDaConfig(latent=8, heads=3)
    with pytest.raises(GRMPError, match="at least 1"):
        LoDaConfig(grid=0)
    with pytest.raises(GRMPError, match="up mlp or linear, got 'wide'"):
        LoDaConfig(up="wide")
    with pytest.raises(GRMPError, match="start zero or random"):
        LoDaConfig(start="one")
    with pytest.raises(GRMPError, match="Ask the whole model"):
        make_injected().get_base_model().clip.get_image_features(PIXELS)
    base = make_scorer()
    base.put_beside({"name": "efficientnet_lite0"}, make_side({"name": "efficientnet_lite0"}))
    with pytest.raises(GRMPError, match="with batch normalisation"):
        get_peft_model(base, LoDaConfig(batch_statistics=True))


def test_the_side_network_stays_what_it_is_in_training(make_injected: Callable[..., PeftModel]) -> None:
    model = make_injected().train()
    before = {name: value.clone() for name, value in model.get_base_model().side.state_dict().items()}
    trained = model(PIXELS).quality_logits
    torch.testing.assert_close(trained, logits(model))
    after = model.get_base_model().side.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_batch_statistics_are_the_adapters_own(make_injected: Callable[..., PeftModel]) -> None:
    model = make_injected(batch_statistics=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = logits(model)
    by_batch = model.train()(PIXELS).quality_logits
    assert (by_batch - expected).abs().max() > 1e-4
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(".loda_injection.default.statistics." in name for name in moved)
    assert not torch.equal(logits(model), expected), "scoring uses what the batches have said"
    with model.disable_adapter():
        model(PIXELS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name not in moved)


def test_the_head_of_the_paper_is_saved_with_it(
    clip_folder: Path, side_settings: dict[str, Any], photos: list[Path], tmp_path: Path
) -> None:
    base = grmp_hf.load(clip_folder)
    model = copy_base(base.model)
    model.put_beside(side_settings, make_side(side_settings))
    model.save_pretrained(tmp_path / "base")
    base.processor.save_pretrained(tmp_path / "base")
    base = grmp_hf.load(tmp_path / "base")
    model = copy_base(base.model)
    model.head = Cosine(16, token=True, dropout=0.1, placed=True)
    adapted = get_peft_model(model, LoDaConfig(modules_to_save=["head"], **SMALL))
    adapted.get_base_model().head.modules_to_save["default"].place(3.0, -0.5)
    scorer = dataclasses.replace(base, model=adapted.eval())
    pixels = torch.stack([scorer.views(photo) for photo in photos[:4]])
    found = scorer.outputs(pixels)
    torch.testing.assert_close(found.quality, torch.sigmoid(3 * found.mean - 0.5))
    scorer.save(tmp_path / "mine")
    loaded = grmp_hf.load(tmp_path / "mine")
    assert torch.equal(loaded.outputs(pixels).quality, found.quality)
    assert (Record.load(tmp_path / "mine").head or {})["settings"] == {
        "width": 16,
        "token": True,
        "dropout": 0.1,
        "placed": True,
    }
    assert "Injected local features (LoDa)" in (tmp_path / "mine" / "README.md").read_text()


def test_the_embedded_base_takes_it(photos: list[Path], tmp_path: Path) -> None:
    base = grmp_hf.load()
    model = get_peft_model(copy_base(base.model), LoDaConfig(up="linear"))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert trained == 688 * 64 + 5 * (64 + 9 * 64 * 64) + 8 * (
        192 * 64 + 64 + 64 * 64 + 64 + 4 * 64 * 64 + 64 + 64 * 192 + 192 + 192
    )
    scorer = dataclasses.replace(base, model=model.eval())
    assert scorer.score(photos[0]).quality == base.score(photos[0]).quality
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".scale"):
                weight.fill_(0.1)
    expected = scorer.score(photos[0]).quality
    assert expected != base.score(photos[0]).quality
    scorer.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "adapter_model.safetensors").stat().st_size < 3e6
    assert grmp_hf.load(tmp_path / "mine").score(photos[0]).quality == expected
