"""The row that every source of ratings becomes, the usual names of its columns, and the checks of the ratings.

| column | type | meaning |
|---|---|---|
| image | `ImageSource` | where the picture is; nothing is decoded before it is asked for |
| name | str | identity of the picture inside the table, as written there |
| mos | float | the rating as published, whatever its direction |
| quality | float in [0, 1] | 1 = best: a fixed affine map of the nominal range, never of the rows at hand |
| mos_std | float or None | deviation of the votes, in units of `mos` |
| reference | str or None | the pristine picture that this one was made from |
| distortion, level, scene | str or None | as written |
| split | str or None | "train", "validation", "test", or as written |
| dataset | str or None | name of the source |
| index | int or None | row of the label file, from 0 |
| votes | float or None | how many ratings `mos` is the mean of |
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.identity import first_copies
from grmp_hf.data.scales import RatingScale
from grmp_hf.errors import GRMPError, printable

__all__ = [
    "BLANKS",
    "IMAGE_NAMES",
    "OPTIONAL_NAMES",
    "RATING_NAMES",
    "SPLIT_WORDS",
    "EmbeddedPicture",
    "ImageSource",
    "RatedTable",
    "Row",
    "column_key",
    "find_column",
    "find_optional",
    "first_few",
    "is_absent",
    "is_empty",
    "shown",
]

_ABSENT = frozenset(("na", "n/a", "nan", "null", "-", "--", "\u2013", "\u2014", "?", "<na>"))
"""Words that stand for an empty cell, in lower case."""

BLANKS = " \t\u00a0"
"""What may stand around a cell. A line break does not: a name may begin or end with one."""

IMAGE_NAMES = (
    *("image", "image_name", "image_path", "file_name", "filename", "file", "file_path", "filepath", "path"),
    *("picture", "photo", "img", "img_name", "img_path", "dist_img", "name"),
)
RATING_NAMES = (
    *("mos", "mean_opinion_score", "score", "rating", "quality", "mos_quality", "target", "stars", "label"),
    *("dmos", "dmos_new"),
)
SPLIT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What a column of parts may say, and the part that it means."""

OPTIONAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "mos_std": ("mos_std", "mos_sd", "dmos_std", "std_quality", "std", "sd", "stddev", "std_dev"),
    "votes": ("votes", "n_votes", "num_votes", "vote_count", "n_ratings", "num_ratings", "rating_count"),
    "reference": ("reference", "reference_image", "ref", "ref_img", "ref_image", "ref_name"),
    "distortion": ("distortion", "distortion_type", "dist_type"),
    "level": ("level", "distortion_level", "dist_level"),
    "scene": ("scene", "subset", "category"),
    "split": ("split", "set", "partition"),
}
"""Usual names of the columns, best first; compared without case, with blanks and hyphens as underscores."""


class EmbeddedPicture(Protocol):
    """A picture inside a data set, fetched when it is asked for."""

    def read(self) -> bytes | Path:
        """Return the encoded picture or the file that holds it."""


ImageSource: TypeAlias = Path | bytes | EmbeddedPicture


@dataclass(frozen=True, slots=True)
class Row:
    """One rated picture; the columns are those of the table at the head of this module."""

    image: ImageSource
    name: str
    mos: float
    quality: float
    mos_std: float | None = None
    reference: str | None = None
    distortion: str | None = None
    level: str | None = None
    scene: str | None = None
    split: str | None = None
    dataset: str | None = None
    index: int | None = None
    votes: float | None = None


