"""How good is the embedded default? Zero-shot and ridge at 20 to 200 labels on rated photographs, ten draws.

    python benchmarks/tiny_clip.py [--data DIR] [--model DIR] [--splits train test] [--out FILE]

DIR holds the BIQ2021 excerpt: ``labels.csv`` (image, mos, split, subset) and ``images/``; without it, the environment
variable GRMP_HF_TEST_BIQ2021 names the folder. On split ``train`` each draw permutes the train pictures into half for
labels and half to score; settings are chosen there. On split ``test`` labels come from all train pictures and the test
pictures are scored. Ratings measure: no weight of the embedded default has seen any.
"""

from __future__ import annotations

import argparse
import csv
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
from measuring import write_rows
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from grmp_hf.evaluation.baselines import STATISTICS, fit_ridge, handmade_statistics
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, normalize

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


@dataclass(frozen=True)
class Scorer:
    """Features of the labelled and the scored pictures ``(N, D)``, and zero-shot scores ``(N,)`` of the latter."""

    labelled: Floats
    scored: Floats
    zero_shot: Floats


def read_pictures(data: Path, split: str) -> Pictures:
    """The rows of ``labels.csv`` that belong to ``split``."""
    with (data / "labels.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == split]
    mos = np.array([float(row["mos"]) for row in rows])
    return Pictures([data / "images" / row["image"] for row in rows], mos, np.array([row["subset"] for row in rows]))


@torch.inference_mode()
def embed_views(model: CLIPModel, processor: GRMPImageProcessor, files: Sequence[Path], batch: int = 8) -> Floats:
    """Unit-norm embeddings of the processor's V views, ``(N, V, projection)``."""
    parts = []
    for start in range(0, len(files), batch):
        views = torch.cat([processor.pixels(Image.open(path).convert("RGB")) for path in files[start : start + batch]])
        pixels = normalize(views, processor.image_mean, processor.image_std)
        parts.append(model.get_image_features(pixel_values=pixels).pooler_output)
    embeddings = torch.nn.functional.normalize(torch.cat(parts), dim=-1).double().numpy()
    return np.asarray(embeddings.reshape(len(files), len(processor.views), -1))


@torch.inference_mode()
def embed_texts(model: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Floats:
    """Unit-norm embeddings ``(T, projection)``."""
    tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
    embeddings = model.get_text_features(**tokens).pooler_output
    return np.asarray(torch.nn.functional.normalize(embeddings, dim=-1).double().numpy())


def inside_subsets(scores: Floats, mos: Floats, subset: NDArray[np.str_]) -> list[float]:
    """SRCC inside ss01, ss02 and ss03."""
    return [srcc(scores[subset == name], mos[subset == name]) for name in SUBSETS]


def draw(number: int, split: str, labelled: int, scored: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the label pool, in order, and of the scored pictures in draw ``number``."""
    order = np.random.default_rng(number).permutation(labelled)
    if split == "train":
        return order[: labelled // 2], order[labelled // 2 :]
    return order, np.arange(scored)


def evaluate(scorer: Scorer, split: str, labelled: Pictures, scored: Pictures) -> dict[str, object]:
    """Median, lowest and highest SRCC by number of labels, zero-shot SRCC, and medians inside the subsets."""
    ridge: dict[str, list[float]] = {}
    inside_at_50: list[list[float]] = []
    for shots in SHOTS:
        overall = []
        for number in range(DRAWS):
            pool, rows = draw(number, split, len(labelled.mos), len(scored.mos))
            model = fit_ridge(scorer.labelled[pool[:shots]], labelled.mos[pool[:shots]])
            scores = model.predict(scorer.scored[rows])
            overall.append(srcc(scores, scored.mos[rows]))
            if shots == 50:
                inside_at_50.append(inside_subsets(scores, scored.mos[rows], scored.subset[rows]))
        ridge[str(shots)] = [round(float(value), 4) for value in (np.median(overall), min(overall), max(overall))]
    inside = inside_subsets(scorer.zero_shot, scored.mos, scored.subset)
    return {
        "zero_shot": round(srcc(scorer.zero_shot, scored.mos), 4),
        "zero_shot_inside": dict(zip(SUBSETS, np.round(inside, 4).tolist(), strict=True)),
        "ridge": ridge,
        "ridge_inside_at_50": dict(zip(SUBSETS, np.median(inside_at_50, axis=0).round(4).tolist(), strict=True)),
    }


def embedded_scorers(directory: Path, labelled: Pictures, scored: Pictures) -> dict[str, Scorer]:
    """The model with its stored view weights, with the centre view alone and with all views alike."""
    model = CLIPModel.from_pretrained(directory, dtype=torch.float32).eval()
    processor = GRMPImageProcessor.from_pretrained(directory)
    anchors = embed_texts(model, CLIPTokenizer.from_pretrained(directory), ANCHORS)
    labelled_views = embed_views(model, processor, labelled.files)
    scored_views = labelled_views if scored is labelled else embed_views(model, processor, scored.files)
    count = len(processor.views)
    stored = processor.view_weights or [1 / count] * count
    mixes = {
        "embedded default": stored,
        "centre view alone": np.eye(count)[0],
        "views alike": np.full(count, 1 / count),
    }
    scorers = {}
    for name, mix in mixes.items():
        known, new = (np.einsum("v,nvp->np", np.asarray(mix), views) for views in (labelled_views, scored_views))
        scorers[name] = Scorer(known, new, new @ (anchors[0] - anchors[1]))
    return scorers


def statistics_scorer(labelled: Pictures, scored: Pictures) -> Scorer:
    """The 14 hand-made statistics; zero-shot by sharpness alone, the best single one."""
    known = np.stack([handmade_statistics(np.asarray(Image.open(path).convert("RGB"))) for path in labelled.files])
    if scored is labelled:
        return Scorer(known, known, known[:, STATISTICS.index("sharpness")])
    new = np.stack([handmade_statistics(np.asarray(Image.open(path).convert("RGB"))) for path in scored.files])
    return Scorer(known, new, new[:, STATISTICS.index("sharpness")])


def measure(directory: Path, data: Path, split: str) -> dict[str, dict[str, object]]:
    """All rows of one split."""
    labelled = read_pictures(data, "train")
    scored = labelled if split == "train" else read_pictures(data, "test")
    scorers = embedded_scorers(directory, labelled, scored)
    scorers["14 hand-made statistics"] = statistics_scorer(labelled, scored)
    return {name: evaluate(scorer, split, labelled, scored) for name, scorer in scorers.items()}


def print_table(split: str, rows: dict[str, dict[str, object]]) -> None:
    """Markdown."""
    print(f"\n| {split} pictures, SRCC | zero-shot | " + " | ".join(f"{shots} labels" for shots in SHOTS) + " |")
    print("|---" * (2 + len(SHOTS)) + "|")
    for name, row in rows.items():
        ridge = row["ridge"]
        assert isinstance(ridge, dict)
        cells = [f"{row['zero_shot']:.3f}", *(f"{ridge[str(k)][0]:.3f}" for k in SHOTS)]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("GRMP_HF_TEST_BIQ2021"))
    parser.add_argument("--model", type=Path, default=ROOT / "grmp_hf/assets/tiny")
    parser.add_argument("--splits", nargs="+", choices=("train", "test"), default=["train", "test"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/tiny_clip.json")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.exit(0, "tiny_clip: not run, no --data and no GRMP_HF_TEST_BIQ2021\n")
    torch.set_num_threads(min(2, torch.get_num_threads()))
    splits = {split: measure(arguments.model, arguments.data, split) for split in arguments.splits}
    report = {
        "command": " ".join(["python", *(argument.replace(f"{ROOT}/", "") for argument in sys.argv)]),
        "protocol": "SRCC; ridge: median, lowest and highest of ten draws; labels drawn from the train pictures",
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "pillow")},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no accelerator",
        "splits": splits,
    }
    write_rows(arguments.out, report)
    for split, rows in splits.items():
        print_table(split, rows)


if __name__ == "__main__":
    main()
