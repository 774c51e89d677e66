"""Parquet: every type of a column is read or refused by name, nothing is cached, every fault is named."""

from __future__ import annotations

import datetime
import decimal
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from grmp_hf.data import ImageError, decode_row, iter_images, parquet, read_ratings
from grmp_hf.errors import GRMPError

NAMES = [f"{letter}.png" for letter in "abcdef"]
RATINGS = [1.0, 2.0, 3.5, 4.0, 5.0, 2.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for grey, name in enumerate(NAMES):
        Image.new("L", (4, 4), grey * 40).save(tmp_path / name)
    return tmp_path


def write(folder: Path, rows_a_group: int | None = None, **columns: Any) -> Path:
    path = folder / "labels.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return path


# kind -> (cells of the column image, from the folder)
PICTURES: dict[str, Callable[[Path], pa.Array]] = {
    "names": lambda folder: pa.array(NAMES),
    "large names": lambda folder: pa.array(NAMES, pa.large_string()),
    "name views": lambda folder: pa.array(NAMES, pa.string_view()),
    "names as a dictionary": lambda folder: pa.array(NAMES).dictionary_encode(),
    "names as bytes": lambda folder: pa.array([name.encode() for name in NAMES]),
    "bytes": lambda folder: pa.array([(folder / name).read_bytes() for name in NAMES]),
    "large bytes": lambda folder: pa.array([(folder / name).read_bytes() for name in NAMES], pa.large_binary()),
    "structure": lambda folder: pa.array([{"bytes": (folder / n).read_bytes(), "path": n} for n in NAMES]),
    "structure of paths": lambda folder: pa.array([{"bytes": None, "path": n} for n in NAMES]),
    "structure of a path alone": lambda folder: pa.array([{"path": n} for n in NAMES]),
    "structure of bytes alone": lambda folder: pa.array([{"bytes": (folder / n).read_bytes()} for n in NAMES]),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("rows_a_group", [None, 2])
def test_every_kind_of_pictures(kind: str, rows_a_group: int | None, folder: Path) -> None:
    read = read_ratings(write(folder, rows_a_group, image=PICTURES[kind](folder), mos=RATINGS))
    assert [row.mos for row in read.rows] == RATINGS
    found = [(row.name, picture) for row, picture in iter_images(read.rows)]
    greys = [picture.getpixel((0, 0)) for _, picture in found if isinstance(picture, Image.Image)]
    assert greys == [(grey * 40,) * 3 for grey in range(6)]
    assert [name for name, _ in found] == (NAMES if "names" in kind or "name views" in kind else [
        f"row {number}" for number in range(1, 7)
    ])  # fmt: skip


def outside(kind: str, folder: Path) -> Any:
    """A table that holds the first picture, and of the others names alone."""
    first = {"bytes": (folder / NAMES[0]).read_bytes(), "path": NAMES[0]}
    cells = [first, *({"bytes": None, "path": name} for name in NAMES[1:])]
    if kind == "parquet":
        return write(folder, 2, image=pa.array(cells), mos=RATINGS)
    made = datasets.Dataset.from_dict({"image": cells, "mos": RATINGS}).cast_column("image", datasets.Image())
    return (
        made if kind == "data set" else datasets.DatasetDict(train=made.select(range(3)), test=made.select([5, 4, 3]))
    )


@pytest.mark.parametrize("kind", ["parquet", "data set", "parts"])
def test_pictures_of_which_a_table_holds_the_names_alone_are_looked_for(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    expected = [grey * 40 for grey in ([0, 1, 2, 5, 4, 3] if kind == "parts" else range(6))]

    def greys(read: Any) -> list[Any]:
        return [decode_row(row).getpixel((0, 0))[0] for row in read.rows]  # type: ignore[index]

    beside = read_ratings(outside(kind, folder))
    assert greys(beside) == expected
    (folder / "elsewhere").mkdir()
    for name in NAMES[1:]:
        (folder / name).rename(folder / "elsewhere" / name.upper())
    given = outside(kind, folder)
    with pytest.raises(
        GRMPError, match=r'5 of 6 pictures not found in .*: "b\.png" \(.*row 2\), .*--images DIR, or rem'
    ):
        read_ratings(given)
    read = read_ratings(given, images="elsewhere")
    assert greys(read) == expected
    assert [row.name for row in read.rows] == [row.name for row in beside.rows]
    assert len(read_ratings(given, need_pictures=False)) == 6
    with pytest.raises(GRMPError, match="expected the folder of the pictures, found none; check --images"):
        read_ratings(given, images="nowhere")


def test_pictures_inside_are_not_read_to_see_whether_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, 2, image=PICTURES["structure"](folder), mos=RATINGS)
    asked: list[Any] = []
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *given, **options: asked.append(given))
    assert len(read_ratings(path)) == 6
    assert not asked


# kind -> ratings
NUMBERS: dict[str, pa.Array] = {
    "float": pa.array(RATINGS),
    "single precision": pa.array(RATINGS, pa.float32()),
    "half precision": pa.array(RATINGS, pa.float32()).cast(pa.float16()),
    "decimal": pa.array([decimal.Decimal(str(mos)) for mos in RATINGS], pa.decimal128(5, 2)),
    "large decimal": pa.array([decimal.Decimal(str(mos)) for mos in RATINGS], pa.decimal256(50, 2)),
    "dictionary": pa.array(RATINGS).dictionary_encode(),
    "text": pa.array([f"{mos:g}" for mos in RATINGS]),
    "text as a dictionary": pa.array([f"{mos:g}" for mos in RATINGS]).dictionary_encode(),
    "text as bytes": pa.array([f"{mos:g}".encode() for mos in RATINGS]),
    "large text": pa.array([f"{mos:g}" for mos in RATINGS], pa.large_string()),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_kind_of_ratings(kind: str, folder: Path) -> None:
    read = read_ratings(write(folder, image=NAMES, mos=NUMBERS[kind]))
    assert [row.mos for row in read.rows] == RATINGS and all(type(row.mos) is float for row in read.rows)


DAYS = [datetime.date(2024, 1, day) for day in range(1, 7)]

# kind -> (columns, message)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "lists of votes": (
        {"image": NAMES, "mos": pa.array([[1, 2]] * 6)},
        r'column "mos": expected numbers, got 6 that hold several values: "values of the type list<.*: int64>" in row 1'
        r" \(a\.png\), .*; write one number a picture, such as the mean of its votes",
    ),
    "structures": (
        {"image": NAMES, "mos": pa.array([{"mean": 1.0}] * 6)},
        r"hold several values: .*struct<mean: double>",
    ),
    "truth values": ({"image": NAMES, "mos": [True] * 6}, r'6 that are no number: "True" in row 1 \(a\.png\)'),
    "days": ({"image": NAMES, "mos": DAYS}, r'6 that are no number: "2024-01-01" in row 1 \(a\.png\)'),
    "nothing": ({"image": NAMES, "mos": pa.nulls(6)}, r'6 empty: "None" in row 1 \(a\.png\)'),
    "a rating that is absent": (
        {"image": NAMES, "mos": [1.0, None, 3, 4, 5, 2]},
        r'1 empty: "None" in row 2 \(b\.png\)',
    ),
    "NaN": ({"image": NAMES, "mos": [1.0, float("nan"), 3, 4, 5, 2]}, r'1 NaN or infinite: "nan" in row 2 \(b\.png\)'),
    "lists of names": (
        {"image": pa.array([[name] for name in NAMES]), "mos": RATINGS},
        r'column "image": expected pictures or their names, got values of the type list<.*: string>; write one pict',
    ),
    "days as names": ({"image": DAYS, "mos": RATINGS}, r'6 of 6 pictures not found in .*: "2024-01-01" \(row 1\)'),
    "other columns": (
        {"url": NAMES, "votes": RATINGS},
        'expected a picture column .* found "url", "votes"; name the column',
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_columns_that_cannot_be_used_are_named(kind: str, folder: Path) -> None:
    columns, match = REFUSED[kind]
    path = write(folder, **columns)
    with pytest.raises(GRMPError, match=rf"labels\.parquet.*{match}"):
        read_ratings(path)


def test_columns_that_nobody_asked_for_may_be_anything(folder: Path) -> None:
    more = {"embedding": pa.array([[0.5, 0.5]] * 6), "taken": DAYS, "exif": pa.array([{"iso": 100}] * 6)}
    more |= {
        "thumbnail": pa.array([b"\xff\xd8\0"] * 6),
        "MAP": pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int64())),
    }
    more |= {"sd": pa.array([0.5, None, float("nan"), 1, 1, 1]), "scene": pa.array(["x", None, "NA", "y", "y", "y"])}
    read = read_ratings(write(folder, image=NAMES, mos=RATINGS, **more))
    assert 'pictures from column "thumbnail", not "image"; --image-column changes this' in read.notes[0]
    rows = read_ratings(folder / "labels.parquet", image_column="image").rows
    assert [row.mos_std for row in rows[:4]] == [0.5, None, None, 1.0]
    assert [row.scene for row in rows[:4]] == ["x", None, None, "y"]


