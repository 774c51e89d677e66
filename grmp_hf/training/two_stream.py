"""A head of two streams learnt on the tokens of the base, which are computed once: minutes become seconds.

It is after LPF (arXiv 2402.12043); see :mod:`grmp_hf.modeling.two_stream`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import PeftModel
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.brought_heads import bring_head
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.modeling.two_stream import TwoStreamHead
from grmp_hf.record import Record
from grmp_hf.training.aside import aside
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.fitting import fitting, plain_arguments, say_taught
from grmp_hf.training.parallel import BINS, categories, in_parallel
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.precision import BF16
from grmp_hf.training.recipes import Recipe
from grmp_hf.training.rules import summed
from grmp_hf.training.sampling import within
from grmp_hf.training.shots import Columns, check_quality

__all__ = ["TwoStreamRecipe", "adapt_streams", "tokens_of"]

_TOGETHER = 8  # pictures that the tower sees at once


@dataclass(frozen=True)
class TwoStreamRecipe(Recipe):
    """How a head of two streams is learnt.

    Attributes:
        latent, dropout, weight: see :class:`~grmp_hf.modeling.two_stream.TwoStreamHead`.
        category, comparison: weights of the two losses beside that of the quality, which has 1; 0 for none.
        bins: categories of ratings, where no distortions are known.
        epochs: over the pictures; 0 for ``steps``.
        steps: optimizer steps, where ``epochs`` is 0.
        batch_size: pictures of a step; each is compared with another one of them.
        learning_rate: at the beginning; it falls to 0 by a cosine.
        weight_decay: on every trained tensor.
        bf16: run the training passes under bfloat16 autocast; ``"auto"``: where the processor computes it natively.

    Source: after LPF (arXiv 2402.12043); every number is ours.
    """

    stage: ClassVar[str] = "lpf"
    least: ClassVar[Mapping[str, float]] = {"bins": 2, "batch_size": 2}

    latent: int = 64
    dropout: float = 0.1
    weight: Literal["softplus", "sigmoid"] = "softplus"
    category: float = 1.0
    comparison: float = 1.0
    bins: int = BINS
    epochs: int = 0
    steps: int = 150
    batch_size: int = 16
    learning_rate: float = 0.002
    weight_decay: float = 0.01
    bf16: BF16 = False


@aside()
def adapt_streams(
    model: GRMPForImageQualityAssessment,
    pictures: RatedPictures | Columns,
    *,
    distortion: Tensor | None = None,
    recipe: TwoStreamRecipe | str | Path | None = None,
    seed: int = 0,
    output_dir: str | Path,
    cached: bool = True,
    callbacks: Sequence[Any] = (),
) -> PeftModel:
    """Learn a head of two streams from rated pictures; the base stays what it is, and is seen once.

    Args:
        model: the base, without an adapter; its weights are shared, not copied.
        pictures: to learn from, of one data set; or what is known of them, the columns ``labels`` ``(n,)`` and
            ``tokens`` ``(n, V, N, W)``, such as :class:`~grmp_hf.features.FeatureStore` keeps.
        distortion: ``(n, A)``, what each picture shows; see :func:`~grmp_hf.training.parallel.categories`.
        recipe: see :class:`TwoStreamRecipe`, its name in the package (``default``), or a file of YAML.
        seed: of the start, of dropout and of the order; the result is a function of the arguments alone.
        output_dir: for the state of the run; removed at the end.
        cached: compute the tokens of pictures once. Without, the tower runs in every step, and sees crops anew: the
            same head comes out of pictures that stay what they are, later.
        callbacks: for the Trainer.

    Returns:
        The adapted model in evaluation mode, its adapter named "default". It holds the head alone, without what was
        auxiliary.

    Raises:
        GRMPError: quality outside [0, 1] or not one for each picture, or all alike; or tokens of another base.
    """
    recipe, quality = TwoStreamRecipe.named(recipe).settled(model.device), pictures.columns["labels"]
    check_quality(quality, len(quality))
    category, kinds = categories(quality, distortion, recipe.bins)
    torch.manual_seed(seed)
    adapted = _begin(model, recipe, float(quality.mean()))
    rows = _rows(adapted, pictures, category, cached)
    arguments = plain_arguments(recipe, Path(output_dir), seed, use_cpu=model.device.type == "cpu")
    run = {"recipe": asdict(recipe), "seed": seed, "labels": digest([quality, category])}
    run["base"] = Record.of(adapted.active_peft_config).fingerprint
    given: dict[str, Any] = {
        "objective": in_parallel(category=recipe.category > 0, comparison=recipe.comparison > 0),
        "rule": summed({"category": recipe.category, "comparison": recipe.comparison}),
        "plan": within(["one"] * len(quality), recipe.batch_size, seed=seed),
        "train_dataset": rows,
        "callbacks": list(callbacks),
    }
    head = adapted.get_base_model().head.modules_to_save["default"]
    with (
        head.beside(categories=kinds if recipe.category > 0 else 0, comparison=recipe.comparison > 0),
        fitting(adapted, arguments, run, keep=False, **given) as trainer,
    ):
        trainer.train()
    return say_taught(adapted, run, shots=len(quality))


def tokens_of(model: GRMPForImageQualityAssessment | PeftModel, pictures: RatedPictures) -> Tensor:
    """Tokens ``(n, V, N, W)`` float32 of pictures as they are in epoch 0, on the CPU; the class token comes first."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    found = []
    with torch.no_grad():
        for pixels in pictures.batches(_TOGETHER):
            values = normalize(pixels, pictures.mean, pictures.std).to(base.device)
            found.append(base.get_features(values, tokens=True).tokens.float().cpu())
    return torch.cat(found)


def _begin(model: GRMPForImageQualityAssessment, recipe: TwoStreamRecipe, mean: float) -> PeftModel:
    """The base with a new head, whose patches all but score the mean of the ratings."""
    base, width = copy_base(model), model.config.clip_config.vision_config.hidden_size
    head = TwoStreamHead(width, recipe.latent, recipe.dropout, recipe.weight)
    with torch.no_grad():
        head.score.bias.copy_(torch.logit(torch.tensor([mean]), eps=0.01))
    return bring_head(base, head, GRMPPromptConfig(text_prompts=0, visual_prompts=0, modules_to_save=["head"]))


def _rows(model: PeftModel, pictures: RatedPictures | Columns, category: Tensor, cached: bool) -> Any:
    """What a step learns from: tokens, or pictures that go through the tower."""
    if isinstance(pictures, RatedPictures):
        if not cached:
            views = len(model.config.view_weights or ())  # without those of a side network
            return pictures.taught(views=views, category=category)
        return Columns({**pictures.columns, "tokens": tokens_of(model, pictures), "category": category})
    if "tokens" not in pictures.columns or "image_embeds" in pictures.columns:
        raise GRMPError(
            f"Expected the columns labels and tokens of pictures, got {', '.join(pictures.columns)}. Take tokens from "
            "a FeatureStore or from tokens_of, and leave image_embeds out."
        )
    return Columns({**pictures.columns, "category": category})
