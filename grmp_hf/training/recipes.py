"""Recipes: what is trained and how, as YAML that mirrors a dataclass key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import torch

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.recipe_files import find_recipe, read_yaml, whose_keys
from grmp_hf.training.checking import check_settings, check_values
from grmp_hf.training.precision import BF16, settle_bf16

__all__ = ["FewShotRecipe", "PretrainRecipe", "Recipe", "make_recipe", "read_recipe"]

_Kind = TypeVar("_Kind")


def read_recipe(kind: type[_Kind], path: str | Path) -> _Kind:
    """Read a recipe from YAML; keys are the attributes of its class, and what is left out keeps its default.

    Raises:
        GRMPError: no such file, no mapping in it, or what :func:`make_recipe` refuses.
    """
    return make_recipe(kind, read_yaml(path, "a recipe") or {}, f" in {str(path)!r}")


def make_recipe(kind: type[_Kind], values: Any, where: str = "") -> _Kind:
    """A recipe from a mapping of plain values.

    Args:
        kind: its class.
        values: of its attributes; what is left out keeps its default.
        where: they come from, for the message, such as " in 'recipe.yaml'".

    Raises:
        GRMPError: no mapping, a key that a recipe does not have, or a value that it cannot have.
    """
    known = [field.name for field in fields(cast(Any, kind))]
    unknown = sorted(map(str, set(values) - set(known))) if isinstance(values, dict) else [str(values)]
    if unknown:
        advice = whose_keys(map(str, values)) if isinstance(values, dict) else ""
        raise GRMPError(f"Expected keys out of {', '.join(known)}{where}, got {', '.join(unknown)}.{advice}")
    check_values(kind, values, where)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


class Recipe:
    """What every kind of recipe can do; its values are checked when it is made.

    Attributes:
        stage: what the names of its files begin with.
        above_0: numbers that may not be 0.
        least: of counts that need more than 1, or may be 0; see :func:`~grmp_hf.training.checking.check_values`.
    """

    stage: ClassVar[str]
    least: ClassVar[Mapping[str, float]] = {}
    above_0: ClassVar[tuple[str, ...]] = ()
    bf16: BF16

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a recipe; see :func:`read_recipe`."""
        return read_recipe(cls, path)

    @classmethod
    def named(cls, recipe: Self | str | Path | None) -> Self:
        """A recipe as it is, by its name in the package or from a file of YAML; the defaults if None.

        Raises:
            GRMPError: neither such a name nor such a file, or another kind of recipe.
        """
        if isinstance(recipe, str | Path):
            return cls.from_yaml(find_recipe(cls.stage, recipe))
        if recipe is not None and not isinstance(recipe, cls):
            raise GRMPError(f"Expected a {cls.__name__}, a name or a file, got {recipe!r}.")
        return cls() if recipe is None else recipe

    def settled(self, device: torch.device) -> Self:
        """The same with ``bf16`` as it comes to on a device."""
        return cast(Self, replace(cast(Any, self), bf16=settle_bf16(self.bf16, device)))


@dataclass(frozen=True)
class FewShotRecipe(Recipe):
    """What is trained on the shots, and how. The defaults were chosen on BIQ2021's train part (docs/decisions.md).

    Attributes:
        train: ``"prompts"``, or ``"authors"``: text tokens, the last blocks of both towers and the final norms, as in
            the reference (the adapter then holds copies of those blocks; visual prompts are frozen).
        objective: ``"quality"``, the cross-entropy of each rating, or ``"fidelity"``: which picture of a pair is
            better, for all pairs of a data set, see :func:`~grmp_hf.training.objectives.pairwise`. Embeddings then stay
            what they are.
        text_prompts: learned tokens of the quality anchors.
        visual_prompts: prompts of each vision layer, which begin at random and are trained; with 0 the pictures are
            embedded once and training takes seconds.
        train_visual: train the visual prompts of an adapter to start from. Kept as they are, they are part of the
            embedding: the pictures are embedded once with them.
        anchor_residuals: learn a shift of each quality anchor.
        calibrate: learn scale and offset of the logits.
        features: map features to the anchors' logits, those of the embedding and of the base's side network, each
            group as far as the shots ask for; see :mod:`grmp_hf.training.evidence`.
        blocks: last blocks of each tower under ``"authors"``.
        views: how many views of each picture training sees, the first ones, where it runs the vision tower; 0 for all.
            The teacher has seen all of them.
        bf16: run the training passes under bfloat16 autocast; weights and steps stay fp32. ``"auto"``: where the
            processor computes it natively. Scores are always those of full precision.
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
            the base knows, many may. The map of features has a pull of its own, which follows from the shots.
        save_steps: steps between checkpoints; 0 for none.
    """

    stage: ClassVar[str] = "adapt"

    train: Literal["prompts", "authors"] = "prompts"
    objective: Literal["quality", "fidelity"] = "quality"
    text_prompts: int = 4
    visual_prompts: int = 0
    train_visual: bool = False
    anchor_residuals: bool = False
    calibrate: bool = False
    features: bool = True
    blocks: int = 4
    views: int = 0
    bf16: BF16 = False
    steps: int = 20
    batch_size: int = 256
    optimizer: Literal["adamw_torch", "sgd"] = "adamw_torch"
    learning_rate: float = 0.002
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    regularization_strength: float = 5.0
    semantic_temperature: float = 1.0
    projection_unit: Literal["tensor", "global"] = "tensor"
    pull: float = 70.0
    save_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "fidelity" and self.moves_embeddings:
            raise GRMPError(
                "Expected a recipe for pairs that leaves the embeddings as they are, got one that trains the vision "
                "tower. Take train='prompts' without visual_prompts and train_visual, or GRMPTrainer with "
                "objectives.pairwise."
            )
        if self.calibrate and self.features:
            raise GRMPError("Expected calibrate or features, which calibrate too, got both. Leave calibrate out.")

    def pull_to_start(self, shots: int) -> float:
        """The pull for a number of shots, as ``GRMPTrainingArguments.pull_to_start``."""
        return 2 * self.pull / shots

    @property
    def moves_embeddings(self) -> bool:
        """Whether anything of the vision tower is trained."""
        return self.visual_prompts > 0 or self.train == "authors"

    def begun_from(self, start: GRMPPromptConfig) -> FewShotRecipe:
        """The same with the sizes of an adapter to start from; visual prompts that stay as they are count as none."""
        visual = start.visual_prompts if self.train_visual else 0
        return replace(self, text_prompts=start.text_prompts, visual_prompts=visual)


