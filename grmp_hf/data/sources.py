"""Ratings from wherever they are: CSV, JSON lines, parquet, a folder, a data set of the Hub -> rows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from grmp_hf.data.columns import (
    IMAGE_NAMES,
    RATING_NAMES,
    RatedTable,
    Row,
    check_ratings,
    find_column,
    find_optional,
    first_few,
    is_empty,
    parse_ratings,
    shown,
)
from grmp_hf.data.embedded import DatasetPicture, load_hub_table, read_parquet, table_from_dataset
from grmp_hf.data.files import PictureFolders
from grmp_hf.data.images import MAX_PIXELS, ImageError, decode_image
from grmp_hf.data.scales import RatingScale, infer_scale
from grmp_hf.data.tables import Table, read_csv, read_jsonl
from grmp_hf.errors import GRMPError

__all__ = ["LABEL_FILES", "decode_row", "iter_images", "read_ratings"]

LABEL_FILES = tuple(
    f"{stem}{suffix}" for stem in ("metadata", "labels", "ratings") for suffix in (".csv", ".jsonl", ".tsv")
)
"""The tables that are looked for in a folder, the first one wins."""

_READERS: Mapping[str, Callable[[Path], Table]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), read_csv),
    **dict.fromkeys((".jsonl", ".ndjson"), read_jsonl),
    ".parquet": read_parquet,
}

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_ratings(
    source: str | os.PathLike[str] | Any,
    *,
    images: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    rating_column: str | None = None,
    split_column: str | None = None,
    scale: RatingScale | tuple[float, float] | None = None,
    higher_is_better: bool | None = None,
    unit: str = "",
    config: str | None = None,
    revision: str | None = None,
) -> RatedTable:
    """Read rated pictures; every picture has been seen to exist, none has been decoded.

    Args:
        source: a table (.csv, .tsv, .txt, .jsonl, .ndjson, .parquet), a folder with one of `LABEL_FILES`, the
            name "owner/name" of a data set of the Hub, or a `datasets.Dataset` or `DatasetDict`.
        images: folder of the pictures. Without it they are looked for beside the table and in a folder `images` there.
            Names are matched without regard to case where the exact name is not found.
        image_column: column of the pictures; else the first of `IMAGE_NAMES` that is there.
        rating_column: column of the ratings; else the first of `RATING_NAMES` that is there.
        split_column: column of the parts; else one of the usual names, where it is there.
        scale: nominal range of the ratings, as (low, high) or with direction and unit as a `RatingScale`; else
            `infer_scale` guesses the range and says so.
        higher_is_better: direction, for anything but a `RatingScale`; up by default, but never guessed for a column of
            DMOS, which rises with quality in some data sets (KADID-10k) and falls in others (LIVE, CSIQ).
        unit: word for the scale, for anything but a `RatingScale`.
        config: configuration of a Hub data set.
        revision: branch, tag or commit of a Hub data set.

    Returns:
        The rows in the order of the source, with notes on all that was found and assumed. Rows that repeat a picture
        with the same rating are merged, and a note says so.

    Raises:
        GRMPError: whatever keeps the table from being used, with the lines and what to do.
    """
    table, notes = _open_table(source, config=config, revision=revision)
    columns = list(table.columns)
    inside = [name for name, cells in table.columns.items() if isinstance(cells[0], DatasetPicture)]
    image_column = find_column(
        columns,
        [*inside, *IMAGE_NAMES],
        wanted=image_column,
        kind="picture",
        option="--image-column",
        where=table.where,
    )
    rating_column = find_column(
        columns, RATING_NAMES, wanted=rating_column, kind="rating", option="--rating-column", where=table.where
    )
    rivals = [f'"{name}"' for name in columns if name.casefold() in RATING_NAMES and name != rating_column]
    notes.append(
        f'{table.where}: pictures from column "{image_column}", ratings from column "{rating_column}"'
        + (f", not {first_few(rivals)}; --rating-column changes this" if rivals else "")
    )
    names = _picture_names(table, image_column, notes)
    places = [f"{place} ({shown(name)})" for place, name in zip(table.places, names, strict=True)]
    where = f'{table.where}, column "{rating_column}"'
    ratings = parse_ratings(table.columns[rating_column], places, where=where)
    if not isinstance(scale, RatingScale):
        _check_direction(rating_column, higher_is_better, where)
        scale = _complete_scale(scale, higher_is_better is not False, unit, ratings, places, where, notes)
    check_ratings(ratings, places, where=where, scale=scale)
    pictures = _find_pictures(table, image_column, None if images is None else Path(images))
    dataset = table.where if table.folder is None else Path(source).resolve().name
    rows = [
        Row(image=picture, name=name, mos=mos, quality=scale.to_quality(mos), dataset=dataset)
        for picture, name, mos in zip(pictures, names, ratings, strict=True)
    ]
    used = {image_column, rating_column, *inside}
    others = {name: cells for name, cells in table.columns.items() if name not in used}
    for field, cells in _optional_cells(others, places, split_column, table.where, notes).items():
        rows = [replace(row, **{field: cell}) for row, cell in zip(rows, cells, strict=True)]
    merged = _merge_repeated(rows, places, table.where, notes)
    check_ratings([row.mos for row in merged], [row.name for row in merged], where=where)
    return RatedTable(dataset, merged, scale, tuple(notes))


def decode_row(row: Row, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the picture of a row to RGB.

    Raises:
        ImageError: as `decode_image`; for pictures inside a data set the message names the row.
    """
    source = row.image
    if isinstance(source, Path):
        return decode_image(source, max_pixels=max_pixels)
    try:
        return decode_image(source if isinstance(source, bytes) else source.read(), max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{row.name}: {error}", error.code) from error


def iter_images(rows: Iterable[Row], *, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Row, Image.Image | ImageError]]:
    """Yield each row with its RGB picture, or with the error of a picture that cannot be decoded; one at a time."""
    for row in rows:
        try:
            yield row, decode_row(row, max_pixels=max_pixels)
        except ImageError as error:
            yield row, error


