"""What a benchmark of streams leaves for readers: table, curves, configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grmp_hf.benchmark.store import ResultStore
from grmp_hf.benchmark.stream_config import StreamsConfig
from grmp_hf.benchmark.streams import runs_of
from grmp_hf.evaluation.metrics import Interval
from grmp_hf.evaluation.plots import step_curve
from grmp_hf.evaluation.report import markdown_table
from grmp_hf.evaluation.stream_summary import FIGURES, summarise_streams
from grmp_hf.storing import write_json, writing

__all__ = ["stream_tables", "write_streams"]

_TITLES = {"final": "mean SRCC at the end", "mpsr": "MPSR"}

Row = Mapping[str, Any]


def stream_tables(rows: Sequence[Row], store: ResultStore, reference: str) -> str:
    """Markdown: for each length of streams the figures of each method, and its differences to one of them.

    Args:
        rows: of :class:`~grmp_hf.benchmark.streams.StreamRunner`.
        store: that holds them.
        reference: name of a method.
    """
    sections = []
    for length in sorted({len(row["sets"]) for row in rows}):
        part = [row for row in rows if len(row["sets"]) == length]
        found = summarise_streams(runs_of(part, store), reference)
        streams = len({(row["order"], row["draw"]) for row in part})
        head = ["method", "trained weights", *(_TITLES.get(name, name) for name in FIGURES), "gate", "seconds"]
        lines = [[m, *_about(part, m, [_cell(f["figures"].get(name)) for name in FIGURES])] for m, f in found.items()]
        others = {m: f["minus_reference"] for m, f in found.items() if m != reference}
        minus = [[m, *(_cell(f.get(name), "+.3f") for name in FIGURES)] for m, f in others.items()]
        sections += [
            f"## {length} data sets, {streams} streams",
            "Means over streams [95 % bootstrap interval over test pictures]; gate: share of test pictures nearest to "
            "their own expert; seconds of a stream.",
            markdown_table([head, *lines]),
        ]
        if minus:
            titles = [_TITLES.get(name, name) for name in FIGURES]
            sections += [f"Less {reference}, paired", markdown_table([["method", *titles], *minus])]
    return "\n\n".join(sections)


def write_streams(config: StreamsConfig, store: ResultStore, rows: Sequence[Row], *, folder: Path) -> str:
    """Write ``table.md``, ``curves.svg`` and ``config.json``.

    Args:
        config: what was run.
        store: what was found.
        rows: of this configuration.
        folder: to write to, which holds none of these files.

    Returns:
        The table, in Markdown.
    """
    table = stream_tables(rows, store, config.reference)
    with writing(folder):
        (folder / "table.md").write_text(f"# {config.name}\n\n{table}\n", encoding="utf-8")
        step_curve(_curves(rows), folder / "curves.svg", title=config.name, caption="mean over streams")
    write_json(folder / "config.json", config.public())
    return table


def _curves(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Method -> after how many data sets -> mean SRCC on those that were learnt, over the longest streams."""
    longest = max(len(row["sets"]) for row in rows)
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if len(row["sets"]) == longest:
            values.setdefault(row["method"], {}).setdefault(row["step"] + 1, []).append(row["srcc"])
    return {name: {step: float(np.mean(v)) for step, v in sorted(steps.items())} for name, steps in values.items()}


def _about(rows: Sequence[Row], method: str, cells: Sequence[str]) -> list[str]:
    own = [row for row in rows if row["method"] == method]
    shares = [share for row in own for share in row["gate_accuracy"].values()]
    seconds = {(row["order"], row["draw"]): row["seconds"] for row in own}
    return [
        f"{own[0]['trained_weights']:,}",
        *cells,
        f"{np.mean(shares):.2f}",
        f"{np.mean([*seconds.values()]):.0f}",
    ]


def _cell(found: Interval | None, form: str = ".3f") -> str:
    return "-" if found is None else f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"
