"""Learning one data set of a stream: the head first, then adapter and head.

Letters in shapes: n pictures, H data sets, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LNTuningConfig, LoraConfig, PeftConfig, PeftModel
from torch import Tensor, nn

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.bases import base_fingerprint
from grmp_hf.modeling.brought_heads import bring_head
from grmp_hf.modeling.linear_heads import Cosines
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.aside import aside
from grmp_hf.training.calibration import place_means
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.continual import distilled, hold, importance
from grmp_hf.training.fitting import Teller, fitting, kept_quietly
from grmp_hf.training.gradients import named_gradients
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.rules import Rule, summed
from grmp_hf.training.sampling import Plan, within
from grmp_hf.training.shots import Columns, look
from grmp_hf.training.stream_recipe import Kind, StreamRecipe

__all__ = ["Held", "adapter_config", "begin", "fisher", "learn", "trained_weights"]

Progress = Callable[[str, float], None]

_NORMS = r".*vision_model.*(layer_norm1|layer_norm2|pre_layrnorm|post_layernorm)"  # the library's own spelling
_HEAD = ".head.modules_to_save.default."


@dataclass(frozen=True)
class Held:
    """Weights that mattered for earlier data sets.

    Attributes:
        start: name -> value.
        weights: name -> the sum over data sets of :func:`~grmp_hf.training.continual.importance`.
    """

    start: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


@aside()
def begin(
    base: GRMPForImageQualityAssessment, recipe: StreamRecipe, sets: int, *, seed: int, before: PeftModel | None = None
) -> PeftModel:
    """A new adapter with a head of ``sets`` directions around a base, whose weights it shares.

    Args:
        base: without an adapter; it stays what it is.
        recipe: of what kind.
        sets: H.
        seed: of what begins at random.
        before: an adapter of the same kind, for fewer data sets, whose weights and directions it begins with.
    """
    torch.manual_seed(seed)
    config = adapter_config(recipe.adapter, recipe.rank, recipe.visual_prompts)
    adapted = bring_head(copy_base(base), Cosines(base.config.clip_config.projection_dim, sets), config)
    if recipe.adapter == "prompts" and not recipe.train_projection:
        for name, weight in adapted.named_parameters():
            if ".projection." in name and ".grmp_visual." in name:
                weight.requires_grad_(False)
    if before is not None:
        known = before.state_dict()
        with torch.no_grad():
            for name, value in adapted.state_dict().items():
                if _HEAD in name and name.endswith(("scale", "offset")):
                    value[: len(known[name])] = known[name]
                elif name in known and (_HEAD in name or _is_own(name)):
                    value.copy_(known[name])
    return adapted.eval()


def _is_own(name: str) -> bool:
    return ".ln_tuning_layers." in name or ".lora_" in name or ".grmp_" in name


def adapter_config(kind: Kind, rank: int, visual_prompts: int) -> PeftConfig:
    """Settings of an adapter of the vision tower that holds the model's head.

    Args:
        kind, rank, visual_prompts: see :class:`~grmp_hf.training.stream_recipe.StreamRecipe`.
    """
    kept = ["head"]
    if kind == "layer_norm":
        return LNTuningConfig(target_modules=_NORMS, modules_to_save=kept)
    if kind == "lora":
        targets = r".*vision_model.*(q_proj|v_proj)"
        return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, modules_to_save=kept)
    return GRMPPromptConfig(text_prompts=0, visual_prompts=visual_prompts, prompt_dropout=0.0, modules_to_save=kept)


def trained_weights(model: PeftModel) -> int:
    """Number of the weights of an adapter that are trained, its head's left out."""
    return sum(w.numel() for name, w in model.named_parameters() if w.requires_grad and _HEAD not in name)


