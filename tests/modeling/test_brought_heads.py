"""A head that an adapter brings goes with it: without the adapter, the base's own is left, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LNTuningConfig, PeftConfig, PeftModel

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base, teacher_mode, unload
from grmp_hf.modeling.brought_heads import bring_head
from grmp_hf.modeling.heads import Head
from grmp_hf.modeling.known_heads import describe
from grmp_hf.modeling.linear_heads import Cosine, Projected
from grmp_hf.modeling.map_head import MapHead
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.modeling.two_stream import TwoStreamHead
from tests.modeling.test_side import put_side

Made = tuple[Head, PeftConfig]


def loda(head: Head) -> Made:
    return head, LoDaConfig(latent=8, heads=2, grid=2, modules_to_save=["head"])


def none(head: Head) -> Made:
    return head, grmp_hf.GRMPPromptConfig(text_prompts=0, visual_prompts=0, modules_to_save=["head"])


BROUGHT: dict[str, Callable[[Any], Made]] = {
    "loda": lambda clip: loda(Cosine(clip.projection_dim, placed=True)),
    "loda, class token": lambda clip: loda(Cosine(clip.vision_config.hidden_size, token=True, placed=True)),
    "student": lambda clip: none(MapHead(clip.vision_config.hidden_size, 4, 3, 8)),
    "two streams": lambda clip: none(TwoStreamHead(clip.vision_config.hidden_size, 4, 0.0)),
    "high level": lambda clip: (
        Projected(clip.projection_dim, 4, True),
        LNTuningConfig(target_modules=["layer_norm1", "post_layernorm"], modules_to_save=["head"]),
    ),
}


@pytest.fixture(params=BROUGHT.values(), ids=BROUGHT)
def brought(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="session")
def clip_folder(clip_folder: Path, side_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a side network, from which LoDa takes its features."""
    return put_side(clip_folder, side_settings, tmp_path_factory.mktemp("bases") / "beside")


@torch.no_grad()
def put_on(scorer: Any, brought: Any, seed: int = 0) -> Any:
    """A scorer with an adapter whose weights are all but at their start."""
    torch.manual_seed(seed)
    base = copy_base(scorer.model)
    model = bring_head(base, *brought(base.config.clip_config)).eval()
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(0.1 * torch.randn_like(weight))
    return dataclasses.replace(scorer, model=model)


@torch.no_grad()
def quality(model: Any) -> torch.Tensor:
    size = model.config.clip_config.vision_config.image_size
    pixels = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(3))
    return model.eval()(pixel_values=pixels).quality  # type: ignore[no-any-return]


def check_without(model: PeftModel, base: torch.Tensor) -> None:
    moved = quality(model)
    assert (moved - base).abs().max() > 1e-4
    with model.disable_adapter():
        assert torch.equal(quality(model), base)
    with teacher_mode(model):
        assert torch.equal(quality(model), base)
    assert torch.equal(quality(model), moved)


def test_without_the_adapter_it_is_the_base(
    brought: Any, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    plain = grmp_hf.load(clip_folder)
    expected = quality(plain.model)
    scorer = put_on(plain, brought)
    check_without(scorer.model, expected)
    scorer.save(tmp_path / "mine")
    again = grmp_hf.load(adapter=tmp_path / "mine")
    np.testing.assert_array_equal(again.score(photos).quality, scorer.score(photos).quality)
    assert describe(again.model.get_base_model().head)["name"] == describe(scorer.model.get_base_model().head)["name"]
    check_without(again.model, expected)
    for model in (scorer.model, again.model):
        left = unload(model)
        assert describe(left.head)["name"] == "AnchorHead" and torch.equal(quality(left), expected)


def test_another_adapter_gets_a_head_of_its_own(brought: Any, clip_folder: Path, tmp_path: Path) -> None:
    plain = grmp_hf.load(clip_folder)
    said = {}
    for seed, name in enumerate(("first", "second")):
        scorer = put_on(plain, brought, seed)
        said[name] = quality(scorer.model)
        scorer.save(tmp_path / name)
    model = grmp_hf.load(adapter=tmp_path / "first").model
    model.load_adapter(str(tmp_path / "second"), "second")
    for name, active in (("second", "second"), ("first", "default")):
        model.set_adapter(active)
        assert torch.equal(quality(model), said[name])


def test_a_head_that_peft_alone_cannot_know_is_named(clip_folder: Path, tmp_path: Path) -> None:
    put_on(grmp_hf.load(clip_folder), BROUGHT["loda"]).save(tmp_path / "mine")
    with pytest.raises(GRMPError, match=r"brings the head 'Cosine', got one with 'AnchorHead'.*grmp_hf.load\(adapter="):
        PeftModel.from_pretrained(grmp_hf.load(clip_folder).model, str(tmp_path / "mine"))
