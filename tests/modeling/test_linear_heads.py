from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LNTuningConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

import grmp_hf
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.functional import unit_length
from grmp_hf.modeling.heads import Features, Head, Text
from grmp_hf.modeling.known_heads import describe, rebuild
from grmp_hf.modeling.linear_heads import Cosine, MeanSigma

HELD = {"modules_to_save": ["head"]}
CONFIGS: dict[str, Callable[[], Any]] = {
    "prompts": lambda: grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=2, **HELD),
    "layer norm": lambda: LNTuningConfig(target_modules=["layer_norm1", "layer_norm2"], **HELD),
    "lora": lambda: LoraConfig(target_modules=["q_proj", "v_proj"], r=2, **HELD),
}
HEADS = [Cosine, MeanSigma]


def seen(*embeds: list[list[float]]) -> Features:
    views = torch.tensor(embeds)
    return Features(unit_length(views), torch.full((views.shape[1],), 1 / views.shape[1]))


def texts() -> Text:
    raise AssertionError("no text tower should be asked")


def moved(head: Head) -> Head:
    """With every tensor, the buffers too, away from where it began."""
    generator = torch.Generator().manual_seed(5)
    for value in [*head.parameters(), *head.buffers()]:
        value.data.add_(torch.rand(value.shape, generator=generator))
    return head


def test_the_cosine_of_the_views_is_mapped_to_quality() -> None:
    head = Cosine(2)
    head.direction.data = torch.tensor([0.0, 3.0])
    found = head(seen([[0.0, 2.0], [1.0, 0.0]], [[0.0, -1.0], [0.0, -5.0]]), texts)
    torch.testing.assert_close(found.mean, torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(found.quality, torch.tensor([0.75, 0.0]))
    assert found.sigma is None


def test_the_cosine_head_of_loda(golden_folder: Path) -> None:
    golden = load_file(golden_folder / "neighbours.safetensors")
    tokens, head = golden["loda.out.after2"][:, 0], Cosine(48)
    head.direction.data = golden["loda.state.head.weight"].flatten()
    found = head(Features(unit_length(tokens)[:, None], torch.ones(1)), texts)
    torch.testing.assert_close(found.mean, golden["loda.out.score"].flatten(), atol=1e-5, rtol=0)


def test_mean_and_sigma_begin_at_nothing_and_one() -> None:
    head, shown = MeanSigma(2), seen([[0.6, 0.8]], [[1.0, 0.0]])
    found = head(shown, texts)
    torch.testing.assert_close(found.mean, torch.zeros(2))
    torch.testing.assert_close(found.sigma, torch.ones(2))
    torch.testing.assert_close(found.quality, torch.full((2,), 0.5))
    head.last.weight.data = torch.tensor([[1.0, 2.0], [-3.0, 0.0]])
    head.place(0.5, 1.0)
    found = head(shown, texts)
    torch.testing.assert_close(found.mean, torch.tensor([2.2, 1.0]))
    torch.testing.assert_close(found.sigma, nn.functional.softplus(torch.tensor([-1.8, -3.0]) + 0.5413248))
    torch.testing.assert_close(found.quality, torch.sigmoid(torch.tensor([2.1, 1.5])))


@pytest.mark.parametrize("kind", HEADS)
def test_quality_rises_with_the_mean(kind: Callable[[int], Head]) -> None:
    found = moved(kind(4))(seen(*torch.randn(9, 1, 4, generator=torch.Generator().manual_seed(1)).tolist()), texts)
    assert torch.equal(found.mean.argsort(), found.quality.argsort())
    assert ((found.quality >= 0) & (found.quality <= 1)).all()


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("method", CONFIGS)
def test_it_is_saved_with_any_adapter_and_known_by_name(
    method: str, kind: Callable[[int], Head], clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    base = grmp_hf.load(clip_folder)
    model = copy_base(base.model)
    model.head = kind(8)
    adapted = get_peft_model(model, CONFIGS[method]())
    moved(adapted.get_base_model().head.modules_to_save["default"])
    scorer = dataclasses.replace(base, model=adapted.eval())
    pixels = torch.stack([scorer.views(photo) for photo in photos[:4]])
    expected = scorer.outputs(pixels)
    scorer.save(tmp_path / "mine")
    loaded = grmp_hf.load(tmp_path / "mine")
    found = loaded.outputs(pixels)
    assert describe(loaded.model.get_base_model().head) == {"name": kind.__name__, "settings": {"width": 8}}
    assert np.ptp(expected.quality.numpy()) > 1e-4
    for name in found:
        assert torch.equal(found[name], expected[name]), name
    assert {"mean", "quality"} <= set(found) and ("sigma" in found) == (kind is MeanSigma)


@pytest.mark.parametrize("kind", HEADS)
def test_it_is_described_and_made_anew(kind: Callable[[int], Head]) -> None:
    again = rebuild(describe(kind(5)))
    assert type(again) is kind and describe(again)["settings"] == {"width": 5}
