"""What a reader gives: labels in the order of their file, and the pictures that lie there."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grmp_hf.data.columns import Row
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.tables import Table
from grmp_hf.errors import GRMPError

__all__ = ["Labels", "check_lengths", "label", "look_up", "with_inner"]


def label(
    name: str,
    mos: float,
    index: int,
    mos_std: float | None = None,
    reference: str | None = None,
    distortion: str | None = None,
    level: str | None = None,
    **more: str | None,
) -> Row:
    """One row of a label file; where its picture lies and its quality are not known yet."""
    said: dict[str, Any] = {**more, "index": index}
    return Row(Path(name), name, mos, math.nan, mos_std, reference, distortion, level, **said)


@dataclass(frozen=True)
class Labels:
    """What a reader has found.

    Attributes:
        file: where the labels come from.
        rows: in the order of the file.
        pictures: of the folders that hold them, by folded name.
        known: folded names of pictures that need no label: originals, pictures for practice.
        scale: of the scores, where it is not the one of the spec.
        notes: what the user should know.
    """

    file: Path
    rows: Sequence[Row]
    pictures: Mapping[str, Path]
    known: Collection[str] = ()
    scale: RatingScale | None = None
    notes: tuple[str, ...] = ()


def check_lengths(file: Path, *columns: Sequence[Any]) -> None:
    """Raise unless vectors that belong together are of one length."""
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise GRMPError(
            f"{file}: expected as many entries here as in the label files beside it, got "
            f"{', '.join(map(str, lengths))}; get the archive again"
        )


def look_up(words: Mapping[str, str], cell: object, table: Table) -> str:
    """Return what a word of a label file stands for, and raise for any other word."""
    word = words.get(str(cell).strip().casefold())
    if word is None:
        raise GRMPError(f'{table.where}: expected one of {", ".join(words)}, got "{cell}"; get the label file again')
    return word


def with_inner(folder: Path) -> list[Path]:
    """Return a folder and the folders in it."""
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
