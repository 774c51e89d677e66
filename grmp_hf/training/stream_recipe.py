"""How a stream of data sets is learnt: one adapter for each, or one that goes on learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.gating import CLUSTERS, TEMPERATURE
from grmp_hf.modeling.pairwise import CASE_V
from grmp_hf.training.precision import BF16
from grmp_hf.training.recipes import Recipe

__all__ = ["Kind", "Method", "StreamRecipe"]

Method = Literal["experts", "distillation", "ewc", "fine_tuning", "joint"]
"""``experts``: an adapter for each data set, none of which changes later. The others have one adapter and a head for
each data set: distillation from the adapter before, a penalty on weights that mattered, nothing against forgetting, and
all data sets at once."""

Kind = Literal["layer_norm", "prompts", "lora"]


@dataclass(frozen=True)
class StreamRecipe(Recipe):
    """What is trained on each data set of a stream, and how.

    Attributes:
        method: see :data:`Method`.
        adapter: ``"layer_norm"``, ``"prompts"`` (visual ones) or ``"lora"`` (on queries and values).
        rank: of LoRA.
        visual_prompts: of each layer.
        train_projection: train the projection of the prompts too; fixed, it leaves as many weights as norms have.
        head_epochs: over the embeddings as they are, where the new head alone is trained.
        epochs: over the pictures, where adapter and head are.
        group: pictures of a step, all of whose pairs within a data set teach.
        head_learning_rate, learning_rate: at the beginning of either part; they fall to 0 by a cosine.
        weight_decay: on every trained tensor.
        sigma: of every picture, in the probability of a pair;
            :data:`~grmp_hf.modeling.pairwise.CASE_V` or :data:`~grmp_hf.modeling.pairwise.RELEASED`.
        strength: of the distillation, or of the penalty of ``ewc``; 0 is plain fine-tuning.
        memory: pictures of earlier data sets that are kept and learnt from again, in equal parts; not for experts.
        clusters, temperature: of the gate.
        bf16: run the training passes under bfloat16 autocast; ``"auto"``: where the processor computes it natively.
        save_steps: steps between checkpoints inside a data set; 0 for none.

    Source: TSN-IQA (arXiv 2107.13429), CL-BIQA (arXiv 2102.09717).
    """

    stage: ClassVar[str] = "stream"
    above_0: ClassVar[tuple[str, ...]] = ("learning_rate", "head_learning_rate")
    least: ClassVar[Mapping[str, float]] = {"visual_prompts": 1, "group": 2}

    method: Method = "experts"
    adapter: Kind = "layer_norm"
    rank: int = 1
    visual_prompts: int = 4
    train_projection: bool = False
    head_epochs: int = 60
    epochs: int = 6
    group: int = 16
    head_learning_rate: float = 0.05
    learning_rate: float = 0.001
    weight_decay: float = 0.0005
    sigma: float = CASE_V
    strength: float = 10.0
    memory: int = 0
    clusters: int = CLUSTERS
    temperature: float = TEMPERATURE
    bf16: BF16 = False
    save_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory and self.method in ("experts", "joint"):
            raise GRMPError(f"Expected no memory with method={self.method!r}, which forgets nothing. Leave it out.")

    @property
    def continual(self) -> bool:
        """Whether one adapter goes on from data set to data set."""
        return self.method in ("distillation", "ewc", "fine_tuning")