def _open_table(source: Any, *, config: str | None, revision: str | None) -> tuple[Table, list[str]]:
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
    if suffix not in _READERS and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)):
        return load_hub_table(str(source), config=config, revision=revision), []
    raise GRMPError(f"{path}: no such file or folder; check the path (data sets of the Hub are named owner/name)")


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


def _picture_names(table: Table, image_column: str, notes: list[str]) -> list[str]:
    cells = table.columns[image_column]
    empty = [place for cell, place in zip(cells, table.places, strict=True) if is_empty(cell)]
    if empty:
        raise GRMPError(
            f'{table.where}, column "{image_column}": expected a picture in each row, got {len(empty)} without: '
            f"{first_few(empty)}; name the pictures or remove the lines"
        )
    if not isinstance(cells[0], DatasetPicture):
        return [str(cell).strip() for cell in cells]
    for column in [column for column in table.columns if column != image_column and column.casefold() in IMAGE_NAMES]:
        names = [str(cell) for cell in table.columns[column]]
        if len(set(names)) == len(names):
            return names
        notes.append(
            f'{table.where}: column "{column}" gives some pictures the same name, so rows go by their number; '
            "whether one picture is in two parts is not known"
        )
    return list(table.places)


def _check_direction(rating_column: str, higher_is_better: bool | None, where: str) -> None:
    if "dmos" in rating_column.casefold() and higher_is_better is None:
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


def _find_pictures(table: Table, image_column: str, images: Path | None) -> Sequence[Any]:
    cells = table.columns[image_column]
    if isinstance(cells[0], DatasetPicture):
        return cells
    if images is not None and not images.is_dir():
        raise GRMPError(f"{images}: expected the folder of the pictures, found none; check --images")
    beside = Path() if table.folder is None else table.folder
    inner = sorted(path for path in beside.iterdir() if path.name.casefold() == "images" and path.is_dir())
    roots = [images] if images is not None else [beside, *inner]
    folders = PictureFolders(roots)
    pictures = [folders.find(str(cell).strip()) for cell in cells]
    missing = [
        f'"{shown(cell)}" ({place})'
        for cell, place, picture in zip(cells, table.places, pictures, strict=True)
        if picture is None
    ]
    if missing:
        looked_in = ", ".join(str(root) for root in roots)
        raise GRMPError(
            f"{table.where}: {len(missing)} of {len(cells)} pictures not found in {looked_in}: "
            f"{first_few(missing)}; give their folder with --images DIR, or remove the lines"
        )
    return pictures


