"""Which labels of distorted photographs say most about the quality of real ones?

    python benchmarks/bench_labels.py [--data DIR] [--pictures 6000]

DIR has labels.csv, images/ and unlabelled/. Crops of the unlabelled photographs are distorted, each with one of the 25
types at a level from 0 to 5, and labelled by GMSD and by level, once as if all photographs were perfect and once as a
share of what the embedded base says of the photograph (`judge_photographs` in a recipe of pre-training). A linear
readout of the frozen embedding is then fitted to the labels of three quarters of the photographs, freely and pulled
towards the base's own readout. How it orders the distorted crops of the other quarter stands beside how it orders
BIQ2021's train part through the centre view, without a rating by people: what a label teaches about distortions, and
what it costs or gives on real photographs. The test part is not read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import add_folder, make_parser, need_folder, write_result
from numpy.typing import NDArray

import grmp_hf
from grmp_hf.data import read_ratings
from grmp_hf.data.distortions import DISTORTIONS, LEVELS
from grmp_hf.data.photographs import Photographs, read_photographs
from grmp_hf.data.synthetic import LABELS, distorted_crop
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import first_views
from grmp_hf.scoring import Scorer
from grmp_hf.views import all_views

BATCH = 32
PULLS = {"free": 1e-4, "pulled": 0.1}
Floats = NDArray[np.float64]


def embed(scorer: Scorer, pixels: list[torch.Tensor]) -> Floats:
    """Embeddings `(B, D)`."""
    embeds: Floats = scorer.outputs(torch.stack(pixels)).image_embeds.double().numpy()
    return embeds


def embed_distorted(scorer: Scorer, photographs: Photographs, count: int) -> tuple[Floats, dict[str, Floats], Any]:
    """Embeddings `(n, D)` of distorted crops, their labels by each rule, and the numbers of their photographs."""
    kinds, size = list(DISTORTIONS), scorer.processor.size
    ends = (len(photographs), len(kinds), 1 + len(LEVELS))
    drawn = np.random.default_rng(0).integers(ends, size=(count, 3)).tolist()
    labels: dict[str, list[float]] = {name: [] for name in LABELS}
    embeds, pixels = [], []
    for number, (at, kind, level) in enumerate(drawn):
        for name, rule in LABELS.items():
            crop, quality = distorted_crop(
                photographs.pictures[at], kinds[kind], level, size=size, seed=number, label=rule
            )
            labels[name].append(quality)
        pixels.append(torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))[None])
        if len(pixels) == BATCH or number == count - 1:
            embeds.append(embed(scorer, pixels))
            pixels = []
            print(f"\rdistorted {number + 1} of {count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return np.concatenate(embeds), {name: np.array(values) for name, values in labels.items()}, np.array(drawn)[:, 0]


def base_readout(scorer: Scorer) -> Floats:
    """Direction `(D,)` in which the base's quality rises: the difference of its two anchors, times its scale."""
    model: Any = scorer.model
    with torch.inference_mode():
        unit = torch.eye(model.config.clip_config.projection_dim)
        logits = model(image_embeds=unit).quality_logits.double().numpy()
    levels = np.array(model.config.quality_levels)
    best, worst = logits[:, levels.argmax()], logits[:, levels.argmin()]
    difference: Floats = best - worst
    return difference


def fit_readout(embeds: Floats, labels: Floats, base: Floats, pull: float) -> Floats:
    """Direction with the least mean cross-entropy + pull * squared relative distance from the base's."""
    values, wanted, start = (torch.tensor(array, dtype=torch.float64) for array in (embeds, labels, base))
    shift = torch.zeros_like(start, requires_grad=True)
    scale, offset = (torch.tensor([number], dtype=torch.float64, requires_grad=True) for number in (1.0, 0.0))
    optimizer: Any = torch.optim.LBFGS([shift, scale, offset], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = scale * (values @ (start + start.norm() * shift)) + offset
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted) + pull * shift.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    fitted: Floats = (start + start.norm() * shift.detach()).numpy()
    return fitted


def figure(scores: Floats, wanted: Floats) -> float:
    """SRCC with four digits."""
    return round(srcc(scores, wanted), 4)


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv and unlabelled/")
    parser.add_argument("--pictures", type=int, default=6000, help="distorted crops (default 6000)")
    arguments = parser.parse_args()
    data = need_folder(parser, arguments.data, "--data")
    judge = grmp_hf.load("default")
    scorer, processor = first_views(judge, 1), judge.processor
    base = base_readout(judge)

    table = read_ratings(data, scale=(0, 1))
    rows = [row for row in table.rows if row.split == "train"]
    real = np.concatenate([embed(scorer, [*pixels]) for pixels in all_views(rows, scorer.views, batch_size=BATCH)])
    mos = np.array([row.mos for row in rows])

    photographs = read_photographs(Path(data, "unlabelled"), processor.size, processor.uncropped)
    embeds, labels, photograph = embed_distorted(scorer, photographs, arguments.pictures)
    own = judge.score(list(photographs.pictures)).quality[photograph]
    kept = photograph % 4 == 3
    figures: dict[str, Any] = {}
    for name, wanted in {**labels, **{f"{name}, judged": values * own for name, values in labels.items()}}.items():
        fitted = {title: fit_readout(embeds[~kept], wanted[~kept], base, pull) for title, pull in PULLS.items()}
        figures[name] = {
            title: {"distorted": figure(embeds[kept] @ readout, wanted[kept]), "real": figure(real @ readout, mos)}
            for title, readout in {"base": base, **fitted}.items()
        }
        print(name, figures[name])
    about = {"pictures": arguments.pictures, "photographs": len(photographs), "rated": len(rows)}
    write_result("labels", {**about, "data_hash": table.content_hash, "pulls": PULLS, "labels": figures})


if __name__ == "__main__":
    main()
