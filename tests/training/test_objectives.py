from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import grmp_hf
from grmp_hf.modeling import functional
from grmp_hf.modeling.functional import quality_cross_entropy, semantic_cross_entropy
from grmp_hf.training.objectives import quality, quality_and_semantic
from grmp_hf.training.recipes import FewShotRecipe

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
