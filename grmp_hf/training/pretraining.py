"""Meta-prompt pre-training: from episodes to an adapter that few ratings are enough to adapt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.known_heads import require_anchors
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.record import Record
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.aside import aside
from grmp_hf.training.calibration import fit_calibration
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.episodes import Episodes
from grmp_hf.training.fitting import fitting
from grmp_hf.training.recipes import PretrainRecipe

__all__ = ["PretrainRecipe", "check_recipe", "pretrain"]

_CALIBRATING = 24  # episodes, about one of each type of distortion


@aside()
def pretrain(
    model: GRMPForImageQualityAssessment,
    episodes: Episodes,
    held_out: Episodes,
    *,
    recipe: PretrainRecipe | None = None,
    seed: int = 0,
    workers: int = 0,
    output_dir: str | Path,
    compute_metrics: Callable[[Any], dict[str, float]] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PeftModel:
    """Learn prompts from episodes.

    Args:
        model: the base; it stays what it is, and its weights are shared, not copied.
        episodes: to learn from.
        held_out: episodes of other tasks and other references. The checkpoint whose adapted parameters have the lowest
            loss on their queries is taken; no target data set has a say.
        recipe: see :class:`PretrainRecipe`.
        seed: of random starts and dropout; the result is a function of the arguments alone.
        workers: processes that load episodes.
        output_dir: for checkpoints. The same call takes up an unfinished run; its recipe, seed, base and first
            episodes say whose it is.
        compute_metrics: of the held-out queries' quality and labels, ``(E, Q)`` each, for the log.
        callbacks: of the Trainer, for whoever watches the training.

    Returns:
        The model with the best checkpoint's prompts in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: tasks that the processes cannot share evenly, a folder with another run's checkpoints, or a setting
            under which gradients would be wrong.
    """
    recipe, output = (recipe or PretrainRecipe()).settled(model.device), Path(output_dir)
    arguments = _arguments(recipe, output, seed, workers, use_cpu=model.device.type == "cpu")
    config = _prompt_config(recipe)
    require_anchors(model, "for a recipe, which learns prompts of anchors; train other heads with GRMPTrainer")
    torch.manual_seed(seed)
    peft_model = get_peft_model(copy_base(model), config)
    run: dict[str, Any] = {"recipe": asdict(recipe), "seed": seed, "base": Record.of(config).fingerprint}
    run["episodes"] = [digest(_pictures(part)) for part in (episodes, held_out)]
    given = {"train_dataset": episodes, "eval_dataset": held_out, "compute_metrics": compute_metrics}
    with fitting(peft_model, arguments, run, keep=True, callbacks=list(callbacks), **given) as trainer:
        if recipe.calibrate:
            _calibrate(peft_model.eval(), episodes)
        trainer.train(resume_from_checkpoint=True)
    return peft_model


def check_recipe(recipe: PretrainRecipe, *, use_cpu: bool) -> None:
    """Raise for what :func:`pretrain` would not train with, before any work is done.

    Raises:
        GRMPError: a setting out of range, or tasks that the processes cannot share evenly.
    """
    _arguments(recipe, Path(), 0, 0, use_cpu=use_cpu)
    _prompt_config(recipe)


def _prompt_config(recipe: PretrainRecipe) -> GRMPPromptConfig:
    return GRMPPromptConfig(
        text_prompts=recipe.text_prompts,
        text_start=recipe.text_start,
        visual_prompts=recipe.visual_prompts,
        prompt_dropout=recipe.prompt_dropout,
        anchor_residuals=recipe.anchor_residuals,
        calibrate=recipe.calibrate,
    )


def _pictures(episodes: Episodes) -> list[Tensor]:
    """Of the first episode: all columns but the labels."""
    batches = episodes[0, 0]["support"]
    return [column for batch in batches for name, column in sorted(batch.items()) if name != "labels"]


def _calibrate(model: PeftModel, episodes: Episodes) -> None:
    """Fit scale and offset of the readout to the supports of the first episodes."""
    logits, labels = [], []
    with torch.no_grad():
        for index in range(min(_CALIBRATING, len(episodes))):
            for batch in episodes[0, index]["support"]:
                inputs = {name: column.to(model.device) for name, column in batch.items() if name != "labels"}
                logits.append(model(**inputs).quality_logits)
                labels.append(batch["labels"].flatten())
    fit_calibration(model, torch.cat(logits), torch.cat(labels).to(model.device))


def _arguments(
    recipe: PretrainRecipe, output: Path, seed: int, workers: int, *, use_cpu: bool
) -> GRMPTrainingArguments:
    arguments = GRMPTrainingArguments(
        output_dir=str(output),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,  # loading processes pass on one episode at a time
        per_device_eval_batch_size=1,
        meta_algorithm=recipe.meta_algorithm,
        inner_learning_rate=recipe.inner_learning_rate,
        inner_optimizer=recipe.inner_optimizer,
        inner_steps=recipe.inner_steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        optim=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        regularization_strength=recipe.regularization_strength,
        semantic_temperature=recipe.semantic_temperature,
        projection_unit=recipe.projection_unit,
        seed=seed,
        bf16=bool(recipe.bf16),
        use_cpu=use_cpu,
        dataloader_num_workers=workers,  # not persistent: random draws would depend on their number
        eval_strategy="steps",
        eval_steps=recipe.eval_steps,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=recipe.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        logging_steps=recipe.eval_steps,
        disable_tqdm=True,
    )
    if recipe.tasks_per_step % arguments.world_size:
        raise GRMPError(
            f"Expected tasks_per_step to be a multiple of the {arguments.world_size} processes, got "
            f"{recipe.tasks_per_step}."
        )
    arguments.gradient_accumulation_steps = recipe.tasks_per_step // arguments.world_size
    return arguments
