"""Runs the cells of a benchmark, each once, and goes on where an earlier run has stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from grmp_hf.benchmark.planning import Cell, TestPart
from grmp_hf.benchmark.protocols import Outcome, run_clean, run_paper
from grmp_hf.benchmark.store import Predicted, ResultStore
from grmp_hf.data import Row, relative_noise
from grmp_hf.evaluation.metrics import point_figures
from grmp_hf.features import FeatureStore
from grmp_hf.measuring import peak_memory_mib
from grmp_hf.saving import package_versions

__all__ = ["Runner", "cell_name"]

Floats = NDArray[np.float64]


def cell_name(cell: Cell) -> str:
    """A cell in words.

    Such as "livec, clean, 50 labels, draw 3, ridge".
    """
    labels = f"{cell.shots} labels" if cell.shots else "no labels"
    return f"{cell.table.name}, {cell.protocol}, {labels}, draw {cell.draw}, {cell.method.name}"


@dataclass(frozen=True)
class Runner:
    """Runs cells.

    Attributes:
        features: of all pictures of the cells.
        store: finished rows.
    """

    features: FeatureStore
    store: ResultStore

    def run(self, cells: Sequence[Cell], tell: Callable[[str, float], None]) -> list[dict[str, Any]]:
        """Rows of all cells, in order; those that an earlier run has finished are taken from the store."""
        rows = []
        for done, cell in enumerate(cells):
            tell(cell_name(cell), done / len(cells))
            keys = [self._key(cell, test) for test in cell.tests]
            finished = [self.store.find(key) for key in keys]
            if None in finished:
                outcome = self._fit(cell)
                finished = [row or self._add(cell, at, outcome, keys[at]) for at, row in enumerate(finished)]
            rows += [row for row in finished if row is not None]
        tell("all cells", 1.0)
        return rows

    def _key(self, cell: Cell, test: TestPart) -> str:
        """Hash of all that decides about a row."""
        pictures = b"".join(self.features.digest(row) for row in (*cell.taught, *test.rows))
        decides = {
            **self._about(cell, test),
            "scales": [cell.table.scale.to_dict(), test.table.scale.to_dict()],
            "pictures": hashlib.sha256(pictures).hexdigest(),
            "base": self.features.base.about_base,
            "own_test_part": cell.tests[0].split.hash,
            "noise": None if (noise := _noise(cell)) is None else noise.tolist(),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def _about(self, cell: Cell, test: TestPart) -> dict[str, Any]:
        """What a row says beside its figures, and before there are any."""
        identity = self.features.base.identity
        return {
            "dataset": cell.table.name,
            "test_dataset": test.table.name,
            "method": cell.method.name,
            "protocol": cell.protocol,
            "shots": cell.shots,
            "draw": cell.draw,
            "seed": cell.seed,
            "split_hash": test.split.hash,
            "data_hash": cell.table.content_hash,
            "test_data_hash": test.table.content_hash,
            "n_train": len(cell.taught),
            "n_test": len(test.rows),
            "recipe": cell.method.settings(),
            "model": identity["model"],
            "revision": identity["revision"],
            "preprocessing": identity["preprocessing"],
            "versions": _versions(),
            "device": next(self.features.base.model.parameters()).device.type,
        }

    def _fit(self, cell: Cell) -> Outcome:
        quality = np.array([row.quality for row in cell.taught])
        columns = (*self.features.usual, *cell.method.columns)
        shots, noise = self.features.pictures(cell.taught, columns), _noise(cell)
        if noise is not None:
            shots = dataclasses.replace(shots, columns={**shots.columns, "noise": noise})
        tests = [self.features.pictures(test.rows, columns) for test in cell.tests]
        if cell.protocol == "clean":
            return run_clean(cell.method, shots, quality, tests, seed=cell.seed)
        test_quality = np.array([row.quality for row in cell.tests[0].rows])
        return run_paper(cell.method, shots, quality, tests[0], test_quality, seed=cell.seed)

    def _add(self, cell: Cell, at: int, outcome: Outcome, key: str) -> dict[str, Any]:
        """Look at the ratings of a test part, and keep the row."""
        test = cell.tests[at]
        scores, mos = test.table.scale.to_score(outcome.scores[at]), np.array([row.mos for row in test.rows])
        learnt = save(outcome.learnt)
        row = {
            **self._about(cell, test),
            **point_figures(scores, mos),
            "learnt_sha256": hashlib.sha256(learnt).hexdigest(),
            "learnt_bytes": len(learnt),
            "weights_trained": outcome.weights,
            "selection": outcome.selection,
            "shared_pictures": self._shared(cell.taught, test.rows),
            "seconds": round(outcome.seconds[at], 3),
            "fit_seconds": round(outcome.fit_seconds, 3),
            "peak_memory_mib": peak_memory_mib(),
        }
        if cell.protocol == "paper":
            last = outcome.scores[at] if outcome.last is None else outcome.last
            row["epochs"] = outcome.epochs and dict(zip(("selected", "last"), outcome.epochs, strict=True))
            row["last_epoch"] = point_figures(test.table.scale.to_score(last), mos)
        test.split.save(self.store.folder / "splits" / f"{test.split.hash}.json")
        names = np.array([row.name for row in test.rows])
        return self.store.add(key, row, Predicted(names, scores, mos))

    def _shared(self, taught: Sequence[Row], tested: Sequence[Row]) -> int:
        """How many test pictures are, byte for byte, among the shots."""
        known = {self.features.digest(row) for row in taught}
        return sum(self.features.digest(row) in known for row in tested)


def _noise(cell: Cell) -> Floats | None:
    """How sure the ratings of the shots are, as `grmp-iqa adapt` takes it."""
    return relative_noise(cell.taught, cell.table.scale) if cell.taught else None


def _versions() -> dict[str, str]:
    try:
        return package_versions() | {"scikit-learn": importlib.metadata.version("scikit-learn")}
    except importlib.metadata.PackageNotFoundError:
        return package_versions()
