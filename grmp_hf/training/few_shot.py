"""Few-shot adaptation: from some dozens of rated pictures to an adapter.

Nothing here looks at a picture that is not among the shots.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base, teacher_mode
from grmp_hf.modeling.configuration_grmp import anchor_levels
from grmp_hf.modeling.known_heads import require_anchors
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig, feature_groups
from grmp_hf.record import Record
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.aside import aside
from grmp_hf.training.calibration import fit_calibration
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.evidence import Belief
from grmp_hf.training.expecting import ExpectedGain
from grmp_hf.training.feature_fitting import agreement, fit_features, pull_of_map
from grmp_hf.training.fitting import Teller, fitting, kept_quietly
from grmp_hf.training.pairing import Compared
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.recipes import FewShotRecipe
from grmp_hf.training.rules import Rule
from grmp_hf.training.shots import Columns, Known, certainty_of, check_quality, describe
from grmp_hf.training.starts import load_start, read_start
from grmp_hf.training.trainer import GRMPTrainer

__all__ = ["FewShotRecipe", "adapt", "adapt_embeds", "reference_modules"]

Progress = Callable[[str, float], None]

_MAP = ".map.weights"


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


@aside()
def adapt(
    model: GRMPForImageQualityAssessment,
    pictures: RatedPictures,
    *,
    noise: Tensor | None = None,
    recipe: FewShotRecipe | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    output_dir: str | Path,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    rule: Rule | None = None,
    compared: Compared | None = None,
) -> PeftModel:
    """Adapt a model to rated pictures.

    Args:
        model: the base; it stays what it is, and its weights are shared, not copied.
        pictures: the shots. All are looked at once; later on they are asked for only if the recipe moves their
            embeddings.
        noise: ``(n,)``, the variance of each rating relative to the others, see
            :func:`~grmp_hf.training.evidence.believe`; None for equal ones. Recipes that map no features, such as the
            paper's, take no notice of it.
        recipe: see :class:`FewShotRecipe`.
        start: folder of an adapter of the same base, such as :func:`~grmp_hf.training.pretraining.pretrain` gives. Its
            prompts are where training begins and what the pull holds to, their numbers are those of the start; what the
            recipe adds to it begins where it changes nothing. None to start from the base.
        seed: of random starts and the order of batches; the result is a function of the arguments alone.
        output_dir: for the state of an unfinished run, which the same call takes up again; removed at the end.
        progress: told what is being done and which share of it is done.
        callbacks: of the Trainer, for whoever watches the training.
        rule: replaces the recipe's, where training moves the embeddings and a rule has something to act on.
        compared: what says which of two shots is better, for recipes that learn from pairs; None for the ratings alone.

    Returns:
        The adapted model in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: quality outside [0, 1] or not one for each picture, noise that is not above 0, ratings that are all
            alike, a folder with checkpoints of another run, a start that is none or belongs to another base, or
            pictures that are cropped anew in each epoch under a recipe that embeds them once.
    """
    tell = progress or _silent
    quality = pictures.columns["labels"]
    check_quality(quality, len(quality))
    recipe, begun = _sizes(recipe, start, model.device)
    pairs = (compared or Compared()) if recipe.objective == "fidelity" else None
    rated = {"labels": quality, **certainty_of(noise, len(quality), recipe), **_columns(pairs, len(quality))}
    if pictures.crop is not None and not recipe.moves_embeddings:
        raise GRMPError(
            "Expected the same views in every epoch for a recipe that embeds each picture once, got random crops. Take "
            "crop=None, or a recipe that trains the vision tower."
        )
    adapted = _begin(model, recipe, begun, start, seed)
    known = describe(adapted, pictures, recipe, tell, begun is not None)
    if recipe.moves_embeddings:
        beside = known.taught(pictures.crop is None)
        shots: RatedPictures | Columns = pictures.taught(views=recipe.views, **rated, **beside)
    else:
        shots = Columns({**rated, **known.columns})
    run = _run(adapted, recipe, seed, known.digest, rated, pairs)
    given = {"rule": rule if recipe.moves_embeddings else None, "callbacks": [Teller(tell, "train"), *callbacks]}
    with _fitting(adapted, shots, known, recipe, Path(output_dir), run, pairs, **given) as trainer:
        trainer.train(resume_from_checkpoint=True)
    return adapted


@aside()
def adapt_embeds(
    model: GRMPForImageQualityAssessment,
    embeds: Tensor,
    quality: Tensor,
    *,
    side: Tensor | None = None,
    noise: Tensor | None = None,
    recipe: FewShotRecipe | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    output_dir: str | Path,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    compared: Compared | None = None,
) -> PeftModel:
    """:func:`adapt` from embeddings that were computed before, for many runs over the same pictures.

    Args:
        model: as for :func:`adapt`.
        embeds: ``(n, D)`` from the ``get_image_embeds`` of the model, or of the model with the visual prompts of the
            start, where it has some.
        side: ``(n, F)``, what the base's side network says, where it has one and the recipe maps features.
        quality, noise, recipe, start, seed, output_dir, progress, callbacks, compared: as for :func:`adapt`.

    Raises:
        GRMPError: as for :func:`adapt`, or a recipe that would change the embeddings.
    """
    check_quality(quality, len(embeds))
    recipe, begun = _sizes(recipe, start, model.device)
    if recipe.moves_embeddings:
        raise GRMPError(
            f"Expected a recipe that leaves the embeddings as they are, got train={recipe.train!r} with "
            f"{recipe.visual_prompts} visual prompts. Use adapt, which takes the pictures."
        )
    adapted = _begin(model, recipe, begun, start, seed)
    columns = {"image_embeds": embeds, **({"side": side} if recipe.features and side is not None else {})}
    if recipe.features and side is None and model.side is not None:
        raise GRMPError("Expected what the base's side network says of the pictures, side=, beside embeds, got None.")
    with torch.no_grad(), contextlib.nullcontext() if begun or recipe.features else teacher_mode(adapted):
        shown = {name: column.to(adapted.device) for name, column in columns.items()}
        logits = adapted(**shown).quality_logits.cpu()
    known = Known(columns, logits, None, digest(list(columns.values())))
    pairs = (compared or Compared()) if recipe.objective == "fidelity" else None
    rated = {"labels": quality, **certainty_of(noise, len(quality), recipe), **_columns(pairs, len(quality))}
    run = _run(adapted, recipe, seed, known.digest, rated, pairs)
    watching = {"callbacks": [Teller(progress, "train"), *callbacks]}
    with _fitting(
        adapted, Columns({**rated, **columns}), known, recipe, Path(output_dir), run, pairs, **watching
    ) as trainer:
        trainer.train(resume_from_checkpoint=True)
    return adapted


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


def _fitting(
    model: PeftModel,
    shots: RatedPictures | Columns,
    known: Known,
    recipe: FewShotRecipe,
    output: Path,
    run: dict[str, Any],
    pairs: Compared | None,
    **given: Any,
) -> AbstractContextManager[GRMPTrainer]:
    """A trainer of a new adapter, calibrated by what is known of the shots at its start."""
    quality = shots.columns["labels"]
    arguments = _arguments(recipe, model.device, len(quality), run["seed"], output)
    if pairs is not None:
        levels = anchor_levels(model.config)
        given |= pairs.settings(levels, len(quality), recipe.batch_size, run["seed"])
    if recipe.calibrate:
        fit_calibration(model, known.logits, quality)
    if recipe.features:
        embeds, side = known.columns["image_embeds"], known.columns.get("side")
        noise = 1 / shots.columns["certainty"] if "certainty" in shots.columns else None
        belief, gain = fit_features(model, embeds, side, known.logits, quality, noise=noise)
        _record_evidence(model, belief, gain, quality)
        maps = {name: torch.zeros_like(p) for name, p in model.named_parameters() if name.endswith(_MAP)}
        given["pulls"] = [(pull_of_map(quality, anchor_levels(model.config)), maps)]
    return fitting(model, arguments, run, keep=False, train_dataset=shots, **given)


def _record_evidence(model: PeftModel, belief: Belief, gain: ExpectedGain, quality: Tensor) -> None:
    """Let the adapter's record hold what the shots have decided."""
    config: Any = model.active_peft_config
    record = Record.of(config)
    decided = {
        "decision": agreement(belief, float(quality.double().std(correction=0))),
        "base_weight": round(belief.slope, 4),
        "prior": {"agreement": round(belief.prior.agreement, 4), "modesty": round(belief.prior.modesty, 4)},
        "strengths": {name: round(strength, 4) for name, strength in belief.strengths.items()},
        "expected_gain": {name: round(value, 4) for name, value in gain._asdict().items()},
        "more": str(gain),
    }
    dataclasses.replace(record, provenance={**(record.provenance or {}), "evidence": decided}).attach(config)


