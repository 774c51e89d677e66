"""What two pathways say of pictures, a high-level and a low-level one: regressions, and a score without labels.

After GRepQ (arXiv 2312.04838). Letters in shapes: n pictures, P patches of a picture, d features.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grmp_hf.benchmark.kernels import GRIDS, ridge_cv, svr
from grmp_hf.benchmark.methods import Method, Regression, Regressor, ridge
from grmp_hf.benchmark.watching import Fitted, Observer
from grmp_hf.data.listing import list_images
from grmp_hf.data.opening import read_content
from grmp_hf.data.photographs import read_photographs
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import handmade_statistics
from grmp_hf.evaluation.pristine import (
    COLOURFUL,
    PATCH,
    SHARP,
    Moments,
    distance,
    moments,
    patches,
    pristine_moments,
    zero_shot_score,
)
from grmp_hf.features import OwnColumns, Pictures, Viewed
from grmp_hf.hub import adapter_sha256, load
from grmp_hf.modeling.linear_heads import end_anchors
from grmp_hf.modeling.low_level import load_encoder
from grmp_hf.scoring import Scorer

__all__ = ["COLUMNS", "grepq", "grepq_zero_shot"]

Floats = NDArray[np.float64]

COLUMNS = ("side", "statistics")
"""Low-level features that need no encoder: of the base's side network, and the hand-made statistics."""

_REGRESSORS: Mapping[str, Regressor] = {"ridge": ridge, "ridge_cv": ridge_cv, "svr": svr}


class _Pathway(NamedTuple):
    """Features of one pathway.

    Attributes:
        column: in which they are found.
        about: what decides about them, for the settings.
        own: how they are computed, where not every method knows them.
    """

    column: str
    about: str
    own: OwnColumns = OwnColumns()


def grepq(
    name: str, base: Scorer, low_level: str = "side", high_level: str | None = None, regressor: str = "ridge"
) -> Method:
    """A regression on both pathways' features, side by side.

    Args:
        name: in the results.
        base: a scorer without adapter.
        low_level: one of :data:`COLUMNS`, or the folder of a low-level encoder.
        high_level: folder of an adapter of the base, whose embedding is taken; None for that of the base.
        regressor: ``"ridge"`` (as the baseline on the embedding), ``"ridge_cv"`` (scikit-learn's, with the strengths of
            the paper, on features as they are) or ``"svr"``.

    Raises:
        GRMPError: an unknown regressor, no such encoder or adapter, or a base without a side network.
    """
    if regressor not in _REGRESSORS:
        raise GRMPError(f"regressor: expected one of {', '.join(_REGRESSORS)}, got {regressor!r}")
    pathways = (_high_level(base, high_level), _low_level(base, low_level))
    about = {"method": "grepq", "regressor": regressor, **GRIDS.get(regressor, {})}
    about |= {"high_level": pathways[0].about, "low_level": pathways[1].about}

    def features(pictures: Pictures) -> NDArray[Any]:
        return np.concatenate([np.asarray(pictures[pathway.column], np.float64) for pathway in pathways], axis=1)

    return Regression(name, features, _REGRESSORS[regressor], about, pathways[0].own | pathways[1].own)


def _high_level(base: Scorer, folder: str | None) -> _Pathway:
    if folder is None:
        return _Pathway("embeds", "base")
    adapted = load(adapter=folder, device=base.device)
    for what in ("base_fingerprint", "preprocessing"):
        if adapted.identity[what] != base.identity[what]:
            raise GRMPError(
                f"high_level: expected an adapter of the base {base.identity['model']}, with its views, got another "
                f"{what} in {folder}; learn it on this base"
            )
    sha = adapter_sha256(folder)

    def embeds(seen: Viewed) -> NDArray[Any]:
        found: NDArray[Any] = adapted.outputs(seen.pixels).image_embeds.float().cpu().numpy()
        return found

    column = f"high_level-{sha[:16]}"
    return _Pathway(column, sha, OwnColumns(of_views={column: embeds}))