def test_classes_of_a_data_set_keep_their_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({
        "image": datasets.Value("string"),
        "mos": datasets.Value("float64"),
        "split": datasets.ClassLabel(names=["train", "test"]),
    })  # fmt: skip
    data = datasets.Dataset.from_dict({"image": NAMES, "mos": RATINGS, "split": [0, 0, 0, 0, 1, 1]}, features=features)
    data.to_parquet(folder / "labels.parquet")
    assert [row.split for row in read_ratings(folder / "labels.parquet").rows] == ["train"] * 4 + ["test"] * 2


def test_a_file_that_was_replaced_is_read_anew(folder: Path) -> None:
    path = write(folder, image=NAMES, mos=RATINGS)
    before = path.stat()
    assert read_ratings(path).rows[0].mos == 1.0
    write(folder, image=NAMES, mos=[4.0, *RATINGS[1:]])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_ratings(path).rows[0].mos == 4.0


def test_no_home_is_needed_and_nothing_is_written(folder: Path) -> None:
    path = write(folder, image=PICTURES["bytes"](folder), mos=RATINGS)
    script = (
        "import sys; from pathlib import Path; from grmp_hf.data import decode_row, read_ratings\n"
        f"decode_row(read_ratings(Path({str(path)!r})).rows[5])\nassert 'datasets' not in sys.modules"
    )
    nowhere = str(folder / "a.png" / "home")  # below a file nothing can be made
    environment = {**os.environ, "HOME": nowhere, "HF_HOME": nowhere, "XDG_CACHE_HOME": nowhere, "USERPROFILE": nowhere}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in folder.iterdir()} == {*NAMES, "labels.parquet"}


