"""How long does importing take, and how long does `grmp-iqa --help`? Medians over sub-processes.

    python benchmarks/bench_import.py [--runs 5]

`import grmp_hf` is measured inside a fresh interpreter in which `import transformers` has been done already: what is
left is what the package adds. `--help` is the whole process, from start to exit, and so is an interpreter that does
nothing, beside it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

from measuring import ROOT, make_parser, write_result

BOUND = 0.3
_IMPORT = "import time, transformers; t = time.perf_counter(); import grmp_hf; print(time.perf_counter() - t)"


def seconds_inside(script: str) -> float:
    """What a script prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def seconds_of(*arguments: str) -> float:
    """Wall time of a fresh interpreter, from its start to its exit."""
    start = perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
    return perf_counter() - start


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="sub-processes of each kind (default 5)")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"import": [], "help": [], "empty": []}
    for _ in range(arguments.runs + 1):
        times["import"].append(seconds_inside(_IMPORT))
        times["help"].append(seconds_of("-m", "grmp_hf.cli.main", "--help"))
        times["empty"].append(seconds_of("-c", ""))
    medians = {
        name: round(statistics.median(values[1:]), 3) for name, values in times.items()
    }  # the first fills caches
    figures = {
        "import_seconds": medians["import"],
        "help_seconds": medians["help"],
        "empty_interpreter_seconds": medians["empty"],
        "bound": BOUND,
    }
    print(f"import grmp_hf after transformers  {medians['import']:.3f} s  (bound {BOUND} s)")
    print(f"grmp-iqa --help                    {medians['help']:.3f} s  (bound {BOUND} s)")
    print(f"an empty interpreter               {medians['empty']:.3f} s")
    write_result("import", figures)


if __name__ == "__main__":
    main()
