from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from grmp_hf.diffusion.decoder import MultiScaleDecoder
from grmp_hf.diffusion.libraries import diffusers
from grmp_hf.diffusion.prior import DiffusionPrior
from grmp_hf.errors import GRMPError

PIXELS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("channels", [(32,), (32, 64), (32, 32, 64), (32, 32, 64, 64)], ids=str)
def test_maps_of_any_list_of_blocks(channels: tuple[int, ...], make_prior: Callable[..., DiffusionPrior]) -> None:
    prior = make_prior(*channels)
    maps = prior(PIXELS)
    assert prior.channels == tuple(reversed(channels)) == tuple(states.shape[1] for states in maps)
    sides = [min(8 >> max(len(channels) - 2 - at, 0), 8) for at in range(len(channels))]
    assert [tuple(states.shape[2:]) for states in maps] == [(side, side) for side in sides]
    assert not any(block._forward_hooks for block in prior.unet.up_blocks), "nobody listens afterwards"


@torch.no_grad()
def test_the_hooks_hear_what_the_next_block_is_given(make_prior: Callable[..., DiffusionPrior]) -> None:
    """The last map, through the U-Net's own end, is what the U-Net says."""
    prior = make_prior(image_adapter=False)
    unet = prior.unet
    condition = prior.text_adapter(prior.bank).expand(2, -1, -1)
    expected = unet(prior.latent(PIXELS), 1, encoder_hidden_states=condition).sample
    found = unet.conv_out(unet.conv_act(unet.conv_norm_out(prior(PIXELS)[-1])))
    assert torch.equal(found, expected)


def test_gamma_0_leaves_the_condition_as_it_is(make_prior: Callable[..., DiffusionPrior]) -> None:
    plain, changed = make_prior(gamma=0.0), make_prior(gamma=0.5)
    assert torch.equal(plain.text_adapter(plain.bank), plain.bank)
    with torch.no_grad():
        for weight in plain.text_adapter.change.parameters():
            weight.add_(1.0)
    maps = make_prior(gamma=0.0)(PIXELS)
    assert all(torch.equal(left, right) for left, right in zip(plain(PIXELS), maps, strict=True))
    assert not torch.equal(changed(PIXELS)[0], maps[0]), "the condition is heard"


def test_no_gradient_reaches_the_vae(make_prior: Callable[..., DiffusionPrior]) -> None:
    prior = make_prior().train()
    assert not prior.vae.training and prior.unet.training
    sum(states.square().sum() for states in prior(PIXELS)).backward()  # type: ignore[union-attr]
    for name, weight in prior.named_parameters():
        if name.startswith("vae."):
            assert weight.grad is None and not weight.requires_grad, name
    for part in ("unet.conv_in", "text_adapter.change", "text_adapter.gamma", "image_adapter"):
        gradients = [w.grad for name, w in prior.named_parameters() if name.startswith(part)]
        assert gradients and any(g is not None and bool(g.any()) for g in gradients), part


@torch.no_grad()
def test_the_latent_is_drawn_while_training_and_the_mean_otherwise(make_prior: Callable[..., DiffusionPrior]) -> None:
    prior, still = make_prior(), make_prior(sampled=False)
    assert torch.equal(prior.latent(PIXELS), prior.latent(PIXELS))
    said = prior.vae.encode(PIXELS).latent_dist
    torch.testing.assert_close(prior.latent(PIXELS), said.mean * 0.18215)
    torch.manual_seed(1)
    drawn, other = prior.train().latent(PIXELS), prior.latent(PIXELS)
    assert drawn.shape == (2, 4, 8, 8) and not torch.equal(drawn, other)
    assert torch.equal(still.train().latent(PIXELS), prior.eval().latent(PIXELS))


@torch.no_grad()
def test_an_image_adapter_and_the_time_step_are_heard(make_prior: Callable[..., DiffusionPrior]) -> None:
    plain, other = make_prior(image_adapter=False), make_prior(image_adapter=False, time_step=500)
    assert plain.image_adapter is None and not torch.equal(plain(PIXELS)[0], other(PIXELS)[0])
    with_image = make_prior()
    assert not torch.equal(with_image(PIXELS)[0], plain(PIXELS)[0])


def test_what_does_not_fit_is_refused(make_prior: Callable[..., DiffusionPrior], make_parts: Any) -> None:
    vae, unet = make_parts()
    with pytest.raises(GRMPError, match=r"bank of sentences of shape \(sentences, 32\).*got \(5, 16\)"):
        DiffusionPrior(vae, unet, torch.zeros(5, 16))
    unet.register_to_config(in_channels=9)
    with pytest.raises(GRMPError, match="equally many channels of the latent, got 4 and 9"):
        DiffusionPrior(vae, unet, torch.zeros(5, 32))
    with pytest.raises(GRMPError, match=r"multiples of 8, got \(2, 3, 60, 64\)"):
        make_prior()(PIXELS[:, :, :60])


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(GRMPError, match=r"pip install 'grmp_hf\[diffusion\]'"):
        diffusers()


@torch.no_grad()
def test_the_sizes_of_stable_diffusion_fit_together() -> None:
    """1.5, without numbers: 860 M of the U-Net, 84 M of the VAE, and the authors' decoder on its maps at 512 pixels."""
    library = pytest.importorskip("diffusers", reason="the extra diffusion is not installed")
    with torch.device("meta"):
        unet = library.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        vae = library.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **blocks)
        prior = DiffusionPrior(vae, unet, torch.zeros(495, 768)).eval()
        maps = prior(torch.zeros(2, 3, 512, 512))
        score, drawn = MultiScaleDecoder()(maps)
    millions = [sum(weight.numel() for weight in part.parameters()) / 1e6 for part in (unet, vae)]
    assert [round(count) for count in millions] == [860, 84]
    assert [tuple(states.shape[1:]) for states in maps] == [
        (1280, 16, 16),
        (1280, 32, 32),
        (640, 64, 64),
        (320, 64, 64),
    ]
    assert score.shape == (2,) and drawn.shape == (2, 8, 64, 64)
