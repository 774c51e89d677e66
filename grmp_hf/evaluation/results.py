"""Rows of a benchmark gathered into what a table or a curve shows: methods, numbers of labels, draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from grmp_hf.errors import GRMPError

__all__ = ["ResultGroup", "ResultRow", "Summary", "best_of", "group_results"]

ResultRow = Mapping[str, Any]
"""One line of `results.jsonl`: what was run (`dataset`, `test_dataset`, `protocol`, `method`, `shots`, `draw`, ...) and
its figures (`srcc`, `krcc`, `plcc`, `plcc_logistic`, `rmse`)."""

_KEY = ("dataset", "test_dataset", "protocol", "method", "shots", "draw")


class Summary(NamedTuple):
    """A figure over draws: its median, the worst and the best draw, and how many there are."""

    median: float
    worst: float
    best: float
    draws: int


@dataclass(frozen=True)
class ResultGroup:
    """The rows of one data set, tested on one data set, under one protocol: method -> number of labels -> draws."""

    dataset: str
    test_dataset: str
    protocol: str
    rows: dict[str, dict[int, list[ResultRow]]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells this group from others: data set, test data set, protocol."""
        return self.dataset, self.test_dataset, self.protocol

    @property
    def title(self) -> str:
        """The data set, or both where the test pictures come from another: "livec", "livec → koniq10k"."""
        return self.dataset if self.dataset == self.test_dataset else f"{self.dataset} → {self.test_dataset}"

    @property
    def shots(self) -> list[int]:
        """Every number of labels that any method has, ascending; 0 stands for methods that need none."""
        return sorted({shots for cells in self.rows.values() for shots in cells})

    @property
    def draws(self) -> int:
        """How many draws the fullest cell has."""
        return max(len(draws) for cells in self.rows.values() for draws in cells.values())

    def values(self, metric: str) -> dict[str, dict[int, list[float]]]:
        """The metric in every draw: method -> number of labels -> values. What has none is left out."""
        found = {
            method: {
                shots: [float(row[metric]) for row in draws if row.get(metric) is not None]
                for shots, draws in sorted(cells.items())
            }
            for method, cells in self.rows.items()
        }
        kept = {method: {shots: v for shots, v in cells.items() if v} for method, cells in found.items()}
        return {method: cells for method, cells in kept.items() if cells}

    def summaries(self, metric: str) -> dict[str, dict[int, Summary]]:
        """Median, worst and best draw of the metric: method -> number of labels -> summary."""
        best = best_of(metric)
        worst = max if best is min else min
        return {
            method: {
                shots: Summary(float(np.median(values)), worst(values), best(values), len(values))
                for shots, values in cells.items()
            }
            for method, cells in self.values(metric).items()
        }

    def by_draw(self, method: str, shots: int) -> dict[int, float]:
        """SRCC of a method at a number of labels: draw -> value; one without labels has the same at every number."""
        cells = self.rows.get(method, {})
        return {row["draw"]: float(row["srcc"]) for row in cells.get(shots, cells.get(0, []))}

    def median_row(self, method: str, shots: int) -> ResultRow:
        """The row of the draw with the median SRCC; the lower of the two in the middle."""
        ordered = sorted(self.rows[method][shots], key=lambda row: float(row["srcc"]))
        return ordered[(len(ordered) - 1) // 2]


def best_of(metric: str) -> Callable[[Iterable[float]], float]:
    """The function that picks the best of several values of a metric: `min` for RMSE, `max` for a correlation."""
    return min if metric == "rmse" else max


def group_results(rows: Iterable[ResultRow]) -> list[ResultGroup]:
    """Gather rows by data set, test data set and protocol; groups and their methods in the order first seen.

    Raises:
        GRMPError: no rows, a row without one of the keys or without SRCC, the same draw twice.

    >>> row = {"dataset": "livec", "test_dataset": "livec", "protocol": "clean", "method": "ridge", "shots": 20}
    >>> group, = group_results({**row, "draw": draw, "srcc": srcc} for draw, srcc in enumerate((0.5, 0.7, 0.6)))
    >>> group.summaries("srcc")["ridge"][20]
    Summary(median=0.6, worst=0.5, best=0.7, draws=3)
    """
    groups: dict[tuple[str, str, str], ResultGroup] = {}
    seen = set()
    for number, row in enumerate(rows, 1):
        lacking = [name for name in (*_KEY, "srcc") if row.get(name) is None]
        if lacking:
            raise GRMPError(
                f"Result row {number}: expected a value for {', '.join(lacking)}, got none; "
                "give rows as `grmp-iqa benchmark` writes them"
            )
        key = tuple(row[name] for name in _KEY)
        if key in seen:
            told = ", ".join(f"{name} {value}" for name, value in zip(_KEY, key, strict=True))
            raise GRMPError(f"Result row {number}: expected each draw once, got {told} again; keep one of the two")
        seen.add(key)
        group = groups.setdefault(key[:3], ResultGroup(*key[:3]))
        group.rows.setdefault(row["method"], {}).setdefault(int(row["shots"]), []).append(row)
    if not groups:
        raise GRMPError("Expected the rows of a benchmark, got none; run at least one method first")
    return list(groups.values())
