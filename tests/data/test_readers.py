"""Official archives: the published figures from the real labels, every layout in small, every fault named."""

from __future__ import annotations

import io
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from scipy.stats import pearsonr, spearmanr

from grmp_hf.data import RatedTable, Row, decode_row
from grmp_hf.data.benchmarks import BENCHMARKS
from grmp_hf.data.readers import read_benchmark
from grmp_hf.errors import GRMPError

LayOut = Callable[..., Path]


def figures(rows: Sequence[Row]) -> tuple[Any, ...]:
    """Rows, extremes and mean to four digits, first and last name with score."""
    mos = np.array([row.mos for row in rows])
    ends = [(row.name, round(row.mos, 4)) for row in (rows[0], rows[-1])]
    return len(rows), *(round(float(value), 4) for value in (mos.min(), mos.max(), mos.mean())), *ends


# name, layout, options -> the published figures: rows, min, max, mean, first, last, mean quality, references
REAL: dict[str, tuple[str, dict[str, Any], dict[str, Any], tuple[Any, ...], float, int]] = {
    "livec": ("livec", {}, {}, (1162, 3.42, 92.432, 55.4013, ("100.bmp", 32.5611), ("1164.bmp", 72.7539)), 0.5540, 0),
    "livec with practice": (
        "livec",
        {},
        {"practice": True},
        (1169, 3.42, 92.432, 55.3887, ("t1.bmp", 63.9634), ("1164.bmp", 72.7539)),
        0.5539,
        0,
    ),
    "koniq10k": (
        "koniq10k",
        {},
        {},
        (10073, 3.9118, 88.3889, 58.7296, ("10004473376.jpg", 77.3836), ("9996001596.jpg", 67.2190)),
        0.5873,
        0,
    ),
    "koniq10k from 1 to 5": (
        "koniq10k",
        {"variant": "1-5", "size": "512x384"},
        {"scores": "1-5", "size": "512x384"},
        (10073, 1.0962, 4.31, 3.162, ("10004473376.jpg", 3.8286), ("9996001596.jpg", 3.4175)),
        0.5405,
        0,
    ),
    "spaq": ("spaq", {}, {}, (11125, 2.0, 96.0, 50.3179, ("00001.jpg", 48.86), ("11125.jpg", 10.8)), 0.5032, 0),
    "spaq as CSV": (
        "spaq",
        {"suffix": ".csv"},
        {},
        (11125, 2.0, 96.0, 50.3179, ("00001.jpg", 48.86), ("11125.jpg", 10.8)),
        0.5032,
        0,
    ),
    "live": (
        "live",
        {},
        {},
        (779, -2.64, 111.7747, 48.5812, ("jp2k/img2.bmp", 15.5130), ("fastfading/img145.bmp", 34.0502)),
        0.5523,
        29,
    ),
    "live, original scores": (
        "live",
        {},
        {"scores": "original"},
        (779, 17.9024, 84.4890, 44.7655, ("jp2k/img2.bmp", 28.0038), ("fastfading/img145.bmp", 36.0666)),
        0.5523,
        29,
    ),
    "csiq": (
        "csiq",
        {},
        {},
        (866, 0.0, 1.0, 0.3507, ("1600.AWGN.1.png", 0.0620), ("woman.contrast.4.png", 0.4686)),
        0.6493,
        30,
    ),
    "csiq as text": (
        "csiq",
        {"variant": ".txt", "flat": True},
        {},
        (866, 0.0, 1.0, 0.3507, ("1600.AWGN.1.png", 0.0620), ("woman.contrast.4.png", 0.4686)),
        0.6493,
        30,
    ),
    "tid2013": (
        "tid2013",
        {},
        {},
        (3000, 0.2424, 7.2143, 4.4747, ("I01_01_1.bmp", 5.5143), ("i25_24_5.bmp", 2.7714)),
        0.4972,
        25,
    ),
    "kadid10k": (
        "kadid10k",
        {},
        {},
        (10125, 1.0, 4.93, 3.0326, ("I01_01_01.png", 4.57), ("I81_25_05.png", 3.27)),
        0.5082,
        81,
    ),
    "bid": (
        "bid",
        {},
        {},
        (586, 0.1638, 4.9198, 2.9527, ("DatabaseImage0001.JPG", 4.5166), ("DatabaseImage0590.JPG", 2.1562)),
        0.5905,
        0,
    ),
    "flive": (
        "flive",
        {},
        {},
        (
            *(39810, 0.0, 94.3332, 72.1325),
            ("blur_dataset/motion0044.jpg", 75.4437),
            ("voc_emotic_ava/VOC2012__2012_003848.jpg", 69.8805),
        ),
        0.7213,
        0,
    ),
    "pipal": (
        "pipal",
        {},
        {},
        (23200, 916.7136, 1835.9856, 1448.9596, ("A0001_00_00.bmp", 1520.0648), ("A0248_06_26.bmp", 1257.0600)),
        0.5873,
        200,
    ),
    "agiqa3k": (
        "agiqa3k",
        {},
        {},
        (2982, 0.0, 4.4887, 2.5004, ("AttnGAN_normal_000.jpg", 0.9656), ("xl2.2_normal_299.jpg", 3.6008)),
        0.5001,
        0,
    ),
    "agiqa3k, match of the text": (
        "agiqa3k",
        {},
        {"scores": "align"},
        (2982, 0.0215, 4.2862, 2.5, ("AttnGAN_normal_000.jpg", 0.4089), ("xl2.2_normal_299.jpg", 3.4671)),
        0.5,
        0,
    ),
    "biq2021": (
        "biq2021",
        {},
        {},
        (12000, 0.0, 1.0, 0.6435, ("ss03 (3753).jpg", 0.8471), ("ss03 (3024).jpg", 0.7748)),
        0.6435,
        0,
    ),
}


