from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from grmp_hf.modeling.functional import (
    anchor_logits,
    expected_quality,
    plcc_loss,
    pool_views,
    quality_cross_entropy,
    semantic_cross_entropy,
    soft_labels,
    unit_length,
)

LEVELS = [[1.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.3, 1.0], [1.0, 0.75, 0.5, 0.25, 0.0]]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_soft_labels_sum_to_one_and_have_the_quality_as_mean(levels: list[float]) -> None:
    quality = torch.linspace(0, 1, 41, dtype=torch.float64)
    labels = soft_labels(quality, levels)
    assert labels.shape == (41, len(levels))
    assert (labels >= 0).all() and ((labels > 0).sum(1) <= 2).all()
    torch.testing.assert_close(labels.sum(1), torch.ones_like(quality), atol=1e-12, rtol=0)
    torch.testing.assert_close(labels @ torch.tensor(levels, dtype=torch.float64), quality, atol=1e-12, rtol=0)


def test_soft_labels_of_a_level_are_that_level_alone() -> None:
    assert soft_labels(torch.tensor(LEVELS[2]), LEVELS[2]).tolist() == torch.eye(3).tolist()


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_order_of_anchors_does_not_matter(levels: list[float]) -> None:
    logits, quality = random(7, len(levels)), torch.rand(7, dtype=torch.float64)
    turned = logits.flip(1), levels[::-1]
    torch.testing.assert_close(expected_quality(*turned), expected_quality(logits, levels))
    expected = quality_cross_entropy(logits, quality, levels)
    torch.testing.assert_close(quality_cross_entropy(turned[0], quality, turned[1]), expected)


def test_two_anchors_give_the_sigmoid_of_their_difference() -> None:
    logits = random(9, 2) * 5
    expected = (logits[:, 0] - logits[:, 1]).sigmoid()
    torch.testing.assert_close(expected_quality(logits, [1.0, 0.0]), expected)


def test_cross_entropy_is_the_binary_one_and_does_not_overflow() -> None:
    logits, quality = random(9, 2), torch.rand(9, dtype=torch.float64)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0] - logits[:, 1], quality)
    torch.testing.assert_close(quality_cross_entropy(logits, quality, [1.0, 0.0]), binary)
    saturated = torch.tensor([[200.0, -200.0]])
    assert quality_cross_entropy(saturated, torch.tensor([0.5]), [1.0, 0.0]).item() == pytest.approx(200.0)


def quality_loss(logits: Tensor) -> Tensor:
    return quality_cross_entropy(logits, torch.linspace(0, 1, 4, dtype=torch.float64), LEVELS[1])


def semantic_loss(logits: Tensor) -> Tensor:
    return semantic_cross_entropy(logits, random(4, 3, seed=5), temperature=1.7)


@pytest.mark.parametrize("loss", [quality_loss, semantic_loss])
def test_gradients_equal_finite_differences(loss: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(loss, (random(4, 3).requires_grad_(),), eps=1e-6, atol=1e-8, rtol=1e-6)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    semantic_cross_entropy(student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_semantic_gradient_is_that_of_the_divergence(temperature: float) -> None:
    student, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1)
    divergence = torch.nn.functional.kl_div(
        (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="batchmean"
    )
    (expected,) = torch.autograd.grad(divergence * temperature**2, student)
    (got,) = torch.autograd.grad(semantic_cross_entropy(student, teacher, temperature), student)
    torch.testing.assert_close(got, expected)


def test_logits_of_pooled_views_are_the_weighted_logits_of_the_views() -> None:
    embeds, anchors = unit_length(random(5, 4, 8)), unit_length(random(2, 8, seed=1))
    weights, scale = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    each = torch.stack([anchor_logits(embeds[:, view], anchors, scale) for view in range(4)], 1)
    expected = (each * weights[:, None]).sum(1)
    torch.testing.assert_close(anchor_logits(pool_views(embeds, weights), anchors, scale), expected)
    turned = pool_views(embeds.flip(1), weights.flip(0))
    rounding = 64 * torch.finfo(torch.float64).eps  # sums of four terms below 1, and a margin
    torch.testing.assert_close(turned, pool_views(embeds, weights), atol=rounding, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_unit_length_is_never_taken_in_half_precision(dtype: torch.dtype) -> None:
    features = unit_length(random(3, 8).to(dtype))
    assert features.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3, dtype=features.dtype))


def test_values_linear_in_the_labels_lose_nothing_and_the_wrong_way_round_half() -> None:
    labels = random(9).abs()
    for scale, offset in ((1.0, 0.0), (0.01, 5.0), (300.0, -2.0)):
        assert plcc_loss(scale * labels + offset, labels).item() == pytest.approx(0, abs=1e-10)
        assert plcc_loss(-scale * labels + offset, labels).item() == pytest.approx(0.5, abs=1e-6)
    values = random(9, seed=1)
    rho = torch.corrcoef(torch.stack([values, labels]))[0, 1]
    torch.testing.assert_close(plcc_loss(values, labels), (2 * (1 - rho) + 1 - rho**2) / 8)
    alike = torch.ones(9, dtype=torch.float64, requires_grad=True)
    found = plcc_loss(alike, labels)
    (gradient,) = torch.autograd.grad(found, alike)
    assert found.item() == pytest.approx(0.25, abs=1e-6) and gradient.isfinite().all()


def test_the_gradient_of_the_correlation_is_exact() -> None:
    assert torch.autograd.gradcheck(lambda values: plcc_loss(values, random(9, seed=2)), (random(9).requires_grad_(),))
