"""Identity of a picture: its content, whatever it is called and wherever it lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grmp_hf.data.identity import KnownPictures, content_id, first_copies


class Inside:
    """A picture inside a table that says how often it was read."""

    def __init__(self, content: bytes | Path) -> None:
        self.content, self.reads = content, 0

    def read(self) -> bytes | Path:
        self.reads += 1
        return self.content


def test_one_content_has_one_identity_by_every_door(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    (tmp_path / "linked.png").symlink_to(path)
    os.link(path, tmp_path / "hard.png")
    doors = [path, b"picture", Inside(b"picture"), Inside(path), tmp_path / "linked.png", tmp_path / "hard.png"]
    known = content_id(path)
    assert known is not None and known.startswith("7-") and len(known) == 2 + 64
    assert {content_id(source) for source in doors} == {known}
    assert first_copies(doors) == [0] * 6
    assert all(KnownPictures([known]).holds(source) for source in doors)


def test_what_cannot_be_read_is_no_copy_and_not_known(tmp_path: Path) -> None:
    absent = [tmp_path / "absent.png", tmp_path, Path("no\0name"), Inside(tmp_path / "absent.png")]
    assert [content_id(source) for source in absent] == [None] * 4
    assert first_copies([*absent, *absent]) == list(range(8))
    assert [KnownPictures(["7-0"]).holds(absent[at]) for at in (0, 2, 3)] == [None] * 3


def test_files_of_other_lengths_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / str(number)).write_bytes(bytes(number + 1))
    known = KnownPictures([str(content_id(tmp_path / "3"))])

    def refuse(*arguments: object) -> None:
        raise AssertionError("read a file whose length says that it is another one")

    monkeypatch.setattr("builtins.open", refuse)
    assert first_copies([tmp_path / str(number) for number in range(4)]) == [0, 1, 2, 3]
    assert [known.holds(tmp_path / str(number)) for number in range(3)] == [False] * 3


def test_pictures_inside_a_table_are_read_once_where_they_differ() -> None:
    inside = [Inside(bytes([number])) for number in range(5)]
    assert first_copies(inside) == list(range(5))
    assert [picture.reads for picture in inside] == [1] * 5


def test_a_pipe_or_a_device_is_no_copy_and_not_known(tmp_path: Path) -> None:
    pipe, device, empty = tmp_path / "pipe.jpg", tmp_path / "device.jpg", tmp_path / "empty.jpg"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    empty.write_bytes(b"")
    assert content_id(pipe) is content_id(device) is None
    assert first_copies([pipe, empty, pipe, device, device]) == [0, 1, 2, 3, 4]
    assert KnownPictures(["0-0"]).holds(pipe) is None
