"""Sentences that combine a level of quality, a scene and a distortion, as quality anchors with named axes.

Source: Zhang, Zhai, Wei, Yang and Ma, "Blind image quality assessment via vision-language correspondence: a multitask
learning perspective" (CVPR 2023): five levels, nine scenes and eleven distortions, 495 sentences.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.configuration_grmp import LEVEL, SCENES

__all__ = ["AXES", "DISTORTION", "SCENE", "WORDS", "sentences", "template_anchors"]

SCENE, DISTORTION = "scene", "distortion"

WORDS: Mapping[str, str] = {
    "jpeg2000": "jpeg2000 compression",
    "jpeg": "jpeg compression",
}
"""Of the values of an axis, those that a sentence calls by another word."""

AXES: Mapping[str, tuple[str, ...]] = {
    LEVEL: ("bad", "poor", "fair", "good", "perfect"),
    SCENE: SCENES,
    DISTORTION: (
        *("jpeg2000", "jpeg", "noise", "blur", "color", "contrast", "overexposure", "underexposure", "spatial"),
        *("quantization", "other"),
    ),
}
"""Name of an axis -> its values, in the published order; levels from worst to best."""

_PHRASES = {SCENE: " of a {}", DISTORTION: " with {} artifacts", LEVEL: ", which is of {} quality"}


def sentences(axes: Mapping[str, Sequence[str]] = AXES) -> list[str]:
    """A sentence for each combination of values, the last axis changing fastest.

    Args:
        axes: name -> values, in any order and of any subset of ``"level"``, ``"scene"`` and ``"distortion"``.

    Raises:
        GRMPError: another axis, or none.

    >>> sentences({"scene": ["night"], "distortion": ["jpeg", "blur"]})
    ['a photo of a night with jpeg compression artifacts', 'a photo of a night with blur artifacts']
    >>> len(sentences()), sentences()[0]
    (495, 'a photo of a animal with jpeg2000 compression artifacts, which is of bad quality')
    """
    unknown = [name for name in axes if name not in _PHRASES]
    if unknown or not axes:
        raise GRMPError(
            f"Expected axes out of {', '.join(_PHRASES)}, got {', '.join(unknown) or 'none'}. Give quality_anchors of "
            "your own for others."
        )
    found = []
    for place in itertools.product(*axes.values()):
        said = dict(zip(axes, place, strict=True))
        parts = (phrase.format(WORDS.get(said[name], said[name])) for name, phrase in _PHRASES.items() if name in said)
        found.append("a photo" + "".join(parts))
    return found


def template_anchors(axes: Mapping[str, Sequence[str]] = AXES) -> dict[str, Any]:
    """Fields of a :class:`~grmp_hf.GRMPConfig` whose quality anchors are :func:`sentences`::

        model = GRMPForImageQualityAssessment.from_pretrained("a-clip", **template_anchors())

    Args:
        axes: as for :func:`sentences`, ``"level"`` among them, from worst to best.

    Returns:
        ``quality_anchors``, ``quality_levels``, evenly from 0 to 1, and ``quality_axes``.

    Raises:
        GRMPError: fewer than two levels, or other axes.

    >>> template_anchors({"level": ["bad", "fair", "perfect"]})["quality_levels"]
    [0.0, 0.5, 1.0]
    """
    count = len(axes.get(LEVEL, ()))
    if count < 2:
        raise GRMPError(f"Expected at least two values of the axis {LEVEL!r}, from worst to best, got {count}.")
    return {
        "quality_anchors": sentences(axes),
        "quality_levels": [at / (count - 1) for at in range(count)],
        "quality_axes": [[name, list(values)] for name, values in axes.items()],
    }
