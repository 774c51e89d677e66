from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling import functional
from grmp_hf.modeling.functional import quality_cross_entropy, semantic_cross_entropy
from grmp_hf.modeling.pairwise import RELEASED, better_labels, chance_better, fidelity, sigma_hinge
from grmp_hf.training.objectives import pairwise, plcc, quality, quality_and_semantic, values_of
from grmp_hf.training.recipes import FewShotRecipe
from grmp_hf.training.rules import summed

PACKAGE = Path(grmp_hf.__file__).parent
LEVELS = [1.0, 0.0]


class Output:
    """What a model says of four pictures."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.quality_logits = torch.randn(4, 2, generator=generator)
        self.semantic_logits = torch.randn(4, 3, generator=generator)
        self.quality = self.quality_logits.softmax(-1)[:, 0]


def batch(**more: Tensor) -> dict[str, Tensor]:
    columns = {"pixel_values": torch.zeros(4, 3, 2, 2), "labels": torch.tensor([0.1, 0.9, 0.4, 0.5])}
    return {**columns, "groups": torch.arange(4), **more}


def speaking(seed: int, asked: list[set[str]]) -> Callable[[Any], Output]:
    def forward(inputs: Any) -> Output:
        asked.append(set(inputs))
        return Output(seed)

    return forward


def silent(inputs: Any) -> Any:
    raise AssertionError("nobody should be asked")


def test_quality_is_the_loss_of_what_the_student_says() -> None:
    asked: list[set[str]] = []
    terms = quality(LEVELS)(speaking(0, asked), silent, batch())
    expected = quality_cross_entropy(Output(0).quality_logits, batch()["labels"], LEVELS)
    assert list(terms) == ["quality"] and torch.equal(terms["quality"].mean, expected) and terms["quality"].weight == 4
    assert asked == [{"pixel_values"}], "labels and groups are no business of the model"


@pytest.mark.parametrize("logits", [True, False])
def test_surer_ratings_count_more(logits: bool) -> None:
    certainty, output, labels = torch.tensor([2.0, 1.0, 0.5, 0.5]), Output(0), batch()["labels"]
    chance = output.quality.clone()
    each = -(labels * chance.log() + (1 - labels) * (1 - chance).log()) if logits else (chance - labels).square()
    output.quality_logits = output.quality_logits if logits else None

    def weighed(**more: Tensor) -> Any:
        return quality(LEVELS)(lambda shown: output if set(shown) == {"pixel_values"} else None, silent, batch(**more))

    term = weighed(certainty=certainty)["quality"]
    torch.testing.assert_close(term.mean, (certainty * each).mean())
    assert term.weight == 4
    assert torch.equal(weighed(certainty=torch.ones(4))["quality"].mean, weighed()["quality"].mean)


@pytest.mark.parametrize("given", [False, True])
def test_semantics_come_from_the_same_forward_pass(given: bool) -> None:
    asked: list[set[str]] = []
    taught = Output(1).semantic_logits
    teacher = silent if given else speaking(1, asked)
    terms = quality_and_semantic(LEVELS, 2.0)(
        speaking(0, asked), teacher, batch(**({"teacher_logits": taught} if given else {}))
    )
    assert list(terms) == ["quality", "semantic"] and {term.weight for term in terms.values()} == {4}
    assert torch.equal(terms["semantic"].mean, semantic_cross_entropy(Output(0).semantic_logits, taught, 2.0))
    assert asked == [{"pixel_values", "output_semantic"}] * (1 if given else 2)


class HeadWithoutLevels(Output):
    quality_logits: Any = None

    def __init__(self) -> None:
        self.quality = torch.tensor([0.2, 0.8, 0.4, 0.5])


def test_a_head_without_logits_is_judged_by_its_quality() -> None:
    terms = quality(LEVELS)(lambda inputs: HeadWithoutLevels(), silent, batch())
    assert terms["quality"].mean.item() == pytest.approx((0.01 + 0.01) / 4)


@pytest.mark.parametrize("recipe", ["default", "visual"])
def test_it_is_not_far_from_adapt_to_the_loss(
    recipe: str, clip_folder: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most eight calls of ours in at most five files."""
    stacks: list[list[str]] = []
    loss = functional.quality_cross_entropy

    def watched(*given: Any) -> Tensor:
        frame, ours = sys._getframe(1), ["grmp_hf/modeling/functional.py"]  # this stands for the loss itself
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(PACKAGE) and frame.f_code.co_name != "<module>":
                ours.append(str(file))
            frame = frame.f_back  # type: ignore[assignment]
        if any(file.endswith("trainer.py") for file in ours):
            stacks.append(ours)
        return loss(*given)

    monkeypatch.setattr(functional, "quality_cross_entropy", watched)
    table = photos[0].parent / "ratings.csv"
    table.write_text("image,mos\n" + "".join(f"{path.name},{1 + at % 5}\n" for at, path in enumerate(photos)))
    short = FewShotRecipe(**({"visual_prompts": 2} if recipe == "visual" else {}), steps=2, batch_size=4)
    grmp_hf.adapt(grmp_hf.load(clip_folder), grmp_hf.read_ratings(table), shots=8, recipe=short)
    assert len(stacks) == 2
    for ours in stacks:
        named = {Path(file).name for file in ours}
        assert len(ours) <= 8 and len(named) <= 5, ours


