"""Table of `bench_loda.py`: LoDa beside the default learner and zero-shot."""

from __future__ import annotations

from statistics import mean
from typing import Any

__all__ = ["injected"]

_METHODS = {"default": "adapted (`grmp-iqa adapt`)", "loda": "LoDa, small recipe"}


def injected(result: dict[str, Any]) -> list[list[str]]:
    """Mean SRCC over draws with its ends, seconds and trained weights, by number of labels."""
    sizes = sorted({row["labels"] for row in result["rows"]})
    head = [[f"SRCC, {count} labels", f"seconds, {count} labels"] for count in sizes]
    rows = [["LIVE Challenge", *(title for pair in head for title in pair), "trained weights"]]
    for name, title in _METHODS.items():
        cells = []
        for count in sizes:
            found = [row for row in result["rows"] if row["labels"] == count]
            cells += [_ends([row[f"{name}_srcc"] for row in found])]
            cells += [f"{mean(row[f'{name}_seconds'] for row in found):.0f}"]
        rows.append([title, *cells, f"{result['rows'][0][f'{name}_weights']:,}"])
    nothing = [(_ends([row["zero_shot"] for row in result["rows"] if row["labels"] == count]), "") for count in sizes]
    rows.append(["zero-shot, no label", *(cell for pair in nothing for cell in pair), ""])
    return rows


def _ends(values: list[float]) -> str:
    return f"{mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
