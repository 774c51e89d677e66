"""What rows say of scene and distortion, as columns of labels for a model that tells them apart.

Letters in shapes: n rows, A values of an axis.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.columns import Row, first_few, is_empty, shown
from grmp_hf.data.distortion_types import distortion_type
from grmp_hf.errors import GRMPError

__all__ = ["axis_labels"]


def axis_labels(
    rows: Sequence[Row], axes: Mapping[str, Sequence[str]], wanted: Iterable[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Labels of the axes that rows say something of.

    Args:
        rows: n of them.
        axes: name of an axis -> its values, as a model has them; "level" is passed over.
        wanted: axes that have to be there. None for those that are: of a column in which no name is known, such as
            a scene that holds the prompt of a generated picture, nothing is taken.

    Returns:
        Name -> ``(n, A)``, 1 for what a row shows and 0 for the rest; all 0 where it says nothing. A row may show
        several scenes, "night, cityscape", and one distortion.

    Raises:
        GRMPError: an axis is wanted and no row says anything of it, or a name is unknown or none of the model's values.
    """
    unknown = [name for name in wanted or () if name not in _READERS or name not in axes]
    if unknown:
        had = ", ".join(name for name in axes if name in _READERS) or "none"
        raise GRMPError(
            f"Expected axes out of {had}, which this model tells apart, got {', '.join(unknown)}. Leave it out."
        )
    found = {}
    for name in _READERS if wanted is None else wanted:
        if name in axes:
            column = _column(rows, name, list(axes[name]), demanded=wanted is not None)
            if column is not None:
                found[name] = column
    return found


def _column(rows: Sequence[Row], name: str, values: list[str], *, demanded: bool) -> NDArray[np.float32] | None:
    cells = [(at, row) for at, row in enumerate(rows) if not is_empty(getattr(row, name))]
    if not cells and demanded:
        raise GRMPError(
            f"Expected a column {name!r} that says something of at least one picture, found none. Add it to the table, "
            f"or learn without: leave {name} out."
        )
    labels = np.zeros((len(rows), len(values)), np.float32)
    refused: dict[str, GRMPError] = {}
    for at, row in cells:
        try:
            for value in _READERS[name](row, values):
                labels[at, values.index(value)] = 1
        except GRMPError as error:
            refused.setdefault(str(getattr(row, name)), error)
    if refused and (demanded or labels.any()):
        names = first_few([repr(shown(cell, 40)) for cell in refused])
        raise GRMPError(f"column {name!r}, {names}: {next(iter(refused.values()))}")
    return labels if labels.any() else None


def _scene_values(row: Row, values: Sequence[str]) -> list[str]:
    """The scenes of a row, "night; cityscape" or "Still-life", among the values of an axis.

    Raises:
        GRMPError: an unknown name, with the near ones.
    """
    by_key = {_scene_key(value): value for value in values}
    found = []
    for part in re.split(r"[,;|/+]", str(row.scene)):
        if _scene_key(part) not in by_key:
            close = difflib.get_close_matches(_scene_key(part), by_key, n=3, cutoff=0.5)
            hint = f" (did you mean {' or '.join(repr(by_key[key]) for key in close)}?)" if close else ""
            raise GRMPError(
                f"Expected the name of a scene, got {shown(part.strip())!r}{hint}. Name one or several of "
                f"{', '.join(values)}, or leave the cell empty."
            )
        found.append(by_key[_scene_key(part)])
    return found


def _scene_key(name: str) -> str:
    words = re.sub(r"[\s_-]+", " ", name.strip().casefold()).removesuffix(" scene")
    return words.removesuffix("s")


def _distortion_values(row: Row, values: Sequence[str]) -> list[str]:
    """The distortion of a row among the values of an axis."""
    cell = str(row.distortion)
    if cell in values:
        return [cell]
    kind = distortion_type(cell, row.dataset)
    if kind not in values:
        raise GRMPError(
            f"Expected a distortion out of {', '.join(values)}, got {shown(cell)!r}, which is {kind}. Leave the cell "
            "empty."
        )
    return [kind]


_READERS: Mapping[str, Callable[[Row, Sequence[str]], list[str]]] = {
    "scene": _scene_values,
    "distortion": _distortion_values,
}
"""Name of an axis -> how a row's cell is read."""
