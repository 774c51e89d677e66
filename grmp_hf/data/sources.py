"""Ratings from wherever they are: CSV, JSON lines, parquet, a folder, a data set of the Hub -> rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from grmp_hf.data.cells import (
    choose_images,
    choose_ratings,
    gather_votes,
    is_inside,
    match_columns,
    optional_cells,
    picture_names,
)
from grmp_hf.data.columns import RatedTable, Row, first_few, shown
from grmp_hf.data.embedded import load_hub_table, table_from_dataset
from grmp_hf.data.files import PictureFolders, find_pictures
from grmp_hf.data.images import MAX_PIXELS, ImageError, decode_image
from grmp_hf.data.numbers import check_ratings
from grmp_hf.data.parquet import read_parquet
from grmp_hf.data.raters import bring_together, picture_key
from grmp_hf.data.scales import RatingScale, infer_scale
from grmp_hf.data.tables import Table, read_csv, read_jsonl
from grmp_hf.data.text import legacy
from grmp_hf.errors import GRMPError
from grmp_hf.places import check_data

__all__ = ["LABEL_FILES", "decode_row", "iter_images", "open_table", "read_ratings"]

LABEL_FILES = tuple(
    f"{stem}{suffix}" for stem in ("metadata", "labels", "ratings") for suffix in (".csv", ".jsonl", ".tsv")
)
"""The tables that are looked for in a folder, the first one wins."""

_READERS: Mapping[str, Callable[[Path], Table]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), read_csv),
    **dict.fromkeys((".jsonl", ".ndjson"), read_jsonl),
    ".parquet": read_parquet,
}


def read_ratings(
    source: str | os.PathLike[str] | Any,
    *,
    images: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    rating_column: str | None = None,
    split_column: str | None = None,
    raters: str | None = None,
    rater_column: str | None = None,
    rating_columns: Sequence[str] = (),
    scale: RatingScale | tuple[float, float] | None = None,
    higher_is_better: bool | None = None,
    unit: str = "",
    config: str | None = None,
    revision: str | None = None,
    need_pictures: bool = True,
    local_files_only: bool = False,
) -> RatedTable:
    """Read rated pictures; unless told otherwise every picture has been seen to exist, none has been decoded.

    Args:
        source: a table (.csv, .tsv, .txt, .jsonl, .ndjson, .parquet), a folder with one of `LABEL_FILES`, the
            name "owner/name" of a data set of the Hub, or a `datasets.Dataset` or `DatasetDict`.
        images: folder of the pictures. Without it they are looked for beside the table and in a folder `images` there.
            Names are matched without regard to case where the exact name is not found.
        image_column: column of the pictures; else the first of `IMAGE_NAMES` that is there.
        rating_column: column of the ratings; else the first of `RATING_NAMES` that is there.
        split_column: column of the parts; else one of the usual names, where it is there.
        raters: "average" where several rows of one picture are ratings of it, to be brought together into one row with
            their mean, deviation and number; None to refuse such rows.
        rater_column: column that says who has rated; it asks for "average", and takes each rater's own use of the scale
            out first (:func:`~grmp_hf.data.raters.settle`).
        rating_columns: columns of ratings by one rater each, as names or patterns ("rater_*"), in the place of
            `rating_column` and `rater_column`; empty cells are pictures that he has not rated.
        scale: nominal range of the ratings, as (low, high) or with direction and unit as a `RatingScale`; else
            `infer_scale` guesses the range and says so.
        higher_is_better: direction, for anything but a `RatingScale`; up by default, but never guessed for a column of
            DMOS, which rises with quality in some data sets (KADID-10k) and falls in others (LIVE, CSIQ).
        unit: word for the scale, for anything but a `RatingScale`.
        config: configuration of a Hub data set.
        revision: branch, tag or commit of a Hub data set.
        need_pictures: False where the ratings alone are needed: a picture that is not there keeps the path where it was
            looked for first.
        local_files_only: never ask the Hub: what is here and in its cache only.

    Returns:
        The rows in the order of the source, with notes on all that was found and assumed. Rows that repeat a picture
        with the same rating are merged, and a note says so.

    Raises:
        GRMPError: whatever keeps the table from being used, with the lines and what to do.
    """
    table, notes = open_table(source, config=config, revision=revision, local_files_only=local_files_only)
    notes += table.notes
    several = _check_raters(raters, rater_column, rating_column, rating_columns)
    image_column, rated = _choose_columns(table, image_column, rating_column, rating_columns, notes)
    written = picture_names(table, image_column, notes, repeated=several)
    places = [f"{place} ({shown(legacy(name))})" for place, name in zip(table.places, written, strict=True)]
    where = f"{table.where}, column{'s' * (len(rated) > 1)} {_quoted(rated)}"
    votes = gather_votes(table, rated, rater_column, places, notes, wide=bool(rating_columns))
    guessed = scale is None
    if not isinstance(scale, RatingScale):
        _check_direction(rated, higher_is_better, where)
        up = higher_is_better is not False
        scale = _complete_scale(scale, up, unit, votes.values, votes.places, where, notes)
    check_ratings(votes.values, votes.places, where=where, scale=scale)
    pictures, names = find_pictures(
        table, image_column, written, None if images is None else Path(images), need_pictures
    )
    dataset = table.where if table.folder is None else Path(source).resolve().name
    ratings = dict(zip(votes.rows, votes.values, strict=True))
    rows = [
        Row(image=picture, name=name, mos=ratings[at], quality=scale.to_quality(ratings[at]), dataset=dataset)
        for at, (picture, name) in enumerate(zip(pictures, names, strict=True))
    ]
    used = {
        image_column,
        rater_column or image_column,
        *rated,
        *(name for name, cells in table.columns.items() if is_inside(cells)),
    }
    width = math.inf if several else scale.high - scale.low  # single ratings bring their own deviations
    for field, cells in optional_cells(table, used, places, split_column, notes, width).items():
        rows = [replace(row, **{field: cell}) for row, cell in zip(rows, cells, strict=True)]
    if several:
        merged = bring_together(rows, votes, scale, table.where, notes, guessed=guessed)
    else:
        merged = _merge_repeated(rows, places, table.where, notes)
    check_ratings([row.mos for row in merged], [row.name for row in merged], where=where)
    return RatedTable(dataset, merged, scale, tuple(notes))


def open_table(
    source: Any, *, config: str | None = None, revision: str | None = None, local_files_only: bool = False
) -> tuple[Table, list[str]]:
    """Open a table of whatever kind, with notes on the choice.

    Args:
        source, config, revision, local_files_only: as for `read_ratings`.

    Raises:
        GRMPError: there is none, or it cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        return table_from_dataset(source, where="data set"), []
    path = Path(source)
    if path.is_dir():
        return _open_folder(path)
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix not in _READERS:
            raise GRMPError(
                f'{path}: expected a table ending in {" ".join(_READERS)}, got "{suffix}"; rename or convert it'
            )
        return _READERS[suffix](path), []
    check_data(str(source))
    return load_hub_table(str(source), config=config, revision=revision, local_files_only=local_files_only), []


