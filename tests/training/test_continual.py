"""Distillation and elastic weight consolidation: by hand, at both ends of their strength, and what gets no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from grmp_hf.modeling.linear_heads import SeveralMeans
from grmp_hf.modeling.pairwise import RELEASED, chance_better, fidelity
from grmp_hf.training.continual import distilled, hold, importance, own_axis
from grmp_hf.training.rules import only, summed

LEVELS = (1.0, 0.0)
F64 = torch.float64


def student(means: Tensor) -> Any:
    return lambda inputs: SeveralMeans(quality=means[:, -1].sigmoid(), mean=means[:, -1], means=means)


def batch(sets: list[int], groups: list[int], labels: list[float], **columns: Tensor) -> dict[str, Tensor]:
    return {
        "labels": torch.tensor(labels, dtype=F64),
        "dataset": torch.tensor(sets),
        "groups": torch.tensor(groups),
        "image_embeds": torch.zeros(len(labels), 2),
        **columns,
    }


def test_each_picture_is_judged_on_its_own_axis() -> None:
    means = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found = own_axis(student(means)({}), torch.tensor([1, 0, 1]))
    assert found.mean.tolist() == [2.0, 3.0, 6.0] and torch.equal(found.means, means)


def test_both_channels_by_hand() -> None:
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=F64)
    before = torch.tensor([[0.4], [0.0], [0.0]], dtype=F64)
    rows = batch([1, 1, 1], [0, 0, 1], [0.2, 0.9, 0.5], before=before)
    found = distilled(LEVELS, sigma=RELEASED)(student(means), student(means), rows)
    # one pair: its own axis says 0 - 1 of a worse first; the axis before says 1 - 0 where .4 - 0 was said
    assert found["fidelity"].weight == found["distillation"].weight == 1
    assert found["fidelity"].mean.item() == pytest.approx(0.082752 - 1e-4, abs=1e-6)  # l(Phi(1), 1), less epsilon
    assert found["distillation"].mean.item() == pytest.approx(0.023599, abs=1e-6)  # l(Phi(1), Phi(.4))


def test_axes_before_add_up() -> None:
    random = torch.Generator().manual_seed(0)
    means, before = (torch.randn(6, count, generator=random, dtype=F64) for count in (3, 2))
    rows = batch([2] * 6, [0, 0, 0, 1, 1, 1], torch.rand(6, generator=random).tolist(), before=before)
    found = distilled(LEVELS)(student(means), student(means), rows)["distillation"]
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    expected = 0.0
    for h in range(2):
        for i, j in pairs:
            now = chance_better(means[i : i + 1, h], means[j : j + 1, h], 1.0, 1.0)
            then = chance_better(before[i : i + 1, h], before[j : j + 1, h], 1.0, 1.0)
            expected += fidelity(now, then).item() / len(pairs)
    assert found.mean.item() == pytest.approx(expected, abs=1e-12) and found.weight == 6


def test_without_anything_before_it_is_the_loss_of_pairs_alone() -> None:
    means = torch.randn(4, 1, dtype=F64)
    rows = batch([0] * 4, [0] * 4, [0.1, 0.4, 0.2, 0.9])
    alone = distilled(LEVELS)(student(means), student(means), rows)
    assert set(alone) == {"fidelity"}
    none = distilled(LEVELS)(student(means), student(means), {**rows, "before": torch.zeros(4, 0)})
    assert set(none) == {"fidelity"} and none["fidelity"] == alone["fidelity"]


def test_the_gradient_is_that_of_finite_differences_and_none_reaches_the_teacher() -> None:
    random = torch.Generator().manual_seed(1)
    means = torch.randn(5, 3, generator=random, dtype=F64, requires_grad=True)
    before = torch.randn(5, 2, generator=random, dtype=F64, requires_grad=True)
    rows = batch([2, 2, 2, 0, 0], [0, 0, 0, 1, 1], [0.1, 0.5, 0.9, 0.3, 0.2], before=before)

    def loss(values: Tensor) -> Tensor:
        found = distilled(LEVELS)(student(values), student(values), {**rows, "before": before.detach()})
        return found["fidelity"].mean + 10 * found["distillation"].mean

    assert torch.autograd.gradcheck(loss, [means])
    with torch.no_grad():
        taught = {**rows, "before": before.detach()}
    distilled(LEVELS)(student(means), student(means), taught)["distillation"].mean.backward()
    assert before.grad is None and means.grad is not None and not means.grad[:, 2].any()


def test_strength_zero_is_the_gradient_alone_bit_for_bit() -> None:
    random = torch.Generator().manual_seed(2)
    gradients = {c: {"w": torch.randn(7, generator=random)} for c in ("fidelity", "distillation")}
    parameters = {"w": torch.randn(7, generator=random)}
    plain = summed()({"fidelity": gradients["fidelity"]}, parameters)["w"]
    assert torch.equal(summed({"distillation": 0.0})(gradients, parameters)["w"], plain)
    free = hold(summed(), 0.0, {"w": torch.zeros(7)}, {"w": torch.ones(7)})
    assert torch.equal(free({"fidelity": gradients["fidelity"]}, parameters)["w"], plain)


def test_held_weights_are_pulled_by_how_much_they_mattered() -> None:
    parameters = {"w": torch.tensor([1.0, 2.0], dtype=F64, requires_grad=True), "free": torch.ones(1)}
    start, weights = {"w": torch.tensor([0.0, 5.0], dtype=F64)}, {"w": torch.tensor([2.0, 0.5], dtype=F64)}
    zero = {"loss": {name: torch.zeros_like(value) for name, value in parameters.items()}}
    found = hold(only, 3.0, start, weights)(zero, parameters)
    assert found["w"].tolist() == [6.0, -4.5] and found["free"].tolist() == [0.0]
    penalty = 1.5 * (weights["w"] * (parameters["w"] - start["w"]).square()).sum()
    assert torch.equal(found["w"], torch.autograd.grad(penalty, parameters["w"])[0])


def test_importance_is_the_mean_of_squares() -> None:
    found = importance([{"w": torch.tensor([1.0, -2.0])}, {"w": torch.tensor([3.0, 0.0])}])
    assert found["w"].tolist() == [5.0, 2.0]
