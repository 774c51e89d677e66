"""Which of several pictures is better, and how likely that is, by whatever a scorer knows of its own errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.heads import GRMPOutput
from grmp_hf.modeling.pairwise import chance_better
from grmp_hf.pictures import Picture, each_picture
from grmp_hf.scores import remedy
from grmp_hf.scoring import Scorer, Scores, joined
from grmp_hf.views import all_views

__all__ = ["LARGEST", "NOISE", "Comparison", "chances", "compare"]

NOISE = 0.2
"""Deviation of the quality of a picture where a scorer does not say it, in quality; measured (benchmarks/README.md)."""

LARGEST = 2000
"""Pictures that are compared with one another, at most."""


class Comparison(NamedTuple):
    """N pictures, each compared with every other one.

    Attributes:
        chance: ``(N, N)`` in [0, 1], the probability that the first picture (row) is better than the second (column);
            .5 on the diagonal.
        scores: of the N pictures; see :class:`~grmp_hf.scoring.Scores`.
        known_by: where the probabilities come from: ``"ratings"``, ``"sigma"`` or ``"assumed"``; see :func:`compare`.
    """

    chance: NDArray[np.float64]
    scores: Scores
    known_by: str

    @property
    def order(self) -> list[int]:
        """Places of the pictures, best first; equal ones as they were given."""
        return [int(at) for at in np.argsort(-self.scores.quality, kind="stable")]


def compare(scorer: Scorer, pictures: Iterable[Picture], *, noise: float = NOISE, batch_size: int = 16) -> Comparison:
    """Compare each of some pictures with every other one.

    What the probability says depends on what the scorer knows:

    - ``"ratings"``: an adapter that has learnt from ratings knows how far a new rating lies from its prediction; it
      is the probability that a new rating of the one would be better than one of the other.
    - ``"sigma"``: a head such as :class:`~grmp_hf.modeling.linear_heads.MeanSigma` says it by its sigmas:
      ``Phi((mean1 - mean2) / sqrt(sigma1^2 + sigma2^2))``.
    - ``"assumed"``: the scorer does not say it, and every picture's quality is taken to deviate by ``noise``:
      ``Phi((quality1 - quality2) / (noise sqrt 2))``, Thurstone's case V.

    Args:
        scorer: of any kind.
        pictures: two or more of them, as :meth:`~grmp_hf.scoring.Scorer.score` takes them.
        noise: in quality, above 0; of scorers that do not say it alone.
        batch_size: pictures that go through the model at once; changes nothing but speed.

    Raises:
        GRMPError: fewer than two pictures or more than :data:`LARGEST`, a noise that is not above 0, or a model that
            gives no number.
        ImageError: a picture cannot be read.
    """
    if not 0 < noise < float("inf"):
        raise GRMPError(f"Expected a noise above 0, in quality from 0 to 1, got {noise}.")
    given = [*each_picture(pictures)]
    if not 2 <= len(given) <= LARGEST:
        raise GRMPError(f"Expected 2 to {LARGEST} pictures to compare, got {len(given)}. Give as many.")
    parts = [scorer.outputs(pixels) for pixels in all_views(given, scorer.views, batch_size=batch_size)]
    found = joined(parts)
    chance, known_by = chances(found, noise)
    bad = int((~(chance.diagonal().isfinite() & found.quality.cpu().isfinite())).sum())
    if bad:
        raise GRMPError(f"Expected numbers of {len(given)} pictures, got none of {bad}; {remedy(scorer.identity)}.")
    return Comparison(chance.numpy(), scorer.scores(found), known_by)


def chances(output: GRMPOutput, noise: float = NOISE) -> tuple[Tensor, str]:
    """The probability ``(N, N)``, double precision, that each picture of an output is better than each, and by what it
    is known; see :func:`compare`.

    An adapter's errors of two pictures count as independent: what they share hardly changes anything
    (docs/decisions.md, 83).
    """
    from scipy.stats import t as student

    assert output.quality is not None
    quality = output.quality.double().cpu()
    if output.deviation is not None and output.degrees is not None:
        squares = output.deviation.double().cpu().square()
        apart = (quality[:, None] - quality) / (squares[:, None] + squares).sqrt()
        return torch.from_numpy(student.cdf(apart.numpy(), float(output.degrees[0]))), "ratings"
    if output.mean is not None and output.sigma is not None:
        mean, sigma = output.mean.double().cpu(), output.sigma.double().cpu()
        return chance_better(mean[:, None], mean, sigma[:, None], sigma), "sigma"
    return chance_better(quality[:, None], quality, noise, noise), "assumed"
