"""What are twenty to two hundred ratings worth? The embedded default on rated photographs, beside what it has to beat.

    python benchmarks/bench_biq2021.py [--data DIR] [--split test] [--draws 10] [--shots 20 50 100 200]

DIR holds the BIQ2021 excerpt: `labels.csv` (image, mos, split, subset) and `images/`. On split `test`, labels are drawn
from all train pictures (`grmp_hf.data.draw_shots`, a smaller number is the beginning of a larger one) and the test
pictures are scored; no rating of a test picture chooses anything. On split `train` each draw permutes the train
pictures into half for labels and half to score: settings are chosen there.

Methods: zero-shot (the base alone), adapted (`grmp_hf.training.few_shot.adapt_embeds` with the default recipe, the same
computation as `adapt`, from features that are computed once), ridge on the base's frozen embedding, 14 hand-made
statistics with ridge, and one of them, sharpness, alone.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from measuring import CACHE, ROOT, add_folder, make_parser, need_folder, summary, write_result
from numpy.typing import NDArray

import grmp_hf
from grmp_hf import GRMPForImageQualityAssessment
from grmp_hf.data import Row, draw_shots, read_ratings
from grmp_hf.evaluation.baselines import STATISTICS, fit_ridge
from grmp_hf.evaluation.metrics import plcc, plcc_logistic, srcc
from grmp_hf.features import FeatureStore
from grmp_hf.scoring import Scorer
from grmp_hf.training.few_shot import FewShotRecipe, adapt_embeds

SHOTS = (20, 50, 100, 200)
SUBSETS = ("ss01", "ss02", "ss03")
MARGIN = 0.02
ADAPT = ("-m", "grmp_hf.cli.main", "adapt", "--quiet")

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Predict = Callable[[Indices, Indices, int], Floats]
"""(pictures that teach, pictures to score, seed) -> scores."""


@dataclass(frozen=True)
class Pictures:
    """All that the methods see of N pictures, in the order of the table.

    Attributes:
        rows: N rated rows.
        embeds: `(N, D)` of the base.
        side: `(N, F)` of the base's side network, None of a base without one.
        zero_shot: `(N,)` quality by the base.
        statistics: `(N, 14)`.
    """

    rows: tuple[Row, ...]
    embeds: Floats
    side: Floats | None
    zero_shot: Floats
    statistics: Floats

    @property
    def mos(self) -> Floats:
        """`(N,)`."""
        return np.array([row.mos for row in self.rows])

    @property
    def quality(self) -> torch.Tensor:
        """`(N,)` float32."""
        return torch.tensor([row.quality for row in self.rows], dtype=torch.float32)

    def where(self, **wanted: str) -> Indices:
        """Places of the rows whose columns have these values."""
        return np.array(
            [at for at, row in enumerate(self.rows) if all(getattr(row, k) == v for k, v in wanted.items())]
        )

    def shown(self, at: Indices) -> dict[str, torch.Tensor]:
        """What the model's readout sees of some of them."""
        columns = {"image_embeds": self.embeds, "side": self.side}
        return {name: torch.from_numpy(x[at]).float() for name, x in columns.items() if x is not None}


def describe(scorer: Scorer, rows: tuple[Row, ...]) -> Pictures:
    """All that the methods see of pictures; what an earlier run has seen is not looked at again."""
    store = FeatureStore(CACHE / "biq2021" / "features", scorer)
    store.describe(rows, lambda text, share: print(f"\r{share:.0%}", end="", file=sys.stderr, flush=True))
    found = store.pictures(rows)
    columns = {name: np.asarray(found[name], dtype=np.float64) for name in store.usual}
    return Pictures(rows, columns["embeds"], columns.get("side"), columns["zero_shot"], columns["statistics"])


