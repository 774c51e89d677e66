from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from grmp_hf.training.gradients import ChannelGradient, GradientAccumulator, channel_gradients, named_gradients
from grmp_hf.training.objectives import Term


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {"w": nn.Parameter(torch.randn(3, dtype=torch.float64)), "unused": nn.Parameter(torch.randn(2).double())}


def batch(parameters: dict[str, nn.Parameter], rows: Tensor) -> dict[str, ChannelGradient]:
    """Three channels: two over rows, one over those pairs of neighbours that lie in the batch."""
    seen = rows @ parameters["w"]
    terms = {"task": Term(seen.square().mean(), len(rows)), "semantic": Term(seen.sin().mean(), len(rows))}
    pairs = Term((seen[::2][: len(rows) // 2] * seen[1::2]).mean(), len(rows) // 2)
    return channel_gradients({**terms, "pairs": pairs}, parameters)


def test_a_parameter_out_of_reach_has_gradient_zero(parameters: dict[str, nn.Parameter]) -> None:
    gradients = named_gradients(parameters["w"].sum(), parameters)
    assert gradients["w"].tolist() == [1, 1, 1] and gradients["unused"].tolist() == [0, 0]
    constant = named_gradients(torch.ones(()), parameters)
    assert not any(gradient.any() for gradient in constant.values())
    assert all(parameter.grad is None for parameter in parameters.values())


def test_terms_have_their_own_gradients_in_their_order(parameters: dict[str, nn.Parameter]) -> None:
    rows = torch.randn(4, 3, dtype=torch.float64)
    found = batch(parameters, rows)
    assert list(found) == ["task", "semantic", "pairs"]
    assert [channel.weight for channel in found.values()] == [4, 4, 2]
    alone = named_gradients((rows @ parameters["w"]).sin().mean(), parameters)
    assert torch.equal(found["semantic"].gradients["w"], alone["w"])
    assert list(batch(parameters, rows[:1])) == ["task", "semantic"], "a mean over no pair counts nothing"


@pytest.mark.parametrize("sizes", [[6], [2, 2, 2], [4, 2]], ids=str)
def test_parts_of_any_size_are_the_whole_batch(parameters: dict[str, nn.Parameter], sizes: list[int]) -> None:
    rows = torch.randn(6, 3, dtype=torch.float64)
    accumulator, whole = GradientAccumulator(), batch(parameters, rows)
    for part in rows.split(sizes):
        accumulator.add(batch(parameters, part))
    means = accumulator.reduce(parameters)
    assert list(means) == list(whole)
    for channel, expected in whole.items():
        torch.testing.assert_close(means[channel].gradients, expected.gradients, atol=1e-12, rtol=0)
        torch.testing.assert_close(means[channel].loss, expected.loss)
        assert means[channel].weight == expected.weight


@pytest.mark.parametrize("sizes", [[1, 5], [3, 1, 1, 1]], ids=str)
def test_each_channel_is_weighted_by_its_own_counts(parameters: dict[str, nn.Parameter], sizes: list[int]) -> None:
    """A part of one row has no pair and does not pull the mean over pairs towards nothing."""
    rows, accumulator = torch.randn(6, 3, dtype=torch.float64), GradientAccumulator()
    parts = [batch(parameters, part) for part in rows.split(sizes)]
    for part in parts:
        accumulator.add(part)
    means, whole = accumulator.reduce(parameters), batch(parameters, rows)
    torch.testing.assert_close(means["task"].gradients, whole["task"].gradients, atol=1e-12, rtol=0)
    paired = [part["pairs"] for part in parts if "pairs" in part]
    assert means["pairs"].weight == sum(part.weight for part in paired)
    expected = sum(part.weight * part.loss for part in paired) / means["pairs"].weight
    torch.testing.assert_close(means["pairs"].loss, expected)


def test_nothing_is_left_after_reducing(parameters: dict[str, nn.Parameter]) -> None:
    accumulator = GradientAccumulator()
    first, second = torch.randn(2, 4, 3, dtype=torch.float64)
    accumulator.add(batch(parameters, first))
    accumulator.reduce(parameters)
    assert accumulator.reduce(parameters) == {}
    accumulator.add(batch(parameters, second))
    expected = batch(parameters, second)
    torch.testing.assert_close(accumulator.reduce(parameters)["task"].gradients, expected["task"].gradients)


def test_a_process_without_pictures_takes_what_the_others_have(parameters: dict[str, nn.Parameter]) -> None:
    flat: list[Tensor] = []
    full, empty = GradientAccumulator(), GradientAccumulator()
    full.add(batch(parameters, torch.randn(4, 3, dtype=torch.float64)))
    channels = list(full.sums)
    expected = full.reduce(parameters, channels, lambda tensor: flat.append(tensor) or tensor)  # type: ignore[func-returns-value]
    got = empty.reduce(parameters, channels, lambda tensor: tensor + flat[0])
    for channel in channels:
        torch.testing.assert_close(got[channel].gradients, expected[channel].gradients)
        assert got[channel].weight == expected[channel].weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [299, 2049, 40_001])
def test_half_precision_counts_every_picture(dtype: torch.dtype, count: int) -> None:
    accumulator = GradientAccumulator()
    for _ in range(count // 13):
        accumulator.add(
            {"task": ChannelGradient({"w": torch.ones(2, dtype=dtype)}, torch.tensor(0.5, dtype=dtype), 13)}
        )
    accumulator.add({"task": ChannelGradient({"w": torch.ones(2, dtype=dtype)}, torch.tensor(0.5), count % 13)})
    mean = accumulator.reduce({})["task"]
    assert mean.weight == count
    assert mean.loss.item() == pytest.approx(0.5, abs=1e-6) and mean.gradients["w"].tolist() == pytest.approx([1, 1])
