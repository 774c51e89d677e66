"""Remember what depends on weights alone, and forget it when one of them changes; which adapters act in a model."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from grmp_hf.errors import GRMPError

__all__ = [
    "WeightCache",
    "acting_adapters",
    "acting_weights",
    "adapter_state",
    "check_acting",
    "disabled_adapters",
]

T = TypeVar("T")

_SLOTS = 4  # a model's own, its teacher's, and those of two more adapters or precisions
_SAMPLES = 16

_steps = 0


def _count_step(*_: Any) -> None:
    global _steps
    _steps += 1


# Fused optimizers write weights without raising their version.
register_optimizer_step_post_hook(_count_step)


def _adapter_layers(module: nn.Module) -> Iterator[Any]:
    return (child for child in module.modules() if hasattr(child, "_disable_adapters"))


def _acting(layer: Any) -> tuple[str, ...]:
    return () if layer._disable_adapters else tuple(layer.active_adapters)


def adapter_state(module: nn.Module, *, without: nn.Module | None = None) -> tuple[tuple[Any, ...], ...]:
    """Of each adapter layer in a module: the adapters that act, and those that are merged into its weights.

    Args:
        without: a layer that does not matter.
    """
    layers = (layer for layer in _adapter_layers(module) if layer is not without)
    return tuple((_acting(layer), tuple(getattr(layer, "merged_adapters", ()))) for layer in layers)


def acting_weights(module: nn.Module, *, without: nn.Module | None = None) -> list[Tensor]:
    """The weights of a module that decide about its output: its own, and those of the adapters that act.

    Args:
        without: an adapter layer whose adapters do not matter.
    """
    idle: set[int] = set()
    for layer in _adapter_layers(module):
        acting = () if layer is without else _acting(layer)
        for container in (getattr(layer, name) for name in layer.adapter_layer_names):
            idle.update(id(weight) for name, kept in container.items() if name not in acting for weight in _all(kept))
    return [weight for weight in module.parameters() if id(weight) not in idle]


def acting_adapters(model: nn.Module) -> dict[str, list[Any]]:
    """Name -> configs of the adapters that act in a model, put there by whomever; of experts, those of all of them.

    An adapter that is disabled in any of its layers is none of them.
    """
    layers: Any = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    active = {name for layer in layers for name in layer.active_adapters} - disabled_adapters(model)
    holders: Any = (module for module in model.modules() if isinstance(getattr(module, "peft_config", None), dict))
    held = {id(holder.peft_config): holder.peft_config for holder in holders}.values() if layers else ()
    return {name: [configs[name] for configs in held if name in configs] for name in sorted(active)}


def disabled_adapters(model: nn.Module) -> set[str]:
    """Names of the adapters that would act in a model, were they not disabled in a layer."""
    return {name for layer in _adapter_layers(model) if layer._disable_adapters for name in layer.active_adapters}


def check_acting(model: nn.Module, before: dict[str, list[Any]], name: str | None) -> None:
    """Raise unless the adapters that act in a model are those of before.

    Args:
        model: of a scorer.
        before: what :func:`acting_adapters` said when it was made.
        name: what the scorer calls its adapter.

    Raises:
        GRMPError: others act by now, or none does.
    """
    now = acting_adapters(model)
    same = now.keys() == before.keys() and all(
        len(now[key]) == len(before[key]) and all(map(operator.is_, now[key], before[key])) for key in now
    )
    if same:
        return
    disabled = [] if now else sorted(disabled_adapters(model) & before.keys())
    found = f"the adapter {_quoted(disabled)} is disabled" if disabled else _named(now, None)
    remedy = (
        "Enable it again, or load a scorer of the base with grmp_hf.load(base)."
        if disabled
        else "Load a scorer for each adapter with grmp_hf.load(adapter=...)."
    )
    raise GRMPError(
        f"Expected the model as this scorer was made with it ({_named(before, name)}), got one in which {found}; its "
        f"scale would not be that of the scores. {remedy}"
    )


def _named(acting: dict[str, list[Any]], name: str | None) -> str:
    called = "" if name is None else f" ({name})"
    return f"the adapter {_quoted(acting)}{called} acts" if acting else "no adapter acts"


def _quoted(names: Any) -> str:
    return ", ".join(map(repr, names))


def _all(kept: Any) -> Iterable[Tensor]:
    return kept.parameters() if isinstance(kept, nn.Module) else [kept]


def _places(weights: Sequence[Tensor]) -> tuple[Hashable, ...]:
    """Identity, memory, type and version of each tensor."""
    # A reference that is dead equals no other: an address that is given again is not taken for the same memory.
    places = ((id(w), weakref.ref(w.untyped_storage()), w.data_ptr(), w.dtype, w._version) for w in weights)
    return (_steps if any(weight.requires_grad for weight in weights) else 0, *places)


def _samples(weights: Sequence[Tensor]) -> list[Tensor]:
    """A few numbers of each tensor, joined by device: whoever writes a whole tensor changes them."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for weight in weights:
        flat = weight.detach().reshape(-1)
        by_device.setdefault(weight.device, []).append(flat[:: len(flat) // _SAMPLES or 1].float())
    return [torch.cat(parts) for parts in by_device.values()]


def _autocast(device: str) -> Hashable:
    """In which type a kind of device computes at this moment; None for that of the weights."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class _Slot(NamedTuple, Generic[T]):
    places: tuple[Hashable, ...]
    samples: list[Tensor]
    value: T


class WeightCache(Generic[T]):
    """Values computed from weights, each kept until a weight is replaced, moved, cast or written to.

    Whatever else a value depends on has a slot of its own, so that a model and its teacher keep theirs side by side.
    Nothing is kept while gradients are being recorded.

    Torch does not count what is written through ``weight.data``. Such a write is noticed where it changes one of some
    numbers at even distances over the tensor, so where it changes the whole tensor; after one to single rows call
    :meth:`clear` (``model.train()`` and ``model.eval()`` do where they change the mode).
    """

    def __init__(self) -> None:
        self._slots: dict[Hashable, _Slot[T]] = {}

    def clear(self) -> None:
        """Forget all values."""
        self._slots.clear()

    def get(self, weights: Iterable[Tensor], extra: Hashable, compute: Callable[[], T]) -> T:
        """Return the kept value if ``weights`` and ``extra`` are what they were, else ``compute()``, and keep that.

        Args:
            weights: every tensor that the value depends on.
            extra: everything else that it depends on.
            compute: gives the value.
        """
        weights = list(weights)
        # Inference tensors keep no version.
        if torch.is_grad_enabled() or any(weight.is_inference() or weight.is_meta for weight in weights):
            return compute()
        key = (extra, torch.is_inference_mode_enabled(), *map(_autocast, sorted({w.device.type for w in weights})))
        places, samples = _places(weights), _samples(weights)
        slot = self._slots.pop(key, None)
        if slot is None or places != slot.places or not all(map(torch.equal, samples, slot.samples)):
            slot = _Slot(places, samples, compute())
        self._slots[key] = slot  # the latest one last
        if len(self._slots) > _SLOTS:
            del self._slots[next(iter(self._slots))]
        return slot.value

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightCache[T]:
        return WeightCache()

    def __getstate__(self) -> dict[str, Any]:
        return WeightCache().__dict__
