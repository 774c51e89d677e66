"""Advice in refusals works: each is provoked, done as it says, and what was refused then succeeds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from grmp_hf.data import RatedTable, read_ratings, split_rows
from grmp_hf.data.splits import fold_splits, random_split
from grmp_hf.errors import GRMPError

Asked = Callable[[Path], Any]


def table(text: str, encoding: str = "utf-8", **options: Any) -> Asked:
    """Writes a table beside the pictures and reads it."""

    def read(folder: Path) -> RatedTable:
        (folder / "labels.csv").write_bytes(text.encode(encoding))
        return read_ratings(str(folder / "labels.csv"), **options)

    return read


def rows(*ratings: float, header: str = "image,mos", start: int = 0) -> str:
    return "\n".join([header, *(f"{start + number}.png,{rating:g}" for number, rating in enumerate(ratings))])


class Case(NamedTuple):
    provoked: Asked
    advice: str
    followed: Asked


RATED = (1, 2, 3, 4, 5, 4)
TWICE = rows(*RATED) + "\n0.png,3"
PARTS = "image,mos,part\n" + "\n".join(f"{n}.png,{r},{'ab'[n % 2]}" for n, r in enumerate(RATED))
BARE = "\n".join(rows(*RATED).splitlines()[1:])
CASES = {
    "range": Case(table(rows(1, 300, *RATED)), "--range LOW HIGH", table(rows(1, 300, *RATED), scale=(0, 300))),
    "wider": Case(
        table(rows(*RATED), scale=(1, 4)), "widen the range with --range LOW HIGH", table(rows(*RATED), scale=(1, 5))
    ),
    "zero-is-a-rating": Case(table(rows(0, 0, *RATED)), "--range 0 5", table(rows(0, 0, *RATED), scale=(0, 5))),
    "zero-is-none": Case(table(rows(0, 0, *RATED)), "remove their lines", table(rows(*RATED, start=2))),
    "repeated": Case(table(TWICE), "average the votes", table(rows(2, *RATED[1:]))),
    "empty-rating": Case(table(rows(*RATED) + "\n6.png,"), "remove their lines", table(rows(*RATED))),
    "no-number": Case(table(rows(*RATED) + "\n6.png,good"), "correct them", table(rows(*RATED) + "\n6.png,4")),
    "missing-picture": Case(table(rows(*RATED) + "\nno.png,3"), "remove the lines", table(rows(*RATED))),
    "header": Case(table(BARE), '"image,mos" above it', table("image,mos\n" + BARE)),
    "one-column": Case(table(rows(*RATED).replace(",", "/")), "write a comma", table(rows(*RATED))),
    "rating-column": Case(
        table(rows(*RATED, header="image,beauty")),
        "--rating-column",
        table(rows(*RATED, header="image,beauty"), rating_column="beauty"),
    ),
    "image-column": Case(
        table(rows(*RATED, header="motif,mos")),
        "--image-column",
        table(rows(*RATED, header="motif,mos"), image_column="motif"),
    ),
    "no-ratings": Case(table("image\n0.png\n1.png\n2.png"), 'add a column "mos"', table(rows(*RATED))),
    "no-pictures": Case(table("mos\n1\n2\n3"), 'add a column "image"', table(rows(*RATED))),
    "no-such-ratings": Case(
        table("image\n0.png\n1.png", rating_column="beauty"),
        'add a column "beauty"',
        table(rows(*RATED, header="image,beauty"), rating_column="beauty"),
    ),
    "no-split-column": Case(table(rows(*RATED), split_column="part"), "or leave it out", table(rows(*RATED))),
    "split-words": Case(
        table(PARTS, split_column="part"),
        "write these words or leave --split-column out",
        table(PARTS.replace(",a", ",train").replace(",b", ",test"), split_column="part"),
    ),
    "split-left-out": Case(table(PARTS, split_column="part"), "leave --split-column out", table(PARTS)),
    "few": Case(table(rows(1)), "rate some more", table(rows(*RATED))),
    "alike": Case(table(rows(3, 3, 3, 3, 3)), "rate good and bad pictures", table(rows(3, 3, 3, 1, 5))),
    "utf-8": Case(table("image,mos\n\0" + rows(*RATED)), "save the table as UTF-8", table(rows(*RATED))),
    "shots": Case(
        lambda folder: split_rows(table(rows(*RATED))(folder), shots=7, seed=0),
        "ask for fewer shots",
        lambda folder: split_rows(table(rows(*RATED))(folder), shots=5, seed=0),
    ),
    "folds": Case(
        lambda folder: fold_splits(table(rows(*RATED))(folder), 7),
        "between 2 and 6 folds",
        lambda folder: fold_splits(table(rows(*RATED))(folder), 6),
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 0.png to 7.png, all different."""
    for number in range(8):
        Image.new("RGB", (24, 24), (30 * number, 10, 20)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_what_is_advised_works(name: str, folder: Path) -> None:
    case = CASES[name]
    with pytest.raises(GRMPError, match=re.escape(case.advice)):
        case.provoked(folder)
    case.followed(folder)


def test_pictures_elsewhere_are_found_where_images_says(folder: Path) -> None:
    (folder / "tables").mkdir()
    place = folder / "tables" / "labels.csv"
    place.write_text(rows(*RATED), encoding="utf-8")
    with pytest.raises(GRMPError, match="give their folder with --images DIR"):
        read_ratings(str(place))
    assert len(read_ratings(str(place), images=folder)) == len(RATED)


@pytest.mark.parametrize("given", [0.01, 0.999])
def test_every_share_that_is_advised_leaves_pictures_on_both_sides(folder: Path, given: float) -> None:
    rated = table(rows(*RATED))(folder)
    with pytest.raises(GRMPError, match="choose a train_share from") as refused:
        random_split(rated, train_share=given if given < 0.5 else 1.0)
    for above, below in re.findall(r"(\d+)/(\d+)", str(refused.value)):
        split = random_split(rated, train_share=int(above) / int(below))
        assert split.train and split.test
