from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grmp_hf
from grmp_hf.benchmark.choosing import make_methods
from grmp_hf.benchmark.config import BenchmarkConfig
from grmp_hf.benchmark.planning import Cell, needed_columns, needed_rows, plan_cells
from grmp_hf.benchmark.runner import Runner, cell_name
from grmp_hf.benchmark.store import ResultStore
from grmp_hf.benchmark.tables import read_tables
from grmp_hf.data import Split
from grmp_hf.evaluation.metrics import plcc_logistic, rmse_logistic, srcc
from grmp_hf.features import FeatureStore
from grmp_hf.scoring import Scorer
from grmp_hf.training.recipes import FewShotRecipe

MEASURED = ("seconds", "fit_seconds", "peak_memory_mib")


def silent(text: str, share: float) -> None:
    """Tell nobody."""


@pytest.fixture
def prepare(configure: Callable[..., Path], base: Scorer, tmp_path: Path) -> Callable[..., tuple[Runner, list[Cell]]]:
    """`prepare(folder, **keys)`: a runner and the cells of the small benchmark."""

    def make(folder: str = "results", **keys: Any) -> tuple[Runner, list[Cell]]:
        keys = {"methods": ["zero_shot", "ridge", "statistics"], **keys}
        config = BenchmarkConfig.from_yaml(configure(**keys))
        cells = plan_cells(config, read_tables(config), make_methods(config.methods, base, config.folder))
        features = FeatureStore(tmp_path / "features", base)
        features.describe(needed_rows(cells), silent, (*features.usual, *needed_columns(cells)))
        return Runner(features, ResultStore(tmp_path / folder)), cells

    return make


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def test_rows_say_all_and_their_figures_follow_from_the_predictions(prepare, base: Scorer) -> None:
    runner, cells = prepare(protocols=["clean", "paper"], methods=["zero_shot", "ridge"], draws=1)
    rows = runner.run(cells, silent)
    assert len(rows) == len(cells) == 2 * 2 * (1 + 2)
    for row, cell in zip(rows, cells, strict=True):
        assert {"dataset", "test_dataset", "method", "protocol", "shots", "draw", "seed", "split_hash"} <= row.keys()
        assert {"data_hash", "n_train", "n_test", "recipe", "model", "revision", "preprocessing"} <= row.keys()
        assert {"versions", "seconds", "peak_memory_mib", "selection", "learnt_sha256", "device"} <= row.keys()
        assert (row["n_train"], row["n_test"]) == (cell.shots, len(cell.tests[0].rows))
        said = runner.store.predictions(row)
        rated = {found.name: found.mos for found in cell.table.rows}
        assert [rated[name] for name in said.names] == said.mos.tolist()
        assert row["srcc"] == pytest.approx(srcc(said.scores, said.mos))
        assert row["plcc_logistic"] == pytest.approx(plcc_logistic(said.scores, said.mos))
        assert row["rmse"] == pytest.approx(rmse_logistic(said.scores, said.mos))
        split = Split.load(runner.store.folder / "splits" / f"{row['split_hash']}.json")
        assert split == cell.tests[0].split and set(said.names) == set(split.test)
        assert ("last_epoch" in row) == (cell.protocol == "paper")
    assert json.loads(runner.store.path.read_text().splitlines()[0]) == rows[0]
    zero = next(row for row in rows if row["method"] == "zero_shot" and row["dataset"] == "stars")
    pictures = [row.image for row in cells[0].tests[0].rows]
    scores = runner.store.predictions(zero).scores
    np.testing.assert_allclose(scores, 1 + 4 * base.score(pictures).quality, atol=1e-5)


def test_a_run_that_was_killed_ends_with_the_same_rows(prepare) -> None:
    runner, cells = prepare("whole")
    whole = runner.run(cells, silent)
    killed, cells = prepare("killed")

    def kill(text: str, share: float) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.run(cells, kill)
    done = len(killed.store.path.read_text().splitlines())
    assert 0 < done < len(cells)
    with open(killed.store.path, "ab") as file:
        file.write(b'{"dataset": "stars", "srcc": 0.')
    again, cells = prepare("killed")
    fits: list[str] = []
    rows = _counted(again, fits).run(cells, silent)
    assert len(fits) == len(cells) - done
    assert timeless(rows) == timeless(whole)
    lines = [json.loads(line) for line in again.store.path.read_text().splitlines()]
    assert timeless(lines) == timeless(whole)
    for left, right in zip(rows, whole, strict=True):
        pairs = zip(again.store.predictions(left), runner.store.predictions(right), strict=True)
        assert all(np.array_equal(mine, other) for mine, other in pairs)


def _counted(runner: Runner, fits: list[str]) -> Runner:
    class Counting(Runner):
        def _fit(self, cell: Cell) -> Any:
            fits.append(cell_name(cell))
            return super()._fit(cell)

    return Counting(runner.features, runner.store)


