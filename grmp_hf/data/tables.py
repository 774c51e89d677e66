"""Plain tables as they lie on disk: CSV and JSON lines, read whole, every cell with the line that it came from."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from grmp_hf.data.columns import BLANKS, IMAGE_NAMES, RATING_NAMES, column_key, first_few, is_empty, shown
from grmp_hf.data.formats import READABLE
from grmp_hf.data.text import has_odd_bytes, legacy, read_text
from grmp_hf.errors import GRMPError

__all__ = ["Table", "read_csv", "read_jsonl"]

_SEPARATORS = ",;\t|"
_HEAD = 30  # lines among which the header is looked for
_limit = threading.Lock()  # the longest cell is a setting of the whole process


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        where: how messages call the table.
        columns: name -> cells, as text or as JSON values.
        places: of each row, "line 3" or "row 7".
        folder: beside which the pictures lie; None when they are inside the cells.
        notes: what was left out or assumed, a sentence each.
        repeated: names that several columns with different cells have; the first one stands in `columns`.
    """

    where: str
    columns: dict[str, Sequence[Any]]
    places: Sequence[str]
    folder: Path | None
    notes: tuple[str, ...] = ()
    repeated: frozenset[str] = frozenset()


class _Record(NamedTuple):
    """Cells, and the lines on which they begin and end."""

    line: int
    end: int
    cells: list[str]

    @property
    def filled(self) -> int:
        return sum(not is_empty(cell) for cell in self.cells)


def read_csv(path: Path) -> Table:
    """Read a table of text with a header.

    The separator (comma, semicolon, tab or bar) is the one that makes columns; `.tsv` means tab, and a line "sep=;"
    says it. The header is the first line with a usual name for pictures and one for ratings, else the first that has
    columns; titles and comments (#) above it are left out, and so are blank lines, comments that are no rows, and
    columns without a name. Encodings are those of `read_text`.

    Raises:
        GRMPError: unbalanced quotes, no rows, lines longer or shorter than the header, no text; with the line.
    """
    text = read_text(path)
    notes = [f"{path}: not UTF-8: odd bytes are read as Windows-1252"] if has_odd_bytes(text) else []
    told = re.match(r'\s*"?sep=(.)"?[ ,;\t]*(?=[\r\n])', text, re.IGNORECASE)
    separator = told[1] if told else "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    records = _parse(path, text[told.end() :] if told else text, separator)
    if not records:
        raise GRMPError(f'{path}: expected a header and rows, got an empty file; write "image,mos" and a line for each')
    at = _find_header(records)
    header = [
        legacy(name).lstrip("\ufeff").removeprefix("#" if at.commented else "").strip() for name in at.header.cells
    ]
    while header and not header[-1]:
        header.pop()
    _check_header(path, at.header.line, header)
    above = [record.line for record in records[: at.place] if record.filled >= len(header) and _names_picture(record)]
    if above:
        raise GRMPError(
            f"{path}: expected the header above all rows, found it in line {at.header.line} and pictures in "
            f"{first_few([f'line {line}' for line in above])}; move them below it, or into a table of their own"
        )
    rows, left = _split_comments(records[at.place + 1 :], len(header))
    left = [record.line for record in records[: at.place]] + left
    if left:
        notes.append(f"{path}: left out as titles or comments: {first_few([f'line {line}' for line in sorted(left)])}")
    for row in rows:
        _check_row(path, row, header)
    if not rows:
        raise GRMPError(f"{path}: expected rows below the header, got none; write a line for each picture")
    notes += [f"{path}, line {row.line}: a quoted cell runs to line {row.end}" for row in rows if row.end > row.line][
        :3
    ]
    named = [(name, [row.cells[at].strip(BLANKS) for row in rows]) for at, name in enumerate(header) if name]
    columns, repeated = _merge_columns(named)
    places = [f"line {row.line}" for row in rows]
    return Table(str(path), columns, places, path.parent, tuple(notes), repeated)


def read_jsonl(path: Path) -> Table:
    """Read a file with one JSON object a line; keys that a line lacks become None.

    Raises:
        GRMPError: lines that are not a JSON object or name a key twice, no rows, no text; with the line.
    """
    records: list[dict[str, Any]] = []
    places: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
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


def _separator(text: str) -> str:
    """The one with which a header is found among the first lines, else the one that most of them have."""
    lines = [line for line in re.split(r"\r\n|\r|\n", text[: 2**16]) if line.strip()][:_HEAD]
    plain = [re.sub(r'"[^"]*"', "", line) for line in lines]

    def fit(separator: str) -> tuple[bool, int, int]:
        header = any(_is_header([cell.strip(' "#') for cell in line.split(separator)]) for line in lines)
        return header, sum(separator in line for line in plain), sum(line.count(separator) for line in plain)

    return max(_SEPARATORS, key=fit)


