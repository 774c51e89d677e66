"""Few-shot adaptation: from some dozens of rated pictures to an adapter.

Nothing here looks at a picture that is not among the shots.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import quality_cross_entropy
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.trainer import GRMPTrainer, last_complete_checkpoint

__all__ = ["FewShotRecipe", "adapt", "adapt_embeds", "reference_modules"]

Progress = Callable[[str, float], None]


_CHOICES = {
    "train": ("prompts", "authors"),
    "optimizer": ("adamw_torch", "sgd"),
    "schedule": ("cosine", "constant"),
    "projection_unit": ("tensor", "global"),
}


@dataclass(frozen=True)
class FewShotRecipe:
    """What is trained on the shots, and how. The defaults were chosen on BIQ2021's train part (docs/decisions.md).

    Attributes:
        train: ``"prompts"``, or ``"authors"``: text tokens, the last blocks of both towers and the final norms, as in
            the reference (the adapter then holds copies of those blocks; visual prompts are frozen).
        text_prompts: learned tokens of the quality anchors.
        visual_prompts: prompts of each vision layer; with 0 the pictures are embedded once and training takes seconds.
        anchor_residuals: learn a shift of each quality anchor.
        calibrate: learn scale and offset of the logits.
        blocks: last blocks of each tower under ``"authors"``.
        views: how many views of each picture training sees, the first ones, where it runs the vision tower; 0 for all.
            The teacher has seen all of them.
        bf16: run the training passes under bfloat16 autocast; weights and steps stay fp32.
        steps: optimizer steps.
        batch_size: pictures of a step, at most.
        optimizer: transformers' name of it.
        learning_rate: at the beginning.
        schedule: ``"cosine"`` to 0, or ``"constant"``.
        weight_decay: on every trained tensor.
        regularization_strength: lambda of the gradient rule. It acts on what moves the pictures' embeddings: nothing
            as long as only texts are trained.
        semantic_temperature: T of the semantic loss.
        projection_unit: ``"tensor"`` or ``"global"``.
        pull: how strongly the trained tensors are pulled towards their start. The objective is the mean cross-entropy
            + pull / n * squared distance from the start, n the number of shots: few ratings must not outweigh what
            the base knows, many may.
        save_steps: steps between checkpoints of the final fit; 0 for none.
    """

    train: Literal["prompts", "authors"] = "prompts"
    text_prompts: int = 4
    visual_prompts: int = 0
    anchor_residuals: bool = True
    calibrate: bool = True
    blocks: int = 4
    views: int = 0
    bf16: bool = False
    steps: int = 200
    batch_size: int = 256
    optimizer: Literal["adamw_torch", "sgd"] = "adamw_torch"
    learning_rate: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    regularization_strength: float = 5.0
    semantic_temperature: float = 1.0
    projection_unit: Literal["tensor", "global"] = "tensor"
    pull: float = 70.0
    save_steps: int = 0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise GRMPError(f"Expected {name} out of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        if self.steps < 1 or self.batch_size < 1 or self.pull < 0 or self.views < 0:
            raise GRMPError(
                "Expected steps and batch_size of at least 1, a pull and a number of views of at least 0, got "
                f"steps={self.steps}, batch_size={self.batch_size}, pull={self.pull}, views={self.views}."
            )

    @classmethod
    def from_yaml(cls, path: str | Path) -> FewShotRecipe:
        """Read a recipe; keys are the attributes, and what is left out keeps its default.

        Raises:
            GRMPError: no such file, no mapping in it, or a key that a recipe does not have.
        """
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise GRMPError(f"Expected a recipe in YAML at {str(path)!r}: {error}.") from error
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known)) if isinstance(values, dict) else [str(values)]
        if unknown:
            raise GRMPError(f"Expected keys out of {', '.join(known)} in {str(path)!r}, got {', '.join(unknown)}.")
        return cls(**values)

    def pull_to_start(self, shots: int) -> float:
        """The pull for a number of shots, as ``GRMPTrainingArguments.pull_to_start``."""
        return 2 * self.pull / shots

    @property
    def moves_embeddings(self) -> bool:
        """Whether anything of the vision tower is trained or prompted."""
        return self.visual_prompts > 0 or self.train == "authors"


def reference_modules(model: GRMPForImageQualityAssessment, blocks: int = 4) -> list[str]:
    """Names for ``modules_to_save``: what the reference's fine-tuning trains beside ``ctx`` (method.md, section 4)."""
    clip = model.config.clip_config
    depths = {clip.vision_config.num_hidden_layers, clip.text_config.num_hidden_layers}
    if len(depths) > 1:
        raise GRMPError(
            f"Expected towers of the same depth for the reference's choice of blocks, got depths {sorted(depths)}. "
            "Name the modules yourself in GRMPPromptConfig(modules_to_save=[...])."
        )
    depth = depths.pop()
    return [f"layers.{i}" for i in range(max(depth - blocks, 0), depth)] + ["final_layer_norm", "post_layernorm"]


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
    seed: int = 0,
    output_dir: str | Path,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PeftModel:
    """Adapt a model to rated pictures.

    Args:
        model: the base; it is wrapped in place.
        pixels: uint8 ``(n, V, 3, S, S)``, the views of the shots.
        quality: ``(n,)`` in [0, 1].
        mean, std: with which the views are normalised.
        recipe: see :class:`FewShotRecipe`.
        seed: of random starts and the order of batches; the result is a function of the arguments alone.
        output_dir: for the state of an unfinished run, which the same call takes up again.
        progress: told what is being done and which share of it is done.
        callbacks: of the Trainer, for whoever watches the training.

    Returns:
        The adapted model in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: ratings that are all alike.
    """
    recipe, tell = recipe or FewShotRecipe(), progress or _silent
    _check_quality(quality)
    shots, logits = _describe(model.eval(), pixels, quality, mean, std, recipe, tell)
    return _fit(model, shots, logits, recipe, seed, Path(output_dir), [_Teller(tell), *callbacks])


