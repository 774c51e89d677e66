"""Learning the low-level encoder: versions of photographs, whose fragments are alike as far as the pictures are.

Letters in shapes: F families, N versions of a photograph, S side of a fragment picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.contrastive import TEMPERATURE
from grmp_hf.modeling.fragments import GRID, PIECE, cut, draw_places, mirrored
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.low_level import RESNET18, SMALL, LowLevelConfig, LowLevelEncoder
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.aside import aside
from grmp_hf.training.contrasts import version_contrasts
from grmp_hf.training.fitting import Teller, fitting, kept_quietly
from grmp_hf.training.precision import BF16
from grmp_hf.training.recipes import Recipe
from grmp_hf.training.sampling import EpochDataset

__all__ = ["Fragments", "LowLevelRecipe", "Versions", "learn_low_level"]

_SMALLEST = 16  # as grmp_hf.data.distortions.SMALLEST_SIDE, which no module of training imports


class Versions(Protocol):
    """Families of pictures: a photograph and what was made of it.

    Attributes:
        content_hash: of all that decides about them.
    """

    content_hash: str

    def __len__(self) -> int:
        """F."""

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Pictures ``(N, H, W, 3)`` uint8, and how similar each is to each, ``(N, N)`` in [0, 1]."""


@dataclass(frozen=True)
class LowLevelRecipe(Recipe):
    """What is learnt of versions of photographs, and how. The defaults are for two cores and a thousand photographs.

    Attributes:
        network: ``"small"`` or ``"resnet18"`` (the paper's).
        hidden, width: of the projection, see :class:`~grmp_hf.modeling.low_level.LowLevelConfig`.
        describes: what pictures are described by afterwards, see there.
        versions: distorted ones of each photograph.
        side: of the middle of each photograph that is distorted, pixels.
        grid, piece: see :mod:`grmp_hf.modeling.fragments`.
        temperature: of the loss.
        outside: the form of the loss, see :func:`~grmp_hf.modeling.contrastive.version_contrast`.
        epochs: over the photographs.
        batch_size: photographs of a step, with all their versions.
        learning_rate, smallest_rate: at the beginning and at the end of a cosine.
        weight_decay: on every trained tensor.
        save_steps: steps between checkpoints; 0 for none.
        bf16: run the training passes under bfloat16 autocast; ``"auto"``: where the processor computes it natively.

    Source: GRepQ (arXiv 2312.04838); its settings are the recipe ``paper``.
    """

    stage: ClassVar[str] = "low_level"
    above_0: ClassVar[tuple[str, ...]] = ("learning_rate",)
    least: ClassVar[Mapping[str, float]] = {"epochs": 1}

    network: Literal["small", "resnet18"] = "small"
    hidden: int = 512
    width: int = 128
    describes: Literal["projected", "pooled"] = "projected"
    versions: int = 8
    side: int = 320
    grid: int = 5
    piece: int = PIECE
    temperature: float = TEMPERATURE
    outside: bool = False
    epochs: int = 5
    batch_size: int = 4
    learning_rate: float = 0.001
    smallest_rate: float = 1e-6
    weight_decay: float = 0.05
    save_steps: int = 100
    bf16: BF16 = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < max(self.piece, _SMALLEST):
            raise GRMPError(f"Expected side of at least {max(self.piece, _SMALLEST)}, got {self.side}.")
        if self.smallest_rate > self.learning_rate:
            raise GRMPError(
                f"Expected a smallest_rate of at most the learning_rate, {self.learning_rate}, got "
                f"{self.smallest_rate}."
            )
        version_contrasts(self.temperature)

    def config(self) -> LowLevelConfig:
        """Of the encoder."""
        network = RESNET18 if self.network == "resnet18" else SMALL
        return LowLevelConfig(network, self.hidden, self.width, describes=self.describes)


class Fragments(EpochDataset[dict[str, Tensor]]):
    """Families as two views of fragments, asked for by (epoch, index); a bare index means epoch 0.

    A row holds ``pixel_values`` ``(2, N, 3, S, S)``, normalised, and ``similarity`` ``(N, N)``. The first view takes
    pieces at the same places of all versions, the second at others, and is mirrored or not; what is drawn is a function
    of (seed, epoch, index).

    Args:
        families: see :class:`Versions`.
        config: says how pixels are normalised.
        grid, piece: see :mod:`grmp_hf.modeling.fragments`.
        seed: of places and flips.
    """

    def __init__(
        self, families: Versions, config: LowLevelConfig, *, grid: int = GRID, piece: int = PIECE, seed: int = 0
    ) -> None:
        self.families, self.config, self.grid, self.piece, self.seed = families, config, grid, piece, seed

    def __len__(self) -> int:
        return len(self.families)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        pictures, similarity = self.families[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        whole = torch.from_numpy(pictures).permute(0, 3, 1, 2)

        def fragments() -> Tensor:
            height, width = whole.shape[-2:]
            places = draw_places(height, width, rng, grid=self.grid, piece=self.piece)
            return cut(whole, places, piece=self.piece)

        views = torch.stack([fragments(), mirrored(fragments(), rng)])
        values = normalize(views, self.config.image_mean, self.config.image_std)
        return {"pixel_values": values, "similarity": torch.from_numpy(similarity)}


@aside()
def learn_low_level(
    families: Versions,
    *,
    recipe: LowLevelRecipe | None = None,
    seed: int = 0,
    output_dir: str | Path,
    progress: Callable[[str, float], None] | None = None,
    device: torch.device | str = "cpu",
) -> LowLevelEncoder:
    """Learn an encoder from families of pictures; no rating is needed.

    Args:
        families: to learn from.
        recipe: see :class:`LowLevelRecipe`; its ``versions`` and ``side`` are those that the families were made with.
        seed: of the start, of the order and of fragments; the result is a function of the arguments alone.
        output_dir: for the state of an unfinished run, which the same call takes up again; removed at the end.
        progress: told what is being done and which share of it is done.
        device: to learn on.

    Returns:
        The encoder in evaluation mode; its configuration says what has taught it (``provenance``).

    Raises:
        GRMPError: no family, pictures that are smaller than a piece, or a folder of another run.
    """
    if not len(families):
        raise GRMPError("Expected photographs with their versions to learn from, got none. Make some.")
    recipe = (recipe or LowLevelRecipe()).settled(torch.device(device))
    torch.manual_seed(seed)
    encoder: LowLevelEncoder = LowLevelEncoder(recipe.config()).to(device)
    data = Fragments(families, encoder.config, grid=recipe.grid, piece=recipe.piece, seed=seed)
    arguments = GRMPTrainingArguments(
        output_dir=str(Path(output_dir) / "low"),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": recipe.smallest_rate},
        weight_decay=recipe.weight_decay,
        regularization_strength=0.0,
        seed=seed,
        bf16=bool(recipe.bf16),
        use_cpu=encoder.device.type == "cpu",
        **kept_quietly(recipe.save_steps),
    )
    run = {"recipe": asdict(recipe), "seed": seed, "families": families.content_hash}
    given: dict[str, Any] = {"objective": version_contrasts(recipe.temperature, outside=recipe.outside)}
    given |= {"train_dataset": data, "callbacks": [Teller(progress, "learn low-level features")]}
    with fitting(encoder, arguments, run, keep=False, **given) as trainer:
        trainer.train(resume_from_checkpoint=True)
    encoder.config.provenance = run
    return encoder
