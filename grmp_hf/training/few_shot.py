"""Few-shot adaptation: from some dozens of rated pictures to an adapter.

Nothing here looks at a picture that is not among the shots: how strongly the adapter is pulled towards its start is
learnt from the shots by cross-validation.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import quality_cross_entropy
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig, teacher_mode
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.trainer import GRMPTrainer, last_complete_checkpoint

__all__ = ["FewShotRecipe", "adapt", "reference_modules"]

Progress = Callable[[str, float], None]


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
        steps: optimizer steps.
        batch_size: pictures of a step, at most.
        learning_rate: of AdamW, with a cosine to 0.
        regularization_strength: lambda of the gradient rule. It acts on what moves the pictures' embeddings: nothing
            as long as only texts are trained.
        projection_unit: ``"tensor"`` or ``"global"``.
        pulls: candidates for the pull towards the start, strongest first, in units of 1 / shots: the objective is the
            mean cross-entropy + pull / shots * squared distance from the start. A weaker one is taken only if its
            held-out loss is better by more than the standard error of the difference.
        folds: of that cross-validation.
        save_steps: steps between checkpoints of the final fit; 0 for none.
    """

    train: Literal["prompts", "authors"] = "prompts"
    text_prompts: int = 4
    visual_prompts: int = 0
    anchor_residuals: bool = True
    calibrate: bool = True
    blocks: int = 4
    steps: int = 100
    batch_size: int = 256
    learning_rate: float = 0.02
    regularization_strength: float = 5.0
    projection_unit: Literal["tensor", "global"] = "tensor"
    pulls: tuple[float, ...] = (30.0, 10.0)
    folds: int = 5
    save_steps: int = 0

    def __post_init__(self) -> None:
        if self.train not in ("prompts", "authors"):
            raise GRMPError(f"Expected train 'prompts' or 'authors', got {self.train!r}.")
        if self.steps < 1 or self.batch_size < 1 or not self.pulls or self.folds < 2:
            raise GRMPError(
                f"Expected steps and batch_size of at least 1, some pulls and at least 2 folds, got steps={self.steps}, "
                f"batch_size={self.batch_size}, pulls={self.pulls}, folds={self.folds}."
            )
        if list(self.pulls) != sorted(self.pulls, reverse=True) or min(self.pulls) < 0:
            raise GRMPError(f"Expected pulls of at least 0, strongest first, got {self.pulls}.")

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


class Shots(Dataset[dict[str, Tensor]]):
    """Rated pictures in memory.

    Args:
        quality: ``(n,)`` in [0, 1].
        embeds: ``(n, D)`` constant embeddings, or None.
        pixels: uint8 ``(n, V, 3, S, S)``, where the embeddings are not constant.
        teacher_logits: ``(n, S)`` scene logits of the base, beside ``pixels``.
        mean, std: with which views are normalised.
    """

    def __init__(
        self,
        quality: Tensor,
        embeds: Tensor | None,
        pixels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        self.quality, self.embeds, self.pixels, self.teacher_logits = quality, embeds, pixels, teacher_logits
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.quality)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = {"labels": self.quality[index]}
        if self.pixels is None or self.teacher_logits is None:
            assert self.embeds is not None
            return {**row, "image_embeds": self.embeds[index]}
        pixels = normalize(self.pixels[index], self.mean, self.std)
        return {**row, "pixel_values": pixels, "teacher_logits": self.teacher_logits[index]}

    def select(self, indices: Sequence[int]) -> Shots:
        """Some of them."""
        picked = [None if t is None else t[list(indices)] for t in (self.embeds, self.pixels, self.teacher_logits)]
        return Shots(self.quality[list(indices)], *picked, mean=self.mean, std=self.std)


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
) -> PeftModel:
    """Adapt a model to rated pictures.

    Args:
        model: the base; it is wrapped in place.
        pixels: uint8 ``(n, V, 3, S, S)``, the views of the shots.
        quality: ``(n,)`` in [0, 1].
        mean, std: with which the views are normalised.
        recipe: see :class:`FewShotRecipe`.
        seed: of random starts, folds and the order of batches; the result is a function of the arguments alone.
        output_dir: for the state of an unfinished run, which the same call takes up again.
        progress: told what is being done and which share of it is done.

    Returns:
        The adapted model in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: fewer pictures than folds, or ratings that are all alike.
    """
    recipe, tell = recipe or FewShotRecipe(), progress or _silent
    if len(quality) < recipe.folds or quality.unique().numel() < 2:
        raise GRMPError(
            f"Expected at least {recipe.folds} pictures with different ratings, got {len(quality)} with "
            f"{quality.unique().numel()} different ones. Rate more pictures."
        )
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    shots, logits = _describe(model.eval(), pixels, quality, mean, std, recipe, tell)
    torch.manual_seed(seed)
    peft_model = get_peft_model(model, _prompt_config(model, recipe))
    start = _start(peft_model, logits, quality, recipe)
    fit = _Fit(peft_model, start, recipe, seed, output)
    pull = _choose_pull(fit, shots, output / "pulls.json", tell)
    fit(shots, pull, resume=True, tell=tell)
    peft_model.peft_config["default"].provenance = {"pull": pull, "recipe": asdict(recipe), "seed": seed}
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
    embeds, logits, teacher = [], [], []
    with torch.no_grad():
        for start in range(0, len(pixels), 8):
            values = normalize(pixels[start : start + 8], mean, std).to(model.device)
            output = model(values, output_semantic=True)
            parts = (output.image_embeds, output.quality_logits, output.semantic_logits)
            for kept, part in zip((embeds, logits, teacher), parts, strict=True):
                kept.append(part.cpu())
            tell("embed", min(start + 8, len(pixels)) / len(pixels))
    if recipe.moves_embeddings:
        return Shots(quality, None, pixels, torch.cat(teacher), mean, std), torch.cat(logits)
    return Shots(quality, torch.cat(embeds)), torch.cat(logits)


