"""Few-shot adaptation: from some dozens of rated pictures to an adapter.

Nothing here looks at a picture that is not among the shots.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base, teacher_mode
from grmp_hf.modeling.heads import require_anchors
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.calibration import fit_calibration
from grmp_hf.training.checkpoints import claim_folder, digest, last_complete_checkpoint
from grmp_hf.training.recipes import FewShotRecipe
from grmp_hf.training.rules import Rule
from grmp_hf.training.starts import load_start, read_start
from grmp_hf.training.trainer import GRMPTrainer

__all__ = ["FewShotRecipe", "adapt", "adapt_embeds", "reference_modules"]

Progress = Callable[[str, float], None]


def reference_modules(model: GRMPForImageQualityAssessment, blocks: int = 4) -> list[str]:
    """Names for ``modules_to_save``: what the reference's fine-tuning trains beside ``ctx`` (docs/method.md).

    Args:
        model: the base; its towers may have different depths.
        blocks: last blocks of each tower, or all of one that has fewer.
    """
    clip = model.config.clip_config
    depths = {
        "text_model.encoder": clip.text_config.num_hidden_layers,
        "vision_model.encoder.base_layer": clip.vision_config.num_hidden_layers,  # inside the shell for visual prompts
    }
    names = [
        f"{encoder}.layers.{layer}"
        for encoder, depth in depths.items()
        for layer in range(max(depth - blocks, 0), depth)
    ]
    return [*names, "final_layer_norm", "post_layernorm"]


@dataclass
class Shots(Dataset[dict[str, Tensor]]):
    """Rated pictures in memory.

    Attributes:
        columns: name -> ``(n, ...)``: ``labels`` in [0, 1], and what a batch holds beside them: ``image_embeds``
            ``(n, D)`` where they stay what they are, else ``pixel_values``, uint8 ``(n, V, 3, S, S)``, normalised when
            they are served, and the base's ``teacher_logits`` ``(n, S)``.
        mean, std: with which pixels are normalised.
    """

    columns: dict[str, Tensor]
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = {name: column[index] for name, column in self.columns.items()}
        if "pixel_values" in row:
            row["pixel_values"] = normalize(row["pixel_values"], self.mean, self.std)
        return row


def adapt(
    model: GRMPForImageQualityAssessment,
    pixels: Tensor,
    quality: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: FewShotRecipe | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    output_dir: str | Path,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    rule: Rule | None = None,
) -> PeftModel:
    """Adapt a model to rated pictures.

    Args:
        model: the base; it stays what it is, and its weights are shared, not copied.
        pixels: uint8 ``(n, V, 3, S, S)``, the views of the shots.
        quality: ``(n,)`` in [0, 1].
        mean, std: with which the views are normalised.
        recipe: see :class:`FewShotRecipe`.
        start: folder of an adapter of the same base, such as :func:`~grmp_hf.training.pretraining.pretrain` gives. Its
            prompts are where training begins and what the pull holds to, their numbers are those of the start; what the
            recipe adds to it begins where it changes nothing. None to start from the base.
        seed: of random starts and the order of batches; the result is a function of the arguments alone.
        output_dir: for the state of an unfinished run, which the same call takes up again; removed at the end.
        progress: told what is being done and which share of it is done.
        callbacks: of the Trainer, for whoever watches the training.
        rule: replaces the recipe's, where training moves the embeddings and a rule has something to act on.

    Returns:
        The adapted model in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: quality outside [0, 1] or not one for each picture, ratings that are all alike, a folder with
            checkpoints of another run, or a start that is none or belongs to another base.
    """
    tell = progress or _silent
    _check_quality(quality, len(pixels))
    recipe, begun = _sizes(recipe, start, model.device)
    adapted = _begin(model, recipe, begun, start, seed)
    shots, logits = _describe(adapted, pixels, quality, mean, std, recipe, tell, begun is not None)
    rule = rule if recipe.moves_embeddings else None
    run = _run(adapted, recipe, seed, pixels, quality)
    return _fit(adapted, shots, logits, recipe, seed, Path(output_dir), run, [_Teller(tell), *callbacks], rule)


def adapt_embeds(
    model: GRMPForImageQualityAssessment,
    embeds: Tensor,
    quality: Tensor,
    *,
    recipe: FewShotRecipe | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    output_dir: str | Path,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PeftModel:
    """:func:`adapt` from embeddings that were computed before, for many runs over the same pictures.

    Args:
        model: as for :func:`adapt`.
        embeds: ``(n, D)`` from the ``get_image_embeds`` of the model, or of the model with the visual prompts of the
            start, where it has some.
        quality, recipe, start, seed, output_dir, progress, callbacks: as for :func:`adapt`.

    Raises:
        GRMPError: as for :func:`adapt`, or a recipe that would change the embeddings.
    """
    _check_quality(quality, len(embeds))
    recipe, begun = _sizes(recipe, start, model.device)
    if recipe.moves_embeddings:
        raise GRMPError(
            f"Expected a recipe that leaves the embeddings as they are, got train={recipe.train!r} with "
            f"{recipe.visual_prompts} visual prompts. Use adapt, which takes the pictures."
        )
    adapted = _begin(model, recipe, begun, start, seed)
    with torch.no_grad(), contextlib.nullcontext() if begun else teacher_mode(adapted):
        logits = adapted(image_embeds=embeds.to(adapted.device)).quality_logits.cpu()
    shots = Shots({"labels": quality, "image_embeds": embeds})
    run = _run(adapted, recipe, seed, embeds, quality)
    watching = [_Teller(progress or _silent), *callbacks]
    return _fit(adapted, shots, logits, recipe, seed, Path(output_dir), run, watching)


def _check_quality(quality: Tensor, pictures: int) -> None:
    if not pictures or quality.shape != (pictures,) or not bool(((quality >= 0) & (quality <= 1)).all()):
        raise GRMPError(
            f"Expected a quality in [0, 1] for each of {pictures} pictures, got {tuple(quality.shape)} numbers"
            + (f" from {quality.min():g} to {quality.max():g}" if quality.numel() else "")
            + ". Map ratings with RatingScale.to_quality."
        )
    if bool((quality == quality[0]).all()):
        raise GRMPError(f"Expected pictures with different ratings, got {len(quality)} that are all alike. Rate more.")


def _sizes(
    recipe: FewShotRecipe | None, start: str | Path | None, device: torch.device
) -> tuple[FewShotRecipe, GRMPPromptConfig | None]:
    """The recipe with the sizes of the start and the precision of the device, and the start's settings."""
    recipe = (recipe or FewShotRecipe()).settled(device)
    if start is None:
        return recipe, None
    begun = read_start(start)
    return recipe.begun_from(begun), begun


