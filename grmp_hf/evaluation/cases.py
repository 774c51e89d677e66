"""A method's predictions as a report shows them: scatter, residuals, and the pictures with the largest residuals."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from grmp_hf.errors import GRMPError

from .arrays import paired_arrays
from .logistic import ENOUGH, fit_logistic
from .plots import residuals, scatter
from .results import ResultGroup, ResultRow
from .svg import PAGE_SIZE, inline_svg

__all__ = ["SHOTS", "Predictions", "ShownMethod", "Thumbnails", "WorstCase", "show_methods"]

SHOTS = 50
"""Predictions are shown at this number of labels, or at the largest of a method that has not got it."""

_WORST = 10  # at most a third of the pictures: of a dozen, ten would be no selection
_THUMBNAIL = 160  # pixels, the longer side

Thumbnails = Callable[[str, str], bytes | None]
"""(test data set, name of a picture) -> the picture as JPEG or PNG, or None."""


class Predictions(NamedTuple):
    """What a method said of the test pictures of one draw."""

    names: Sequence[str]
    """`(n,)`, names of the pictures."""
    scores: npt.ArrayLike
    """`(n,)`, any unit."""
    mos: npt.ArrayLike
    """`(n,)`, ratings as published."""


class WorstCase(NamedTuple):
    """A picture with a large residual."""

    name: str
    prediction: float
    """After the logistic fit, in the unit of the ratings."""
    rating: float
    thumbnail: str | None
    """A data URI."""


class ShownMethod(NamedTuple):
    """A method in one draw, ready for the page."""

    row: ResultRow
    draws: int
    """How many draws there are, of which this has the median SRCC."""
    pictures: int
    few: bool
    """Too few for a fitted curve that is more than a step."""
    scatter: Markup
    residuals: Markup
    worst: list[WorstCase]


def show_methods(
    group: ResultGroup,
    name: str,
    predictions: Callable[[ResultRow], Predictions],
    thumbnails: Thumbnails | None = None,
) -> list[ShownMethod]:
    """Every method of a group in the draw with its median SRCC at `SHOTS` labels, the highest SRCC first.

    Args:
        group: rows of one data set and protocol.
        name: what the ids of its drawings begin with.
        predictions: row -> its predictions.
        thumbnails: see `Thumbnails`.

    Raises:
        GRMPError: predictions that do not fit together, or a thumbnail that is no picture; the message names them.
    """
    chosen = {method: SHOTS if SHOTS in cells else max(cells) for method, cells in group.rows.items()}
    rows = [group.median_row(method, shots) for method, shots in chosen.items()]
    rows.sort(key=lambda row: -float(row["srcc"]))
    return [
        _show(row, len(group.rows[row["method"]][row["shots"]]), f"{name}-{number}", predictions(row), thumbnails)
        for number, row in enumerate(rows, 1)
    ]


def _show(row: ResultRow, draws: int, name: str, said: Predictions, thumbnails: Thumbnails | None) -> ShownMethod:
    dataset, about = row["test_dataset"], f"{row['method']} on {row['test_dataset']}"
    try:
        scores, mos = paired_arrays(said.scores, said.mos)
        if len(said.names) != len(mos):
            raise GRMPError(f"Expected one name a picture, got {len(said.names)} names and {len(mos)} ratings")
    except GRMPError as error:
        raise GRMPError(f"Predictions of {about}, {row['shots']} labels, draw {row['draw']}: {error}") from error
    curve = fit_logistic(scores, mos)
    fitted = curve(scores)
    points = scatter(scores, mos, curve=curve, same_unit=False, size=PAGE_SIZE)
    left = residuals(fitted, mos, size=PAGE_SIZE)
    worst = [
        WorstCase(
            str(said.names[at]), float(fitted[at]), float(mos[at]), _thumbnail(thumbnails, dataset, said.names[at])
        )
        for at in np.argsort(-np.abs(mos - fitted), kind="stable")[: min(_WORST, len(mos) // 3)]
    ]
    return ShownMethod(
        *(row, draws, len(mos), len(mos) < ENOUGH),
        Markup(inline_svg(points, f"{name}-scatter", f"Ratings against scores with the logistic fit, {about}")),
        Markup(inline_svg(left, f"{name}-residuals", f"Residuals against predictions, {about}")),
        worst,
    )


def _thumbnail(thumbnails: Thumbnails | None, dataset: str, name: str) -> str | None:
    """The picture as a small JPEG in a data URI, made from its pixels alone, so that no metadata is handed on."""
    content = thumbnails(dataset, str(name)) if thumbnails else None
    if content is None:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise GRMPError(f"Thumbnail of {str(name)!r} of {dataset}: expected a JPEG or PNG picture; {error}") from error
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(small)).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
