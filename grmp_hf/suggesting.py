"""Which pictures to rate next: those whose ratings would say most about all the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grmp_hf.data.identity import KnownPictures, first_copies
from grmp_hf.data.images import ImageError
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.configuration_grmp import anchor_levels
from grmp_hf.modeling.feature_map import EMBEDS, FeatureMap, level_logit
from grmp_hf.modeling.heads import AnchorHead, Features
from grmp_hf.modeling.known_heads import describe
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.pictures import each_picture
from grmp_hf.scoring import Scorer
from grmp_hf.training.designs import Covariance, choose, features_after, features_alone
from grmp_hf.views import iter_views

__all__ = ["LARGEST", "suggest"]

Floats = NDArray[np.float64]
Tell = Callable[[str, float], None]

LARGEST = 5000
"""Pictures that are looked at, at most."""

_TOGETHER = 16
_UNSURE = 0.9  # share of the pictures of which an adapter is surer


class _Seen(NamedTuple):
    """Pictures that could be read: their places, features, what the base says, and which have been rated."""

    places: list[int]
    features: dict[str, Floats]
    rated: NDArray[np.bool_]


def suggest(
    scorer: Scorer,
    pictures: Any,
    count: int = 20,
    *,
    tell: Tell | None = None,
    say: Callable[[str], None] | None = None,
) -> list[tuple[Any, str]]:
    """Which pictures to rate, and why, the most telling one first.

    Without an adapter they are as different as the pictures are, each standing for many. With one, what its ratings
    have told is taken off, so that what it is unsure of, unlike pictures among them, is what is left.

    >>> from grmp_hf.suggesting import suggest
    >>> [(path, why), *more] = suggest(grmp_hf.load(), photos, 50)  # doctest: +SKIP

    Args:
        scorer: a base, or one with an adapter; pictures that have taught it are never suggested.
        pictures: files, or whatever :meth:`Scorer.score` takes. Of more than :data:`LARGEST`, evenly spaced ones are
            looked at. Those that cannot be read are left out, copies are suggested once; both are said.
        count: how many; fewer where there are no more.
        tell: told what is being done and which share of it is done.
        say: given a line for each thing worth knowing.

    Returns:
        (path, or place among the pictures where they are no paths, why), a function of the arguments alone.

    Raises:
        GRMPError: a count below 1, a baked scorer, or no picture that can be suggested.
    """
    say = say or _silent
    if count < 1:
        raise GRMPError(f"Expected to suggest at least one picture, got a count of {count}.")
    if not isinstance(_base(scorer), GRMPForImageQualityAssessment):
        raise GRMPError(
            f"Expected a base, or one with an adapter, got {type(_base(scorer)).__name__}, which shows no features. Of "
            "a baked scorer, name the base and the adapter that it was baked from."
        )
    given = [*each_picture(pictures)]
    seen = _look(scorer, given, _kept(given, say), tell or _silent, say)
    allowed = np.flatnonzero(~seen.rated)
    if not len(allowed):
        raise GRMPError(
            f"Expected pictures that can be read and have not been rated, got none among {len(given)}. Give others."
        )
    if seen.rated.any():
        say(f"pictures that have been rated already, left out: {int(seen.rated.sum())}")
    found = _map_of(scorer)
    covariance, unlike = _covariance(scorer, seen, found)
    chosen = choose(covariance, count, allowed, rated=() if found is not None else np.flatnonzero(seen.rated))
    reasons = _reasons(covariance, chosen, unlike, rated=found is not None)
    names = [given[at] if isinstance(given[at], str | os.PathLike) else at for at in seen.places]
    return [(names[at], why) for at, why in zip(chosen, reasons, strict=True)]


def _after_ratings(found: FeatureMap, features: Floats) -> tuple[Covariance, NDArray[np.bool_]]:
    """Covariance after what has taught a map, and which pictures are unlike that, of features ``(N, F + 1)``."""
    with torch.no_grad():
        standard = found.standardised(torch.from_numpy(features).to(found.mean))
        unlike = found.unlike(standard[:, :-1]) > 0
    phi = _numbers(standard) * _numbers(found.strength)
    covariance = features_after(phi, _numbers(found.factor), _numbers(found.drift), float(found.centre_variance))
    return covariance, unlike.cpu().numpy()


def _covariance(scorer: Scorer, seen: _Seen, found: FeatureMap | None) -> tuple[Covariance, NDArray[np.bool_]]:
    """What is believed of the pictures, and which are unlike those that have been rated."""
    if found is not None:
        return _after_ratings(found, np.column_stack([*seen.features.values()]))
    side = _base(scorer).side
    found_there = {} if side is None else side.known()
    known = {name: (_numbers(mean), _numbers(spread)) for name, (mean, spread) in found_there.items()}
    return features_alone(seen.features, known), np.zeros(len(seen.places), dtype=bool)


def _kept(given: Sequence[Any], say: Callable[[str], None]) -> list[int]:
    """Places of the pictures that are looked at."""
    sources = {at: source for at, picture in enumerate(given) if (source := _source(picture)) is not None}
    places = [*sources]
    copies = {at for at, first in zip(places, first_copies([*sources.values()]), strict=True) if places[first] != at}
    kept = [at for at in range(len(given)) if at not in copies]
    if copies:
        say(f"copies of other pictures, left out: {len(copies)}")
    if len(kept) > LARGEST:
        say(f"{LARGEST} of {len(kept)} pictures are looked at, evenly spaced")
        kept = [kept[at] for at in np.linspace(0, len(kept) - 1, LARGEST).round().astype(int)]
    return kept


def _look(scorer: Scorer, given: Sequence[Any], kept: Sequence[int], tell: Tell, say: Callable[[str], None]) -> _Seen:
    """Features of the pictures that can be read."""
    parts: list[dict[str, Tensor]] = []
    places: list[int] = []
    wrong: Counter[str] = Counter()
    for chunk in iter_views(kept, lambda at: scorer.views(given[at]), batch_size=_TOGETHER):
        good = [(at, views) for at, views in chunk if isinstance(views, Tensor)]
        wrong.update(found.code for _, found in chunk if isinstance(found, ImageError))
        if good:
            parts += _features(scorer, torch.stack([views for _, views in good]))
            places += [at for at, _ in good]
        tell("look at pictures", min((chunk[-1][0] + 1) / (kept[-1] + 1), 1.0))
    if wrong:
        said = ", ".join(f"{count} {code}" for code, count in sorted(wrong.items()))
        say(f"pictures that cannot be read, left out: {said}")
    features = {name: _numbers(torch.cat([part[name] for part in parts])) for name in (parts[0] if parts else ())}
    return _Seen(places, features, _rated(scorer, [given[at] for at in places]))


def _features(scorer: Scorer, pixels: Tensor) -> list[dict[str, Tensor]]:
    """By group, in the order of a feature map: the embedding, the side network where it is seen, what the base says."""
    base, found = _base(scorer), _map_of(scorer)
    aside = base.side is not None and scorer.processor.has_tiles if found is None else len(found.groups) > 1
    anchored = describe(base.head)["name"] == AnchorHead.__name__
    parts = []
    with torch.inference_mode():
        for part in scorer.passes(pixels):
            seen = base.get_features(part, side=aside)
            groups = {EMBEDS: seen.pooled()}
            if aside:
                groups |= zip(base.side.groups, seen.side.split([*base.side.groups.values()], 1), strict=True)
            if anchored:
                with teacher_mode(scorer.model) if found is None else nullcontext():
                    logits = _anchor_logits(base, seen)
                groups["base"] = level_logit(logits, anchor_levels(base.config)).unsqueeze(1)
            parts.append(groups)
    return parts


def _anchor_logits(base: Any, features: Features) -> Tensor:
    """Of quality, without what a feature map adds."""
    layer, anchors = base.readout, base.get_anchor_embeds("quality")
    prompts = getattr(layer, "active_module", None)
    if prompts is not None:
        anchors = prompts.shift(anchors)
    return getattr(layer, "base_layer", layer)(features, anchors, base.clip.logit_scale)[0]  # type: ignore[no-any-return]


def _reasons(covariance: Covariance, chosen: Sequence[int], unlike: NDArray[np.bool_], rated: bool) -> list[str]:
    """Why each picture was chosen, in words."""
    variance = covariance.diagonal()
    scale = np.sqrt(np.maximum(variance, 1e-12))
    near = np.stack([covariance.row(at) / scale[at] for at in chosen]) / scale
    stands = np.bincount(near.argmax(0), minlength=len(chosen))
    unsure = variance >= np.quantile(variance, _UNSURE)
    found = []
    for place, at in enumerate(chosen):
        known = ["unlike the rated pictures"] if unlike[at] else []
        known += ["among those it is least sure of"] if rated and unsure[at] else []
        found.append("; ".join([*known, f"the closest choice for {stands[place]} of {len(variance)} pictures"]))
    return found


def _rated(scorer: Scorer, pictures: Sequence[Any]) -> NDArray[np.bool_]:
    """Which pictures have taught a scorer, by content."""
    known = KnownPictures(scorer.taught.contents.values() if scorer.taught is not None else ())
    sources = [_source(picture) for picture in pictures]
    return np.array([source is not None and bool(known.holds(source)) for source in sources], dtype=bool)


def _map_of(scorer: Scorer) -> FeatureMap | None:
    """The feature map of the active adapter."""
    readout = getattr(_base(scorer).readout, "active_module", None)
    return getattr(readout, "map", None)


def _base(scorer: Scorer) -> Any:
    model: Any = scorer.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _source(picture: Any) -> bytes | Path | None:
    """Where the bytes of a picture lie; None where it has none."""
    if isinstance(picture, Mapping):
        picture = picture.get("bytes") or picture.get("path")
    if isinstance(picture, str | os.PathLike):
        return Path(picture)
    return picture if isinstance(picture, bytes) else None


def _numbers(values: Tensor) -> Floats:
    found: Floats = values.detach().double().cpu().numpy()
    return found


def _silent(*_: Any) -> None:
    """Tell nobody."""
