"""Streams in a benchmark: orders, rows, a run that goes on, the table, and configurations that are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grmp_hf.benchmark import streams
from grmp_hf.benchmark.store import ResultStore
from grmp_hf.benchmark.stream_config import StreamsConfig
from grmp_hf.benchmark.stream_reporting import stream_tables
from grmp_hf.benchmark.streams import StreamCell, StreamRunner, in_order, plan_streams, runs_of
from grmp_hf.benchmark.tables import read_tables
from grmp_hf.cli.main import main
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.stream import stream_figures
from grmp_hf.scoring import Scorer
from grmp_hf.streaming import learn_stream

QUICK = {"head_epochs": 3, "epochs": 1, "group": 8}
METHODS = [{"name": "experts", **QUICK}, {"name": "at once", "method": "joint", **QUICK}]
KEYS: dict[str, Any] = {"methods": ..., "draws": ..., "shots": 10, "streams": METHODS, "orders": 2}


@pytest.fixture
def plan(configure: Callable[..., Path]) -> tuple[StreamsConfig, list[StreamCell]]:
    config = StreamsConfig.from_yaml(configure(**KEYS))
    return config, plan_streams(config, read_tables(config))


def test_orders_are_as_listed_backwards_and_shuffled() -> None:
    names = [*"abcdefgh"]
    assert in_order(names, 0) == names and in_order(names, 1) == names[::-1]
    assert in_order(names, 2) == in_order(names, 2) != in_order(names, 3)
    assert sorted(in_order(names, 2)) == names


def test_rows_are_what_the_stream_itself_says(
    plan: tuple[StreamsConfig, list[StreamCell]], base: Scorer, tmp_path: Path
) -> None:
    _, cells = plan
    assert [(cell.method, [*cell.tables]) for cell in cells] == [
        (method, order) for order in (["stars", "points"], ["points", "stars"]) for method in ("experts", "at once")
    ]
    store = ResultStore(tmp_path / "results")
    rows = StreamRunner(base, store).run(cells, lambda text, share: None)
    assert len(rows) == 2 * (3 + 2)
    first = learn_stream(base, cells[0].tables, recipe=cells[0].recipe, shots=10, seed=0).judged
    matrix = first.matrix()
    for row in rows[:3]:
        at = row["sets"].index(row["dataset"])
        assert row["srcc"] == pytest.approx(matrix[row["step"]][at], abs=1e-12)
    run = runs_of(rows[:3], store)[0]
    scale = cells[0].tables["stars"].scale
    np.testing.assert_allclose(run.ratings[0], scale.to_score(first.ratings["stars"]), atol=1e-12)
    expected = stream_figures([[run.said[t, s] for s in range(t + 1)] for t in range(2)], run.ratings)
    assert run.figures()["mpsr"] == expected.mpsr == pytest.approx(first.figures()["mpsr"], abs=1e-12)  # type: ignore[index]
    table = stream_tables(rows, store, "experts")
    assert table.startswith("## 2 data sets, 2 streams") and "Less experts, paired" in table
    assert f"{expected.plasticity:.3f}"[:3] in table and "| at once |" in table
    with pytest.raises(GRMPError, match="Expected rows of all 2 data sets of a stream of experts, got 1"):
        runs_of(rows[:1], store)


def test_a_run_that_was_stopped_learns_only_what_is_missing(
    plan: tuple[StreamsConfig, list[StreamCell]], base: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cells = plan
    learnt: list[list[str]] = []

    def learn(scorer: Scorer, tables: Any, **options: Any) -> Any:
        if len(learnt) == 2:
            raise KeyboardInterrupt
        learnt.append([*tables])
        return learn_stream(scorer, tables, **options)

    monkeypatch.setattr(streams, "learn_stream", learn)
    with pytest.raises(KeyboardInterrupt):
        StreamRunner(base, ResultStore(tmp_path / "results")).run(cells, lambda text, share: None)
    lines = (tmp_path / "results" / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results" / "results.jsonl").write_bytes(b"".join(lines[:-1]))  # killed before its last row
    learnt.clear()
    rows = StreamRunner(base, ResultStore(tmp_path / "results")).run(cells[:2], lambda text, share: None)
    assert len(learnt) == 1 and len(rows) == 5
    other = dataclasses.replace(cells[0], recipe=dataclasses.replace(cells[0].recipe, epochs=0))
    StreamRunner(base, ResultStore(tmp_path / "results")).run([other], lambda text, share: None)
    assert len(learnt) == 2  # rows of other settings are no rows of these


def test_one_command_leaves_rows_table_and_curves(
    configure: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configure(**{**KEYS, "orders": 1})
    assert main(["benchmark", str(path)]) == 0
    streams = capsys.readouterr()
    output = tmp_path / "results"
    assert "2 streams planned" in streams.err and "5 rows in" in streams.out
    assert (output / "table.md").read_text().split("\n", 2)[2].strip() in streams.out
    assert "<svg" in (output / "curves.svg").read_text()
    config = (output / "config.json").read_text()
    assert [*json.loads(config)["streams"]] == ["experts", "at once"] and str(tmp_path) not in config
    assert main(["benchmark", str(path), "--methods", "experts", "--json", "--shots", "10"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 and {row["method"] for row in rows} == {"experts"}
    assert main(["benchmark", str(path), "--shots", "5", "6"]) == 2
    assert "--shots: expected one number for streams, got 5, 6" in capsys.readouterr().err


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one set": ({"datasets": {"stars": {"path": "x"}}}, "datasets: expected at least two, got stars"),
    "no method": ({"streams": []}, "streams: expected at least one method"),
    "no list": ({"streams": "default"}, "streams: expected a list of recipes, got 'default'"),
    "a number": ({"streams": [3]}, "expected the name of a recipe, or a mapping with its settings, got 3"),
    "twice": ({"streams": ["default", "default"]}, "expected names that differ, got default twice"),
    "a setting": ({"streams": [{"rate": 1}]}, "default: expected settings out of method, .*, got rate"),
    "a recipe": ({"streams": ["defalt"]}, "defalt"),
    "orders": ({"orders": 0}, "orders: expected at least 1, got 0"),
    "shots": ({"shots": 1}, "shots: expected at least 2, got 1"),
    "lengths": ({"lengths": [3]}, "lengths: expected 2 to 2, got 3"),
    "seed": ({"seed": -1}, "seed: expected 0 to"),
    "reference": ({"compare_to": "lora"}, "compare_to: expected a method out of experts, at once, got 'lora'"),
    "a key": ({"methods": ["ridge"]}, "expected keys out of .*, got methods"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_configurations_that_are_refused(name: str, configure: Callable[..., Path]) -> None:
    keys, message = REFUSED[name]
    with pytest.raises(GRMPError, match=message):
        StreamsConfig.from_yaml(configure(**{**KEYS, **keys}))


def test_names_that_it_does_not_have_are_refused(configure: Callable[..., Path]) -> None:
    config = StreamsConfig.from_yaml(configure(**KEYS))
    with pytest.raises(GRMPError, match="--data: expected data sets out of stars, points, got other"):
        config.with_places({"other": "x"})
    with pytest.raises(GRMPError, match="--methods: expected some of experts, at once, got lora"):
        config.only_methods(["lora"])


def test_another_scale_other_pictures_or_another_side_are_other_rows(
    plan: tuple[StreamsConfig, list[StreamCell]], base: Scorer, tmp_path: Path
) -> None:
    cell, runner = plan[1][0], StreamRunner(base, ResultStore(tmp_path / "results"))

    def keys(cell: StreamCell, runner: StreamRunner = runner) -> list[str]:
        return runner._keys(cell, streams._contents([cell]))

    before, stars = keys(cell), cell.tables["stars"]
    lower = dataclasses.replace(stars, scale=dataclasses.replace(stars.scale, higher_is_better=False))
    assert not {*before} & {*keys(dataclasses.replace(cell, tables={**cell.tables, "stars": lower}))}
    identity = {**base.identity, "side_fingerprint": "other"}
    assert not {*before} & {*keys(cell, dataclasses.replace(runner, base=dataclasses.replace(base, identity=identity)))}
    assert keys(cell) == before
    changed = (dataclasses.replace(stars.rows[0], image=stars.rows[1].image), *stars.rows[1:])
    others = {**cell.tables, "stars": dataclasses.replace(stars, rows=changed)}
    assert not {*before} & {*keys(dataclasses.replace(cell, tables=others))}
