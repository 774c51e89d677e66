"""What the student has learnt, read on the photographs that were held out of its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, normalize

from .captions import QUALITY_ANCHORS, SCENE_CAPTIONS
from .sampling import HELD_OUT_EVERY, Batch, ViewSampler
from .statistics import STATISTICS
from .student import GRID, IMAGE_MEAN, IMAGE_STD, SIDE, Heads, encode_patches
from .views import load_photo

Indices = NDArray[np.int64]


@torch.inference_mode()
def embed_texts(model: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Unit-norm embeddings ``(T, projection)``."""
    tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
    return torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output.float(), dim=-1)


@torch.inference_mode()
def embed_photos(model: CLIPModel, photos: Sequence[Path], views: Sequence[str], weights: Sequence[float]) -> Tensor:
    """Weighted mean of the unit-norm embeddings of each photograph's views, ``(P, projection)``."""
    processor = GRMPImageProcessor(SIDE, views)
    mix = torch.tensor(weights)[:, None]
    means = []
    for path in photos:
        pixels = normalize(processor.pixels(load_photo(path)), IMAGE_MEAN, IMAGE_STD)
        embeddings = model.get_image_features(pixel_values=pixels).pooler_output
        means.append((mix * torch.nn.functional.normalize(embeddings, dim=-1)).sum(0))
    return torch.stack(means)


def scene_agreement(
    model: CLIPModel, tokenizer: CLIPTokenizer, sampler: ViewSampler, photos: Sequence[Path], views: dict[str, float]
) -> dict[str, float]:
    """Share of held-out photographs whose best scene caption is the teacher's scene.

    Args:
        photos: all photographs, in the order in which their views were built.
        views: view name -> weight.

    Returns:
        ``agreement``, ``balanced`` (mean over the scenes of the agreement within each) and ``largest`` (what naming the
        most frequent scene always would give).
    """
    held_out = np.arange(len(photos))[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    truth = sampler.scenes[held_out].argmax(1)
    embeddings = embed_photos(model, [photos[index] for index in held_out], list(views), list(views.values()))
    right = (embeddings @ embed_texts(model, tokenizer, SCENE_CAPTIONS).T).argmax(1).numpy() == truth
    return {
        "agreement": float(right.mean()),
        "balanced": float(np.mean([right[truth == scene].mean() for scene in np.unique(truth)])),
        "largest": float(np.bincount(truth).max() / len(truth)),
    }


@torch.inference_mode()
def window_fit(
    model: CLIPModel, heads: Heads, tokenizer: CLIPTokenizer, sampler: ViewSampler, rows: list[Indices]
) -> dict[str, float]:
    """On random windows: explained variance of the targets, and SRCC of quality margin and latent quality."""
    rng = np.random.default_rng(0)
    anchors = embed_texts(model, tokenizer, QUALITY_ANCHORS)
    predictions, targets, margins, latents = [], [], [], []
    for _ in range(16):
        batch: Batch = sampler.batch(sampler.draw(rows, 32, rng), GRID * GRID, rng)
        with torch.autocast("cpu", torch.bfloat16):
            pooled, _ = encode_patches(model, batch.patches, batch.positions)
            predictions.append(heads.window(pooled).float())
            embedding = torch.nn.functional.normalize(model.visual_projection(pooled).float(), dim=-1)
        targets.append(batch.window)
        margins.append(embedding @ (anchors[0] - anchors[1]))
        latents.append(batch.latent)
    error, target = (torch.cat(predictions) - torch.cat(targets)) ** 2, torch.cat(targets)
    explained = torch.unflatten(1 - error.mean(0) / target.var(0), 0, (2, -1))
    return {
        "teacher_features": float(explained[:, :-STATISTICS].mean()),
        "statistics": float(explained[:, -STATISTICS:].mean()),
        "latent_srcc": float(spearmanr(torch.cat(margins), torch.cat(latents))[0]),
    }
