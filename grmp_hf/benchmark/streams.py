"""Runs streams of data sets, each once, and goes on where an earlier run has stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grmp_hf.benchmark.store import Predicted, ResultStore
from grmp_hf.benchmark.stream_config import StreamsConfig
from grmp_hf.benchmark.tables import Tables
from grmp_hf.combining import check_names
from grmp_hf.data import RatedTable
from grmp_hf.data.identity import content_id
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import point_figures
from grmp_hf.evaluation.stream_summary import StreamRun
from grmp_hf.saving import package_versions
from grmp_hf.scoring import Scorer
from grmp_hf.streaming import Stream, learn_stream, shared_tests, stream_split
from grmp_hf.training.stream_recipe import StreamRecipe

__all__ = ["StreamCell", "StreamRunner", "in_order", "plan_streams", "runs_of"]


@dataclass(frozen=True)
class StreamCell:
    """One stream that a method learns.

    Attributes:
        method: its name.
        recipe: what it does.
        tables: name -> ratings, in the order in which they are learnt.
        order, draw: which.
        shots: how many pictures of each set teach; None for the set's own choice.
        seed: of the split, of training and of the gate.
    """

    method: str
    recipe: StreamRecipe
    tables: Mapping[str, RatedTable]
    order: int
    draw: int
    shots: int | None
    seed: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.method}, {', '.join(self.tables)}, draw {self.draw}"


def in_order(names: Sequence[str], order: int) -> list[str]:
    """Names as they are (0), backwards (1), and then shuffled, each order by its own number."""
    if order < 2:
        return [*names][:: -1 if order else 1]
    return [names[at] for at in np.random.default_rng(order).permutation(len(names))]


def plan_streams(config: StreamsConfig, tables: Tables) -> list[StreamCell]:
    """Every stream of a configuration, in the order in which they are run; all splits are tried.

    Raises:
        GRMPError: a data set without two pictures on either side.
    """
    names, cells = config.dataset_names, list[StreamCell]()
    check_names(names)
    for order in range(config.orders):
        for length in config.lengths or (len(names),):
            for draw in range(config.draws):
                chosen = {name: tables[name, "clean"] for name in in_order(names, order)[:length]}
                seed = config.seed + draw
                for table in chosen.values():
                    stream_split(table, config.shots, seed)
                cells += [
                    StreamCell(name, recipe, chosen, order, draw, config.shots, seed)
                    for name, recipe in config.streams.items()
                ]
    return cells


@dataclass(frozen=True)
class StreamRunner:
    """Runs streams with a base.

    Attributes:
        base: without an adapter.
        store: finished rows: one for what is said of each data set after each step.
    """

    base: Scorer
    store: ResultStore

    def run(self, cells: Sequence[StreamCell], tell: Callable[[str, float], None]) -> list[dict[str, Any]]:
        """Rows of all streams, in order; those that an earlier run has finished are taken from the store."""
        rows, contents = [], _contents(cells)
        for done, cell in enumerate(cells):
            tell(cell.name, done / len(cells))
            keys = self._keys(cell, contents)
            rows += self._finished(keys) or self._learn(cell, keys)
        tell("all streams", 1.0)
        return rows

    def _finished(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of a stream that is finished, else none."""
        found = [self.store.find(key) for key in keys]
        return [row for row in found if row is not None] if None not in found else []

    def _learn(self, cell: StreamCell, keys: Sequence[str]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        found = learn_stream(self.base, cell.tables, recipe=cell.recipe, shots=cell.shots, seed=cell.seed)
        said: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 1)}
        said |= {"trained_weights": found.trained_weights, "gate_accuracy": found.judged.accuracy()}
        shared = [*shared_tests(cell.tables, shots=cell.shots, seed=cell.seed).values()]
        return [
            self._add(key, cell, found, step, at, {**said, "shared_pictures": shared[at]})
            for key, (step, at) in zip(keys, _steps(cell), strict=True)
        ]

    def _add(
        self, key: str, cell: StreamCell, found: Stream, step: int, at: int, said: Mapping[str, Any]
    ) -> dict[str, Any]:
        name, judged = [*cell.tables][at], found.judged
        table = cell.tables[name]
        scores = table.scale.to_score(judged.predicted("softmin", step, name))
        mos = table.scale.to_score(judged.ratings[name])
        row = {**self._about(cell, step, at), **point_figures(scores, mos), **said, "n_test": len(mos)}
        names = np.array([str(number) for number in range(len(mos))])
        return self.store.add(key, row, Predicted(names, scores, mos))

    def _about(self, cell: StreamCell, step: int, at: int) -> dict[str, Any]:
        """What a row says beside its figures."""
        identity = self.base.identity
        return {
            "method": cell.method,
            "sets": [*cell.tables],
            "order": cell.order,
            "draw": cell.draw,
            "seed": cell.seed,
            "shots": cell.shots,
            "step": step,
            "dataset": [*cell.tables][at],
            "recipe": dataclasses.asdict(cell.recipe),
            "model": identity["model"],
            "revision": identity["revision"],
            "preprocessing": identity["preprocessing"],
            "versions": package_versions(),
            "device": self.base.device.type,
        }

    def _keys(self, cell: StreamCell, contents: Mapping[str, str]) -> list[str]:
        """Of each row of a stream, the hash of all that decides about it."""
        shared = {
            "data": {
                name: [
                    table.content_hash,
                    table.scale.to_dict(),
                    stream_split(table, cell.shots, cell.seed).hash,
                    contents[name],
                ]
                for name, table in cell.tables.items()
            },
            "base": self.base.about_base,
        }
        rows = ({**self._about(cell, *place), **shared} for place in _steps(cell))
        return [hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest() for row in rows]


def _contents(cells: Sequence[StreamCell]) -> dict[str, str]:
    """Data set -> hash of its pictures."""
    tables = {name: table for cell in cells for name, table in cell.tables.items()}
    found = {name: [content_id(row.image) for row in table.rows] for name, table in tables.items()}
    return {name: hashlib.sha256(json.dumps(ids).encode()).hexdigest() for name, ids in found.items()}


def runs_of(rows: Sequence[Mapping[str, Any]], store: ResultStore) -> list[StreamRun]:
    """The streams that rows are of, with what was said of their test pictures.

    Raises:
        GRMPError: a stream whose rows are not all there.
    """
    parts: dict[tuple[str, tuple[int, ...]], list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault((row["method"], (len(row["sets"]), row["order"], row["draw"])), []).append(row)
    found = []
    for (method, run), part in parts.items():
        said, ratings = {}, dict[int, Any]()
        for row in part:
            at = row["sets"].index(row["dataset"])
            known = store.predictions(row)
            said[row["step"], at], ratings[at] = known.scores, known.mos
        if len(ratings) < run[0]:
            raise GRMPError(f"Expected rows of all {run[0]} data sets of a stream of {method}, got {len(ratings)}.")
        found.append(StreamRun(method, run, said, [ratings[at] for at in range(run[0])]))
    return found


def _steps(cell: StreamCell) -> list[tuple[int, int]]:
    """(step, data set) of every row of a stream; what learns all at once has a last step alone."""
    last = len(cell.tables) - 1
    steps = [last] if cell.recipe.method == "joint" else range(last + 1)
    return [(step, at) for step in steps for at in range(step + 1)]