def test_pictures_can_be_sent_to_another_process_unless_the_file_has_changed(folder: Path) -> None:
    path = write(folder, 2, image=PICTURES["structure"](folder), mos=RATINGS)
    rows = read_ratings(path).rows
    sent = pickle.dumps(rows)
    assert len(sent) < 5000 and decode_row(pickle.loads(sent)[3]).getpixel((0, 0)) == (120, 120, 120)
    write(folder, image=PICTURES["bytes"](folder), mos=RATINGS)
    with pytest.raises(GRMPError, match=r"labels\.parquet: expected the file that was read before, got another one"):
        pickle.loads(sent)


def test_a_picture_that_is_absent_or_damaged_is_a_row_with_its_code(folder: Path) -> None:
    cells = [None, *({"bytes": (folder / name).read_bytes(), "path": None} for name in NAMES[1:])]
    read = read_ratings(write(folder, image=pa.array(cells), mos=RATINGS))
    first = next(found for _, found in iter_images(read.rows))
    assert isinstance(first, ImageError) and first.code == "empty"
    assert "row 1 of labels.parquet holds no picture" in str(first)


FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "expected a parquet file, got an empty file; write it again"),
    "text": (lambda content: b"image,mos\n", r"got a file that begins with b'imag'; write it again or use CSV"),
    "cut": (lambda content: content[:-40], "got one that ends too early, as if it was not copied whole; write"),
    "pointer": (
        lambda content: b"version https://git-lfs.github.com/spec/v1",
        "the pointer of a file in Git LFS; fetch",
    ),
    "encrypted": (lambda content: b"PARE" + content[4:], "got an encrypted one"),
    "web page": (lambda content: b"<!DOCTYPE html>", "got a web page; download the file itself"),
    "damaged": (
        lambda content: content[:4] + bytes(len(content) - 12) + content[-8:],
        "this parquet file cannot be read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_are_none_say_what_they_are(fault: str, folder: Path) -> None:
    path = write(folder, image=NAMES, mos=RATINGS)
    change, match = FAULTS[fault]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(GRMPError, match=rf"labels\.parquet: .*{match}") as caught:
        read_ratings(path)
    assert str(caught.value).isprintable()


def test_no_rows_and_a_name_twice(folder: Path) -> None:
    path = write(folder, image=pa.array([], pa.string()), mos=pa.array([], pa.float64()))
    with pytest.raises(GRMPError, match="expected rated pictures, got a file without rows"):
        read_ratings(path)
    pq.write_table(
        pa.Table.from_arrays([pa.array(NAMES), pa.array(RATINGS), pa.array(RATINGS)], ["image", "mos", "mos"]), path
    )
    with pytest.raises(GRMPError, match='expected each column once, got "mos" more than once; rename one'):
        read_ratings(path)


def test_a_data_set_in_memory_knows_the_same_types(folder: Path) -> None:
    data = datasets.Dataset.from_dict({"image": [name.encode() for name in NAMES], "mos": [[1, 2]] * 6})
    with pytest.raises(GRMPError, match=r'6 that hold several values: "values of the type List\(.*" in row 1'):
        read_ratings(data)
    data = datasets.Dataset(pa.table({"image": [str(folder / n).encode() for n in NAMES], "mos": NUMBERS["decimal"]}))
    assert [row.mos for row in read_ratings(data).rows] == RATINGS


def refuse(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, image=NAMES, mos=RATINGS)
    monkeypatch.setattr(parquet, "open", refuse, raising=False)
    with pytest.raises(GRMPError, match=r"labels\.parquet: cannot be read \(Permission denied\); check .* permissions"):
        read_ratings(path)


def test_a_picture_in_a_file_that_may_not_be_read_any_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, image=[(folder / name).read_bytes() for name in NAMES], mos=RATINGS)
    row = read_ratings(path).rows[1]
    monkeypatch.setattr(parquet.PictureColumn, "entry", refuse)
    with pytest.raises(ImageError, match=r"row 2 of labels\.parquet cannot be read .*; write the file again") as caught:
        decode_row(row)
    assert caught.value.code == "unreadable"
