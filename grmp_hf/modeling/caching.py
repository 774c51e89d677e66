"""Remember what depends on weights alone, and forget it when one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["WeightCache"]

T = TypeVar("T")


_steps = 0


def _count_step(*_: Any) -> None:
    global _steps
    _steps += 1


# Fused optimizers write weights without raising their version.
register_optimizer_step_post_hook(_count_step)


def _fingerprint(weights: Sequence[Tensor]) -> tuple[Hashable, ...] | None:
    """Identity, place, type and version of each tensor; None where one keeps no version (inference tensors)."""
    if any(weight.is_inference() for weight in weights):
        return None
    trained = any(weight.requires_grad for weight in weights)
    return (
        _steps if trained else 0,
        *((id(w), w.data_ptr(), w.dtype, w.device, w._version) for w in weights),
    )


def _autocast(device: str) -> Hashable:
    """In which type a kind of device computes at this moment; None for that of the weights."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class WeightCache(Generic[T]):
    """One value computed from weights, kept until a weight is replaced, moved, cast or written in place.

    Nothing is kept while gradients are being recorded. A write through ``weight.data`` leaves no trace that torch would
    count: call :meth:`clear` after one (``model.train()`` does).
    """

    def __init__(self) -> None:
        self._key: Hashable | None = None
        self._value: T | None = None
        # While a storage lives no other weight can have its address.
        self._storages: list[Any] = []

    def clear(self) -> None:
        """Forget the value."""
        self._key, self._value, self._storages = None, None, []

    def get(self, weights: Iterable[Tensor], extra: Hashable, compute: Callable[[], T]) -> T:
        """Return the kept value if ``weights`` and ``extra`` are what they were, else ``compute()``, and keep that.

        Args:
            weights: every tensor that the value depends on.
            extra: everything else that it depends on.
            compute: gives the value.
        """
        weights = list(weights)
        fingerprint = None if torch.is_grad_enabled() else _fingerprint(weights)
        if fingerprint is None:
            return compute()
        key = (fingerprint, extra, torch.is_inference_mode_enabled(), *map(_autocast, {w.device.type for w in weights}))
        if self._value is None or key != self._key:
            self._value, self._key = compute(), key
            self._storages = [weight.untyped_storage() for weight in weights]
        return self._value

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightCache[T]:
        return WeightCache()

    def __getstate__(self) -> dict[str, Any]:
        return WeightCache().__dict__
