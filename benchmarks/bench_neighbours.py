"""Every method of this package side by side: how good with how many labels, and for how many seconds and weights.

    python benchmarks/bench_neighbours.py --data BIQ2021 --livec LIVEC [--only biq2021-1000 ...] [--methods NAME ...]

Runs `grmp-iqa benchmark benchmarks/neighbours.yaml` on BIQ2021 (its test part scored) and a part of LIVE Challenge (a
fifth of it scored), ten draws of 20 and 50 labels, three of 100, 200 and of all (1,000 and 180). It takes four to five
hours of one core. Rows stand in the result, and those that do are not computed again: it goes on where it stopped, on
another machine too; `--only` and `--methods` choose what is computed, and sizes can be computed side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from measuring import CACHE, RESULTS, ROOT, add_folder, make_parser, need_folder, summary, write_result
from neighbour_tables import draw

from grmp_hf.benchmark.reporting import compare
from grmp_hf.benchmark.store import ResultStore
from grmp_hf.evaluation.comparisons import paired_difference
from grmp_hf.evaluation.metrics import srcc

SIZES = {"biq2021": (20, 50, 100, 200, 1000), "livec": (20, 50, 100, 180)}
RANGES = {"biq2021": (0, 1), "livec": (0, 100)}
LONG = "loda, three epochs"  # a few steps of LoDa see no more than some 200 pictures: with all labels alone
LODA = ("loda", "loda of the paper's size", LONG)
KEPT = (
    *("dataset", "test_dataset", "protocol", "method", "shots", "draw", "srcc", "plcc", "fit_seconds"),
    *("weights_trained", "learnt_bytes", "predictions"),
)
CONFIG = ROOT / "benchmarks" / "neighbours.yaml"
Row = dict[str, Any]


def draws_of(shots: int) -> int:
    """How many draws of so many labels."""
    return 10 if shots <= 50 else 3


def known_methods(name: str, shots: int) -> list[str]:
    """Methods that are measured with so many labels of a data set."""
    methods = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["methods"]
    names = [one if isinstance(one, str) else one.get("name", one["method"]) for one in methods]
    return [one for one in names if one != LONG or shots == SIZES[name][-1]]


def folder_of(name: str, shots: int) -> Path:
    """Where the rows of one size are made."""
    found: Path = CACHE / "neighbours" / f"{name}-{shots}"
    return found


def run(name: str, data: Path, shots: int, methods: Sequence[str]) -> list[Row]:
    """Rows of some methods with so many labels of a data set, computed or found."""
    low, high = RANGES[name]
    folder = folder_of(name, shots)
    config = folder.with_suffix(".yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    text = CONFIG.read_text(encoding="utf-8")
    text = text.replace("photographs: {path: null}", f"{name}: {{path: null, range: [{low}, {high}]}}")
    config.write_text(text.replace("../grmp_hf", str(ROOT / "grmp_hf")), encoding="utf-8")
    options = ["--data", f"{name}={data}", "--output", str(folder), "--cache", str(CACHE / "features")]
    options += ["--shots", str(shots), "--draws", str(draws_of(shots)), "--methods", *methods]
    command = [sys.executable, "-m", "grmp_hf.cli.main", "benchmark", str(config), "--json", *options]
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def summed_up(rows: Sequence[Row]) -> Iterator[Row]:
    """By data set, method and number of labels: figures over draws, seconds, weights."""
    for key in dict.fromkeys((row["dataset"], row["method"], row["shots"]) for row in rows):
        part = [row for row in rows if (row["dataset"], row["method"], row["shots"]) == key]
        figures = {name: summary([row[name] for row in part]) for name in ("srcc", "plcc", "fit_seconds")}
        flat = {f"{name}_{what}": value[what] for name, value in figures.items() for what in ("median", "low", "high")}
        costs = {name: part[0][name] for name in ("weights_trained", "learnt_bytes")}
        yield {**dict(zip(("dataset", "method", "shots"), key, strict=True)), "draws": len(part), **flat, **costs}


def every_label(rows: Sequence[Row], name: str) -> Iterator[Row]:
    """LoDa against ridge with all labels: over the same pictures, and over draws where there are several."""
    shots = SIZES[name][-1]
    store = ResultStore(folder_of(name, shots))
    own = {(row["method"], row["draw"]): row for row in rows if (row["dataset"], row["shots"]) == (name, shots)}
    here = {key for key, row in own.items() if (store.folder / row["predictions"]).is_file()}
    for method in LODA:
        draws = [draw for draw in range(3) if {(method, draw), ("ridge", draw)} <= here]
        if not draws:
            continue
        pairs = [[store.predictions(own[one, draw]) for draw in draws] for one in (method, "ridge")]
        # Where other pictures are scored in each draw, the first one alone is compared over its pictures.
        same = all(np.array_equal(said.names, pairs[0][0].names) for said in pairs[0])
        first, second = (np.array([said.scores for said in part[: None if same else 1]]) for part in pairs)
        compared = paired_difference(srcc, first, second, pairs[0][0].mos)._asdict()
        means = {
            what: float(np.mean([own[one, draw]["srcc"] for draw in draws[: len(first)]]))
            for what, one in (("srcc", method), ("ridge", "ridge"))
        }
        yield {"dataset": name, "method": method, "shots": shots, "draws": len(first), **means, **compared}


def main() -> None:
    """Run what is missing, and write the result after each size."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021")
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    sizes = {f"{name}-{shots}": (name, shots) for name, counts in SIZES.items() for shots in counts}
    parser.add_argument("--only", nargs="*", choices=sizes, metavar="NAME-SIZE", help="only these (default: all)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these methods (default: all)")
    args: argparse.Namespace = parser.parse_args()
    folders = {"biq2021": args.data, "livec": args.livec}
    for name, shots in sizes.values() if args.only is None else map(sizes.__getitem__, args.only):
        rows = {_place(row): row for row in before()["rows"]}
        wanted = [one for one in known_methods(name, shots) if args.methods is None or one in args.methods]
        missing = [one for one in wanted if not _is_known(rows, name, one, shots)]
        if missing:
            place = need_folder(parser, folders[name], f"--{name}") / "labels.csv"
            publish(run(name, place, shots, missing))
    publish([])


