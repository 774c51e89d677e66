"""What the benchmarks share: options for data, the file that a result becomes, and timing."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / "runs"
"""Where a benchmark keeps what is slow to make; git does not track it."""

# Of one library about another: nothing that a figure depends on.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch)\.")

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy", "scipy", "pillow")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with the script's own first lines."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_folder(parser: argparse.ArgumentParser, option: str, variable: str, what: str) -> None:
    """An option for a folder of data whose default is an environment variable."""
    parser.add_argument(
        option,
        type=Path,
        default=os.environ.get(variable) or None,
        metavar="DIR",
        help=f"{what} (default: the environment variable {variable})",
    )


def need_folder(parser: argparse.ArgumentParser, folder: Path | None, option: str) -> Path:
    """The folder, or an end without an error where none was named, so that the other benchmarks still run."""
    if folder is None:
        parser.exit(0, f"{parser.prog}: not run, no {option} was given\n")
    assert folder is not None
    if not folder.is_dir():
        parser.error(f"{option}: {folder} is not a folder")
    return folder.resolve()


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest and highest of some values, and the values."""
    rounded = [round(float(value), 4) for value in values]
    low, high = min(rounded), max(rounded)
    return {"median": round(statistics.median(rounded), 4), "low": low, "high": high, "values": rounded}


def paired(values: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Mean difference over paired draws, with its interval."""
    from grmp_hf.evaluation.comparisons import paired_over_draws  # here: some measure how long imports take

    compared = paired_over_draws(values, others)._asdict()
    return {name: round(float(compared[name]), 4) for name in ("difference", "low", "high")}


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, measured in turns (A B A B ...) so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = perf_counter()
            call()
            seconds[name].append(perf_counter() - start)
    return seconds


def known_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that :func:`keep_row` has kept in a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def keep_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file, so that a run that is interrupted goes on after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def write_result(name: str, figures: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write figures with what is needed to repeat them; no path of this machine gets in."""
    arguments = [Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix()]
    arguments += ["DIR" if os.path.isdir(argument) else argument for argument in sys.argv[1:]]
    report = {
        "command": shlex.join(["python", *arguments]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{_threads()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "versions": {"grmp_hf": _own_version(), **{library: version(library) for library in _LIBRARIES}},
        **figures,
    }
    path = folder / f"{name}.json"
    write_rows(path, report)
    return path


def write_rows(path: Path, report: dict[str, Any]) -> None:
    """Write a report with one row a line, so that a changed figure is a changed line and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(one_row_a_line(report) + "\n", encoding="utf-8")


def one_row_a_line(value: Any, indent: str = "") -> str:
    """JSON in which what holds only figures and words, or lists of them, is one line: a row.

    A mapping or list opens over several lines where something in it is, or holds, a mapping.
    """
    if not _holds_rows(value):
        return json.dumps(value)
    deeper = indent + " "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(key)}: {one_row_a_line(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + one_row_a_line(item, deeper) for item in value) + f"\n{indent}]"


def _holds_rows(value: Any) -> bool:
    """Whether something in it is a row or holds rows; the document itself, at the top, always does."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(item, dict) or _holds_rows(item) for item in items)


def _commit() -> str | None:
    """Of the code that was measured, "-dirty" where files differ from it; None where there is no repository."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    except OSError:  # no git
        return None
    return told.strip() or None


def _processor() -> str:
    """Name of the processor and the instruction sets that decide about the speed of a pass."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    found = dict(line.partition(":")[::2] for line in reversed(lines) if ":" in line)
    known = {key.strip(): value.strip() for key, value in found.items()}
    flags = known.get("flags", known.get("Features", "")).split()
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in flags]
    return f"{known.get('model name', platform.machine())} ({', '.join(sets)})"


def _threads() -> str:
    torch = sys.modules.get("torch")
    count = 0 if torch is None else torch.get_num_threads()
    return "" if not count else f", {count} thread{'s' * (count > 1)}"


def _own_version() -> str:
    import grmp_hf

    return grmp_hf.__version__
