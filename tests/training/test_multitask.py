from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import axis_logits, expected_quality
from grmp_hf.modeling.pairwise import CASE_V, RELEASED, fidelity
from grmp_hf.modeling.templates import AXES
from grmp_hf.training.multitask import group_fidelity, multi_label_fidelity, multitask, single_label_fidelity

SCRIPT = Path(__file__).parent / "scripts" / "multitask.py"
SIZES = {name: len(values) for name, values in AXES.items()}
LEVELS = [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.fixture(scope="module")
def golden(golden_folder: Path) -> dict[str, Tensor]:
    return load_file(golden_folder / "neighbours.safetensors")


@pytest.mark.parametrize(("name", "loss"), [("scene", multi_label_fidelity), ("distortion", single_label_fidelity)])
def test_the_losses_of_liqe(golden: dict[str, Tensor], name: str, loss: Callable[..., Tensor]) -> None:
    shares = golden[f"liqe.{name}.in0"].requires_grad_()
    found = loss(shares, golden[f"liqe.{name}.labels"]).mean()
    torch.testing.assert_close(found, golden[f"liqe.{name}.out"], atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(found, shares)
    expected = golden[f"liqe.{name}.grad0"]
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


def test_the_mean_over_data_sets(golden: dict[str, Tensor]) -> None:
    values, ratings = golden["fidelity.per_data_set.in0"].requires_grad_(), golden["fidelity.per_data_set.mos"]
    sizes = golden["fidelity.per_data_set.sizes"]
    groups = torch.arange(len(sizes)).repeat_interleave(sizes)
    found = group_fidelity(values, ratings, groups, RELEASED)
    assert found.weight == len(sizes)
    torch.testing.assert_close(found.mean, golden["fidelity.per_data_set.out"], atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(found.mean, values)
    expected = golden["fidelity.per_data_set.grad0"]
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


def said(logits: Tensor) -> Any:
    by_axis = axis_logits(logits, SIZES)
    return SimpleNamespace(quality=expected_quality(by_axis["level"], LEVELS), axis_logits=by_axis)


def batch(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scene = (torch.rand(6, 9, generator=generator) > 0.7).double()
    scene[4] = 0
    distortion = torch.eye(11, dtype=torch.float64)[torch.randint(11, (6,), generator=generator)]
    distortion[2:5] = 0
    labels = torch.rand(6, generator=generator, dtype=torch.float64)
    groups = torch.tensor([0, 0, 1, 1, 1, 2])
    return {"labels": labels, "groups": groups, "scene": scene, "distortion": distortion, "dataset": groups}


def ask(objective: Any, logits: Tensor, rows: dict[str, Tensor]) -> Any:
    return objective(lambda inputs: said(logits), None, rows)


def test_a_uniform_joint_and_one_hot_joints() -> None:
    rows = batch() | {"scene": torch.eye(9)[:6], "distortion": torch.eye(11)[:6]}
    terms = ask(multitask(SIZES), torch.zeros(6, 495, dtype=torch.float64), rows)
    assert terms["scene"].mean.item() == pytest.approx(0.124910, abs=1e-3)  # eps lowers it by some 1e-4 a root
    assert terms["distortion"].mean.item() == pytest.approx(0.698489, abs=2e-3)
    at = [(level * 9 + place) * 11 + place for place, level in enumerate((0, 4, 0, 2, 4, 1))]
    logits = 200.0 * torch.eye(495, dtype=torch.float64)[at]
    right = rows | {"labels": torch.tensor([0.0, 1.0, 0.1, 0.4, 0.8, 0.3])}
    terms = ask(multitask(SIZES), logits, right)
    assert terms["scene"].mean.item() == pytest.approx(0, abs=1e-3)
    assert terms["distortion"].mean.item() == pytest.approx(0, abs=2e-3)
    value = torch.tensor([[1.0, 5.0], [1.0, 3.0], [1.0, 5.0], [3.0, 5.0]], dtype=torch.float64)
    chance = torch.special.ndtr(value[:, 1] - value[:, 0])
    losses = fidelity(chance, torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(terms["quality"].mean, (losses[0] + losses[1:].mean()) / 2)
    assert [terms[name].weight for name in ("quality", "scene", "distortion")] == [2, 6, 6]
    papers = ask(multitask(SIZES, sigma=CASE_V), logits, right)["quality"].mean
    assert papers > terms["quality"].mean, "Phi(d / sqrt 2) is less sure than Phi(d)"


def test_what_has_no_label_counts_nothing() -> None:
    logits, rows = torch.randn(6, 495, dtype=torch.float64), batch()
    terms = ask(multitask(SIZES), logits, rows)
    shares = said(logits).axis_logits
    known = [0, 1, 5]
    expected = single_label_fidelity(shares["distortion"].softmax(-1)[known], rows["distortion"][known]).mean()
    torch.testing.assert_close(terms["distortion"].mean, expected)
    labelled = rows["scene"].sum(1) > 0
    assert terms["distortion"].weight == 3 and terms["scene"].weight == int(labelled.sum()) == 5
    without = {name: rows[name] for name in ("labels", "groups")}
    for column in (without, {**without, "scene": torch.zeros(6, 9), "distortion": torch.zeros(6, 11)}):
        found = ask(multitask(SIZES), logits.clone().requires_grad_(), column)
        assert [found[name].weight for name in ("scene", "distortion")] == [0, 0]
        assert found["scene"].mean.item() == 0
    alone = ask(multitask(SIZES), logits, without | {"groups": torch.arange(6)})["quality"]
    assert alone.weight == 0 and alone.mean.item() == 0


def test_gradients_by_finite_differences() -> None:
    rows = batch(1)
    for name in ("quality", "scene", "distortion"):
        logits = torch.randn(6, 495, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        logits = logits[:, :5].repeat(1, 99).requires_grad_()
        direction = torch.randn(6, 495, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

        def loss(values: Tensor, name: str = name) -> Tensor:
            mean: Tensor = ask(multitask(SIZES), values, rows)[name].mean
            return mean

        (gradient,) = torch.autograd.grad(loss(logits), logits)
        step = 1e-5
        with torch.no_grad():
            slope = (loss(logits + step * direction) - loss(logits - step * direction)) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-12)
        assert abs(slope.item()) > 1e-6


def test_what_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(GRMPError, match=r"Expected a model whose anchors have the axes level, .* got level\. Make it"):
        multitask({"level": 2})
    rows = batch() | {"dataset": torch.arange(6)}
    with pytest.raises(GRMPError, match="Expected pairs of pictures of one data set"):
        ask(multitask(SIZES), torch.zeros(6, 495), rows)
    with pytest.raises(GRMPError, match=r"Expected labels scene of shape \(6, 9\).* got \(6, 4\)"):
        ask(multitask(SIZES), torch.zeros(6, 495), batch() | {"scene": torch.ones(6, 4)})


@pytest.fixture
def base(make_scorer: Callable[..., Any], tmp_path: Path) -> str:
    """Three levels, two scenes, four distortions, each told by a word."""
    axes = [["level", ["bad", "fair", "good"]], ["scene", ["a", "b"]], ["distortion", ["c", "d", "e", "f"]]]
    ids = [[62, 10 + i, 20 + j, 30 + k, 63] for i in range(3) for j in range(2) for k in range(4)]
    model = make_scorer(
        quality_anchors=[str(row) for row in ids],
        quality_levels=[0.0, 0.5, 1.0],
        quality_axes=axes,
        quality_input_ids=ids,
    )
    model.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left if left[name].numel())


def test_two_processes_accumulation_and_a_resumed_run_are_one(
    base: str, tmp_path: Path, in_two_processes: Callable[..., None]
) -> None:
    """Five groups a step: of one process, of five batches, three beside two of two processes; interrupted or not."""
    script = runpy.run_path(str(SCRIPT))
    rule = script["train"](base, tmp_path / "whole", 5, 1)
    assert rule.epoch == 3 and rule.weights()["quality"] != pytest.approx(1, abs=1e-6)
    script["train"](base, tmp_path / "parts", 1, 5)
    in_two_processes(SCRIPT, base, tmp_path / "two", 5, 1)
    whole, parts, two = (load_file(tmp_path / name) for name in ("whole", "parts", "two"))
    assert distance(whole, parts) <= 1e-12 and distance(whole, two) <= 1e-12
    checkpoints = sorted((tmp_path / "whole.run").iterdir(), key=lambda folder: int(folder.name.rpartition("-")[2]))
    assert len(checkpoints) >= 2
    for folder in checkpoints[1:]:
        shutil.rmtree(folder)
    again = script["train"](base, tmp_path / "whole", 5, 1)
    assert distance(whole, load_file(tmp_path / "whole")) == 0 and again.state_dict() == rule.state_dict()
