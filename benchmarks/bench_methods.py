"""How does the method compare with others that learn from few ratings? `grmp-iqa benchmark` on BIQ2021, summed up.

    python benchmarks/bench_methods.py [--data DIR]

Runs `grmp-iqa benchmark benchmarks/biq2021.yaml --data biq2021=DIR --output runs/biq2021`, which goes on where an
earlier run stopped and takes an hour on two cores from nothing, and keeps what its rows say: the figures of every draw,
seconds, and the paired differences to the adapter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from measuring import CACHE, ROOT, add_folder, make_parser, need_folder, summary, write_result

from grmp_hf.benchmark.reporting import compare

NAME = "biq2021"
METRICS = ("srcc", "krcc", "plcc", "plcc_logistic", "rmse")
Row = dict[str, Any]


def run(name: str, dataset: str, data: Path) -> list[Row]:
    """The rows of `benchmarks/NAME.yaml`, computed or found in `runs/NAME`; features are found in `runs/features`."""
    config = ROOT / "benchmarks" / f"{name}.yaml"
    options = ["--data", f"{dataset}={data}", "--output", str(CACHE / name), "--cache", str(CACHE / "features")]
    command = [sys.executable, "-m", "grmp_hf.cli.main", "benchmark", str(config), "--json", *options]
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}  # threads that spin would starve their neighbours
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def summed_up(rows: list[Row], method: str) -> dict[str, Any]:
    """Figures of one method by number of labels."""
    found: dict[str, Any] = {}
    for shots in dict.fromkeys(row["shots"] for row in rows if row["method"] == method):
        draws = [row for row in rows if (row["method"], row["shots"]) == (method, shots)]
        found[str(shots)] = {
            **{metric: summary([row[metric] for row in draws]) for metric in METRICS},
            "seconds": summary([row["seconds"] for row in draws]),
        }
    return found


def figures_of(rows: list[Row], reference: str) -> dict[str, Any]:
    """What a benchmark measured, and how the methods differ from one of them."""
    first = rows[0]
    return {
        **{name: first[name] for name in ("model", "revision", "preprocessing", "protocol", "data_hash", "n_test")},
        "draws": 1 + max(row["draw"] for row in rows),
        "minutes": round(sum(row["seconds"] for row in rows) / 60, 1),
        "peak_memory_mib": max(row["peak_memory_mib"] for row in rows),
        "split_hashes": sorted({row["split_hash"] for row in rows}),
        "methods": {name: summed_up(rows, name) for name in dict.fromkeys(row["method"] for row in rows)},
        "compared_with": reference,
        "comparisons": compare(rows, reference),
    }


def print_medians(figures: dict[str, Any]) -> None:
    """SRCC of every method, median [lowest]."""
    for name, by_shots in figures["methods"].items():
        cells = [
            f"{shots}: {found['srcc']['median']:.3f} [{found['srcc']['low']:.3f}]" for shots, found in by_shots.items()
        ]
        print(f"{name:<26}" + "  ".join(cells))
    print(f"{figures['minutes']} minutes of fitting and scoring")


def reference_of(name: str) -> str:
    """The method that `benchmarks/NAME.yaml` compares the others with."""
    config = yaml.safe_load((ROOT / "benchmarks" / f"{name}.yaml").read_text(encoding="utf-8"))
    return str(config["compare_to"])


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv")
    data = need_folder(parser, parser.parse_args().data, "--data")
    figures = figures_of(run(NAME, NAME, data), reference_of(NAME))
    print_medians(figures)
    write_result("biq2021_methods", figures)


if __name__ == "__main__":
    main()
