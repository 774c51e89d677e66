"""Numbers with commas and points: which are decimals and which part thousands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from grmp_hf.data.columns import is_absent, shown
from grmp_hf.data.tables import Table
from grmp_hf.errors import GRMPError

__all__ = ["rating_cells", "vote_cells"]


def rating_cells(table: Table, column: str, notes: list[str]) -> Sequence[Any]:
    """Cells of a column of numbers, with points in the place of decimal commas where these can be nothing else.

    Raises:
        GRMPError: "1.234" in all cells where another column has decimal commas: points that may mean thousands.
    """
    cells = table.columns[column]
    first = _first_comma(cells)
    if first is None:
        if _are_thousands(cells) and (other := _column_of_commas(table, column)) is not None:
            raise GRMPError(
                f'{table.where}, column "{shown(column)}": expected to know what its points mean, which would be those '
                f'of thousands beside the decimal commas of column "{shown(other)}"; write one sign for decimals in '
                "both, and none for thousands"
            )
        return cells
    notes.append(f'{table.where}, column "{column}": decimal commas are read as points, "{first}" first')
    return [cell.replace(",", ".") if isinstance(cell, str) else cell for cell in cells]


def _first_comma(cells: Sequence[Any]) -> str | None:
    """The first cell with a comma where all commas of a column are decimal ones beyond doubt."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    commas = [cell for cell in texts if "," in cell]
    decimal = all(re.fullmatch(r"[+-]?[0-9]+,[0-9]+", cell) for cell in commas)
    # "1,000" may be a thousand; "3,50", "0,125" and "1234,567" are not.
    told = any(not re.fullmatch(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}", cell) for cell in commas)
    return commas[0] if decimal and told and not any("." in cell for cell in texts) else None


def vote_cells(table: Table, column: str, notes: list[str]) -> Sequence[Any]:
    """Cells of a column of counts, without the points of thousands where decimals have commas."""
    cells = table.columns[column]
    points = [cell.strip() for cell in cells if isinstance(cell, str) and "." in cell]
    if not _are_thousands(points) or _column_of_commas(table, column) is None:
        return rating_cells(table, column, notes)
    notes.append(f'{table.where}, column "{column}": points are those of thousands, "{points[0]}" first')
    return [cell.replace(".", "") if isinstance(cell, str) else cell for cell in cells]


def _are_thousands(cells: Sequence[Any]) -> bool:
    known = [cell for cell in cells if not is_absent(cell)]
    return bool(known) and all(
        isinstance(cell, str) and re.fullmatch(r"[1-9][0-9]{0,2}(\.[0-9]{3})+", cell.strip()) for cell in known
    )


def _column_of_commas(table: Table, column: str) -> str | None:
    return next((name for name, cells in table.columns.items() if name != column and _first_comma(cells)), None)
