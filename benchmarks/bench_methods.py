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
from typing import Any

import yaml
from measuring import CACHE, ROOT, add_folder, make_parser, need_folder, summary, write_result

from grmp_hf.benchmark.reporting import compare

CONFIG = ROOT / "benchmarks" / "biq2021.yaml"
METRICS = ("srcc", "krcc", "plcc", "plcc_logistic", "rmse")
Row = dict[str, Any]


def run(data: str) -> list[Row]:
    """The rows of the configuration, computed or found."""
    options = ["--data", f"biq2021={data}", "--output", str(CACHE / "biq2021"), "--json"]
    command = [sys.executable, "-m", "grmp_hf.cli.main", "benchmark", str(CONFIG), *options]
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


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv")
    data = need_folder(parser, parser.parse_args().data, "--data")
    rows = run(str(data))
    reference = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["compare_to"]
    methods = dict.fromkeys(row["method"] for row in rows)
    first = rows[0]
    figures = {
        **{name: first[name] for name in ("model", "revision", "preprocessing", "protocol", "data_hash", "n_test")},
        "draws": 1 + max(row["draw"] for row in rows),
        "minutes": round(sum(row["seconds"] for row in rows) / 60, 1),
        "peak_memory_mib": max(row["peak_memory_mib"] for row in rows),
        "split_hashes": sorted({row["split_hash"] for row in rows}),
        "methods": {name: summed_up(rows, name) for name in methods},
        "compared_with": reference,
        "comparisons": compare(rows, reference),
    }
    for name, by_shots in figures["methods"].items():
        cells = [
            f"{shots}: {found['srcc']['median']:.3f} [{found['srcc']['low']:.3f}]" for shots, found in by_shots.items()
        ]
        print(f"{name:<14}" + "  ".join(cells))
    print(f"{figures['minutes']} minutes of fitting and scoring")
    write_result("biq2021_methods", figures)


if __name__ == "__main__":
    main()
