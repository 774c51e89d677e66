"""Heads as the record of an adapter names them: described, made anew, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.heads import AnchorHead, Head
from grmp_hf.modeling.linear_heads import Cosine, Cosines, MeanSigma, Projected
from grmp_hf.modeling.map_head import MapHead
from grmp_hf.modeling.two_stream import TwoStreamHead

__all__ = ["HAND_IN", "acting", "check_kept", "describe", "rebuild", "require_anchors"]

HAND_IN = "Make it yourself and hand it in, in Python: grmp_hf.load(..., head=...)."
"""What to do about a head that is not of this package."""

# Those that a record may name.
_HEADS = {kind.__name__: kind for kind in (AnchorHead, Cosine, Cosines, MapHead, MeanSigma, Projected, TwoStreamHead)}


def acting(head: Any) -> nn.Module:
    """A head, or the copy of it that the active adapter holds."""
    copies = getattr(head, "modules_to_save", {})
    own: nn.Module = getattr(head, "original_module", head)
    return next((copies[name] for name in copies if name in head.active_adapters), own)


def describe(head: nn.Module) -> dict[str, Any]:
    """A head as a record holds it: its name and settings. An adapter's trained copy counts as the head itself."""
    head = acting(head)
    return {"name": type(head).__name__, "settings": head.settings() if isinstance(head, Head) else {}}


def rebuild(described: Mapping[str, Any], given: nn.Module | None = None, remedy: str = HAND_IN) -> nn.Module:
    """The head that a record describes.

    No code is looked up by a record's word: heads of this package are made anew, any other has to be handed in.

    Args:
        described: from :func:`describe`.
        given: a head of the same class.
        remedy: what to do about one that is not of this package, for the message.

    Raises:
        GRMPError: the record names a head that is neither in this package nor given, or another than the given one.
    """
    name = described.get("name")
    if given is not None:
        if type(given).__name__ != name:
            raise GRMPError(f"Expected the head {name!r} that is recorded, got {type(given).__name__!r}. Give that.")
        return given
    kind = _HEADS.get(str(name))
    if kind is None:
        raise GRMPError(
            f"Expected a head out of {', '.join(_HEADS)}, got {name!r}, which is none of this package. {remedy}"
        )
    try:
        return kind(**described.get("settings", {}))
    except TypeError as error:
        raise GRMPError(
            f"Expected settings of the head {name!r}, got {described.get('settings')!r}. If it is a head of your own, "
            "hand it in, in Python: grmp_hf.load(..., head=...)."
        ) from error


def check_kept(model: Any) -> None:
    """Raise where saving a model's adapter would leave out what its head has learnt.

    Args:
        model: a ``PeftModel``, or a model without adapter.

    Raises:
        GRMPError: the head has weights, and no adapter that acts holds them.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = getattr(base, "head", None)
    if head is None:
        return
    own = acting(head)
    if own is getattr(head, "original_module", head) and next(own.parameters(), None) is not None:
        raise GRMPError(
            f"Expected an adapter that holds the head {describe(head)['name']!r}, whose weights are no part of the "
            "base, got none. Put one around the model whose config says modules_to_save=['head']."
        )


def require_anchors(model: Any, what: str) -> None:
    """Raise where something that is about anchors meets a model that has another head.

    Args:
        model: the base of an adapter, or a model without one.
        what: what needs anchors.

    Raises:
        GRMPError: its head is not that of the anchors.
    """
    name = describe(model.head)["name"]
    if name != AnchorHead.__name__:
        raise GRMPError(f"Expected a model with the head AnchorHead {what}, got {name!r}.")
