from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from grmp_hf.training.gradients import BatchGradients, GradientAccumulator, named_gradients


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {"w": nn.Parameter(torch.randn(3, dtype=torch.float64)), "unused": nn.Parameter(torch.randn(2).double())}


def batch(parameters: dict[str, nn.Parameter], rows: Tensor) -> BatchGradients:
    task, semantic = (rows @ parameters["w"]).square().mean(), (rows @ parameters["w"]).sin().mean()
    task_grad = named_gradients(task, parameters, retain_graph=True)
    return BatchGradients(task_grad, named_gradients(semantic, parameters), task.detach(), len(rows))


def same(tensor: Tensor) -> Tensor:
    return tensor


def test_a_parameter_out_of_reach_has_gradient_zero(parameters: dict[str, nn.Parameter]) -> None:
    gradients = named_gradients(parameters["w"].sum(), parameters)
    assert gradients["w"].tolist() == [1, 1, 1] and gradients["unused"].tolist() == [0, 0]
    constant = named_gradients(torch.ones(()), parameters)
    assert not any(gradient.any() for gradient in constant.values())
    assert all(parameter.grad is None for parameter in parameters.values())


@pytest.mark.parametrize("sizes", [[6], [2, 2, 2], [4, 2], [1, 5], [3, 1, 1, 1]], ids=str)
def test_parts_of_any_size_are_the_whole_batch(parameters: dict[str, nn.Parameter], sizes: list[int]) -> None:
    rows = torch.randn(6, 3, dtype=torch.float64)
    accumulator, whole = GradientAccumulator(), batch(parameters, rows)
    for part in rows.split(sizes):
        accumulator.add(batch(parameters, part))
    means = accumulator.reduce([parameters, parameters], same)
    for ours, expected in ((means.task, whole.task), (means.semantic, whole.semantic)):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(means.loss, whole.loss)
    assert means.count == 6


def test_nothing_is_left_after_reducing(parameters: dict[str, nn.Parameter]) -> None:
    accumulator = GradientAccumulator()
    first, second = torch.randn(2, 4, 3, dtype=torch.float64)
    accumulator.add(batch(parameters, first))
    accumulator.reduce([parameters, parameters], same)
    accumulator.add(batch(parameters, second))
    expected = batch(parameters, second)
    torch.testing.assert_close(accumulator.reduce([parameters, parameters], same).task, expected.task)


def test_a_process_without_pictures_takes_what_the_others_have(parameters: dict[str, nn.Parameter]) -> None:
    flat: list[Tensor] = []
    full, empty = GradientAccumulator(), GradientAccumulator()
    full.add(batch(parameters, torch.randn(4, 3, dtype=torch.float64)))
    expected = full.reduce([parameters, parameters], lambda tensor: flat.append(tensor) or tensor)  # type: ignore[func-returns-value]
    got = empty.reduce([parameters, parameters], lambda tensor: tensor + flat[0])
    torch.testing.assert_close(got.task, expected.task)
    torch.testing.assert_close(got.semantic, expected.semantic)
    assert got.count == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [299, 2049, 40_001])
def test_half_precision_counts_every_picture(dtype: torch.dtype, count: int) -> None:
    accumulator = GradientAccumulator()
    for _ in range(count // 13):
        accumulator.add(BatchGradients({"w": torch.ones(2, dtype=dtype)}, {}, torch.tensor(0.5, dtype=dtype), 13))
    accumulator.add(BatchGradients({"w": torch.ones(2, dtype=dtype)}, {}, torch.tensor(0.5), count % 13))
    means = accumulator.reduce([], same)
    assert means.count == count
    assert means.loss.item() == pytest.approx(0.5, abs=1e-6) and means.task["w"].tolist() == pytest.approx([1, 1])
