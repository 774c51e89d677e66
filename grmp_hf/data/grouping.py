"""What must stay on one side of a split: versions of one content, and copies of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from grmp_hf.data.columns import RatedTable, Row, first_few, shown
from grmp_hf.errors import GRMPError

__all__ = ["SplitUnit", "about_copies", "check_apart", "first_name", "groups_of", "unit_of"]

SplitUnit = Literal["auto", "picture", "reference", "scene"]
"""What stays on one side: pictures of one reference or scene, or only each picture by itself.

"auto" is `RatedTable.content` where the table has that column, else the picture.
"""


def unit_of(table: RatedTable, by: SplitUnit) -> str:
    """What stays together: "picture" or a column of the rows."""
    if by == "picture" or (by == "auto" and not table.has(table.content)):
        return "picture"
    column = table.content if by == "auto" else by
    if not table.has(column):
        raise GRMPError(f'{table.name}: expected a column "{column}" to split by, found none; split by "picture"')
    return column


def _content(row: Row, unit: str) -> tuple[bool, str]:
    # A picture that is told by itself, or has no reference or scene, is a content of its own.
    value = None if unit == "picture" else getattr(row, unit)
    return (False, row.name) if value is None else (True, value.casefold())


def first_name(table: RatedTable, row: Row) -> str:
    """Name of the first picture with the content of this row's."""
    return table.copies.get(row.name, row.name)


def groups_of(table: RatedTable, by: SplitUnit) -> tuple[list[list[str]], str]:
    """Return the names of the pictures that stay together, in the order of the table, and what keeps them together.

    Copies stay together too: where they have two references, the pictures of both do.
    """
    unit = unit_of(table, by)
    contents = {row.name: _content(row, unit) for row in table.rows}
    joined: dict[tuple[bool, str], tuple[bool, str]] = {}

    def root(name: str) -> tuple[bool, str]:
        content = contents[name]
        while content in joined:
            content = joined[content]
        return content

    for copy, first in table.copies.items():
        if root(copy) != root(first):
            joined[root(copy)] = root(first)
    groups: dict[tuple[bool, str], list[str]] = {}
    for row in table.rows:
        groups.setdefault(root(row.name), []).append(row.name)
    return list(groups.values()), unit


def about_copies(table: RatedTable) -> str:
    """What to add to a rule where one picture has several names."""
    if not table.copies:
        return ""
    mos = {row.name: row.mos for row in table.rows}
    differ = sum(mos[copy] != mos[first] for copy, first in table.copies.items())
    told = f" ({differ} of them rated otherwise)" if differ else ""
    return f"; {len(table.copies)} copies of pictures under other names{told} are never on the other side"


def check_apart(table: RatedTable, train: Sequence[Row], test: Sequence[Row], by: SplitUnit) -> None:
    """Refuse parts that share a picture or a content."""
    unit = unit_of(table, by)
    teachers = {first_name(table, row): row.name for row in train}
    both = [
        f'"{shown(row.name)}" (the same as "{shown(teachers[first])}")'
        for row in test
        if (first := first_name(table, row)) in teachers
    ]
    if both:
        raise GRMPError(
            f"{table.name}: expected each picture in one part of the table, got {len(both)} in the test part that "
            f"teach as well, under another name: {first_few(both)}; remove the lines from one of the parts"
        )
    taught = {_content(row, unit) for row in train}
    shared = dict.fromkeys(content for row in test if (content := _content(row, unit)) in taught)
    if shared:
        names = first_few([f'"{shown(name)}"' for _, name in shared])
        raise GRMPError(
            f"{table.name}: expected each {unit} in one part of the table, got {len(shared)} in the test part that "
            f'teach as well: {names}; correct the column "split" (in Python, by="picture" lets them pass, to compare '
            "with figures that were made so)"
        )
