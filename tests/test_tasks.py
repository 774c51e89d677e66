from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from grmp_hf.data import RatedTable, RatingScale, Row
from grmp_hf.data.distortions import DISTORTIONS
from grmp_hf.data.photographs import Photographs
from grmp_hf.data.synthetic import LABELS, SyntheticPicture, distorted_crop
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.tasks import from_photographs, from_table

PROCESSOR = GRMPImageProcessor(32, ["center"], shortest_edge_limit=48)


@pytest.fixture
def photographs() -> Photographs:
    pictures = tuple(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8) for seed in range(6))
    return Photographs(pictures, "abc")


@pytest.fixture
def make_table(photos: list[Path]) -> Callable[..., RatedTable]:
    """Twelve pictures of four references, of two distortions or none."""

    def make(**columns: Any) -> RatedTable:
        rows = tuple(
            Row(path, path.name, float(number), number / 11, reference=f"ref {number % 4}", **{
                name: value(number) for name, value in columns.items()
            })
            for number, path in enumerate(photos)
        )  # fmt: skip
        return RatedTable("mine", rows, RatingScale(0.0, 11.0))

    return make


@pytest.mark.parametrize("kind", ["photographs", "table"])
def test_episodes_can_be_sent_to_loading_processes(
    photographs: Photographs, make_table: Callable[..., RatedTable], kind: str
) -> None:
    """As where processes are not forked."""
    plain = from_photographs("mine", photographs, PROCESSOR, "gmsd", [0.5] * 6)
    source = plain if kind == "photographs" else from_table(make_table(), PROCESSOR)
    episodes = source.episodes(source.tasks, support=2, query=2)
    sent = pickle.loads(pickle.dumps(episodes))
    for part in ("support", "query"):
        for here, there in zip(episodes[0, 0][part], sent[0, 0][part], strict=True):
            assert all(torch.equal(here[name], there[name]) for name in here)


def test_rows_of_other_parts_teach_no_start(make_table: Callable[..., RatedTable]) -> None:
    parts = ["test", "test", "validation", "holdout"]
    source = from_table(make_table(split=lambda number: [*parts, "train"][min(number, 4)]), PROCESSOR)
    assert [row.name for rows in source.tasks.values() for row in rows] == [f"{n:02}.png" for n in range(4, 12)]
    with pytest.raises(GRMPError, match="got 12 that are all for testing"):
        from_table(make_table(split=lambda number: "test"), PROCESSOR)


@pytest.mark.parametrize("labels", LABELS)
def test_photographs_become_tasks_whose_rows_are_made_on_the_fly(photographs: Photographs, labels: str) -> None:
    source = from_photographs("mine", photographs, PROCESSOR, labels)
    assert list(source.tasks) == list(DISTORTIONS)
    assert (source.name, source.content_hash) == ("mine", "abc")
    picture = SyntheticPicture(2, "jpeg", 4)
    assert source.reference_of(picture) == 2
    row = source.load(picture, 7)
    made, quality = distorted_crop(photographs.pictures[2], "jpeg", 4, size=32, seed=7, label=LABELS[labels])
    assert torch.equal(row["pixel_values"], PROCESSOR(made)["pixel_values"][0])
    assert row["labels"].item() == pytest.approx(quality)
    other = source.load(picture, 8)
    assert not torch.equal(row["pixel_values"], other["pixel_values"])


def test_labels_are_shares_of_what_a_photograph_was_before(photographs: Photographs) -> None:
    quality = [0.1 * (number + 1) for number in range(len(photographs))]
    perfect = from_photographs("mine", photographs, PROCESSOR, "gmsd")
    judged = from_photographs("mine", photographs, PROCESSOR, "gmsd", quality)
    for level in (0, 3):
        before, after = (source.load(SyntheticPicture(2, "jpeg", level), 7) for source in (perfect, judged))
        assert torch.equal(before["pixel_values"], after["pixel_values"])
        assert after["labels"].item() == pytest.approx(0.3 * before["labels"].item())


def test_episodes_of_photographs_have_crops_of_different_quality(photographs: Photographs) -> None:
    source = from_photographs("mine", photographs, PROCESSOR, "level")
    data = source.episodes({"jpeg": source.tasks["jpeg"]}, support=8, query=6, seed=3)
    (support,), (query,) = data[0, 0]["support"], data[0, 0]["query"]
    assert support["pixel_values"].shape == (8, 3, 32, 32) and query["labels"].shape == (6,)
    assert len(set(support["labels"].tolist())) > 1
    again = source.episodes({"jpeg": source.tasks["jpeg"]}, support=8, query=6, seed=3)[0, 0]["support"]
    assert torch.equal(again[0]["pixel_values"], support["pixel_values"])


def test_a_table_is_divided_by_distortion(make_table: Callable[..., RatedTable]) -> None:
    table = make_table(distortion=lambda number: ("blur", "noise")[number % 2], dataset=lambda number: "kadid10k")
    source = from_table(table, PROCESSOR)
    assert {name: len(rows) for name, rows in source.tasks.items()} == {"blur": 6, "noise": 6}
    assert (source.name, source.dataset) == ("mine", "kadid10k")
    row = source.tasks["noise"][2]
    assert source.reference_of(row) == "ref 1" and source.quality_of is not None
    assert source.quality_of(row) == row.quality
    loaded = source.load(row, 1)
    assert loaded["labels"].item() == pytest.approx(row.quality)
    pixels = loaded["pixel_values"] * torch.tensor(PROCESSOR.image_std).view(3, 1, 1)
    pixels = ((pixels + torch.tensor(PROCESSOR.image_mean).view(3, 1, 1)) * 255).round().permute(1, 2, 0).numpy()
    shrunk = np.asarray(PROCESSOR.uncropped(Image.open(row.image)))
    windows = np.lib.stride_tricks.sliding_window_view(shrunk, (32, 32, 3))
    assert (windows == pixels).all(axis=(-1, -2, -3)).any(), "a crop of what scoring cuts its views from"


def test_a_table_without_distortions_is_one_task_and_contents_are_its_own(
    make_table: Callable[..., RatedTable],
) -> None:
    source = from_table(make_table(), PROCESSOR)
    assert {name: len(rows) for name, rows in source.tasks.items()} == {"mine": 12}
    assert source.dataset == "mine"


def test_a_picture_that_cannot_be_read_is_named(make_table: Callable[..., RatedTable], photos: list[Path]) -> None:
    photos[0].write_bytes(photos[0].read_bytes()[:100])
    source = from_table(make_table(), PROCESSOR)
    with pytest.raises(GRMPError, match=r"00\.png: .*; the same command then goes on"):
        source.load(source.tasks["mine"][0], 0)


def test_ratings_on_another_scale_are_other_tasks(make_table: Callable[..., RatedTable]) -> None:
    table = make_table()
    lower = replace(table, scale=RatingScale(0.0, 11.0, higher_is_better=False))
    assert from_table(table, PROCESSOR).content_hash == from_table(make_table(), PROCESSOR).content_hash
    assert from_table(table, PROCESSOR).content_hash != from_table(lower, PROCESSOR).content_hash