CHANGES: list[dict[str, Any]] = [
    {"seed": 1},
    {"stratified": True},
    {"split": "random"},
    {"methods": ["zero_shot", {"method": "grmp", "name": "ridge", "recipe": {"steps": 2}}]},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_other_settings_take_no_row_of_these(change: dict[str, Any], prepare) -> None:
    keys = {"methods": ["zero_shot", "ridge"], "shots": [6], "draws": 1}
    runner, cells = prepare(**keys)
    runner.run(cells, silent)
    other, cells = prepare(**{**keys, **change})
    fits: list[str] = []
    _counted(other, fits).run([cell for cell in cells if cell.shots and cell.table.name == "stars"], silent)
    assert len(fits) == 1
    same, cells = prepare(**keys)
    fits.clear()
    _counted(same, fits).run(cells, silent)
    assert not fits, "the first settings find their rows again"


def test_another_base_another_rating_or_another_picture_is_another_key(prepare, stars: Path, tmp_path: Path) -> None:
    runner, cells = prepare(shots=[6], draws=1)
    cell = cells[-1]
    key = runner._key(cell, cell.tests[0])
    for what in ("base_fingerprint", "side_fingerprint", "dtype"):
        identity = {**runner.features.base.identity, what: "other"}
        other = FeatureStore(tmp_path / "features", dataclasses.replace(runner.features.base, identity=identity))
        other._identify(needed_rows(cells))
        assert Runner(other, runner.store)._key(cell, cell.tests[0]) != key
    taught = cell.taught[0]
    table = dataclasses.replace(cell.table, rows=(dataclasses.replace(taught, mos=0.0), *cell.table.rows[1:]))
    assert runner._key(dataclasses.replace(cell, table=table), cell.tests[0]) != key
    runner.features._digests[taught.dataset, taught.name] = b"0" * 32
    assert runner._key(cell, cell.tests[0]) != key


def test_scores_of_another_data_set_are_on_its_own_scale(prepare) -> None:
    keys = {"cross": [{"train": "stars", "test": "points"}], "shots": [8], "draws": 1}
    runner, cells = prepare(**keys)
    rows = runner.run(cells, silent)
    crossed = [row for row in rows if row["dataset"] != row["test_dataset"]]
    assert [(row["dataset"], row["test_dataset"], row["method"]) for row in crossed] == [
        ("stars", "points", method) for method in ("zero_shot", "ridge", "statistics")
    ]
    for row in crossed:
        own = next(r for r in rows if (r["dataset"], r["method"]) == ("stars", row["method"]) and r not in crossed)
        assert own["learnt_sha256"] == row["learnt_sha256"] and own["split_hash"] != row["split_hash"]
        assert row["test_data_hash"] != row["data_hash"] and row["shared_pictures"] == 0
        said = runner.store.predictions(row)
        assert said.mos.max() > 5 and row["rmse"] > own["rmse"]  # in points, not in stars
    scores = runner.store.predictions(crossed[0]).scores
    (direct,) = [r for r in rows if r["dataset"] == r["test_dataset"] == "points" and r["method"] == "zero_shot"]
    np.testing.assert_allclose(scores, runner.store.predictions(direct).scores)


def test_pictures_on_both_sides_are_counted(prepare) -> None:
    runner, cells = prepare(shots=[6], draws=1)
    cell = cells[-1]
    assert runner._shared(cell.taught, cell.tests[0].rows) == 0
    assert runner._shared(cell.taught, [*cell.tests[0].rows, cell.taught[2]]) == 1


def test_columns_of_a_method_are_described_for_it(prepare) -> None:
    streams = {"method": "two_stream", "recipe": {"steps": 2, "latent": 4}}
    runner, cells = prepare(methods=["ridge", streams], draws=1, shots=[6])
    assert needed_columns(cells) == ("tokens",) and needed_columns(cells[:1]) == ()
    rows = runner.run(cells, silent)
    assert [row["method"] for row in rows] == ["ridge", "two_stream"] * 2
    assert rows[1]["recipe"]["method"] == "two_stream" and rows[1]["recipe"]["steps"] == 2


def test_the_learner_believes_ratings_as_adapt_does(prepare, base: Scorer) -> None:
    """Ratings of raters who differ count less: in the benchmark as in the command."""
    runner, cells = prepare(methods=[{"method": "grmp", "recipe": {"steps": 40}}], draws=1, shots=[10])
    cell = next(cell for cell in cells if cell.table.name == "stars")
    sure = {row.name: 0.1 + 1.5 * (at % 3) for at, row in enumerate(cell.taught)}
    table = dataclasses.replace(
        cell.table, rows=tuple(dataclasses.replace(row, mos_std=sure.get(row.name)) for row in cell.table.rows)
    )
    taught, _ = cell.tests[0].split.select(table)
    unsure = dataclasses.replace(cell, table=table, taught=tuple(taught))
    plain, believed = (runner.run([one], silent)[0] for one in (cell, unsure))
    assert plain["data_hash"] == believed["data_hash"] and plain["key"] != believed["key"]
    assert plain["learnt_sha256"] != believed["learnt_sha256"]
    recipe = FewShotRecipe(steps=40)
    adapted = grmp_hf.adapt(base, table, shots=cell.tests[0].split, recipe=recipe, start=None, seed=cell.seed)
    expected = adapted.score([row.image for row in cell.tests[0].rows]).quality
    said = runner.store.predictions(believed).scores
    np.testing.assert_allclose(said, cell.table.scale.to_score(expected), atol=1e-4)
