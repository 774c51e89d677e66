"""Scratch folders: gone in the end, and where their process was killed, cleared away by the next one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from grmp_hf import scratch
from grmp_hf.errors import GRMPError
from grmp_hf.scratch import clear_leftovers, scratch_folder
from grmp_hf.storing import Lock

NAME = ".grmp-iqa-scratch-0123456789abcdef"

_KILLED = """
import os, signal, sys
from pathlib import Path
from grmp_hf.scratch import clear_leftovers, scratch_folder

def work(place, at):
    count = 0
    def watch(event, args):
        nonlocal count
        if event not in ("open", "os.mkdir", "os.truncate", "shutil.rmtree", "os.remove", "os.rmdir"):
            return
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    with scratch_folder(place) as folder:
        (folder / "file").write_text("half")
    os._exit(0)

place, at, ended = Path(sys.argv[1]), 0, signal.SIGKILL
while ended == signal.SIGKILL:
    at += 1
    child = os.fork()
    if child == 0:
        work(place, at)
    ended = os.waitpid(child, 0)[1]
    with scratch_folder(place) as folder:
        assert os.listdir(place) == [folder.parent.name], at
assert ended == 0
print(at)
"""


def test_it_is_gone_when_the_block_ends_however(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path) as folder:
        (folder / "file").touch()
        (tmp_path / "new").mkdir()
        assert folder.stat().st_mode == (tmp_path / "new").stat().st_mode
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["new"]


def test_wherever_its_process_is_killed_the_next_one_clears_it_away(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8


def test_one_whose_owner_lives_is_left_alone(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as mine:
        (mine / "file").write_text("half")
        with scratch_folder(tmp_path) as other:
            assert (mine / "file").read_text() == "half" and mine != other
        code = f"import pathlib, grmp_hf.scratch as s; s.clear_leftovers(pathlib.Path({str(tmp_path)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert (mine / "file").read_text() == "half"


def test_one_is_left_alone_where_nobody_can_tell_whether_its_owner_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with scratch_folder(tmp_path) as mine, scratch_folder(tmp_path):
        assert mine.is_dir()
    assert not os.listdir(tmp_path)


def foreign(folder: Path, name: str, *, signed: bool = True, more: str = "content/file") -> None:
    """A folder with a lock and another file in it."""
    path = folder / name / more
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    if signed:
        (folder / name / "lock").write_text("process 1 on a machine\n")


THEIRS: dict[str, Callable[[Path], object]] = {
    "another name": lambda place: foreign(place, f"{NAME}.old"),
    "the name of old": lambda place: foreign(place, ".unpacking-abcdefgh"),
    "no lock": lambda place: foreign(place, NAME, signed=False),
    "another's lock": lambda place: foreign(place, NAME, signed=False, more="lock"),
    "another file": lambda place: foreign(place, NAME, more="file"),
    "a file": lambda place: (place / NAME).write_text("mine"),
    "a link": lambda place: (foreign(place, "folder"), (place / NAME).symlink_to(place / "folder")),
}


@pytest.mark.parametrize("kind", THEIRS)
def test_what_no_run_made_is_left_alone(kind: str, tmp_path: Path) -> None:
    THEIRS[kind](tmp_path)
    before = {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")}
    clear_leftovers(tmp_path)
    assert {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")} == before


def test_one_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(tmp_path, NAME)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    clear_leftovers(tmp_path)
    assert (tmp_path / NAME / "content" / "file").is_file()
    monkeypatch.undo()
    clear_leftovers(tmp_path)
    assert not os.listdir(tmp_path)


def test_one_that_is_taken_for_a_leftover_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []

    def lock(path: Path, what: Path) -> Lock:
        if not taken:
            taken.append(path.parent)
            clear_leftovers(tmp_path)
        return Lock(path, what)

    monkeypatch.setattr(scratch, "Lock", lock)
    with scratch_folder(tmp_path) as folder:
        assert folder.parent not in taken and os.listdir(tmp_path) == [folder.parent.name]


def test_a_place_that_cannot_be_locked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, what: Path) -> Lock:
        raise GRMPError(f"{what}: cannot be written (No space left on device); free some space")

    monkeypatch.setattr(scratch, "Lock", full)
    with pytest.raises(GRMPError, match="free some space"), scratch_folder(tmp_path):
        pass
    assert not os.listdir(tmp_path)