def decode_row(row: Row, *, max_pixels: int = MAX_PIXELS, warn: Callable[[str], None] | None = None) -> Image.Image:
    """Decode the picture of a row to RGB; options are those of `decode_image`.

    Raises:
        ImageError: as `decode_image`; for pictures inside a data set the message names the row.
    """
    source = row.image
    if isinstance(source, Path):
        return decode_image(source, max_pixels=max_pixels, warn=warn)
    try:
        content = source if isinstance(source, bytes) else source.read()
        return decode_image(content, max_pixels=max_pixels, warn=warn)
    except ImageError as error:
        raise ImageError(f"{row.name}: {error}", error.code) from error


def iter_images(rows: Iterable[Row], *, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Row, Image.Image | ImageError]]:
    """Yield each row with its RGB picture, or with the error of a picture that cannot be decoded; one at a time."""
    for row in rows:
        try:
            yield row, decode_row(row, max_pixels=max_pixels)
        except ImageError as error:
            yield row, error


def _open_folder(folder: Path) -> tuple[Table, list[str]]:
    files = PictureFolders([folder])
    found = [path for name in LABEL_FILES if (path := files.find(name)) is not None]
    if not found:
        raise GRMPError(
            f"{folder}: expected one of {', '.join(LABEL_FILES)} in this folder, found none; "
            "name the table itself, and the folder of its pictures with --images DIR"
        )
    others = ", ".join(path.name for path in found[1:])
    notes = [f"{folder}: {found[0].name} is used, not {others}; name the table itself to change this"] if others else []
    return _READERS[found[0].suffix.lower()](found[0]), notes


