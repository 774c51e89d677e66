"""What a benchmark leaves for readers: table, report, configuration."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from grmp_hf.benchmark.config import BenchmarkConfig
from grmp_hf.benchmark.planning import Cell
from grmp_hf.benchmark.store import ResultStore
from grmp_hf.data import ImageError, decode_row
from grmp_hf.evaluation.comparisons import paired_over_draws
from grmp_hf.evaluation.report import benchmark_table
from grmp_hf.evaluation.report_html import Predictions, write_report
from grmp_hf.storing import write_json, writing

__all__ = ["compare", "write_results"]

_SIDE = 320  # pixels of a thumbnail before the report shrinks it to its own size
Row = Mapping[str, Any]


def compare(rows: Sequence[Row], reference: str | None) -> list[dict[str, Any]]:
    """Paired differences in SRCC between each method and a reference, over the draws that both have.

    A method without shots is compared at every number of shots of the reference.

    Args:
        rows: of a benchmark.
        reference: name of a method; None for no comparison.

    Returns:
        `dataset`, `test_dataset`, `protocol`, `shots`, `method`, `reference`, and the fields of a `Comparison`; nothing
        for a single draw.
    """
    groups: dict[tuple[str, str, str], dict[tuple[str, int], dict[int, float]]] = {}
    for row in rows:
        cells = groups.setdefault((row["dataset"], row["test_dataset"], row["protocol"]), {})
        cells.setdefault((row["method"], row["shots"]), {})[row["draw"]] = row["srcc"]
    found = []
    for (dataset, test_dataset, protocol), cells in groups.items():
        where = {"dataset": dataset, "test_dataset": test_dataset, "protocol": protocol, "reference": reference}
        for (method, shots), theirs in cells.items():
            for (name, ours_shots), ours in cells.items():
                draws = sorted(theirs.keys() & ours.keys())
                if name != reference or method == reference or shots not in (0, ours_shots) or len(draws) < 2:
                    continue
                pairs = [theirs[draw] for draw in draws], [ours[draw] for draw in draws]
                comparison = paired_over_draws(*pairs)._asdict()
                found.append({**where, "method": method, "shots": ours_shots, **comparison})
    return found


def write_results(
    config: BenchmarkConfig,
    store: ResultStore,
    rows: Sequence[Row],
    *,
    folder: Path,
    command: str,
    cells: Iterable[Cell],
    thumbnails: bool,
) -> str:
    """Write ``table.md``, ``report.html`` and ``config.json``.

    Args:
        config: what was run.
        store: what was found.
        rows: of this configuration.
        folder: to write to, which holds none of these files.
        command: what was typed.
        cells: of this configuration, for the pictures.
        thumbnails: show the worst cases; pictures may be private.

    Returns:
        The table, in Markdown.
    """
    comparisons = compare(rows, config.reference)
    table = benchmark_table(rows, comparisons=comparisons)
    with writing(folder):
        (folder / "table.md").write_text(f"# {config.name}\n\n{table}\n", encoding="utf-8")
        write_report(
            folder / "report.html",
            rows,
            title=config.name,
            command=command,
            predictions=lambda row: _said(store, row),
            comparisons=comparisons,
            thumbnails=_thumbnails(cells) if thumbnails else None,
        )
    write_json(folder / "config.json", config.public())
    return table


def _said(store: ResultStore, row: Row) -> Predictions:
    names, scores, mos = store.predictions(row)
    return Predictions(names.tolist(), scores, mos)


def _thumbnails(cells: Iterable[Cell]) -> Callable[[str, str], bytes | None]:
    rows = {(test.table.name, row.name): row for cell in cells for test in cell.tests for row in test.rows}

    def show(dataset: str, name: str) -> bytes | None:
        try:
            picture: Image.Image = decode_row(rows[dataset, name])
        except ImageError:
            return None
        picture.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    return show
