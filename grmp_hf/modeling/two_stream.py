"""A head of two streams over the tokens of a frozen vision tower: what each patch scores, and how much it counts.

Letters in shapes: B pictures, V views, N patches of a view, W width of the tower, L latent width, K categories.

It is after LPF ("A Lightweight Parallel Framework for Blind Image Quality Assessment", arXiv 2402.12043), whose code is
not public and whose details are our reading: no reproduction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.heads import Features, GRMPOutput, Head, Text

__all__ = ["WEIGHTS", "TwoStreamHead", "TwoStreamOutput", "weighted_mean"]

WEIGHTS = ("softplus", "sigmoid")
"""What makes a weight above 0 of what the weight stream says."""

_TINY = -15.0  # below it softplus(x) is exp(x) to the last digit of float32, and its logarithm x


@dataclass
class TwoStreamOutput(GRMPOutput):
    """What a head of two streams says.

    Attributes:
        patch_quality: ``(B, V, N)`` in [0, 1], what each patch scores.
        patch_weights: ``(B, V, N)``, how much it counts, beside the one that counts most in its view, in [0, 1].
        category_logits: ``(B, K)``, in training with that auxiliary head.
        better_logits: ``(B, B)``, in training with that auxiliary head: the logit of "the picture of the row is better
            than that of the column".
    """

    patch_quality: Tensor | None = None
    patch_weights: Tensor | None = None
    category_logits: Tensor | None = None
    better_logits: Tensor | None = None


class TwoStreamHead(Head):
    """Quality as a mean over patches that is weighted by the head itself::

        h_n = dropout(norm(relu(A z_n + a)))                      of token z_n; the class token is left out
        s_n = sigmoid(b h_n + b0),   w_n = softplus(c h_n + c0)   or sigmoid
        quality = sum_n w_n s_n / sum_n w_n                       of each view, then the mean with the views' weights

    With equal weights it is the plain mean of the s_n, bit for bit. It has ``W L + 5 L + 2`` weights.

    What learns beside quality stands in auxiliary heads, which exist within :meth:`beside` alone: they are no part of
    what the head says of pictures later, nor of what is saved.

    Args:
        width: W, ``config.clip_config.vision_config.hidden_size`` of the model.
        latent: L.
        dropout: of the latent, in training.
        weight: one of :data:`WEIGHTS`.

    Raises:
        GRMPError: sizes below 1, a dropout outside [0, 1), or another word.
    """

    needs_tokens = True

    def __init__(self, width: int, latent: int = 64, dropout: float = 0.1, weight: str = "softplus") -> None:
        super().__init__()
        if min(width, latent) < 1 or not 0 <= dropout < 1 or weight not in WEIGHTS:
            raise GRMPError(
                f"Expected width and latent of at least 1, dropout in [0, 1) and weight {' or '.join(WEIGHTS)}, got "
                f"{width}, {latent}, {dropout} and {weight!r}."
            )
        self.weight = weight
        self.latent = nn.Sequential(nn.Linear(width, latent), nn.ReLU(), nn.LayerNorm(latent), nn.Dropout(dropout))
        self.score, self.counts = nn.Linear(latent, 1), nn.Linear(latent, 1)
        self.auxiliary = nn.ModuleDict()

    def forward(self, features: Features, text: Text) -> TwoStreamOutput:
        """``quality`` ``(B,)`` and what it is made of; in training also what the auxiliary heads say.

        Raises:
            GRMPError: tokens of another width.
        """
        tokens, views = cast(Tensor, features.tokens)[:, :, 1:], features.weights
        if tokens.shape[-1] != self.score_width:
            raise GRMPError(
                f"Expected tokens of width {self.score_width}, got {tokens.shape[-1]}. Make the head with the "
                "hidden_size of the base's vision tower."
            )
        latent = self.latent(tokens.to(self.score.weight))
        scores = self.score(latent).squeeze(-1).sigmoid()
        weights = _relative(self.counts(latent).squeeze(-1), self.weight)
        more: dict[str, Any] = self._aside((latent.mean(2) * views.to(latent)[:, None]).sum(1)) if self.training else {}
        quality = (weighted_mean(scores, weights) * views.to(scores)).sum(1)
        return TwoStreamOutput(quality=quality, patch_quality=scores, patch_weights=weights, **more)

    @property
    def score_width(self) -> int:
        """W."""
        return cast(nn.Linear, self.latent[0]).in_features

    def _aside(self, pooled: Tensor) -> dict[str, Any]:
        """What the auxiliary heads say of latents ``(B, L)``."""
        found: dict[str, Any] = {}
        if "category" in self.auxiliary:
            found["category_logits"] = self.auxiliary["category"](pooled)
        if "comparison" in self.auxiliary:  # linear in [h_i; h_j]: the sum of what it says of either
            last = cast(nn.Linear, self.auxiliary["comparison"])
            row, column = F.linear(pooled, last.weight.view(2, -1)).unbind(-1)
            found["better_logits"] = row[:, None] + column + last.bias
        return found

    @contextmanager
    def beside(self, *, categories: int = 0, comparison: bool = False) -> Iterator[None]:
        """Within this context there are auxiliary heads, linear in the mean latent of a picture, begun at random.

        Args:
            categories: K; 0 for none.
            comparison: have one that tells which of two pictures is better, from both latents.
        """
        latent, weight = self.score.in_features, self.score.weight
        if categories:
            self.auxiliary["category"] = nn.Linear(latent, categories).to(weight)
        if comparison:
            self.auxiliary["comparison"] = nn.Linear(2 * latent, 1).to(weight)
        try:
            yield
        finally:
            self.auxiliary.clear()

    def settings(self) -> dict[str, Any]:
        """Its arguments."""
        dropout = cast(nn.Dropout, self.latent[3]).p
        return {"width": self.score_width, "latent": self.score.in_features, "dropout": dropout, "weight": self.weight}


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """``sum_n w_n v_n / sum_n w_n`` over the last dimension; of equal weights of 1 the plain mean, bit for bit.

    >>> weighted_mean(torch.tensor([0.2, 0.8]), torch.tensor([1.0, 3.0])).item()
    0.65...
    """
    return (weights * values).sum(-1) / weights.sum(-1)


def _relative(said: Tensor, weight: str) -> Tensor:
    """Weights ``(..., N)`` beside the largest of their row, which does not change a weighted mean.

    They are taken from their logarithms, so that a row whose weights all vanish in float32 still has a mean.
    """
    if weight == "sigmoid":
        logs = F.logsigmoid(said)
    else:
        logs = torch.where(said < _TINY, said, F.softplus(said.clamp(min=_TINY)).log())
    return (logs - logs.amax(-1, keepdim=True).detach()).exp()
