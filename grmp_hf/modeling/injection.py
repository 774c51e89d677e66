"""Local features of a frozen network, injected into a vision tower before each of its blocks (LoDa): plain modules.

Letters in shapes: B pictures, C channels of a stage, K stages, G side of the grid, T = K G^2 local tokens, Z latent
width, N tokens and W width of the vision tower.

Source: Xu et al., "Boosting Image Quality Assessment through Efficient Transformer Adaptation with Local Feature
Enhancement" (arXiv 2308.12001), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.modeling_outputs import BaseModelOutput

from grmp_hf.errors import GRMPError

__all__ = ["Extractor", "Injection", "LocalFeatures", "Statistics", "run_injected_encoder"]

SCALE_STD = 0.02  # of the authors' start


class Extractor(nn.Module):
    """From the maps of a network's stages to local tokens, alike for each stage::

        tokens_k = pool_GxG(conv3x3(gelu(conv1x1(map_k))))

    Args:
        channels: C of each of the K maps.
        latent: Z.
        grid: G; a map is averaged to G x G whatever its size.
    """

    def __init__(self, channels: Sequence[int], latent: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, latent, 1), nn.GELU(), nn.Conv2d(latent, latent, 3, padding=1, bias=False))
            for width in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """K maps ``(B, C, ., .)`` to tokens ``(B, T, Z)``, stage by stage."""
        weight = next(self.parameters())
        found = [stage(states.to(weight)) for stage, states in zip(self.stages, maps, strict=True)]
        pooled = [F.adaptive_avg_pool2d(states, self.grid).flatten(2) for states in found]
        return torch.cat(pooled, dim=2).transpose(1, 2)


class _CrossAttention(nn.Module):
    """What the tower's tokens take from the local ones."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor, local: Tensor) -> Tensor:
        keys, values = self.kv(local).chunk(2, dim=-1)
        queries, keys, values = map(self._split, (self.q(states), keys, values))
        found = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)


class Injection(nn.Module):
    """What is added to the states before one block::

        D = W2 gelu(W1 X),   D = D + attention(query D, keys and values of the local tokens)
        X = X + s * up(D)

    Where s is 0, nothing changes, bit for bit.

    Args:
        width: W.
        latent: Z.
        heads: of the attention, a divisor of Z.
        up: ``"mlp"``: ``V2 gelu(V1 D)``, through W hidden units as the authors have it; or ``"linear"``: ``V D``.
        start: of s: ``"zero"``, or ``"random"``: a truncated normal of deviation .02, as the authors have it.
    """

    def __init__(self, width: int, latent: int, heads: int, *, up: str = "mlp", start: str = "zero") -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Linear(width, latent), nn.GELU(), nn.Linear(latent, latent))
        self.attention = _CrossAttention(latent, heads)
        last = [nn.GELU(), nn.Linear(width, width)] if up == "mlp" else []
        self.up = nn.Sequential(nn.Linear(latent, width), *last)
        self.scale = nn.Parameter(torch.zeros(width))
        if start == "random":
            nn.init.trunc_normal_(self.scale, std=SCALE_STD)

    def forward(self, states: Tensor, local: Tensor) -> Tensor:
        """States ``(B, N, W)`` and local tokens ``(B, T, Z)`` to states."""
        found: Tensor = self.down(states.to(self.scale.dtype))
        found = found + self.attention(found, local)
        added: Tensor = self.scale * self.up(found)
        return states + added.to(states.dtype)


class Statistics(nn.Module):
    """Running means and variances of the batch normalisations of a network, as an adapter's own.

    Args:
        network: whose statistics they begin with.

    Raises:
        GRMPError: it has no batch normalisation.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for norm, key, value in _running(network):
            self.register_buffer(_flat(norm, key), value.clone())
        if not any(True for _ in self.buffers()):
            raise GRMPError(
                "Expected a side network with batch normalisation for batch_statistics=True, got one without. Leave it "
                "out."
            )

    @contextmanager
    def lent(self, network: nn.Module) -> Iterator[None]:
        """Within this context the network has these statistics; in training it uses, and adds, those of the batch."""
        modules = dict(network.named_modules())
        own = [(name, key, value) for name, key, value in _running(network)]
        try:
            for name, key, _ in own:
                setattr(modules[name], key, getattr(self, _flat(name, key)))
                modules[name].training = self.training
            yield
        finally:
            for name, key, value in own:
                setattr(modules[name], key, value)
                modules[name].training = False


def _running(network: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Name of each batch normalisation, and of each of its statistics, with the value."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            for key, value in module.named_buffers():
                yield name, key, value


def _flat(module: str, key: str) -> str:
    return f"{module}.{key}".replace(".", "-")


class LocalFeatures(nn.Module):
    """All that one adapter learns: an extractor, and an injection for each block of the tower.

    Args:
        channels: C of each map of the network.
        width: W.
        blocks: of the tower.
        latent: Z.
        heads, up, start: see :class:`Injection`.
        grid: G.
        statistics: of the network's batch normalisations; None where they stay what they are.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        blocks: int,
        *,
        latent: int = 64,
        heads: int = 4,
        grid: int = 7,
        up: str = "mlp",
        start: str = "zero",
        statistics: Statistics | None = None,
    ) -> None:
        super().__init__()
        self.extractor = Extractor(channels, latent, grid)
        self.blocks = nn.ModuleList(Injection(width, latent, heads, up=up, start=start) for _ in range(blocks))
        self.statistics = statistics


def run_injected_encoder(
    encoder: Any, inputs_embeds: Tensor, local: Tensor, blocks: Sequence[nn.Module], **kwargs: Any
) -> BaseModelOutput:
    """Run a vision encoder with an injection before each of its layers.

    Args:
        encoder: of a CLIP.
        inputs_embeds: ``(B, N, W)``.
        local: ``(B, T, Z)``.
        blocks: an :class:`Injection` for each layer.

    Returns:
        ``last_hidden_state`` ``(B, N, W)``.
    """
    states = inputs_embeds
    for block, layer in zip(blocks, encoder.layers, strict=True):
        states = layer(block(states, local), None, **kwargs)
    return BaseModelOutput(last_hidden_state=states)