def before() -> dict[str, list[Row]]:
    """The result as it stands, which another process may have written."""
    path = RESULTS / "neighbours.json"
    found: dict[str, list[Row]] = {"rows": [], "every_label": []}
    return {**found, **json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else found


def publish(made: Sequence[Row]) -> None:
    """Add rows to the result and the figure; what was compared over predictions that are not here stays."""
    known = before()
    rows = {_place(row): row for row in known["rows"]}
    rows |= {_place(row): {key: row[key] for key in KEPT} for row in made}
    found = [rows[key] for key in sorted(rows)]
    compared = {(row["dataset"], row["method"]): row for row in known["every_label"]}
    compared |= {(row["dataset"], row["method"]): row for name in SIZES for row in every_label(found, name)}
    whole = {"command": "python benchmarks/bench_neighbours.py --data DIR --livec DIR"}  # whatever part was missing
    result: dict[str, Any] = {"methods": [*summed_up(found)], "minus_grmp": compare(found, "grmp")}
    write_result("neighbours", {**whole, **result, "every_label": [*compared.values()], "rows": found})
    draw(result, ROOT / "docs" / "figures" / "neighbours.svg")


def _place(row: Row) -> tuple[str, str, int, int]:
    return row["dataset"], row["method"], row["shots"], row["draw"]


def _is_known(rows: dict[tuple[str, str, int, int], Row], name: str, method: str, shots: int) -> bool:
    return all((name, method, shots * (method != "zero_shot"), draw) in rows for draw in range(draws_of(shots)))


if __name__ == "__main__":
    main()
