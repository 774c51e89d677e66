"""A diffusion model of a few channels with random weights, at 64 pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from grmp_hf.diffusion.prior import DiffusionPrior
    from grmp_hf.diffusion.scorer import DiffusionScorer

WIDTH = 32


@pytest.fixture(scope="session")
def make_parts() -> Callable[..., tuple[Any, Any]]:
    """`make_parts(*channels)`: a VAE that reduces eightfold and a U-Net with a block for each number of channels."""
    diffusers = pytest.importorskip("diffusers", reason="the extra diffusion is not installed")
    import torch

    def make(*channels: int, seed: int = 0) -> tuple[Any, Any]:
        torch.manual_seed(seed)
        widths, blocks = channels or (32, 64), len(channels or (32, 64)) - 1
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=widths,
            layers_per_block=1,
            down_block_types=(*["CrossAttnDownBlock2D"] * blocks, "DownBlock2D"),
            up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * blocks),
            cross_attention_dim=WIDTH,
            attention_head_dim=8,
            norm_num_groups=8,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            sample_size=64,
        )
        return vae, unet

    return make


@pytest.fixture
def make_prior(make_parts: Callable[..., tuple[Any, Any]]) -> Callable[..., DiffusionPrior]:
    """`make_prior(*channels, **settings)`: with a random bank of five sentences."""
    import torch

    from grmp_hf.diffusion.prior import DiffusionPrior

    def make(*channels: int, seed: int = 0, **settings: Any) -> DiffusionPrior:
        vae, unet = make_parts(*channels, seed=seed)
        bank = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
        return DiffusionPrior(vae, unet, bank, **settings).eval()

    return make


@pytest.fixture
def make_diffusion(make_prior: Callable[..., DiffusionPrior]) -> Callable[..., DiffusionScorer]:
    """`make_diffusion(**settings)`: a scorer with a small decoder."""
    from grmp_hf.diffusion.decoder import MultiScaleDecoder
    from grmp_hf.diffusion.scorer import DiffusionScorer

    def make(**settings: Any) -> DiffusionScorer:
        prior = make_prior(**settings)
        decoder = MultiScaleDecoder(prior.channels, grid=8, fused=16, narrowed=(8, 4), hidden=16)
        return DiffusionScorer(prior, decoder).eval()

    return make


@pytest.fixture(scope="session")
def diffusion_folder(make_parts: Callable[..., tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of Stable Diffusion: VAE, U-Net, text encoder and tokenizer."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from grmp_hf.embedded import embedded_folder

    folder = tmp_path_factory.mktemp("diffusion")
    vae, unet = make_parts()
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    tokenizer = CLIPTokenizer.from_pretrained(embedded_folder())
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(3)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=len(tokenizer), **ids)).save_pretrained(folder / "text_encoder")
    return folder