def _low_level(base: Scorer, wanted: str) -> _Pathway:
    if wanted in COLUMNS:
        if wanted == "side" and getattr(base.model, "side", None) is None:
            raise GRMPError(
                "low_level: expected a base with a side network for 'side', got one without; take 'statistics', or the "
                "folder of a low-level encoder"
            )
        return _Pathway(wanted, wanted)
    encoder = load_encoder(wanted).to(base.device)
    column = f"low_level-{encoder.fingerprint[:16]}"
    return _Pathway(column, encoder.fingerprint, OwnColumns(of_pictures={column: encoder.describe}))


def grepq_zero_shot(name: str, base: Scorer, pristine: str | None = None, low_level: str = "statistics") -> Method:
    """The score without labels: the pair of prompts, and the distance of patches from pristine ones.

    Args:
        name: in the results.
        base: a scorer without adapter.
        pristine: folder of good photographs.
        low_level: what describes a patch: ``"statistics"``, or the folder of a low-level encoder.

    Raises:
        GRMPError: no photographs, or no such encoder.
    """
    if pristine is None:
        raise GRMPError("pristine: expected a folder of good photographs, got none; name one")
    if low_level == "side":
        raise GRMPError(
            f"low_level: expected statistics or the folder of a low-level encoder, which describe patches of {PATCH} "
            "pixels, got 'side'"
        )
    files = sorted(hashlib.sha256(read_content(path)).hexdigest() for path in list_images([pristine]).paths)
    contents = hashlib.sha256("".join(files).encode()).hexdigest()
    describe: Callable[[NDArray[np.uint8]], Floats] = _statistics
    about: dict[str, Any] = {"method": "grepq_zero_shot", "pristine": contents, "low_level": low_level}
    about |= {"patch": PATCH, "sharp": SHARP, "colourful": COLOURFUL}
    if low_level not in COLUMNS:
        encoder = load_encoder(low_level).to(base.device)
        describe, about["low_level"] = encoder.describe_patches, encoder.fingerprint
    decides = hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()
    return _ZeroShotDistance(name, base, _Distance(pristine, describe), about, f"distance-{decides[:16]}")


def _statistics(cut: NDArray[np.uint8]) -> Floats:
    return np.stack([handmade_statistics(patch) for patch in cut])


class _Distance:
    """Distance of a picture's patches from the pristine ones of a folder, which are described when it is first asked.

    Args:
        folder: of good photographs.
        describe: features of patches.
    """

    def __init__(self, folder: str, describe: Callable[[NDArray[np.uint8]], Floats]) -> None:
        self.folder, self.describe = folder, describe
        self._pristine: Moments | None = None
        self._lock = threading.Lock()  # pictures are looked at in threads

    def __call__(self, picture: NDArray[np.uint8]) -> Floats:
        with self._lock:
            if self._pristine is None:
                found = read_photographs(self.folder, PATCH, lambda whole: whole)
                self._pristine = pristine_moments(found.pictures, self.describe)
        return np.array(distance(self._pristine, moments(self.describe(patches(picture)))))


@dataclass(frozen=True)
class _ZeroShotDistance:
    """See :func:`grepq_zero_shot`; the sum of both terms is brought to [0, 1]."""

    name: str
    base: Scorer
    apart: _Distance
    about: Mapping[str, Any]
    column: str
    needs_shots = False
    trains_by_steps = False

    @property
    def own(self) -> OwnColumns:
        """The distance."""
        return OwnColumns(of_pictures={self.column: self.apart})

    @property
    def columns(self) -> tuple[str, ...]:
        """Its name."""
        return (self.column,)

    def settings(self) -> dict[str, Any]:
        """As given, places by their contents."""
        return dict(self.about)

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Nothing is learnt."""
        return Fitted(lambda pictures: zero_shot_score(self._lead(pictures), pictures[self.column]) / 1.5, dict)

    def _lead(self, pictures: Pictures) -> Floats:
        """By how much the best anchor is nearer than the worst one, (n,)."""
        best, worst = (anchor.detach().double().cpu().numpy() for anchor in end_anchors(self.base.model))
        lead: Floats = pictures["embeds"] @ (best - worst)
        return lead
