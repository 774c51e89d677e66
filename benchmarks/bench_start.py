"""Does a meta-learnt start help to adapt, and does the gradient rule?

    python benchmarks/bench_start.py [--data DIR] [--only biq2021_start]

DIR has labels.csv, images/ and unlabelled/. First, starts are learnt from the unlabelled photographs with
`grmp-iqa pretrain`, each with its own algorithm and the rest of `grmp_hf/recipes/pretrain_default.yaml`; those that
are in `runs/starts` are kept, and an interrupted one goes on. Then `grmp-iqa benchmark` runs three times, and goes on
where an earlier run stopped: `benchmarks/biq2021_start.yaml` on real photographs with ratings by people,
`benchmarks/distorted_start.yaml` on pictures made here (types of distortion and photographs that were held out from
every start, labelled by GMSD), and `benchmarks/biq2021_lambda.yaml`, where visual prompts are trained under the
gradient rule. What the rows say is kept, and drawn in `docs/figures/start.svg`.
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
from matplotlib.figure import Figure
from measuring import CACHE, RESULTS, ROOT, add_folder, make_parser, need_folder, write_result
from PIL import Image

import grmp_hf
from grmp_hf.data.photographs import read_photographs
from grmp_hf.data.synthetic import LABELS, distorted_crop, synthetic_tasks
from grmp_hf.evaluation.plots import GRID, INK
from grmp_hf.tasks import HELD_OUT
from grmp_hf.training.episodes import hold_out_tasks

PICTURES = 150  # of each held-out type
RECIPE = ROOT / "grmp_hf" / "recipes" / "pretrain_default.yaml"
STARTS = CACHE / "starts"
DISTORTED = CACHE / "distorted"
FIGURE = ROOT / "docs" / "figures" / "start.svg"
COLOURS = (*(f"C{number}" for number in range(10)), INK)  # matplotlib has ten
BASELINES = ("zero_shot", "ridge", "statistics")
EXPERIMENTS = {
    "biq2021_start": ("biq2021", None, "Real photographs (BIQ2021)"),
    "distorted_start": ("distorted", DISTORTED, "Held-out distortions"),
    "biq2021_lambda": ("biq2021", None, "Visual prompts trained (BIQ2021)"),
}
"""Configuration -> data set in it, its folder (None for --data), and the title of its part of the figure."""

ALGORITHMS: dict[str, dict[str, Any]] = {
    "reptile": {},
    "reptile_rule": {"regularization_strength": 1.0},
    "fomaml": {"meta_algorithm": "fomaml"},
    "maml": {"meta_algorithm": "maml", "steps": 50, "eval_steps": 10},  # a step takes twice as long
    "authors": {
        "meta_algorithm": "authors",
        "inner_optimizer": "adam",
        "inner_learning_rate": 0.0001,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "schedule": "constant",
    },
    "untrained": {"learning_rate": 1e-9, "steps": 1, "eval_steps": 1},  # what random prompts do by being there
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


def draw() -> None:
    """Differences between methods, paired over draws, with 95 % intervals: a part for each experiment that is there."""
    panels = {name: RESULTS / f"{name}.json" for name in EXPERIMENTS if (RESULTS / f"{name}.json").is_file()}
    figure = Figure(figsize=(4.6 * len(panels), 4.2), dpi=160, layout="constrained")
    colours: dict[str, str] = {}  # a method has the same one in every part
    for axes, (name, path) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        result = json.loads(path.read_text(encoding="utf-8"))
        learnt = [method for method in result["methods"] if method not in BASELINES]
        compared = [method for method in learnt if method != result["compared_with"]]
        for place, method in enumerate(compared):
            found = sorted((c for c in result["comparisons"] if c["method"] == method), key=lambda c: c["shots"])
            middle = np.array([c["difference"] for c in found])
            ends = np.array([[c["difference"] - c["low"], c["high"] - c["difference"]] for c in found]).T
            shots = np.array([c["shots"] for c in found]) * 1.05 ** (place - (len(compared) - 1) / 2)
            style = {"color": colours.setdefault(method, COLOURS[len(colours)]), "label": method}
            axes.errorbar(shots, middle, ends, marker="o", markersize=4, linewidth=1.2, capsize=2, **style)
        axes.axhline(0, color=INK, linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_xlabel("labels")
        axes.set_ylabel(f"SRCC minus that of {result['compared_with']}")
        axes.set_title(EXPERIMENTS[name][2], fontsize=10, loc="left", color=INK)
        axes.legend(fontsize=8, frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


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
        dataset, folder, _ = EXPERIMENTS[name]
        rows = run(name, dataset, folder or data)
        figures = {**figures_of(rows, reference_of(name)), "starts": starts}
        print_medians(figures)
        write_result(name, figures)
    draw()


if __name__ == "__main__":
    main()
