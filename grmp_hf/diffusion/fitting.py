"""Learning a diffusion scorer from rated pictures, in the package's own Trainer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from grmp_hf.diffusion.scorer import DiffusionScorer
from grmp_hf.training.aside import aside
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.fitting import fitting, plain_arguments
from grmp_hf.training.objectives import Batch, Forward, Term, shown
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.precision import BF16
from grmp_hf.training.recipes import Recipe
from grmp_hf.training.sampling import shuffled
from grmp_hf.training.shots import check_quality

__all__ = ["DiffusionRecipe", "adapt_diffusion", "squared_error"]


@dataclass(frozen=True)
class DiffusionRecipe(Recipe):
    """What of a diffusion scorer is trained, and how.

    Attributes:
        train: ``"all"`` but the VAE, as the authors do; or ``"decoder"``: decoder and adapters, on a frozen U-Net.
        epochs: over the pictures; 0 for ``steps``. There is no choice among them: the last one is what is returned.
        steps: optimizer steps, where ``epochs`` is 0.
        batch_size: pictures of a step.
        learning_rate: at the beginning; it falls to 0 by a cosine (in the authors' code to a fifth, once).
        weight_decay: on every trained tensor.
        bf16: run the training passes under bfloat16 autocast (float16 in the authors' code); ``"auto"``: where the
            processor computes it natively.

    Source: DP-IQA (arXiv 2405.19996), whose numbers the defaults are, "at most" in the case of the epochs.
    """

    stage: ClassVar[str] = "diffusion"

    train: Literal["all", "decoder"] = "all"
    epochs: int = 30
    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    bf16: BF16 = "auto"


def squared_error(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
    """The mean squared error of a scorer's ``mean`` from the labels, as channel ``"quality"``."""
    output, labels = student(shown(batch)), batch["labels"].flatten()
    return {"quality": Term((output.mean - labels.to(output.mean)).square().mean(), len(labels))}


@aside()
def adapt_diffusion(
    model: DiffusionScorer,
    pictures: RatedPictures,
    *,
    recipe: DiffusionRecipe | None = None,
    seed: int = 0,
    output_dir: str | Path,
) -> DiffusionScorer:
    """Train a diffusion scorer in place; U-Nets are too large for a copy.

    Args:
        model: new, or trained before.
        pictures: one view each, by :func:`~grmp_hf.diffusion.scorer.diffusion_processor`.
        recipe: see :class:`DiffusionRecipe`.
        seed: of the latents that are drawn and of the order.
        output_dir: for the state of the run; removed at the end.

    Returns:
        The same model, in evaluation mode.

    Raises:
        GRMPError: quality outside [0, 1] or not one for each picture, or all alike.
    """
    recipe, quality = (recipe or DiffusionRecipe()).settled(model.device), pictures.columns["labels"]
    check_quality(quality, len(quality))
    model.prior.unet.requires_grad_(recipe.train == "all")
    arguments = plain_arguments(recipe, Path(output_dir), seed, use_cpu=model.device.type == "cpu")
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    run = {"recipe": asdict(recipe), "seed": seed, "start": digest([*trained[-1:], quality])}
    given: dict[str, Any] = {"objective": squared_error, "plan": shuffled(len(quality), recipe.batch_size, seed=seed)}
    torch.manual_seed(seed)
    with fitting(model, arguments, run, keep=False, train_dataset=pictures, **given) as trainer:
        trainer.train()
    return model
