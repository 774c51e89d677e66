"""Advice in what scoring and preprocessing refuse works: it is provoked, done as it says, and succeeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from grmp_hf import GRMPImageProcessor, Scorer
from grmp_hf.data.images import decode_image, to_rgb
from grmp_hf.errors import GRMPError
from grmp_hf.features import first_views
from tests.advised import Case, follow


class Place(NamedTuple):
    """A base, and a picture."""

    scorer: Scorer
    path: Path


@pytest.fixture
def place(base: Scorer, photos: list[Path]) -> Place:
    return Place(base, photos[0])


Asked = Callable[[Place], Any]


def scored(given: Any, **options: Any) -> Asked:
    return lambda place: place.scorer.score(given(place) if callable(given) else given, **options)


def views(**options: Any) -> Asked:
    return lambda place: GRMPImageProcessor(**{"size": 32, "shortest_edge_limit": 48, **options})


NOISE = np.zeros((40, 40, 3), np.uint8)
GREY16 = np.full((40, 40), 40000, np.uint16)
SCORING = {
    "nothing": Case(scored([]), "at least one picture", scored(lambda place: [place.path])),
    "batch": Case(scored(lambda place: place.path, batch_size=0), "at least 1", scored(lambda place: place.path)),
    "a file to iterate over": Case(lambda place: list(place.scorer.iter_scores(str(place.path))), "Put it into a",
                                   lambda place: list(place.scorer.iter_scores([str(place.path)]))),
    "one file": Case(lambda place: list(place.scorer.iter_scores(str(place.path))), r"or use score\(\)",
                     lambda place: place.scorer.score(str(place.path))),
    "what is none": Case(scored(object()), "Pass one of these", scored(Image.new("RGB", (40, 40)))),
    "16 bits": Case(scored(GREY16), "divide by 65535", scored((GREY16 / 65535).astype(np.float32))),
    "normalised": Case(scored(NOISE - np.float32(2)), "Undo a normalisation", scored(NOISE.astype(np.float32))),
    "0 to 255": Case(scored(NOISE + np.float32(200)), "divide 0..255 by 255", scored((NOISE + np.float32(200)) / 255)),
    "too large": Case(lambda place: decode_image(place.path, max_pixels=99), "shrink it",
                      lambda place: decode_image(place.path)),
    "view": Case(views(views=["middle"]), "views out of whole", views(views=["whole"])),
    "weights": Case(views(views=["whole"], view_weights=[0.5, 0.5]), "one weight for each of the 1 views",
                    views(views=["whole"], view_weights=[1.0])),
    "limit": Case(views(shortest_edge_limit=16), "at least the size 32", views(shortest_edge_limit=32)),
    "tensors": Case(lambda place: place.scorer.processor(NOISE, return_tensors="np"), "return_tensors='pt'",
                    lambda place: place.scorer.processor(NOISE, return_tensors="pt")),
    "grey": Case(lambda place: place.scorer.processor(Image.new("L", (40, 40))), "images.to_rgb",
                 lambda place: place.scorer.processor(to_rgb(Image.new("L", (40, 40))))),
    "a path": Case(lambda place: place.scorer.processor(place.path), "images.decode_image",
                   lambda place: place.scorer.processor(decode_image(place.path))),
    "views to look at": Case(lambda place: first_views(place.scorer, 4), "1 to 3 views",
                             lambda place: first_views(place.scorer, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCORING)
def test_what_is_advised_works(name: str, place: Place) -> None:
    follow(SCORING[name], place)


def test_a_data_set_with_several_columns_is_read_by_its_column(place: Place) -> None:
    datasets = pytest.importorskip("datasets")
    picture = Image.new("RGB", (40, 40))
    both = datasets.Dataset.from_dict({"left": [picture], "right": [picture]}).cast_column("left", datasets.Image())
    both = both.cast_column("right", datasets.Image())
    with pytest.raises(GRMPError, match="Pass the column: dataset"):
        place.scorer.score(both)
    assert len(place.scorer.score(both["left"]).quality) == 1
