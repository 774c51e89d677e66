from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.patches import PatchEmbedding, exact_patches


@pytest.mark.parametrize(("size", "bias"), [((12, 20), False), ((13, 22), True)])
def test_the_product_is_the_convolution(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    patches = PatchEmbedding(3, 8, 4, 4, bias=bias).double()
    pixels = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected, found = patches(pixels), patches.as_product(pixels)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)
    direction = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * direction).sum(), [pixels, patches.weight]) for y in (expected, found)]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


def test_scorers_have_it_and_their_weights_keep_their_names(make_scorer: Callable[..., Any]) -> None:
    model = make_scorer()
    name = "vision_model.embeddings.patch_embedding"
    for scorer, where in ((model, f"clip.{name}"), (bake(model), name)):
        for again in (scorer, copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
            assert isinstance(again.get_submodule(where), PatchEmbedding)
            assert f"{where}.weight" in again.state_dict()


def test_another_layer_in_its_place_is_left_alone() -> None:
    tower = nn.ModuleDict({"embeddings": nn.ModuleDict({"patch_embedding": nn.Linear(2, 2)})})
    exact_patches(tower)
    assert type(tower["embeddings"]["patch_embedding"]) is nn.Linear  # type: ignore[index]


def test_scoring_touches_no_switch_of_the_process(adapter_folder: Any, photos: list[Any]) -> None:
    import grmp_hf

    def switches() -> list[Any]:
        cudnn = torch.backends.cudnn
        return [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.is_grad_enabled()]

    scorer, before = grmp_hf.load(adapter=adapter_folder), switches()
    seen: list[Any] = []
    hook = scorer.model.register_forward_hook(lambda *_: seen.append(switches()[:4]))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: scorer.score(photos).quality.tolist(), range(2))
    hook.remove()
    assert first == second and switches() == before
    assert seen and all(found == before[:4] for found in seen)
