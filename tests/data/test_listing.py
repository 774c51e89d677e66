"""What folders, patterns and names stand for: one rule by every door, and a word on what is left out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from grmp_hf.data import listing
from grmp_hf.data.listing import list_images
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import MANIFEST


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures among all that lies about on real disks."""
    names = ["b/2.jpg", "b/10.jpg", "a.png", "a.txt", "c.jxl", "d.NEF", ".e.jpg", "._f.jpg", "g.heic", "h/i/j.webp"]
    names += ["@eaDir/a.png/thumb.jpg", "$RECYCLE.BIN/x.jpg", "__MACOSX/a.png", ".git/y.png"]
    names += ["mine/scatter.png", "mine/holiday.jpg"]
    for name in names:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "tree" / "mine" / MANIFEST).write_text(json.dumps({"files": {"scatter.png": "0" * 64}}))
    monkeypatch.chdir(tmp_path / "tree")
    monkeypatch.setattr("grmp_hf.data.formats._heif", lambda: None)
    return tmp_path / "tree"


FOUND = ["a.png", "b/2.jpg", "b/10.jpg", "h/i/j.webp", "mine/holiday.jpg"]


@pytest.mark.parametrize("given", [".", "*", "**", "**/*", "./**/*.*"])
def test_the_rule_is_the_same_by_every_door(tree: Path, given: str) -> None:
    found = list_images([given])
    assert sorted(os.path.normpath(path) for path in found.paths) == sorted(os.path.normpath(path) for path in FOUND)
    note = found.note()
    assert note is not None and note.startswith("5 pictures; left out: ")
    for word in ("1 JXL (JXL is not read", "1 NEF (a camera's raw file", "1 HEIC (HEIC is read where pillow-heif"):
        assert word in note
    assert "1 written by this tool" in note


def test_the_record_of_results_is_where_it_is_looked_for() -> None:
    assert listing._OWN == MANIFEST


def test_hidden_and_system_folders_are_counted(tree: Path) -> None:
    left_out = list_images(["."]).left_out
    assert left_out["folder of the system"] == 3 and left_out["hidden folder"] == 1 and left_out["hidden"] == 2


def test_what_is_named_is_kept_whatever_it_is(tree: Path) -> None:
    names = ["c.jxl", ".e.jpg", "mine/scatter.png", "gone.jxl", "a.txt"]
    found = list_images(names)
    assert found.paths == names and found.note() is None


def test_linked_folders_are_followed_and_loops_cut(tree: Path) -> None:
    (tree / "h" / "loop").symlink_to(tree)
    (tree / "z").symlink_to(tree / "b")
    (tree / "linked.png").symlink_to(tree / "a.png")
    for given in (".", "**/*"):
        found = list_images([given]).paths
        assert len(found) == 6 and sum(path.endswith("10.jpg") for path in found) == 1
    assert list_images(["z"]).paths == [os.path.join("z", "2.jpg"), os.path.join("z", "10.jpg")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything can be read by root")
def test_a_folder_that_may_not_be_read_is_counted(tree: Path) -> None:
    (tree / "b").chmod(0)
    try:
        assert "1 folder that cannot be read" in (list_images(["."]).note() or "")
    finally:
        (tree / "b").chmod(0o755)


def test_a_folder_that_fails_is_counted(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def failing(path: str) -> object:
        if path == "b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", failing)
    found = list_images(["."])
    assert "1 folder that cannot be read (Permission denied)" in (found.note() or "") and len(found.paths) == 3


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*.jpg", ["b/2.jpg", "b/10.jpg", "mine/holiday.jpg"]),
        ("b/**", ["b/2.jpg", "b/10.jpg"]),
        ("**/b/*", ["b/2.jpg", "b/10.jpg"]),
        ("h/**/j.*", ["h/i/j.webp"]),
        ("[ab]*", ["a.png", "b/2.jpg", "b/10.jpg"]),
    ],
)
def test_patterns(tree: Path, pattern: str, found: list[str]) -> None:
    assert [path.replace("\\", "/") for path in list_images([pattern]).paths] == found


def test_nothing_but_what_is_left_out(tree: Path) -> None:
    (tree / "only").mkdir()
    (tree / "only" / "x.jxl").touch()
    with pytest.raises(GRMPError, match=r'folder "only" holds no picture that can be read; left out: 1 JXL'):
        list_images(["only"])


def test_brackets_of_a_name_are_no_pattern(tree: Path) -> None:
    (tree / "a1.jpg").touch()
    assert list_images(["a[1].jpg"]).paths == ["a[1].jpg"]
    assert list_images(["a[1].jp*"]).paths == ["a1.jpg"]
    assert list_images([], ["a[1].jpg", "b/*.jpg", "b"]).paths == ["a[1].jpg", "b/*.jpg", "b/2.jpg", "b/10.jpg"]
    with pytest.raises(GRMPError, match="is neither a file nor a folder"):
        list_images([], ["b*"])


def test_what_lies_beyond_a_link_is_where_it_is(tree: Path) -> None:
    (tree / "link").symlink_to(tree / "h" / "i")
    (tree / "h" / "a.png").touch()
    assert list_images(["a.png", "link/../a.png", "h/a.png"]).paths == ["a.png", "link/../a.png"]


@pytest.mark.parametrize(
    "address", ["https://x.org/a.png?w=300", "http://x.org/photo/7", "https://x.org/p?id=[3]", "s3://b/c"]
)
def test_an_address_is_a_row_however_it_ends(address: str) -> None:
    assert list_images([address]).paths == list_images([], names=[address]).paths == [address]
