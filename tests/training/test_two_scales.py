"""One truth seen through two data sets whose ratings do not mean the same: pairs within each find it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LNTuningConfig, get_peft_model
from torch import Tensor

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.linear_heads import MeanSigma
from grmp_hf.training.calibration import place_means
from grmp_hf.training.objectives import pairwise
from grmp_hf.training.rules import summed
from grmp_hf.training.sampling import within
from grmp_hf.training.shots import Columns

COUNT = 60


def world() -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, truth, and ratings: the better half of the pictures is rated on the lower end, over a fifth of it."""
    generator = torch.Generator().manual_seed(0)
    embeds = torch.nn.functional.normalize(torch.randn(2 * COUNT, 12, generator=generator), dim=-1)
    truth = embeds @ torch.nn.functional.normalize(torch.randn(12, generator=generator), dim=0)
    order = truth.argsort()
    drawn = torch.randn(2 * COUNT, generator=generator) * 0.3 + truth[order]  # sets overlap
    order = order[drawn.argsort()]
    embeds, truth = embeds[order], truth[order]
    low, high = truth.min(), truth.max()
    share = (truth - low) / (high - low)
    first = torch.arange(2 * COUNT) < COUNT
    return embeds, truth, torch.where(first, 0.4 + 0.6 * share, 0.2 * share)


def learn(make_scorer: Callable[..., Any], folder: Path, **given: Any) -> Any:
    embeds, _, labels = world()
    base = make_scorer()
    base.head = MeanSigma(12)
    model = get_peft_model(base, LNTuningConfig(target_modules=["layer_norm1"], modules_to_save=["head"]))
    sets = torch.arange(2 * COUNT) // COUNT
    std = torch.full((2 * COUNT,), 0.05)
    columns = Columns({"image_embeds": embeds, "labels": labels, "dataset": sets, "mos_std": std})
    args = grmp_hf.GRMPTrainingArguments(
        str(folder), max_steps=150, learning_rate=0.1, use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    args.regularization_strength = 0.0
    trainer = grmp_hf.GRMPTrainer(model, args, train_dataset=columns, eval_dataset=columns, **given)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] >= 0  # columns that pairs alone need are kept from the model
    with torch.no_grad():
        return model.eval()(image_embeds=embeds)


@pytest.mark.parametrize("sigma", ["fixed", "joint"])
def test_the_order_over_both_is_recovered(sigma: Any, make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    _, truth, labels = world()
    plan = within([at // COUNT for at in range(2 * COUNT)], 20, 6)
    found = learn(make_scorer, tmp_path, objective=pairwise([1.0, 0.0], sigma=sigma), rule=summed(), plan=plan)
    assert grmp_hf.srcc(found.mean, truth) >= 0.98
    assert grmp_hf.srcc(labels, truth) < 0
    scale, offset = place_means(found.mean[:COUNT], labels[:COUNT])
    placed = (scale * found.mean + offset).sigmoid()
    assert scale > 0 and (placed[:COUNT] - labels[:COUNT]).abs().mean() < 0.05


def test_ratings_as_they_are_do_not_recover_it(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    assert grmp_hf.srcc(learn(make_scorer, tmp_path).mean, world()[1]) < 0.9


@pytest.mark.parametrize(
    ("means", "message"),
    [([1.0, 1.0, 1.0], "got means that are all alike"), ([1.0, float("nan"), 2.0], "Expected finite logits")],
)
def test_means_that_cannot_be_placed(means: list[float], message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        place_means(torch.tensor(means), torch.tensor([0.1, 0.2, 0.3]))


def test_means_against_the_ratings_keep_their_order() -> None:
    scale, offset = place_means(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.1, 0.2, 0.3]))
    assert scale > 0 and torch.sigmoid(torch.tensor(scale * 2 + offset)).item() == pytest.approx(0.2, abs=0.01)
