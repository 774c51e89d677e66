"""Scores of one table beside the ratings of another, joined by the names of the pictures."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grmp_hf.data.columns import IMAGE_NAMES, RATING_NAMES, check_ratings, find_column, first_few, parse_ratings
from grmp_hf.data.embedded import read_parquet
from grmp_hf.data.files import PictureFolders
from grmp_hf.data.sources import LABEL_FILES
from grmp_hf.data.tables import Table, read_csv, read_jsonl
from grmp_hf.errors import GRMPError

__all__ = ["join_scores"]

_READERS = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".parquet": read_parquet}
_PREFERRED = ("quality", "score")


def join_scores(args: argparse.Namespace) -> tuple[list[float], list[float], dict[str, Any]]:
    """Read both tables and join them; the pictures themselves are not needed.

    A rating's picture is looked for among the scores by its name as written, by its path beside the ratings, and by its
    file name alone where that is clear on both sides.

    Args:
        args: options of ``grmp-iqa evaluate``.

    Returns:
        Scores, ratings (turned round where low is best), and what to say beside the figures.

    Raises:
        GRMPError: a table or column is missing, or fewer than five pictures are in both.
    """
    ratings = _read(Path(args.ratings))
    names, mos = _rated(ratings, args)
    scores, scorer, failed = _scored(args.scores)
    found = _match(names, scores, [Path(args.images)] if args.images else [ratings.folder or Path()])
    both = [(scores[key], value) for key, value in zip(found, mos, strict=True) if key is not None]
    notes = []
    if len(both) < len(mos):
        absent = [f'"{name}"' for name, key in zip(names, found, strict=True) if key is None]
        notes.append(f"{len(absent)} of {len(mos)} rated pictures have no score and are left out: {first_few(absent)}")
    where = f"{args.ratings} joined with {args.scores}"
    check_ratings([value for _, value in both], names, where=where)
    sign = -1.0 if args.up is False else 1.0
    about = {"scorer": scorer, "scores": str(args.scores), "failed": failed, "notes": notes}
    return [score for score, _ in both], [sign * value for _, value in both], about


def _read(path: Path) -> Table:
    if path.is_dir():
        path = next((found for name in LABEL_FILES if (found := path / name).is_file()), path)
    if path.suffix.lower() not in _READERS or not path.is_file():
        raise GRMPError(f"{path}: expected a table ending in {' '.join(_READERS)}, found none; check the path")
    return _READERS[path.suffix.lower()](path)


def _rated(table: Table, args: argparse.Namespace) -> tuple[list[str], list[float]]:
    columns = list(table.columns)
    image = find_column(
        columns, IMAGE_NAMES, wanted=args.image_column, kind="picture", option="--image-column", where=table.where
    )
    rating = find_column(
        columns, RATING_NAMES, wanted=args.rating_column, kind="rating", option="--rating-column", where=table.where
    )
    parts = table.columns.get(args.split_column or "split")
    chosen = range(len(table.places))
    if args.part != "all" and parts is not None and "test" in parts:
        chosen = [at for at in chosen if parts[at] == "test"]  # type: ignore[assignment]
    names = [str(table.columns[image][at]).strip() for at in chosen]
    places = [f"{table.places[at]} ({name})" for at, name in zip(chosen, names, strict=True)]
    cells = [table.columns[rating][at] for at in chosen]
    return names, parse_ratings(cells, places, where=f'{table.where}, column "{rating}"')


def _scored(path: Path) -> tuple[dict[str, float], str, int]:
    """Path -> score of the pictures that have one, who scored, and how many have none."""
    table = _read(path)
    columns = list(table.columns)
    image = find_column(
        columns, ("path", *IMAGE_NAMES), wanted=None, kind="picture", option="--scores", where=table.where
    )
    value = find_column(columns, _PREFERRED, wanted=None, kind="score", option="--scores", where=table.where)
    good = [at for at, cell in enumerate(table.columns[value]) if cell not in (None, "")]
    places = [table.places[at] for at in good]
    numbers = parse_ratings([table.columns[value][at] for at in good], places, where=f'{table.where}, column "{value}"')
    paths = [str(table.columns[image][at]) for at in good]
    who = sorted({str(cell) for cell in table.columns.get("scorer", ["unknown: the table has no column scorer"])})
    return dict(zip(paths, numbers, strict=True)), "; ".join(who), len(table.places) - len(good)


def _match(names: Sequence[str], scores: Mapping[str, float], folders: Sequence[Path]) -> list[str | None]:
    """For each rated name the path among the scores that means the same picture, or None."""
    absolute = {os.path.abspath(path): path for path in scores}
    by_file, rated_files = _unique(scores), _unique(names)
    on_disk = PictureFolders([place for folder in folders for place in (folder, folder / "images")])

    def match(name: str) -> str | None:
        if name in scores:
            return name
        picture = on_disk.find(name)
        if picture is not None and os.path.abspath(picture) in absolute:
            return absolute[os.path.abspath(picture)]
        file = _file(name)
        return by_file.get(file) if file in rated_files else None

    return [match(name) for name in names]


def _unique(paths: Iterable[str]) -> dict[str, str]:
    counts = Counter(_file(path) for path in paths)
    return {_file(path): path for path in paths if counts[_file(path)] == 1}


def _file(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
