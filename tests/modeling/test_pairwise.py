from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from grmp_hf.modeling.pairwise import (
    CASE_V,
    RELEASED,
    better_labels,
    chance_better,
    fidelity,
    pairs_within,
    sigma_hinge,
)


def exact(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def neighbours(golden_folder: Path) -> dict[str, Tensor]:
    """Numbers from other authors' own modules."""
    return load_file(golden_folder / "neighbours.safetensors")


def assert_gradient(value: Tensor, expected: Tensor) -> None:
    """Within 1e-4 of its norm."""
    assert value is not None and (value - expected).norm() <= 1e-4 * expected.norm()


# Values that are known -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "sigma", "expected"),
    [
        (1.0, CASE_V, 0.760250),
        (1.0, RELEASED, 0.841345),
        (0.4, RELEASED, 0.655422),
        (0.0, 3.0, 0.5),
        (-1.0, RELEASED, 1 - 0.841345),
    ],
)
def test_the_probability_of_a_pair(difference: float, sigma: float, expected: float) -> None:
    found = chance_better(exact(2.0 + difference), exact(2.0), sigma, sigma)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert chance_better(exact(2 + difference), exact(2), exact(sigma), exact(sigma)).item() == found.item()


@pytest.mark.parametrize(
    ("chance", "label", "expected"),
    [(0.8413447461, 1.0, 0.082752), (0.7602499389, 1.0, 0.128077), (0.8413447461, 0.6554217416, 0.023599)],
)
def test_the_fidelity_loss_of_a_pair(chance: float, label: float, expected: float) -> None:
    assert fidelity(exact(chance), exact(label), 0.0).item() == pytest.approx(expected, abs=1e-6)
    swapped = fidelity(exact(1 - chance), exact(1 - label), 0.0).item()
    assert swapped == pytest.approx(expected, abs=1e-6)


def test_certain_pairs_have_finite_losses_and_gradients() -> None:
    chance = torch.tensor([0.0, 1.0, 1.0, 0.0], requires_grad=True)
    found = fidelity(chance, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert found[:2].tolist() == pytest.approx([-1e-4, -1e-4], abs=1e-6) and (found[2:] > 0.99).all()
    (gradient,) = torch.autograd.grad(found.sum(), chance)
    assert gradient.isfinite().all()


def test_labels_are_soft_where_both_deviations_are_known() -> None:
    mean, other, nan = exact(60, 60, 50, 50, 50, 50), exact(50, 50, 60, 50, 50, 40), math.nan
    std, second = exact(15, nan, 0, 0, 5, 1), exact(20, 20, 0, 0, 5, nan)
    found = better_labels(mean, other, std, second)
    assert found.tolist() == pytest.approx([0.655422, 1.0, 0.0, 0.5, 0.5, 1.0], abs=1e-6)
    assert better_labels(mean, other).tolist() == [1.0, 1.0, 0.0, 0.5, 0.5, 1.0]


def test_the_hinge_asks_for_the_order_of_deviations() -> None:
    found = sigma_hinge(exact(1, 1, 1, 1), exact(1.01, 2, 1.5, 3), exact(1, 1, 3, 2), exact(2, 2, 1, 2))
    assert found.tolist() == pytest.approx([0.015, 0.0, 0.525, 0.025])


# The authors' own numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["binary_all_pairs", "soft_all_pairs", "per_data_set"])
def test_the_fidelity_loss_of_released_code(case: str, neighbours: dict[str, Tensor]) -> None:
    values = neighbours[f"fidelity.{case}.in0"].clone().requires_grad_()
    mos, flat = neighbours[f"fidelity.{case}.mos"].flatten(), values.flatten()
    sizes, std = neighbours.get(f"fidelity.{case}.sizes"), neighbours.get(f"fidelity.{case}.mos_std")
    sets = torch.zeros(len(mos)) if sizes is None else torch.arange(len(sizes)).repeat_interleave(sizes.long())
    losses = []
    for number in sets.unique():
        first, second = pairs_within(torch.where(sets == number, -1, torch.arange(len(sets))))
        known = (None, None)
        if std is not None:  # released without the factor 2 under the root, as if deviations were smaller
            known = (std.flatten()[first] * RELEASED, std.flatten()[second] * RELEASED)
        chance = chance_better(flat[first], flat[second], RELEASED, RELEASED)
        losses.append(fidelity(chance, better_labels(mos[first], mos[second], *known)).mean())
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(loss, neighbours[f"fidelity.{case}.out"], atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(loss, values)
    assert_gradient(gradient, neighbours[f"fidelity.{case}.grad0"])


def test_the_losses_of_unique(neighbours: dict[str, Tensor]) -> None:
    first, second, *sigmas = (neighbours[f"unique.fidelity.in{at}"].clone().requires_grad_() for at in range(4))
    chance = chance_better(first, second, *(sigma.detach() for sigma in sigmas))
    loss = fidelity(chance, neighbours["unique.gt"]).mean()
    torch.testing.assert_close(loss, neighbours["unique.fidelity.out"], atol=1e-5, rtol=0)
    for at, gradient in enumerate(torch.autograd.grad(loss, (first, second))):
        assert_gradient(gradient, neighbours[f"unique.fidelity.grad{at}"])
    hinge = sigma_hinge(*sigmas, neighbours["unique.gt_std1"], neighbours["unique.gt_std2"]).mean()
    torch.testing.assert_close(hinge, neighbours["unique.hinge.out"], atol=1e-5, rtol=0)
    for at, gradient in enumerate(torch.autograd.grad(hinge, sigmas)):
        assert_gradient(gradient, neighbours[f"unique.hinge.grad{at}"])


# Gradients -----------------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(low: float) -> Tensor:
        return (torch.rand(5, generator=generator, dtype=torch.float64) + low).requires_grad_()

    label = draw(0).detach()

    def loss(*given: Tensor) -> Tensor:
        return fidelity(chance_better(*given), label)

    assert torch.autograd.gradcheck(loss, (draw(-0.5), draw(-0.5), draw(0.3), draw(0.3)))
    stds = (exact(1, 2, 3, 1, 2), exact(2, 1, 3, 3, 1))
    assert torch.autograd.gradcheck(lambda one, other: sigma_hinge(one, other, *stds), (draw(0.3), draw(0.6)))


def test_far_pairs_still_have_a_gradient_in_single_precision() -> None:
    first = torch.tensor([-6.0], requires_grad=True)
    loss = fidelity(chance_better(first, torch.zeros(1), CASE_V, CASE_V), torch.ones(1)).sum()
    (gradient,) = torch.autograd.grad(loss, first)
    assert gradient.item() < 0


def test_pairs_are_those_of_each_group() -> None:
    first, second = pairs_within(torch.tensor([3, 1, 3, 1, 1, 0]))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 3), (1, 4), (3, 4)]
    assert [len(part) for part in pairs_within(torch.arange(4))] == [0, 0]
