"""What each step of a stream says of test pictures, and the figures of it under different gates.

Letters in shapes: T data sets in the order in which they are learnt, B or n pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from grmp_hf.data import Row
from grmp_hf.data.image_errors import ImageError
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import bootstrap_interval, srcc
from grmp_hf.evaluation.stream import stream_figures
from grmp_hf.modeling.gating import KMeansGate, nearest_alone, softmin
from grmp_hf.scoring import Scorer
from grmp_hf.storing import TEMPORARY, is_first_process
from grmp_hf.views import iter_views

__all__ = ["GATES", "Judge", "Judged", "judge_tests"]

Floats = NDArray[np.float64]
Judge = Callable[[Tensor], Mapping[int, Tensor]]
"""Normalised views ``(B, V, 3, S, S)`` -> after step t: the quality ``(B, t + 1)`` on the axis of each data set."""

_TOGETHER = 16  # pictures that are decoded and judged at once
_DISTANCES, _QUALITY, _RATING = "distances", "quality", "rating"

GATES: Mapping[str, Callable[[Floats, int, float], Floats]] = {
    "softmin": lambda distances, own, tau: softmin(torch.from_numpy(distances), tau).numpy(),
    "nearest": lambda distances, own, tau: nearest_alone(torch.from_numpy(distances)).numpy(),
    "oracle": lambda distances, own, tau: np.eye(distances.shape[1])[np.full(len(distances), own)],
    "last": lambda distances, own, tau: np.eye(distances.shape[1])[np.full(len(distances), -1)],
    "mean": lambda distances, own, tau: np.full_like(distances, 1 / distances.shape[1]),
}
"""Name -> (distances ``(n, t + 1)``, number of the data set that the pictures are of, temperature) -> weights. The gate
itself, the nearest expert alone, somebody who knows whose the pictures are, the latest, and all alike."""


@dataclass(frozen=True)
class Judged:
    """What steps say of test pictures.

    Attributes:
        names: of the T data sets.
        ratings: name -> quality ``(n,)`` by people.
        distances: name -> ``(n, T)``, to each expert's nearest centre.
        quality: name -> step t -> ``(n, t + 1)``, on the axis of each data set.
        temperature: of the gate.
        unread: number of test pictures that cannot be read; they are left out.
    """

    names: tuple[str, ...]
    ratings: Mapping[str, Floats]
    distances: Mapping[str, Floats]
    quality: Mapping[str, Mapping[int, Floats]]
    temperature: float
    unread: int = 0

    def predicted(self, gate: str, step: int, name: str) -> Floats:
        """Quality ``(n,)`` of the test pictures of a data set after a step, under a gate of :data:`GATES`."""
        own = self.names.index(name)
        weights = GATES[gate](np.ascontiguousarray(self.distances[name][:, : step + 1]), own, self.temperature)
        found: Floats = (weights * self.quality[name][step]).sum(1)
        return found

    @property
    def steps(self) -> list[int]:
        """Those that have judged: all, or the last alone, of a scorer that has learnt all data sets at once."""
        return sorted(self.quality[self.names[0]])

    def matrix(self, gate: str = "softmin") -> list[list[float | None]]:
        """``R[t][s]``: SRCC on data set s after step t, None where it was not learnt or not judged."""
        found: list[list[float | None]] = []
        for step in range(len(self.names)):
            row: list[float | None] = [None] * len(self.names)
            if step in self.steps:
                for at, name in enumerate(self.names[: step + 1]):
                    row[at] = srcc(self.predicted(gate, step, name), self.ratings[name])
            found.append(row)
        return found

    def figures(self, gate: str = "softmin") -> dict[str, float] | None:
        """Plasticity, average, stability and MPSR; None where only the last step has judged."""
        if len(self.steps) < len(self.names):
            return None
        said = [[self.predicted(gate, t, name) for name in self.names[: t + 1]] for t in self.steps]
        return stream_figures(said, [self.ratings[name] for name in self.names])._asdict()

    def accuracy(self) -> dict[str, float]:
        """Name -> share of its test pictures whose nearest centre is one of their own data set's."""
        found = {}
        for own, name in enumerate(self.names):
            found[name] = float((self.distances[name].argmin(1) == own).mean())
        return found

    def final(self, gate: str = "softmin") -> dict[str, dict[str, Any]]:
        """Name -> SRCC after the last step with its 95 % bootstrap interval, and number of pictures."""
        found = {}
        for name in self.names:
            interval = bootstrap_interval(srcc, self.predicted(gate, len(self.names) - 1, name), self.ratings[name])
            found[name] = {**interval._asdict(), "pictures": len(self.ratings[name])}
        return found

    def report(self) -> dict[str, Any]:
        """All figures, as JSON values; those of the gate itself, and matrix and figures under the others."""
        others = {
            gate: {"matrix": self.matrix(gate), "figures": self.figures(gate)} for gate in GATES if gate != "softmin"
        }
        return {
            "sets": list(self.names),
            "matrix": self.matrix(),
            "figures": self.figures(),
            "final": self.final(),
            "gate_accuracy": self.accuracy(),
            "other_gates": others,
            "unread": self.unread,
        }


