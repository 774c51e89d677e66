"""Injected local features: the authors' numbers, sizes, and what a scale of zero means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import plcc_loss, unit_length
from grmp_hf.modeling.heads import Features
from grmp_hf.modeling.injection import Extractor, Injection, LocalFeatures, Statistics
from grmp_hf.modeling.injection_conversion import from_loda_state_dict, to_loda_state_dict
from grmp_hf.modeling.linear_heads import Cosine

CHANNELS = [8, 12, 16, 24]


@pytest.fixture(scope="module")
def theirs(golden_folder: Path) -> dict[str, Tensor]:
    found = load_file(golden_folder / "neighbours.safetensors")
    return {name.removeprefix("loda."): value for name, value in found.items() if name.startswith("loda.")}


def part(theirs: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{kind}."): value for name, value in theirs.items() if name.startswith(f"{kind}.")}


class Learner(nn.Module):
    """Injections one after the other, without blocks between them, and the head on the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.features = LocalFeatures(CHANNELS, 48, 3, latent=16, heads=4, grid=3)
        self.head = Cosine(48, token=True)

    def load(self, state: dict[str, Tensor]) -> Learner:
        direction = state.pop("head.direction")
        self.features.load_state_dict(state)
        self.head.load_state_dict({"direction": direction})
        return self

    def forward(self, maps: list[Tensor], hidden: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        local, after = self.features.extractor(maps), [hidden]
        for block in self.features.blocks:
            after.append(block(after[-1], local))
        tokens = after[-1][:, None]
        seen = Features(unit_length(tokens[:, :, 0]), torch.ones(1), tokens=tokens)
        return local, after[1:], self.head(seen, None).mean  # type: ignore[arg-type, return-value]


def test_the_authors_numbers_and_gradients(theirs: dict[str, Tensor]) -> None:
    learner = Learner().load(from_loda_state_dict(part(theirs, "state")))
    hidden = theirs["in.hidden"].clone().requires_grad_()
    tokens, after, score = learner([theirs[f"in.map{at}"] for at in range(4)], hidden)
    torch.testing.assert_close(tokens, theirs["out.tokens"], atol=1e-5, rtol=0)
    for at, states in enumerate(after):
        torch.testing.assert_close(states, theirs[f"out.after{at}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(score, theirs["out.score"], atol=1e-5, rtol=0)
    loss = plcc_loss(score, theirs["in.labels"])
    torch.testing.assert_close(loss, theirs["out.plcc_loss"], atol=1e-6, rtol=0)
    loss.backward()
    grads = {name.replace("features.", "", 1): p.grad for name, p in learner.named_parameters()}
    expected = part(theirs, "grad")
    expected.pop("hidden")
    found = to_loda_state_dict(grads)
    assert found.keys() == expected.keys()
    for name, value in {**expected, "hidden": theirs["grad.hidden"]}.items():
        mine = hidden.grad if name == "hidden" else found[name]
        assert mine is not None and (mine - value).norm() <= 1e-4 * value.norm(), name


def test_names_go_there_and_back(theirs: dict[str, Tensor]) -> None:
    state = part(theirs, "state")
    again = to_loda_state_dict(from_loda_state_dict({f"module.{name}": value for name, value in state.items()}))
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)
    other = {
        **{name: value for name, value in state.items() if name != "head.weight"},
        "vit.norm.weight": torch.ones(1),
    }
    with pytest.raises(GRMPError, match=r"missing: \['head.weight'\], unknown: \['vit.norm.weight'\]"):
        from_loda_state_dict(other)
    with pytest.raises(GRMPError, match="no head"):
        to_loda_state_dict(LocalFeatures(CHANNELS, 48, 3, latent=16).state_dict())
    with pytest.raises(GRMPError, match=r"other\.weight"):
        to_loda_state_dict({**from_loda_state_dict(part(theirs, "state")), "other.weight": torch.zeros(1)})


@pytest.mark.parametrize(("up", "weights"), [("mlp", 8_927_488), ("linear", 1_840_384)])
def test_the_papers_size_with_vit_b16_and_resnet_50(up: str, weights: int) -> None:
    """On the meta device: 768 of them are the head's."""
    with torch.device("meta"):
        channels = ResNetConfig(depths=[3, 4, 6, 3]).hidden_sizes
        learner = [LocalFeatures(channels, 768, 12, up=up), Cosine(768, token=True)]
    assert channels == [256, 512, 1024, 2048]
    assert sum(weight.numel() for module in learner for weight in module.parameters()) == weights


@pytest.mark.parametrize("up", ["mlp", "linear"])
@pytest.mark.parametrize("sizes", [([5], 12, 2, 8, 2), ([3, 7, 2], 10, 4, 6, 3)])
def test_the_number_of_weights_is_a_formula(up: str, sizes: tuple[list[int], int, int, int, int]) -> None:
    channels, d, blocks, z, heads = sizes
    features = LocalFeatures(channels, d, blocks, latent=z, heads=heads, up=up)
    extractor = sum(channels) * z + len(channels) * (z + 9 * z * z)
    last = z * d + d + (d * d + d if up == "mlp" else 0)
    block = (d * z + z + z * z + z) + (4 * z * z + z) + last + d
    assert sum(weight.numel() for weight in features.parameters()) == extractor + blocks * block


@torch.no_grad()
@pytest.mark.parametrize("up", ["mlp", "linear"])
@pytest.mark.parametrize(("grid", "sides"), [(1, (9, 5)), (3, (3, 1)), (7, (14, 2))])
def test_any_grid_and_maps_of_any_size_and_width(up: str, grid: int, sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, width, side, side + 1) for width, side in zip((5, 3), sides, strict=True)]
    local = Extractor([5, 3], 8, grid)(maps)
    assert local.shape == (2, 2 * grid * grid, 8)
    block, states = Injection(12, 8, 2, up=up), torch.randn(2, 17, 12)
    assert torch.equal(block(states, local), states), "a scale of zero changes nothing"
    block.scale.fill_(1)
    assert not torch.equal(block(states, local), states)
    random = Injection(12, 8, 2, start="random").scale
    assert 0 < random.abs().max() < 0.08 and torch.equal(Injection(12, 8, 2).scale, torch.zeros(12))


@torch.no_grad()
def test_statistics_are_lent_and_given_back() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1]}
    network = ResNetModel(ResNetConfig(**options)).eval()
    pixels, statistics = torch.randn(4, 3, 32, 32), Statistics(network)
    before, expected = {name: v.clone() for name, v in network.named_buffers()}, network(pixels).pooler_output
    statistics.train()
    with statistics.lent(network):
        by_batch = network(pixels).pooler_output
    assert not torch.allclose(by_batch, expected)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert torch.equal(network(pixels).pooler_output, expected)
    assert all(int(value) == 1 for name, value in statistics.named_buffers() if name.endswith("tracked"))
    statistics.eval()
    with statistics.lent(network):
        moved = network(pixels).pooler_output
    assert not torch.allclose(moved, expected) and not torch.allclose(moved, by_batch)
    with pytest.raises(GRMPError, match="got one without"):
        Statistics(nn.Linear(2, 2))
