"""Results of a run: built aside, and put in the place of an earlier run's when they are whole.

What a run has written stands with its digests in ``.grmp-iqa.json``; nothing else is ever replaced or deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from grmp_hf.claims import NEW, PLAN, WORK, WorkFolder, check_folder, first_few, is_begun
from grmp_hf.errors import GRMPError
from grmp_hf.storing import TEMPORARY, digest_file, is_first_process, read_json, usual_mode, write_json, writing

__all__ = ["MANIFEST", "OutputFolder", "check_source", "keep_apart"]

MANIFEST = ".grmp-iqa.json"
"""Names and digests of what the last run wrote into a folder."""

_FILES, _SWAP = "grmp_hf.files/1", "grmp_hf.swap/1"


class OutputFolder:
    """A folder that one run fills: everything is built aside, and takes its place at the end.

    Args:
        folder: made if it does not exist.
        names: what the run may write, as patterns relative to the folder.
        overwrite: replace the results of an earlier run; files of others never are.
        shared: the folder may hold other things, none of which has one of the names.
        run: of which the folder may hold results already: one that was killed while it wrote to several folders.

    Attributes:
        new: folder to write the results to.
        work: what an interrupted run keeps.

    Raises:
        GRMPError: it holds what would be replaced and may not be, another run is at work there, or it cannot be written
            to. Nothing was changed.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], *, overwrite: bool, shared: bool = False, run: str | None = None
    ) -> None:
        self.folder, self._names, self._overwrite = folder, (*names, MANIFEST), overwrite
        first = is_first_process()
        with writing(folder):
            if first and self._plan() is None:
                if (folder / WORK).is_dir():  # perhaps of a run that was killed when all its results were in place
                    WorkFolder(folder / WORK, folder).close()
                self._check(shared, run)
            self.work = WorkFolder(folder / WORK, folder, overwrite=overwrite)
            if first and self._plan() is not None:  # of a run that was killed while it put its results there
                with self.work:
                    self._swap()
                self._check(shared, run)
                self.work = WorkFolder(folder / WORK, folder, overwrite=overwrite)
            if first:  # what a run was building when it was killed
                shutil.rmtree(self.work.folder / NEW, ignore_errors=True)
        self.new = self.work.folder / NEW / (folder.resolve().name or NEW)  # cards call it by its name

    def _check(self, shared: bool, run: str | None) -> None:
        """Refuse a folder with anything that is not to be replaced."""
        check_folder(self.folder)
        theirs = self._theirs(self._names)
        if theirs:
            raise GRMPError(
                f"{self.folder}: holds {first_few(theirs)}, which would be replaced and which no run of grmp-iqa wrote "
                "or which was changed since; move it away or choose another folder"
            )
        if self._overwrite:
            return
        manifest = self._manifest()
        if manifest is not None and (run is None or manifest.get("run") != run):
            raise GRMPError(f"{self.folder}: holds finished results; choose another folder or add --overwrite")
        unfinished = is_begun(self.folder / WORK)
        if (
            self.folder.is_dir()
            and not shared
            and not unfinished
            and any(p.name != WORK for p in self.folder.iterdir())
        ):
            raise GRMPError(f"{self.folder}: the folder is not empty; choose another one or add --overwrite")

    def _theirs(self, patterns: Sequence[str]) -> list[str]:
        """What is in the way of files with these names and is not of an earlier run."""
        found = set()
        for pattern in patterns:
            plain = os.path.lexists(self.folder / pattern)  # a link that leads nowhere is somebody's too
            for path in [self.folder / pattern] if plain else self.folder.glob(pattern):
                name = path.relative_to(self.folder).as_posix()
                if not self._is_ours(name):
                    found.add(name)
            for parent in Path(pattern).parents[:-1]:
                place = self.folder / parent
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    found.add(parent.as_posix())
        return sorted(found)

    def _plan(self) -> dict[str, Any] | None:
        return read_json(self.folder / WORK / PLAN, _SWAP)

    def _manifest(self) -> dict[str, Any] | None:
        return read_json(self.folder / MANIFEST, _FILES)

    def _recorded(self) -> dict[str, str | None]:
        files = (self._manifest() or {}).get("files")
        return dict(files) if isinstance(files, dict) else {}

    def _is_ours(self, name: str) -> bool:
        """Whether an earlier run wrote a file, and nobody has changed it since."""
        path, recorded = self.folder / name, self._recorded()
        if path.is_symlink() or not path.is_file():
            return False
        if name == MANIFEST:
            return self._manifest() is not None
        return name in recorded and recorded[name] in (None, digest_file(path))

    def begin(self, settings: Mapping[str, Any] | None = None) -> None:
        """Go on with what a run with the same settings has left, or begin anew; always anew without settings."""
        if not is_first_process():
            return
        with writing(self.folder):
            if settings is None:
                self.work.clear()
            else:
                self.work.begin(settings)
            self.new.mkdir(parents=True, exist_ok=True)

    def publish(self, *, keep: bool = False) -> None:
        """Put what was built in the place of what an earlier run has left.

        Killed at any moment, the folder says that it is unfinished, and whoever opens it next ends what was begun.

        Args:
            keep: leave the results of earlier runs that have no new ones.

        Raises:
            GRMPError: somebody has put a file of one of these names there meanwhile; what was built stays.
        """
        with writing(self.folder):
            built = [p for p in sorted(self.new.rglob("*")) if p.is_file() and not p.name.startswith(TEMPORARY)]
            mode = usual_mode(self.work.folder)
            for path in built:
                path.chmod(mode)
            files = {path.relative_to(self.new).as_posix(): digest_file(path) for path in built}
            self._refuse(self._theirs([*files, MANIFEST]))
            before = {
                name: digest for name, digest in self._recorded().items() if digest is None or self._is_ours(name)
            }
            kept = {name: digest for name, digest in before.items() if keep or digest is None}
            plan = {
                "schema": _SWAP,
                "from": self.new.name,
                "remove": [name for name in before if name in files or name not in kept],
                "move": sorted(files),
                "manifest": {"schema": _FILES, "run": self.work.run, "files": {**kept, **files}},
            }
            write_json(self.work.folder / PLAN, plan)
            self._swap()

    def adopt(self, name: str) -> None:
        """Note that a file to which rows are added is of this package, before it is made."""
        if name not in self._recorded():
            files = {**self._recorded(), name: None}
            self._write_manifest({"schema": _FILES, "run": self.work.run, "files": files})

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        write_json(self.folder / MANIFEST, content, via=self.work.folder / f"{TEMPORARY}manifest")

    def _refuse(self, theirs: Sequence[str]) -> None:
        if theirs:
            raise GRMPError(
                f"{self.folder}: holds {first_few(theirs)}, which no run of grmp-iqa wrote; move it away and start the "
                f"same command again. What was made is in {self.folder / WORK / NEW}"
            )

    def _swap(self) -> None:
        """Do, or go on with, what `publish` has planned."""
        plan = self._plan()
        if plan is None:
            return
        new = self.work.folder / NEW / plan["from"]
        left = [name for name in plan["move"] if (new / name).is_file()]
        if len(left) == len(plan["move"]):  # old results go first
            old = [name for name in plan["remove"] if os.path.lexists(self.folder / name)]
            self._refuse([name for name in old if not self._is_ours(name)])
            for name in old:
                (self.folder / name).unlink()
                _prune(self.folder / name, self.folder)
        self._refuse([name for name in left if os.path.lexists(self.folder / name)])
        for name in left:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / name, self.folder / name)
        self._write_manifest(plan["manifest"])
        self.work.remove()

    def close(self) -> None:
        """Let go; see `WorkFolder.close`."""
        self.work.close()

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def keep_apart(output: Path, option: str, source: str | Path | None) -> None:
    """Raise where what is read lies in the folder that is to be filled, whose old content may be replaced.

    Args:
        output: the folder to fill.
        option: that named the source, for the message.
        source: a folder; anything else, such as a name on the Hub, is apart.
    """
    if source is not None and Path(source).is_dir() and Path(source).resolve().is_relative_to(output.resolve()):
        raise GRMPError(
            f"{option}: expected another folder than the one to write to, got {str(source)!r} for both; write elsewhere"
        )


def check_source(name: str | os.PathLike[str] | None) -> None:
    """Raise for a folder of results that cannot be used as it is; any other name passes.

    Raises:
        GRMPError: it may not be read, or its run has not ended: it holds no results, or half of them.
    """
    try:
        if name is None or not stat.S_ISDIR(os.stat(name).st_mode):
            return
        folder = Path(name)
        for entry in os.listdir(folder):
            if entry.endswith((".json", ".safetensors")) and (folder / entry).is_file():
                open(folder / entry, "rb").close()
    except PermissionError as error:
        raise GRMPError(
            f"{error.filename}: no permission to read it; ask its owner for the permission, or read a copy"
        ) from error
    except OSError:  # there is none of that name: whoever asked says so
        return
    work = folder / WORK
    half = read_json(work / PLAN, _SWAP) is not None  # some of the new ones, and none or all of the old
    if half or (is_begun(work) and not (folder / MANIFEST).is_file()):
        raise GRMPError(f"{folder}: its run has not ended; start the command that makes it again")


def _prune(path: Path, top: Path) -> None:
    """Remove the folders of a file that is gone, as far as they are empty."""
    for parent in path.parents:
        if parent == top:
            return
        with contextlib.suppress(OSError):
            parent.rmdir()
