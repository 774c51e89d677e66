"""How far a learner may go from what the base says, decided by the rated pictures themselves.

The readout is linear in groups of features, so that its Gaussian form can be solved exactly. With standardised ratings
y and features, z what the base says, and ``D`` the relative noise of each rating::

    y = offset + slope z + sum_g x_g w_g + noise,   noise ~ N(0, s^2 D)
    w_g ~ N(0, strength_g s^2 / d_g),   slope ~ N(m, tau s^2),   offset and s^2 free

The strengths and m are averaged over a coarse grid, each point weighted by its marginal likelihood and by a prior: how
often, and how far, tastes leave the text. Letters in shapes: n shots, N pictures, d features of a group, F of all.

Source: MacKay, "Bayesian Interpolation" (1992); leave-one-out as in Rasmussen and Williams, "Gaussian Processes for
Machine Learning", 5.4.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from grmp_hf.errors import GRMPError

__all__ = ["Belief", "Prior", "Standard", "believe", "standardise", "standards_of", "weigh"]

Floats = NDArray[np.float64]

_LARGEST = 5.0  # standardised features beyond it are outliers of few pictures
_JUDGED = 300  # shots that decide about strengths: more of them say the same and take longer
_POINTS = 1000  # of the grid, at most
_KNOWN = 20  # shots whose spreads count as much as those that are known beforehand
_NEAR, _FAR = 0.1, 1.0  # squared shifts: of ten photographs below .2, of screens, drawings and renderings above .8


@dataclass(frozen=True)
class Prior:
    """What is believed before any rating is seen. The defaults were chosen by the worst of several worlds.

    Attributes:
        agreement: how much more a slope of 1 is believed than one of 0, as a logarithm, of photographs.
        modesty: how strongly large strengths are disbelieved, by the sum over groups, of photographs.
        freedom: tau, of the slope around m.
        pseudo_shots: what the unit of the ratings counts against what is left of them.
        caution: what n shots say is luck more often the fewer they are: agreement and modesty count
            ``1 + (caution / n)^2`` times.
        modesty_elsewhere: modesty where pictures are no photographs, see :meth:`at`.
    """

    agreement: float = 1.0
    modesty: float = 0.5
    freedom: float = 0.05
    pseudo_shots: float = 1.0
    caution: float = 14.0
    modesty_elsewhere: float = 0.15

    def at(self, distance: float) -> Prior:
        """What is believed of pictures that lie this far from photographs, between 0 and 1.

        The anchors speak of photographs: of screens and drawings, whose ratings mean something else more often, the
        base is believed as little as not, and the features sooner.
        """
        modesty = (1 - distance) * self.modesty + distance * self.modesty_elsewhere
        return replace(self, agreement=(1 - distance) * self.agreement, modesty=modesty)


_STRENGTHS = (0.0, 0.1, 0.3, 1.0, 3.0)
_COARSE = (0.0, 0.3, 3.0)  # where five would make too many points
_SLOPES = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Standard:
    """Mean and deviation ``(d,)`` of features among the shots; a deviation of inf says that a feature is constant."""

    mean: Floats
    spread: Floats

    @classmethod
    def of(cls, features: Floats) -> Standard:
        """Of features ``(n, d)``."""
        mean, spread = features.mean(0), features.std(0)
        return cls(mean, np.where(spread > 1e-6 * np.abs(features).max(0, initial=0), spread, np.inf))

    @property
    def deviation(self) -> Floats:
        """The spread, 0 of constant features."""
        return np.where(np.isfinite(self.spread), self.spread, 0)

    def believed(self, known: Standard, shots: int, distance: float = 0.0) -> Standard:
        """Between the standard of few shots and one that is known beforehand, whose spread counts as much at 20 shots.

        Args:
            known: of many other pictures.
            shots: n, of which this is the standard.
            distance: from those other pictures, between 0 and 1; at 1 what is known of them counts as one shot.
        """
        share = shots / (shots + _KNOWN ** (1 - distance))
        own = np.maximum(self.deviation, 1e-3 * known.spread)
        return Standard(self.mean, known.spread ** (1 - share) * own**share)

    def __call__(self, features: Floats) -> Floats:
        """Features ``(N, d)`` standardised, and held to +-5."""
        return standardise(features, self.mean, self.spread)


def standardise(features: Floats, mean: Floats, spread: Floats) -> Floats:
    """``(features - mean) / spread`` within +-5."""
    return np.clip((features - mean) / spread, -_LARGEST, _LARGEST)


def standards_of(features: Mapping[str, Floats], known: Mapping[str, Standard]) -> tuple[dict[str, Standard], float]:
    """Standards of shots, and how far these lie from the pictures of which something is known beforehand.

    The distance is the mean over features of the squared shift of their mean, in units of the known variance and less
    what chance makes of so few pictures: 0 up to a shift of .1, 1 from a shift of 1 on.

    Args:
        features: name of a group -> ``(n, d)``, n at least 2.
        known: name of a group -> standard of many photographs; of other groups nothing is known.
    """
    found = {name: Standard.of(values) for name, values in features.items()}
    shots, shifts = len(next(iter(features.values()))), [np.zeros(0)]
    for name, photographs in known.items():
        own = found[name]
        chance = np.square(own.deviation) / max(shots - 1, 1)
        shift = (np.square(own.mean - photographs.mean) - chance) / np.square(photographs.spread)
        shifts.append(np.minimum(shift, _LARGEST**2))
    shift = np.concatenate(shifts)
    distance = float(np.clip((shift.mean() - _NEAR) / (_FAR - _NEAR), 0, 1)) if len(shift) else 0.0
    found |= {name: found[name].believed(photographs, shots, distance) for name, photographs in known.items()}
    return found, distance


@dataclass(frozen=True)
class Belief:
    """What the shots say, in the unit of the ratings.

    Attributes:
        strengths: name of a group -> how far its weights may go; 0 where the group says nothing.
        slope: m, how far the base is believed.
        offset, base_weight: of the mean prediction: ``offset + base_weight z + sum_g x_g weights[g]``.
        weights: name of a group -> ``(d,)``.
        centre: mean of the ratings.
        noise: s, in the unit of the ratings.
        degrees: of freedom of the noise.
        factor, drift: ``(r, F + 1)`` and ``(F + 1,)``, of :meth:`spread`; the last feature is z.
        scales: ``(F + 1,)``, what each feature counts there.
        centre_variance: of the offset, in units of the noise.
        residuals, deviations: ``(n,)``, of each shot, predicted from all others.
        prior: what was believed before.
    """

    strengths: dict[str, float]
    slope: float
    offset: float
    base_weight: float
    weights: dict[str, Floats]
    centre: float
    noise: float
    degrees: float
    scales: Floats
    factor: Floats
    drift: Floats
    centre_variance: float
    residuals: Floats
    deviations: Floats
    prior: Prior

    def predict(self, groups: Mapping[str, Floats], base: Floats) -> Floats:
        """Ratings ``(N,)`` of pictures from standardised features ``(N, d)`` and z ``(N,)``."""
        found = self.offset + self.base_weight * base
        for name, weights in self.weights.items():
            found = found + groups[name] @ weights
        return found

    def spread(self, groups: Mapping[str, Floats], base: Floats) -> Floats:
        """Standard deviation ``(N,)`` of a new rating around :meth:`predict`."""
        seen = np.column_stack([*(groups[name] for name in self.weights), base]) * self.scales
        known = np.square(seen).sum(1) - np.square(seen @ self.factor.T).sum(1)
        drifted = np.square(1 - seen @ self.drift) * self.centre_variance
        found: Floats = self.noise * np.sqrt(1 + np.maximum(known, 0) + drifted)
        return found


def believe(
    groups: Mapping[str, Floats],
    base: Floats,
    ratings: Floats,
    *,
    noise: Floats | None = None,
    prior: Prior | None = None,
    rank: int = 64,
) -> Belief:
    """What the shots say of the readout, exactly, at the strengths that they ask for.

    Args:
        groups: name -> standardised features ``(n, d)``, see :class:`Standard`.
        base: z ``(n,)``, what the base says, standardised.
        ratings: ``(n,)``, in any unit.
        noise: ``(n,)``, the variance of each rating relative to the others; None for equal ones.
        prior: see :class:`Prior`.
        rank: of ``factor``, at most; a smaller one makes intervals wider.

    Raises:
        GRMPError: shapes that do not fit, fewer than two shots, ratings that are all alike, or values that are not
            finite.
    """
    prior = prior or Prior()
    _check(groups, base, ratings, noise)
    centre, unit = float(ratings.mean()), float(ratings.std())
    y, relative = (ratings - centre) / unit, np.ones(len(base)) if noise is None else noise / noise.mean()
    strengths, slope = weigh(groups, base, y, relative, prior)
    sizes = [x.shape[1] for x in groups.values()]
    scales = np.concatenate(
        [*(np.full(d, np.sqrt(s / max(d, 1))) for s, d in zip(strengths, sizes, strict=True)), [np.sqrt(prior.freedom)]]
    )
    seen = np.column_stack([*groups.values(), base]) * scales
    inverse = linalg.inv(np.diag(relative) + seen @ seen.T)
    ones, rest = np.ones(len(y)), y - slope * base
    total = float(ones @ inverse @ ones)
    offset = float(ones @ inverse @ rest) / total
    alpha = inverse @ (rest - offset)
    degrees = len(y) - 1 + prior.pseudo_shots
    variance = (float((rest - offset) @ alpha) + prior.pseudo_shots) / degrees
    weights = scales * (seen.T @ alpha) * unit
    parts = np.split(weights, np.cumsum(sizes))
    projected = inverse - np.outer(inverse @ ones, ones @ inverse) / total
    left = linalg.cholesky(inverse, lower=True).T @ seen
    _, values, directions = linalg.svd(left, full_matrices=False)
    return Belief(
        strengths=dict(zip(groups, map(float, strengths), strict=True)),
        slope=float(slope),
        offset=centre + unit * offset,
        base_weight=float(unit * slope + parts[-1][0]),
        weights=dict(zip(groups, parts, strict=False)),
        centre=centre,
        noise=unit * float(np.sqrt(variance)),
        degrees=float(degrees),
        scales=scales,
        factor=values[:rank, None] * directions[:rank],
        drift=seen.T @ inverse @ ones,
        centre_variance=1 / total,
        residuals=unit * (projected @ rest) / np.diag(projected),
        deviations=unit * np.sqrt(variance / np.diag(projected)),
        prior=prior,
    )


def weigh(
    groups: Mapping[str, Floats], base: Floats, ratings: Floats, noise: Floats, prior: Prior
) -> tuple[Floats, float]:
    """Strength of each group and slope m, averaged over a grid by marginal likelihood and prior.

    Args:
        groups, base, noise: see :func:`believe`.
        ratings: ``(n,)``, mean 0 and deviation 1.
        prior: see :class:`Prior`.
    """
    shots = len(base)
    at = np.unique(np.linspace(0, shots - 1, min(shots, _JUDGED)).round().astype(int))
    base, ratings, noise = base[at], ratings[at], noise[at]
    kernels = [x[at] @ x[at].T / max(x.shape[1], 1) for x in groups.values()]
    grid = np.array(list(itertools.product(_levels(len(kernels)), repeat=len(kernels))))
    fixed = np.diag(noise) + prior.freedom * np.outer(base, base)
    known = np.column_stack([np.ones(len(base)), ratings, base])
    logs = np.array([_evidence(fixed, kernels, strengths, known, prior) for strengths in grid])
    believed = prior.agreement * np.array(_SLOPES) - prior.modesty * np.log1p(10 * grid.sum(1))[:, None]
    logs += (1 + (prior.caution / shots) ** 2) * believed
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    return shares.sum(1) @ grid, float(shares.sum(0) @ np.array(_SLOPES))


def _levels(groups: int) -> Sequence[float]:
    return next((levels for levels in (_STRENGTHS, _COARSE) if len(levels) ** groups <= _POINTS), (0.0, 1.0))


def _evidence(fixed: Floats, kernels: Sequence[Floats], strengths: Floats, known: Floats, prior: Prior) -> Floats:
    """Logarithm of the marginal likelihood under each slope, offset and noise integrated out."""
    covariance = fixed + sum(s * kernel for s, kernel in zip(strengths, kernels, strict=True) if s)
    lower = linalg.cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    ones, ratings, base = linalg.solve_triangular(lower, known, lower=True, check_finite=False).T
    total = ones @ ones
    rest = ratings[None] - np.outer(_SLOPES, base)
    rest = rest - np.outer(rest @ ones / total, ones)
    squares = np.square(rest).sum(1) + prior.pseudo_shots
    freedom = (len(ones) - 1 + prior.pseudo_shots) / 2
    found: Floats = -np.log(np.diag(lower)).sum() - np.log(total) / 2 - freedom * np.log(squares)
    return found


def _check(groups: Mapping[str, Floats], base: Floats, ratings: Floats, noise: Floats | None) -> None:
    n = len(ratings)
    shapes = {"base": base.shape, **{name: x.shape[:1] for name, x in groups.items()}}
    if noise is not None:
        shapes["noise"] = noise.shape
    wrong = [name for name, shape in shapes.items() if shape != (n,)]
    if n < 2 or wrong:
        raise GRMPError(
            f"Expected features of the same pictures as the {n} ratings, of which two are needed, got others for "
            f"{', '.join(wrong) or 'no group'}. Compute the features of the rated pictures anew."
        )
    values = [ratings, base, *groups.values(), *([] if noise is None else [noise])]
    if not all(bool(np.isfinite(x).all()) for x in values) or (noise is not None and bool((noise <= 0).any())):
        raise GRMPError("Expected finite features and ratings, and noise above 0, got others. Look for NaN in them.")
    if float(np.ptp(ratings)) == 0:
        raise GRMPError(f"Expected pictures with different ratings, got {n} that are all alike. Rate more.")