@dataclass(frozen=True)
class RatedTable:
    """Rated pictures of one source, in its order, none decoded.

    Attributes:
        name: of the source, without its folder.
        rows: with names that differ.
        scale: of `mos`; quality follows from it.
        notes: what was found and assumed, a sentence each, to be shown to the user.
        content: the column whose value pictures of one content share: "reference", or "scene" where that holds the
            prompt of a generated picture.
        choices: (name, name, share) of each choice between two pictures that the ratings were made of, where they were:
            the share is the first one's, 1, 0, or .5 for a tie.
    """

    name: str
    rows: tuple[Row, ...]
    scale: RatingScale
    notes: tuple[str, ...] = ()
    content: str = "reference"
    choices: tuple[tuple[str, str, float], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"RatedTable({self.name}; {len(self)} pictures; {self.scale})"

    @property
    def quality(self) -> NDArray[np.float64]:
        """(N,) quality of the rows, in [0, 1]."""
        return np.array([row.quality for row in self.rows])

    def has(self, column: str) -> bool:
        """Say whether any row has a value in one of the optional columns."""
        return any(getattr(row, column) is not None for row in self.rows)

    @functools.cached_property
    def copies(self) -> dict[str, str]:
        """Name of a picture -> name of the first one with the same content, for those that are copies (or links)."""
        first = first_copies([row.image for row in self.rows])
        return {
            row.name: self.rows[at].name for row, at in zip(self.rows, first, strict=True) if self.rows[at] is not row
        }

    @property
    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of the names and ratings.

        It is the same on every machine, for every order of the rows and wherever the pictures lie. It does not look at
        the pictures: it says which ratings were used, not whether a picture was changed under its name.
        """
        pairs = sorted([unicodedata.normalize("NFC", row.name), row.mos] for row in self.rows)
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def column_key(name: str) -> str:
    """The name of a column as it is compared: without case, blanks and hyphens as underscores."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def find_column(
    columns: Sequence[str], usual: Sequence[str], *, wanted: str | None, kind: str, remedy: str, where: str
) -> str:
    """Return the column that was asked for, or the first of the usual names that the table has.

    Args:
        columns: names in the table.
        usual: names to look for when none is wanted, best first.
        wanted: the user's own choice.
        kind: word for the message, "picture" or "rating".
        remedy: what a user can do, for the message.
        where: name of the table, for the message.

    Raises:
        GRMPError: no such column, with those found and the nearest spelling.
    """
    by_key = {column_key(column): column for column in reversed(columns)}
    if wanted is not None and wanted in columns:
        return wanted
    for name in usual if wanted is None else [wanted]:
        if column_key(name) in by_key:
            return by_key[column_key(name)]
    found = ", ".join(f'"{shown(column)}"' for column in columns) or "none"
    expected = f'"{wanted}"' if wanted is not None else f"one of {', '.join(usual)}"
    close = difflib.get_close_matches(column_key(wanted or usual[0]), list(by_key), n=1)
    hint = f' (did you mean "{by_key[close[0]]}"?)' if close else ""
    raise GRMPError(f"{where}: expected a {kind} column {expected}, found {found}{hint}; {remedy}")


def find_optional(columns: Sequence[str]) -> dict[str, str]:
    """Return, for each column that a row may have, the table's column of a usual name, where there is one."""
    by_key = {column_key(column): column for column in reversed(columns)}
    matches = {field: [by_key[name] for name in names if name in by_key] for field, names in OPTIONAL_NAMES.items()}
    return {field: found[0] for field, found in matches.items() if found}


def first_few(items: Sequence[str], limit: int = 3) -> str:
    """Join the first items for a message and count the rest.

    Examples:
        >>> first_few(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + rest


def shown(cell: object, limit: int = 100) -> str:
    """A cell as text for a message: on one line, printable, and not longer than the limit.

    Examples:
        >>> shown("a\\0b"), shown("c" * 5000, limit=10)
        ('a\\\\x00b', 'ccccccc...')
    """
    text = printable(str(cell))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def is_empty(cell: object) -> bool:
    """Say whether a cell holds nothing: None or blank text."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def is_absent(cell: object) -> bool:
    """Say whether a cell stands for nothing: empty, NaN, or a word such as "NA"."""
    return is_empty(cell) or cell != cell or (isinstance(cell, str) and cell.strip().casefold() in _ABSENT)