@dataclass(frozen=True)
class PretrainRecipe(Recipe):
    """What is learnt from episodes, and how.

    Attributes:
        text_prompts: learned tokens of the quality anchors.
        text_start: ``"placeholder"`` or ``"random"`` (the reference's).
        visual_prompts: prompts of each vision layer, learnt with their projection and norm; with 0, texts alone.
        prompt_dropout: share of the projected visual prompts that is dropped while training.
        anchor_residuals: learn a shift of each quality anchor.
        calibrate: fit scale and offset of the logits to the first episodes, and learn the offset from there.
        meta_algorithm: ``"fomaml"``, ``"maml"``, ``"reptile"``, or ``"authors"`` (one long inner run).
        inner_learning_rate, inner_optimizer, inner_steps: of the inner loop.
        steps: outer steps.
        tasks_per_step: episodes of an outer step, over all processes.
        optimizer, learning_rate, schedule, weight_decay: of the outer loop.
        regularization_strength: lambda of the gradient rule on the meta-gradient; 0 for none, as in the reference.
        semantic_temperature: T of the semantic loss.
        projection_unit: ``"tensor"`` or ``"global"``.
        bf16: run forward and backward passes under bfloat16 autocast; weights and steps stay fp32. ``"auto"``: where
            the processor computes it natively.
        eval_steps: outer steps between checkpoints, each of which the held-out episodes judge.
        labels: of synthetic tasks: ``"level"``, or ``"gmsd"``, a full-reference metric.
        judge_photographs: multiply the labels of synthetic tasks by the quality that the base gives to the photograph
            itself: photographs differ before anything is done to them.
        support, query: pictures of an episode.
        support_batch_size, query_batch_size: pictures of a batch inside an episode; None for all at once.
        visits: episodes of each task in an epoch. Loading processes begin anew with each epoch.
        rescale_labels: spread labels over [0, 1] in each support and query, as in the reference.
        fresh_optimizer: names of data sets with whose tasks the moments of ``"authors"``' inner run begin anew.
        held_out_share: share of the references that belong to held-out tasks alone.
        held_out_support, held_out_query: pictures of an episode that judges, each in one batch.
        held_out_visits: episodes of each held-out task in a judgement.
    """

    stage: ClassVar[str] = "pretrain"

    text_prompts: int = 4
    text_start: Literal["placeholder", "random"] = "placeholder"
    visual_prompts: int = 8
    prompt_dropout: float = 0.0
    anchor_residuals: bool = False
    calibrate: bool = True
    meta_algorithm: Literal["fomaml", "maml", "reptile", "authors"] = "reptile"
    inner_learning_rate: float = 3.0
    inner_optimizer: Literal["sgd", "adam"] = "sgd"
    inner_steps: int = 2
    steps: int = 150
    tasks_per_step: int = 4
    optimizer: Literal["adamw_torch", "sgd"] = "adamw_torch"
    learning_rate: float = 0.001
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    regularization_strength: float = 0.0
    semantic_temperature: float = 1.0
    projection_unit: Literal["tensor", "global"] = "tensor"
    bf16: BF16 = "auto"
    eval_steps: int = 30
    labels: Literal["gmsd", "level"] = "level"
    judge_photographs: bool = True
    support: int = 8
    query: int = 24
    support_batch_size: int | None = None
    query_batch_size: int | None = None
    visits: int = 30
    rescale_labels: bool = False
    fresh_optimizer: tuple[str, ...] = ()
    held_out_share: float = 0.2
    held_out_support: int = 16
    held_out_query: int = 16
    held_out_visits: int = 3

    @property
    def learning_episodes(self) -> dict[str, Any]:
        """Sizes of the episodes, as :class:`~grmp_hf.training.episodes.EpisodeDataset` takes them."""
        names = ("support", "query", "support_batch_size", "query_batch_size", "visits", "rescale_labels")
        return {name: getattr(self, name) for name in names}

    @property
    def held_out_episodes(self) -> dict[str, Any]:
        """Sizes of the episodes that judge."""
        sizes = {"support": self.held_out_support, "query": self.held_out_query, "visits": self.held_out_visits}
        return {**sizes, "rescale_labels": self.rescale_labels}
