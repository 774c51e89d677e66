from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from grmp_hf.data import opening
from grmp_hf.data import photographs as module
from grmp_hf.data.photographs import read_photographs
from grmp_hf.errors import GRMPError


def keep(picture: Image.Image) -> Image.Image:
    return picture


def test_the_middle_of_each_is_kept(photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_SIDE", 50)
    told: list[float] = []
    found = read_photographs(photos[0].parent, 32, keep, tell=told.append)
    assert len(found) == len(told) == 12 and told[-1] == 1 and not found.notes
    for path, kept in zip(photos, found.pictures, strict=True):
        pixels = np.asarray(Image.open(path))
        top, left = max(0, (pixels.shape[0] - 50) // 2), max(0, (pixels.shape[1] - 50) // 2)
        np.testing.assert_array_equal(kept, pixels[top : top + 50, left : left + 50])
        assert kept.flags.owndata, "a view would keep the whole photograph in memory"


def test_many_photographs_are_kept_smaller_but_never_below_the_size(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MEMORY", 12 * 3 * 40 * 40)
    for size, side in ((32, 40), (44, 44)):
        found = read_photographs(photos[0].parent, size, keep)
        assert max(max(kept.shape) for kept in found.pictures) == side


def test_photographs_are_shrunk_before(photos: list[Path]) -> None:
    found = read_photographs(photos[0].parent, 8, lambda picture: picture.resize((9, 8)))
    assert {kept.shape for kept in found.pictures} == {(8, 9, 3)}


def test_the_hash_is_that_of_the_contents(photos: list[Path], tmp_path: Path) -> None:
    first = read_photographs(photos[0].parent, 8, keep).content_hash
    other = tmp_path / "other"
    other.mkdir()
    for number, path in enumerate(reversed(photos)):
        shutil.copy(path, other / f"{number}.png")
    assert read_photographs(other, 8, keep).content_hash == first
    (other / "0.png").unlink()
    assert read_photographs(other, 8, keep).content_hash != first


def test_what_cannot_be_read_is_left_out_and_said(photos: list[Path]) -> None:
    photos[3].write_bytes(photos[3].read_bytes()[:90])
    found = read_photographs(photos[0].parent, 8, keep)
    assert len(found) == 11
    assert len(found.notes) == 1 and found.notes[0].startswith("03.png: ")
    for path in photos:
        path.write_bytes(b"GIF89a")
    with pytest.raises(GRMPError, match=r"expected photographs, got 12 files that cannot be read: 00\.png: "):
        read_photographs(photos[0].parent, 8, keep)


def test_one_that_may_not_be_read_is_left_out_and_said(photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_one(path: str, mode: str) -> IO[Any]:
        if path.endswith("03.png"):
            raise PermissionError(13, "Permission denied")
        return open(path, mode)

    monkeypatch.setattr(opening, "open", refuse_one, raising=False)
    assert read_photographs(photos[0].parent, 8, keep).notes == (
        f'03.png: "{photos[3]}" may not be read; change its permissions',
    )


def test_a_pipe_or_a_device_keeps_nobody_waiting(photos: list[Path]) -> None:
    os.mkfifo(photos[0].parent / "pipe.png")
    (photos[0].parent / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(photos[0].parent / "socket.png"))
        found = read_photographs(photos[0].parent, 8, keep)
    assert len(found) == 12 and len(found.notes) == 3
    assert all("a device or a pipe" in note for note in found.notes)
