from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.nn import functional as F

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.heads import Features, Text
from grmp_hf.modeling.known_heads import describe, rebuild
from grmp_hf.modeling.map_head import MapHead


def texts() -> Text:
    raise AssertionError("no text tower should be asked")


def seen(views: int = 2, patches: int = 9, width: int = 6) -> Features:
    tokens = torch.randn(3, views, 1 + patches, width, generator=torch.Generator().manual_seed(1))
    return Features(torch.zeros(3, views, 4), torch.linspace(1, 2, views) / torch.linspace(1, 2, views).sum(), tokens)


@torch.no_grad()
def test_the_map_lies_as_the_patches_do() -> None:
    torch.manual_seed(0)
    head, features = MapHead(6, 3, channels=2, hidden=5), seen()
    found = head(features, texts)
    assert found.quality_map.shape == (3, 2, 2, 3, 3)
    laid = features.tokens[1, 1, 1:].view(3, 3, 6).permute(2, 0, 1)  # type: ignore[index]
    drawn = F.softplus(F.conv2d(laid[None], head.draw[0].weight, head.draw[0].bias, padding=1))[0]
    torch.testing.assert_close(found.quality_map[1, 1], drawn)
    each = head.read(found.quality_map.flatten(2))[..., 0].sigmoid()
    torch.testing.assert_close(found.quality, (each * features.weights).sum(1))


@pytest.mark.parametrize(("width", "grid", "channels", "hidden"), [(6, 3, 2, 5), (192, 14, 8, 64)])
def test_its_size_is_the_formula(width: int, grid: int, channels: int, hidden: int) -> None:
    with torch.device("meta"):
        head = MapHead(width, grid, channels, hidden)
    expected = 9 * width * channels + channels + (channels * grid**2 + 2) * hidden + 1
    assert sum(weight.numel() for weight in head.parameters()) == expected


def test_it_is_saved_with_an_adapter(clip_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    base = grmp_hf.load(clip_folder)
    model = copy_base(base.model)
    torch.manual_seed(0)
    model.head = MapHead(16, 4, channels=3, hidden=7)
    adapted = get_peft_model(
        model, grmp_hf.GRMPPromptConfig(text_prompts=0, visual_prompts=2, modules_to_save=["head"])
    )
    scorer = dataclasses.replace(base, model=adapted.eval())
    scorer.save(tmp_path / "mine")
    loaded = grmp_hf.load(tmp_path / "mine")
    assert (loaded.score(photos).quality == scorer.score(photos).quality).all()
    described = describe(loaded.model.get_base_model().head)
    assert described == {"name": "MapHead", "settings": {"width": 16, "grid": 4, "channels": 3, "hidden": 7}}
    assert describe(rebuild(described)) == described


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MapHead(0, 3), "Expected sizes of at least 1, got 0, 3, 8 and 64"),
        (
            lambda: MapHead(6, 4)(seen(), texts),
            "Expected 16 patches of width 6, got 9 of 6. Make the head with .*grid=3",
        ),
        (lambda: MapHead(5, 3)(seen(), texts), "Expected 9 patches of width 5, got 9 of 6"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        make()
