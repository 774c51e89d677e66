"""Markdown tables of figures with their intervals, and of a benchmark's rows with their median and worst draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .results import ResultGroup, ResultRow, Summary, best_of, group_results

__all__ = [
    "METRIC_TITLES",
    "Cell",
    "Table",
    "benchmark_table",
    "difference_tables",
    "format_figure",
    "metrics_table",
    "summary_table",
]

METRIC_TITLES = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC after fit",
    "rmse": "RMSE after fit",
}
"""Name of a metric in rows and figures -> the word for it in a table."""

_TITLES = {"n": "pictures", **METRIC_TITLES}
_MISSING = "\N{EN DASH}"


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
        lines.append([method, *cells])
    return markdown_table(lines)


def benchmark_table(
    rows: Iterable[ResultRow],
    *,
    metrics: Sequence[str] = ("srcc",),
    comparisons: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Markdown tables of a benchmark: a section a data set and protocol, a line a method, a column a number of labels.

    Cells are `median [worst, best]` over draws, the best median of several in a column bold; what was not run is a
    dash. Groups, methods and references stand in the order first seen.

    Args:
        rows: results (see `ResultRow`), as `grmp-iqa benchmark` writes them.
        metrics: a table for each.
        comparisons: paired differences to a reference method in SRCC, each with `dataset`, `test_dataset`, `protocol`,
            `shots`, `method`, `reference` and `difference`, `low`, `high` of a `Comparison`.

    Raises:
        GRMPError: rows that `group_results` refuses.

    >>> row = {"dataset": "livec", "test_dataset": "livec", "protocol": "clean", "draw": 0}
    >>> rows = [{**row, "method": "zero-shot", "shots": 0, "srcc": 0.5}]
    >>> rows += [{**row, "method": "ridge", "shots": 20, "draw": draw, "srcc": 0.6 + draw / 10} for draw in range(3)]
    >>> print(benchmark_table(rows))
    ## livec, protocol `clean`
    <BLANKLINE>
    SRCC: median [worst, best] of 3 draws
    <BLANKLINE>
    | method | no labels | 20 labels |
    |---|---|---|
    | zero-shot | 0.500 | – |
    | ridge | – | 0.700 [0.600, 0.800] |
    """
    sections = []
    for group in group_results(rows):
        sections.append(f"## {group.title}, protocol `{group.protocol}`")
        for table in [summary_table(group, metric) for metric in metrics] + difference_tables(group, comparisons):
            lines = [["method", *table.columns]]
            lines += [[method, *map(_cell_text, cells)] for method, cells in table.lines.items()]
            sections += [table.caption, markdown_table(lines)]
    return "\n\n".join(sections)


class Cell(NamedTuple):
    """A figure as text, what stands beside it (such as its range), and whether it is the best of its column."""

    value: str
    beside: tuple[str, ...] = ()
    best: bool = False


class Table(NamedTuple):
    """A table as text, for Markdown and HTML alike: `lines` is method -> a cell a column."""

    caption: str
    columns: list[str]
    lines: dict[str, list[Cell]]


def summary_table(group: ResultGroup, metric: str) -> Table:
    """A metric as `median [worst, best]` over draws, the best median of several in a column marked.

    A cell says how many draws it has where they are fewer than the group's; a method without labels may need one only.
    """
    summaries, shots = group.summaries(metric), group.shots
    medians = {labels: [cells[labels].median for cells in summaries.values() if labels in cells] for labels in shots}
    leading = {labels: f"{best_of(metric)(found):.3f}" for labels, found in medians.items() if len(found) > 1}

    def cell(labels: int, summary: Summary | None) -> Cell:
        if summary is None:
            return Cell(_MISSING)
        spread = f"[{summary.worst:.3f}, {summary.best:.3f}]" if summary.draws > 1 else ""
        fewer = f"({summary.draws} draw{'s' * (summary.draws > 1)})" if labels and summary.draws < group.draws else ""
        value = f"{summary.median:.3f}"
        return Cell(value, tuple(filter(None, (spread, fewer))), value == leading.get(labels))

    cells = "one draw" if group.draws == 1 else f"median [worst, best] of {group.draws} draws"
    return Table(
        f"{METRIC_TITLES[metric]}: {cells}",
        [_labels_text(labels) for labels in shots],
        {method: [cell(labels, found.get(labels)) for labels in shots] for method, found in summaries.items()},
    )


def difference_tables(group: ResultGroup, comparisons: Iterable[Mapping[str, Any]]) -> list[Table]:
    """The group's paired differences to a reference method in SRCC, a table a reference."""
    found: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
    for comparison in comparisons:
        if (comparison["dataset"], comparison["test_dataset"], comparison["protocol"]) == group.key:
            methods = found.setdefault(comparison["reference"], {})
            methods.setdefault(comparison["method"], {})[comparison["shots"]] = comparison
    tables = []
    for reference, methods in found.items():
        shots = sorted({labels for cells in methods.values() for labels in cells})
        caption = f"SRCC less that of {reference} in the same draw: mean [low, high] (draws in which it is higher)"
        lines = {m: [_difference_cell(group, cells.get(labels)) for labels in shots] for m, cells in methods.items()}
        tables.append(Table(caption, [_labels_text(labels) for labels in shots], lines))
    return tables


def _difference_cell(group: ResultGroup, comparison: Mapping[str, Any] | None) -> Cell:
    if comparison is None:
        return Cell(_MISSING)
    first, second = (group.by_draw(comparison[name], comparison["shots"]) for name in ("method", "reference"))
    draws = first.keys() & second.keys()
    higher = sum(first[draw] > second[draw] for draw in draws)
    interval = f"[{comparison['low']:.3f}, {comparison['high']:.3f}]"
    return Cell(f"{comparison['difference']:+.3f}", (interval, f"({higher} of {len(draws)})"))


def _labels_text(shots: int) -> str:
    return f"{shots or 'no'} label{'s' * (shots != 1)}"


def _cell_text(cell: Cell) -> str:
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} {' '.join(cell.beside)}".rstrip()


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first line is its head."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    table = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in escaped]
    return "\n".join([table[0], "|" + "---|" * len(lines[0]), *table[1:]])
