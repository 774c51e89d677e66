"""Official archives in miniature: every layout as its authors publish it, with tiny pictures.

Labels come from a folder in the form of GRMP_HF_TEST_LABELS: the real one, or one with a few rows made up here. Each
`_livec`, `_koniq10k`, ... turns it into the official files and the names of the pictures, with plain means.
"""

from __future__ import annotations

import csv
import functools
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Files = dict[str, bytes]
LayOut = Callable[..., Path]
LIVE_COUNTS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


@pytest.fixture(scope="session")
def lay_out(tmp_path_factory: pytest.TempPathFactory) -> LayOut:
    """`lay_out(name, labels, **variant)`: an official layout in a folder, made once, not to be changed."""
    templates = tmp_path_factory.mktemp("templates")

    @functools.cache
    def write(name: str, labels: Path, **variant: Any) -> Path:
        files, pictures = LAYOUTS[name](labels, **variant)
        folder = tmp_path_factory.mktemp(name)
        for relative, content in files.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        made: set[str] = set()
        for relative in pictures:
            parent, _, _ = relative.rpartition("/")
            if parent not in made:
                os.makedirs(folder / parent, exist_ok=True)
                made.add(parent)
            os.link(_template(templates / folder.name, relative), f"{folder}/{relative}")
        return folder

    return write


def _template(folder: Path, name: str) -> Path:
    """One small picture a suffix, to which all others are links: forty thousand of them take a second."""
    path = folder / f"picture{os.path.splitext(name)[1].lower()}"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2), (250, 130, 10)).save(path)
    return path


