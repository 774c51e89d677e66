"""What a benchmark ran, as text for a report: model, data, versions, methods with their settings, every row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .report import METRIC_TITLES
from .results import ResultRow

__all__ = ["MethodSettings", "about_methods", "about_run", "every_row", "run_identity"]

_WHAT = ("dataset", "test_dataset", "protocol", "method", "shots", "draw", "seed", "split_hash", "data_hash")
_HOW = ("model", "revision", "preprocessing", "recipe")

_COLUMNS = {
    "dataset": "data set",
    "test_dataset": "tested on",
    "protocol": "protocol",
    "method": "method",
    "shots": "labels",
    "draw": "draw",
    "seed": "seed",
    "split_hash": "split",
    "n_train": "train",
    "n_test": "test",
    **METRIC_TITLES,
    "seconds": "seconds",
    "peak_memory_mib": "peak MiB",
}


def run_identity(rows: Sequence[ResultRow]) -> str:
    """SHA-256 of what was run on what, without figures, times and versions: the same work anywhere has the same.

    The order of the rows does not matter.

    >>> row = {"dataset": "livec", "method": "ridge", "shots": 20, "draw": 0, "srcc": 0.5}
    >>> run_identity([row]) == run_identity([{**row, "srcc": 0.6}]) != run_identity([{**row, "draw": 1}])
    True
    """
    lines = sorted(json.dumps({name: row.get(name) for name in (*_WHAT, *_HOW)}, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def about_run(rows: Sequence[ResultRow]) -> list[tuple[str, list[str]]]:
    """What was run: names with their values, several where rows differ; what no row says is left out."""
    data = [f"{row['dataset']}: {row['data_hash']}" for row in rows if row.get("data_hash")]
    splits = len(_distinct(rows, "split_hash"))
    seconds, memory = _numbers(rows, "seconds"), _numbers(rows, "peak_memory_mib")
    found = [
        ("identity", [run_identity(rows)]),
        *((name, _distinct(rows, name)) for name in ("model", "revision", "preprocessing", "versions")),
        ("data", list(dict.fromkeys(data))),
        ("seeds", [", ".join(_distinct(rows, "seed"))]),
        ("splits", [f"{splits}, each named by its hash in every row"] if splits else []),
        ("time", [f"{sum(seconds):.0f} s in all runs"] if seconds else []),
        ("peak memory", [f"{max(memory):.0f} MiB"] if memory else []),
    ]
    return [(name, values) for name, values in found if any(values)]


class MethodSettings(NamedTuple):
    """What a method is set to, and what a run of it costs."""

    method: str
    seconds: str
    """Median of a run."""
    memory: str
    """Peak, MiB."""
    selection: list[str]
    """How the epoch was chosen."""
    recipes: list[str]


def about_methods(rows: Sequence[ResultRow]) -> list[MethodSettings]:
    """Settings and cost of every method, in the order first seen."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        seconds, memory = _numbers(own, "seconds"), _numbers(own, "peak_memory_mib")
        found.append(
            MethodSettings(
                method,
                f"{np.median(seconds):.1f}" if seconds else "",
                f"{max(memory):.0f}" if memory else "",
                _distinct(own, "selection"),
                _distinct(own, "recipe"),
            )
        )
    return found


def every_row(rows: Sequence[ResultRow]) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the table of every row: correlations to four digits, the first twelve letters of a hash."""
    return list(_COLUMNS.values()), [[_text(name, row.get(name)) for name in _COLUMNS] for row in rows]


def _text(name: str, value: Any) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:.1f}" if name in ("seconds", "peak_memory_mib") else f"{value:.4f}"
    return str(value)[:12] if name == "split_hash" else str(value)


def _numbers(rows: Sequence[ResultRow], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def _distinct(rows: Sequence[ResultRow], name: str) -> list[str]:
    return list(dict.fromkeys(_told(row[name]) for row in rows if row.get(name) is not None))


def _told(value: Any) -> str:
    """A setting as text: a mapping as "name value, name value"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(inner)}" for name, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value)
