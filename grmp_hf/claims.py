"""Whose a folder of working files is: a run's own, with the proof in it, and locked while the run lasts."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from grmp_hf.errors import GRMPError
from grmp_hf.storing import TEMPORARY, Lock, is_first_process, read_json, try_place, write_json, writing

__all__ = ["NEW", "PLAN", "WORK", "WorkFolder", "check_folder", "first_few", "is_begun"]

WORK = ".grmp-iqa-run"
"""Name of the folder of working files inside a folder that a run fills."""

_RUN = "grmp_hf.run/1"
NEW, PLAN = "new", "swap.json"
"""What a run builds in its folder, and the plan by which that takes its place."""

_LOCK, _RECORD = "lock", "run.json"
_OWN = (NEW, "training", "trained", "checkpoint-*", "runs", f"{TEMPORARY}*", PLAN)
"""What a run keeps in its folder, in the order in which it goes; anything else there is somebody else's."""


def is_begun(folder: Path) -> bool:
    """Whether a folder of working files is a run's that has not ended."""
    return read_json(folder / _RECORD, _RUN) is not None


class WorkFolder:
    """A folder of working files that is one run's, and locked while the run lasts.

    Of several processes of one run the first one alone locks and writes; to the others it is a name.

    Args:
        folder: made if it does not exist.
        what: the place as the user named it, for messages; the folder itself if None.
        overwrite: begin anew where the folder holds the state of a run with other settings.

    Attributes:
        run: of the run that holds it, a word that nobody else has; the same when an interrupted run goes on.

    Raises:
        GRMPError: it holds what no run of this package made, another run is at work in it, or it cannot be written to.
    """

    def __init__(self, folder: Path, what: Path | None = None, *, overwrite: bool = False) -> None:
        self.folder, self.what = folder, folder if what is None else what
        self._overwrite = overwrite
        self._first = is_first_process()
        self._lock: Lock | None = None
        self._made: list[Path] = []
        self.run = uuid.uuid4().hex
        self._settings: Any = None
        if self._first:
            with writing(self.what):
                self._open()

    def _open(self) -> None:
        check_folder(self.folder)
        self._made = _make_folders(self.folder)
        try:
            if read_json(self.folder / _RECORD, _RUN) is None:
                strange = [name for name in _names(self.folder) if name != _LOCK and not name.startswith(TEMPORARY)]
                if strange:
                    raise GRMPError(
                        f"{self.folder}: expected a new or an empty folder, or that of an unfinished run, got one with "
                        f"{first_few(strange)}; choose another folder"
                    )
            self._lock = Lock(self.folder / _LOCK, self.what)
            self._lock.sign()
            for path in list(self.folder.glob(f"{TEMPORARY}*")):  # of a run that was killed
                _remove(path)
            found = read_json(self.folder / _RECORD, _RUN)
            if found is not None:
                self.run, self._settings = str(found.get("run")), found.get("settings")
                if self._settings is None and not (self.folder / PLAN).exists():  # half removed, or not to go on with
                    self.clear()
            else:
                self._write(None)
            try_place(self.folder)
        except BaseException:
            self.close()
            raise

    def _write(self, settings: Any) -> None:
        self._settings = settings
        write_json(self.folder / _RECORD, {"schema": _RUN, "run": self.run, "settings": settings})

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Go on with what a run with the same settings has left, or begin.

        Args:
            settings: all that decides about the results, as JSON values.

        Raises:
            GRMPError: it does, and may not be overwritten.
        """
        wanted = json.loads(json.dumps(settings))
        if self.is_of(settings):
            return
        if self._settings is not None and self._holds_state() and not self._overwrite:
            before = self._settings
            other = [name for name in wanted if before.get(name) != wanted[name]]
            raise GRMPError(
                f"{self.what}: holds an unfinished run with other settings ({first_few(other)}); go on with those, "
                "choose another folder, or add --overwrite to begin anew"
            )
        self._write(None)  # killed from here on, it is not gone on with
        self.clear()
        self.run = uuid.uuid4().hex
        self._write(wanted)

    def is_of(self, settings: Mapping[str, Any]) -> bool:
        """Whether the run that holds the folder has these settings."""
        return not self._first or self._settings == json.loads(json.dumps(settings))

    def _holds_state(self) -> bool:
        return any(any(path.rglob("*")) if path.is_dir() else True for path in self._own_files())

    def _own_files(self) -> Iterator[Path]:
        return (path for pattern in _OWN for path in self.folder.glob(pattern))

    def clear(self) -> None:
        """Remove the state of the run."""
        for path in list(self._own_files()):
            _remove(path)

    def remove(self) -> None:
        """Remove the state and let go of the folder, which is removed unless others have put something there."""
        if self._first:
            with writing(self.what):
                self._write(None)  # killed from here on, it is nobody's and stands in nobody's way
                self.clear()
            self.close()

    def close(self) -> None:
        """Let go; what an interrupted run has learnt stays, and a folder in which there is nothing goes."""
        if not self._first:
            return
        kept = self._holds_state()
        if not kept and self._lock is not None:
            self.clear()  # of empty folders
            (self.folder / _RECORD).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release(remove=not kept)
        if not kept:
            for folder in [self.folder, *self._made]:
                with contextlib.suppress(OSError):  # not empty, or gone
                    folder.rmdir()
        self._made, self._first = [], False

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_folder(folder: Path) -> None:
    """Raise for a place that cannot be a folder."""
    if folder.is_symlink() and folder.name == WORK:
        raise GRMPError(f"{folder}: expected a folder of an unfinished run, got a link; move it away")
    if folder.exists() and not folder.is_dir():
        raise GRMPError(f"{folder}: expected a folder, got a file; choose another name")


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; the ones above it that were made, innermost first."""
    made: list[Path] = []
    above = folder.parent
    while not above.exists():
        made.append(above)
        above = above.parent
    if not above.is_dir():
        raise GRMPError(f"{folder.parent}: cannot be written ({above} is a file); choose another place")
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def first_few(names: Sequence[str]) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