def _check_raters(
    raters: str | None, rater_column: str | None, rating_column: str | None, rating_columns: Sequence[str]
) -> bool:
    """Say whether several ratings of one picture are to be brought together."""
    if raters not in (None, "average"):
        raise GRMPError(f'--raters: expected "average" or nothing, got "{shown(raters)}"; leave it out to refuse them')
    if rating_columns and (rating_column is not None or rater_column is not None):
        other = "--rating-column" if rater_column is None else "--rater-column"
        raise GRMPError(
            f"expected either columns of one rater each (--rating-columns) or {other}, got both; leave one of them out"
        )
    return raters is not None or rater_column is not None or bool(rating_columns)


def _choose_columns(
    table: Table, images: str | None, ratings: str | None, patterns: Sequence[str], notes: list[str]
) -> tuple[str, list[str]]:
    """The column of the pictures and those of the ratings, with a note on both."""
    images, passed = choose_images(table, images)
    found = f'{table.where}: pictures from column "{shown(images)}"'
    found += f', not "{passed}"; --image-column changes this' if passed else ""
    if patterns:
        rated = match_columns(table, patterns, images, notes)
        notes.append(f"{found}, a rater's ratings each from columns {_quoted(rated)}")
        return images, rated
    rated_in, rivals = choose_ratings(table, ratings)
    found += f', ratings from column "{shown(rated_in)}"'
    notes.append(found + (f", not {_quoted(rivals)}; --rating-column changes this" if rivals else ""))
    return images, [rated_in]


def _check_direction(rated: Sequence[str], higher_is_better: bool | None, where: str) -> None:
    if any("dmos" in column.casefold() for column in rated) and higher_is_better is None:
        raise GRMPError(
            f"{where}: DMOS rises with quality in some data sets and falls in others; "
            "say which with --higher-is-better or --lower-is-better"
        )


def _complete_scale(
    ends: tuple[float, float] | None,
    higher_is_better: bool,
    unit: str,
    ratings: Sequence[float],
    places: Sequence[str],
    where: str,
    notes: list[str],
) -> RatingScale:
    if ends is not None:
        return RatingScale(*ends, higher_is_better, unit)
    check_ratings(ratings, places, where=where)
    try:
        scale, note = infer_scale(ratings, higher_is_better=higher_is_better)
    except GRMPError as error:
        raise GRMPError(f"{where}: {error}") from error
    notes.append(f"{where}: {note}")
    return replace(scale, unit=unit)


def _merge_repeated(rows: Sequence[Row], places: Sequence[str], where: str, notes: list[str]) -> tuple[Row, ...]:
    first: dict[str, Row] = {}
    repeated: list[str] = []
    differing: list[str] = []
    for row, place in zip(rows, places, strict=True):
        kept = first.setdefault(picture_key(row), row)
        if kept is not row:
            same = (kept.mos, kept.split) == (row.mos, row.split)
            (repeated if same else differing).append(f"{row.mos:g} in {place}, {kept.mos:g} before")
    if differing:
        raise GRMPError(
            f"{where}: expected one row a picture, got {len(differing)} repeated with another rating or split: "
            f"{first_few(differing)}; average the votes of a picture into one row, or let "
            "--raters average do it, or --rater-column NAME where a column names the raters"
        )
    if repeated:
        notes.append(f"{where}: {len(repeated)} rows repeat a picture with the same rating and are merged")
    return tuple(first.values())


def _quoted(names: Sequence[str]) -> str:
    return first_few([f'"{shown(name)}"' for name in names])
