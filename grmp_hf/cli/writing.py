"""Tables of scores in four formats, written whole or not at all.

Columns: ``path, score, quality, low, high, unlike, status, message, warning, scale, scorer``, and those that a command
adds before ``scale``, such as what explains a score.
The last two stand in every row, so that rows of different runs can be put together and still be
told apart; the whole identity of the scorer lies beside the table as ``<table>.json`` and, for parquet, in the file's
own metadata.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from grmp_hf.errors import GRMPError, printable
from grmp_hf.storing import atomic_path, digest_file, to_json

__all__ = ["COLUMNS", "EXPLAINED", "FORMATS", "SCORES", "about_path", "choose_format", "describe_scorer", "write_table"]

COLUMNS = ("path", "score", "quality", "low", "high", "unlike", "status", "message", "warning", "scale", "scorer")
EXPLAINED = ("distortion", "distortion_probability", "scene", "scene_probability", "explanation")
"""Columns that explain a score, where they are asked for."""
SCORES = "grmp_hf.scores/1"
"""What the file beside a table of ours says that it is."""
FORMATS = ("table", "csv", "jsonl", "parquet")
UNLIKE = "unlike the rated pictures"
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "table"}
_ROW_GROUP = 10_000

Row = Mapping[str, Any]


def choose_format(wanted: str | None, output: Path | None) -> str:
    """The format asked for, else that of the file's suffix, else a table for reading.

    Raises:
        GRMPError: an unknown suffix, or parquet without a file.
    """
    if wanted == "parquet" and output is None:
        raise GRMPError("--format parquet: expected a file to write to, got none; add --output FILE.parquet")
    if wanted is not None or output is None:
        return wanted or "table"
    if output.suffix.lower() not in _SUFFIXES:
        known = " ".join(_SUFFIXES)
        raise GRMPError(f"--output {output}: expected a name ending in {known}, or --format; the format is not clear")
    return _SUFFIXES[output.suffix.lower()]


def describe_scorer(identity: Mapping[str, Any]) -> str:
    """Model, revision and adapter in one cell.

    >>> describe_scorer({"model": "owner/clip", "revision": "0a1b2c3d", "adapter": "mine", "adapter_sha256": "9f" * 32})
    'owner/clip@0a1b2c3d + mine@9f9f9f9f9f9f'
    """
    base = f"{identity['model']}@{identity['revision']}"
    return f"{base} + {identity['adapter']}@{identity['adapter_sha256'][:12]}" if identity.get("adapter") else base


def about_path(output: Path) -> Path:
    """The file beside a table that says what exactly scored."""
    return output.with_name(f"{output.name}.json")


def write_table(
    rows: Iterable[Row],
    kind: str,
    output: Path | None,
    about: Mapping[str, Any],
    columns: tuple[str, ...] = COLUMNS,
    via: Path | None = None,
    run: str | None = None,
    check: Callable[[], object] | None = None,
) -> None:
    """Write rows as they come to a file, or to stdout where ``output`` is None.

    Args:
        rows: with the keys ``columns``; others are left out.
        kind: one of ``FORMATS``.
        output: takes its place when all rows are written.
        about: scale, identity and counts; goes beside a file, and in front of a table.
        columns: in their order.
        via: the path under which the file is written until it is whole, and the start of that of the one beside it; see
            `atomic_path`.
        run: of whose rows; goes beside a file.
        check: called when all is written and nothing is replaced yet; may raise.
    """
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper) and kind != "table":  # what a file would hold, names' bytes too
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        _TEXT_WRITERS[kind](rows, sys.stdout, about, columns)
        return
    beside = about_path(output)
    with atomic_path(output, via) as temporary, atomic_path(beside, via and about_path(via)) as description:
        if kind == "parquet":
            _write_parquet(rows, temporary, about, columns)
        else:
            with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                _TEXT_WRITERS[kind](rows, file, about, columns)
        whole = {"schema": SCORES, **about, **({"run": run} if run else {}), "sha256": digest_file(temporary)}
        description.write_text(to_json(whole), encoding="utf-8")
        if check is not None:
            check()
        output.unlink(missing_ok=True)  # now that all is written: what lies beside a table is of that table


def _write_csv(rows: Iterable[Row], file: TextIO, about: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    options: dict[str, Any] = {"lineterminator": "\n", "extrasaction": "ignore"}
    writer, quoted = (
        csv.DictWriter(file, columns, **options),
        csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL, **options),
    )
    writer.writeheader()
    for row in rows:  # the library quotes what ends its own lines, but a reader may take \r for an end as well
        (quoted if any("\r" in str(cell) for cell in row.values()) else writer).writerow(_plain(row))


def _plain(row: Row) -> dict[str, Any]:
    """A row whose mappings, such as weights of experts by name, are JSON in one cell."""
    return {name: json.dumps(cell) if isinstance(cell, dict) else cell for name, cell in row.items()}


def _write_jsonl(rows: Iterable[Row], file: TextIO, about: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    for row in rows:
        file.write(json.dumps({name: row[name] for name in columns}) + "\n")


def _write_plain(rows: Iterable[Row], file: TextIO, about: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    head = f"scores from {about['scale']}, quality from 0 (worst) to 1 (best), by {about['scorer']}"
    file.write(f"# {printable(head)}\n")
    places = _places(about)
    file.write(f"{'score':>10} {'quality':>8} {'interval':>17}  {'status':<8} path\n")
    for row in rows:
        numbers = (
            " " * 16 + "-" + " " * 2 if row["score"] is None else f"{row['score']:>10.{places}f} {row['quality']:>8.4f}"
        )
        known = row.get("low") is not None
        numbers = f"{numbers:<19} {row['low']:>8.{places}f} {row['high']:>8.{places}f}" if known else f"{numbers:<37}"
        said = row["message"] or row["warning"] or (UNLIKE if row.get("unlike") else "")
        said = "; ".join(part for part in (row.get("explanation"), _shares(row), said) if part)
        message = f"  # {printable(said)}" if said else ""
        file.write(f"{numbers}  {row['status']:<8} {printable(row['path'])}{message}\n")


def _places(about: Mapping[str, Any]) -> int:
    """Digits after the point in a table to read: four, more where the scale is short."""
    from grmp_hf.data.scales import RatingScale

    return RatingScale.from_dict(about["rating_scale"]).places - 2 if "rating_scale" in about else 4


def _shares(row: Row) -> str:
    """Which experts have judged a picture, the one that counted most first; those under .005 are left out."""
    shares = sorted((row.get("experts") or {}).items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {share:.2f}" for name, share in shares if share >= 0.005)


_TEXT_WRITERS: dict[str, Callable[[Iterable[Row], TextIO, Mapping[str, Any], tuple[str, ...]], None]] = {
    "table": _write_plain,
    "csv": _write_csv,
    "jsonl": _write_jsonl,
}


def _write_parquet(rows: Iterable[Row], path: Path, about: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    import pyarrow
    import pyarrow.parquet

    explained = ("experts", "distortion", "scene", "explanation")
    texts = ("path", "status", "message", "warning", "scale", "scorer", *explained)
    kinds = dict.fromkeys(texts, pyarrow.string())
    kinds["unlike"] = pyarrow.bool_()
    fields = [(name, kinds.get(name, pyarrow.float64())) for name in columns]
    schema = pyarrow.schema(fields, metadata={"grmp_hf": json.dumps(about)})
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            clean = _plain(row)
            clean |= {n: v.encode("utf-8", "backslashreplace").decode() for n, v in clean.items() if isinstance(v, str)}
            group.append(clean)
            if len(group) == _ROW_GROUP:
                writer.write_table(pyarrow.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