@pytest.fixture(scope="session")
def small_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the form of GRMP_HF_TEST_LABELS with a few made-up rows a data set."""
    root = tmp_path_factory.mktemp("labels")
    for relative, content in _made_up_labels().items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()


def as_workbook(rows: Iterable[Sequence[object]], sheet: str = "Sheet1") -> bytes:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    page = book.create_sheet(sheet)
    for row in rows:
        page.append(list(row))
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def as_matrix(**variables: Any) -> bytes:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, variables)
    return stream.getvalue()


def cell_array(texts: Sequence[str]) -> Any:
    cells = np.empty((len(texts), 1), dtype=object)
    cells[:, 0] = texts
    return cells


def _livec(labels: Path) -> tuple[Files, list[str]]:
    rows = read_rows(labels / "livec/livec_release.csv")
    top = "ChallengeDB_release"
    columns = {
        "AllImages_release": cell_array([row["image"] for row in rows]),
        "AllMOS_release": [[float(row["mos"]) for row in rows]],
        "AllStdDev_release": [[float(row["std"]) for row in rows]],
    }
    files = {f"{top}/Data/{name}.mat": as_matrix(**{name: values}) for name, values in columns.items()}
    return files, [f"{top}/{row['folder']}/{row['image']}" for row in rows]


def _koniq10k(labels: Path, variant: str = "0-100", size: str = "1024x768") -> tuple[Files, list[str]]:
    path = labels / "koniq10k/koniq10k_distributions_sets.csv"
    rows = read_rows(path)
    files = {"koniq10k_distributions_sets.csv": path.read_bytes()}
    if variant == "1-5":
        means = [row["MOS"] for row in read_rows(labels / "koniq10k/koniq10k_mos_1to5.csv")]
        head = ["image_name", *(f"c{i}" for i in range(1, 6)), "c_total", "MOS", "SD", "MOS_zscore"]
        votes = [[round(float(row[f"c{i}"]) * int(row["c_total"])) for i in range(1, 6)] for row in rows]
        body = [
            [row["image_name"], *vote, row["c_total"], mean, row["SD"], row["MOS"]]
            for row, vote, mean in zip(rows, votes, means, strict=True)
        ]
        files = {"koniq10k_scores_and_distributions.csv": as_csv([head, *body])}
    return files, [f"{size}/{row['image_name']}" for row in rows]


def _spaq(labels: Path, suffix: str = ".xlsx") -> tuple[Files, list[str]]:
    rows = read_rows(labels / "spaq/spaq_mos_attributes_scenes.csv")
    head = list(rows[0])[:7]
    body = [[row["Image name"], *(float(row[name]) for name in head[1:])] for row in rows]
    content = as_workbook([head, *body]) if suffix == ".xlsx" else as_csv([head, *body])
    files = {f"SPAQ/Annotations/MOS and Image attribute scores{suffix}": content}
    return files, [f"SPAQ/Dataset/TestImage/{row['Image name']}" for row in rows]


def _live(labels: Path) -> tuple[Files, list[str]]:
    rows = read_rows(labels / "live/live_release2.csv")
    column = {name: [[float(row[name]) for row in rows]] for name in ("dmos", "dmos_new", "dmos_std", "orgs")}
    top = "databaserelease2"
    new = {name: column[name] for name in ("dmos_new", "dmos_std", "orgs")}
    files = {
        f"{top}/dmos_realigned.mat": as_matrix(**new),
        f"{top}/dmos.mat": as_matrix(dmos=column["dmos"], orgs=column["orgs"]),
        f"{top}/refnames_all.mat": as_matrix(refnames_all=cell_array([row["reference"] for row in rows]).T),
    }
    references = sorted({row["reference"] for row in rows})
    return files, [f"{top}/{row['image']}" for row in rows] + [f"{top}/refimgs/{name}" for name in references]


CSIQ_FOLDERS = {"AWGN": "awgn", "JPEG": "jpeg", "BLUR": "blur"}


def _csiq(labels: Path, variant: str = ".xlsx", flat: bool = False) -> tuple[Files, list[str]]:
    text = (labels / "csiq/csiq_label.txt").read_bytes()
    names = [line.split()[0] for line in text.decode().splitlines()]
    files = {"csiq_label.txt": text}
    if variant == ".xlsx":
        files = {"csiq.DMOS.xlsx": (labels / "csiq/csiq.beta.xlsx").read_bytes()}
    kinds = [CSIQ_FOLDERS.get(name.split(".")[1], name.split(".")[1]) for name in names]
    pictures = [f"dst_imgs/{kind}/{name}" for kind, name in zip(kinds, names, strict=True)]
    if flat:
        pictures = [f"dst_imgs_all/{name}" for name in names]
    return files, [*pictures, *(f"src_imgs/{name}.png" for name in {name.split(".")[0] for name in names})]


def _tid2013(labels: Path) -> tuple[Files, list[str]]:
    texts = {
        name: (labels / "tid2013" / name).read_bytes() for name in ("mos_with_names.txt", "mos.txt", "mos_std.txt")
    }
    names = [line.split()[1] for line in texts["mos_with_names.txt"].decode().splitlines()]
    # The disk spells names otherwise than the list.
    pictures = [f"tid2013/distorted_images/{name.lower()}" for name in names]
    references = {f"tid2013/reference_images/I{name[1:3]}.BMP" for name in names}
    return {f"tid2013/{name}": text for name, text in texts.items()}, [*pictures, *references]


def _kadid10k(labels: Path) -> tuple[Files, list[str]]:
    path = labels / "kadid10k/dmos.csv"
    rows = read_rows(path)
    names = [row["dist_img"] for row in rows] + sorted({row["ref_img"] for row in rows})
    return {"kadid10k/dmos.csv": path.read_bytes()}, [f"kadid10k/images/{name}" for name in names]


def _bid(labels: Path) -> tuple[Files, list[str]]:
    files = {path.name: path.read_bytes() for path in (labels / "bid").iterdir()}
    if "DatabaseGrades.xls" in files:
        import xlrd

        numbers = [
            int(value) for value in xlrd.open_workbook(file_contents=files["DatabaseGrades.xls"])[0].col_values(0)[1:]
        ]
    else:
        numbers = [1, 3, 4, 5, 6, 590]
    return files, [f"ImageDatabase/DatabaseImage{number:04}.JPG" for number in numbers]


def _flive(labels: Path, padded: bool = True) -> tuple[Files, list[str]]:
    files = {name: (labels / "flive" / name).read_bytes() for name in ("labels_image.csv", "labels640.csv")}
    parts = read_rows(labels / "flive/image_split.csv")
    if padded:
        rest = [[row["name"], str(row["split"] == "val")] for row in parts if row["split"] != "test"]
        files["labels=640_padded.csv"] = as_csv([["name_image", "is_valid"], *rest])
    pictures = [f"database/{row['name']}" for row in parts]
    patches = [f"database/patches/{row['name']}" for row in parts[:3]]
    return {f"database/{name}": content for name, content in files.items()}, [*pictures, *patches]


def _pipal(labels: Path, validation: bool = False, joined: bool = False) -> tuple[Files, list[str]]:
    lines = (labels / "pipal/train_label_all.txt").read_text().splitlines()
    by_reference: dict[str, list[str]] = {}
    for line in lines:
        by_reference.setdefault(line[:5], []).append(line)
    files = {f"Train_Label/{name}.txt": "\n".join(part).encode() for name, part in by_reference.items()}
    order = {name: 1 + place * 4 // len(by_reference) for place, name in enumerate(by_reference)}
    folders = [("Train_Dis" if joined else f"Distortion_{order[line[:5]]}") for line in lines]
    pictures = [f"{folder}/{line.partition(',')[0]}" for folder, line in zip(folders, lines, strict=True)]
    pictures += [f"Train_Ref/{name}.bmp" for name in by_reference]
    if validation:
        text = (labels / "pipal/pipal21_val.txt").read_text()
        files["pipal21_val.txt"] = text.replace(",", ", ").encode()
        pictures += [f"Val_Dis/{line.partition(',')[0]}" for line in text.splitlines()]
    return files, pictures


def _agiqa3k(labels: Path) -> tuple[Files, list[str]]:
    path = labels / "agiqa3k/data.csv"
    return {"AGIQA-3K/data.csv": path.read_bytes()}, [f"AGIQA-3K/{row['name']}" for row in read_rows(path)]


def _biq2021(labels: Path) -> tuple[Files, list[str]]:
    paths = [labels / "biq2021" / f"{part} (Images and MOS).csv" for part in ("Train", "Test")]
    names = [row["Image Name"] for path in paths for row in read_rows(path)]
    # One picture of the official archive ends in capitals.
    pictures = [f"Images/{name.replace('.jpg', '.JPG') if name == 'ss02 (1014).jpg' else name}" for name in names]
    return {path.name: path.read_bytes() for path in paths}, pictures


LAYOUTS: dict[str, Callable[..., tuple[Files, list[str]]]] = {
    "livec": _livec,
    "koniq10k": _koniq10k,
    "spaq": _spaq,
    "live": _live,
    "csiq": _csiq,
    "tid2013": _tid2013,
    "kadid10k": _kadid10k,
    "bid": _bid,
    "flive": _flive,
    "pipal": _pipal,
    "agiqa3k": _agiqa3k,
    "biq2021": _biq2021,
}


def _small_live() -> bytes:
    """All 982 rows, since the order of the vectors is fixed; every fifth is a copy of the reference."""
    names = [(kind, f"{kind}/img{n}.bmp") for kind, count in LIVE_COUNTS.items() for n in range(1, count + 1)]
    rows = []
    for i, (kind, name) in enumerate(names):
        original = int(i % 5 == 0)
        scores = [0.0, 0.0, 0.0] if original else [20.0 + i % 60, i % 110 - 2.5, 1.5]
        rows.append([i, name, kind, f"ref{i % 29}.bmp", original, *scores])
    return as_csv([["index", "image", "distortion", "reference", "orgs", "dmos", "dmos_new", "dmos_std"], *rows])


def _small_csiq() -> tuple[bytes, str]:
    kinds = ["noise", "jpeg", "jpeg 2000", "fnoise", "blur", "contrast"]
    files = ["AWGN", "JPEG", "jpeg2000", "fnoise", "BLUR", "contrast"]
    head = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    body = [[1600 if i < 3 else "woman", i, kind, i + 1, 0.01 * i, i / 5] for i, kind in enumerate(kinds)]
    rows = [[None] * 3 + row for row in [[], [], [], head, *body]]
    lines = [f"{row[0]}.{kind}.{row[3]}.png {row[5]:.6f}" for row, kind in zip(body, files, strict=True)]
    return as_workbook(rows, "all_by_image"), "\r\n".join(lines) + "\r\n"


def _made_up_labels() -> dict[str, bytes]:
    workbook, csiq_list = _small_csiq()
    livec = ["100.bmp", "9.JPG", "10.bmp", "8.JPG", "7.bmp"]
    koniq_parts = [*["training"] * 4, "validation", "test"]
    tid = [f"{ref}_0{kind}_{kind}" for ref in ("I01", "i25") for kind in (1, 2, 3)]
    kadid = [(ref, level) for ref in ("I01", "I02") for level in range(1, 6)]
    blur, *voc, frame = FLIVE_NAMES
    pipal = [(f"A000{ref}_0{group}_0{i}.bmp", 10 * ref + group) for ref in (1, 2) for group in (0, 1) for i in (0, 1)]
    prompts = [(model, i) for model in ("glide_normal", "xl2.2_normal") for i in range(3)]
    train = ["ss03 (3)", "ss01 (1)", "ss02 (1014)", "ss03 (10)"]
    return {
        "livec/livec_release.csv": as_csv(
            [["index", "image", "folder", "mos", "std"]]
            + [[i, f"t{i + 1}.bmp", "Images/trainingImages", 10 + i, 7 + i] for i in range(7)]
            + [[i, name, "Images", 13.5 + i, 9] for i, name in enumerate(livec, 7)]
        ),
        "koniq10k/koniq10k_distributions_sets.csv": as_csv(
            [["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set"]]
            + [[f"{10 + i}.jpg", *[0.2] * 5, 100, 50 + 4 * i, 0.5, part] for i, part in enumerate(koniq_parts)]
        ),
        "koniq10k/koniq10k_mos_1to5.csv": as_csv(
            [["image_name", "MOS"], *([f"{10 + i}.jpg", 3 + i / 8] for i in range(6))]
        ),
        "spaq/spaq_mos_attributes_scenes.csv": as_csv(
            [["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness", "Night scene"]]
            + [[f"0000{i}.jpg", 10.5 * i, 1, 2, 3, 4, 5, 0] for i in range(1, 7)]
        ),
        "live/live_release2.csv": _small_live(),
        "csiq/csiq.beta.xlsx": workbook,
        "csiq/csiq_label.txt": csiq_list.encode(),
        "tid2013/mos_with_names.txt": "".join(f"{1.5 + i} {name}.bmp\r\n" for i, name in enumerate(tid)).encode(),
        "tid2013/mos.txt": "".join(f"{1.5 + i}\r\n" for i in range(len(tid))).encode(),
        "tid2013/mos_std.txt": "".join(f"0.{i + 1}\r\n" for i in range(len(tid))).encode(),
        "kadid10k/dmos.csv": as_csv(
            [["dist_img", "ref_img", "dmos", "var"]]
            + [[f"{ref}_01_0{level}.png", f"{ref}.png", 5 - level / 2, 0.25] for ref, level in kadid]
        ),
        "bid/DatabaseGrades.xlsx": as_workbook(
            [["Image Number", "Average Subjective Grade", "Number of Grades", "Grade #1"]]
            + [[number, 0.5 + i / 2, 1, 0.5] for i, number in enumerate([1, 3, 4, 5, 6, 590])]
        ),
        "flive/labels_image.csv": as_csv([["name", "mos"], *([name, 60 + i] for i, name in enumerate(FLIVE_NAMES))]),
        "flive/labels640.csv": as_csv([["mos_image", "name_image"], [61, voc[0]]]),
        "flive/image_split.csv": as_csv(
            [["name", "split"], [blur, "val"], [voc[0], "test"], *([name, "train"] for name in [*voc[1:], frame])]
        ),
        "pipal/train_label_all.txt": "".join(f"{name},14{number}.5000\n" for name, number in pipal).encode(),
        "pipal/pipal21_val.txt": b"A0005_10_00.bmp,868.2988\nA0005_10_02.bmp,1857.0\n",
        "agiqa3k/data.csv": as_csv(
            [["name", "prompt", "adj1", "adj2", "style", "mos_quality", "std_quality", "mos_align", "std_align"]]
            + [[f"{model}_00{i}.jpg", f"a cat, no. {i}", "", "", "", 1 + i, 0.5, 4 - i, 0.25] for model, i in prompts]
        ),
        "biq2021/Train (Images and MOS).csv": as_csv(
            [["Image Name", "MOS", "", ""], *([f"{name}.jpg", (1 + i) / 10, "", ""] for i, name in enumerate(train))]
        ),
        "biq2021/Test (Images and MOS).csv": as_csv(
            [["Image Name", "MOS"], ["ss03 (7).jpg", 0.75], ["ss01 (2).jpg", 1]]
        ),
    }


FLIVE_NAMES = [
    "blur_dataset/motion1.jpg",
    "voc_emotic_ava/AVA__1.jpg",
    "voc_emotic_ava/AVA__2.JPG",
    "voc_emotic_ava/VOC2012__3.jpg",
    "EE371R/e.jpg",
]
