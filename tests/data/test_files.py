"""Finding pictures: order, patterns, names in another case; nothing is left out in silence."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from grmp_hf.data.files import PictureFolders
from grmp_hf.data.listing import find_images
from grmp_hf.errors import GRMPError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [
        "10.jpg",
        "2.JPG",
        "notes.txt",
        ".hidden.jpg",
        "sub/1.png",
        "sub/.cache/0.png",
        "odd [1].jpg",
        "empty/a.txt",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["."], ["2.JPG", "10.jpg", "odd [1].jpg", "sub/1.png"]),
        (["sub", "."], ["sub/1.png", "2.JPG", "10.jpg", "odd [1].jpg"]),
        (["*.jpg"], ["10.jpg", "odd [1].jpg"]),
        (["*"], ["2.JPG", "10.jpg", "odd [1].jpg", "sub/1.png"]),
        (["**/*.png"], ["sub/1.png"]),
        (["odd [1].jpg"], ["odd [1].jpg"]),
        (["10.jpg", "10.jpg", "./10.jpg", "sub/../10.jpg"], ["10.jpg"]),
        (["notes.txt"], ["notes.txt"]),
        (["absent.jpg", "10.jpg"], ["absent.jpg", "10.jpg"]),
    ],
)
def test_what_paths_stand_for(folder: Path, given: list[str], found: list[str]) -> None:
    assert [path.replace("\\", "/") for path in find_images(given)] == found


def test_absolute_stays_absolute(folder: Path) -> None:
    assert find_images([folder / "sub"]) == [str(folder / "sub" / "1.png")]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("./10.jpg", "./10.jpg"),
        ("sub/../10.jpg", "sub/../10.jpg"),
        ("./sub", "./sub/1.png"),
        ("sub//1.png", "sub//1.png"),
        ("./sub/*.png", "./sub/1.png"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg"),
    ],
)
def test_paths_are_as_they_were_given(folder: Path, given: str, found: str) -> None:
    assert [path.replace("\\", "/") for path in find_images([given])] == [found]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([], "expected at least one picture, folder or pattern, got none; name one"),
        (["empty"], r'folder "empty" holds no picture that can be read; expected files ending in \.avif'),
        (["10.jpg", "*.webp"], r'pattern "\*\.webp" matches no picture; check the spelling'),
        (["uplods"], '"uplods" is neither a file nor a folder; check the spelling'),
    ],
)
def test_nothing_found_is_named(folder: Path, given: list[str], match: str) -> None:
    with pytest.raises(GRMPError, match=match):
        find_images(given)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("10.jpg", "10.jpg"),
        ("2.jpg", "2.JPG"),
        ("SUB/1.PNG", "sub/1.png"),
        ("sub\\1.png", "sub/1.png"),
        ("sub/../2.jpg", "sub/../2.JPG"),
        ("3.jpg", None),
        ("sub", None),
        ("", None),
    ],
)
def test_names_are_found_without_case(folder: Path, name: str, found: str | None) -> None:
    assert PictureFolders([folder]).find(name) == (None if found is None else folder / found)


def test_first_folder_wins_and_absolute_names_are_taken(folder: Path) -> None:
    (folder / "sub" / "10.jpg").touch()
    folders = PictureFolders([folder / "sub", folder])
    assert folders.find("10.jpg") == folder / "sub" / "10.jpg"
    assert folders.find("2.jpg") == folder / "2.JPG"
    assert folders.find(str(folder / "10.jpg")) == folder / "10.jpg"
    assert folders.find(str(folder / "absent.jpg")) is None


def test_the_name_as_written_comes_before_another_case_in_an_earlier_folder(tmp_path: Path) -> None:
    for name in ("one/a.JPG", "two/a.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    folders = PictureFolders([tmp_path / "one", tmp_path / "two"])
    assert folders.find("a.jpg") == tmp_path / "two" / "a.jpg"
    assert folders.find("A.JPG") == tmp_path / "one" / "a.JPG"


def test_several_names_in_other_cases_are_refused(tmp_path: Path) -> None:
    for name in ("a.JPG", "A.jpg"):
        (tmp_path / name).touch()
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this disk knows no case")
    assert PictureFolders([tmp_path]).find("A.jpg") == tmp_path / "A.jpg"
    with pytest.raises(GRMPError, match=r'"a\.jpg": expected one file of that name in any case, found ".*A\.jpg", "'):
        PictureFolders([tmp_path]).find("a.jpg")


def test_letters_that_only_sound_alike_are_others(tmp_path: Path) -> None:
    (tmp_path / "strasse.jpg").touch()
    folders = PictureFolders([tmp_path])
    assert folders.find("stra\u00dfe.jpg") is None and folders.find("STRASSE.jpg") == tmp_path / "strasse.jpg"


@pytest.mark.skipif(os.sep != "/", reason="such names cannot be given here")
def test_backslashes_and_blanks_on_disk_are_found(tmp_path: Path) -> None:
    for name in ("b\\c.jpg", " d.jpg", "b/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folders = PictureFolders([tmp_path])
    assert folders.find("b\\c.jpg") == tmp_path / "b\\c.jpg" and folders.find("b\\e.jpg") == tmp_path / "b" / "e.jpg"
    assert folders.find(" d.jpg") == folders.find("d.jpg") == tmp_path / " d.jpg"


def test_accents_in_either_form(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "été.jpg")).touch()
    assert PictureFolders([tmp_path]).find(unicodedata.normalize("NFC", "été.jpg")) is not None
