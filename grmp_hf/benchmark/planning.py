"""From a configuration to cells: which pictures teach which method, and which are scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from grmp_hf.benchmark.config import BenchmarkConfig
from grmp_hf.benchmark.methods import Method
from grmp_hf.benchmark.tables import Tables
from grmp_hf.data import RatedTable, Row, Split, draw_shots, fold_splits, random_split
from grmp_hf.data.paper_splits import paper_splits
from grmp_hf.data.splits import official_split
from grmp_hf.errors import GRMPError

__all__ = ["Cell", "TestPart", "needed_columns", "needed_rows", "plan_cells"]


@dataclass(frozen=True)
class TestPart:
    """Pictures that are scored after a fit.

    Attributes:
        table: that they come from.
        split: the shots and these pictures, by name.
        rows: the pictures.
    """

    __test__ = False  # no test of pytest's

    table: RatedTable
    split: Split
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Cell:
    """One fit of one method.

    Attributes:
        table: from which the shots come.
        protocol: "clean" or "paper".
        shots: their number; 0 for a method that learns from none.
        draw: which draw.
        seed: of everything random in it.
        method: what learns.
        taught: rows of the shots, in the order drawn.
        tests: the data set's own test part first, then those of other data sets.
    """

    table: RatedTable
    protocol: str
    shots: int
    draw: int
    seed: int
    method: Method
    taught: tuple[Row, ...]
    tests: tuple[TestPart, ...]


def plan_cells(config: BenchmarkConfig, tables: Tables, methods: Sequence[Method]) -> list[Cell]:
    """Every cell of a configuration, in the order in which they are run.

    Raises:
        GRMPError: a split that the data set does not have, or more shots than pictures to draw from.
    """
    return list(_cells(config, tables, methods))


def needed_rows(cells: Sequence[Cell]) -> list[Row]:
    """Every row that any cell looks at, once."""
    rows = [row for cell in cells for part in (cell.taught, *(test.rows for test in cell.tests)) for row in part]
    return list({(row.dataset, row.name): row for row in rows}.values())


def needed_columns(cells: Sequence[Cell]) -> tuple[str, ...]:
    """What methods have to know of pictures beside the usual columns of a `FeatureStore`, in order, each once."""
    return tuple(dict.fromkeys(name for cell in cells for name in cell.method.columns))


def _cells(config: BenchmarkConfig, tables: Tables, methods: Sequence[Method]) -> Iterator[Cell]:
    for (name, protocol), table in tables.items():
        others = [other for train, other in config.cross if train == name and protocol == "clean"]
        for shots in (0, *config.shots):
            chosen = [method for method in methods if method.needs_shots == bool(shots)]
            for draw in range(config.draws) if chosen else ():
                split = _draw(config, table, protocol, shots, draw)
                taught, tested = split.select(table)
                tests = [TestPart(table, split, tuple(tested))]
                tests += [_elsewhere(config, split, tables[other, protocol], draw) for other in others]
                for method in chosen:
                    seed = config.seed + draw
                    yield Cell(table, protocol, shots, draw, seed, method, tuple(taught), tuple(tests))


def _draw(config: BenchmarkConfig, table: RatedTable, protocol: str, shots: int, draw: int) -> Split:
    """The shots, of which there may be none, and the test part of one draw."""
    if protocol == "paper":
        found = paper_splits(table, shots or min(config.shots), config.draws)[draw]
        return found if shots else replace(found, train=(), rule=f"no shots; {found.rule}")
    parts = _parts(config, table, draw)
    if not shots:
        return replace(parts, train=(), rule=f"no shots; {parts.rule}")
    pool, _ = parts.select(table)
    seed = config.seed + draw
    try:
        drawn = draw_shots([row.quality for row in pool], shots, seed=seed, stratified=config.stratified)
    except GRMPError as error:
        raise GRMPError(f"{table.name}: {error}") from error
    how = "spread over the range of quality" if config.stratified else "at random"
    rule = f"{shots} of {len(pool)} drawn {how}; {parts.rule}"
    return Split(tuple(pool[index].name for index in drawn), parts.test, rule, seed)


def _parts(config: BenchmarkConfig, table: RatedTable, draw: int) -> Split:
    """The pictures that may teach and those that test, under the clean protocol."""
    kind = config.split or ("official" if any(row.split == "test" for row in table.rows) else "random")
    if kind == "official":
        return official_split(table)
    if kind == "folds":
        return fold_splits(table, config.folds, seed=config.seed)[draw % config.folds]
    return random_split(table, seed=config.seed + draw)


def _elsewhere(config: BenchmarkConfig, split: Split, other: RatedTable, draw: int) -> TestPart:
    """The test part of another data set, as its own methods see it in the same draw."""
    parts = _parts(config, other, draw)
    rule = f"{split.rule}; scored on {other.name}: {parts.rule}"
    _, rows = parts.select(other)
    return TestPart(other, replace(split, test=parts.test, rule=rule), tuple(rows))