def _begin(
    model: GRMPForImageQualityAssessment,
    recipe: FewShotRecipe,
    begun: GRMPPromptConfig | None,
    start: str | Path | None,
    seed: int,
) -> PeftModel:
    """The model with a new adapter at its start, not calibrated yet where the recipe calibrates."""
    require_anchors(model, "for a recipe, which learns prompts of anchors; train other heads with GRMPTrainer")
    torch.manual_seed(seed)
    adapted = get_peft_model(copy_base(model), _prompt_config(model, recipe, begun))
    if start is not None:
        load_start(adapted, start)
    if recipe.calibrate:
        readout = adapted.get_base_model().readout.grmp_readout["default"]
        readout.log_scale.zero_()
        readout.offset.data.zero_()
    return adapted.eval()


def _fit(
    model: PeftModel,
    shots: Shots,
    logits: Tensor,
    recipe: FewShotRecipe,
    seed: int,
    output: Path,
    run: dict[str, Any],
    callbacks: list[TrainerCallback],
    rule: Rule | None = None,
) -> PeftModel:
    """Train a new adapter, given the quality logits ``(n, A)`` of the shots at its start."""
    output.mkdir(parents=True, exist_ok=True)
    if recipe.calibrate:
        fit_calibration(model, logits, shots.columns["labels"])
    _train(model, shots, recipe, seed, output / "fit", run, callbacks, rule)
    return model.eval()


def _run(model: PeftModel, recipe: FewShotRecipe, seed: int, pictures: Tensor, quality: Tensor) -> dict[str, Any]:
    """All that decides about the trained weights of a model at its start."""
    start = [value for name, value in sorted(model.state_dict().items()) if ".grmp_" in name]
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "base": model.active_peft_config.base_fingerprint,
        "start": digest(start),
        "shots": digest([pictures, quality]),
    }