# Pairs ---------------------------------------------------------------------------------------------------------------

NAN = float("nan")
GROUPS = torch.tensor([0, 0, 1, 1])


class MeanAndSigma(Output):
    """Values on an open axis, as they are given."""

    quality_logits: Any = None

    def __init__(self, mean: Tensor, sigma: Tensor | None = None) -> None:
        self.mean, self.sigma, self.quality = mean, sigma, mean.sigmoid()


def drawn(seed: int) -> Tensor:
    return torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).add(0.2).requires_grad_()


def test_pairs_are_told_apart_within_groups() -> None:
    output = MeanAndSigma(torch.tensor([0.3, 1.3, 0.5, 0.5]))
    asked: list[set[str]] = []

    def student(inputs: Any) -> Output:
        asked.append(set(inputs))
        return output

    given = batch(groups=GROUPS, dataset=GROUPS, mos_std=torch.full((4,), 0.1))
    terms = pairwise(LEVELS, fixed=RELEASED)(student, silent, given)
    soft = better_labels(torch.tensor([0.1, 0.4]), torch.tensor([0.9, 0.5]), *[torch.full((2,), 0.1)] * 2)
    expected = fidelity(chance_better(torch.tensor([0.3, 0.5]), torch.tensor([1.3, 0.5]), RELEASED, RELEASED), soft)
    assert list(terms) == ["fidelity"] and terms["fidelity"].weight == 2 and asked == [{"pixel_values"}]
    torch.testing.assert_close(terms["fidelity"].mean, expected.mean())
    every = pairwise(LEVELS)(student, silent, batch(groups=torch.zeros(4)))
    assert every["fidelity"].weight == 6


@pytest.mark.parametrize("sigma", ["joint", "detached"])
@pytest.mark.parametrize("margin", [0.025, None])
def test_sigma_learns_from_the_hinge_alone_where_it_is_detached(sigma: Any, margin: float | None) -> None:
    mean, spread = drawn(0), drawn(1)
    stds = torch.tensor([0.3, 0.1, 0.2, 0.4], dtype=torch.float64)

    def losses(mean: Tensor, spread: Tensor) -> Any:
        return pairwise(LEVELS, sigma=sigma, margin=margin)(
            lambda inputs: MeanAndSigma(mean, spread), silent, batch(groups=GROUPS, mos_std=stds)
        )

    terms = losses(mean, spread)
    total = sum(term.mean for term in terms.values())
    by_mean, by_sigma = torch.autograd.grad(total, (mean, spread), allow_unused=True)
    assert by_mean.abs().min() > 0
    nothing = by_sigma is None or not by_sigma.any()
    assert nothing == (sigma == "detached" and margin is None)
    if sigma == "joint":
        assert torch.autograd.gradcheck(lambda *given: losses(*given)["fidelity"].mean, (mean, spread))


def test_the_hinge_is_over_pairs_whose_deviations_are_known() -> None:
    stds, spread = torch.tensor([0.3, 0.1, NAN, 0.4]), torch.tensor([0.3, 0.2, 0.1, 0.9])
    objective = pairwise(LEVELS, sigma="joint")

    def terms(**more: Tensor) -> Any:
        return objective(lambda inputs: MeanAndSigma(torch.zeros(4), spread), silent, batch(**more))

    found = terms(groups=GROUPS, mos_std=stds)
    assert {name: term.weight for name, term in found.items()} == {"fidelity": 2, "hinge": 1}
    torch.testing.assert_close(found["hinge"].mean, sigma_hinge(spread[:1], spread[1:2], stds[:1], stds[1:2]).mean())
    unknown = terms(groups=GROUPS, mos_std=torch.full((4,), NAN))
    assert unknown["hinge"].weight == 0 and unknown["hinge"].mean.isfinite()
    alone = terms(groups=torch.arange(4), mos_std=stds)
    assert {term.weight for term in alone.values()} == {0} and all(term.mean.isfinite() for term in alone.values())
    assert list(terms(groups=GROUPS)) == ["fidelity"]


def test_what_is_compared_is_the_open_axis_of_a_head() -> None:
    output, plain = Output(0), HeadWithoutLevels()
    torch.testing.assert_close(values_of(output, LEVELS), output.quality_logits[:, 0] - output.quality_logits[:, 1])
    torch.testing.assert_close(values_of(output, LEVELS), torch.logit(output.quality))
    torch.testing.assert_close(values_of(plain, LEVELS), torch.logit(plain.quality))
    assert values_of(MeanAndSigma(torch.tensor([3.0])), LEVELS).tolist() == [3.0]