def judge_tests(
    scorer: Scorer,
    judge: Judge,
    gate: KMeansGate,
    tests: Mapping[str, Sequence[Row]],
    folder: Path,
    tell: Callable[[str, float], None],
) -> Judged:
    """Let every step judge the test pictures of every data set that it has learnt.

    Args:
        scorer: the base.
        judge: says what each step says.
        gate: of all data sets, in their order.
        tests: name -> rated pictures, in that order.
        folder: where the answers are kept, a file a data set; those that are there are not asked for again.
        tell: told what is being done and which share of it is done.

    Raises:
        GRMPError: fewer than two pictures of a data set that can be read.
    """
    found: dict[str, dict[str, Floats]] = {}
    unread = 0
    for at, (name, rows) in enumerate(tests.items()):
        path = folder / f"judged-{at}.safetensors"
        if not path.is_file():
            columns = _ask(scorer, judge, gate, rows, at)
            if is_first_process():
                part = path.with_name(f"{TEMPORARY}{path.name}")
                save_file(columns, part)
                part.replace(path)
        else:
            columns = load_file(path)
        found[name] = columns
        unread += len(rows) - len(columns[_RATING])
        tell("judge test pictures", (at + 1) / len(tests))
    return Judged(
        tuple(tests),
        {name: columns[_RATING] for name, columns in found.items()},
        {name: columns[_DISTANCES] for name, columns in found.items()},
        {name: _by_step(columns) for name, columns in found.items()},
        gate.temperature,
        unread,
    )


def _by_step(columns: Mapping[str, Floats]) -> dict[int, Floats]:
    return {int(key.removeprefix(_QUALITY)): found for key, found in columns.items() if key.startswith(_QUALITY)}


def _ask(scorer: Scorer, judge: Judge, gate: KMeansGate, rows: Sequence[Row], at: int) -> dict[str, Floats]:
    """What all steps that have learnt a data set say of its pictures."""
    parts: dict[str, list[Floats]] = {_DISTANCES: [], _RATING: []}
    base: Any = scorer.model
    with torch.inference_mode():
        for chunk in iter_views(rows, scorer.views, batch_size=_TOGETHER):
            good = [(row, views) for row, views in chunk if not isinstance(views, ImageError)]
            if not good:
                continue
            parts[_RATING].append(np.array([row.quality for row, _ in good]))
            for pixels in scorer.passes(torch.stack([views for _, views in good])):
                features = base.get_features(pixels)
                parts[_DISTANCES].append(_array(gate.distances(features)))
                for step, quality in judge(pixels).items():
                    if step >= at:
                        parts.setdefault(f"{_QUALITY}{step}", []).append(_array(quality))
    found = {name: np.concatenate(part) for name, part in parts.items() if part}
    if len(found.get(_RATING, ())) < 2:
        raise GRMPError(f"{rows[0].dataset or rows[0].name}: expected two test pictures that can be read, got fewer")
    return found


def _array(values: Tensor) -> Floats:
    found: Floats = values.double().cpu().numpy()
    return found
