"""The leak test: under `clean` ratings of test pictures change nothing that is learnt; under `paper` they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from grmp_hf.benchmark.config import BenchmarkConfig, MethodConfig
from grmp_hf.benchmark.finetuning import FullFineTuning
from grmp_hf.benchmark.methods import GRMP, Method, Regression, ridge
from grmp_hf.benchmark.pathways import grepq
from grmp_hf.benchmark.planning import needed_columns, needed_rows, plan_cells
from grmp_hf.benchmark.protocols import Outcome
from grmp_hf.benchmark.reading import DatasetConfig
from grmp_hf.benchmark.runner import Runner
from grmp_hf.benchmark.store import ResultStore
from grmp_hf.benchmark.two_stream import TwoStream
from grmp_hf.data import RatedTable, read_ratings
from grmp_hf.features import FeatureStore
from grmp_hf.scoring import Scorer
from grmp_hf.training.few_shot import FewShotRecipe
from grmp_hf.training.two_stream import TwoStreamRecipe

METHODS: dict[str, Callable[[Scorer], Method]] = {
    "grmp": lambda base: GRMP("grmp", base, FewShotRecipe(steps=20, schedule="constant", learning_rate=0.005)),
    "visual": lambda base: GRMP("visual", base, FewShotRecipe(steps=10, visual_prompts=2, learning_rate=0.005)),
    "full": lambda base: FullFineTuning("full", base, epochs=10, learning_rate=1e-3),
    "streams": lambda base: TwoStream("streams", base, TwoStreamRecipe(epochs=5, batch_size=4, learning_rate=0.02)),
    "pathways": lambda base: grepq("pathways", base, low_level="statistics"),
    "ridge": lambda base: Regression("ridge", lambda pictures: pictures["embeds"], ridge, {"method": "ridge"}),
}


def shuffled(mos: np.ndarray) -> np.ndarray:
    """The same ratings, of other pictures."""
    return np.random.default_rng(5).permutation(mos)


def replaced_by_noise(mos: np.ndarray) -> np.ndarray:
    """Ratings that have nothing to do with the pictures."""
    return np.random.default_rng(6).uniform(1, 5, len(mos))


def reversed_order(mos: np.ndarray) -> np.ndarray:
    """The contrary of every rating."""
    return 6 - mos


SPOILED = [shuffled, replaced_by_noise, reversed_order]


@pytest.fixture
def table(stars: Path) -> RatedTable:
    return read_ratings(stars, scale=(1, 5))


def spoil(table: RatedTable, names: set[str], change: Callable[[np.ndarray], np.ndarray]) -> RatedTable:
    """The table with other ratings of the pictures of these names."""
    new = iter(change(np.array([row.mos for row in table.rows if row.name in names])))

    def rated(row: Any) -> Any:
        if row.name not in names:
            return row
        mos = float(next(new))
        return dataclasses.replace(row, mos=mos, quality=table.scale.to_quality(mos))

    return dataclasses.replace(table, rows=tuple(map(rated, table.rows)))


@pytest.fixture
def run(base: Scorer, table: RatedTable, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs one cell, the way the command does, and hands out what was learnt and predicted."""

    def go(name: str, protocol: str, change: Callable[[np.ndarray], np.ndarray] | None = None) -> Outcome:
        config = BenchmarkConfig(
            "leak",
            (DatasetConfig("stars", None),),
            (MethodConfig("x", "x"),),
            protocols=(protocol,),
            shots=(12,),
            draws=1,
        )
        method = METHODS[name](base)
        (cell,) = plan_cells(config, {("stars", protocol): table}, [method])
        tested = {row.name for row in cell.tests[0].rows}
        assert tested and not tested & {row.name for row in cell.taught}
        if change is not None:
            other = spoil(table, tested, change)
            assert other.content_hash != table.content_hash
            (cell,) = plan_cells(config, {("stars", protocol): other}, [method])
        features = FeatureStore(tmp_path / "features", base)
        columns = (*features.usual, *needed_columns([cell]))
        features.describe(needed_rows([cell]), lambda text, share: None, columns)
        return Runner(features, ResultStore(tmp_path / "results"))._fit(cell)

    return go


def check_no_leak(honest: Outcome, spoiled: Outcome) -> None:
    """The same adapter, byte for byte, and the same predictions."""
    assert save(honest.learnt) == save(spoiled.learnt), "ratings of test pictures have changed what was learnt"
    np.testing.assert_array_equal(honest.scores[0], spoiled.scores[0])


@pytest.mark.parametrize("name", METHODS)
def test_leak_under_clean_test_ratings_change_nothing(name: str, run: Callable[..., Outcome]) -> None:
    honest = run(name, "clean")
    assert len(save(honest.learnt)) > 100
    for change in (shuffled, replaced_by_noise):
        check_no_leak(honest, run(name, "clean", change))


@pytest.mark.parametrize("name", ["grmp", "visual", "full", "streams"])
def test_leak_under_paper_the_same_check_fails(name: str, run: Callable[..., Outcome]) -> None:
    honest = run(name, "paper")
    failed = 0
    for change in SPOILED:
        spoiled = run(name, "paper", change)
        try:
            check_no_leak(honest, spoiled)
        except AssertionError:
            failed += 1
    assert failed, "the paper protocol selects on test ratings: some other ratings must select another adapter"
