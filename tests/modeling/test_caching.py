from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from grmp_hf.modeling.caching import WeightCache, acting_adapters, acting_weights, adapter_state, disabled_adapters


class Counted:
    """Sums two weights and counts how often."""

    def __init__(self) -> None:
        self.module = nn.Linear(3, 3)
        self.cache: WeightCache[torch.Tensor] = WeightCache()
        self.calls = 0

    def compute(self) -> torch.Tensor:
        self.calls += 1
        return self.module.weight.sum() + self.module.bias.sum()

    @torch.no_grad()
    def get(self, extra: object = None) -> torch.Tensor:
        return self.cache.get(self.module.parameters(), extra, self.compute)


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_computed_once_while_nothing_changes(counted: Counted) -> None:
    first = counted.get()
    assert all(counted.get() is first for _ in range(3)) and counted.calls == 1


def step(counted: Counted, **options: object) -> None:
    optimizer = torch.optim.AdamW(counted.module.parameters(), **options)  # type: ignore[arg-type]
    counted.module(torch.ones(1, 3)).sum().backward()
    optimizer.step()


CHANGES: dict[str, Callable[[Counted], object]] = {
    "optimizer step": step,
    "fused optimizer step": lambda c: step(c, fused=True),
    "load_state_dict": lambda c: c.module.load_state_dict(nn.Linear(3, 3).state_dict()),
    "load_state_dict, assigned": lambda c: c.module.load_state_dict(nn.Linear(3, 3).state_dict(), assign=True),
    "replaced": lambda c: setattr(c.module, "weight", nn.Parameter(torch.ones(3, 3))),
    "cast": lambda c: c.module.double(),
    "in place": lambda c: nn.init.ones_(c.module.bias),
    "through data": lambda c: c.module.weight.data.mul_(1.5),
    "data replaced": lambda c: setattr(c.module.weight, "data", torch.ones(3, 3)),
    "cleared": lambda c: c.cache.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_computed_again_after(counted: Counted, change: Callable[[Counted], object]) -> None:
    counted.get()
    change(counted)
    assert torch.equal(counted.get(), counted.compute()) and counted.calls == 3


def test_a_cast_there_and_back_is_a_change(counted: Counted) -> None:
    for _ in range(100):  # the allocator may give the same address again
        nn.init.normal_(counted.module.weight)
        counted.get()
        counted.module.bfloat16().float()
        assert torch.equal(counted.get(), counted.compute())


def test_steps_of_other_models_do_not_matter_to_frozen_weights(counted: Counted) -> None:
    counted.module.requires_grad_(False)
    counted.get()
    step(Counted())
    counted.get()
    assert counted.calls == 1


def test_each_thing_that_matters_has_a_slot(counted: Counted) -> None:
    assert [counted.get(extra) is not None and counted.calls for extra in ("a", "a", "b", "a", "b")] == [1, 1, 2, 2, 2]
    nn.init.ones_(counted.module.bias)
    assert [counted.get(extra) is not None and counted.calls for extra in ("b", "a", "a")] == [3, 4, 4]


def test_of_many_slots_the_latest_are_kept(counted: Counted) -> None:
    assert [counted.get(extra) is not None and counted.calls for extra in (0, 1, 2, 3, 0, 4, 0, 1)] == [
        *(1, 2, 3, 4),
        *(4, 5, 4 + 1, 6),
    ]


def test_values_do_not_keep_weights_alive(counted: Counted) -> None:
    counted.get()
    storage = weakref.ref(counted.module.weight.untyped_storage())
    counted.module.double()
    gc.collect()
    assert storage() is None


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_a_write_to_the_whole_of_a_large_weight(layout: str) -> None:
    counted = Counted()
    weight = torch.randn(500, 33) if layout == "rows" else torch.randn(33, 500).T
    counted.module.weight = nn.Parameter(weight)
    counted.get()
    counted.module.weight.data.add_(1e-6)
    assert torch.equal(counted.get(), counted.compute()) and counted.calls == 3


def test_nothing_is_kept_while_gradients_are_recorded(counted: Counted) -> None:
    for _ in range(2):
        counted.cache.get(counted.module.parameters(), None, counted.compute).backward()
    assert counted.calls == 2
    counted.get()
    assert counted.calls == 3


def test_a_value_of_inference_mode_stays_there(counted: Counted) -> None:
    with torch.inference_mode():
        assert counted.get().is_inference()
    assert not counted.get().is_inference()


def test_weights_made_in_inference_mode_are_not_kept() -> None:
    with torch.inference_mode():
        counted = Counted()
        counted.get(), counted.get()
    assert counted.calls == 2


def test_autocast_has_values_of_its_own(counted: Counted) -> None:
    counted.get()
    with torch.autocast("cpu", torch.bfloat16):
        counted.get()
    assert counted.calls == 2
    with torch.autocast("cpu", torch.float16):
        counted.get()
    assert counted.calls == 3


@pytest.mark.parametrize("again", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_copies_start_empty(counted: Counted, again: Callable[[object], WeightCache[torch.Tensor]]) -> None:
    counted.get()
    counted.cache = again(counted.cache)
    counted.get()
    assert counted.calls == 2


def make_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def test_adapters_that_do_not_act_do_not_matter() -> None:
    config = LoraConfig(target_modules=["0"], modules_to_save=["2"])
    model = get_peft_model(make_model(), config)
    model.add_adapter("other", config)

    def acting() -> set[str]:
        names = {id(weight): name for name, weight in model.named_parameters()}
        return {names[id(weight)].removeprefix("base_model.model.") for weight in acting_weights(model)}

    base = {f"0.base_layer.{kind}" for kind in ("weight", "bias")} | {"1.weight", "1.bias"}
    base |= {f"2.original_module.{kind}" for kind in ("weight", "bias")}
    states = [adapter_state(model)]
    for name in ("default", "other"):
        model.set_adapter(name)
        own = {f"0.lora_{part}.{name}.weight" for part in "AB"}
        assert acting() == base | own | {f"2.modules_to_save.{name}.{kind}" for kind in ("weight", "bias")}
    states.append(adapter_state(model))
    with model.disable_adapter():
        assert acting() == base
        states.append(adapter_state(model))
    layer = model.get_base_model()[0]
    assert list(map(id, acting_weights(layer, without=layer))) == list(map(id, layer.base_layer.parameters()))
    model.merge_adapter()
    states.append(adapter_state(model))
    assert len(set(states)) == 4


def test_an_adapter_that_is_disabled_in_a_layer_does_not_act() -> None:
    model: Any = get_peft_model(make_model(), LoraConfig(target_modules=["0"], modules_to_save=["2"]))  # type: ignore[arg-type]
    assert [*acting_adapters(model)] == ["default"]
    with model.disable_adapter():
        assert not acting_adapters(model) and disabled_adapters(model) == {"default"}
    model.add_adapter("second", LoraConfig(target_modules=["0"]))
    model.set_adapter("second")  # for which PEFT disables what the first has saved
    assert [*acting_adapters(model)] == ["second"] and "second" not in disabled_adapters(model)
    model.set_adapter("default")
    assert [*acting_adapters(model)] == ["default"]
    model.get_base_model()[0].enable_adapters(False)
    assert not acting_adapters(model)
