"""LoDa's own parameter names and ours, complete in both directions; the CNN and the ViT are left out."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError

__all__ = ["from_loda_state_dict", "to_loda_state_dict"]

_PARTS = {
    "down_proj.{}.fc1": "blocks.{}.down.0",
    "down_proj.{}.fc2": "blocks.{}.down.2",
    "cross_attn.{}.q": "blocks.{}.attention.q",
    "cross_attn.{}.kv": "blocks.{}.attention.kv",
    "cross_attn.{}.proj": "blocks.{}.attention.out",
    "up_proj.{}.fc1": "blocks.{}.up.0",
    "up_proj.{}.fc2": "blocks.{}.up.2",
    "conv.{}.0": "extractor.stages.{}.0",
    "conv.{}.2": "extractor.stages.{}.2",
}
_SCALES, _HEAD, _DIRECTION = "scale_factor", "head.weight", "head.direction"


def from_loda_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What LoDa learns, under our names.

    Args:
        state_dict: ``conv``, ``down_proj``, ``cross_attn``, ``up_proj``, ``scale_factor`` ``(L, W)`` and
            ``head.weight`` ``(W, 1)``; the ``module.`` prefix of data-parallel training is known.

    Returns:
        State of a :class:`~grmp_hf.modeling.injection.LocalFeatures`, and ``head.direction`` ``(W,)`` of a
        :class:`~grmp_hf.modeling.linear_heads.Cosine`.

    Raises:
        GRMPError: a key that is none of them, or no scales or head.
    """
    source = {name.removeprefix("module."): value for name, value in state_dict.items()}
    missing = [name for name in (_SCALES, _HEAD) if name not in source]
    unknown = sorted(name for name in source.keys() - {_SCALES, _HEAD} if _renamed(name, _PARTS) is None)
    if missing or unknown:
        raise GRMPError(
            f"Expected what LoDa learns, missing: {missing or 'none'}, unknown: {unknown or 'none'}. "
            + ("Give all that it has learnt." if missing else "Leave out the weights of its ViT and its CNN.")
        )
    scales, direction = source.pop(_SCALES), source.pop(_HEAD).flatten()
    found = {f"{_renamed(name, _PARTS)}": value for name, value in source.items()}
    return {**found, **{f"blocks.{at}.scale": scale for at, scale in enumerate(scales)}, _DIRECTION: direction}


def to_loda_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`from_loda_state_dict`.

    Raises:
        GRMPError: a key for which the authors have no name, or no head.
    """
    names = {ours: theirs for theirs, ours in _PARTS.items()}
    source = {name: value for name, value in state.items() if not re.fullmatch(r"blocks\.\d+\.scale", name)}
    scales = [state[f"blocks.{at}.scale"] for at in range(len(state) - len(source))]
    direction = source.pop(_DIRECTION, None)
    unknown = sorted(name for name in source if _renamed(name, names) is None)
    if unknown or direction is None:
        raise GRMPError(f"Expected local features and {_DIRECTION}, got {unknown or 'no head'}. Leave out the rest.")
    found = {f"{_renamed(name, names)}": value for name, value in source.items()}
    return {**found, _SCALES: torch.stack(scales), _HEAD: direction[:, None]}


def _renamed(name: str, names: Mapping[str, str]) -> str | None:
    """A parameter under its other name; None where it has none."""
    for here, there in names.items():
        pattern = re.escape(here).replace(r"\{\}", r"(\d+)")
        found = re.fullmatch(rf"{pattern}\.(weight|bias)", name)
        if found is not None:
            return f"{there.format(found[1])}.{found[2]}"
    return None
