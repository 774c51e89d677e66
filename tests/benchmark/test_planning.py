from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grmp_hf.benchmark.config import BenchmarkConfig
from grmp_hf.benchmark.methods import GRMP, Method, ZeroShot
from grmp_hf.benchmark.planning import Cell, needed_rows, plan_cells
from grmp_hf.benchmark.tables import Tables, read_tables
from grmp_hf.data import draw_shots, fold_splits, random_split, split_rows
from grmp_hf.data.paper_splits import paper_splits
from grmp_hf.errors import GRMPError
from grmp_hf.training.few_shot import FewShotRecipe

LEARNER: Method = GRMP("grmp", None, FewShotRecipe())  # type: ignore[arg-type]


@pytest.fixture
def plan(configure: Callable[..., Path]) -> Callable[..., list[Cell]]:
    """Cells of the small benchmark with some keys replaced, of one method unless others are given."""

    def make(*methods: Method, **keys: Any) -> list[Cell]:
        config = BenchmarkConfig.from_yaml(configure(**keys))
        return plan_cells(config, read_tables(config), methods or [LEARNER])

    return make


def test_every_combination_is_there_once(plan: Callable[..., list[Cell]]) -> None:
    cells = plan(ZeroShot(), LEARNER, protocols=["clean", "paper"])
    found = [(cell.table.name, cell.protocol, cell.shots, cell.draw, cell.method.name) for cell in cells]
    assert len(set(found)) == len(found) == 2 * 2 * (2 * 2 + 2)
    assert {cell.shots for cell in cells if cell.method.name == "zero_shot"} == {0}
    assert all(len(cell.taught) == cell.shots for cell in cells)
    assert all(cell.seed == cell.draw for cell in cells)


def test_the_official_part_tests_where_there_is_one(plan: Callable[..., list[Cell]]) -> None:
    for cell in plan():
        (test,) = cell.tests
        if cell.table.name == "stars":
            assert [row.name for row in test.rows] == [row.name for row in cell.table.rows if row.split == "test"]
            expected = split_rows(cell.table, shots=cell.shots, seed=cell.seed)
        else:
            assert set(test.split.test) == set(random_split(cell.table, seed=cell.seed).test) and len(test.rows) == 6
            continue
        assert (test.split.train, test.split.test) == (expected.train, expected.test)
        assert test.split.hash == expected.hash


def test_few_shots_are_the_beginning_of_more(plan: Callable[..., list[Cell]]) -> None:
    for stratified in (False, True):
        cells = {(cell.table.name, cell.shots, cell.draw): cell for cell in plan(stratified=stratified)}
        for name in ("stars", "points"):
            for draw in range(2):
                few, more = cells[name, 6, draw], cells[name, 10, draw]
                assert more.taught[:6] == few.taught and more.tests[0].rows == few.tests[0].rows
            assert cells[name, 6, 0].taught != cells[name, 6, 1].taught
    pool = [row for row in cells["stars", 10, 0].table.rows if row.split == "train"]
    drawn = draw_shots([row.quality for row in pool], 10, seed=0, stratified=True)
    assert list(cells["stars", 10, 0].taught) == [pool[index] for index in drawn]


def test_folds_and_random_splits_by_name(plan: Callable[..., list[Cell]]) -> None:
    cells = plan(split="folds", folds=3, draws=4, shots=[6])
    folds = fold_splits(cells[0].table, 3)
    assert [set(c.tests[0].split.test) for c in cells[:4]] == [set(folds[draw % 3].test) for draw in range(4)]
    marked = plan(split="random", shots=[6], seed=7)[0]
    assert set(marked.tests[0].split.test) == set(random_split(marked.table, seed=7).test)
    with pytest.raises(GRMPError, match="points: expected rows marked train and test"):
        plan(split="official")


def test_paper_splits_are_the_published_ones(plan: Callable[..., list[Cell]]) -> None:
    for cell in plan(LEARNER, ZeroShot(), protocols=["paper"]):
        expected = paper_splits(cell.table, cell.shots or 6, 2)[cell.draw]
        assert [row.name for row in cell.taught] == list(expected.train[: cell.shots])
        assert [row.name for row in cell.tests[0].rows] == list(expected.test)


def test_contents_stay_on_one_side(plan: Callable[..., list[Cell]], configure: Callable[..., Path]) -> None:
    config = BenchmarkConfig.from_yaml(configure(split="random", shots=[6]))
    tables: Tables = read_tables(config)
    for key, table in tables.items():
        rows = tuple(dataclasses.replace(row, reference=f"r{at // 3}") for at, row in enumerate(table.rows))
        tables[key] = dataclasses.replace(table, rows=rows)
    for cell in plan_cells(config, tables, [LEARNER]):
        sides = [{row.reference for row in part} for part in (cell.taught, cell.tests[0].rows)]
        assert not sides[0] & sides[1]


def test_other_data_sets_are_scored_after_a_fit(plan: Callable[..., list[Cell]]) -> None:
    cells = plan(cross=[{"train": "stars", "test": "points"}], protocols=["clean", "paper"])
    own = {(cell.table.name, cell.draw): cell.tests[0] for cell in cells if cell.protocol == "clean"}
    for cell in cells:
        crossed = cell.table.name == "stars" and cell.protocol == "clean"
        assert len(cell.tests) == 1 + crossed
        if crossed:
            other = cell.tests[1]
            assert other.table.name == "points" and other.rows == own["points", cell.draw].rows
            assert (
                other.split.train == cell.tests[0].split.train
                and other.split.test == own["points", cell.draw].split.test
            )


def test_needed_rows_are_named_once(plan: Callable[..., list[Cell]]) -> None:
    rows = needed_rows(plan(shots=[6], draws=1))
    assert len({(row.dataset, row.name) for row in rows}) == len(rows) == (6 + 12) + (6 + 6)
    assert {row.dataset for row in rows} == {"stars", "points"}


def test_too_many_shots_name_the_data_set(plan: Callable[..., list[Cell]]) -> None:
    with pytest.raises(GRMPError, match="stars: expected between 1 and 24 shots"):
        plan(shots=[25])
