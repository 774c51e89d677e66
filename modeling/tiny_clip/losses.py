"""What the student is trained on: teacher features, hand-made statistics, and captions; no rating anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from . import captions
from .sampling import Batch
from .statistics import STATISTICS
from .student import Heads, encode_patches, encode_texts, placeholder_token

EMBEDDING_SCALE = 8.0
"""The unit-norm embedding is multiplied by this before its linear read-outs."""

PLACEHOLDER_NOISE = 0.5
"""Spread of the noise on the placeholders' embeddings, as a share of their own spread."""


@dataclass(frozen=True)
class Weights:
    """Loss weights; squared errors first, then caption losses."""

    cells: float = 1.0
    window: float = 1.0
    window_from_embedding: float = 0.5
    head: float = 0.3
    quality: float = 0.7
    pairs: float = 0.7
    levels: float = 0.4
    distortions: float = 0.8
    scenes: float = 0.8
    classes: float = 0.4


class CaptionIds:
    """Token ids of all captions, ``(T, L)``, and where each group starts."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self.placeholder = placeholder_token(tokenizer)
        self._tokenizer = tokenizer
        self.anchors = self._encode(captions.QUALITY_ANCHORS)
        self.alternatives = [self._encode(pair) for pair in captions.ALTERNATIVE_ANCHORS]
        self.fixed = self._encode(captions.LEVEL_CAPTIONS + captions.DISTORTION_CAPTIONS + captions.SCENE_CAPTIONS)
        self.classes = self._encode(captions.class_captions())

    def _encode(self, texts: tuple[str, ...]) -> Tensor:
        encoded = self._tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        return torch.as_tensor(encoded.input_ids)


@dataclass(frozen=True)
class TextEmbeddings:
    """Unit-norm embeddings of one step's captions."""

    anchors: Tensor  # (2, projection), good first
    levels: Tensor
    distortions: Tensor
    scenes: Tensor
    classes: Tensor  # (distinct classes of the batch, projection)


def embed_texts(model: CLIPModel, ids: CaptionIds, categories: Tensor, generator: torch.Generator) -> TextEmbeddings:
    """Encode this step's captions in one pass.

    One step in four takes an alternative wording of the quality anchors; the others take the true ones, half of them
    with noise on the placeholders.
    """
    anchors, noise = ids.anchors, None
    choice = torch.rand((), generator=generator).item()
    if choice < 0.25:
        anchors = ids.alternatives[int(choice / 0.25 * len(ids.alternatives))]
    elif choice < 0.625:
        table = model.text_model.embeddings.token_embedding.weight
        draws = torch.randn((4, table.shape[1]), generator=generator)
        noise = PLACEHOLDER_NOISE * table.detach().std() * draws
    batch = torch.cat([anchors, ids.fixed, ids.classes[categories]])
    length = int((batch != model.text_model.eos_token_id).sum(1).max()) + 1
    embedded = encode_texts(model, batch[:, :length], ids.placeholder, noise)
    sizes = [2, len(captions.LEVELS), len(captions.DISTORTIONS), len(captions.SCENES), len(categories)]
    return TextEmbeddings(*torch.split(embedded, sizes))


def regression_losses(
    heads: Heads, batch: Batch, pooled: Tensor, states: Tensor, embedding: Tensor
) -> dict[str, Tensor]:
    """Squared errors on cells, windows (from pooled state and from embedding) and the teacher's head."""
    return {
        "cells": F.mse_loss(heads.cells(heads.patch_norm(states)), batch.cells),
        "window": _window_loss(heads.window(pooled), batch.window),
        "window_from_embedding": _window_loss(heads.window_from_embedding(EMBEDDING_SCALE * embedding), batch.window),
        "head": F.mse_loss(heads.head(pooled), batch.head),
    }


def _window_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the teacher's features plus that of the hand-made statistics; both ``(B, 2 D)``."""
    error = torch.unflatten((prediction - target) ** 2, 1, (2, -1))
    teacher, statistics = error[..., :-STATISTICS], error[..., -STATISTICS:]
    return teacher.mean() + statistics.mean()


def quality_losses(logits: Tensor, latent: Tensor) -> dict[str, Tensor]:
    """Binary and pairwise cross-entropy of the quality margin.

    Args:
        logits: ``(B,)`` scale times (cosine with the good anchor minus cosine with the bad one).
        latent: ``(B,)`` latent quality g; the target is sigmoid(g), for pairs sigmoid(g_i - g_j).
    """
    rows, columns = torch.triu_indices(len(latent), len(latent), 1)
    differences, targets = logits[rows] - logits[columns], latent[rows] - latent[columns]
    return {
        "quality": F.binary_cross_entropy_with_logits(logits, latent.sigmoid()),
        "pairs": F.binary_cross_entropy_with_logits(differences, targets.sigmoid()),
    }


def level_targets(latent: Tensor) -> Tensor:
    """``(B,)`` latent quality to ``(B, 5)`` weights of the two nearest levels on 4 sigmoid(g)."""
    place = 4 * latent.sigmoid()
    return (1 - (place[:, None] - torch.arange(5)).abs()).clamp_min(0)


def caption_losses(
    embedding: Tensor, texts: TextEmbeddings, scale: Tensor, batch: Batch, categories: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy over levels, distortions, scenes (weighted) and the batch's ImageNet classes."""
    scenes = F.cross_entropy(scale * embedding @ texts.scenes.T, batch.scene, reduction="none")
    classes = F.cross_entropy(
        scale * embedding @ texts.classes.T, torch.searchsorted(categories, batch.category), reduction="none"
    )
    return {
        "levels": F.cross_entropy(scale * embedding @ texts.levels.T, level_targets(batch.latent)),
        "distortions": F.cross_entropy(scale * embedding @ texts.distortions.T, batch.distortion),
        "scenes": (batch.scene_weight * scenes).mean(),
        "classes": (batch.scene_weight * classes).mean(),
    }


def all_losses(
    model: CLIPModel, heads: Heads, batch: Batch, ids: CaptionIds, generator: torch.Generator
) -> dict[str, Tensor]:
    """Every loss of one batch by the names of ``Weights``."""
    categories = torch.unique(batch.category)  # sorted
    pooled, states = encode_patches(model, batch.patches, batch.positions)
    embedding = F.normalize(model.visual_projection(pooled), dim=-1)
    texts = embed_texts(model, ids, categories, generator)
    scale = model.logit_scale.exp()
    with torch.autocast("cpu", enabled=False):
        embedding, pooled, states = embedding.float(), pooled.float(), states.float()
        margin = scale * embedding @ (texts.anchors[0] - texts.anchors[1]).float()
        losses = regression_losses(heads, batch, pooled, states, embedding)
        losses |= quality_losses(margin, batch.latent)
        texts = TextEmbeddings(*(part.float() for part in vars(texts).values()))
        return losses | caption_losses(embedding, texts, scale, batch, categories)
