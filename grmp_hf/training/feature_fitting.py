"""The feature map of an adapter, set to what the shots say of it, before anything is trained."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from grmp_hf.modeling.feature_map import FeatureMap, level_direction, level_logit, novelty
from grmp_hf.modeling.side import Side
from grmp_hf.training.calibration import check_finite
from grmp_hf.training.evidence import Belief, Prior, Standard, believe, standardise, standards_of
from grmp_hf.training.expecting import ExpectedGain, expected_gain

__all__ = ["agreement", "fit_features", "logit_of", "pull_of_map"]

Floats = NDArray[np.float64]

_CLOSEST = 0.05  # of the mean rating to an end of the scale, for the link
_UNLIKE = 2.2  # deviations above the median of what the shots are unlike each other
_MARGIN = 0.1
# Of five worlds, the widest intervals then hold as much above what is asked as the narrowest below.
_NARROWER = 0.96


def fit_features(
    model: PeftModel,
    embeds: Tensor,
    side: Tensor | None,
    logits: Tensor,
    quality: Tensor,
    *,
    noise: Tensor | None = None,
    prior: Prior | None = None,
) -> tuple[Belief, ExpectedGain]:
    """Set the feature map of the active adapter to the mean of what the shots say; see :mod:`~.evidence`.

    The Gaussian form predicts the quality itself; the map shifts logits. The two meet, to first order, at the mean
    quality of the shots: training goes on from there under the cross-entropy.

    Args:
        model: with an adapter whose settings name ``features``.
        embeds: ``(n, D)``, of the shots.
        side: ``(n, F)``, what the base's side network says of them, if the map sees it.
        logits: ``(n, A)``, what the base says.
        quality: ``(n,)`` in [0, 1].
        noise: ``(n,)``, the variance of each rating relative to the others; None for equal ones.
        prior: what is believed before any rating is seen; None for what is believed of pictures so far from
            photographs.

    Returns:
        What the shots say, and what more of them would bring.

    Raises:
        GRMPError: as :func:`~grmp_hf.training.evidence.believe`.
    """
    seen = logits if side is None else torch.cat([logits, side.to(logits)], 1)
    check_finite(torch.cat([seen, embeds.to(logits)], 1), quality)
    base = model.get_base_model()
    (name,) = model.active_adapters
    found: FeatureMap = base.readout.grmp_readout[name].map
    columns = [_numbers(embeds), *([] if side is None else [_numbers(side)])]
    features = dict(zip(found.groups, np.split(np.column_stack(columns), _ends(found.groups), 1), strict=True))
    said = _numbers(level_logit(logits.double(), found.levels))[:, None]
    standards, distance = standards_of(features, _known(base.side))
    standards["base"] = Standard.of(said)
    standard = {group: standards[group](values) for group, values in features.items()}
    z, ratings = standards["base"](said)[:, 0], _numbers(quality)
    relative = None if noise is None else _numbers(noise)
    belief = believe(standard, z, ratings, noise=relative, prior=prior or Prior().at(distance))
    _write(found, belief, standards, len(quality))
    _know_shots(found, np.column_stack(list(standard.values())))
    return belief, expected_gain(standard, z, ratings, belief, noise=relative)


def pull_of_map(quality: Tensor, levels: list[float]) -> float:
    """The pull under which the mean cross-entropy of n shots is best where the Gaussian form's posterior is."""
    return _link(float(quality.mean()), levels)[1] / len(quality)


def agreement(belief: Belief, spread: float) -> str:
    """What the shots have decided, in words.

    Args:
        belief: of the shots.
        spread: deviation of their ratings.
    """
    told, free = belief.base_weight / spread, sum(belief.strengths.values())
    if told < -0.4:
        found = "these ratings go against the base: it calls good what they call bad; is the lowest rating the best?"
    elif told < 0.4:
        found = "these ratings do not follow the base: weak pull"
    elif free < 1:
        found = "these ratings agree with the base: strong pull towards it"
    else:
        found = "these ratings agree with the base and say more than it: weak pull"
    elsewhere = belief.prior.agreement < Prior().agreement / 2
    return f"{found} (pictures unlike photographs, of which the base is less sure beforehand)" if elsewhere else found