@pytest.mark.parametrize("case", REAL)
def test_published_figures(case: str, lay_out: LayOut, labels_folder: Path) -> None:
    name, layout, options, expected, quality, references = REAL[case]
    table = read_benchmark(name, lay_out(name, labels_folder, **layout), **options)
    assert figures(table.rows) == expected
    assert np.isclose(table.quality.mean(), quality, atol=6e-5)
    assert table.quality.min() >= 0 and table.quality.max() <= 1
    assert len({row.reference for row in table.rows} - {None}) == references
    assert BENCHMARKS[name].is_whole(len(table))
    assert {row.dataset for row in table.rows} == {name}
    assert decode_row(table.rows[-1]).size == (2, 2)
    assert spearmanr(table.quality, [row.mos for row in table.rows])[0] == pytest.approx(
        1 if table.scale.higher_is_better else -1
    )


def test_parts_of_the_real_sets(lay_out: LayOut, labels_folder: Path) -> None:
    def parts(name: str, **layout: Any) -> Counter[str | None]:
        return Counter(row.split for row in read_benchmark(name, lay_out(name, labels_folder, **layout)).rows)

    assert parts("koniq10k") == {"train": 7058, "validation": 1000, "test": 2015}
    assert parts("flive") == {"train": 30256, "validation": 7727, "test": 1827}
    assert parts("biq2021") == {"train": 10000, "test": 2000}
    assert parts("pipal", validation=True) == {"train": 23200, "test": 1000}


def test_the_two_scores_of_koniq_agree_and_differ(lay_out: LayOut, labels_folder: Path) -> None:
    first = read_benchmark("koniq10k", lay_out("koniq10k", labels_folder))
    second = read_benchmark("koniq10k", lay_out("koniq10k", labels_folder, variant="1-5"), scores="1-5")
    assert (str(first.scale), str(second.scale)) == ("0 (worst) to 100 (best)", "1 (worst) to 5 (best)")
    assert [row.name for row in first.rows] == [row.name for row in second.rows]
    assert spearmanr(first.quality, second.quality)[0] == pytest.approx(0.9919, abs=5e-5)
    assert pearsonr(first.quality, second.quality)[0] == pytest.approx(0.9954, abs=5e-5)


