"""Does a meta-learnt start help to adapt, and does the gradient rule?

    python benchmarks/bench_start.py [--data DIR] [--only biq2021_start]

DIR has labels.csv, images/ and unlabelled/. First, starts are learnt from the unlabelled photographs with
`grmp-iqa pretrain`, each with its own algorithm and the rest of `training/recipes/pretrain_default.yaml`; those that
are in `runs/starts` are kept, and an interrupted one goes on. Then `grmp-iqa benchmark` runs three times, and goes on
where an earlier run stopped: `benchmarks/biq2021_start.yaml` on real photographs with ratings by people,
`benchmarks/distorted_start.yaml` on pictures made here (types of distortion and photographs that were held out from
every start, labelled by GMSD), and `benchmarks/biq2021_lambda.yaml`, where visual prompts are trained under the
gradient rule. What the rows say is kept, and drawn in `docs/figures`.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bench_methods import figures_of, print_medians, reference_of, run
from measuring import CACHE, ROOT, add_folder, make_parser, need_folder, write_result
from PIL import Image

import grmp_hf
from grmp_hf.cli.pretraining import HELD_OUT
from grmp_hf.data.photographs import read_photographs
from grmp_hf.data.synthetic import LABELS, distorted_crop, synthetic_tasks
from grmp_hf.evaluation.plots import learning_curve
from grmp_hf.training.episodes import hold_out_tasks

PICTURES = 150  # of each held-out type
RECIPE = ROOT / "training" / "recipes" / "pretrain_default.yaml"
STARTS = CACHE / "starts"
DISTORTED = CACHE / "distorted"
FIGURES = ROOT / "docs" / "figures"
REAL = "test photographs of BIQ2021"
EXPERIMENTS = {
    "biq2021_start": ("biq2021", None, "Real photographs, with and without a start", REAL),
    "distorted_start": ("distorted", DISTORTED, "Held-out distortions", "pictures, labels by GMSD"),
    "biq2021_lambda": ("biq2021", None, "Visual prompts trained under the gradient rule", REAL),
}
"""Configuration -> data set in it, its folder (None for --data), and what is written above its figure."""

ALGORITHMS: dict[str, dict[str, Any]] = {
    "reptile": {},
    "reptile_rule": {"regularization_strength": 1.0},
    "fomaml": {"meta_algorithm": "fomaml"},
    "maml": {"meta_algorithm": "maml", "steps": 50, "eval_steps": 10},  # a step takes three times as long
    "authors": {
        "meta_algorithm": "authors",
        "inner_optimizer": "adam",
        "inner_learning_rate": 0.0001,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "schedule": "constant",
    },
}
"""What each start has in the place of the default recipe's own."""


def learn(name: str, data: Path) -> dict[str, Any]:
    """The metrics of a start, which is learnt if it is not there yet."""
    folder = STARTS / name
    if not (folder / "metrics.json").is_file():
        recipe = STARTS / f"{name}.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        given = {**yaml.safe_load(RECIPE.read_text(encoding="utf-8")), **ALGORITHMS[name]}
        recipe.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
        options = ["--photos", str(data / "unlabelled"), "--recipe", str(recipe), "--output", str(folder)]
        command = [sys.executable, "-m", "grmp_hf.cli.main", "pretrain", *options]
        subprocess.run(command, cwd=ROOT, check=True, env={"OMP_WAIT_POLICY": "passive", **os.environ})
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    names = ("recipe", "held_out_before", "held_out_after", "seconds", "peak_memory_mib", "adapter_sha256")
    return {name: metrics[name] for name in names}


def make_distorted(photos: Path) -> None:
    """Crops of held-out photographs under held-out types of distortion, divided as by `pretrain`, and their labels."""
    if (DISTORTED / "labels.csv").is_file():
        return
    processor = grmp_hf.load("default").processor
    photographs = read_photographs(photos, processor.size, processor.uncropped)
    tasks = synthetic_tasks(len(photographs))
    _, held = hold_out_tasks(tasks, HELD_OUT, reference_of=lambda picture: picture.photograph)
    DISTORTED.mkdir(parents=True, exist_ok=True)
    lines = [["image", "mos", "reference", "distortion"]]
    for kind in HELD_OUT:
        order = np.random.default_rng(0).permutation(len(held[kind]))
        for number in order[:PICTURES].tolist():
            one = held[kind][number]
            picture, quality = distorted_crop(
                photographs.pictures[one.photograph],
                kind,
                one.level,
                size=processor.size,
                seed=number,
                label=LABELS["gmsd"],
            )
            name = f"{kind}_{number}.png"
            Image.fromarray(np.ascontiguousarray(picture)).save(DISTORTED / name)
            lines.append([name, f"{quality:.4f}", str(one.photograph), kind])
    with (DISTORTED / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv and unlabelled/")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), help="experiments")
    arguments = parser.parse_args()
    data = need_folder(parser, arguments.data, "--data")
    starts = {name: learn(name, data) for name in ALGORITHMS}
    make_distorted(data / "unlabelled")
    for name in arguments.only:
        dataset, folder, title, pictures = EXPERIMENTS[name]
        rows = run(name, dataset, folder or data)
        figures = {**figures_of(rows, reference_of(name)), "starts": starts}
        print_medians(figures)
        write_result(name, figures)
        methods = {
            method: {int(shots): found["srcc"]["values"] for shots, found in by_shots.items()}
            for method, by_shots in figures["methods"].items()
        }
        caption = f"{figures['n_test']} {pictures}, {figures['draws']} draws: median, worst and best draw"
        learning_curve(methods, FIGURES / f"{name}.svg", ylabel="SRCC", title=title, caption=caption)


if __name__ == "__main__":
    main()
