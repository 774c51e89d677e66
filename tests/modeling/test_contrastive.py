from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.contrastive import group_contrast, similarity_weights, version_contrast


@pytest.fixture(scope="module")
def neighbours(golden_folder: Path) -> dict[str, Tensor]:
    """Numbers from other authors' own modules."""
    return load_file(golden_folder / "neighbours.safetensors")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_gradients(loss: Tensor, given: tuple[Tensor, Tensor], expected: list[Tensor]) -> None:
    """Each within 1e-4 of its norm."""
    for gradient, value in zip(torch.autograd.grad(loss, given), expected, strict=True):
        assert (gradient - value).norm() <= 1e-4 * value.norm()


@pytest.mark.parametrize("form", ["in", "out"])
def test_the_loss_of_versions_is_that_of_released_code(form: str, neighbours: dict[str, Tensor]) -> None:
    key = f"grepq.contrastive_{form}."
    first, second = (neighbours[f"{key}in{at}"].clone().requires_grad_() for at in range(2))
    weights = similarity_weights(neighbours["grepq.similarity"])
    loss = version_contrast(first, second, weights, outside=form == "out").mean()
    torch.testing.assert_close(loss, neighbours[f"{key}out"], atol=1e-5, rtol=0)
    check_gradients(loss, (first, second), [neighbours[f"{key}grad{at}"] for at in range(2)])


def test_the_loss_of_groups_is_that_of_released_code(neighbours: dict[str, Tensor]) -> None:
    top, bottom = (neighbours[f"grepq.group.in{at}"].clone().requires_grad_() for at in range(2))
    loss = group_contrast(top, bottom)
    torch.testing.assert_close(loss, neighbours["grepq.group.out"], atol=1e-5, rtol=0)
    check_gradients(loss, (top, bottom), [neighbours[f"grepq.group.grad{at}"] for at in range(2)])
    torch.testing.assert_close(group_contrast(bottom, top), loss)


def test_weights_of_a_similarity_are_exact() -> None:
    found = similarity_weights(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert found[0] == 0 and found[2] == 1 and found[1].item() == pytest.approx(0.4, abs=1e-15)


def test_versions_that_are_all_alike_lose_nothing() -> None:
    first, second = draw(3, 9, 16), draw(3, 9, 16, seed=1)
    assert version_contrast(first, second, torch.ones(3, 9, 9)).abs().max() < 1e-12
    none_but_itself = version_contrast(first, second, torch.eye(9).expand(3, 9, 9))
    assert (none_but_itself > 1).all()


def test_the_loss_of_versions_is_what_its_formula_says() -> None:
    first, second = draw(2, 4, 6), draw(2, 4, 6, seed=1)
    weights = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    for family in range(2):
        s = torch.tensor(
            [[torch.cosine_similarity(a, b, dim=0) / 0.3 for b in second[family]] for a in first[family]],
            dtype=torch.float64,
        ).exp()
        w = weights[family]
        for at in range(4):
            expected[family] -= ((w[at] * s[at]).sum() / s[at].sum()).log() / 4
            expected[family] -= ((w[:, at] * s[:, at]).sum() / s[:, at].sum()).log() / 4
    torch.testing.assert_close(version_contrast(first, second, weights, 0.3), expected)


def test_views_that_follow_their_similarity_lose_less() -> None:
    """Two kinds of versions, alike within a kind: features that tell the kinds apart against those that do not."""
    kinds = torch.tensor([0, 0, 0, 1, 1, 1])
    weights = (kinds[:, None] == kinds).double()[None]
    apart, mixed = (torch.eye(2, dtype=torch.float64)[by][None] for by in (kinds, torch.arange(6) % 2))
    assert version_contrast(apart, apart, weights) < version_contrast(mixed, mixed, weights) - 0.1


def test_gradients_are_those_of_finite_differences_and_stay_finite_at_the_ends() -> None:
    weights = similarity_weights(torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    given = (draw(2, 3, 5).requires_grad_(), draw(2, 3, 5, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: version_contrast(a, b, weights), given)
    assert torch.autograd.gradcheck(
        group_contrast, (given[0][0].detach().requires_grad_(), draw(3, 5).requires_grad_())
    )
    ends = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    zeros = torch.zeros(1, 2, 4, requires_grad=True)
    found = version_contrast(zeros, torch.ones(1, 2, 4), ends)
    (gradient,) = torch.autograd.grad(found.sum(), zeros)
    assert found.isfinite().all() and gradient.isfinite().all()


def test_the_loss_of_groups_falls_as_they_separate() -> None:
    noise, direction = draw(2, 5, 8), torch.eye(8, dtype=torch.float64)[0]
    losses = [group_contrast(noise[0] + far * direction, noise[1] - far * direction).item() for far in (0, 1, 3, 30)]
    assert losses == sorted(losses, reverse=True) and losses[0] - losses[-1] > 1


@pytest.mark.parametrize("shapes", [((4, 8), (3, 8)), ((1, 8), (1, 8)), ((2, 4, 8), (2, 4, 8))])
def test_groups_that_cannot_be_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(GRMPError, match=r"Expected two groups \(M, d\) of as many pictures, at least two, got"):
        group_contrast(draw(*shapes[0]), draw(*shapes[1]))


@pytest.mark.parametrize("shapes", [((2, 9, 4), (2, 9, 4), (2, 9, 8)), ((9, 4), (9, 4), (9, 9))])
def test_versions_that_do_not_fit_together_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(GRMPError, match=r"Expected two views \(F, N, d\) of N versions of F photographs and weights"):
        version_contrast(*(draw(*shape) for shape in shapes))
