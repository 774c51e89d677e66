from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from grmp_hf.diffusion.decoder import MultiScaleDecoder, SqueezeExcitation
from grmp_hf.diffusion.prior import GAMMA, TextAdapter
from grmp_hf.errors import GRMPError


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_authors_sizes() -> None:
    """42.9 M of the decoder: convolutions, five gates without biases, and what is read from 8 x 64 x 64 places."""
    with torch.device("meta"):
        decoder, adapter = MultiScaleDecoder(), TextAdapter(768)
    scales = sum(9 * 512 * width + 512 for width in (1280, 1280, 640, 320))
    fuse, gates = 9 * 2048 * 512 + 512, 5 * 2 * 512 * 32
    narrow = 512 * 128 + 128 + 128 * 32 + 32 + 32 * 8 + 8
    score = 8 * 64 * 64 * 512 + 512 + 512 * 512 + 512 + 512 + 1
    assert count(decoder) == scales + fuse + gates + narrow + score == 42_934_697
    assert round(count(decoder) / 1e6, 1) == 42.9
    assert count(adapter) == 2 * (768 * 768 + 768) + 768 and round(count(adapter.change) / 1e6, 2) == 1.18


def test_a_gate_weighs_channels_by_their_means() -> None:
    torch.manual_seed(0)
    gate, maps = SqueezeExcitation(32), torch.randn(2, 32, 5, 4)
    first, second = gate.weigh[0].weight, gate.weigh[2].weight
    weights = torch.sigmoid(F.relu(maps.mean((2, 3)) @ first.T) @ second.T)
    torch.testing.assert_close(gate(maps), maps * weights[:, :, None, None])
    assert first.shape == (2, 32)


@pytest.mark.parametrize("channels", [(6,), (6, 4), (8, 8, 4, 2)])
def test_any_list_of_maps_is_decoded(channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    decoder = MultiScaleDecoder(channels, grid=8, fused=16, narrowed=(8, 3), hidden=5)
    maps = [torch.randn(2, width, 2 ** (at + 1), 2 ** (at + 1)) for at, width in enumerate(channels)]
    score, drawn = decoder(maps)
    assert score.shape == (2,) and drawn.shape == (2, 3, 8, 8) and (drawn >= 0).all()
    torch.testing.assert_close(score, decoder.score(drawn.flatten(1))[:, 0])
    alone, _ = decoder([states[:1] for states in maps])
    torch.testing.assert_close(alone, score[:1])
    with pytest.raises(GRMPError, match=f"Expected {len(channels)} maps, got {len(channels) + 1}"):
        decoder([*maps, maps[0]])


def test_the_decoder_is_its_formula() -> None:
    torch.manual_seed(0)
    decoder = MultiScaleDecoder((6, 4), grid=8, fused=16, narrowed=(8, 3), hidden=5)
    maps = [torch.randn(2, 6, 4, 4), torch.randn(2, 4, 8, 8)]

    def weighed(part: Any, states: torch.Tensor) -> torch.Tensor:
        states = F.conv2d(states, part[0].weight, part[0].bias, padding=1)
        first, second = part[1].weigh[0].weight, part[1].weigh[2].weight
        return states * torch.sigmoid(F.relu(states.mean((2, 3)) @ first.T) @ second.T)[:, :, None, None]

    grown = F.interpolate(maps[0], size=(8, 8), mode="bicubic", align_corners=False)
    fused = torch.cat([weighed(decoder.scales[0], grown), weighed(decoder.scales[1], maps[1])], dim=1)
    drawn = weighed(decoder.fuse, fused)
    for at in (0, 2):
        drawn = F.relu(
            torch.einsum("oi,bihw->bohw", decoder.narrow[at].weight[:, :, 0, 0], drawn)
            + decoder.narrow[at].bias[:, None, None]
        )
    read = drawn.flatten(1)
    for at in (0, 2, 4):
        read = read @ decoder.score[at].weight.T + decoder.score[at].bias
        read = F.relu(read) if at < 4 else read
    score, found = decoder(maps)
    torch.testing.assert_close(found, drawn)
    torch.testing.assert_close(score, read[:, 0])


@pytest.mark.parametrize("wrong", [{"channels": ()}, {"narrowed": ()}, {"grid": 0}, {"channels": (4, 0)}], ids=str)
def test_sizes_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(GRMPError, match="Expected at least one map and one narrowing"):
        MultiScaleDecoder(**wrong)


def test_a_text_adapter_begins_near_the_condition() -> None:
    torch.manual_seed(0)
    adapter, condition = TextAdapter(16).double(), torch.randn(7, 16, dtype=torch.float64)
    change = adapter(condition) - condition
    assert 0 < change.abs().max() < 10 * GAMMA
    torch.testing.assert_close(change, adapter.gamma * adapter.change(condition))
    with torch.no_grad():
        adapter.gamma.zero_()
    assert torch.equal(adapter(condition), condition)