@aside()
def learn(
    model: PeftModel,
    pictures: RatedPictures,
    sets: Tensor,
    new: Sequence[int],
    *,
    recipe: StreamRecipe,
    seed: int,
    output_dir: str | Path,
    before: PeftModel | None = None,
    held: Held | None = None,
    progress: Progress | None = None,
) -> PeftModel:
    """Train a model of :func:`begin` on rated pictures: the new directions alone, then all but the old directions.

    Args:
        model: at its start; it is trained in place.
        pictures: that teach, and those of earlier data sets that are learnt from again.
        sets: ``(n,)``, the number of each picture's data set.
        new: numbers of the data sets that have not been learnt before.
        recipe: how.
        seed: of the order of pictures.
        output_dir: for the state of an unfinished run, which the same call takes up again; removed at the end.
        before: the adapter before, that teaches by distillation; None for no distillation.
        held: weights that mattered before, for ``ewc``.
        progress: told what is being done and which share of it is done.

    Returns:
        The model in evaluation mode, its new axes placed on the scale of ratings.

    Raises:
        GRMPError: a data set of fewer than two pictures or of equal ratings, or pictures that cannot be read.
    """
    _check(pictures, sets, new)
    shown = look(model, pictures, ["image_embeds"], progress)
    known = {"labels": pictures.columns["labels"], "dataset": sets}
    taught = {} if before is None else {"before": look(before, pictures, ["means"])["means"]}
    own = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    run = {
        "recipe": asdict(recipe),
        "seed": seed,
        "base": base_fingerprint(model),
        "seen": digest([shown["image_embeds"], *known.values(), *taught.values()]),
        "start": digest([weight for _, weight in own]),
        "held": None if held is None else digest([*held.start.values(), *held.weights.values()]),
    }
    plan, folder = within(sets.tolist(), recipe.group, seed=seed), Path(output_dir)
    objective = distilled(model.config.quality_levels, sigma=recipe.sigma)

    def stage(name: str, wanted: Callable[[str], bool], rows: Any, rule: Rule, epochs: int, rate: float) -> None:
        arguments = _arguments(folder / name, recipe, model, plan, seed, epochs, rate)
        given: dict[str, Any] = {"objective": objective, "plan": plan, "rule": rule, "train_dataset": rows}
        tellers = [Teller(progress, f"learn {name}")]
        with _training(own, wanted), fitting(model, arguments, run, keep=False, callbacks=tellers, **given) as trainer:
            trainer.train(resume_from_checkpoint=True)

    embedded = Columns({**known, "image_embeds": shown["image_embeds"]})
    stage("head", lambda name: _is_new(name, new), embedded, summed(), recipe.head_epochs, recipe.head_learning_rate)
    if recipe.epochs:
        rule: Rule = summed({"distillation": recipe.strength})
        if held is not None:
            rule = hold(rule, recipe.strength, held.start, held.weights)
        views = len(model.config.view_weights or ())  # without those of a side network, which no head here reads
        whole = pictures.taught(views=views, **known, **taught)

        def wanted(name: str) -> bool:
            return _HEAD not in name or _is_new(name, new)

        stage("both", wanted, whole, rule, recipe.epochs, recipe.learning_rate)
    _place(model, look(model, pictures, ["means"])["means"], known, new)
    return model


def _is_new(name: str, new: Sequence[int]) -> bool:
    """Whether a weight is the direction of a data set that has not been learnt before."""
    return name.partition(_HEAD)[2] in {f"directions.{number}" for number in new}


def _check(pictures: RatedPictures, sets: Tensor, new: Sequence[int]) -> None:
    quality = pictures.columns["labels"]
    for number in new:
        own = quality[sets == number]
        if len(own) < 2 or bool((own == own[0]).all()):
            raise GRMPError(
                f"Expected at least two pictures of different ratings in data set {number + 1}, got {len(own)}"
                f"{' that are all alike' if len(own) > 1 else ''}. Rate more, or let more of them teach."
            )


@contextmanager
def _training(own: Sequence[tuple[str, nn.Parameter]], wanted: Callable[[str], bool]) -> Iterator[None]:
    """Within this context those of the trained weights that are wanted are trained, and no others."""
    try:
        for name, weight in own:
            weight.requires_grad_(wanted(name))
        yield
    finally:
        for _, weight in own:
            weight.requires_grad_(True)


def _place(model: PeftModel, means: Tensor, rows: Mapping[str, Tensor], new: Sequence[int]) -> None:
    """Set where the new axes lie on the scale of ratings."""
    shell: Any = model.get_base_model().head
    head = cast(Cosines, shell.modules_to_save["default"])
    for number in new:
        own = rows["dataset"] == number
        head.scale[number], head.offset[number] = place_means(means[own, number], rows["labels"][own])


def fisher(
    model: PeftModel, pictures: RatedPictures, sets: Tensor, recipe: StreamRecipe, seed: int
) -> dict[str, Tensor]:
    """How much each weight of an adapter matters for pairs of rated pictures; see
    :func:`~grmp_hf.training.continual.importance`.

    Args:
        model: that has learnt them.
        pictures, sets, recipe, seed: as for :func:`learn`.
    """
    parameters = {n: w for n, w in model.named_parameters() if w.requires_grad and _HEAD not in n}
    objective = distilled(model.config.quality_levels, sigma=recipe.sigma)

    def forward(inputs: Mapping[str, Any]) -> Any:
        return model(**inputs)

    def each() -> Iterator[Mapping[str, Tensor]]:
        for joint in within(sets.tolist(), recipe.group, seed=seed)(0):
            keys = [key for group in joint for key in group]
            rows = [pictures[key] for key in keys]
            batch = {name: torch.stack([row[name] for row in rows]).to(model.device) for name in rows[0]}
            batch["dataset"] = torch.stack([sets[index] for _, index in keys]).to(model.device)
            batch["groups"] = torch.zeros(len(keys), dtype=torch.long, device=model.device)
            terms = objective(forward, forward, batch)
            yield named_gradients(terms["fidelity"].mean, parameters)

    return {name: found.cpu() for name, found in importance(each()).items()}


def _arguments(
    folder: Path, recipe: StreamRecipe, model: PeftModel, plan: Plan, seed: int, epochs: int, rate: float
) -> GRMPTrainingArguments:
    return GRMPTrainingArguments(
        output_dir=str(folder),
        max_steps=epochs * len(list(plan(0))),
        learning_rate=rate,
        lr_scheduler_type="cosine",
        optim="adamw_torch",
        weight_decay=recipe.weight_decay,
        regularization_strength=0.0,
        seed=seed,
        bf16=bool(recipe.bf16),
        use_cpu=model.device.type == "cpu",
        **kept_quietly(recipe.save_steps),
    )