def _columns(pairs: Compared | None, shots: int) -> dict[str, Tensor]:
    return {} if pairs is None else pairs.columns(shots)


def _run(
    model: PeftModel, recipe: FewShotRecipe, seed: int, seen: str, rated: dict[str, Tensor], pairs: Compared | None
) -> dict[str, Any]:
    """All that decides about the trained weights of a model at its start."""
    start = [value for name, value in sorted(model.state_dict().items()) if ".grmp_" in name]
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "base": Record.of(model.active_peft_config).fingerprint,
        "start": digest(start),
        "shots": [seen, digest(list(rated.values())), *([] if pairs is None else pairs.digest())],
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
        features=feature_groups(model) if recipe.features else None,
        freeze_visual_prompts=authors,
        modules_to_save=reference_modules(model, recipe.blocks) if authors else None,
    )
    if begun is None:
        return config
    for name in ("visual_prompts", "visual_layers", "prompt_dropout"):
        setattr(config, name, getattr(begun, name))
    known = Record.of(begun)
    Record(known.base, fingerprint=known.fingerprint, head=known.head).attach(config)
    config.anchor_residuals |= begun.anchor_residuals
    config.calibrate |= begun.calibrate
    config.freeze_visual_prompts = authors or not recipe.visual_prompts
    return config


def _arguments(
    recipe: FewShotRecipe, device: torch.device, shots: int, seed: int, output: Path
) -> GRMPTrainingArguments:
    arguments = GRMPTrainingArguments(
        output_dir=str(output / "fit"),
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        optim=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        regularization_strength=recipe.regularization_strength if recipe.moves_embeddings else 0.0,
        semantic_temperature=recipe.semantic_temperature,
        projection_unit=recipe.projection_unit,
        pull_to_start=recipe.pull_to_start(shots),
        pull_exempt=["offset", _MAP],
        seed=seed,
        bf16=bool(recipe.bf16),
        use_cpu=device.type == "cpu",
        **kept_quietly(recipe.save_steps),
    )
    joint = min(recipe.batch_size, shots)
    arguments.joint_batch_size = None if recipe.objective == "fidelity" else joint  # there a plan says it
    arguments.per_device_train_batch_size = math.ceil(joint / arguments.world_size)
    return arguments
