"""Remember what depends on weights alone, and forget it when one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["WeightCache"]

T = TypeVar("T")


def _fingerprint(weights: Iterable[Tensor]) -> tuple[Hashable, ...] | None:
    """Identity, place, type and version of each tensor; None where one keeps no version (inference tensors)."""
    weights = tuple(weights)
    if any(weight.is_inference() for weight in weights):
        return None
    return tuple((id(w), w.data_ptr(), w.dtype, w.device, w._version) for w in weights)


class WeightCache(Generic[T]):
    """One value computed from weights, kept until a weight is replaced, moved, cast or written in place.

    Nothing is kept while gradients are being recorded. A write through ``weight.data`` leaves no trace that torch would
    count: call :meth:`clear` after one (``model.train()`` does).
    """

    def __init__(self) -> None:
        self._key: Hashable | None = None
        self._value: T | None = None

    def clear(self) -> None:
        """Forget the value."""
        self._key = self._value = None

    def get(self, weights: Iterable[Tensor], extra: Hashable, compute: Callable[[], T]) -> T:
        """Return the kept value if ``weights`` and ``extra`` are what they were, else ``compute()``, and keep that.

        Args:
            weights: every tensor that the value depends on.
            extra: everything else that it depends on.
            compute: gives the value.
        """
        fingerprint = None if torch.is_grad_enabled() else _fingerprint(weights)
        if fingerprint is None:
            return compute()
        mode = (torch.is_inference_mode_enabled(), *map(torch.is_autocast_enabled, ("cpu", "cuda")))
        key = (fingerprint, extra, mode)
        if self._value is None or key != self._key:
            self._value, self._key = compute(), key
        return self._value

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightCache[T]:
        return WeightCache()

    def __getstate__(self) -> dict[str, Any]:
        return {"_key": None, "_value": None}
