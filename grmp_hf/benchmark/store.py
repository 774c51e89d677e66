"""Results on disk: a row a figure in ``results.jsonl``, its predictions beside it, safe against being killed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grmp_hf.errors import GRMPError
from grmp_hf.storing import TEMPORARY, atomic_path, writing

__all__ = ["Predicted", "ResultStore"]


class Predicted(NamedTuple):
    """Scores beside ratings, both in the unit of the data set; (n,) each."""

    names: NDArray[np.str_]
    scores: NDArray[np.float64]
    mos: NDArray[np.float64]


class ResultStore:
    """The finished rows of a folder, of this run and of earlier ones.

    A row is found by its key, which says all that decided about it. A line that was cut off when a run was killed is
    removed; rows of other settings stay, since the settings may come back.

    Args:
        folder: made if it does not exist.

    Raises:
        GRMPError: a file of results that is something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "results.jsonl"
        self._unfinished = folder / "predictions" / f"{TEMPORARY}row"
        self._rows: dict[str, dict[str, Any]] = {}
        try:
            for name in ("predictions", "splits"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            self._unfinished.unlink(missing_ok=True)  # of a run that was killed
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise GRMPError(f"{folder}: cannot be used ({error.strerror}); choose another --output") from error
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                row = json.loads(line)
                self._rows[row["key"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise GRMPError(f"{self.path}, line {number}: expected a result, got ({error!r}); remove it") from error
        if whole < len(content):
            if not content[whole:].startswith(b"{"):
                raise GRMPError(f"{self.path}: expected results, got a last line that is none; remove that line")
            with writing(self.path):
                os.truncate(self.path, whole)

    def find(self, key: str) -> dict[str, Any] | None:
        """The finished row of that key, if its predictions are there too."""
        row = self._rows.get(key)
        return row if row is not None and (self.folder / row["predictions"]).is_file() else None

    def add(self, key: str, row: Mapping[str, Any], predicted: Predicted) -> dict[str, Any]:
        """Write predictions, then the row, which makes it finished."""
        path = self.folder / "predictions" / f"{key[:32]}.npz"
        with atomic_path(path, self._unfinished) as temporary, open(temporary, "wb") as file:
            np.savez(file, **predicted._asdict())
        finished = {**row, "predictions": f"predictions/{path.name}", "key": key}
        with writing(self.path), open(self.path, "ab") as file:
            file.write(json.dumps(finished).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[key] = finished
        return finished

    def predictions(self, row: Mapping[str, Any]) -> Predicted:
        """The predictions of a row."""
        with np.load(self.folder / row["predictions"]) as arrays:
            return Predicted(*(arrays[name] for name in Predicted._fields))
