"""Scratch folders: gone in the end, and where their process was killed, cleared away by the next one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grmp_hf.errors import GRMPError
from grmp_hf.storing import TEMPORARY, Lock

__all__ = ["clear_leftovers", "scratch_folder"]

_NAME = re.compile(re.escape(TEMPORARY) + "scratch-[0-9a-f]{16}")
_LOCK, _CONTENT = "lock", "content"


@contextmanager
def scratch_folder(place: Path | None = None) -> Iterator[Path]:
    """A new empty folder that is removed when the block ends.

    It lies in one that is closed to other users, so that what is made there may take another place with the mode of
    any new folder. What killed processes have left at the same place is removed first.

    Args:
        place: folder to make it in; that of the system's temporary files if None.

    Raises:
        OSError: the place cannot be written to.
    """
    place = Path(tempfile.gettempdir()) if place is None else place
    clear_leftovers(place)
    folder, lock = _make(place)
    try:
        content = folder / _CONTENT
        content.mkdir()
        yield content
    finally:
        _remove(folder, lock)


def clear_leftovers(place: Path) -> None:
    """Remove the scratch folders of processes that are gone; anything else at that place is left alone.

    A folder is such a one if it has the name, and nothing in it but what belongs there: a lock that the process has
    signed, and the content. Where the file system knows no locks, nothing is removed.
    """
    for folder in list(place.glob(f"{TEMPORARY}scratch-*")):
        with contextlib.suppress(OSError, GRMPError):  # of another user, in use, or gone meanwhile
            if not _is_ours(folder):
                continue
            lock = Lock(folder / _LOCK, folder)
            if _keeps_out(lock):
                _remove(folder, lock)
            else:
                lock.release()


def _make(place: Path, tries: int = 9) -> tuple[Path, Lock]:
    folder = place / f"{TEMPORARY}scratch-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        lock = Lock(folder / _LOCK, folder)
    except GRMPError:  # somebody who was clearing up has taken it for a leftover
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not tries:
            raise
        return _make(place, tries - 1)
    lock.sign()
    return folder, lock


def _is_ours(folder: Path) -> bool:
    if not _NAME.fullmatch(folder.name) or folder.is_symlink() or folder.stat().st_uid != _user():
        return False
    names = set(os.listdir(folder))
    if not names or (names == {_LOCK} and (folder / _LOCK).stat().st_size == 0):  # not signed yet
        return True
    if not names <= {_LOCK, _CONTENT}:
        return False
    with open(folder / _LOCK, encoding="utf-8") as file:
        return file.read(8) == "process "


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _keeps_out(lock: Lock) -> bool:
    """Whether a lock that is held is refused to a second one."""
    try:
        Lock(lock.path, lock.path).release()
    except GRMPError:
        return True
    return False


def _remove(folder: Path, lock: Lock) -> None:
    """Remove a folder whose lock is held; the lock goes last, for it says whose the rest is."""
    shutil.rmtree(folder / _CONTENT, ignore_errors=True)
    lock.release(remove=os.listdir(folder) == [_LOCK])
    with contextlib.suppress(OSError):
        folder.rmdir()