def _silent(stage: str, share: float) -> None:
    """Tell nobody."""


def _prompt_config(
    model: GRMPForImageQualityAssessment, recipe: FewShotRecipe, begun: GRMPPromptConfig | None
) -> GRMPPromptConfig:
    authors = recipe.train == "authors"
    config = GRMPPromptConfig(
        text_prompts=recipe.text_prompts,
        visual_prompts=recipe.visual_prompts,
        anchor_residuals=recipe.anchor_residuals,
        calibrate=recipe.calibrate,
        freeze_visual_prompts=authors,
        modules_to_save=reference_modules(model, recipe.blocks) if authors else None,
    )
    if begun is None:
        return config
    same = ("visual_prompts", "visual_layers", "prompt_dropout", "anchors", "base_sizes", "base_fingerprint")
    for name in (*same, "base_model_name_or_path"):
        setattr(config, name, getattr(begun, name))
    config.anchor_residuals |= begun.anchor_residuals
    config.calibrate |= begun.calibrate
    config.freeze_visual_prompts = authors or not recipe.visual_prompts
    return config


def _describe(
    model: PeftModel,
    pixels: Tensor,
    quality: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: FewShotRecipe,
    tell: Progress,
    begun: bool,
) -> tuple[Shots, Tensor]:
    """The shots as the Trainer wants them, and their quality logits ``(n, A)`` by the start, or else by the base."""
    kept: tuple[list[Tensor], ...] = ([], [], [])
    with torch.no_grad():
        for at in range(0, len(pixels), 8):
            values = normalize(pixels[at : at + 8], mean, std).to(model.device)
            found = _look(model, values, begun, recipe.moves_embeddings)
            for column, part in zip(kept, found, strict=True):
                column.append(part.cpu())
            tell("embed", min(at + 8, len(pixels)) / len(pixels))
    embeds, logits, teacher = map(torch.cat, kept)
    if recipe.moves_embeddings:
        columns = {"labels": quality, "pixel_values": pixels[:, : recipe.views or None], "teacher_logits": teacher}
    else:
        columns = {"labels": quality, "image_embeds": embeds}
    return Shots(columns, mean, std), logits


def _look(model: PeftModel, values: Tensor, begun: bool, taught: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings and quality logits at the start, and the scene logits, those of the base where they teach."""
    found = [model(values, output_semantic=True)] if begun else []
    if taught or not begun:
        with teacher_mode(model):
            found.append(model(values, output_semantic=True))
    return found[0].image_embeds, found[0].quality_logits, found[-1].semantic_logits


class _Teller(TrainerCallback):
    """Hands the Trainer's progress on."""

    def __init__(self, tell: Progress) -> None:
        self.tell = tell

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tell("train", state.global_step / state.max_steps)


def _train(
    model: PeftModel,
    shots: Shots,
    recipe: FewShotRecipe,
    seed: int,
    folder: Path,
    run: dict[str, Any],
    callbacks: list[TrainerCallback],
    rule: Rule | None,
) -> None:
    """Train the adapter from its start, or from the last checkpoint in ``folder``, which is removed at the end."""
    arguments = GRMPTrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        optim=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        regularization_strength=recipe.regularization_strength if recipe.moves_embeddings else 0.0,
        semantic_temperature=recipe.semantic_temperature,
        projection_unit=recipe.projection_unit,
        pull_to_start=recipe.pull_to_start(len(shots)),
        seed=seed,
        bf16=bool(recipe.bf16),
        use_cpu=model.device.type == "cpu",
        save_strategy="steps" if recipe.save_steps else "no",
        save_steps=max(recipe.save_steps, 1),
        save_total_limit=2,
        logging_strategy="no",
        disable_tqdm=True,
    )
    arguments.joint_batch_size = min(recipe.batch_size, len(shots))
    arguments.per_device_train_batch_size = math.ceil(arguments.joint_batch_size / arguments.world_size)
    with arguments.main_process_first(local=False):
        claimed = claim_folder(folder, run)
    with claimed:
        trainer = GRMPTrainer(model, arguments, train_dataset=shots, callbacks=callbacks, rule=rule)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder) is not None)
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # from now on scores are those of fp32
        claimed.remove()