def _optional_cells(
    columns: dict[str, Sequence[Any]], places: Sequence[str], split_column: str | None, where: str, notes: list[str]
) -> dict[str, list[Any]]:
    chosen = find_optional(list(columns))
    if split_column is not None:
        chosen["split"] = find_column(
            list(columns), (), wanted=split_column, kind="split", option="--split-column", where=where
        )
    result: dict[str, list[Any]] = {}
    for field, column in chosen.items():
        cells = columns[column]
        if field == "mos_std":
            result[field] = _parse_deviations(cells, places, f'{where}, column "{column}"')
        else:
            result[field] = [None if is_empty(cell) else str(cell).strip() for cell in cells]
    if "split" in result:
        result["split"] = [cell and _SPLIT_WORDS.get(cell.casefold(), cell) for cell in result["split"]]
        parts = sorted({part for part in result["split"] if part is not None})
        if "test" not in parts and split_column is not None:
            raise GRMPError(
                f'{where}, column "{split_column}": expected train and test (and validation), '
                f"got {first_few(parts) or 'empty cells'}; write these words or leave --split-column out"
            )
        if not set(parts) & set(_SPLIT_WORDS.values()):
            notes.append(f'{where}: column "{chosen.pop("split")}" is not used: it holds no train, validation or test')
            del result["split"]
        elif others := [part for part in parts if part not in _SPLIT_WORDS.values()]:
            notes.append(
                f'{where}, column "{chosen["split"]}": {sum(part in others for part in result["split"])} rows are in '
                f"other parts than train, validation and test: {first_few(others)}; they never test"
            )
    if chosen:
        pairs = ", ".join(f'{field} from "{column}"' for field, column in chosen.items())
        notes.append(f"{where}: also {pairs}")
    return result


def _parse_deviations(cells: Sequence[Any], places: Sequence[str], where: str) -> list[float | None]:
    # An empty cell, or the NaN that data frames write for one, is a picture whose deviation is not known.
    known = [i for i, cell in enumerate(cells) if not is_empty(cell) and cell == cell]
    numbers = parse_ratings([cells[i] for i in known], [places[i] for i in known], where=where)
    deviations: list[float | None] = [None] * len(cells)
    negative = [f"{number:g} in {places[i]}" for i, number in zip(known, numbers, strict=True) if number < 0]
    if negative:
        raise GRMPError(
            f"{where}: expected deviations, got {len(negative)} below 0: {first_few(negative)}; "
            "correct or rename the column"
        )
    for i, number in zip(known, numbers, strict=True):
        deviations[i] = number
    return deviations


def _merge_repeated(rows: Sequence[Row], places: Sequence[str], where: str, notes: list[str]) -> tuple[Row, ...]:
    first: dict[str, Row] = {}
    repeated: list[str] = []
    differing: list[str] = []
    for row, place in zip(rows, places, strict=True):
        key = os.path.realpath(row.image) if isinstance(row.image, Path) else row.name
        kept = first.setdefault(key, row)
        if kept is not row:
            same = (kept.mos, kept.split) == (row.mos, row.split)
            (repeated if same else differing).append(f"{row.mos:g} in {place}, {kept.mos:g} before")
    if differing:
        raise GRMPError(
            f"{where}: expected one row a picture, got {len(differing)} repeated with another rating or split: "
            f"{first_few(differing)}; average the votes of a picture into one row"
        )
    if repeated:
        notes.append(f"{where}: {len(repeated)} rows repeat a picture with the same rating and are merged")
    return tuple(first.values())
