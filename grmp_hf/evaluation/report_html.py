"""One HTML file that shows a benchmark: tables, curves, scatter, residuals, worst cases, and what exactly was run.

The file needs nothing else: style and drawings are inside, there are no scripts and no links to anything outside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .cases import SHOTS, Predictions, Thumbnails, show_methods
from .plots import learning_curve
from .provenance import about_methods, about_run, every_row
from .report import METRIC_TITLES, difference_tables, summary_table
from .results import ResultGroup, ResultRow, group_results
from .svg import PAGE_SIZE, inline_svg

__all__ = ["Predictions", "write_report"]

_PROTOCOLS = {
    "clean": "Test ratings are read once, after the last step.",
    "paper": "As the published code does it: test ratings choose the epoch, so these figures are upper bounds.",
}


def write_report(
    path: str | os.PathLike[str],
    rows: Iterable[ResultRow],
    *,
    title: str,
    command: str,
    predictions: Callable[[ResultRow], Predictions],
    comparisons: Sequence[Mapping[str, Any]] = (),
    thumbnails: Thumbnails | None = None,
) -> None:
    """Write the report of a benchmark as one self-contained HTML file. The same rows give the same file.

    For each data set and protocol: the tables of `benchmark_table` for every metric, learning curves, and for each
    method the scatter, the residuals and the worst cases of the draw with its median SRCC at 50 labels (at its largest
    number where it has no 50). Then what was run, and every row.

    Args:
        path: file to write; its folder is made.
        rows: results (see `ResultRow`), as `grmp-iqa benchmark` writes them.
        title: first line.
        command: what was typed, to be typed again.
        predictions: row -> its predictions; called for the rows that are drawn.
        comparisons: as for `benchmark_table`.
        thumbnails: (test data set, name of a picture) -> the picture as JPEG or PNG bytes, or None if there is none to
            show. Shown no larger than 160 pixels and without metadata. Without this, no picture is in the file.

    Raises:
        GRMPError: rows that `group_results` refuses, predictions that do not fit together, a thumbnail that is no
            picture.
    """
    rows = list(rows)
    parts: dict[str, list[ResultGroup]] = {}
    for group in group_results(rows):
        parts.setdefault(group.title, []).append(group)

    def section(group: ResultGroup, name: str) -> dict[str, Any]:
        tables = [summary_table(group, metric) for metric in METRIC_TITLES if group.values(metric)]
        return {
            "protocol": group.protocol,
            "note": _PROTOCOLS.get(group.protocol, ""),
            "table": tables[0],
            "differences": difference_tables(group, comparisons),
            "more_tables": tables[1:],
            "curve": _curve(group, name, _limits(parts[group.title])),
            "methods": show_methods(group, name, predictions, thumbnails),
        }

    template = (files("grmp_hf") / "assets" / "report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = page.from_string(template).render(
        title=title,
        command=command,
        parts=[
            (groups[0], [section(group, f"part-{at}-{index}") for index, group in enumerate(groups, 1)])
            for at, groups in enumerate(parts.values(), 1)
        ],
        shots=SHOTS,
        about=about_run(rows),
        methods=about_methods(rows),
        rows=every_row(rows),
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def _limits(groups: Sequence[ResultGroup]) -> tuple[float, float]:
    """One range of SRCC for the curves of several protocols, which stand side by side."""
    values = [
        v for group in groups for cells in group.values("srcc").values() for found in cells.values() for v in found
    ]
    margin = 0.05 * (max(values) - min(values)) or 0.05
    return min(values) - margin, max(values) + margin


def _curve(group: ResultGroup, name: str, limits: tuple[float, float]) -> Markup:
    figure = learning_curve(group.values("srcc"), size=PAGE_SIZE)
    figure.axes[0].set_ylim(limits)
    labels = ", ".join(map(str, group.shots))
    told = f"SRCC of {len(group.rows)} methods on {group.title} over {labels} labels; the table has the same figures"
    return Markup(inline_svg(figure, f"{name}-curve", told))
