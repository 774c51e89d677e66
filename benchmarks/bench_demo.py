"""`make demo` with ten seeds: is what it prints better than ridge regression and zero-shot, whichever ratings it draws?

    python benchmarks/bench_demo.py [--seeds 10]

Runs the command of `make demo` (`grmp-iqa adapt --shots 50`) on its pictures, once a seed, and reads its metrics.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_worlds import make_demo
from measuring import CACHE, ROOT, make_parser, summary, write_result

BASELINES = ("ridge", "zero_shot")


def main() -> None:
    """Run and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0, 1, ... (default 10)")
    seeds = parser.parse_args().seeds
    pictures = CACHE / "worlds" / "demo"
    make_demo(pictures)
    rows = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--data", str(pictures), "--shots", "50", "--seed", str(seed), "--output", f"{folder}/adapter"]
            command = [sys.executable, "-m", "grmp_hf.cli.main", "adapt", "--quiet", *options]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            metrics = json.loads(Path(folder, "adapter", "metrics.json").read_text(encoding="utf-8"))
        baselines = {name: round(metrics["baselines"][name]["srcc"], 4) for name in BASELINES}
        rows.append({"seed": seed, "adapted": round(metrics["srcc"], 4), **baselines})
        print(rows[-1], flush=True)
    better = {name: sum(row["adapted"] > row[name] for row in rows) for name in BASELINES}
    medians = {name: summary([row[name] for row in rows])["median"] for name in ("adapted", *BASELINES)}
    print({"better_than": better, "median": medians})
    write_result("demo", {"seeds": seeds, "better_than": better, "median": medians, "rows": rows})


if __name__ == "__main__":
    main()
