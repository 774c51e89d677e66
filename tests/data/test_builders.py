"""Official data sets through the `datasets` library: built, cached, streamed, built again after a change."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

import grmp_hf
from grmp_hf.data.benchmarks import BENCHMARKS
from grmp_hf.data.builders import BUILDERS, FEATURES, load_iqa_dataset
from grmp_hf.data.readers import read_benchmark
from grmp_hf.errors import GRMPError

LayOut = Callable[..., Path]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    return lambda name, folder, **given: load_iqa_dataset(name, folder, cache_dir=tmp_path / "cache", **given)


def test_there_is_a_builder_for_every_data_set() -> None:
    assert list(BUILDERS) == list(BENCHMARKS)
    assert grmp_hf.load_iqa_dataset is load_iqa_dataset


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_are_those_of_the_reader(name: str, load: Callable[..., Any], lay_out: LayOut, small_labels: Path) -> None:
    folder = lay_out(name, small_labels)
    table, loaded = read_benchmark(name, folder), load(name, folder)
    rows = sorted((row for part in loaded.values() for row in part), key=lambda row: row["index"])
    assert [part.features for part in loaded.values()] == [FEATURES] * len(loaded)
    assert len(rows) == len(table)
    for row, expected in zip(rows, table.rows, strict=True):
        image = row.pop("image")
        assert (image.size, image.mode) == ((2, 2), "RGB")
        assert row == {column: getattr(expected, column) for column in FEATURES if column != "image"}


def test_parts(load: Callable[..., Any], lay_out: LayOut, small_labels: Path) -> None:
    koniq = lay_out("koniq10k", small_labels)
    assert load("koniq10k", koniq).num_rows == {"train": 4, "validation": 1, "test": 1}
    assert load("koniq10k", koniq, split="test")["name"][:] == ["15.jpg"]
    assert len(load("koniq10k", koniq, split="all")) == 6
    assert len(load("koniq10k", koniq, split="train[:50%]")) == 2
    assert load("bid", lay_out("bid", small_labels)).num_rows == {"train": 6}


def test_streaming_gives_the_same(
    load: Callable[..., Any], lay_out: LayOut, small_labels: Path, tmp_path: Path
) -> None:
    folder = lay_out("live", small_labels)
    streamed = load("live", folder, split="train", streaming=True)
    assert isinstance(streamed, datasets.IterableDataset)
    assert streamed.num_shards == 2  # so that two workers of a loader share the work
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    stored = load("live", folder, split="train").remove_columns("image")
    assert list(streamed.remove_columns("image")) == list(stored)
    assert next(iter(streamed))["image"].size == (2, 2)


def test_options_have_caches_of_their_own(load: Callable[..., Any], lay_out: LayOut, small_labels: Path) -> None:
    folder = lay_out("agiqa3k", small_labels)
    assert load("agiqa3k", folder, split="train")[0]["mos"] == 1.0
    assert load("agiqa3k", folder, split="train", scores="align")[0]["mos"] == 4.0
    assert load("agiqa3k", folder, split="train")[0]["mos"] == 1.0


@pytest.fixture
def kadid(lay_out: LayOut, small_labels: Path, tmp_path: Path) -> Path:
    """A KADID-10k that may be changed."""
    folder = tmp_path / "kadid10k"
    shutil.copytree(lay_out("kadid10k", small_labels) / "kadid10k", folder)
    return folder


def test_the_cache_is_read_the_second_time(
    load: Callable[..., Any], kadid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load("kadid10k", kadid, split="train")
    monkeypatch.setattr("grmp_hf.data.builders.read_benchmark", None)
    again = load("kadid10k", kadid, split="train")
    assert again.cache_files == first.cache_files
    assert again["mos"][:] == first["mos"][:]


def test_labels_changed_in_place_are_noticed(load: Callable[..., Any], kadid: Path) -> None:
    assert load("kadid10k", kadid, split="train")[0]["mos"] == 4.5
    labels = kadid / "dmos.csv"
    about = labels.stat()
    labels.write_text(labels.read_text().replace("I01_01_01.png,I01.png,4.5", "I01_01_01.png,I01.png,4.4"))
    os.utime(labels, ns=(about.st_atime_ns, about.st_mtime_ns))  # same size, same time: only the bytes differ
    assert load("kadid10k", kadid, split="train")[0]["mos"] == 4.4


def test_pictures_changed_in_place_are_noticed(load: Callable[..., Any], kadid: Path) -> None:
    load("kadid10k", kadid)
    (kadid / "images" / "I01_01_02.png").unlink()
    with pytest.raises(GRMPError, match=r'1 are missing: "I01_01_02\.png"'):
        load("kadid10k", kadid)
    Image.new("RGB", (3, 3)).save(kadid / "images" / "I01_01_02.png")
    assert load("kadid10k", kadid, split="train")[1]["image"].size == (3, 3)


def test_an_archive_file(load: Callable[..., Any], kadid: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", kadid.parent, "kadid10k")
    loaded = load("kadid10k", archive, split="train")
    shutil.rmtree(kadid)
    assert loaded[0]["image"].size == (2, 2)
    assert load("kadid10k", archive, split="train").cache_files == loaded.cache_files


def test_the_classes_work_on_their_own_in_two_processes(kadid: Path, tmp_path: Path) -> None:
    builder = BUILDERS["kadid10k"](str(tmp_path / "cache"), data_dir=str(kadid))
    builder.download_and_prepare(num_proc=2)
    assert sorted(builder.as_dataset("train")["index"][:]) == list(range(10))
    assert builder.info.homepage == BENCHMARKS["kadid10k"].home


def test_real_photographs_in_the_official_layout(
    load: Callable[..., Any], biq2021_folder: Path, tmp_path: Path
) -> None:
    with (biq2021_folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = tmp_path / "BIQ2021" / "Images"
    images.mkdir(parents=True)
    for row in rows:
        (images / row["official_name"]).symlink_to(biq2021_folder / "images" / row["image"])
    for part in ("train", "test"):
        lines = [f"{row['official_name']},{row['mos']}" for row in rows if row["split"] == part]
        (images.parent / f"{part.title()} (Images and MOS).csv").write_text("\n".join(["Image Name,MOS", *lines]))
    loaded = load("biq2021", images.parent)
    assert loaded.num_rows == {"train": 1000, "test": 800}
    assert Counter(loaded["test"]["scene"]) == {"ss01": 146, "ss02": 132, "ss03": 522}
    assert loaded["train"][0]["image"].size == (512, 512)
    expected = {row["official_name"]: float(row["mos"]) for row in rows if row["split"] == "test"}
    assert dict(zip(loaded["test"]["name"], loaded["test"]["mos"], strict=True)) == expected


def test_errors(load: Callable[..., Any], kadid: Path) -> None:
    for streaming in (False, True):
        with pytest.raises(GRMPError, match=r'kadid10k: expected a part .*, got split="tset": .*train'):
            load("kadid10k", kadid, split="tset", streaming=streaming)
        with pytest.raises(
            GRMPError, match=r'expected "distorted_images" or|expected "mos_with_names\.txt" of TID2013'
        ):
            load("tid2013", kadid, streaming=streaming)
    with pytest.raises(GRMPError, match=r'expected options out of \(none\), got "scores"'):
        load("kadid10k", kadid, scores="1-5")
    with pytest.raises(GRMPError, match=r'got "kadid" \(did you mean "kadid10k"\?\)'):
        load("kadid", kadid)
    with pytest.raises(GRMPError, match=r"expected data_dir, the folder of KADID-10k.*; get it from https"):
        BUILDERS["kadid10k"]()
