"""Learning high-level features without ratings: the best photographs of a batch, as the base has it, from the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import PeftModel, get_peft_model

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.brought_heads import bring_head
from grmp_hf.modeling.contrastive import TEMPERATURE
from grmp_hf.modeling.known_heads import require_anchors
from grmp_hf.modeling.linear_heads import Projected
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.record import Record
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.aside import aside
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.contrasts import SHARE, RankedBy, group_contrasts
from grmp_hf.training.expert_fitting import adapter_config
from grmp_hf.training.fitting import Teller, fitting, kept_quietly, say_taught
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.precision import BF16
from grmp_hf.training.recipes import Recipe
from grmp_hf.training.sampling import within
from grmp_hf.training.shots import look
from grmp_hf.training.stream_recipe import Kind

__all__ = ["HighLevelRecipe", "learn_high_level"]


@dataclass(frozen=True)
class HighLevelRecipe(Recipe):
    """What is learnt of the best and the worst photographs, and how. The defaults are for two cores.

    Attributes:
        adapter: ``"layer_norm"``, ``"lora"`` (on queries and values) or ``"prompts"`` (visual ones).
        rank: of LoRA.
        visual_prompts: of each layer.
        width: of the projection on which groups are contrasted; 0 for none, on the embedding itself.
        train_projection: learn the projection too; in the paper's code it stays random.
        share, temperature, ranked_by: see :func:`~grmp_hf.training.contrasts.group_contrasts`.
        epochs: over the photographs.
        batch_size: photographs of a step.
        learning_rate: after the warm-up.
        warmup_epochs: in which the rate rises linearly; a fraction is allowed.
        weight_decay: on every trained tensor.
        save_steps: steps between checkpoints; 0 for none.
        bf16: run the training passes under bfloat16 autocast; ``"auto"``: where the processor computes it natively.

    Source: GRepQ (arXiv 2312.04838); its settings are the recipe ``paper``.
    """

    stage: ClassVar[str] = "high_level"
    least: ClassVar[Mapping[str, float]] = {"visual_prompts": 1, "width": 0, "share": 2, "epochs": 1, "batch_size": 4}

    adapter: Kind = "layer_norm"
    rank: int = 4
    visual_prompts: int = 4
    width: int = 128
    train_projection: bool = True
    share: int = SHARE
    temperature: float = TEMPERATURE
    ranked_by: RankedBy = "labels"
    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 0.001
    warmup_epochs: float = 2.5
    weight_decay: float = 0.0
    save_steps: int = 10
    bf16: BF16 = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objective()  # which refuses other settings

    def objective(self) -> Any:
        """The loss of a batch."""
        return group_contrasts(share=self.share, temperature=self.temperature, ranked_by=self.ranked_by)


@aside()
def learn_high_level(
    model: GRMPForImageQualityAssessment,
    pictures: RatedPictures,
    *,
    views: RatedPictures | None = None,
    recipe: HighLevelRecipe | None = None,
    seed: int = 0,
    output_dir: str | Path,
    progress: Callable[[str, float], None] | None = None,
) -> PeftModel:
    """Learn an adapter of the vision tower from photographs without ratings.

    Args:
        model: the base; it stays what it is, and its weights are shared, not copied. Under ``ranked_by="labels"`` its
            own quality of each photograph, of one look, ranks them.
        pictures: to learn from, the same views in every epoch, or crops; whatever their labels say is passed over.
        views: the same pictures as scoring will see them, for that look; None for ``pictures``.
        recipe: see :class:`HighLevelRecipe`.
        seed: of the start and of the order; the result is a function of the arguments alone.
        output_dir: for the state of an unfinished run, which the same call takes up again; removed at the end.
        progress: told what is being done and which share of it is done.

    Returns:
        The adapted model in evaluation mode, its adapter named "default". It scores with the anchors as the base does;
        what is meant for use is its embedding.

    Raises:
        GRMPError: fewer than four photographs, a base with another head than the anchors', or a folder of another run.
    """
    recipe = (recipe or HighLevelRecipe()).settled(model.device)
    if len(pictures) < 4:
        raise GRMPError(
            f"Expected at least four photographs, two good and two bad ones, got {len(pictures)}. Add some."
        )
    require_anchors(model, "to tell good photographs from bad ones")
    quality = look(model, views or pictures, ["quality"], progress)["quality"]
    adapted = _begin(model, recipe, seed)
    plan = within(["one"] * len(pictures), recipe.batch_size, seed=seed)
    steps = len(list(plan(0)))
    arguments = GRMPTrainingArguments(
        output_dir=str(Path(output_dir) / "high"),
        max_steps=recipe.epochs * steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=round(recipe.warmup_epochs * steps),
        weight_decay=recipe.weight_decay,
        regularization_strength=0.0,
        seed=seed,
        bf16=bool(recipe.bf16),
        use_cpu=model.device.type == "cpu",
        **kept_quietly(recipe.save_steps),
    )
    run = {"recipe": asdict(recipe), "seed": seed, "seen": digest([quality])}
    run["base"] = Record.of(adapted.active_peft_config).fingerprint
    given: dict[str, Any] = {"objective": recipe.objective(), "plan": plan}
    given |= {
        "train_dataset": pictures.taught(labels=quality),
        "callbacks": [Teller(progress, "learn high-level features")],
    }
    with fitting(adapted, arguments, run, keep=False, **given) as trainer:
        trainer.train(resume_from_checkpoint=True)
    return say_taught(adapted, run, pictures=len(quality))


def _begin(model: GRMPForImageQualityAssessment, recipe: HighLevelRecipe, seed: int) -> PeftModel:
    torch.manual_seed(seed)
    base, config = copy_base(model), adapter_config(recipe.adapter, recipe.rank, recipe.visual_prompts)
    if recipe.width:
        head = Projected(model.config.clip_config.projection_dim, recipe.width, recipe.train_projection)
        return bring_head(base, head, config)
    config.modules_to_save = None
    return get_peft_model(base, config)
