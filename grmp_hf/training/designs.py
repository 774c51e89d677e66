"""Designs: which pictures' ratings would tell most about all the others, by what is believed of them.

The readout is linear in features of a picture (:mod:`grmp_hf.training.evidence`), so that what a rating would say of
other pictures is known before it is given. With ``phi`` the features, each group as strong as it counts, and ratings of
noise 1, the covariance of what is believed of the pictures is::

    C = phi phi^T - (what rated pictures have told),   after a rating of i:  C - C_i C_i^T / (C_ii + 1)

Pictures are chosen one after the other: the one whose rating would lower the mean of C's diagonal most. Letters in
shapes: N pictures, F features, R columns of a factor.

Source: Cohn, Ghahramani and Jordan, "Active Learning with Statistical Models" (1996), whose criterion this is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grmp_hf.training.evidence import standardise

__all__ = ["STRENGTHS", "Covariance", "choose", "features_after", "features_alone"]

Floats = NDArray[np.float64]
Places = NDArray[np.integer[Any]]

STRENGTHS: Mapping[str, float] = {"deep": 1.0, "mid": 0.5, "statistics": 0.3, "embeds": 0.5, "base": 0.3}
"""What each group of features counts before any picture is rated; others count as ``mid``."""


class Covariance(NamedTuple):
    """Covariance ``columns diag(signs) columns^T`` of what is believed of N pictures, in units of a rating's noise.

    Attributes:
        columns: ``(N, R)``.
        signs: ``(R,)``, 1 or -1.
    """

    columns: Floats
    signs: Floats

    def row(self, at: int) -> Floats:
        """``(N,)``, with one of them."""
        found: Floats = self.columns @ (self.signs * self.columns[at])
        return found

    def diagonal(self) -> Floats:
        """``(N,)``, never below 0."""
        found: Floats = np.maximum(np.square(self.columns) @ self.signs, 0)
        return found


def choose(
    covariance: Covariance, count: int, allowed: Sequence[int] | Places, *, rated: Sequence[int] | Places = ()
) -> list[int]:
    """Greedily, the pictures whose ratings lower the mean variance of all most.

    Args:
        covariance: of N pictures.
        count: how many, at most.
        allowed: places of those that may be chosen.
        rated: places of those whose ratings the covariance does not know of yet.
    """
    belief, chosen = _Belief(covariance), list[int]()
    for at in rated:
        belief.rate(int(at))
    left = np.zeros(len(covariance.columns), dtype=bool)
    left[np.asarray(allowed, dtype=int)] = True
    for _ in range(min(count, int(left.sum()))):
        chosen.append(int(np.where(left, belief.gain(), -np.inf).argmax()))
        belief.rate(chosen[-1])
        left[chosen[-1]] = False
    return chosen


class _Belief:
    """A covariance that loses what ratings tell; of its rows only the variance and the sum of squares are kept."""

    def __init__(self, covariance: Covariance) -> None:
        self.covariance = covariance
        columns, signs = covariance
        self.squares: Floats = ((columns @ (signs[:, None] * (columns.T @ columns) * signs)) * columns).sum(1)
        self.variance = covariance.diagonal()
        self.told = np.zeros((0, len(columns)))  # the covariance has lost told^T told

    def gain(self) -> Floats:
        """``(N,)``, by how much a rating of each picture would lower the sum of all variances."""
        found: Floats = np.maximum(self.squares, 0) / (self.variance + 1)
        return found

    def rate(self, at: int) -> None:
        """Take off what a rating of one picture tells."""
        columns, signs = self.covariance
        row = (self.covariance.row(at) - self.told[:, at] @ self.told) / np.sqrt(self.variance[at] + 1)
        through = columns @ (signs * (row @ columns)) - (self.told @ row) @ self.told
        self.squares = self.squares - 2 * row * through + np.square(row) * float(row @ row)
        self.variance = np.maximum(self.variance - np.square(row), 0)
        self.told = np.vstack([self.told, row])


def features_alone(features: Mapping[str, Floats], known: Mapping[str, tuple[Floats, Floats]]) -> Covariance:
    """Covariance before anything is rated, which is known equally little of every picture.

    Without that, what is far from all others would be chosen, which says nothing of them.

    Args:
        features: name of a group -> ``(N, d)``; ``"base"`` is what the base says, ``(N, 1)``.
        known: name of a group -> mean and deviation of its features among pictures of any kind; others are taken from
            the pictures themselves.
    """
    parts = []
    for name, values in features.items():
        mean, spread = known.get(name) or (values.mean(0), values.std(0))
        constant = spread <= 1e-6 * np.abs(values).max(initial=0)
        standard = standardise(values, mean, np.where(constant, np.inf, spread))
        parts.append(standard * np.sqrt(STRENGTHS.get(name, STRENGTHS["mid"]) / max(values.shape[1], 1)))
    columns = np.column_stack(parts)
    length = np.sqrt(np.square(columns).sum(1))
    columns = columns * np.divide(np.median(length), length, out=np.zeros_like(length), where=length > 0)[:, None]
    return Covariance(columns, np.ones(columns.shape[1]))


def features_after(phi: Floats, factor: Floats, drift: Floats, centre_variance: float) -> Covariance:
    """Covariance after ratings; see :meth:`grmp_hf.training.evidence.Belief.spread`.

    Args:
        phi: ``(N, F)``, standardised features, each as strong as it counts, the last of them what the base says.
        factor, drift: ``(R, F)`` and ``(F,)``, of what is believed.
        centre_variance: of the offset, in units of the noise.
    """
    drifted = (1 - phi @ drift) * np.sqrt(centre_variance)
    signs = np.concatenate([np.ones(phi.shape[1]), -np.ones(len(factor)), np.ones(1)])
    return Covariance(np.column_stack([phi, phi @ factor.T, drifted]), signs)