def _start(model: PeftModel, logits: Tensor, quality: Tensor, recipe: FewShotRecipe) -> dict[str, Tensor]:
    """Values of all trained tensors before training: the calibration fits the base's logits to the shots."""
    if recipe.calibrate:
        readout = model.get_base_model().readout.grmp_readout["default"]
        levels = model.get_base_model().config.quality_levels
        optimizer = torch.optim.LBFGS([readout.log_scale, readout.offset], max_iter=50, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = quality_cross_entropy(readout.calibrate(logits.to(readout.offset)), quality.to(readout.offset), levels)
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        optimizer.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


class _Teller(TrainerCallback):  # type: ignore[misc]
    """Hands the Trainer's progress on."""

    def __init__(self, tell: Progress) -> None:
        self.tell = tell

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tell("train", state.global_step / state.max_steps)


class _Fit:
    """Trains the adapter from its start, as often as asked."""

    def __init__(
        self, model: PeftModel, start: Mapping[str, Tensor], recipe: FewShotRecipe, seed: int, output: Path
    ) -> None:
        self.model, self.start, self.recipe, self.seed, self.output = model, start, recipe, seed, output

    def __call__(self, shots: Shots, pull: float, *, resume: bool = False, tell: Progress = _silent) -> None:
        """Train on ``shots`` under a pull; with ``resume``, leave checkpoints and go on from the last one."""
        recipe, parameters = self.recipe, dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in self.start.items():
                parameters[name].copy_(value)
        folder, saves = self.output / "fit", resume and recipe.save_steps > 0
        arguments = GRMPTrainingArguments(
            output_dir=str(folder),
            max_steps=recipe.steps,
            per_device_train_batch_size=min(recipe.batch_size, len(shots)),
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            optim="adamw_torch",
            regularization_strength=recipe.regularization_strength if recipe.moves_embeddings else 0.0,
            projection_unit=recipe.projection_unit,
            pull_to_start=2 * pull / len(shots),
            seed=self.seed,
            use_cpu=self.model.device.type == "cpu",
            save_strategy="steps" if saves else "no",
            save_steps=max(recipe.save_steps, 1),
            save_total_limit=2,
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRMPTrainer(self.model, arguments, train_dataset=shots, callbacks=[_Teller(tell)] if resume else None)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=saves and last_complete_checkpoint(folder) is not None)
        if resume:
            shutil.rmtree(folder, ignore_errors=True)

    @torch.no_grad()
    def losses(self, shots: Shots) -> Tensor:
        """Cross-entropy ``(n,)`` of each of some shots under the model as it stands."""
        self.model.eval()
        losses = []
        for index in range(len(shots)):
            row = {name: value[None].to(self.model.device) for name, value in shots[index].items()}
            row.pop("teacher_logits", None)
            losses.append(self.model(**row).loss.cpu())
        return torch.stack(losses)


def _choose_pull(fit: _Fit, shots: Shots, record: Path, tell: Progress) -> float:
    """The pull by cross-validation; losses found before an interruption are read from ``record``."""
    recipe = fit.recipe
    if len(recipe.pulls) == 1:
        return recipe.pulls[0]
    found: dict[str, list[float]] = json.loads(record.read_text()) if record.is_file() else {}
    order = np.random.RandomState(fit.seed).permutation(len(shots))
    jobs = [(pull, fold) for pull in recipe.pulls for fold in range(recipe.folds)]
    for done, (pull, fold) in enumerate(jobs):
        tell("choose the pull", done / len(jobs))
        key = f"{pull}/{fold}"
        if key not in found:
            held_out = order[fold :: recipe.folds].tolist()
            fit(shots.select(sorted(set(range(len(shots))) - set(held_out))), pull)
            found[key] = fit.losses(shots.select(held_out)).tolist()
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps(found))
            partial.replace(record)
    losses = {pull: np.concatenate([found[f"{pull}/{fold}"] for fold in range(recipe.folds)]) for pull in recipe.pulls}
    chosen = recipe.pulls[0]
    for pull in recipe.pulls[1:]:
        gain = losses[chosen] - losses[pull]
        if gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)):
            chosen = pull
    return chosen