def test_real_deviations_contents_and_kinds(lay_out: LayOut, labels_folder: Path) -> None:
    def read(name: str, **options: Any) -> RatedTable:
        return read_benchmark(name, lay_out(name, labels_folder), **options)

    livec, tid, kadid = read("livec", practice=True), read("tid2013"), read("kadid10k")
    assert [round(float(livec.rows[i].mos_std or 0), 4) for i in (0, -1)] == [18.3762, 19.1942]
    assert [tid.rows[i].mos_std for i in (0, -1)] == [0.13013, 0.14047]
    assert [kadid.rows[i].mos_std for i in (0, -1)] == [0.496**0.5, 0.772**0.5]
    assert Counter(row.distortion for row in tid.rows) == {f"{kind:02}": 125 for kind in range(1, 25)}
    assert Counter(row.level for row in kadid.rows) == {f"{level:02}": 2025 for level in range(1, 6)}
    assert len(read("tid2013", artificial=False)) == 2880
    live, csiq, agiqa = read("live"), read("csiq"), read("agiqa3k")
    kinds = {"jp2k": 169, "jpeg": 175, "wn": 145, "gblur": 145, "fastfading": 145}
    assert Counter(row.distortion for row in live.rows) == kinds
    by_score = {row.name: row.quality for row in csiq.rows}
    assert (by_score["log_seaside.AWGN.1.png"], by_score["sunsetcolor.jpeg2000.5.png"]) == (1, 0)
    assert Counter(row.distortion for row in csiq.rows)["contrast"] == 116
    assert (agiqa.content, len({row.scene for row in agiqa.rows})) == ("scene", 300)
    biq = Counter(row.scene for row in read("biq2021").rows)
    assert biq == {"ss01": 2000, "ss02": 2000, "ss03": 8000}


def test_the_two_label_files_of_csiq_agree(lay_out: LayOut, labels_folder: Path) -> None:
    book = read_benchmark("csiq", lay_out("csiq", labels_folder))
    text = read_benchmark("csiq", lay_out("csiq", labels_folder, variant=".txt"))
    scores = {row.name: row.mos for row in text.rows}
    assert max(abs(row.mos - scores[row.name]) for row in book.rows) < 1e-6
    assert all(row.mos_std is not None for row in book.rows) and not text.has("mos_std")


