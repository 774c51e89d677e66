"""Which of two pictures is better: the probability of it, and how well one probability tells another.

Letters: P pairs; f the value of a picture, higher is better, s its deviation; Phi the distribution function of the
standard normal.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "CASE_V",
    "EPSILON",
    "MARGIN",
    "RELEASED",
    "better_labels",
    "chance_better",
    "fidelity",
    "pairs_within",
    "sigma_hinge",
]

CASE_V = 1.0
"""Sigma of every picture in Thurstone's case V, the model of the papers: ``p = Phi((f1 - f2) / sqrt(2))``."""

RELEASED = 0.5**0.5
"""Sigma that the released code of TSN-IQA, CL-BIQA and LIQE comes to: ``p = Phi(f1 - f2)``."""

EPSILON = 1e-8
"""Under the roots of the fidelity loss, in all released code: gradients stay finite where a probability is 0 or 1."""

MARGIN = 0.025
"""By which the larger sigma should lead, in UNIQUE."""


def chance_better(first: Tensor, second: Tensor, first_sigma: Tensor | float, second_sigma: Tensor | float) -> Tensor:
    """The probability that the first picture of a pair is better: ``p = Phi((f1 - f2) / sqrt(s1^2 + s2^2))``.

    The denominator is what systems differ in: sigmas of each picture, :data:`CASE_V` or :data:`RELEASED`.

    Args:
        first, second: ``(P,)``, values f.
        first_sigma, second_sigma: ``(P,)`` or a number, at least 0; where both are 0, the better one is certain, and
            equal values give NaN.

    Returns:
        ``(P,)`` in [0, 1].

    Source: Thurstone, "A Law of Comparative Judgment" (1927); UNIQUE (arXiv 2005.13983).

    >>> one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    >>> [round(chance_better(one, none, sigma, sigma).item(), 6) for sigma in (CASE_V, RELEASED)]
    [0.76025, 0.841345]
    """
    one, other = (torch.as_tensor(s, dtype=first.dtype, device=first.device) for s in (first_sigma, second_sigma))
    found: Tensor = torch.special.ndtr((first - second) / (one.square() + other.square()).sqrt())
    return found


def fidelity(chance: Tensor, label: Tensor, epsilon: float = EPSILON) -> Tensor:
    """The fidelity loss of each probability: ``1 - sqrt(p g + eps) - sqrt((1 - p) (1 - g) + eps)``.

    It is 0 where p = g, but for eps, which lets it fall to some -1e-4.

    Args:
        chance: p, in [0, 1], of any shape.
        label: g, in [0, 1], of the same shape.
        epsilon: at least 0.

    Source: Tsai et al., "FRank" (2007); the losses of TSN-IQA, LIQE and UNIQUE.

    >>> round(fidelity(torch.tensor(0.8413447, dtype=torch.float64), torch.tensor(1.0), 0.0).item(), 6)
    0.082752
    """
    return 1 - (chance * label + epsilon).sqrt() - ((1 - chance) * (1 - label) + epsilon).sqrt()


def better_labels(
    first: Tensor, second: Tensor, first_std: Tensor | None = None, second_std: Tensor | None = None
) -> Tensor:
    """What ratings say of pairs: ``g = Phi((mu1 - mu2) / sqrt(s1^2 + s2^2))``, or who is rated higher.

    Args:
        first, second: ``(P,)``, mean ratings, higher is better.
        first_std, second_std: ``(P,)``, deviations of the ratings, in their unit; NaN where nobody says it. None
            likewise for all.

    Returns:
        ``(P,)`` in [0, 1]: soft where both deviations are known, else 1, 0, or .5 for equal ratings.

    Source: UNIQUE (arXiv 2005.13983).

    >>> mean, std = torch.tensor([60.0, 50.0], dtype=torch.float64), torch.tensor([15.0, 20.0])
    >>> round(better_labels(mean[:1], mean[1:], std[:1], std[1:]).item(), 6)
    0.655422
    """
    decided = ((first > second).to(first) + (first >= second).to(first)) / 2
    if first_std is None or second_std is None:
        return decided
    soft = chance_better(first, second, first_std, second_std)
    return torch.where(soft.isnan(), decided, soft)


def sigma_hinge(
    first_sigma: Tensor, second_sigma: Tensor, first_std: Tensor, second_std: Tensor, margin: float = MARGIN
) -> Tensor:
    """What is wrong with the order of two sigmas: ``max(0, margin - sign(std1 - std2) (s1 - s2))`` of each pair.

    Equal deviations give the margin, whatever the sigmas are.

    Args:
        first_sigma, second_sigma: ``(P,)``, of the model.
        first_std, second_std: ``(P,)``, of the ratings.
        margin: by which the larger one should lead.

    Source: UNIQUE (arXiv 2005.13983).
    """
    return (margin - (first_std - second_std).sign() * (first_sigma - second_sigma)).clamp(min=0)


def pairs_within(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Both pictures ``(P,)``, ``(P,)`` of every pair within a group, each pair once.

    Args:
        groups: ``(B,)``, the number of each picture's group.

    >>> pairs_within(torch.tensor([0, 0, 1, 0]))
    (tensor([0, 0, 1]), tensor([1, 3, 3]))
    """
    first, second = torch.nonzero((groups[:, None] == groups).triu(1), as_tuple=True)
    return first, second