def _write(found: FeatureMap, belief: Belief, standards: dict[str, Standard], shots: int) -> None:
    """Put what is believed of quality into a map of logits."""
    scales, size = belief.scales, len(belief.scales) - 1
    weights = np.concatenate([*belief.weights.values()])
    mean = np.concatenate([np.broadcast_to(standards[name].mean, (len(w),)) for name, w in belief.weights.items()])
    spread = np.concatenate([np.broadcast_to(standards[name].spread, (len(w),)) for name, w in belief.weights.items()])
    said = standards["base"]
    centre = float(np.clip(belief.centre, _CLOSEST, 1 - _CLOSEST))
    at, slope = _link(centre, found.levels)
    scale = belief.base_weight / slope / float(said.spread[0])  # of the base's logits; 0 where they are constant
    with torch.no_grad():
        found.scale.fill_(scale)
        found.offset.fill_(at + (belief.offset - centre) / slope - scale * float(said.mean[0]))
        found.weights.copy_(
            torch.from_numpy(np.divide(weights, scales[:-1], out=np.zeros(size), where=scales[:-1] > 0) / slope)
        )
        found.mean.copy_(torch.from_numpy(np.append(mean, said.mean)))
        found.spread.copy_(torch.from_numpy(np.append(spread, said.spread)))
        found.strength.copy_(torch.from_numpy(scales))
        found.factor.zero_()[: len(belief.factor)].copy_(torch.from_numpy(belief.factor))
        found.drift.copy_(torch.from_numpy(belief.drift))
        found.centre_variance.fill_(belief.centre_variance)
        found.noise.fill_(_NARROWER * belief.noise)
        found.degrees.fill_(belief.degrees)


def logit_of(quality: float, levels: list[float]) -> float:
    """The shift along the levels' direction, from logits of 0, at which the mean level of the anchors is a quality.

    >>> round(logit_of(0.75, [1.0, 0.0]), 4)  # log 3
    1.0986
    """
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_level(middle, levels)[0] < quality else (low, middle)
    return (low + high) / 2


def _link(quality: float, levels: list[float]) -> tuple[float, float]:
    """The shift that gives a quality, and how fast the quality grows there."""
    at = logit_of(min(max(quality, _CLOSEST), 1 - _CLOSEST), levels)
    return at, _mean_level(at, levels)[1]


def _mean_level(shift: float, levels: list[float]) -> tuple[float, float]:
    values = torch.tensor(levels, dtype=torch.float64)
    shares = (shift * level_direction(levels, values)).softmax(0)
    mean = float(shares @ values)
    return mean, float(shares @ values.square()) - mean**2


def _known(side: Side | None) -> dict[str, Standard]:
    """Name of a group -> what a side network knows of photographs."""
    found = {} if side is None else side.known()
    return {
        name: Standard(_numbers(mean), np.maximum(_numbers(spread), 1e-9)) for name, (mean, spread) in found.items()
    }


def _know_shots(found: FeatureMap, features: Floats) -> None:
    """Let the map know the shots ``(n, F)``, and how unlike each other they are: what few of their kind exceed."""
    shots = Standard.of(features)
    apart = novelty(torch.from_numpy(_without_itself(shots(features))), found.groups).numpy()
    with torch.no_grad():
        found.shot_mean.copy_(torch.from_numpy(shots.mean))
        found.shot_spread.copy_(torch.from_numpy(shots.spread))
        found.usual.fill_(float(np.median(apart) + _UNLIKE * apart.std() + _MARGIN))


def _without_itself(values: Floats) -> Floats:
    """Features ``(n, d)`` of each shot, standardised by all others instead of by all."""
    rows = len(values)
    variance = rows / (rows - 1) * np.maximum(1 - values**2 / (rows - 1), 0.05)
    return standardise(values * rows / (rows - 1), np.zeros(values.shape[1]), np.sqrt(variance))


def _ends(groups: dict[str, int]) -> list[int]:
    return [int(end) for end in np.cumsum(list(groups.values()))[:-1]]


def _numbers(values: Tensor) -> Floats:
    found: Floats = values.detach().double().cpu().numpy()
    return found
