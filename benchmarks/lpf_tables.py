"""Tables of `bench_lpf.py`: a head of two streams beside ridge regression, the default learner and zero-shot."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from world_tables import PHOTOGRAPHS

__all__ = ["two_streams"]

_METHODS = {
    "zero_shot": "zero-shot, no label",
    "ridge": "ridge on the embedding",
    "default": "adapted (`grmp-iqa adapt`)",
    "two_stream": "two streams, after LPF",
    "quality_alone": "- without its auxiliary losses",
}


def two_streams(result: dict[str, Any], world: str) -> list[list[str]]:
    """Mean SRCC over draws with its ends by number of labels, and seconds of a fit, of one set of photographs."""
    rows = [row for row in result["rows"] if row["world"] == world]
    counts = sorted({row["labels"] for row in rows})
    found = [[f"{PHOTOGRAPHS[world]}, SRCC", *(f"{count} labels" for count in counts), "seconds a fit"]]
    for name, method in _METHODS.items():
        own = [row for row in rows if row["method"] == name]
        cells = [_ends([row["srcc"] for row in own if row["labels"] == count]) for count in counts]
        found += [[method, *cells, f"{median(row['seconds'] for row in own):.1f}"]]
    return found


def _ends(values: list[float]) -> str:
    return f"{mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
