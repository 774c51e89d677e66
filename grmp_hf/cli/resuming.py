"""Rows of a run in progress, on disk beside the table that they will become, so that a killed run can go on."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from grmp_hf.cli.writing import SCORES, about_path
from grmp_hf.errors import GRMPError
from grmp_hf.scoring import ScoredPicture
from grmp_hf.storing import TEMPORARY, Lock, cannot_write, digest_file, read_json, this_process, try_place, writing

__all__ = ["PartialRows", "check_unchanged", "remove_ended", "run_key", "why_not_ours"]

_SCHEMA = "grmp_hf.partial/1"
_WIDTH = 320  # bytes of the first line, whoever holds the file


def run_key(paths: Sequence[str], identity: Any, batch_size: int) -> str:
    """Hash of all that decides about the rows: the files with their sizes and times, the scorer, the batches."""
    digest = hashlib.sha256(json.dumps([identity, batch_size], sort_keys=True).encode())
    for path in paths:
        try:
            stat = os.stat(path)
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(os.fsencode(path) + f"\0{state}\0".encode())
    return digest.hexdigest()


class PartialRows:
    """The file ``<table>.part``: whose it is in its first line, then a row a line, added a batch at a time.

    Made and locked before any work, so that a place that cannot be written to, or where another run is writing, is
    known at once. Rows of an interrupted batch are dropped, so that the same pictures meet in the same batches and a
    run that was killed ends with the same table to the last digit.

    Args:
        output: the table that the rows will become.

    Attributes:
        done: rows that an earlier run left.
        failed: of these, pictures that could not be scored.
        damaged: whether something at the end of the file was no row, and is dropped.
        table: the path under which the table is written until it is whole, one for each name of a table, so that what
            a run that was killed has left is found.

    Raises:
        GRMPError: the place cannot be written to, another run is writing there, or a file of somebody else would be
            replaced.
    """

    def __init__(self, output: Path) -> None:
        self.path, self._about = _part(output), about_path(output)
        name = hashlib.sha256(os.fsencode(output.name)).hexdigest()
        self.table = self.path.with_name(f"{TEMPORARY}{name[:12]}")
        self.done = self.failed = 0
        self.damaged = False
        with writing(output):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if (theirs := why_not_ours(output)) is not None:
                raise GRMPError(f"{theirs}; move it away or choose another --output")
            new = not os.path.lexists(self.path)
            begun = self.table.exists() and not new and not self.path.stat().st_size  # killed before the first line
            if not new and not begun and _read_head(self.path) is None:
                raise GRMPError(
                    f"{self.path}: expected rows of an unfinished run, found something else; move it away or choose "
                    "another --output"
                )
            if new:
                self.table.touch()  # the sign that the file is ours as long as it is empty
            self._lock = Lock(self.path, output)
            try:
                self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115 (closed in close)
                self._write_head((_read_head(self.path) or {"run": None})["run"])
                try_place(self.path.parent, self.table)
            except BaseException:
                self._release(remove=new)
                raise

    def _write_head(self, run: str | None) -> None:
        head = json.dumps({"schema": _SCHEMA, "run": run, "owner": this_process()})
        self._run = run
        self._file.seek(0)
        self._file.write(head.ljust(_WIDTH - 1).encode() + b"\n")

    def begin(self, key: str, batch_size: int) -> None:
        """Find the rows of an earlier run with the same key; others are not used.

        Args:
            key: of `run_key`.
            batch_size: rows of each batch.
        """
        with writing(self.path):
            end = self._find_end(batch_size) if self._run == key else _WIDTH
            self._file.truncate(end)
            self._write_head(key)
            self._file.seek(end)

    def _find_end(self, batch_size: int) -> int:
        """Where the last whole batch ends, in bytes."""
        end, failed = _WIDTH, 0
        with open(self.path, "rb") as file:
            file.seek(_WIDTH)
            for number, line in enumerate(file, start=1):
                row = _parse(line)
                if row is None:
                    self.damaged = True
                    break
                failed += row.status != "ok"
                if number % batch_size == 0:
                    end, self.done, self.failed = file.tell(), number, failed
        return end

    def add(self, rows: Sequence[ScoredPicture]) -> None:
        """Add one batch.

        Raises:
            GRMPError: it cannot be written; what was there stays, whole.
        """
        at, content = self._file.tell(), b"".join(map(_line, rows))
        try:
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            self._file.truncate(at)
            raise GRMPError(
                f"{cannot_write(self.path, error)}, and start the same command again: it goes on after the rows that "
                "are there"
            ) from error

    def read(self) -> Iterator[ScoredPicture]:
        """All rows, in order."""
        with open(self.path, "rb") as file:
            file.seek(_WIDTH)
            for line in file:
                row = _parse(line)
                assert row is not None  # every line was checked or written by this run
                yield row

    def remove(self) -> None:
        """Forget the rows: the table is there."""
        self._file.close()
        self._release(remove=True)

    def _release(self, *, remove: bool) -> None:
        """Let others have the place, and ``remove`` all that is there."""
        for path in list(self.path.parent.glob(f"{self.table.name}*")):  # first: the rows say that they are ours
            path.unlink(missing_ok=True)
        self._lock.release(remove=remove)

    def __enter__(self) -> PartialRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the rows for the next run; nothing is left of a run that never began."""
        if not self._file.closed:
            self._file.close()
            self._release(remove=self._run is None)


def why_not_ours(output: Path) -> str | None:
    """Why what stands at a table's place may not be replaced; None where it may, or where nothing is there."""
    beside = about_path(output)
    about = read_json(beside, SCORES)  # which every table of scores has beside it
    if about is None:
        theirs = next((path for path in (output, beside) if os.path.lexists(path)), None)
        return None if theirs is None else f"{theirs}: would be replaced, and is none of this command's"
    if output.is_symlink() or (output.exists() and digest_file(output) != about.get("sha256")):
        return f"{output}: would be replaced, and was changed since this command made it"
    return None


def check_unchanged(output: Path, overwrite: bool) -> None:
    """Raise where a table has come to stand, or was changed, while its rows were made.

    Raises:
        GRMPError: it is not to be replaced; the rows stay beside it.
    """
    there = os.path.lexists(output) and not overwrite
    if there or why_not_ours(output) is not None:
        raise GRMPError(
            f"--output {output}: was made or changed by others meanwhile; move it away and start the same command "
            "again: no picture is scored twice"
        )


def remove_ended(output: Path) -> None:
    """Remove the rows of a run that was killed when its table was in place; those of any other are left alone."""
    about, path = read_json(about_path(output), SCORES) or {}, _part(output)
    head = _read_head(path) if path.is_file() else None
    if head is not None and head["run"] is not None and head["run"] == about.get("run"):
        PartialRows(output).remove()


def _part(output: Path) -> Path:
    return output.with_name(f"{output.name}.part")


def _read_head(path: Path) -> dict[str, Any] | None:
    """The first line of a file of rows; None where it is something else."""
    try:
        with open(path, "rb") as file:
            head = json.loads(file.readline(_WIDTH))
    except ValueError:
        return None
    return head if isinstance(head, dict) and head.get("schema") == _SCHEMA else None


def _line(row: ScoredPicture) -> bytes:
    """A row and, after it, the sum by which damage is noticed."""
    return json.dumps([*row, zlib.crc32(json.dumps(row).encode())]).encode() + b"\n"


def _parse(line: bytes) -> ScoredPicture | None:
    """The row of a line; None where it is damaged or cut off."""
    try:
        row = ScoredPicture(*json.loads(line)[:-1])
        return row if _line(row) == line else None
    except (ValueError, TypeError):
        return None
