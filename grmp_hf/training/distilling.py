"""A small scorer learns what a large one says: its score and its map of quality, beside ratings where there are any.

Letters in shapes: B pictures of a batch, n pictures that teach, M channels and G side of the teacher's map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor
from torch.nn import functional as F

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.brought_heads import bring_head
from grmp_hf.modeling.map_head import MapHead
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.record import Record
from grmp_hf.training.aside import aside
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.fitting import fitting, plain_arguments, say_taught
from grmp_hf.training.objectives import Batch, Forward, Term, shown
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.precision import BF16
from grmp_hf.training.recipes import Recipe
from grmp_hf.training.rules import summed
from grmp_hf.training.sampling import shuffled

__all__ = ["StudentRecipe", "adapt_student", "as_taught"]


@dataclass(frozen=True)
class StudentRecipe(Recipe):
    """What a student is, and how it learns.

    Attributes:
        adapter: ``"head"``: the map head alone on the frozen tower; or ``"loda"``: with injected local features, as
            small as in :class:`~grmp_hf.training.local_features.LoDaRecipe`.
        hidden: see :class:`~grmp_hf.modeling.map_head.MapHead`.
        rated, score, map: weights of the three losses; see :func:`as_taught`. The authors' are 1, 0 and 1.
        epochs: over the pictures; 0 for ``steps``.
        steps: optimizer steps, where ``epochs`` is 0.
        batch_size: pictures of a step.
        learning_rate: at the beginning; it falls to 0 by a cosine.
        weight_decay: on every trained tensor.
        bf16: run the training passes under bfloat16 autocast; ``"auto"``: where the processor computes it natively.
    """

    stage: ClassVar[str] = "student"

    adapter: Literal["head", "loda"] = "head"
    hidden: int = 64
    rated: float = 1.0
    score: float = 1.0
    map: float = 1.0
    epochs: int = 10
    steps: int = 200
    batch_size: int = 24
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    bf16: BF16 = False


def as_taught(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
    """What a student is told, each as a mean squared error:

    - channel ``"rated"``: of its quality from the rating; a label that is NaN counts nothing;
    - channel ``"score"``: of its quality from the teacher's, ``batch["taught_quality"]`` ``(B,)``;
    - channel ``"map"``: of its map from the teacher's, ``batch["taught_map"]`` ``(B, M, G, G)``, to whose grid it is
      brought by bilinear interpolation.

    The three need a rule, such as :func:`~grmp_hf.training.rules.summed` with a weight of each. The teacher is no part
    of the step: what it says has been kept, from pictures that both see whole.

    Raises:
        GRMPError: nothing of a teacher in the batch, a head without a map, several views, or maps of other channels.

    Source: DP-IQA (arXiv 2405.19996); in its code the student learns ratings and the map, not the teacher's score.
    """
    if not {"taught_quality", "taught_map"} <= batch.keys():
        raise GRMPError(
            "Expected the columns taught_quality and taught_map, got none. Ask the teacher first, found = "
            "grmp_hf.training.shots.look(teacher, pictures, ['quality', 'quality_map']), and learn from "
            "pictures.taught(taught_quality=found['quality'], taught_map=found['quality_map'])."
        )
    output, labels, taught = student(shown(batch)), batch["labels"].flatten(), batch["taught_map"]
    drawn = _only_view(getattr(output, "quality_map", None), taught)
    known = labels.isfinite().nonzero(as_tuple=True)[0]
    rated = (output.quality[known] - labels[known].to(output.quality)).square().sum() / max(len(known), 1)
    score = (output.quality - batch["taught_quality"].to(output.quality)).square().mean()
    drawn = F.interpolate(drawn, size=taught.shape[-2:], mode="bilinear", align_corners=False)
    maps = (drawn - taught.to(drawn)).square().mean()
    return {"rated": Term(rated, len(known)), "score": Term(score, len(labels)), "map": Term(maps, len(labels))}


def _only_view(drawn: Tensor | None, taught: Tensor) -> Tensor:
    if drawn is None:
        raise GRMPError("Expected a head with a map of quality, got one without. Take MapHead.")
    if drawn.ndim != 5 or drawn.shape[1] != 1 or drawn.shape[2] != taught.shape[1]:
        raise GRMPError(
            f"Expected a map of one view with {taught.shape[1]} channels, as the teacher draws it, got "
            f"{tuple(drawn.shape[1:])} (views, channels, height, width). Show the student one view, the teacher's, and "
            f"make its MapHead with channels={taught.shape[1]}."
        )
    return drawn[:, 0]


@aside()
def adapt_student(
    model: GRMPForImageQualityAssessment,
    pictures: RatedPictures,
    taught: Mapping[str, Tensor],
    *,
    recipe: StudentRecipe | None = None,
    seed: int = 0,
    output_dir: str | Path,
) -> PeftModel:
    """Learn a scorer of ours from what a larger one says of pictures.

    Args:
        model: the student's base, without an adapter; its weights are shared, not copied.
        pictures: one view each, of which the teacher has seen the same part; their labels, NaN where nobody rated one,
            are a quality in [0, 1].
        taught: ``quality`` ``(n,)`` and ``quality_map`` ``(n, M, G, G)`` of the teacher; see
            :func:`~grmp_hf.training.shots.look`.
        recipe: see :class:`StudentRecipe`.
        seed: of the start and of the order; the result is a function of the arguments alone.
        output_dir: for the state of the run; removed at the end.

    Returns:
        The student in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: columns of another length, labels outside [0, 1], or a base without the side network for ``"loda"``.
    """
    recipe, labels = (recipe or StudentRecipe()).settled(model.device), pictures.columns["labels"]
    quality, drawn = _check(taught, labels)
    torch.manual_seed(seed)
    base, vision = copy_base(model), model.config.clip_config.vision_config
    grid = vision.image_size // vision.patch_size
    head = MapHead(vision.hidden_size, grid, drawn.shape[1], recipe.hidden)
    adapted = bring_head(base, head, _config(recipe))
    views = len(model.config.view_weights or ())  # without those of a side network
    rows = pictures.taught(views=views, taught_quality=quality, taught_map=drawn)
    arguments = plain_arguments(recipe, Path(output_dir), seed, use_cpu=model.device.type == "cpu")
    run = {"recipe": asdict(recipe), "seed": seed, "taught": digest([labels, quality, drawn])}
    run["base"] = Record.of(adapted.active_peft_config).fingerprint
    given: dict[str, Any] = {"objective": as_taught, "plan": shuffled(len(labels), recipe.batch_size, seed=seed)}
    given["rule"] = summed({name: getattr(recipe, name) for name in ("rated", "score", "map")})
    with fitting(adapted, arguments, run, keep=False, train_dataset=rows, **given) as trainer:
        trainer.train()
    return say_taught(adapted, run, pictures=len(labels))


def _check(taught: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the teacher says, one row for each picture."""
    quality, drawn = taught.get("quality"), taught.get("quality_map")
    known = labels[labels.isfinite()]
    if quality is None or drawn is None or quality.shape != labels.shape or drawn.shape[:-3] != labels.shape:
        got = ", ".join(f"{name} {tuple(column.shape)}" for name, column in taught.items()) or "nothing"
        raise GRMPError(
            f"Expected quality ({len(labels)},) and quality_map ({len(labels)}, channels, height, width) of the "
            f"teacher, got {got}. Ask it of the same pictures."
        )
    if not bool(((known >= 0) & (known <= 1)).all()):
        raise GRMPError(
            f"Expected labels in [0, 1], or NaN, got {known.min():g} to {known.max():g}. Map ratings with "
            "RatingScale.to_quality."
        )
    return quality, drawn


def _config(recipe: StudentRecipe) -> PeftConfig:
    if recipe.adapter == "loda":
        return LoDaConfig(up="linear", modules_to_save=["head"])
    return GRMPPromptConfig(text_prompts=0, visual_prompts=0, modules_to_save=["head"])
