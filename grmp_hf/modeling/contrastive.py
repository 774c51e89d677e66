"""Contrastive losses that need no ratings (after GRepQ): versions of a photograph, and groups of good and bad ones.

Letters in shapes: F families, N versions of a photograph, M pictures of a group, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from grmp_hf.errors import GRMPError

__all__ = ["TEMPERATURE", "group_contrast", "similarity_weights", "version_contrast"]

TEMPERATURE = 0.5
"""Of both losses, in the paper."""


def similarity_weights(similarity: Tensor) -> Tensor:
    """How much two pictures count as alike: ``2 - 2 / (1 + A^2)``, of a similarity A in [0, 1], of any shape.

    >>> [round(weight, 6) for weight in similarity_weights(torch.tensor([0.0, 0.5, 1.0])).tolist()]
    [0.0, 0.4, 1.0]
    """
    return 2 - 2 / (1 + similarity.square())


def version_contrast(
    first: Tensor, second: Tensor, weights: Tensor, temperature: float = TEMPERATURE, *, outside: bool = False
) -> Tensor:
    """The quality-aware loss of two views of the versions of photographs, over rows and over columns::

        S = cos(first, second) / T,   rows = -log(sum_j w_ij exp(S_ij) / sum_j exp(S_ij)),   loss = rows + columns

    each a mean over all versions. It is 0 where all versions count as alike.

    Args:
        first, second: ``(F, N, d)``; the views of version i of family f are ``[f, i]`` of each. Zeros are at right
            angles to everything.
        weights: ``(F, N, N)``, of :func:`similarity_weights`; between view i of the first and view j of the second.
            No row and no column of zeros alone.
        temperature: T, above 0.
        outside: take the weights out of the logarithm: ``-mean_j w_ij log(exp(S_ij) / sum_k exp(S_ik))``.

    Returns:
        ``(F,)``, the loss of each family.

    Raises:
        GRMPError: shapes that do not fit together.

    Source: GRepQ (arXiv 2312.04838), the low-level loss; both forms are in its code.
    """
    if first.ndim != 3 or first.shape != second.shape or weights.shape != (*first.shape[:2], first.shape[1]):
        raise GRMPError(
            "Expected two views (F, N, d) of N versions of F photographs and weights (F, N, N), got "
            f"{tuple(first.shape)}, {tuple(second.shape)} and {tuple(weights.shape)}. Give both views of one batch."
        )
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).transpose(1, 2) / temperature
    rows = _alike(logits, weights.to(logits), outside)
    return rows + _alike(logits.transpose(1, 2), weights.to(logits).transpose(1, 2), outside)


def _alike(logits: Tensor, weights: Tensor, outside: bool) -> Tensor:
    """``(F,)``: the mean over rows of what is lost where rows are not alike as their weights say."""
    shares = logits.log_softmax(-1)
    if outside:
        return -(weights * shares).mean((1, 2))
    # log(0) of a weight stays out of the sum, and its gradient with it.
    found: Tensor = -torch.where(weights > 0, shares + weights.clamp(min=1e-30).log(), -torch.inf).logsumexp(-1).mean(1)
    return found


def group_contrast(top: Tensor, bottom: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """How far two groups of pictures are from being apart: each picture's mean similarity with its own group against
    its similarities with all of the other one::

        o_i = mean_{j != i} cos(x_i, x_j) / T,   loss_i = -log(exp(o_i) / (exp(o_i) + sum_k exp(cos(x_i, y_k) / T)))

    a mean over both groups, whose order does not matter.

    Args:
        top, bottom: ``(M, d)`` each, M at least 2. Zeros are at right angles to everything.
        temperature: T, above 0.

    Returns:
        Scalar.

    Raises:
        GRMPError: shapes that do not fit together, or fewer than two pictures in a group.

    Source: GRepQ (arXiv 2312.04838), the high-level loss.
    """
    if top.ndim != 2 or top.shape != bottom.shape or len(top) < 2:
        raise GRMPError(
            "Expected two groups (M, d) of as many pictures, at least two, got "
            f"{tuple(top.shape)} and {tuple(bottom.shape)}. Take larger batches."
        )
    one, other = F.normalize(top, dim=-1), F.normalize(bottom, dim=-1)
    across = one @ other.T / temperature
    return (_apart(one, across, temperature) + _apart(other, across.T, temperature)).mean() / 2


def _apart(own: Tensor, across: Tensor, temperature: float) -> Tensor:
    """``(M,)``: the loss of each picture of a group."""
    alike = own @ own.T / temperature
    mean = (alike.sum(1) - alike.diagonal()) / (len(own) - 1)
    return torch.cat([mean[:, None], across], 1).logsumexp(1) - mean
