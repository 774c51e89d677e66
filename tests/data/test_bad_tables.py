"""Tables as they come: each fault has a named error or the right rows, with a note where something was assumed."""

from __future__ import annotations

import csv
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from grmp_hf.data import RatedTable, official_split, read_ratings, split_rows
from grmp_hf.errors import GRMPError

NAMES = [f"{letter}.png" for letter in "abcdef"]
RATINGS = [1.0, 2.0, 3.5, 4.0, 5.0, 2.0]
Content = str | bytes


def table(separator: str = ",", header: tuple[str, ...] = ("image", "mos"), *columns: list[str] | str) -> str:
    """Six good rows, and more columns, each a list of cells or one cell for all."""
    more = [column if isinstance(column, list) else [column] * len(NAMES) for column in columns]
    rows = zip(NAMES, [f"{mos:g}" for mos in RATINGS], *more, strict=True)
    return "\n".join(separator.join(row) for row in (header, *rows)) + "\n"


def replaced(old: str, new: str) -> str:
    return table().replace(old, new)


def jsonl(old: str = "", new: str = "") -> str:
    rows = zip(NAMES, RATINGS, strict=True)
    return "\n".join(json.dumps({"file_name": name, "mos": mos}) for name, mos in rows).replace(old, new)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with the six pictures, an empty folder `sub`, and another picture above it."""
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    for grey, path in enumerate([*(folder / name for name in NAMES), tmp_path / "above.png"]):
        Image.new("L", (4, 4), grey * 40).save(path)
    return folder


# fault -> (content of labels.csv, options, what leads to the fault and the whole remedy)
REFUSED: dict[str, tuple[Content, dict[str, Any], str]] = {
    # the file
    "empty": ("", {}, 'expected a header and rows, got an empty file; write "image,mos" and a line for each'),
    "blank lines": ("\n \n,,\n", {}, 'expected a header and rows, got an empty file; write "image,mos" and a line'),
    "header only": ("image,mos\n", {}, "expected rows below the header, got none; write a line for each picture"),
    "no header": (table().partition("\n")[2], {}, 'got a.png, 1; put a header such as "image,mos" above it'),
    "rows above the header": (
        "photo_id,note\nz.png,2\n" + table(),
        {},
        r"header above all rows, found it in line 3 and pictures in line 2; move them below it",
    ),
    "header again": (table() + table(), {}, r'1 that are no number: "mos" in line 8 \(image\); correct them or remove'),
    "blank as separator": (
        table(" "),
        {},
        'line 1: expected columns separated by .*, got one column "image mos"; write',
    ),
    "short line": (replaced("c.png,3.5", "c.png"), {}, "line 4: expected 2 fields as in the header, got 1; put text"),
    "long line": (replaced("3.5", "3.5,x"), {}, "line 4: expected 2 fields as in the header, got 3; put text"),
    "open quote": (replaced("c.png", '"c.png'), {}, r"line 4: a quote opens here and is not closed; check the quotes"),
    "open quote before others": (
        replaced("c.png", '"c.png').replace("e.png", '"e.png"'),
        {},
        r"line 4: a quote opens here and is not closed; check the quotes of that line",
    ),
    "open quote in the last line": (
        replaced("f.png", '"f.png'),
        {},
        "line 7: a quote opens here and is not closed; ch",
    ),
    "quote that closes lines below": (
        replaced("c.png,3.5", '"c.png,3.5').replace("e.png,5", 'e.png,5"'),
        {},
        r"line 4: expected 2 fields .*, got 1 \(a quote that opens here closes in line 6\); put text that holds",
    ),
    "text after a quote": (
        replaced("c.png", '"c".png'),
        {},
        r"line 4: text follows a closing quote .*; check the quotes",
    ),
    "name of a megabyte": (
        replaced("c.png", "c" * 2**20),
        {},
        r'1 of 6 pictures not found in .*: "c{97}\.\.\." \(line 4\); give',
    ),
    "Latin-1 that names another": (
        replaced("c.png", "ç.png").encode("latin-1"),
        {},
        r'1 of 6 .*: "ç\.png" \(line 4\); give',
    ),
    "workbook under another name": (
        b"PK\x03\x04rest",
        {},
        "expected a table as text, got an Excel workbook or .*; export it",
    ),
    "web page": (
        b"<!DOCTYPE html><html></html>",
        {},
        "expected a table as text, got a web page; download the file itself",
    ),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\n",
        {},
        "got the pointer of a file in Git LFS; fetch the file",
    ),
    "half of UTF-16": (table().encode("utf-16")[:-1], {}, r"expected UTF-16 text, got \(.*\); save the table as UTF-8"),
    "NUL in a name": (replaced("c.png", "c\0.png"), {}, "line 4: expected text, got a NUL character; save the table"),
    "NUL in a rating": (replaced("3.5", "3.\0005"), {}, "line 4: expected text, got a NUL character; save the table"),
    # the columns
    "no rating column": (
        replaced("image,mos", "image,moss"),
        {},
        r'expected a rating column one of mos, .*found "image", "moss" \(did you mean "moss"\?\); .* --rating-column',
    ),
    "no picture column": (
        replaced("image,mos", "url,mos"),
        {},
        'expected a picture column one of image, .*found "url", "mos"; name the column with --image-column',
    ),
    "wanted column absent": (
        table(),
        {"rating_column": "imagf"},
        r'rating column "imagf", found "image", "mos" \(did you mean "image"\?\); name the column with --rating-column',
    ),
    "wanted split absent": (
        table(),
        {"split_column": "part"},
        'expected a split column "part", found none; name the column with --split-column',
    ),
    "split without test": (
        table(",", ("image", "mos", "part"), "A"),
        {"split_column": "part"},
        r"expected train and test \(and validation\), got A; write these words or leave --split-column out",
    ),
    "repeated column": (
        table(",", ("image", "mos", "mos"), ["2", "1", "1", "1", "1", "1"]),
        {},
        'expected each column once, got "mos" more than once with other cells; rename one, or name another column',
    ),
    "repeated column of pictures": (
        table(",", ("image", "mos", "image"), "x.png"),
        {},
        'got "image" more than once with other cells; rename one, or name another column with --image-column',
    ),
    "dmos": (
        table(",", ("image", "dmos")),
        {"scale": (0, 10)},
        "rises with quality in some .* falls in others; say which with --higher-is-better or --lower-is-better",
    ),
    "deviation in words": (
        table(",", ("image", "mos", "std"), "wide"),
        {},
        r'column "std": expected numbers, got 6 that are no number: "wide" in line 2 .* and 3 more; correct them',
    ),
    "deviation below zero": (
        table(",", ("image", "mos", "std"), ["1", "1", "-0.5", "", "1", "1"]),
        {},
        r'column "std": expected deviations, got 1 below 0: -0.5 in line 4 \(c\.png\); correct or rename the column',
    ),
    # the ratings
    "text": (replaced("3.5", "good"), {}, r'1 that are no number: "good" in line 4 \(c\.png\); correct them or remove'),
    "n/a": (replaced("3.5", "N/A"), {}, r'1 that are no number: "N/A" in line 4 \(c\.png\); correct them or remove'),
    "per cent": (replaced("3.5", "35%"), {}, r'1 that are no number: "35%" in line 4 \(c\.png\); correct them or rem'),
    "truth": (replaced("3.5", "True"), {}, r'1 that are no number: "True" in line 4 \(c\.png\); correct them or remo'),
    "underscore": (replaced("3.5", "3_5"), {}, r'1 that are no number: "3_5" in line 4 \(c\.png\); correct them or r'),
    "typographic minus": (replaced("3.5", "\u22123"), {}, '1 that are no number: "\u22123" in line 4'),
    "zero-width blank": (replaced("3.5", "3.5\u200b"), {}, r'1 that are no number: "3\.5\\u200b" in line 4 \(c\.png\)'),
    "empty rating": (replaced("3.5", ""), {}, r"1 empty: .* line 4 \(c\.png\); rate these pictures or remove their l"),
    "NaN": (replaced("3.5", "nan"), {}, r'1 NaN or infinite: "nan" in line 4 \(c\.png\); correct them or remove'),
    "infinite": (replaced("3.5", "-inf"), {}, r'1 NaN or infinite: "-inf" in line 4 \(c\.png\); correct them or rem'),
    "too large": (replaced("3.5", "1e999"), {}, r'1 NaN or infinite: "1e999" in line 4 \(c\.png\); correct them or'),
    "comma between thousands": (
        table(";").replace("3.5", "1,000"),
        {},
        r'1 with a comma: "1,000" in line 4 \(c\.png\); write a decimal point, and nothing between thousands',
    ),
    "comma and point": (
        table(";").replace("3.5", "3,5").replace(";4", ";4.5"),
        {},
        r'1 with a comma: "3,5" in line 4 \(c\.png\); write a decimal point, and nothing between thousands',
    ),
    "point between thousands": (table("\t").replace("3.5", "1.000,5"), {}, r'1 with a comma: "1\.000,5" in line 4'),
    "comma in a comma table": (replaced("3.5", "3,5"), {}, "line 4: expected 2 fields .* got 3; .* decimal point"),
    "constant": (
        "image,mos\n" + "\n".join(f"{name},3" for name in NAMES),
        {},
        "expected ratings that differ, got 3 for all 6 pictures; check the rating column, or rate good and bad",
    ),
    "outside": (
        table(),
        {"scale": (1, 3)},
        r"1 \(worst\) to 3 \(best\), got 3 outside: 3.5 in line 4 \(c\.png\), .*; correct them, or widen the range",
    ),
    "no usual range": (
        replaced("3.5", "350"),
        {},
        r'labels\.csv, column "mos": .* got 1 to 350; give the range with --range',
    ),
    "range upside down": (table(), {"scale": (5, 1)}, "got 5 to 1; a scale where low is best keeps this order"),
    "one row": (
        "image,mos\na.png,3\n",
        {},
        "expected at least 5 rated pictures, got 1; .*: rate some more, ten or better fifty",
    ),
    "four pictures, five rows": (
        "\n".join([*table().splitlines()[:5], "a.png,1"]),
        {},
        "expected at least 5 rated pictures, got 4; .*: rate some more, ten or better fifty",
    ),
    # the pictures
    "no picture named": (replaced("c.png", ""), {}, "got 1 without: line 4; name the pictures or remove the lines"),
    "absent pictures": (
        replaced("c.png", "x.png").replace("d.png", "y.png"),
        {},
        r'2 of 6 pictures not found in .*: "x.png" \(line 4\), "y.png" \(line 5\); give their folder with --images DIR',
    ),
    "absent pictures of a folder that is given": (
        replaced("c.png", "x.png"),
        {"images": "{folder}"},
        r'1 of 6 pictures not found in .*: "x.png" \(line 4\); check --images, to which they are relative, or rem',
    ),
    "names without their extension": (
        replaced("c.png", "c"),
        {},
        r'1 of 6 pictures not found in .*: "c" \(line 4\); there is "c\.png": write names with .* else give',
    ),
    "names with another extension": (
        replaced("c.png", "sub\\..\\C.JPG").replace("d.png", "d.v2"),
        {"images": "{folder}"},
        r'2 of 6 .*"d\.v2" \(line 5\); there is "c\.png": write names with .* on disk; else check --images, to which',
    ),
    "absent folder": (
        table(),
        {"images": "nowhere"},
        "expected the folder of the pictures, found none; check --images",
    ),
    "folder as a picture": (replaced("c.png", "sub"), {}, r'1 of 6 pictures not found in .*: "sub" \(line 4\); give'),
    "address": (replaced("c.png", "https://x.org/c.png"), {}, r'not found in .*: "https://x\.org/c\.png" \(line 4\)'),
    "absolute name that is not there": (replaced("c.png", "/no/c.png"), {}, r'not found in .*: "/no/c\.png" \(line 4'),
    "zero-width name": (replaced("c.png", "c.png\u200b"), {}, r'not found in .*: "c\.png\\u200b" \(line 4\); give'),
    "long name": (replaced("c.png", "c" * 5000), {}, r'not found in .*: "c{97}\.\.\." \(line 4\); give their folder'),
    "two ratings": (
        table() + "c.png,1\n",
        {},
        r"1 repeated with another rating or split: 1 in line 8 \(c\.png\), 3\.5 before; average the votes",
    ),
    "two ratings, another case": (table() + "C.PNG,1\n", {}, r"1 repeated with another .*: 1 in line 8 \(C\.PNG\), 3"),
    "two ratings by another path": (table() + "./sub/../c.png,1\n", {}, r"1 repeated with .* \(\./sub/\.\./c\.png\)"),
    # the parts
    "picture in both parts": (
        table(",", ("image", "mos", "split"), "train") + "a.png,1,test\n",
        {},
        r"1 repeated with another rating or split: 1 in line 8 \(a\.png\), 1 before",
    ),
    "picture in both parts by another path": (
        table(",", ("image", "mos", "split"), "train") + "sub/../a.png,1,test\n",
        {},
        r"1 repeated with another rating or split: 1 in line 8 \(sub/\.\./a\.png\), 1 before",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused_says_what_to_do(fault: str, folder: Path) -> None:
    content, options, match = REFUSED[fault]
    (folder / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {key: str(folder) if value == "{folder}" else value for key, value in options.items()}
    with pytest.raises(GRMPError, match=match) as caught:
        read_ratings(folder / "labels.csv", **options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


# the same for labels.jsonl
REFUSED_LINES: dict[str, tuple[Content, str]] = {
    "empty": ("", "expected a JSON object in each line, got an empty file; write a line a picture"),
    "broken": ('{"file_name": "a.png", "mos": 1}\n{broken', "line 2: expected a JSON object, got .*; correct the line"),
    "one array of all": (
        json.dumps([{"file_name": name} for name in NAMES]),
        'line 1: expected a JSON object, got a list; write {"file_name": "a.jpg", "mos": 3.5} in each line',
    ),
    "indented": (json.dumps([{"file_name": "a.png"}], indent=1), "line 1: expected a JSON object, got .*; correct"),
    "key twice": (
        jsonl('"mos": 3.5', '"mos": 3.5, "mos": 1'),
        "line 3: expected a JSON object, got a key twice in one object, out of file_name, mos; correct the line",
    ),
    "key absent": (jsonl('"mos": 3.5', '"moss": 3.5'), r'1 empty: "None" in line 3 \(c\.png\); rate these pictures'),
    "truth": (jsonl("3.5", "true"), r'1 that are no number: "True" in line 3 \(c\.png\); correct them or remove'),
    "null": (jsonl("3.5", "null"), r'1 empty: "None" in line 3 \(c\.png\); rate these pictures or remove'),
    "NaN": (jsonl("3.5", "NaN"), r'1 NaN or infinite: "nan" in line 3 \(c\.png\); correct them or remove'),
    "array": (jsonl("3.5", "[3, 4]"), r'1 that hold several values: "\[3, 4\]" in line 3 \(c\.png\); write one'),
    "object": (
        jsonl("3.5", '{"mean": 3}'),
        r"1 that hold several values: .* in line 3 \(c\.png\); write one number a picture",
    ),
    "400 digits": (
        jsonl("3.5", "1" + "0" * 400),
        r'1 that are no number: "10{96}\.\.\." in line 3 \(c\.png\); correct',
    ),
    "9,000 digits": (jsonl("3.5", "1" * 9000), "line 3: expected a JSON object, got .* digits.*; correct the line"),
    "100,000 brackets": (jsonl("3.5", "[" * 10**5), "line 3: expected a JSON object, got .*recursion.*; correct the"),
    "name is null": (jsonl('"c.png"', "null"), "got 1 without: line 3; name the pictures or remove the lines"),
    "name is a number": (jsonl('"c.png"', "7"), r'1 of 6 pictures not found in .*: "7" \(line 3\); give their folder'),
    "name is a list": (jsonl('"c.png"', '["c.png"]'), r"1 of 6 pictures not found in .*: .* \(line 3\); give their fo"),
    "name with NUL": (jsonl("c.png", "c\\u0000.png"), r'1 of 6 pictures not found in .*: "c\\x00\.png" \(line 3\)'),
    "half a sign": (jsonl("c.png", "\\ud800.png"), r'1 of 6 pictures not found in .*: "\\ud800\.png" \(line 3\)'),
}


@pytest.mark.parametrize("fault", REFUSED_LINES)
def test_json_lines_that_are_refused_say_what_to_do(fault: str, folder: Path) -> None:
    content, match = REFUSED_LINES[fault]
    (folder / "labels.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GRMPError, match=match) as caught:
        read_ratings(folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


# oddity -> content of labels.csv that gives the six pictures with their ratings all the same
ACCEPTED: dict[str, Content] = {
    "byte order mark": "\ufeff" + table(),
    "Windows lines": table().replace("\n", "\r\n"),
    "old Macintosh lines": table().replace("\n", "\r"),
    "no end of line": table().rstrip("\n"),
    "semicolons": table(";"),
    "tabs": table("\t"),
    "blank lines": "\n\n" + table().replace("\n", "\n\n"),
    "trailing separators": table().replace("\n", ",,\n").replace("image,mos,,", "image,mos"),
    "quotes around all": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in table().splitlines()),
    "blanks around cells": table(" , ", (" image", "mos ")),
    "non-breaking blanks": replaced("c.png,3.5", "\u00a0c.png,\u00a03.5\u00a0"),
    "exponent": replaced("3.5", "35e-1"),
    "plus sign": replaced("3.5", "+3.50"),
    "header in capitals": replaced("image,mos", "IMAGE,MOS"),
    "row numbers in front": "\n".join(f"{n or ''},{line}" for n, line in enumerate(table().splitlines())),
    "columns that nobody asked for": table(",", ("image", "mos", "url", "age"), "x", "30"),
    "suffix in capitals": replaced("c.png", "C.PNG"),
    "dots in the path": replaced("c.png", "./sub/../c.png"),
    "backslashes": replaced("c.png", ".\\sub\\..\\c.png"),
    "bars": table("|"),
    "bars with blanks": table(" | "),
    "Excel's separator line": "sep=;\n" + table(";"),
    "Excel's separator line in quotes": '"sep=\t"\n' + table("\t"),
    "separator line that only the line tells": "sep=:\n" + table(":"),
    "title above": "My ratings\n" + table(),
    "title with separators above": "My ratings, of May, by me\n\n" + table(),
    "title above that is padded": "My ratings;\n;\n" + table(";"),
    "comments above": '# mine, "all of them\n# of May, by me\n' + table(),
    "comments between": table().replace("c.png", "# tired\nc.png") + "# end\n",
    "comments with separators": table().replace("c.png", "# tired, bored\nc.png"),
    "words called image": table(",", ("file", "mos", "image"), [f"no. {n}" for n in range(1, 7)]),
    "header in a comment": "# ratings\n# " + table(),
    "separators at every end": table().replace("\n", ",\n"),
    "separators at the header's end": replaced("image,mos", "image,mos,,"),
    "decimal commas": table(";").replace("3.5", "3,5"),
    "decimal commas of thousandths": table(";").replace("3.5", "3,500").replace(";4", ";4,0"),
    "repeated column that nobody asked for": table(",", ("image", "mos", "MOS", "note", "note"), "7", "x", "y"),
    "repeated column with the same cells": table(",", ("image", "mos", "image"), NAMES),
    "UTF-16": table().encode("utf-16"),
    "UTF-16, little end, without mark": table().encode("utf-16-le"),
    "UTF-16, big end, without mark": table().encode("utf-16-be"),
    "UTF-32": table().encode("utf-32"),
    "Latin-1": table(",", ("image", "mos", "Bemerkung"), "schön").encode("latin-1"),
    "long cell": table(",", ("image", "mos", "history"), ["x" * 2**18, "", "", "", "", ""]),
    "cell of several lines": table(",", ("image", "mos", "note"), '"one\ntwo, ""three"""'),
    "absent deviations": table(",", ("image", "mos", "std"), ["0.5", "NA", "n/a", "NaN", "-", "null"]),
    "numbers called image": table(",", ("file", "mos", "image"), [str(n) for n in range(1, 7)]),
    "same row twice": table() + "c.png,3.5\n",
    "same row twice by another path": table() + "sub/../C.png,3.5\n",
}


