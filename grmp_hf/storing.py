"""Files that are written whole or not at all, places that are tried before long work, and locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grmp_hf.errors import GRMPError

__all__ = [
    "TEMPORARY",
    "Lock",
    "atomic_path",
    "cannot_write",
    "digest_file",
    "is_first_process",
    "read_json",
    "this_process",
    "to_json",
    "try_place",
    "usual_mode",
    "write_json",
    "writing",
]

_PROBE = 2**20  # bytes that a place must have room for
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
TEMPORARY = ".grmp-iqa-"
"""How the name of a file begins that is not whole yet; twelve random digits follow."""

_AT = 2**62  # the byte that is locked where a lock is of bytes: beyond all that anybody reads
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # as accelerate reads them


def is_first_process() -> bool:
    """Whether this is the process that writes: the only one, or the first of ``accelerate launch``."""
    return next((os.environ[name] for name in _RANKS if name in os.environ), "0") in ("0", "-1")


def cannot_write(path: Path | str, error: OSError) -> GRMPError:
    """The error for a file that the system does not let us write."""
    what = "free some space" if error.errno in _FULL else "choose another place"
    return GRMPError(f"{path}: cannot be written ({error.strerror or error}); {what}")


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what the system and the libraries say when a file cannot be written into one `GRMPError`.

    Args:
        place: what the error names.
    """
    try:
        yield
    except BrokenPipeError:  # of what is printed meanwhile
        raise
    except OSError as error:
        if error.filename is not None and not _belongs(error.filename, place):  # such as a picture that is read
            raise
        raise cannot_write(place, error) from error
    except Exception as error:  # torch and safetensors have errors of their own for a full disk
        said = str(error).partition("\n")[0]
        if (type(error).__name__ == "SafetensorError" and "(os error" in said) or "inline_container.cc" in said:
            raise GRMPError(f"{place}: cannot be written ({said}); free some space or choose another place") from error
        raise


def _belongs(path: Any, place: Path) -> bool:
    """Whether a path lies where a place is, or on the way to it."""
    found, wanted = os.path.abspath(os.fsdecode(path)), os.path.abspath(place)
    return Path(found).is_relative_to(os.path.dirname(wanted)) or Path(wanted).is_relative_to(found)


def _create(folder: Path, via: Path | None = None) -> tuple[Path, int]:
    """A new empty file, under a name that nobody has unless one is given, and its mode: the one of the umask."""
    path = folder / f"{TEMPORARY}{secrets.token_hex(6)}" if via is None else via
    if via is not None:
        via.unlink(missing_ok=True)  # of a run that was killed
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return path, os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path, via: Path | None = None) -> Iterator[Path]:
    """A path to write to, in the same folder, that takes the wanted name once the block has ended well.

    The file gets the mode that the umask gives, whatever the library that wrote it thinks.

    Args:
        path: the wanted one.
        via: the path to write to, a file of ours or none yet; None for a new name that nobody has, which is for
            folders of working files: anywhere else nobody would clear it away after a run that was killed.

    Raises:
        GRMPError: the folder cannot be written to.
    """
    temporary: Path | None = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary, mode = _create(path.parent, via)
            yield temporary
            os.chmod(temporary, mode)
            os.replace(temporary, path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, via: Path | None = None) -> None:
    """Write JSON, whole or not at all; ``via`` as in `atomic_path`."""
    with atomic_path(path, via) as temporary:
        temporary.write_text(to_json(content), encoding="utf-8")


def to_json(content: Any) -> str:
    """JSON as `write_json` writes it."""
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"


def read_json(path: Path, schema: str) -> dict[str, Any] | None:
    """What `write_json` wrote with that ``schema``; None where there is no such file or it is somebody else's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == schema else None


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def usual_mode(folder: Path) -> int:
    """The mode that a new file in a folder gets."""
    path, mode = _create(folder)
    path.unlink()
    return mode


def try_place(folder: Path, via: Path | None = None) -> None:
    """Raise unless a megabyte can be written into a folder, which exists; ``via`` as in `atomic_path`.

    Raises:
        GRMPError: no permission, a read-only or a full disk.
    """
    path = None
    try:
        with writing(folder):
            path, _ = _create(folder, via)
            with open(path, "wb", buffering=0) as file:
                written = file.write(bytes(_PROBE))
                if written != _PROBE:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


def this_process() -> str:
    """Who holds a file, in at most a hundred characters."""
    return f"process {os.getpid()} on {socket.gethostname()[:64]}"


_held: set[int] = set()


class Lock:
    """A lock on a file, held by this process until it is released or the process has ended, however it ended.

    A file and not a second one beside it, so that nothing stays behind; processes that this one forks do not hold it.

    Args:
        path: made if it does not exist, else left as it is.
        what: that others may not write to at the same time, for the message.

    Raises:
        GRMPError: another process holds it, or the file cannot be opened.
    """

    def __init__(self, path: Path, what: Path) -> None:
        self.path = path
        with writing(path):
            self._file = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
        if not _lock(self._file) or not self._is_there():
            os.lseek(self._file, 0, os.SEEK_SET)
            owner = os.read(self._file, 200).decode("utf-8", "replace")
            os.close(self._file)
            who = f" ({owner.strip()})" if owner.startswith("process ") else ""
            raise GRMPError(
                f"{what}: another run is writing there{who}; wait until it has ended, or choose another place"
            )
        _held.add(self._file)

    def _is_there(self) -> bool:
        """Whether the file was not taken away by its last owner before this process had the lock."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except OSError:
            return False

    def sign(self) -> None:
        """Write into the file whose it is."""
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{this_process()}\n".encode())

    def release(self, *, remove: bool = False) -> None:
        """Let others have it; ``remove`` takes the file away too."""
        if self._file not in _held:
            return
        if remove and os.name != "nt":  # while it is held, so that nobody takes it in between
            self.path.unlink(missing_ok=True)
        _held.discard(self._file)
        os.close(self._file)
        if remove and os.name == "nt":  # which does not let go of an open file
            with contextlib.suppress(OSError):
                self.path.unlink()


def _lock(file: int) -> bool:
    """Lock an open file; False where somebody else has. On file systems without locks nobody is kept out."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        windows: Any = msvcrt
        os.lseek(file, _AT, os.SEEK_SET)
        try:
            windows.locking(file, windows.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    return True


def _let_go() -> None:
    """In a forked process: the lock is its parent's alone, and ends with it."""
    for file in _held:
        with contextlib.suppress(OSError):
            os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
