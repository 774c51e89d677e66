"""Every method of this package side by side: how good with how many labels, and for how many seconds and weights.

    python benchmarks/bench_neighbours.py --data BIQ2021 --livec LIVEC [--methods NAME ...]

Runs `grmp-iqa benchmark benchmarks/neighbours.yaml` on BIQ2021 (its test part scored) and a part of LIVE Challenge (a
fifth of it scored), ten draws of 20 and 50 labels, three of 100, 200 and of all (1,000 and 180). It takes hours on two
cores, keeps every fit in runs/, and goes on where it stopped; with --methods, the table holds what is there by then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from measuring import CACHE, ROOT, add_folder, make_parser, need_folder, summary, write_result
from neighbour_tables import draw

from grmp_hf.benchmark.reporting import compare
from grmp_hf.benchmark.store import ResultStore
from grmp_hf.evaluation.comparisons import paired_difference
from grmp_hf.evaluation.metrics import srcc

FEW, MANY = (20, 50), {"biq2021": (100, 200, 1000), "livec": (100, 180)}
RANGES = {"biq2021": (0, 1), "livec": (0, 100)}
Row = dict[str, Any]


def run(name: str, data: Path, shots: tuple[int, ...], draws: int, methods: list[str] | None) -> list[Row]:
    """Rows of one data set, computed or found."""
    low, high = RANGES[name]
    part = f"{name}-{shots[-1]}"  # a folder for each part: two processes can compute them side by side
    config = CACHE / "neighbours" / f"{part}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "benchmarks" / "neighbours.yaml").read_text(encoding="utf-8")
    text = text.replace("photographs: {path: null}", f"{name}: {{path: null, range: [{low}, {high}]}}")
    config.write_text(text.replace("../grmp_hf", str(ROOT / "grmp_hf")), encoding="utf-8")
    options = ["--data", f"{name}={data}", "--output", str(config.parent / part), "--cache", str(CACHE / "features")]
    options += ["--shots", *map(str, shots), "--draws", str(draws), *(["--methods", *methods] if methods else [])]
    command = [sys.executable, "-m", "grmp_hf.cli.main", "benchmark", str(config), "--json", *options]
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def summed_up(rows: list[Row]) -> list[Row]:
    """By data set, method and number of labels: figures over draws, seconds, numbers learnt."""
    found = []
    for key in dict.fromkeys((row["dataset"], row["method"], row["shots"]) for row in rows):
        part = [row for row in rows if (row["dataset"], row["method"], row["shots"]) == key]
        about = dict(zip(("dataset", "method", "shots"), key, strict=True))
        figures = {name: summary([row[name] for row in part]) for name in ("srcc", "plcc", "fit_seconds")}
        flat = {f"{name}_{what}": value[what] for name, value in figures.items() for what in ("median", "low", "high")}
        found.append(
            {
                **about,
                "draws": len(part),
                **flat,
                "weights_trained": part[0]["weights_trained"],
                "learnt_bytes": part[0]["learnt_bytes"],
            }
        )
    return found


def every_label(rows: list[Row]) -> list[Row]:
    """LoDa against ridge with all labels: over the same pictures, and over draws where there are several."""
    found = []
    for name, counts in MANY.items():
        store = ResultStore(CACHE / "neighbours" / f"{name}-{counts[-1]}")
        own = {
            (row["method"], row["draw"]): row for row in rows if (row["dataset"], row["shots"]) == (name, counts[-1])
        }
        for method in ("loda", "loda of the paper's size"):
            draws = [draw for draw in range(3) if (method, draw) in own and ("ridge", draw) in own]
            if not draws:
                continue
            pairs = [[store.predictions(own[one, draw]) for draw in draws] for one in (method, "ridge")]
            # Where pictures that are scored differ between draws, the first draw alone has something in common.
            same = all(np.array_equal(said.names, pairs[0][0].names) for said in pairs[0])
            first, second = (np.array([said.scores for said in part[: None if same else 1]]) for part in pairs)
            compared = paired_difference(srcc, first, second, pairs[0][0].mos)._asdict()
            about = {"dataset": name, "method": method, "shots": counts[-1], "draws": len(first)}
            means = [float(np.mean([own[one, draw]["srcc"] for draw in draws])) for one in (method, "ridge")]
            found.append({**about, "srcc": means[0], "ridge": means[1], **compared})
    return found


def main() -> None:
    """Run what is missing and write the result."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021")
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these methods (default: all)")
    args: argparse.Namespace = parser.parse_args()
    folders = {"biq2021": args.data, "livec": args.livec}
    rows: list[Row] = []
    for name, folder in folders.items():
        place = need_folder(parser, folder, f"--{name}") / "labels.csv"
        rows += run(name, place, FEW, 10, args.methods)
        rows += run(name, place, MANY[name], 3, args.methods)
    unique = {(row["key"]): row for row in rows}
    table = summed_up([*unique.values()])
    differences = compare([*unique.values()], "grmp")
    result = {"methods": table, "minus_grmp": differences, "every_label": every_label([*unique.values()])}
    write_result("neighbours", result)
    draw(result, ROOT / "docs" / "figures" / "neighbours.svg")


if __name__ == "__main__":
    main()
