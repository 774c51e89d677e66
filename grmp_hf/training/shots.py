"""What is known of the pictures that teach, once each of them has been looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.training.checkpoints import digest
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.recipes import FewShotRecipe

__all__ = ["Columns", "Known", "certainty_of", "check_quality", "describe", "look"]

_TOGETHER = 8  # pictures that are embedded at once


@dataclass
class Columns(Dataset[dict[str, Tensor]]):
    """Pictures whose embeddings stay what they are: name -> ``(n, ...)``, ``labels`` and ``image_embeds``."""

    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


class Known(NamedTuple):
    """What is known of the shots at the start of training.

    Attributes:
        columns: ``image_embeds`` ``(n, D)`` and, where the recipe maps features of a side network, ``side`` ``(n, F)``.
        logits: ``(n, A)``, of quality by the start, or else by the base.
        teacher: ``(n, S)``, scene logits of the base, if anybody is taught by them.
        digest: of the pictures.
    """

    columns: dict[str, Tensor]
    logits: Tensor
    teacher: Tensor | None
    digest: str

    def taught(self, same: bool) -> dict[str, Tensor]:
        """Columns beside pictures; of crops that differ from epoch to epoch, the networks are asked in each."""
        if not same:
            return {}
        side = {name: column for name, column in self.columns.items() if name == "side"}
        return side if self.teacher is None else {**side, "teacher_logits": self.teacher}


def check_quality(quality: Tensor, pictures: int) -> None:
    """Raise unless each of some pictures has a quality in [0, 1], and these differ.

    Raises:
        GRMPError: they do not.
    """
    if not pictures or quality.shape != (pictures,) or not bool(((quality >= 0) & (quality <= 1)).all()):
        raise GRMPError(
            f"Expected a quality in [0, 1] for each of {pictures} pictures, got {tuple(quality.shape)} numbers"
            + (f" from {quality.min():g} to {quality.max():g}" if quality.numel() else "")
            + ". Map ratings with RatingScale.to_quality."
        )
    if bool((quality == quality[0]).all()):
        raise GRMPError(
            f"Expected pictures with different ratings, got {len(quality)} that are all alike. Rate more, or let more "
            "of them teach."
        )


def certainty_of(noise: Tensor | None, pictures: int, recipe: FewShotRecipe) -> dict[str, Tensor]:
    """The column by which losses are weighted, 1 / noise with a mean noise of 1; none for equal noise.

    Args:
        noise: ``(N,)`` variance of each rating relative to the others'; None where all are equal.
        pictures: N.
        recipe: whether features are mapped, without which no noise counts.

    Raises:
        GRMPError: another number of them, or one that is not above 0.
    """
    if noise is None or not recipe.features:
        return {}
    if noise.shape != (pictures,) or not bool(((noise > 0) & noise.isfinite()).all()):
        raise GRMPError(f"Expected a noise above 0 for each of {pictures} pictures, got others. Look for NaN in it.")
    noise = noise.double()
    return {} if bool((noise == noise[0]).all()) else {"certainty": (noise.mean() / noise).float()}


def look(
    model: Any, pictures: RatedPictures, names: Sequence[str], tell: Callable[[str, float], None] | None = None
) -> dict[str, Tensor]:
    """What a model says of pictures as they are, once each.

    Args:
        model: as it scores.
        pictures: n of them.
        names: of its output.
        tell: told which share is done; None for nobody.

    Returns:
        Name -> ``(n, ...)`` float32, on the CPU.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad():
        for at, pixels in enumerate(pictures.batches(_TOGETHER), start=1):
            output = model(normalize(pixels, pictures.mean, pictures.std).to(model.device))
            for name, found in parts.items():
                found.append(output[name].float().cpu())
            if tell is not None:
                tell("embed", min(_TOGETHER * at / len(pictures), 1.0))
    return {name: torch.cat(found) for name, found in parts.items()}


def describe(
    model: PeftModel, pictures: RatedPictures, recipe: FewShotRecipe, tell: Callable[[str, float], None], begun: bool
) -> Known:
    """Look at every shot once.

    Args:
        model: the base with its new adapter.
        pictures: N shots.
        recipe: what of them is trained on.
        tell: told what is done and which share of it.
        begun: whether the adapter begins at a start.
    """
    kept: dict[str, list[Tensor]] = {}
    seen: list[Tensor] = []
    with torch.no_grad():
        for pixels in pictures.batches(_TOGETHER):
            values = normalize(pixels, pictures.mean, pictures.std).to(model.device)
            for name, part in _look(model, values, recipe, begun).items():
                kept.setdefault(name, []).append(part.cpu())
            seen.append(torch.frombuffer(bytearray.fromhex(digest([pixels])), dtype=torch.uint8))
            tell("embed", min(_TOGETHER * len(seen) / len(pictures), 1.0))
    found = {name: torch.cat(parts) for name, parts in kept.items()}
    logits, teacher = found.pop("logits"), found.pop("teacher", None)
    return Known(found, logits, teacher, digest(seen))


def _look(model: PeftModel, values: Tensor, recipe: FewShotRecipe, begun: bool) -> dict[str, Tensor]:
    """Embeddings, features and quality logits at the start, and the scene logits of the base where they teach."""
    base: Any = model.get_base_model()
    aside = recipe.features and base.side is not None
    with contextlib.nullcontext() if begun else teacher_mode(model):
        features = base.get_features(values, side=aside)
        found = base(image_embeds=features.embeds, side=features.side, output_semantic=True)
    looked = {"image_embeds": found.image_embeds, "logits": found.quality_logits}
    if recipe.features:  # which the map adds to: what the new adapter's own anchors say
        looked["logits"] = model(image_embeds=found.image_embeds, side=features.side).quality_logits
    if features.side is not None:
        looked["side"] = features.side
    if recipe.moves_embeddings:
        with teacher_mode(model):
            looked["teacher"] = model(values, output_semantic=True).semantic_logits if begun else found.semantic_logits
    return looked
