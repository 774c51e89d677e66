"""Label files of pictures as cameras and generators made them: no references, at most a prompt."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from grmp_hf.data.columns import Row, first_few
from grmp_hf.data.label_files import cells_of, numbers_of, read_matrix, read_sheet, read_table
from grmp_hf.data.official import OfficialFolder, fold, list_pictures
from grmp_hf.data.readers.labels import Labels, check_lengths, label, look_up, with_inner
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.tables import read_csv
from grmp_hf.errors import GRMPError

__all__ = [
    "read_agiqa3k",
    "read_bid",
    "read_biq2021",
    "read_flive",
    "read_koniq10k",
    "read_livec",
    "read_spaq",
]


def read_livec(folder: OfficialFolder, practice: bool) -> Labels:
    """LIVE Challenge: three MATLAB vectors in one order; seven pictures for practice come first, in a folder inside."""
    file = folder.one("AllImages_release.mat")
    names = read_matrix(file, "AllImages_release")
    mos = read_matrix(folder.one("AllMOS_release.mat"), "AllMOS_release")
    deviations = read_matrix(folder.one("AllStdDev_release.mat"), "AllStdDev_release")
    check_lengths(file, names, mos, deviations)
    rows = [label(name, mos[i], i, deviations[i]) for i, name in enumerate(names)]
    training = {fold(f"t{number}.bmp") for number in range(1, 8)}
    if not practice:
        rows = [row for row in rows if fold(row.name) not in training]
    pictures = list_pictures([folder.one("Images"), *folder.find("trainingImages")])
    return Labels(file, rows, pictures, training)


def read_koniq10k(folder: OfficialFolder, scores: str, size: str) -> Labels:
    """KonIQ-10k: two CSVs whose `MOS` are different scales, told apart by the columns that only one of them has."""
    mark = {"0-100": "set", "1-5": "MOS_zscore"}[scores]
    found = {path: _csv_header(path) for path in folder.find("koniq*.csv", "*.csv")}
    files = [path for path, names in found.items() if {"image_name", "mos", mark.casefold()} <= names]
    # The newer file has `set` and no `MOS_zscore`; a copy that was joined from both would have two scales in one.
    files = [path for path in files if not {"set", "mos_zscore"} <= found[path]]
    if len(files) != 1:
        others = first_few([path.name for path in found]) or "no CSV"
        raise folder.missing(
            f'one CSV with the columns "image_name", "MOS" and "{mark}" (that of scores="{scores}"; found: {others})'
        )
    table = read_csv(files[0])
    newer = scores == "0-100"
    # The deviation is in units of 1..5 in both files.
    deviations = [sd * (25.0 if newer else 1.0) for sd in numbers_of(table, "SD")]
    words = {"training": "train", "validation": "validation", "test": "test"}
    splits = [look_up(words, cell, table) for cell in cells_of(table, "set")] if newer else [None] * len(deviations)
    cells = zip(cells_of(table, "image_name"), numbers_of(table, "MOS"), deviations, splits, strict=True)
    rows = [label(name, mos, i, sd, split=split) for i, (name, mos, sd, split) in enumerate(cells)]
    return Labels(
        files[0], rows, list_pictures([folder.one(size)]), scale=RatingScale(0, 100) if newer else RatingScale(1, 5)
    )


def read_spaq(folder: OfficialFolder) -> Labels:
    """SPAQ: the first workbook of three, or a CSV with its header."""
    file = folder.one("MOS and Image attribute scores.xlsx", "MOS and Image attribute scores.csv", "*mos*.csv")
    table = read_table(file, header="Image name")
    pairs = zip(cells_of(table, "Image name"), numbers_of(table, "MOS"), strict=True)
    rows = [label(str(name), mos, i) for i, (name, mos) in enumerate(pairs)]
    return Labels(file, rows, list_pictures([folder.one("TestImage")]))


def read_bid(folder: OfficialFolder) -> Labels:
    """BID: a workbook that names pictures by number; the average as given, which is not always that of the grades."""
    file = folder.one("DatabaseGrades.xls", "DatabaseGrades.xlsx")
    table = read_sheet(file, header="Image Number")
    pairs = zip(numbers_of(table, "Image Number"), numbers_of(table, "Average Subjective Grade"), strict=True)
    rows = [label(f"DatabaseImage{int(number):04}.JPG", mos, i) for i, (number, mos) in enumerate(pairs)]
    return Labels(file, rows, list_pictures([folder.one("ImageDatabase")]))


def read_flive(folder: OfficialFolder) -> Labels:
    """FLIVE: whole pictures; their patches are other rows in other folders and never mixed in."""
    file = folder.one("labels_image.csv")
    table = read_csv(file)
    names = cells_of(table, "name")
    splits, notes = _flive_splits(folder, names)
    pairs = zip(names, numbers_of(table, "mos"), splits, strict=True)
    rows = [label(name, mos, i, split=split) for i, (name, mos, split) in enumerate(pairs)]
    folders = [folder.one(part) for part in dict.fromkeys(name.partition("/")[0] for name in names)]
    return Labels(file, rows, list_pictures(folders, prefix=True), notes=notes)


def _flive_splits(folder: OfficialFolder, names: Sequence[str]) -> tuple[list[str | None], tuple[str, ...]]:
    tests, others = folder.find("labels640.csv"), folder.find("labels=640_padded.csv")
    if not (tests and others):
        absent = [name for name, found in (("labels640.csv", tests), ("labels=640_padded.csv", others)) if not found]
        return [None] * len(names), (f"{folder.spec.title}: no official split without {' and '.join(absent)}",)
    parts = dict.fromkeys(map(_base, cells_of(read_csv(tests[0]), "name_image")), "test")
    table = read_csv(others[0])
    words = {"true": "validation", "1": "validation", "false": "train", "0": "train"}
    for name, cell in zip(cells_of(table, "name_image"), cells_of(table, "is_valid"), strict=True):
        parts.setdefault(_base(name), look_up(words, cell, table))
    absent = [f'"{name}"' for name in names if _base(name) not in parts]
    if absent:
        raise GRMPError(
            f"{others[0]}: expected it and {tests[0].name} to name every picture, {len(absent)} are in neither: "
            f"{first_few(absent)}; get both from {folder.spec.home}"
        )
    return [parts[_base(name)] for name in names], ()


def read_agiqa3k(folder: OfficialFolder, scores: str) -> Labels:
    """AGIQA-3K: `scene` is the prompt, `distortion` the generator and its setting."""
    file = folder.one("data.csv")
    table = read_csv(file)
    names = cells_of(table, "name")
    numbers = numbers_of(table, f"mos_{scores}"), numbers_of(table, f"std_{scores}")
    rows = [
        label(name, mos, i, deviation, distortion=name.rpartition("_")[0], scene=prompt)
        for i, (name, prompt, mos, deviation) in enumerate(zip(names, cells_of(table, "prompt"), *numbers, strict=True))
    ]
    return Labels(file, rows, list_pictures(with_inner(file.parent)))


def read_biq2021(folder: OfficialFolder) -> Labels:
    """BIQ2021: two CSVs, train before test; `scene` is the subset."""
    rows: list[Row] = []
    for split, title in (("train", "Train"), ("test", "Test")):
        file = folder.one(f"{title} (Images and MOS).csv")
        table = read_csv(file)
        for name, mos in zip(cells_of(table, "Image Name"), numbers_of(table, "MOS"), strict=True):
            rows.append(label(name, mos, len(rows), scene=name.partition(" ")[0], split=split))
    return Labels(file.parent, rows, list_pictures([folder.one("Images")]))


def _csv_header(path: Path) -> set[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return {name.strip().casefold() for name in next(csv.reader(file), [])}


def _base(name: str) -> str:
    return fold(name.rpartition("/")[2])
