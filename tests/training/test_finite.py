"""Numbers that are none end a training, by name, before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset

from grmp_hf.errors import GRMPError
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.calibration import fit_calibration
from grmp_hf.training.episodes import Episode, Episodes
from grmp_hf.training.finite import squared_length
from grmp_hf.training.objectives import plcc
from grmp_hf.training.trainer import GRMPTrainer

MakeAdapted = Callable[..., PeftModel]
SGD = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant"}


class Columns(Dataset[dict[str, Tensor]]):
    """Noise with random labels, and teacher logits where given."""

    def __init__(self, count: int = 6, teacher: Tensor | None = None) -> None:
        generator = torch.Generator().manual_seed(7)
        self.columns = {"pixel_values": torch.randn(count, 3, 16, 16, generator=generator)}
        self.columns["labels"] = torch.rand(count, generator=generator)
        if teacher is not None:
            self.columns["teacher_logits"] = teacher

    def __len__(self) -> int:
        return len(self.columns["pixel_values"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def make(model: PeftModel, folder: Path, data: Any, rule: Any = None, **options: Any) -> GRMPTrainer:
    quiet = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    args = GRMPTrainingArguments(output_dir=str(folder), **{**quiet, **SGD, "max_steps": 2, **options})
    return GRMPTrainer(model, args, train_dataset=data, eval_dataset=data, rule=rule)


def trained(model: PeftModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def refused(trainer: GRMPTrainer, message: str) -> None:
    before = trained(trainer.model)
    with pytest.raises(GRMPError, match=message):
        trainer.train()
    assert all(torch.equal(weight, before[name]) for name, weight in trained(trainer.model).items())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_teacher_that_is_no_number_does_not_switch_the_rule_off(
    value: float, make_adapted: MakeAdapted, tmp_path: Path
) -> None:
    model = make_adapted()
    with torch.no_grad():
        scenes = model(torch.zeros(1, 3, 16, 16), output_semantic=True).semantic_logits.shape[1]
    teacher = torch.zeros(6, scenes)
    teacher[3, 0] = value
    message = r"a semantic gradient that is not in \d+ of \d+ tensors, .* in step 1\..* teacher_logits"
    refused(make(model, tmp_path, Columns(teacher=teacher)), message)
    make(model, tmp_path, Columns(teacher=teacher), regularization_strength=0.0).train()  # nobody asks the teacher


@pytest.mark.parametrize("part", ["quality", "semantic"])
def test_a_gradient_that_overflows_or_is_no_number_is_named(
    part: str, make_adapted: MakeAdapted, tmp_path: Path
) -> None:
    for value in (math.nan, 1e30):  # the square of which is none in single precision

        class Broken(GRMPTrainer):
            def batch_gradients(self, inputs: dict[str, Any]) -> Any:
                found = super().batch_gradients(inputs)
                next(iter(found[part].gradients.values())).fill_(value)  # noqa: B023 (called within the turn)
                return found

        made = make(make_adapted(), tmp_path, Columns())
        refused(Broken(made.model, made.args, train_dataset=Columns()), f"a {part} gradient that is not in 1 of")


def test_a_rule_of_ones_own_that_gives_no_number_is_named(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    def broken(gradients: dict[str, dict[str, Tensor]], parameters: Any) -> dict[str, Tensor]:
        return {name: gradient / 0 for name, gradient in gradients["quality"].items()}

    message = "a gradient after the rule that is not.*Look at what the rule gives"
    refused(make(make_adapted(), tmp_path, Columns(), broken), message)


def test_weights_that_a_step_leads_out_of_all_numbers_are_not_saved(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    options = {"learning_rate": 1e38, "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    trainer = make(make_adapted(), tmp_path, Columns(), **options)
    with pytest.raises(GRMPError, match=r"finite weights after step 1, .* learning_rate \(now 1e\+38\)"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_base_of_zeros_is_refused(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    model = make_adapted()
    model.get_base_model().clip.visual_projection.weight.data.zero_()
    refused(make(model, tmp_path, Columns()), "a quality loss of nan")


def test_an_empty_batch_is_refused(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    trainer = make(make_adapted(), tmp_path, Columns())
    for collated in ({}, {"pixel_values": torch.zeros(0, 3, 16, 16), "labels": torch.zeros(0)}):
        trainer.data_collator = lambda rows, collated=collated: collated
        refused(trainer, "at least one picture in step 1, got none")


def test_a_correlation_without_groups_names_the_plan(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    arguments = make(make_adapted(), tmp_path, Columns()).args
    trainer = GRMPTrainer(make_adapted(), arguments, objective=plcc, train_dataset=Columns())
    refused(trainer, r"Give pairs and correlations, .* plan=within\(\.\.\.\)")


@pytest.mark.parametrize("name", ["pixel_values", "labels"])
def test_an_evaluation_that_gives_no_number_is_refused(name: str, make_adapted: MakeAdapted, tmp_path: Path) -> None:
    data = Columns()
    data.columns[name][2] = math.nan
    trainer = make(make_adapted(), tmp_path, data)
    message = {"labels": r"quality in \[0, 1\]", "pixel_values": "finite numbers from an evaluation, got eval_loss nan"}
    with pytest.raises(GRMPError, match=message[name]):
        trainer.evaluate()
    if name == "pixel_values":
        del data.columns["labels"]
        with pytest.raises(GRMPError, match="got predictions that are not"):
            trainer.predict(data)


class Fixed(Episodes):
    """One episode, over and over."""

    def __init__(self, **sides: Any) -> None:
        batch = {name: column[:3] for name, column in Columns().columns.items()}
        self.episode: Episode = {"task": "noise", "support": [batch], "query": [batch], **sides}  # type: ignore[typeddict-item]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, key: Any) -> Episode:
        return self.episode


@pytest.mark.parametrize("algorithm", ["fomaml", "maml", "reptile", "authors"])
@pytest.mark.parametrize("side", ["support", "query"])
def test_episodes_that_hold_no_number_or_no_picture_are_refused(
    algorithm: str, side: str, make_adapted: MakeAdapted, tmp_path: Path
) -> None:
    broken = {name: column[:3].clone() for name, column in Columns().columns.items()}
    broken["pixel_values"][1, 0, 0, 0] = math.nan
    options = {"meta_algorithm": algorithm, "inner_steps": 2}
    refused(make(make_adapted(), tmp_path, Fixed(**{side: [broken]}), **options), "a quality loss of nan")
    for empty in ([], [{name: column[:0] for name, column in broken.items()}]):
        trainer = make(make_adapted(), tmp_path, Fixed(**{side: empty}), **options)
        message = f"at least one picture in every batch of the {side} of episode 'noise'"
        refused(trainer, message)
        with pytest.raises(GRMPError, match=message):
            trainer.evaluate()


def test_an_inner_loop_that_runs_away_is_refused(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    options = {"inner_steps": 3, "inner_learning_rate": 1e38}
    trainer = make(make_adapted(), tmp_path, Fixed(), **options)
    refused(trainer, "inner_learning_rate")
    with pytest.raises(GRMPError, match=r"from an evaluation.*inner_learning_rate"):
        trainer.evaluate()


def test_calibration_refuses_what_is_no_number(make_adapted: MakeAdapted) -> None:
    model = make_adapted(visual_prompts=0, calibrate=True)
    logits, quality = torch.randn(5, 2), torch.rand(5)
    for column, at in ((logits, (3, 1)), (quality, (3,))):
        before, column[at] = column[at].clone(), math.nan
        with pytest.raises(GRMPError, match=r"got others for 1 of 5 pictures, number 3"):
            fit_calibration(model, logits, quality)
        column[at] = before
    fit_calibration(model, logits, quality)
    assert squared_length([model.get_base_model().readout.grmp_readout["default"].offset]).isfinite()