def _parse(path: Path, text: str, separator: str) -> list[_Record]:
    """All records that hold anything; comments above them lose their quotes, which balance nothing."""
    records: list[_Record] = []
    lines = (
        line.replace('"', "")
        if line.startswith("#") and all(found.cells[0].startswith("#") for found in records)
        else line
        for line in io.StringIO(text, newline="")
    )
    reader, start = csv.reader(lines, delimiter=separator, strict=True), 1
    with _limit:
        before = csv.field_size_limit(2**31 - 1)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    records.append(_Record(start, reader.line_num, cells))
                start = reader.line_num + 1
        except csv.Error as error:
            unclosed = reader.line_num > start or "end of data" in str(error)
            what = "a quote opens here and is not closed" if unclosed else f"text follows a closing quote ({error})"
            raise GRMPError(f"{path}, line {start}: {what}; check the quotes of that line") from error
        finally:
            csv.field_size_limit(before)
    return records


class _Header(NamedTuple):
    place: int
    header: _Record
    commented: bool


def _find_header(records: Sequence[_Record]) -> _Header:
    commented = [record.cells[0].lstrip().startswith("#") for record in records[:_HEAD]]
    for comments in (False, True):  # "# image,mos" is a header if there is no other
        for at, record in enumerate(records[:_HEAD]):
            cells = [cell.strip().lstrip("#\ufeff").strip() for cell in record.cells]
            if commented[at] == comments and _is_header(cells):
                return _Header(at, record, comments)
    usual = Counter(record.filled for record in records).most_common(1)[0][0]
    plain = [at for at in range(len(commented)) if not commented[at]] or [0]
    at = next((at for at in plain if records[at].filled >= min(2, usual)), plain[0])
    return _Header(at, records[at], False)


def _is_header(cells: Sequence[str]) -> bool:
    keys = {column_key(cell) for cell in cells}
    return bool(keys & set(IMAGE_NAMES)) and bool(keys & set(RATING_NAMES)) and len(cells) > 1


def _names_picture(record: _Record) -> bool:
    """Whether a line is a row, though it stands above the header; comments are none."""
    cells = [cell.strip() for cell in record.cells]
    return not cells[0].startswith("#") and any(Path(cell).suffix.lower() in READABLE for cell in cells)


def _split_comments(records: Sequence[_Record], width: int) -> tuple[list[_Record], list[int]]:
    """Rows, and the lines of comments: what begins with # and a blank, or has fewer cells than a row."""
    rows = [record for record in records if not _is_comment(record, width)]
    kept = {row.line for row in rows}
    return rows, [record.line for record in records if record.line not in kept]


def _is_comment(record: _Record, width: int) -> bool:
    first = record.cells[0].strip()
    words = first.startswith("# ") and Path(first).suffix.lower() not in READABLE
    return words or (first.startswith("#") and record.filled < min(2, width))


def _check_row(path: Path, row: _Record, header: Sequence[str]) -> None:
    if len(row.cells) < len(header) or any(cell.strip() for cell in row.cells[len(header) :]):
        quoted = f" (a quote that opens here closes in line {row.end})" if row.end > row.line else ""
        raise GRMPError(
            f"{path}, line {row.line}: expected {len(header)} fields as in the header, got {len(row.cells)}{quoted}; "
            "put text that holds the separator in quotes and write numbers with a decimal point"
        )


def _merge_columns(named: Sequence[tuple[str, list[str]]]) -> tuple[dict[str, Sequence[Any]], frozenset[str]]:
    """Columns by name; and the names of which there are several that differ."""
    columns: dict[str, Sequence[Any]] = {}
    for name, cells in named:
        columns.setdefault(name, cells)
    return columns, frozenset(name for name, cells in named if list(columns[name]) != cells)


def _check_header(path: Path, line: int, header: Sequence[str]) -> None:
    if any(Path(name).suffix.lower() in READABLE for name in header):
        raise GRMPError(
            f"{path}: expected the names of the columns in line {line}, got {first_few([shown(n) for n in header])}; "
            'put a header such as "image,mos" above it'
        )
    if len(header) == 1 and re.search(r"[^\w.-]", header[0]):
        raise GRMPError(
            f'{path}, line {line}: expected columns separated by comma, semicolon, tab or "|", got one column '
            f'"{shown(header[0])}"; write a comma between them'
        )