# name, layout, options -> what every row must be: name, mos, quality and, where there is any, the other columns
SMALL: dict[str, tuple[str, dict[str, Any], dict[str, Any], int, dict[str, Any]]] = {
    "livec": ("livec", {}, {}, 5, {"name": "100.bmp", "mos": 20.5, "quality": 0.205, "mos_std": 9.0, "index": 7}),
    "livec with practice": ("livec", {}, {"practice": True}, 12, {"name": "t1.bmp", "mos": 10.0, "index": 0}),
    "koniq10k": ("koniq10k", {}, {}, 6, {"name": "10.jpg", "quality": 0.5, "mos_std": 12.5, "split": "train"}),
    "koniq10k from 1 to 5": (
        "koniq10k",
        {"variant": "1-5", "size": "512x384"},
        {"scores": "1-5", "size": "512x384"},
        6,
        {"mos": 3.0, "quality": 0.5, "mos_std": 0.5, "split": None},
    ),
    "spaq": ("spaq", {}, {}, 6, {"name": "00001.jpg", "mos": 10.5, "quality": 0.105}),
    "spaq as CSV": ("spaq", {"suffix": ".csv"}, {}, 6, {"name": "00001.jpg", "mos": 10.5}),
    "live": (
        "live",
        {},
        {},
        785,
        {"name": "jp2k/img2.bmp", "mos": -1.5, "mos_std": 1.5, "reference": "ref1.bmp", "index": 1},
    ),
    "live, original scores": ("live", {}, {"scores": "original"}, 785, {"mos": 21.0, "quality": 0.79, "mos_std": None}),
    "csiq": (
        "csiq",
        {},
        {},
        6,
        {"name": "1600.AWGN.1.png", "quality": 1.0, "reference": "1600", "distortion": "awgn", "level": "1"},
    ),
    "csiq as text": ("csiq", {"variant": ".txt", "flat": True}, {}, 6, {"name": "1600.AWGN.1.png", "mos_std": None}),
    "tid2013": (
        "tid2013",
        {},
        {},
        6,
        {"name": "I01_01_1.bmp", "mos": 1.5, "mos_std": 0.1, "reference": "I01", "distortion": "01", "level": "1"},
    ),
    "kadid10k": (
        "kadid10k",
        {},
        {},
        10,
        {"name": "I01_01_01.png", "quality": 0.875, "mos_std": 0.5, "reference": "I01.png", "level": "01"},
    ),
    "bid": ("bid", {}, {}, 6, {"name": "DatabaseImage0001.JPG", "mos": 0.5, "quality": 0.1}),
    "flive": ("flive", {}, {}, 5, {"name": "blur_dataset/motion1.jpg", "mos": 60.0, "split": "validation"}),
    "flive without parts": ("flive", {"padded": False}, {}, 5, {"name": "blur_dataset/motion1.jpg", "split": None}),
    "pipal": (
        "pipal",
        {},
        {},
        8,
        {"name": "A0001_00_00.bmp", "mos": 1410.5, "reference": "A0001", "distortion": "00", "level": "00"},
    ),
    "pipal with validation": ("pipal", {"validation": True, "joined": True}, {}, 10, {"split": "train"}),
    "agiqa3k": (
        "agiqa3k",
        {},
        {},
        6,
        {"mos": 1.0, "quality": 0.2, "mos_std": 0.5, "scene": "a cat, no. 0", "distortion": "glide_normal"},
    ),
    "agiqa3k, match of the text": ("agiqa3k", {}, {"scores": "align"}, 6, {"mos": 4.0, "mos_std": 0.25}),
    "biq2021": ("biq2021", {}, {}, 6, {"name": "ss03 (3).jpg", "mos": 0.1, "scene": "ss03", "split": "train"}),
}  # fmt: skip


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("level", ["as unpacked", "one folder above", "inner folder"])
def test_every_layout_in_small(case: str, level: str, lay_out: LayOut, small_labels: Path, tmp_path: Path) -> None:
    name, layout, options, count, first = SMALL[case]
    folder = lay_out(name, small_labels, **layout)
    if level == "one folder above":
        above = tmp_path / "above"
        shutil.copytree(folder, above / "downloads")
        folder = above
    elif level == "inner folder":
        inner = [path for path in folder.iterdir() if path.is_dir()]
        folder = inner[0] if len(inner) == len(list(folder.iterdir())) == 1 else folder
    table = read_benchmark(name, folder, **options)
    assert len(table) == count
    for column, value in first.items():
        found = getattr(table.rows[0], column)
        assert found == (pytest.approx(value) if isinstance(value, float) else value), column
    assert all(decode_row(row).size == (2, 2) for row in table.rows)
    assert any("not the whole data set" in note for note in table.notes)


def test_parts_that_follow_the_first(lay_out: LayOut, small_labels: Path) -> None:
    pipal = read_benchmark("pipal", lay_out("pipal", small_labels, validation=True))
    assert [(row.split, row.index) for row in pipal.rows[-3:]] == [("train", 7), ("test", 8), ("test", 9)]
    biq = read_benchmark("biq2021", lay_out("biq2021", small_labels))
    assert [(row.name, row.split, row.index) for row in biq.rows[-2:]] == [
        ("ss03 (7).jpg", "test", 4),
        ("ss01 (2).jpg", "test", 5),
    ]
    flive = read_benchmark("flive", lay_out("flive", small_labels))
    assert [row.split for row in flive.rows] == ["validation", "test", "train", "train", "train"]
    partless = read_benchmark("flive", lay_out("flive", small_labels, padded=False))
    assert any("no official split without labels=640_padded.csv" in note for note in partless.notes)


