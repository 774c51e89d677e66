"""Figures of one or several methods as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["figures_table"]

_TITLES = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC after fit",
    "rmse": "RMSE after fit",
}


def figures_table(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """A column a method, a row a metric, each with its interval.

    Args:
        methods: name -> what ``evaluate_scores`` gives.

    >>> print(figures_table({"ours": {"srcc": 0.61, "srcc_interval": [0.57, 0.65]}}))
                    ours
    SRCC            0.610 [0.570, 0.650]
    """
    from grmp_hf.evaluation.report import format_figure

    lines = [["", *methods]]
    for name, title in _TITLES.items():
        if any(name in figures for figures in methods.values()):
            cells = [format_figure(figures[name], figures[f"{name}_interval"]) for figures in methods.values()]
            lines.append([title, *cells])
    widths = [16, *(max(len(line[at]) for line in lines) + 3 for at in range(1, len(lines[0])))]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
