"""Markdown tables of figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["format_figure", "metrics_table"]

_TITLES = {
    "n": "pictures",
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC after fit",
    "rmse": "RMSE after fit",
}


def format_figure(value: float, interval: Sequence[float] | None = None, digits: int = 3) -> str:
    """A figure with its interval.

    >>> format_figure(0.61234, [0.5701, 0.6502])
    '0.612 [0.570, 0.650]'
    >>> format_figure(750)
    '750'
    """
    if isinstance(value, int):
        return str(value)
    text = f"{value:.{digits}f}"
    return text if interval is None else f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def metrics_table(rows: Mapping[str, Mapping[str, Any]], digits: int = 3) -> str:
    """Markdown table with a row a method and a column a metric; a metric that a method lacks is a dash.

    Args:
        rows: name of the method -> figures as `evaluate_scores` returns them.
        digits: after the decimal point.

    >>> ours = {"n": 750, "srcc": 0.61, "srcc_interval": [0.57, 0.65]}
    >>> print(metrics_table({"ours": ours, "ridge": {"srcc": 0.59}}, digits=2))
    | | pictures | SRCC |
    |---|---|---|
    | ours | 750 | 0.61 [0.57, 0.65] |
    | ridge | - | 0.59 |
    """
    columns = [name for name in _TITLES if any(name in figures for figures in rows.values())]
    lines = [["", *(_TITLES[name] for name in columns)]]
    for method, figures in rows.items():
        cells = [
            format_figure(figures[name], figures.get(f"{name}_interval"), digits) if name in figures else "-"
            for name in columns
        ]
        lines.append([method.replace("|", "\\|"), *cells])
    table = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]
    return "\n".join([table[0], "|" + "---|" * (len(columns) + 1), *table[1:]])