def test_both_label_files_of_koniq_in_one_folder(lay_out: LayOut, small_labels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "koniq10k"
    shutil.copytree(lay_out("koniq10k", small_labels), folder)
    for path in lay_out("koniq10k", small_labels, variant="1-5").glob("*.csv"):
        shutil.copy(path, folder)
    (folder / "koniq10k_indicators.csv").write_text("image_name,brightness\n10.jpg,1\n")
    assert read_benchmark("koniq10k", folder).rows[0].mos == 50.0
    assert read_benchmark("koniq10k", folder, scores="1-5").rows[0].mos == 3.0


def test_pictures_in_a_folder_beside_the_labels(lay_out: LayOut, small_labels: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for path in (lay_out("agiqa3k", small_labels) / "AGIQA-3K").iterdir():
        shutil.copy(path, tmp_path / ("pictures" if path.suffix == ".jpg" else ""))
    assert len(read_benchmark("agiqa3k", tmp_path)) == 6


def test_an_archive_is_unpacked_once(lay_out: LayOut, small_labels: Path, tmp_path: Path) -> None:
    folder = lay_out("kadid10k", small_labels)
    archive = tmp_path / "kadid10k.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
    first = read_benchmark("kadid10k", archive, cache_dir=tmp_path / "cache")
    assert len(first) == 10
    unpacked = list((tmp_path / "cache" / "grmp_hf" / "archives").glob("kadid10k-*/kadid10k"))
    assert len(unpacked) == 1
    before = unpacked[0].stat().st_mtime_ns
    assert read_benchmark("kadid10k", archive, cache_dir=tmp_path / "cache") == first
    assert unpacked[0].stat().st_mtime_ns == before


def remove(*relative: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in relative:
            (folder / name).unlink()

    return damage


def change(relative: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / relative
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return damage


def add(relative: str, like: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / like, folder / relative)

    return damage


def rename(old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / old).rename(folder / new)

    return damage


def write(relative: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / relative).write_bytes(content)

    return damage


def pack(folder: Path) -> None:
    shutil.rmtree(folder / "SPAQ")
    (folder / "TestImage.zip").write_bytes(b"PK")


# what is wrong -> name, layout, options, damage, the message
FAULTS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Callable[[Path], object], str]] = {
    "no label file": (
        "kadid10k",
        {},
        {},
        remove("kadid10k/dmos.csv"),
        r'expected "dmos\.csv" of KADID-10k.* here or up to 3 folders below, found kadid10k; .* must hold images/, '
        r"dmos\.csv; get it from https://database\.mmsp-kn\.de/kadid",
    ),
    "no folder of pictures": (
        "tid2013",
        {},
        {},
        rename("tid2013/distorted_images", "tid2013/pictures"),
        r'expected "distorted_images" of TID2013.*; get it from https://www\.ponomarenko\.info',
    ),
    "still packed": (
        "spaq",
        {},
        {},
        pack,
        r"found TestImage\.zip; unpack TestImage\.zip first; the folder must hold TestImage/",
    ),
    "labels without pictures": (
        "biq2021",
        {},
        {},
        remove("Images/ss03 (3).jpg", "Images/ss01 (1).jpg"),
        r'Images: expected a picture for each of the 6 labels in .*, 2 are missing: "ss03 \(3\)\.jpg", '
        r'"ss01 \(1\)\.jpg"; get the whole of BIQ2021 from https://github\.com/nisarahmedrana',
    ),
    "pictures without labels": (
        "kadid10k",
        {},
        {},
        add("kadid10k/images/I99_01_01.png", "kadid10k/images/I01.png"),
        r'expected a label in .*dmos\.csv for each picture, 1 pictures have none: "I99_01_01\.png"; remove',
    ),
    "a picture without label in a folder inside": (
        "csiq",
        {},
        {},
        add("dst_imgs/blur/other.BLUR.1.png", "src_imgs/woman.png"),
        r'1 pictures have none: "other\.BLUR\.1\.png"',
    ),
    "names that differ in case alone": (
        "livec",
        {},
        {},
        add("ChallengeDB_release/Images/9.jpg", "ChallengeDB_release/Images/9.JPG"),
        r"expected names that differ in more than case, got 9\.JPG and 9\.jpg; remove the copy",
    ),
    "two copies": (
        "kadid10k",
        {},
        {},
        add("copy/dmos.csv", "kadid10k/dmos.csv"),
        r'expected one dmos\.csv of KADID-10k.*, found 2: "copy/dmos\.csv", "kadid10k/dmos\.csv"; give the one folder',
    ),
    "the other file of koniq": (
        "koniq10k",
        {"variant": "1-5"},
        {},
        lambda folder: None,
        r'one CSV with the columns "image_name", "MOS" and "set" \(that of scores="0-100"; found: koniq10k_scores_and',
    ),
    "the other pictures of koniq": (
        "koniq10k",
        {},
        {"size": "512x384"},
        lambda folder: None,
        'expected "512x384" of KonIQ-10k here',
    ),
    "an unknown part": (
        "koniq10k",
        {},
        {},
        change("koniq10k_distributions_sets.csv", "validation", "holdout"),
        'expected one of training, validation, test, got "holdout"; get the label file again',
    ),
    "a repeated name": (
        "koniq10k",
        {},
        {},
        change("koniq10k_distributions_sets.csv", "11.jpg", "10.jpg"),
        r'expected one row a picture, got 2 rows that share a name: "10\.jpg", "10\.jpg"; get the label file again',
    ),
    "a score off the scale": (
        "kadid10k",
        {},
        {},
        change("kadid10k/dmos.csv", "4.5", "45"),
        r"expected scores from 1 \(worst\) to 5 \(best\), got 2 outside: 45 \(I01_01_01\.png\), 45 \(I02_01_01\.png\)",
    ),
    "text for a score": (
        "flive",
        {},
        {},
        change("database/labels_image.csv", "63", "good"),
        r'labels_image\.csv, column "mos": expected numbers, got 1 that are no number: "good" in line 5',
    ),
    "a column that is absent": (
        "agiqa3k",
        {},
        {"scores": "align"},
        change("AGIQA-3K/data.csv", "mos_align", "align"),
        r'data\.csv: expected a column "mos_align", found "name", .*; is this the official label file\?',
    ),
    "a line of another form": (
        "tid2013",
        {},
        {},
        change("tid2013/mos_with_names.txt", "2.5 I01_02_2.bmp", "2.5"),
        r'mos_with_names\.txt, line 2: expected name and score, got "2\.5"',
    ),
    "vectors of different length": (
        "tid2013",
        {},
        {},
        change("tid2013/mos_std.txt", "0.1\n", ""),
        "expected as many entries here as in the label files beside it, got 6, 5; get the archive again",
    ),
    "an empty list": (
        "pipal",
        {},
        {},
        write("Train_Label/A0001.txt", b""),
        r"A0001\.txt: expected a name and a score in each line, got an empty file",
    ),
    "no lists": ("pipal", {}, {}, remove("Train_Label/A0001.txt", "Train_Label/A0002.txt"), r'such as "A0001\.txt"'),
    "no pictures of the challenge": (
        "pipal",
        {},
        {},
        lambda folder: [path.rename(folder / f"x{path.name}") for path in folder.glob("Dist*")],
        'expected "Train_Dis" or "Distortion_1" to "Distortion_4" of PIPAL',
    ),
    "no pictures of the validation part": (
        "pipal",
        {"validation": True},
        {},
        rename("Val_Dis", "unknown"),
        'expected "Val_Dis" or "Valid_Dis" or',
    ),
    "a picture in neither part": (
        "flive",
        {},
        {},
        change("database/labels=640_padded.csv", "voc_emotic_ava/AVA__2.JPG,False", ""),
        r'labels=640_padded\.csv: expected it and labels640\.csv to name every picture, 1 are in neither: "voc_emotic',
    ),
    "no MATLAB file": (
        "livec",
        {},
        {},
        write("ChallengeDB_release/Data/AllMOS_release.mat", b"version https"),
        r"AllMOS_release\.mat: expected a MATLAB file, got \(.*\); get the archive again",
    ),
    "a score that is not known": (
        "livec",
        {},
        {},
        lambda folder: (folder / "ChallengeDB_release/Data/AllMOS_release.mat").write_bytes(
            as_matrix(AllMOS_release=[[*[50.0] * 10, 51.0, float("nan")]])
        ),
        r"expected scores from 0 \(worst\) to 100 \(best\), got 1 outside: nan \(7\.bmp\); get the label file again",
    ),
    "another variable": (
        "live",
        {},
        {},
        lambda folder: (
            shutil.copy(folder / "databaserelease2/dmos.mat", folder / "databaserelease2/dmos_realigned.mat") and None
        ),
        r'dmos_realigned\.mat: expected a variable "dmos_new", found dmos, orgs',
    ),
    "no workbook": (
        "csiq",
        {},
        {},
        write("csiq.DMOS.xlsx", b"<html>"),
        r"csiq\.DMOS\.xlsx: expected an Excel workbook, got \(.*\); get the archive again",
    ),
    "no old workbook": (
        "bid",
        {},
        {},
        write("DatabaseGrades.xls", b"<html>"),
        r"DatabaseGrades\.xls: expected an Excel workbook, got \(.*\); get the archive again",
    ),
    "another workbook": (
        "csiq",
        {},
        {},
        lambda folder: _write_sheet(folder / "csiq.DMOS.xlsx", "Sheet1", [["image"]]),
        r'csiq\.DMOS\.xlsx: expected a sheet "all_by_image", found Sheet1',
    ),
    "another sheet": (
        "bid",
        {},
        {},
        lambda folder: _write_sheet(folder / "DatabaseGrades.xlsx", "Plan1", [["Number", "Grade"]]),
        r'DatabaseGrades\.xlsx: expected a column "Image Number", found none; is this the official workbook\?',
    ),
    "a sheet without rows": (
        "bid",
        {},
        {},
        lambda folder: _write_sheet(folder / "DatabaseGrades.xlsx", "Plan1", [["Image Number", "Grade"]]),
        'expected rows below the column "Image Number", found none; get the workbook again',
    ),
    "a negative variance": (
        "kadid10k",
        {},
        {},
        change("kadid10k/dmos.csv", "I01_01_03.png,I01.png,3.5,0.25", "I01_01_03.png,I01.png,3.5,-0.25"),
        r"dmos\.csv, line 4: expected I01_01_01\.png and a variance, got I01_01_03\.png, -0\.25",
    ),
}


def as_matrix(**variables: Any) -> bytes:
    stream = io.BytesIO()
    savemat(stream, variables)
    return stream.getvalue()


def _write_sheet(path: Path, sheet: str, rows: Sequence[Sequence[object]]) -> None:
    from openpyxl import Workbook

    book = Workbook()
    page = book.active
    page.title = sheet
    for row in rows:
        page.append(list(row))
    book.save(path)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str, lay_out: LayOut, small_labels: Path, tmp_path: Path) -> None:
    name, layout, options, damage, match = FAULTS[fault]
    folder = tmp_path / "set"
    shutil.copytree(lay_out(name, small_labels, **layout), folder)
    damage(folder)
    with pytest.raises(GRMPError, match=match):
        read_benchmark(name, folder, **options)


def test_wrong_name_folder_and_options(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r'expected a data set out of livec, .*, got "koniq" \(did you mean "koniq10k"'):
        read_benchmark("koniq", tmp_path)
    with pytest.raises(
        GRMPError, match=r"nowhere: expected the folder or archive of SPAQ.*; get it from https://github"
    ):
        read_benchmark("spaq", tmp_path / "nowhere")
    with pytest.raises(GRMPError, match=r'expected "dmos\.csv" of KADID.* found an empty folder'):
        read_benchmark("kadid10k", tmp_path)
    with pytest.raises(GRMPError, match=r'livec: expected options out of \(practice\), got "scores"; leave it out'):
        read_benchmark("livec", tmp_path, scores="1-5")
    with pytest.raises(GRMPError, match=r"koniq10k: expected scores to be one of '0-100', '1-5', got '0-1'"):
        read_benchmark("koniq10k", tmp_path, scores="0-1")
    (tmp_path / "set.txt").write_text("text")
    with pytest.raises(GRMPError, match=r"set\.txt: expected a folder or an archive \(zip, tar\), got another file"):
        read_benchmark("kadid10k", tmp_path / "set.txt")


@pytest.mark.parametrize(("name", "package"), [("csiq", "openpyxl"), ("bid", "xlrd")])
def test_a_reader_that_is_not_installed(
    name: str, package: str, lay_out: LayOut, small_labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(lay_out(name, small_labels), folder)
    if package == "xlrd":
        (folder / "DatabaseGrades.xls").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        GRMPError, match=rf"needs {package}, which is not installed; .*pip install 'grmp_hf\[archives\]'"
    ):
        read_benchmark(name, folder)
