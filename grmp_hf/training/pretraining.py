"""Meta-prompt pre-training: from episodes to an adapter that few ratings are enough to adapt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model
from transformers import PrinterCallback, TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.episodes import Episodes
from grmp_hf.training.trainer import GRMPTrainer

__all__ = ["PretrainRecipe", "pretrain"]

_CHOICES = {
    "text_start": ("placeholder", "random"),
    "meta_algorithm": ("fomaml", "maml", "reptile", "authors"),
    "inner_optimizer": ("sgd", "adam"),
    "optimizer": ("adamw_torch", "sgd"),
    "schedule": ("cosine", "constant"),
    "projection_unit": ("tensor", "global"),
}


@dataclass(frozen=True)
class PretrainRecipe:
    """What is learnt from episodes, and how.

    Attributes:
        text_prompts: learned tokens of the quality anchors.
        text_start: ``"placeholder"`` or ``"random"`` (the reference's).
        visual_prompts: prompts of each vision layer, learnt with their projection and norm; with 0, texts alone.
        prompt_dropout: share of the projected visual prompts that is dropped while training.
        anchor_residuals: learn a shift of each quality anchor.
        calibrate: learn an offset of the logits.
        meta_algorithm: ``"fomaml"``, ``"maml"``, ``"reptile"``, or ``"authors"`` (one long inner run).
        inner_learning_rate, inner_optimizer, inner_steps: of the inner loop.
        steps: outer steps.
        tasks_per_step: episodes of an outer step, over all processes.
        optimizer, learning_rate, schedule, weight_decay: of the outer loop.
        regularization_strength: lambda of the gradient rule on the meta-gradient; 0 for none, as in the reference.
        semantic_temperature: T of the semantic loss.
        projection_unit: ``"tensor"`` or ``"global"``.
        bf16: run forward and backward passes under bfloat16 autocast; weights and steps stay fp32.
        eval_steps: outer steps between checkpoints, each of which the held-out episodes judge.
    """

    text_prompts: int = 4
    text_start: Literal["placeholder", "random"] = "placeholder"
    visual_prompts: int = 8
    prompt_dropout: float = 0.1
    anchor_residuals: bool = False
    calibrate: bool = False
    meta_algorithm: Literal["fomaml", "maml", "reptile", "authors"] = "fomaml"
    inner_learning_rate: float = 0.01
    inner_optimizer: Literal["sgd", "adam"] = "sgd"
    inner_steps: int = 5
    steps: int = 1000
    tasks_per_step: int = 4
    optimizer: Literal["adamw_torch", "sgd"] = "adamw_torch"
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    regularization_strength: float = 0.0
    semantic_temperature: float = 1.0
    projection_unit: Literal["tensor", "global"] = "tensor"
    bf16: bool = False
    eval_steps: int = 100

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise GRMPError(f"Expected {name} out of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        for name in ("inner_steps", "steps", "tasks_per_step", "eval_steps"):
            if getattr(self, name) < 1:
                raise GRMPError(f"Expected {name} of at least 1, got {getattr(self, name)}.")


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
        model: the base; it is wrapped in place.
        episodes: to learn from.
        held_out: episodes of other tasks and other references. The checkpoint whose adapted parameters have the lowest
            loss on their queries is taken; no target data set has a say.
        recipe: see :class:`PretrainRecipe`.
        seed: of random starts and dropout; the result is a function of the arguments alone.
        workers: processes that load episodes.
        output_dir: for checkpoints. The same call takes up an unfinished run.
        compute_metrics: of the held-out queries' quality and labels, ``(E, Q)`` each, for the log.
        callbacks: of the Trainer, for whoever watches the training.

    Returns:
        The model with the best checkpoint's prompts in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: tasks that the processes cannot share evenly, a folder with another run's checkpoints, or a setting
            under which gradients would be wrong.
    """
    recipe, output = recipe or PretrainRecipe(), Path(output_dir)
    arguments = _arguments(recipe, output, seed, workers, use_cpu=model.device.type == "cpu")
    if recipe.tasks_per_step % arguments.world_size:
        raise GRMPError(
            f"Expected tasks_per_step to be a multiple of the {arguments.world_size} processes, got "
            f"{recipe.tasks_per_step}."
        )
    arguments.per_device_train_batch_size = recipe.tasks_per_step // arguments.world_size
    _claim(output, {"recipe": asdict(recipe), "seed": seed})
    torch.manual_seed(seed)
    config = GRMPPromptConfig(
        text_prompts=recipe.text_prompts,
        text_start=recipe.text_start,
        visual_prompts=recipe.visual_prompts,
        prompt_dropout=recipe.prompt_dropout,
        anchor_residuals=recipe.anchor_residuals,
        calibrate=recipe.calibrate,
    )
    peft_model = get_peft_model(model, config)
    trainer = GRMPTrainer(
        peft_model,
        arguments,
        train_dataset=episodes,
        eval_dataset=held_out,
        compute_metrics=compute_metrics,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=True)
    return peft_model.eval()


def _arguments(
    recipe: PretrainRecipe, output: Path, seed: int, workers: int, *, use_cpu: bool
) -> GRMPTrainingArguments:
    return GRMPTrainingArguments(
        output_dir=str(output),
        max_steps=recipe.steps,
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
        bf16=recipe.bf16,
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


def _claim(folder: Path, run: dict[str, Any]) -> None:
    """Write down whose checkpoints a folder holds, or raise where another run has."""
    note = folder / "run.json"
    if note.is_file():
        if json.loads(note.read_text(encoding="utf-8")) != run:
            raise GRMPError(
                f"Expected an empty folder, or one of a run with the same recipe and seed, got {str(folder)!r}, which "
                "holds another. Choose another folder, or remove it."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(run, indent=1), encoding="utf-8")
