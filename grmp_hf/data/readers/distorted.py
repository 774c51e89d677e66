"""Label files of pictures that were distorted on purpose: several versions of each reference."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grmp_hf.data.columns import Row
from grmp_hf.data.label_files import cells_of, numbers_of, read_lines, read_matrix, read_sheet
from grmp_hf.data.official import OfficialFolder, fold, list_pictures
from grmp_hf.data.readers.labels import Labels, check_lengths, label, look_up, with_inner
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.tables import read_csv
from grmp_hf.errors import GRMPError

__all__ = [
    "read_csiq",
    "read_kadid10k",
    "read_live",
    "read_pipal",
    "read_tid2013",
]

_CSIQ_TYPES = {
    "noise": "AWGN",
    "jpeg": "JPEG",
    "jpeg2000": "jpeg2000",
    "fnoise": "fnoise",
    "blur": "BLUR",
    "contrast": "contrast",
}
"""The spelling of a type in the workbook, without blanks -> in the names of the pictures."""


def read_live(folder: OfficialFolder, scores: str) -> Labels:
    """LIVE, release 2: vectors in one fixed order of folders and numbers; copies of references (`orgs`) are dropped."""
    counts = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
    names = [(kind, f"{kind}/img{number}.bmp") for kind, count in counts.items() for number in range(1, count + 1)]
    realigned = scores == "realigned"
    file = folder.one("dmos_realigned.mat" if realigned else "dmos.mat")
    mos = read_matrix(file, "dmos_new" if realigned else "dmos")
    deviations = read_matrix(file, "dmos_std") if realigned else [None] * len(names)
    originals = read_matrix(file, "orgs")
    references = read_matrix(folder.one("refnames_all.mat"), "refnames_all")
    check_lengths(file, names, mos, deviations, originals, references)
    rows = [
        label(name, mos[i], i, deviations[i], references[i], kind)
        for i, (kind, name) in enumerate(names)
        if not originals[i]
    ]
    known = {fold(name) for i, (_, name) in enumerate(names) if originals[i]}
    pictures = list_pictures([folder.one(kind) for kind in counts], prefix=True)
    return Labels(file, rows, pictures, known, scale=None if realigned else RatingScale(0, 100, higher_is_better=False))


def read_csiq(folder: OfficialFolder) -> Labels:
    """CSIQ: the official workbook, or the widespread list; names as the pictures have them, types in lower case."""
    file = folder.one("csiq*.xlsx", "csiq_label.txt")
    if file.suffix.lower() == ".xlsx":
        table = read_sheet(file, header="dst_type", sheet="all_by_image")
        kinds = [look_up(_CSIQ_TYPES, str(kind).replace(" ", ""), table) for kind in cells_of(table, "dst_type")]
        # The reference "1600" is a number to Excel.
        images = [image if isinstance(image, str) else f"{image:g}" for image in cells_of(table, "image")]
        levels = [str(int(level)) for level in numbers_of(table, "dst_lev")]
        deviations: Sequence[float | None] = numbers_of(table, "dmos_std")
    else:
        table = read_lines(file, r"(?P<image>.+)\.(?P<kind>\w+)\.(?P<level>\d)\.png\s+(?P<dmos>\S+)")
        images, kinds, levels = ([*cells_of(table, name)] for name in ("image", "kind", "level"))
        deviations = [None] * len(images)
    cells = zip(images, kinds, levels, numbers_of(table, "dmos"), deviations, strict=True)
    rows = [
        label(f"{image}.{kind}.{level}.png", mos, i, deviation, image, kind.lower(), level)
        for i, (image, kind, level, mos, deviation) in enumerate(cells)
    ]
    return Labels(
        file,
        rows,
        list_pictures(with_inner(folder.one("dst_imgs", "dst_imgs_all"))),
        {fold(f"{image}.png") for image in images},
    )


def read_tid2013(folder: OfficialFolder, artificial: bool) -> Labels:
    """TID2013: two lists of one order; reference, type and level are in the name."""
    file = folder.one("mos_with_names.txt")
    table = read_lines(file, r"(?P<mos>\S+)\s+(?P<name>(?P<reference>[Ii]\d\d)_(?P<kind>\d\d)_(?P<level>\d)\.\w+)")
    deviations = numbers_of(read_lines(folder.one("mos_std.txt"), r"(?P<std>\S+)"), "std")
    mos = numbers_of(table, "mos")
    check_lengths(file, mos, deviations)
    cells = zip(
        *(cells_of(table, name) for name in ("name", "reference", "kind", "level")), mos, deviations, strict=True
    )
    rows = [
        label(name, mos, i, deviation, reference.upper(), kind, level)
        for i, (name, reference, kind, level, mos, deviation) in enumerate(cells)
    ]
    kept = [row for row in rows if artificial or row.reference != "I25"]  # the one that no camera has taken
    known = {fold(row.name) for row in rows}
    return Labels(file, kept, list_pictures([folder.one("distorted_images")]), known)


def read_kadid10k(folder: OfficialFolder) -> Labels:
    """KADID-10k: `dmos` rises with quality, `var` is a variance; references lie among the pictures."""
    file = folder.one("dmos.csv")
    table = read_csv(file)
    variances = numbers_of(table, "var")
    cells = zip(
        cells_of(table, "dist_img"), cells_of(table, "ref_img"), numbers_of(table, "dmos"), variances, strict=True
    )
    rows = []
    for i, (name, reference, mos, variance) in enumerate(cells):
        match = re.fullmatch(r"I\d\d_(\d\d)_(\d\d)\.\w+", name, re.IGNORECASE)
        if match is None or variance < 0:
            raise GRMPError(f"{file}, {table.places[i]}: expected I01_01_01.png and a variance, got {name}, {variance}")
        rows.append(label(name, mos, i, variance**0.5, reference, *match.groups()))
    known = {fold(str(row.reference)) for row in rows}
    return Labels(file, rows, list_pictures([folder.one("images")]), known)


def read_pipal(folder: OfficialFolder) -> Labels:
    """PIPAL: one list a reference; where the challenge's validation part is there, it is the test part.

    The labels of the challenge's own test parts were never published, and this part shares no reference with the rest.
    """
    labels = folder.one("Train_Label")
    files = sorted(path for path in labels.iterdir() if path.suffix.lower() == ".txt")
    if not files:
        raise folder.missing('files such as "A0001.txt" in Train_Label')
    places = folder.find("Train_Dis", "Distortion_[1-4]")
    if not places:
        raise folder.missing('"Train_Dis" or "Distortion_1" to "Distortion_4"')
    folders = [inner for place in places for inner in with_inner(place)]
    validation = folder.find("pipal21_val.txt", "*val*.txt")
    if validation:
        folders += with_inner(folder.one("Val_Dis", "Valid_Dis", "Validation_Dis", "Val*Dis*"))
    form = r"(?P<name>(?P<reference>A\d{4})_(?P<kind>\d\d)_(?P<level>\d\d)\.\w+)\s*,\s*(?P<mos>\S+)"
    rows: list[Row] = []
    for file in [*files, *validation[:1]]:
        table = read_lines(file, form)
        split = None if not validation else "test" if file == validation[0] else "train"
        names = ("name", "reference", "kind", "level")
        for *cells, mos in zip(*(cells_of(table, name) for name in names), numbers_of(table, "mos"), strict=True):
            name, reference, kind, level = cells
            rows.append(label(name, mos, len(rows), None, reference, kind, level, split=split))
    return Labels(labels, rows, list_pictures(folders))