def test_pairs_that_cannot_be_compared_are_refused() -> None:
    output, given = MeanAndSigma(torch.zeros(4)), batch(groups=torch.zeros(4), dataset=GROUPS)
    with pytest.raises(GRMPError, match="pairs of pictures of one data set, got some of two"):
        pairwise(LEVELS)(lambda inputs: output, silent, given)
    assert pairwise(LEVELS, across=True)(lambda inputs: output, silent, given)["fidelity"].weight == 6
    with pytest.raises(GRMPError, match="Expected a head that says sigma, such as MeanSigma, for sigma='joint'"):
        pairwise(LEVELS, sigma="joint")(lambda inputs: output, silent, batch(groups=GROUPS))
    for wrong in ({"sigma": "learned"}, {"fixed": 0.0}, {"fixed": float("inf")}):
        with pytest.raises(GRMPError, match=r"Expected sigma 'fixed' \(above 0\), 'joint' or 'detached'"):
            pairwise(LEVELS, **wrong)


def test_choices_take_the_place_of_ratings() -> None:
    """Three choices between 2 and 0, one of them a tie; none between the others of the group."""
    wins, mean = torch.zeros(5, 5), torch.tensor([0.3, 0.1, 0.9, 0.2], requires_grad=True)
    wins[2, 0], wins[0, 2], wins[4, 1] = 2.5, 0.5, 1.0
    given = batch(groups=torch.tensor([0, 0, 0, 1]), index=torch.tensor([0, 1, 2, 4]))
    term = pairwise(LEVELS, wins=wins)(lambda inputs: MeanAndSigma(mean), silent, given)["fidelity"]
    expected = fidelity(chance_better(mean[2:3], mean[:1], 1.0, 1.0), torch.tensor([2.5 / 3])).sum()
    assert term.weight == 3
    torch.testing.assert_close(term.mean, expected)
    (gradient,) = torch.autograd.grad(term.mean, mean)
    assert gradient.isfinite().all() and gradient[1] == gradient[3] == 0
    nothing = pairwise(LEVELS, wins=torch.zeros(5, 5))(lambda inputs: MeanAndSigma(mean), silent, given)["fidelity"]
    assert nothing.weight == 0 and nothing.mean.item() == 0


def test_correlation_is_the_mean_over_groups_whose_labels_differ() -> None:
    mean, labels = torch.tensor([0.3, 1.3, 0.5, 0.9, 0.7, 0.1, 0.0]), torch.tensor([0.1, 0.9, 0.4, 0.6, 0.5, 0.5, 0.2])
    groups, asked = torch.tensor([0, 0, 0, 1, 2, 2, 0]), set()

    def student(inputs: Any) -> Output:
        asked.update(inputs)
        return MeanAndSigma(mean)

    given = {"pixel_values": torch.zeros(7, 3, 2, 2), "labels": labels, "groups": groups}
    found, first = plcc(student, silent, given), groups == 0
    assert list(found) == ["plcc"] and asked == {"pixel_values"}
    assert found["plcc"].weight == 1, "one picture and two of one rating say nothing"
    torch.testing.assert_close(found["plcc"].mean, functional.plcc_loss(mean[first], labels[first]))
    halves = {**given, "groups": torch.tensor([0, 0, 0, 0, 1, 1, 1])}
    parts = [functional.plcc_loss(mean[at], labels[at]) for at in (slice(0, 4), slice(4, 7))]
    both = plcc(student, silent, halves)["plcc"]
    torch.testing.assert_close(both.mean, torch.stack(parts).mean())
    assert both.weight == 2
    alone = plcc(student, silent, {**given, "groups": torch.arange(7)})["plcc"]
    assert alone.weight == 0 and alone.mean.item() == 0
    episode = {name: column for name, column in given.items() if name != "groups"}
    torch.testing.assert_close(plcc(student, silent, episode)["plcc"].mean, functional.plcc_loss(mean, labels))
    plain = HeadWithoutLevels()
    by_quality = plcc(lambda inputs: plain, silent, batch(groups=torch.zeros(4)))["plcc"]
    torch.testing.assert_close(by_quality.mean, functional.plcc_loss(plain.quality, batch()["labels"]))


def test_losses_that_add_up() -> None:
    parameters = {"w": torch.zeros(2)}
    gradients = {"fidelity": {"w": torch.tensor([1.0, 2.0])}, "hinge": {"w": torch.tensor([10.0, 0.0])}}
    assert summed()(gradients, parameters)["w"].tolist() == [11.0, 2.0]
    assert summed({"hinge": 0.5})(gradients, parameters)["w"].tolist() == [6.0, 2.0]
    assert summed()({"fidelity": gradients["fidelity"]}, parameters)["w"].tolist() == [1.0, 2.0]
