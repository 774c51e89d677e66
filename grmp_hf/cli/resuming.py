"""Rows of a run in progress, on disk beside the table that they will become, so that a killed run can go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grmp_hf.errors import GRMPError
from grmp_hf.scoring import ScoredPicture

__all__ = ["PartialRows", "run_key"]


def run_key(paths: Sequence[Path], identity: Any, batch_size: int) -> str:
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
    """The file ``<table>.part``: the run's key in its first line, then a row a line, added a batch at a time.

    Rows of an interrupted batch are dropped, so that the same pictures meet in the same batches and a run that was
    killed ends with the same table to the last digit.

    Args:
        output: the table that the rows will become.
        key: of ``run_key``; rows of a file with another key are not used.
        batch_size: rows of each batch.

    Attributes:
        done: rows that an earlier run left.
        failed: of these, pictures that could not be scored.
    """

    def __init__(self, output: Path, key: str, batch_size: int) -> None:
        self.path = output.with_name(f"{output.name}.part")
        self.done = self.failed = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            end = self._find_end(key, batch_size)
            self._file = open(self.path, "r+b" if end else "wb")  # noqa: SIM115 (closed in finish and close)
            self._file.seek(end)
            self._file.truncate()
            if not end:
                self._file.write(json.dumps({"run": key}).encode() + b"\n")
        except OSError as error:
            raise GRMPError(f"{self.path}: cannot be written ({error.strerror}); choose another --output") from error

    def _find_end(self, key: str, batch_size: int) -> int:
        """Where the last whole batch of the same run ends, in bytes; 0 for nothing to go on from."""
        if not self.path.is_file():
            return 0
        with open(self.path, "rb") as file:
            if file.readline() != json.dumps({"run": key}).encode() + b"\n":
                return 0
            end, failed = file.tell(), 0
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                failed += json.loads(line)[3] != "ok"
                if number % batch_size == 0:
                    end, self.done, self.failed = file.tell(), number, failed
        return end

    def add(self, rows: Sequence[ScoredPicture]) -> None:
        """Add one batch."""
        self._file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        self._file.flush()

    def read(self) -> Iterator[ScoredPicture]:
        """All rows, in order."""
        self._file.flush()
        with open(self.path, "rb") as file:
            file.readline()
            for line in file:
                yield ScoredPicture(*json.loads(line))

    def close(self) -> None:
        """Leave the rows for the next run."""
        self._file.close()

    def remove(self) -> None:
        """Forget the rows: the table is there."""
        self._file.close()
        self.path.unlink(missing_ok=True)
