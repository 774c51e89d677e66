from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grmp_hf.training.regularization import Gradients, alignment, global_unit, regularize, tensor_unit

NAMES = [f"layers.0.self_attn.{letter}_proj.{kind}" for letter in "qkv" for kind in ("weight", "bias")]
NAMES += ["prompts.first", "prompts.deep", "mlp.fc1.weight"]


def gradients(seed: int, dtype: torch.dtype = torch.float64) -> Gradients:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, 3, generator=generator, dtype=torch.float64).to(dtype) for name in NAMES}


def dot(left: Gradients, right: Gradients, names: list[str]) -> Tensor:
    return sum(((left[name] * right[name]).sum() for name in names), torch.zeros(()))


@pytest.mark.parametrize("strength", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("unit", [tensor_unit, global_unit])
@pytest.mark.parametrize("seed", range(4))
def test_the_agreeing_part_is_scaled_and_everything_else_untouched(strength: float, unit: object, seed: int) -> None:
    task, semantic = gradients(seed), gradients(seed + 100)
    result = regularize(task, semantic, strength, unit)  # type: ignore[arg-type]
    for key in {unit(name) for name in NAMES}:  # type: ignore[operator]
        names = [name for name in NAMES if unit(name) == key]  # type: ignore[operator]
        before = dot(task, semantic, names)
        if before > 0:
            torch.testing.assert_close(dot(result, semantic, names), (1 - strength) * before, atol=1e-12, rtol=1e-10)
            scale = {name: (task[name] - result[name]) / semantic[name] for name in names}
            flat = torch.cat([value.flatten() for value in scale.values()])
            torch.testing.assert_close(flat, flat[:1].expand_as(flat), atol=1e-10, rtol=1e-8)
        else:
            assert all(torch.equal(result[name], task[name]) for name in names)


def test_units_differ() -> None:
    task, semantic = gradients(0), gradients(100)
    per_tensor, together = regularize(task, semantic, 5.0), regularize(task, semantic, 5.0, global_unit)
    assert any(not torch.equal(per_tensor[name], together[name]) for name in NAMES)
    groups = {tensor_unit(name) for name in NAMES}
    assert len(groups) == 5


def test_no_semantic_gradient_is_zero() -> None:
    task, semantic = gradients(0), gradients(0)
    absent = {name: grad for name, grad in semantic.items() if name != "prompts.first"}
    zero = {**semantic, "prompts.first": torch.zeros(4, 3)}
    for unit in (tensor_unit, global_unit):
        left, right = regularize(task, absent, 5.0, unit), regularize(task, zero, 5.0, unit)
        assert all(torch.equal(left[name], right[name]) for name in NAMES)
    assert torch.equal(regularize(task, absent, 5.0)["prompts.first"], task["prompts.first"])
    assert regularize(task, {}, 5.0) == task


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -math.inf])
def test_a_semantic_gradient_that_is_zero_or_not_finite_changes_nothing(value: float) -> None:
    task = gradients(0)
    broken = {name: torch.full_like(grad, value) for name, grad in task.items()}
    for unit in (tensor_unit, global_unit):
        result = regularize(task, broken, 5.0, unit)
        assert all(torch.equal(result[name], task[name]) for name in NAMES)


def test_strength_zero_changes_nothing_and_inputs_stay() -> None:
    task, semantic = gradients(0), gradients(0)
    result = regularize(task, semantic, 0.0)
    regularize(task, semantic, 5.0)
    assert all(torch.equal(result[name], task[name]) for name in NAMES)
    assert all(torch.equal(task[name], gradients(0)[name]) for name in NAMES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_are_taken_in_single_precision(dtype: torch.dtype) -> None:
    task = {"x": torch.full((1000,), 30.0, dtype=dtype)}  # |x|^2 = 9e5: too large for half precision
    result = regularize(task, task, 1.0)["x"]
    assert result.dtype == dtype and not result.any()


def test_alignment() -> None:
    task = gradients(0)
    assert alignment(task, task).item() == pytest.approx(1)
    assert alignment(task, {name: -2 * grad for name, grad in task.items()}).item() == pytest.approx(-1)
    assert alignment(task, {name: torch.zeros_like(grad) for name, grad in task.items()}).item() == 0
    assert alignment(task, {}).item() == 0
