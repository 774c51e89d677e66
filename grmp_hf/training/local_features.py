"""Learning injected local features (LoDa) from rated pictures: adapter and head by a correlation, then the scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import PeftModel

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.brought_heads import bring_head
from grmp_hf.modeling.linear_heads import Cosine, end_anchors
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.record import Record
from grmp_hf.training.aside import aside
from grmp_hf.training.calibration import place_means
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.fitting import fitting, plain_arguments, say_taught
from grmp_hf.training.objectives import plcc
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.precision import BF16
from grmp_hf.training.recipes import Recipe
from grmp_hf.training.sampling import repeated, within
from grmp_hf.training.shots import check_quality, look

__all__ = ["LoDaRecipe", "adapt_locally"]


@dataclass(frozen=True)
class LoDaRecipe(Recipe):
    """What is injected and how it is learnt. The defaults are small, for some dozens of pictures on the embedded base.

    Attributes:
        latent, heads, grid, up, start, batch_statistics: see :class:`~grmp_hf.modeling.peft_injection.LoDaConfig`.
        head: ``"anchors"``: a cosine with the joint embedding, whose direction begins at the difference between the
            best and the worst quality anchor, so that the first order is that of the base; or ``"token"``: with
            the class token, from a random direction, as in the paper.
        dropout: of what the head reads.
        crops: of each picture in an epoch.
        epochs: over the pictures; 0 for ``steps``.
        steps: optimizer steps, where ``epochs`` is 0.
        batch_size: pictures of a step, whose correlation teaches.
        learning_rate: at the beginning; it falls to 0 by a cosine.
        weight_decay: on every trained tensor.
        bf16: run the training passes under bfloat16 autocast; ``"auto"``: where the processor computes it natively.

    Source: LoDa (arXiv 2308.12001); its settings are the recipe ``paper``.
    """

    stage: ClassVar[str] = "loda"
    least: ClassVar[Mapping[str, float]] = {"batch_size": 2}

    latent: int = 64
    heads: int = 4
    grid: int = 7
    up: Literal["mlp", "linear"] = "linear"
    start: Literal["zero", "random"] = "zero"
    batch_statistics: bool = False
    head: Literal["anchors", "token"] = "anchors"
    dropout: float = 0.0
    crops: int = 1
    epochs: int = 0
    steps: int = 24
    batch_size: int = 8
    learning_rate: float = 0.0005
    weight_decay: float = 0.01
    bf16: BF16 = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config()  # which refuses sizes that do not fit together

    def config(self) -> LoDaConfig:
        """Of what is injected, with the head beside it."""
        names = ("latent", "heads", "grid", "up", "start", "batch_statistics")
        return LoDaConfig(**{name: getattr(self, name) for name in names}, modules_to_save=["head"])


@aside()
def adapt_locally(
    model: GRMPForImageQualityAssessment,
    pictures: RatedPictures,
    *,
    views: RatedPictures | None = None,
    recipe: LoDaRecipe | str | Path | None = None,
    seed: int = 0,
    output_dir: str | Path,
) -> PeftModel:
    """Learn local features and a head, and where its cosines lie on the scale.

    Args:
        model: the base, with a side network; it stays what it is, and its weights are shared, not copied.
        pictures: to learn from, of one data set: the same views in every epoch, or crops.
        views: the same pictures as scoring will see them, to place the cosines; None for ``pictures``.
        recipe: see :class:`LoDaRecipe`, its name in the package (``default``, ``paper``), or a file of YAML.
        seed: of the start, of dropout and of the order; the result is a function of the arguments alone.
        output_dir: for the state of the run; removed at the end.

    Returns:
        The adapted model in evaluation mode, its adapter named "default".

    Raises:
        GRMPError: a base without side network, quality outside [0, 1] or not one for each picture, or all alike; or
            another number of views.
    """
    recipe, quality = LoDaRecipe.named(recipe).settled(model.device), pictures.columns["labels"]
    check_quality(quality, len(quality))
    if views is not None and len(views) != len(pictures):
        raise GRMPError(f"Expected views of the same {len(pictures)} pictures, got {len(views)}. Take the same rows.")
    torch.manual_seed(seed)
    base = copy_base(model)
    adapted = bring_head(base, _head(model, recipe), recipe.config())
    arguments = plain_arguments(recipe, Path(output_dir), seed, use_cpu=model.device.type == "cpu")
    run = {"recipe": asdict(recipe), "seed": seed, "labels": digest([quality])}
    run["base"] = Record.of(adapted.active_peft_config).fingerprint
    plan = repeated(within(["one"] * len(quality), recipe.batch_size, seed=seed), recipe.crops)
    given: dict[str, Any] = {"objective": plcc, "plan": plan, "train_dataset": pictures}
    with fitting(adapted, arguments, run, keep=False, **given) as trainer:
        trainer.train()
    held = adapted.get_base_model().head.modules_to_save["default"]
    held.place(*place_means(look(adapted, views or pictures, ["mean"])["mean"], quality))
    return say_taught(adapted, run, shots=len(quality))


def _head(model: GRMPForImageQualityAssessment, recipe: LoDaRecipe) -> Cosine:
    clip = model.config.clip_config
    if recipe.head == "token":
        return Cosine(clip.vision_config.hidden_size, token=True, dropout=recipe.dropout, placed=True)
    head = Cosine(clip.projection_dim, dropout=recipe.dropout, placed=True)
    with torch.no_grad():
        best, worst = end_anchors(model)
        head.direction.copy_(best - worst)
    return head
