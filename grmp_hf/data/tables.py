"""Plain tables as they lie on disk: CSV and JSON lines, read whole, every cell with the line that it came from."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grmp_hf.data.columns import first_few, is_empty
from grmp_hf.data.files import PICTURE_SUFFIXES
from grmp_hf.errors import GRMPError

__all__ = ["Table", "read_csv", "read_jsonl"]


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        where: how messages call the table.
        columns: name -> cells, as text or as JSON values.
        places: of each row, "line 3" or "row 7".
        folder: beside which the pictures lie; None when they are inside the cells.
    """

    where: str
    columns: dict[str, Sequence[Any]]
    places: Sequence[str]
    folder: Path | None


def read_csv(path: Path) -> Table:
    """Read a table of text with a header.

    The separator (comma, semicolon or tab) is the one that the header has most of; `.tsv` means tab. Encoding is UTF-8,
    with or without a byte order mark. Columns without a name and blank lines are left out.

    Raises:
        GRMPError: other encodings, unbalanced quotes, no rows, repeated column names, lines longer or shorter than the
            header; with the line.
    """
    text = _read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(path, text), strict=True)
    lines: list[int] = []
    records: list[list[str]] = []
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                lines.append(reader.line_num)
                records.append(record)
    except csv.Error as error:
        raise GRMPError(f"{path}, line {reader.line_num}: {error}; check the quotes of that line") from error
    if not records:
        raise GRMPError(f'{path}: expected a header and rows, got an empty file; write "image,mos" and a line for each')
    header = [name.strip() for name in records.pop(0)]
    _check_header(path, header)
    for line, record in zip(lines[1:], records, strict=True):
        if len(record) < len(header) or any(cell.strip() for cell in record[len(header) :]):
            raise GRMPError(
                f"{path}, line {line}: expected {len(header)} fields as in the header, got {len(record)}; "
                "put text that holds the separator in quotes and write numbers with a decimal point"
            )
    if not records:
        raise GRMPError(f"{path}: expected rows below the header, got none; write a line for each picture")
    columns = {name: [record[at].strip() for record in records] for at, name in enumerate(header) if name}
    return Table(str(path), dict(columns), [f"line {line}" for line in lines[1:]], path.parent)


def read_jsonl(path: Path) -> Table:
    """Read a file with one JSON object a line; keys that a line lacks become None.

    Raises:
        GRMPError: other encodings, lines that are not a JSON object or name a key twice, no rows; with the line.
    """
    records: list[dict[str, Any]] = []
    places: list[str] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise GRMPError(f"{path}, line {number}: expected a JSON object, got {error}; correct the line") from error
        if not isinstance(record, dict):
            raise GRMPError(
                f"{path}, line {number}: expected a JSON object, got a {type(record).__name__}; "
                'write {"file_name": "a.jpg", "mos": 3.5} in each line'
            )
        records.append(record)
        places.append(f"line {number}")
    if not records:
        raise GRMPError(f"{path}: expected a JSON object in each line, got an empty file; write a line a picture")
    names = dict.fromkeys(name for record in records for name in record)
    return Table(str(path), {name: [record.get(name) for record in records] for name in names}, places, path.parent)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"a key twice in one object, out of {', '.join(record)}")
    return record


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GRMPError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    fault = content.find(b"\0")  # UTF-16 without its mark is UTF-8 with NUL characters
    if fault < 0:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            fault = error.start
    line = content.count(b"\n", 0, fault) + 1
    raise GRMPError(f"{path}, line {line}: expected UTF-8 text, got other bytes; save the table as UTF-8")


def _separator(path: Path, text: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    return max(",;\t", key=header.count)


def _check_header(path: Path, header: list[str]) -> None:
    repeated = [f'"{name}"' for name in dict.fromkeys(header) if not is_empty(name) and header.count(name) > 1]
    if repeated:
        raise GRMPError(f"{path}: expected each column once, got {first_few(repeated)} more than once; rename one")
    if any(Path(name).suffix.lower() in PICTURE_SUFFIXES for name in header):
        raise GRMPError(
            f"{path}: expected the names of the columns in the first line, got {first_few(header)}; "
            'put a header such as "image,mos" above it'
        )