def adapt_embeds(
    model: GRMPForImageQualityAssessment,
    embeds: Tensor,
    quality: Tensor,
    *,
    recipe: FewShotRecipe | None = None,
    seed: int = 0,
    output_dir: str | Path,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PeftModel:
    """:func:`adapt` from embeddings that were computed before, for many runs over the same pictures.

    Args:
        model: as for :func:`adapt`.
        embeds: ``(n, D)`` from the model's ``get_image_embeds``.
        quality, recipe, seed, output_dir, progress, callbacks: as for :func:`adapt`.

    Raises:
        GRMPError: ratings that are all alike, or a recipe that would change the embeddings.
    """
    recipe = recipe or FewShotRecipe()
    _check_quality(quality)
    if recipe.moves_embeddings:
        raise GRMPError(
            f"Expected a recipe that leaves the embeddings as they are, got train={recipe.train!r} with "
            f"{recipe.visual_prompts} visual prompts. Use adapt, which takes the pictures."
        )
    with torch.no_grad():
        logits = model.eval()(image_embeds=embeds.to(model.device)).quality_logits.cpu()
    shots = Shots({"labels": quality, "image_embeds": embeds})
    return _fit(model, shots, logits, recipe, seed, Path(output_dir), [_Teller(progress or _silent), *callbacks])


def _check_quality(quality: Tensor) -> None:
    if bool((quality == quality[0]).all()):
        raise GRMPError(f"Expected pictures with different ratings, got {len(quality)} that are all alike. Rate more.")


def _fit(
    model: GRMPForImageQualityAssessment,
    shots: Shots,
    logits: Tensor,
    recipe: FewShotRecipe,
    seed: int,
    output: Path,
    callbacks: list[TrainerCallback],
) -> PeftModel:
    """Start an adapter from the base's quality logits ``(n, A)`` of the shots, and train it."""
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    peft_model = get_peft_model(model, _prompt_config(model, recipe))
    if recipe.calibrate:
        _calibrate(peft_model, logits, shots.columns["labels"])
    _train(peft_model, shots, recipe, seed, output / "fit", callbacks)
    return peft_model.eval()


def _silent(stage: str, share: float) -> None:
    """Tell nobody."""


def _prompt_config(model: GRMPForImageQualityAssessment, recipe: FewShotRecipe) -> GRMPPromptConfig:
    authors = recipe.train == "authors"
    return GRMPPromptConfig(
        text_prompts=recipe.text_prompts,
        visual_prompts=recipe.visual_prompts,
        anchor_residuals=recipe.anchor_residuals,
        calibrate=recipe.calibrate,
        freeze_visual_prompts=authors,
        modules_to_save=reference_modules(model, recipe.blocks) if authors else None,
    )


def _describe(
    model: GRMPForImageQualityAssessment,
    pixels: Tensor,
    quality: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: FewShotRecipe,
    tell: Progress,
) -> tuple[Shots, Tensor]:
    """The shots as the Trainer wants them, and the base's quality logits ``(n, A)``."""
    kept: tuple[list[Tensor], ...] = ([], [], [])
    with torch.no_grad():
        for start in range(0, len(pixels), 8):
            values = normalize(pixels[start : start + 8], mean, std).to(model.device)
            output = model(values, output_semantic=True)
            parts = (output.image_embeds, output.quality_logits, output.semantic_logits)
            for column, part in zip(kept, parts, strict=True):
                column.append(part.cpu())
            tell("embed", min(start + 8, len(pixels)) / len(pixels))
    embeds, logits, teacher = map(torch.cat, kept)
    if recipe.moves_embeddings:
        columns = {"labels": quality, "pixel_values": pixels[:, : recipe.views or None], "teacher_logits": teacher}
    else:
        columns = {"labels": quality, "image_embeds": embeds}
    return Shots(columns, mean, std), logits


def _calibrate(model: PeftModel, logits: Tensor, quality: Tensor) -> None:
    """Fit scale and offset of the readout to the shots, given the base's logits ``(n, A)``.

    The scale stays within a factor of 4: where the base says nothing of these ratings, or the contrary, the best scale
    would be 0, from where nothing can be learnt.
    """
    base = model.get_base_model()
    readout = base.readout.grmp_readout["default"]
    share, offset = (torch.zeros_like(value, requires_grad=True) for value in (readout.log_scale, readout.offset))
    optimizer: Any = torch.optim.LBFGS([share, offset], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        calibrated = _log_scale(share).exp() * logits.to(offset) + offset
        loss = quality_cross_entropy(calibrated, quality.to(offset), base.config.quality_levels)
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    readout.log_scale.copy_(_log_scale(share).detach())
    readout.offset.data.copy_(offset.detach())


def _log_scale(share: Tensor) -> Tensor:
    return math.log(4) * share.tanh()


class _Teller(TrainerCallback):
    """Hands the Trainer's progress on."""

    def __init__(self, tell: Progress) -> None:
        self.tell = tell

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tell("train", state.global_step / state.max_steps)


def _train(
    model: PeftModel, shots: Shots, recipe: FewShotRecipe, seed: int, folder: Path, callbacks: list[TrainerCallback]
) -> None:
    """Train the adapter from its start, or from the last checkpoint in ``folder``, which is removed at the end."""
    arguments = GRMPTrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=min(recipe.batch_size, len(shots)),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        optim=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        regularization_strength=recipe.regularization_strength if recipe.moves_embeddings else 0.0,
        semantic_temperature=recipe.semantic_temperature,
        projection_unit=recipe.projection_unit,
        pull_to_start=recipe.pull_to_start(len(shots)),
        seed=seed,
        bf16=recipe.bf16,
        use_cpu=model.device.type == "cpu",
        save_strategy="steps" if recipe.save_steps else "no",
        save_steps=max(recipe.save_steps, 1),
        save_total_limit=2,
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = GRMPTrainer(model, arguments, train_dataset=shots, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder) is not None)
    if trainer.is_world_process_zero():
        shutil.rmtree(folder, ignore_errors=True)