def draw(pictures: Pictures, split: str, seed: int) -> tuple[Indices, Indices]:
    """The pool of labels, already in the order in which they are drawn, and the pictures to score."""
    train = pictures.where(split="train")
    if split == "test":
        return train[draw_shots(len(train), len(train), seed=seed)], pictures.where(split="test")
    order = np.random.RandomState(seed).permutation(train)
    pool, scored = order[: len(order) // 2], order[len(order) // 2 :]
    return pool[draw_shots(len(pool), len(pool), seed=seed)], scored


def fresh_base(scorer: Scorer) -> GRMPForImageQualityAssessment:
    """A copy of the base for one adapter to be put around."""
    return cast(GRMPForImageQualityAssessment, copy.deepcopy(scorer.model))


def make_methods(scorer: Scorer, pictures: Pictures) -> dict[str, Predict]:
    """The methods of the table."""

    def adapted(taught: Indices, scored: Indices, seed: int) -> Floats:
        seen = pictures.shown(taught)
        with tempfile.TemporaryDirectory() as folder:
            model = adapt_embeds(
                fresh_base(scorer),
                seen["image_embeds"],
                pictures.quality[taught],
                side=seen.get("side"),
                seed=seed,
                output_dir=folder,
            )
        with torch.inference_mode():
            scores: Floats = model(**pictures.shown(scored)).quality.double().numpy()
        return scores

    def ridge_on(features: Floats) -> Predict:
        return lambda taught, scored, _: fit_ridge(features[taught], pictures.mos[taught]).predict(features[scored])

    return {
        "adapted": adapted,
        "ridge": ridge_on(pictures.embeds),
        "statistics": ridge_on(pictures.statistics),
        "zero_shot": lambda taught, scored, seed: pictures.zero_shot[scored],
        "sharpness": lambda taught, scored, seed: pictures.statistics[scored, STATISTICS.index("sharpness")],
    }


def measure(methods: dict[str, Predict], pictures: Pictures, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every method at every number of labels in every draw."""
    table: dict[str, Any] = {name: {} for name in methods}
    for shots in arguments.shots:
        figures: dict[str, dict[str, list[float]]] = {name: {} for name in methods}
        for seed in range(arguments.draws):
            pool, scored = draw(pictures, arguments.split, seed)
            for name, predict in methods.items():
                scores, mos = predict(pool[:shots], scored, seed), pictures.mos[scored]
                found = {
                    "srcc": srcc(scores, mos),
                    "plcc": plcc(scores, mos),
                    "plcc_logistic": plcc_logistic(scores, mos),
                }
                for subset in SUBSETS:
                    inside = np.isin(scored, pictures.where(scene=subset))
                    found[f"srcc_{subset}"] = srcc(scores[inside], mos[inside])
                for metric, value in found.items():
                    figures[name].setdefault(metric, []).append(value)
            print(f"\r{shots} labels, draw {seed + 1} of {arguments.draws}", end="", file=sys.stderr, flush=True)
        for name, metrics in figures.items():
            table[name][str(shots)] = {metric: summary(values) for metric, values in metrics.items()}
        print(file=sys.stderr)
    for name in {"zero_shot", "sharpness"} & table.keys():  # they use no label: one column
        table[name] = next(iter(table[name].values()))
    return table


def count_below(table: dict[str, Any], name: str, shots: int) -> int:
    """Draws in which a method stays more than the margin below zero-shot on the same pictures."""
    pairs = zip(table[name][str(shots)]["srcc"]["values"], table["zero_shot"]["srcc"]["values"], strict=True)
    return sum(value < base - MARGIN for value, base in pairs)


def time_adapt(pictures: Pictures, data: Path, shots: int, split: str) -> float:
    """Seconds of `grmp-iqa adapt` on the labels of the first draw, the whole process, nothing to test."""
    pool, _ = draw(pictures, split, 0)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "ratings.csv")
        with table.open("w", newline="", encoding="utf-8") as file:
            rows = [[pictures.rows[at].name, pictures.rows[at].mos] for at in pool[:shots]]
            csv.writer(file).writerows([["image", "mos"], *rows])
        options = ["--data", str(table), "--images", str(data / "images"), "--output", str(Path(folder, "adapter"))]
        start = perf_counter()
        subprocess.run(
            [sys.executable, *ADAPT, *options, "--range", "0", "1"], cwd=ROOT, check=True, capture_output=True
        )
        return round(perf_counter() - start, 1)


def print_table(table: dict[str, Any], shots: list[int]) -> None:
    """SRCC, median [lowest, highest]."""
    print("method      " + "".join(f"{f'{count} labels':>24}" for count in shots))
    for name, row in table.items():
        cells = [row["srcc"]] if "srcc" in row else [row[str(count)]["srcc"] for count in shots]
        texts = [f"{cell['median']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in cells]
        print(f"{name:<12}" + "".join(f"{text:>24}" for text in texts))


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv")
    parser.add_argument("--split", choices=("train", "test"), default="test", help="pictures to score (default test)")
    parser.add_argument("--draws", type=int, default=10, help="draws of labels, seeds 0, 1, ... (default 10)")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help=f"numbers of labels (default {SHOTS})")
    parser.add_argument("--model", default="default", help="base: the embedded one by default, or a folder")
    parser.add_argument("--name", help="of the result file (default: biq2021 on test, biq2021_train)")
    arguments = parser.parse_args()
    data = need_folder(parser, arguments.data, "--data")
    scorer, table = grmp_hf.load(arguments.model), read_ratings(data, scale=(0, 1))
    rows = tuple(row for row in table.rows if arguments.split == "test" or row.split == "train")
    pictures = describe(scorer, rows)
    figures: dict[str, Any] = {
        "split": arguments.split,
        "draws": arguments.draws,
        "labels_from": len(draw(pictures, arguments.split, 0)[0]),
        "pictures_scored": len(draw(pictures, arguments.split, 0)[1]),
        "data_hash": table.content_hash,
        "model": scorer.identity["model"],
        "revision": scorer.identity["revision"],
        "preprocessing": scorer.identity["preprocessing"],
        "recipe": dataclasses.asdict(FewShotRecipe()),
        "methods": measure(make_methods(scorer, pictures), pictures, arguments),
    }
    if 50 in arguments.shots:
        figures["adapted_at_50_below_zero_shot"] = {
            "margin": MARGIN,
            "draws": count_below(figures["methods"], "adapted", 50),
        }
        if arguments.model == "default":
            figures["adapt_seconds"] = {"shots": 50, "seconds": time_adapt(pictures, data, 50, arguments.split)}
    print_table(figures["methods"], arguments.shots)
    print({name: value for name, value in figures.items() if name.startswith("adapt")})
    write_result(arguments.name or ("biq2021" if arguments.split == "test" else "biq2021_train"), figures)


if __name__ == "__main__":
    main()
