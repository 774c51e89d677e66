from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.few_shot import adapt_embeds
from grmp_hf.training.pairing import Compared
from grmp_hf.training.recipes import FewShotRecipe

SHORT = FewShotRecipe(objective="fidelity", features=False, anchor_residuals=True, steps=40, learning_rate=0.05, pull=0)


def test_rows_hold_what_the_objective_reads() -> None:
    stds = torch.tensor([0.1, float("nan")])
    assert list(Compared(stds=stds).columns(2)) == ["mos_std", "index"]
    assert list(Compared(stds=stds, wins=torch.ones(2, 2)).columns(2)) == ["index"]
    assert Compared(["a", "a"]).digest() == ["a", "a"]
    assert Compared(wins=torch.ones(2, 2)).digest() != Compared(wins=torch.eye(2)).digest()


@pytest.mark.parametrize(
    ("sets", "size", "groups"), [(None, 256, [7]), (None, 3, [3, 4]), (["a"] * 5 + ["b"] * 2, 256, [2, 5])]
)
def test_a_step_has_a_group_of_each_data_set(sets: list[str] | None, size: int, groups: list[int]) -> None:
    batches = list(Compared(sets).settings([1.0, 0.0], 7, size, 0)["plan"](0))
    assert sorted(len(group) for batch in batches for group in batch) == groups
    assert {len(batch) for batch in batches} == {1 if sets is None else 2}


def test_choices_are_learnt_from_all_at_once() -> None:
    (batch,) = Compared(wins=torch.eye(7)).settings([1.0, 0.0], 7, 2, 0)["plan"](0)
    assert [len(group) for group in batch] == [7]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(GRMPError, match=r"of the same shots, got \[2, 3\]"):
        Compared(["a"] * 3, torch.zeros(2))
    with pytest.raises(GRMPError, match="at least 2 pictures of each data set"):
        Compared(["a", "a", "b"])
    with pytest.raises(GRMPError, match="Expected what compares 4 shots, got that of 3"):
        Compared(wins=torch.ones(3, 3)).columns(4)
    with pytest.raises(GRMPError, match="Expected choices between pictures that teach, got none"):
        Compared(wins=torch.zeros(3, 3))


def agreement(quality: Tensor, truth: Tensor) -> float:
    order = truth[:, None] > truth
    return float((quality[:, None] > quality)[order].float().mean())


@pytest.mark.parametrize("by", ["ratings", "choices"])
def test_shots_are_learnt_as_pairs(by: str, make_scorer, tmp_path) -> None:
    generator = torch.Generator().manual_seed(3)
    embeds = torch.nn.functional.normalize(torch.randn(24, 12, generator=generator), dim=-1)
    truth = (embeds @ torch.randn(12, generator=generator)).sigmoid()
    wins = (truth[:, None] > truth).float()
    # ratings of two sets that do not compare; beside choices they say nothing
    labels = truth / 2 + torch.tensor([0.5, 0.0]).repeat_interleave(12) if by == "ratings" else truth.flip(0)
    compared = Compared(["a"] * 12 + ["b"] * 12) if by == "ratings" else Compared(wins=wins)
    base = make_scorer()
    begun = agreement(base(image_embeds=embeds).quality.detach(), truth)

    def learn(folder: str) -> Tensor:
        given = {"recipe": SHORT, "output_dir": tmp_path / folder, "compared": compared}
        return adapt_embeds(base, embeds, labels, **given)(image_embeds=embeds).quality.detach()

    found = learn("one")
    assert agreement(found, truth) > max(0.9, begun + 0.1)
    assert torch.equal(learn("two"), found)
