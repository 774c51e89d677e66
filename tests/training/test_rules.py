from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.gradients import Gradients
from grmp_hf.training.rules import alignment, global_unit, only, pull, regularize, tensor_unit, turn_away

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
    result = turn_away(task, semantic, strength, unit)  # type: ignore[arg-type]
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
    per_tensor, together = turn_away(task, semantic, 5.0), turn_away(task, semantic, 5.0, global_unit)
    assert any(not torch.equal(per_tensor[name], together[name]) for name in NAMES)
    groups = {tensor_unit(name) for name in NAMES}
    assert len(groups) == 5


def test_no_semantic_gradient_is_zero() -> None:
    task, semantic = gradients(0), gradients(0)
    absent = {name: grad for name, grad in semantic.items() if name != "prompts.first"}
    zero = {**semantic, "prompts.first": torch.zeros(4, 3)}
    for unit in (tensor_unit, global_unit):
        left, right = turn_away(task, absent, 5.0, unit), turn_away(task, zero, 5.0, unit)
        assert all(torch.equal(left[name], right[name]) for name in NAMES)
    assert torch.equal(turn_away(task, absent, 5.0)["prompts.first"], task["prompts.first"])
    assert turn_away(task, {}, 5.0) == task


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -math.inf])
def test_a_semantic_gradient_that_is_zero_or_not_finite_changes_nothing(value: float) -> None:
    task = gradients(0)
    broken = {name: torch.full_like(grad, value) for name, grad in task.items()}
    for unit in (tensor_unit, global_unit):
        result = turn_away(task, broken, 5.0, unit)
        assert all(torch.equal(result[name], task[name]) for name in NAMES)


def test_strength_zero_changes_nothing_and_inputs_stay() -> None:
    task, semantic = gradients(0), gradients(0)
    result = turn_away(task, semantic, 0.0)
    turn_away(task, semantic, 5.0)
    assert all(torch.equal(result[name], task[name]) for name in NAMES)
    assert all(torch.equal(task[name], gradients(0)[name]) for name in NAMES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_are_taken_in_single_precision(dtype: torch.dtype) -> None:
    task = {"x": torch.full((1000,), 30.0, dtype=dtype)}  # |x|^2 = 9e5: too large for half precision
    result = turn_away(task, task, 1.0)["x"]
    assert result.dtype == dtype and not result.any()


def test_alignment() -> None:
    task = gradients(0)
    assert alignment(task, task).item() == pytest.approx(1)
    assert alignment(task, {name: -2 * grad for name, grad in task.items()}).item() == pytest.approx(-1)
    assert alignment(task, {name: torch.zeros_like(grad) for name, grad in task.items()}).item() == 0
    assert alignment(task, {}).item() == 0


def test_the_rule_takes_its_channels_by_name_and_no_others() -> None:
    task, semantic = gradients(0), gradients(100)
    found = regularize(5.0, global_unit)({"quality": task, "semantic": semantic}, {})
    expected = turn_away(task, semantic, 5.0, global_unit)
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)
    for channels in ({"quality": task}, {"fidelity": task}, {"quality": task, "semantic": semantic, "third": task}):
        with pytest.raises(GRMPError, match=r"Expected the channels quality and semantic .*, got .*Pass a rule="):
            regularize(5.0)(channels, {})


def test_one_channel_needs_no_rule_and_several_do() -> None:
    task = gradients(0)
    assert only({"fidelity": task}, {}) is task
    with pytest.raises(GRMPError, match=r"one gradient of the channels a, b.*Pass rule= to GRMPTrainer"):
        only({"a": task, "b": task}, {})


def test_the_pull_is_added_after_the_rule() -> None:
    task, start = gradients(0), {name: torch.zeros(4, 3, dtype=torch.float64) for name in NAMES[1:]}
    parameters = gradients(1)
    found = pull(only, 3.0, start)({"quality": task}, parameters)
    assert torch.equal(found[NAMES[0]], task[NAMES[0]])
    for name in NAMES[1:]:
        torch.testing.assert_close(found[name], task[name] + 3 * parameters[name])
