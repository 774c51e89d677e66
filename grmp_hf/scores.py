"""What scoring gives: scores of some pictures, and a row of a table for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScoredPicture", "Scores", "remedy"]


class Scores(NamedTuple):
    """Scores of B pictures.

    Attributes:
        quality: ``(B,)`` in [0, 1], 1 = best.
        score: ``(B,)``, the same on the scorer's scale.
        low, high: ``(B,)``, on that scale: between them a new rating lies, in 90 of 100 cases unless told otherwise;
            None where the scorer does not know how sure it is.
        unlike: ``(B,)`` of bool, pictures that are unlike those that have taught it; None likewise.
        explained: ``(B,)``, an :class:`~grmp_hf.explaining.Explained` of each picture, where asked for; else None.
        experts: ``(B, E)``, how much each expert counted, rows summing to 1, in the order of the scorer's
            ``model.names``; None for a scorer without experts.
    """

    quality: NDArray[np.float64]
    score: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    unlike: NDArray[np.bool_] | None = None
    explained: NDArray[np.object_] | None = None
    experts: NDArray[np.float64] | None = None

    def of(self, at: int) -> Scores:
        """Those of one picture."""
        return Scores._make(None if column is None else column[at] for column in self)


class ScoredPicture(NamedTuple):
    """One row of a table of scores.

    Attributes:
        path: as it was given.
        score: on the scorer's scale, rounded to six digits after the point, to more where the scale is short; None for
            a bad picture.
        quality: in [0, 1], 1 = best, rounded to six digits; None for a bad picture.
        status: "ok", "not_finite", or one of ``grmp_hf.data.IMAGE_ERROR_CODES``.
        message: what is wrong and what to do; empty for a good picture.
        warning: "damaged" for a picture that was scored although a part of its data is lost; else empty.
        low, high, unlike: see :class:`Scores`; None where they are not known.
        distortion, scene: the most likely ones, with their probabilities; None where nobody asked.
        explanation: the likely ones in words, "blur .71, noise .12; night .80"; None likewise.
        experts: name -> how much an expert counted, rounded to six digits; None for a scorer without experts.
    """

    path: str
    score: float | None
    quality: float | None
    status: str
    message: str
    warning: str = ""
    low: float | None = None
    high: float | None = None
    unlike: bool | None = None
    distortion: str | None = None
    distortion_probability: float | None = None
    scene: str | None = None
    scene_probability: float | None = None
    explanation: str | None = None
    experts: dict[str, float] | None = None


def remedy(identity: Mapping[str, Any]) -> str:
    """What to do where the model of a scorer gives no number."""
    whole = identity.get("dtype") == "float32"
    return "look for weights that are not finite" if whole else "use fp32 (--dtype, dtype=)"
