"""How good is the embedded default? Zero-shot and ridge at 20 to 200 labels on BIQ2021, ten draws.

    python benchmarks/tiny_clip.py --data DIR [--model grmp_hf/assets/tiny] [--split train|test] [--out results.json]

Split ``train``: each draw permutes the 1,000 train pictures into 500 for labels and 500 to score; settings are chosen
on it. Split ``test``: labels come from all train pictures, the 800 test pictures are scored. Ratings measure; no weight
of the embedded default has seen any.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from transformers import CLIPModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parent.parent
ANCHORS = ("X X X X high quality.", "X X X X low quality.")
SHOTS = (20, 50, 100, 200)
DRAWS = 10
SUBSETS = ("ss01", "ss02", "ss03")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pictures:
    """Rated pictures: files, ratings ``(N,)`` and subset names ``(N,)``."""

    files: list[Path]
    mos: Floats
    subset: NDArray[np.str_]


def read_pictures(data: Path, split: str) -> Pictures:
    """The rows of ``labels.csv`` that belong to ``split``."""
    with (data / "labels.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == split]
    mos = np.array([float(row["mos"]) for row in rows])
    return Pictures([data / "images" / row["image"] for row in rows], mos, np.array([row["subset"] for row in rows]))


def native_crops(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Centre, then the four corners, ``(5, size, size, 3)``; smaller pictures are enlarged to ``size`` first."""
    if min(picture.size) < size:
        factor = size / min(picture.size)
        picture = picture.resize((max(size, round(picture.width * factor)), max(size, round(picture.height * factor))))
    pixels = np.asarray(picture.convert("RGB"))
    bottom, right = pixels.shape[0] - size, pixels.shape[1] - size
    corners = ((bottom // 2, right // 2), (0, 0), (0, right), (bottom, 0), (bottom, right))
    return np.stack([pixels[top : top + size, left : left + size] for top, left in corners])


@torch.inference_mode()
def embed_pictures(
    model: CLIPModel, preprocessing: dict[str, list[float]], files: Sequence[Path], batch: int = 8
) -> Floats:
    """Unit-norm embeddings of five native crops, ``(N, 5, projection)``."""
    size = model.config.vision_config.image_size
    mean, std = (torch.tensor(preprocessing[key])[:, None, None] for key in ("image_mean", "image_std"))
    parts = []
    for start in range(0, len(files), batch):
        crops = np.concatenate([native_crops(Image.open(path), size) for path in files[start : start + batch]])
        pixels = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std
        with torch.autocast("cpu", torch.bfloat16, enabled=model.dtype == torch.bfloat16):
            parts.append(model.get_image_features(pixel_values=pixels).pooler_output.float())
    embeddings = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
    return embeddings.unflatten(0, (-1, 5)).double().numpy()


@torch.inference_mode()
def embed_texts(model: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Floats:
    """Unit-norm embeddings ``(T, projection)``."""
    tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
    return torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1).double().numpy()


def srcc(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(a, b)[0])


def inside_subsets(scores: Floats, mos: Floats, subset: NDArray[np.str_]) -> list[float]:
    """SRCC inside ss01, ss02 and ss03."""
    return [srcc(scores[subset == name], mos[subset == name]) for name in SUBSETS]


def ridge(features: Floats, targets: Floats, others: Floats) -> Floats:
    """Predictions for ``others``: standardise, clip at 5, ridge whose penalty leave-one-out chooses."""
    mean, std = features.mean(0), features.std(0) + 1e-9
    scaled, others = (np.clip((values - mean) / std, -5, 5) for values in (features, others))
    model = RidgeCV(alphas=features.shape[1] * np.geomspace(0.03, 10, 11)).fit(scaled, targets)
    predictions: Floats = model.predict(others)
    return predictions


def draws_of(labelled: Pictures, scored: Pictures | None) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices (label pool in order, scored) of every draw; without ``scored`` each draw halves the pictures."""
    result = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(labelled.files))
        if scored is None:
            result.append((order[: len(order) // 2], order[len(order) // 2 :]))
        else:
            result.append((order, np.arange(len(scored.files))))
    return result


def ridge_table(
    labelled: Pictures, features: Floats, scored: Pictures | None, others: Floats | None
) -> dict[str, object]:
    """Median, lowest and highest SRCC by number of labels, and medians inside the subsets at 50."""
    target, rest = (labelled, features) if scored is None or others is None else (scored, others)
    table: dict[str, object] = {}
    for shots in SHOTS:
        overall, inside = [], []
        for pool, rows in draws_of(labelled, scored):
            scores = ridge(features[pool[:shots]], labelled.mos[pool[:shots]], rest[rows])
            overall.append(srcc(scores, target.mos[rows]))
            inside.append(inside_subsets(scores, target.mos[rows], target.subset[rows]))
        table[str(shots)] = [round(float(value), 4) for value in (np.median(overall), min(overall), max(overall))]
        if shots == 50:
            table["subsets at 50"] = np.median(inside, axis=0).round(4).tolist()
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=ROOT / "grmp_hf/assets/tiny")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = evaluate(arguments.model, arguments.data, arguments.split)
    report |= {"command": " ".join(["python", *sys.argv]), "python": platform.python_version()}
    report |= {"versions": {name: version(name) for name in ("torch", "transformers", "numpy", "scikit-learn")}}
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def evaluate(directory: Path, data: Path, split: str) -> dict[str, object]:
    """All figures of one model on one split."""
    model = CLIPModel.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    preprocessing = json.loads((directory / "preprocessor_config.json").read_text(encoding="utf-8"))
    weights = np.array(preprocessing["view_weights"])
    labelled = read_pictures(data, "train")
    scored = read_pictures(data, "test") if split == "test" else None
    views = embed_pictures(model, preprocessing, labelled.files)
    others = embed_pictures(model, preprocessing, scored.files) if scored else None
    anchors = embed_texts(model, tokenizer, ANCHORS)
    target, target_views = (labelled, views) if scored is None or others is None else (scored, others)
    report: dict[str, object] = {"model": str(directory), "split": split}
    for name, mix in {"stored views": weights, "centre": np.eye(5)[0], "five alike": np.full(5, 0.2)}.items():
        zero_shot = np.einsum("v,nvp,p->n", mix, target_views, anchors[0] - anchors[1])
        mixed = np.einsum("v,nvp->np", mix, others) if others is not None else None
        report[name] = {
            "zero-shot": round(srcc(zero_shot, target.mos), 4),
            "zero-shot subsets": [round(value, 4) for value in inside_subsets(zero_shot, target.mos, target.subset)],
            "ridge": ridge_table(labelled, np.einsum("v,nvp->np", mix, views), scored, mixed),
        }
    return report


if __name__ == "__main__":
    main()