@pytest.mark.parametrize("oddity", ACCEPTED)
def test_what_is_accepted_gives_the_right_rows(oddity: str, folder: Path) -> None:
    content = ACCEPTED[oddity]
    (folder / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    read = read_ratings(folder / "labels.csv")
    assert [row.image.resolve() for row in read.rows if isinstance(row.image, Path)] == [folder / n for n in NAMES]
    assert [row.mos for row in read.rows] == RATINGS
    assert any("repeat a picture with the same rating" in note for note in read.notes) == ("twice" in oddity)


@pytest.mark.parametrize("name", ["../above.png", "{folder}/../above.png"])
def test_pictures_elsewhere_are_taken_where_they_are_named(name: str, folder: Path) -> None:
    (folder / "labels.csv").write_text(replaced("c.png", name.format(folder=folder)))
    image = read_ratings(folder).rows[2].image
    assert isinstance(image, Path)
    assert image.resolve() == folder.parent / "above.png"


def test_accents_in_two_forms_are_one_picture(folder: Path) -> None:
    (folder / "c.png").rename(folder / unicodedata.normalize("NFC", "é.png"))
    forms = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    (folder / "labels.csv").write_text(replaced("c.png", forms[0]) + f"{forms[1]},1\n", encoding="utf-8")
    with pytest.raises(GRMPError, match=r"1 repeated with another rating or split: 1 in line 8"):
        read_ratings(folder)


def test_link_to_a_picture_is_that_picture(folder: Path) -> None:
    (folder / "again.png").symlink_to(folder / "c.png")
    (folder / "labels.csv").write_text(table() + "again.png,1\n")
    with pytest.raises(GRMPError, match=r"1 repeated with another rating or split: 1 in line 8 \(again\.png\), 3\.5"):
        read_ratings(folder)


def test_ratings_of_the_other_direction(folder: Path) -> None:
    (folder / "labels.csv").write_text(table())
    up, down = (read_ratings(folder, higher_is_better=up).quality for up in (True, False))
    assert down.tolist() == (1 - up).tolist()
    assert any("1 (best) to 5 (worst)" in note for note in read_ratings(folder, higher_is_better=False).notes)


def test_which_of_several_ratings_was_taken_is_told(folder: Path) -> None:
    (folder / "labels.csv").write_text(table(",", ("image", "mos", "MOS", "score"), "7", "8"))
    read = read_ratings(folder)
    assert [row.mos for row in read.rows] == RATINGS
    assert 'ratings from column "mos", not "MOS", "score"; --rating-column changes this' in read.notes[0]


def with_parts(folder: Path, parts: list[str], **columns: list[str]) -> RatedTable:
    (folder / "labels.csv").write_text(table(",", ("image", "mos", "split", *columns), parts, *columns.values()))
    return read_ratings(folder)


def test_other_words_beside_test_are_told(folder: Path) -> None:
    read = with_parts(folder, ["train", "Train", "test", "tset", "validation", "holdout"])
    told = 'column "split": 2 rows are in other parts than train, validation and test: holdout, tset; they never test'
    assert any(told in note for note in read.notes)
    assert official_split(read).test == ("c.png",)


@pytest.mark.parametrize(
    ("parts", "counts"), [(["test"] * 6, "0 to teach and 6 to test"), (["train"] * 6, "6 to teach")]
)
def test_parts_of_which_one_is_empty(parts: list[str], counts: str, folder: Path) -> None:
    with pytest.raises(GRMPError, match=rf"set: expected rows marked train and test .*, got {counts}"):
        official_split(with_parts(folder, parts))


@pytest.mark.parametrize("split", [official_split, lambda read, **by: split_rows(read, shots=2, **by)])
def test_reference_in_both_parts(split: Callable[..., Any], folder: Path) -> None:
    parts, references = ["train"] * 4 + ["test"] * 2, ["r1", "r2", "r2", "r3", "r4", "R2"]
    read = with_parts(folder, parts, reference=references)
    with pytest.raises(GRMPError, match=r'got 1 in the test part that teach as well: "r2"; correct the column "split"'):
        split(read)
    assert split(read, by="picture").test == ("e.png", "f.png")


def test_names_that_repeat_inside_a_data_set_are_told(folder: Path) -> None:
    part = datasets.Dataset.from_dict(
        {"image": [str(folder / name) for name in NAMES], "mos": RATINGS, "file_name": NAMES}
    ).cast_column("image", datasets.Image())
    read = read_ratings(datasets.DatasetDict(train=part, test=part))
    assert len(read) == 12
    told = 'column "file_name" gives some pictures the same name, so rows go by their number; whether one picture is in'
    assert any(told in note for note in read.notes)


def test_a_column_that_only_counts_is_passed_over_and_told(folder: Path) -> None:
    lines = [
        "image,filename,mos",
        *(f"{n},{name},{mos}" for n, (name, mos) in enumerate(zip(NAMES, RATINGS, strict=True))),
    ]
    (folder / "labels.csv").write_text("\n".join(lines))
    read = read_ratings(folder)
    assert [row.name for row in read.rows] == NAMES
    assert 'pictures from column "filename", not "image"; --image-column changes this' in read.notes[0]
    for number, name in enumerate(NAMES):  # pictures that are really called so
        (folder / name).rename(folder / str(number))
    assert [row.name for row in read_ratings(folder, image_column="image").rows] == list("012345")


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("Ratings of May\n\n" + table(), "left out as titles or comments: line 1"),
        (table().replace("c.png", "# tired\nc.png"), "left out as titles or comments: line 4"),
        (table(";").replace("3.5", "3,5"), 'column "mos": decimal commas are read as points, "3,5" first'),
        (
            table(",", ("image", "mos", "by"), "André").encode("latin-1"),
            "not UTF-8: odd bytes are read as Windows-1252",
        ),
        (table(",", ("image", "mos", "by"), '"a\nb"'), "line 2: a quoted cell runs to line 3"),
        (
            table(",", ("image", "mos", "scene", "scene"), "a", "b"),
            'column "scene" is not used: several have this name',
        ),
    ],
)
def test_what_was_assumed_of_a_table_is_told(content: Content, note: str, folder: Path) -> None:
    (folder / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert any(note in told for told in read_ratings(folder).notes)


def test_the_line_is_that_of_the_file_whatever_is_above(folder: Path) -> None:
    for above in ("sep=,\n", "# a\n# b\n", "\n\n", "Title, of all\n\n"):
        (folder / "labels.csv").write_text(above + replaced("3.5", "good"))
        line = 4 + above.count("\n")
        with pytest.raises(GRMPError, match=rf'"good" in line {line} \(c\.png\)'):
            read_ratings(folder)


@pytest.mark.parametrize("name", ["#c.png", "# c.png", "#"])
def test_a_hash_in_front_of_a_name_is_no_comment(name: str, folder: Path) -> None:
    (folder / "c.png").rename(folder / name)
    (folder / "labels.csv").write_text(replaced("c.png", name))
    assert read_ratings(folder).rows[2].name == name


def test_words_for_nothing_in_optional_columns(folder: Path) -> None:
    words = ["r1", "NA", "n/a", "nan", "-", "\u2013"]
    (folder / "labels.csv").write_text(table(",", ("image", "mos", "reference"), words))
    assert [row.reference for row in read_ratings(folder).rows] == ["r1"] + [None] * 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names of files that are no text")
def test_names_on_disk_that_are_no_utf8(folder: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    (folder / "c.png").rename(folder / odd)
    (folder / "labels.csv").write_bytes(replaced("c.png", "café.png").encode("latin-1"))
    row = read_ratings(folder).rows[2]
    assert row.name == odd and row.image == folder / odd
    # the same table beside a file whose name is text
    (folder / odd).rename(folder / "café.png")
    row = read_ratings(folder).rows[2]
    assert row.name == "café.png" and row.image == folder / "café.png"


def test_the_longest_cell_of_other_readers_stays_as_it_was(folder: Path) -> None:
    before = csv.field_size_limit()
    (folder / "labels.csv").write_text(replaced("c.png", '"c.png'))
    with pytest.raises(GRMPError):
        read_ratings(folder)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    "place",
    ["/data/upload/1/", "C:\\photos\\", "\\\\nas\\photos\\", "https://x.org/", "file://localhost/", "s3://bucket/"],
)
def test_no_folder_is_advised_where_names_are_whole_places(place: str, folder: Path, tmp_path: Path) -> None:
    (folder / "labels.csv").write_text(replaced("c.png", f"{place}c.png"))
    for images in (None, folder):
        with pytest.raises(
            GRMPError, match="mean that place alone: write names relative to the folder of the pictures"
        ):
            read_ratings(folder / "labels.csv", images=images)


def test_advice_about_absent_pictures_can_be_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(table())
    with pytest.raises(GRMPError, match="give their folder with --images DIR, or remove the lines"):
        read_ratings(tmp_path / "labels.csv")
    with pytest.raises(GRMPError, match="check --images, to which they are relative, or remove the lines"):
        read_ratings(tmp_path / "labels.csv", images=folder / "sub")
    assert len(read_ratings(tmp_path / "labels.csv", images=folder)) == 6


def test_a_table_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "labels.csv").write_text(table())
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(GRMPError, match=r"labels\.csv: cannot be read \(Permission denied\); check .* permissions"):
        read_ratings(tmp_path / "labels.csv")
