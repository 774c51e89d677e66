"""Label files of the published data sets: workbooks, MATLAB matrices, lines of text -> cells with their places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grmp_hf.data.numbers import parse_ratings
from grmp_hf.data.tables import Table, read_csv
from grmp_hf.errors import GRMPError

__all__ = ["cells_of", "numbers_of", "read_lines", "read_matrix", "read_sheet", "read_table"]


def cells_of(table: Table, column: str) -> Sequence[Any]:
    """Return the cells of a column, whose name is compared without case and blanks.

    Raises:
        GRMPError: no such column.
    """
    for name, cells in table.columns.items():
        if _key(name) == _key(column):
            return cells
    found = ", ".join(f'"{name}"' for name in table.columns)
    raise GRMPError(f'{table.where}: expected a column "{column}", found {found}; is this the official label file?')


def numbers_of(table: Table, column: str) -> list[float]:
    """Return the numbers of a column.

    Raises:
        GRMPError: no such column, or cells that are no finite number, with their lines.
    """
    return parse_ratings(cells_of(table, column), table.places, where=f'{table.where}, column "{column}"')


def read_table(path: Path, *, header: str) -> Table:
    """Read a CSV, or the first sheet of a workbook.

    Args:
        path: of the file; its suffix decides.
        header: a column that the head of the sheet has.
    """
    return read_csv(path) if path.suffix.lower() == ".csv" else read_sheet(path, header=header)


def read_sheet(path: Path, *, header: str, sheet: str | None = None) -> Table:
    """Read a sheet of an Excel workbook, whose head may lie below and right of empty cells.

    Args:
        path: of a `.xlsx` (needs openpyxl) or `.xls` (needs xlrd).
        header: a column that the head has; the first row with such a cell is the head.
        sheet: its name; the first one if None.

    Raises:
        GRMPError: the library is not installed, the file cannot be read, no such sheet, no such column, no rows.
    """
    rows = _xls_rows(path, sheet) if path.suffix.lower() == ".xls" else _xlsx_rows(path, sheet)
    at = next((at for at, row in enumerate(rows) if _key(header) in map(_key, row)), None)
    if at is None:
        raise GRMPError(f'{path}: expected a column "{header}", found none; is this the official workbook?')
    filled = [number for number in range(at + 1, len(rows)) if any(cell not in (None, "") for cell in rows[number])]
    if not filled:
        raise GRMPError(f'{path}: expected rows below the column "{header}", found none; get the workbook again')
    columns = {str(name): [rows[number][place] for number in filled] for place, name in enumerate(rows[at]) if name}
    return Table(str(path), dict(columns), [f"row {number + 1}" for number in filled], path.parent)


def read_matrix(path: Path, variable: str) -> list[Any]:
    """Read a vector of numbers, or a cell array of texts, from a MATLAB file.

    Raises:
        GRMPError: the file cannot be read, or has no such variable.
    """
    from scipy.io import loadmat, whosmat

    try:
        values = loadmat(path, variable_names=[variable]).get(variable)
        found = [name for name, _, _ in whosmat(path)]
    except Exception as error:  # damaged files make the reader raise nearly anything
        raise GRMPError(f"{path}: expected a MATLAB file, got ({error}); get the archive again") from error
    if values is None:
        raise GRMPError(f'{path}: expected a variable "{variable}", found {", ".join(found) or "none"}')
    return [_plain(value) for value in np.ravel(values)]


def read_lines(path: Path, pattern: str) -> Table:
    """Read a file without a header whose lines all have one form.

    Args:
        path: of the file; blank lines are left out.
        pattern: regular expression for a whole line, with a named group for each column.

    Raises:
        GRMPError: other lines, or none.
    """
    records: list[dict[str, str]] = []
    places: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        match = re.fullmatch(pattern, line.strip())
        if match is not None:
            records.append(match.groupdict())
            places.append(f"line {number}")
        elif line.strip():
            raise GRMPError(f'{path}, line {number}: expected name and score, got "{line.strip()[:80]}"')
    if not records:
        raise GRMPError(f"{path}: expected a name and a score in each line, got an empty file; get the archive again")
    names = re.compile(pattern).groupindex
    return Table(str(path), {name: [record[name] for record in records] for name in names}, places, path.parent)


def _xlsx_rows(path: Path, sheet: str | None) -> list[list[Any]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise _not_installed(path, "openpyxl") from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a damaged zip or XML inside makes the reader raise nearly anything
        raise GRMPError(f"{path}: expected an Excel workbook, got ({error}); get the archive again") from error
    try:
        name = _choose_sheet(path, book.sheetnames, sheet)
        return [list(row) for row in book[name].iter_rows(values_only=True)]
    finally:
        book.close()


def _xls_rows(path: Path, sheet: str | None) -> list[list[Any]]:
    try:
        import xlrd
    except ImportError as error:
        raise _not_installed(path, "xlrd") from error
    try:
        book = xlrd.open_workbook(path)
    except Exception as error:  # as above
        raise GRMPError(f"{path}: expected an Excel workbook, got ({error}); get the archive again") from error
    page = book.sheet_by_name(_choose_sheet(path, book.sheet_names(), sheet))
    return [page.row_values(number) for number in range(page.nrows)]


def _choose_sheet(path: Path, names: Sequence[str], wanted: str | None) -> str:
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise GRMPError(f'{path}: expected a sheet "{wanted}", found {", ".join(names)}')
    return wanted


def _not_installed(path: Path, package: str) -> GRMPError:
    return GRMPError(
        f"{path}: reading this workbook needs {package}, which is not installed; "
        "install it with: pip install 'grmp_hf[archives]'"
    )


def _plain(value: Any) -> Any:
    """Turn a cell of a cell array into text (an empty one into ""), a number into a float."""
    while isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return str(value) if isinstance(value, str | np.str_) else float(value)


def _key(name: object) -> str:
    return re.sub(r"[\s_]+", "", str(name)).casefold()
