"""What a latent diffusion model sees in a picture: maps of its U-Net's up blocks, in one pass at one time step.

Letters in shapes: B pictures, S side of a picture, Z channels and G side of its latent, K sentences, D width of the
condition, C channels of a map.

Source: Fu et al., "DP-IQA: Utilizing diffusion prior for blind image quality assessment in the wild" (arXiv
2405.19996), and its released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from grmp_hf.diffusion.libraries import diffusers
from grmp_hf.errors import GRMPError

__all__ = ["GAMMA", "TIME_STEP", "DiffusionPrior", "MapProvider", "TextAdapter"]

TIME_STEP = 1
GAMMA = 1e-4


class MapProvider(Protocol):
    """From pictures to maps: whatever a :class:`~grmp_hf.diffusion.decoder.MultiScaleDecoder` can be put on."""

    @property
    def channels(self) -> tuple[int, ...]:
        """C of each map."""

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """Pictures ``(B, 3, S, S)`` to maps ``(B, C, ., .)``."""


class TextAdapter(nn.Module):
    """A condition, changed a little: ``e + gamma * W2 gelu(W1 e)``; with gamma 0 it is the condition, bit for bit.

    Args:
        width: D.
        gamma: of every channel at the beginning; it is learnt.
    """

    def __init__(self, width: int, gamma: float = GAMMA) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), gamma))
        self.change = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, condition: Tensor) -> Tensor:
        """``(K, D)`` to ``(K, D)``."""
        found: Tensor = condition + self.gamma * self.change(condition)
        return found


class DiffusionPrior(nn.Module):
    """A frozen VAE and a U-Net, whose up blocks are listened to by hooks; the U-Net's own forward stays what it is.

    The condition is a bank of sentences, each an embedding in the place of a token. The latent is drawn from what the
    VAE says while training, as the authors do it; in evaluation it is the mean, so that a picture has one score.

    Args:
        vae: an ``AutoencoderKL`` of diffusers'; no gradient reaches it, and it is never trained.
        unet: a ``UNet2DConditionModel``.
        bank: ``(K, D)``, embeddings of sentences; see :func:`~grmp_hf.diffusion.sentences.sentence_bank`.
        gamma: see :class:`TextAdapter`.
        time_step: of the one pass.
        sampled: draw the latent while training; False for the mean always.
        image_adapter: have a ``T2IAdapter`` whose residuals of the picture are added in the down blocks, begun at
            random as the authors have it.

    Raises:
        GRMPError: sizes of bank, VAE and U-Net that do not belong together.
    """

    bank: Tensor

    def __init__(
        self,
        vae: Any,
        unet: Any,
        bank: Tensor,
        *,
        gamma: float = GAMMA,
        time_step: int = TIME_STEP,
        sampled: bool = True,
        image_adapter: bool = True,
    ) -> None:
        super().__init__()
        _check(vae, unet, bank)
        self.vae, self.unet = vae.requires_grad_(False).eval(), unet
        self.register_buffer("bank", bank.detach().float())
        self.text_adapter = TextAdapter(bank.shape[1], gamma)
        self.image_adapter = _image_adapter(vae, unet) if image_adapter else None
        self.time_step, self.sampled, self.gamma = time_step, sampled, gamma

    @property
    def channels(self) -> tuple[int, ...]:
        """C of the map of each up block, in their order."""
        return tuple(reversed(self.unet.config.block_out_channels))

    @property
    def reduction(self) -> int:
        """How many pixels wide and high what one place of the latent stands for is."""
        return _reduction(self.vae)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pictures ``(B, 3, S, S)`` to maps ``(B, C, ., .)`` of the up blocks, in their order.

        Raises:
            GRMPError: a side that is no multiple of what the VAE reduces it by.
        """
        if pixels.ndim != 4 or pixels.shape[2] % self.reduction or pixels.shape[3] % self.reduction:
            raise GRMPError(
                f"Expected pictures of shape (batch, 3, height, width) with sides that are multiples of "
                f"{self.reduction}, got {tuple(pixels.shape)}. Take views of such a size."
            )
        condition = self.text_adapter(self.bank.to(pixels)).expand(len(pixels), -1, -1)
        more: dict[str, Any] = {}
        if self.image_adapter is not None:
            more["down_intrablock_additional_residuals"] = list(self.image_adapter(pixels))
        with self._listening() as maps:
            self.unet(self.latent(pixels), self.time_step, encoder_hidden_states=condition, **more)
        return maps

    def latent(self, pixels: Tensor) -> Tensor:
        """``(B, Z, G, G)``, scaled as the U-Net knows it."""
        with torch.no_grad():
            said = self.vae.encode(pixels).latent_dist
            drawn = said.sample() if self.training and self.sampled else said.mode()
        found: Tensor = drawn * self.vae.config.scaling_factor
        return found

    @contextmanager
    def _listening(self) -> Iterator[list[Tensor]]:
        """Within this context the maps of the up blocks are noted as the U-Net makes them."""
        maps: list[Tensor] = []

        def note(module: nn.Module, given: Any, made: Tensor) -> None:
            maps.append(made)

        hooks = [block.register_forward_hook(note) for block in self.unet.up_blocks]
        try:
            yield maps
        finally:
            for hook in hooks:
                hook.remove()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; the VAE stays in evaluation."""
        super().train(mode)
        self.vae.eval()
        return self

    def settings(self) -> dict[str, Any]:
        """What is made anew beside VAE and U-Net."""
        return {
            "gamma": self.gamma,
            "time_step": self.time_step,
            "sampled": self.sampled,
            "image_adapter": self.image_adapter is not None,
        }


def _reduction(vae: Any) -> int:
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _check(vae: Any, unet: Any, bank: Tensor) -> None:
    width = unet.config.cross_attention_dim
    if bank.ndim != 2 or bank.shape[1] != width:
        raise GRMPError(
            f"Expected a bank of sentences of shape (sentences, {width}), the width of the U-Net's condition, got "
            f"{tuple(bank.shape)}. Make it with the text encoder that belongs to the U-Net."
        )
    if vae.config.latent_channels != unet.config.in_channels:
        raise GRMPError(
            "Expected a VAE and a U-Net with equally many channels of the latent, got "
            f"{vae.config.latent_channels} and {unet.config.in_channels}. Load both from the folder of one model."
        )


def _image_adapter(vae: Any, unet: Any) -> nn.Module:
    made: nn.Module = diffusers().T2IAdapter(
        in_channels=3,
        channels=list(unet.config.block_out_channels),
        num_res_blocks=2,
        downscale_factor=_reduction(vae),
        adapter_type="full_adapter",
    )
    return made
