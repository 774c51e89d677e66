"""One data set after the other: what is stored of it, that the oracle forgets nothing, and runs that were killed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import grmp_hf
from grmp_hf import streaming
from grmp_hf.claims import WorkFolder
from grmp_hf.data import RatedTable
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.judging import GATES, Judged
from grmp_hf.scoring import Scorer
from grmp_hf.streaming import Stream, learn_stream, stream_split
from grmp_hf.training.stream_recipe import StreamRecipe

QUICK = StreamRecipe(head_epochs=3, epochs=1, group=8, learning_rate=0.01)


@pytest.fixture(scope="module")
def tables(stars: Path, points: Path) -> dict[str, RatedTable]:
    """Two data sets on different scales, one of which marks its test part."""
    first, second = (grmp_hf.read_ratings(str(folder)) for folder in (stars, points))
    return {"stars": first, "points": second}


@pytest.fixture(scope="module")
def learnt(base: Scorer, tables: dict[str, RatedTable]) -> Stream:
    return learn_stream(base, tables, recipe=QUICK)


def states(scorer: Scorer) -> list[torch.Tensor]:
    model: Any = scorer.model
    both = [pair for expert in model.adapted for pair in expert.state_dict().items()]
    return [value for name, value in both if "original_module" not in name]  # of no use, and random for a head


def equal(first: Stream, second: Stream) -> bool:
    """Whether two streams have learnt the same, bit for bit, and say the same."""
    pairs = zip(states(first.scorer), states(second.scorer), strict=True)
    return all(torch.equal(*pair) for pair in pairs) and first.judged.report() == second.judged.report()


def test_experts_forget_nothing_and_the_oracle_is_perfectly_stable(learnt: Stream) -> None:
    report = learnt.judged.report()
    matrix = report["matrix"]
    assert matrix[0][1] is None and all(isinstance(matrix[t][s], float) for t, s in ((0, 0), (1, 0), (1, 1)))
    oracle = report["other_gates"]["oracle"]
    assert oracle["figures"]["stability"] == 1.0 and oracle["matrix"][1][0] == oracle["matrix"][0][0]
    assert oracle["figures"]["mpsr"] == pytest.approx(oracle["figures"]["plasticity"], abs=1e-12)
    assert set(report["other_gates"]) == set(GATES) - {"softmin"}
    assert set(report["gate_accuracy"]) == {"stars", "points"} and report["unread"] == 0


def test_figures_are_those_of_the_scorer(learnt: Stream, tables: dict[str, RatedTable]) -> None:
    for name, table in tables.items():
        split = stream_split(table, None, 0)
        _, test = split.select(table)
        scores = learnt.scorer.score(test)
        rated = [row.quality for row in test]
        final = learnt.judged.final()[name]
        assert final["value"] == pytest.approx(srcc(scores.quality, rated), abs=1e-9)
        assert final["pictures"] == len(test) and final["low"] <= final["value"] <= final["high"]
        np.testing.assert_allclose(learnt.judged.predicted("softmin", 1, name), scores.quality, atol=1e-6)
    assert str(learnt.scorer.unit) == "0 (worst) to 1 (best)"


def test_what_is_saved_scores_the_same_and_knows_what_has_taught_it(
    learnt: Stream, tables: dict[str, RatedTable], photos: list[Path], tmp_path: Path
) -> None:
    learnt.scorer.save(tmp_path / "all")
    again = grmp_hf.load(tmp_path / "all")
    expected = learnt.scorer.score(photos)
    assert np.array_equal(again.score(photos).quality, expected.quality)
    assert np.array_equal(again.score(photos).experts, expected.experts)
    assert again.taught is not None and len(again.taught.train) == 24 + 24
    alone = grmp_hf.load(tmp_path / "all" / "experts" / "stars")
    assert str(alone.unit) == "1 (worst) to 5 (best)" and alone.taught is not None
    train, _ = stream_split(tables["stars"], None, 0).select(tables["stars"])
    assert alone.taught.train == tuple(row.name for row in train)
    assert abs(float(alone.score(train).score.mean()) - np.mean([row.mos for row in train])) < 0.5


def test_it_is_a_function_of_its_arguments(base: Scorer, tables: dict[str, RatedTable], learnt: Stream) -> None:
    assert equal(learnt, learn_stream(base, tables, recipe=QUICK))
    other = learn_stream(base, dict(reversed(tables.items())), recipe=QUICK)
    assert other.judged.names == ("points", "stars") and other.judged.matrix()[0][0] != learnt.judged.matrix()[0][0]


METHODS: dict[str, dict[str, Any]] = {
    "experts": {},
    "distillation with memory": {"method": "distillation", "memory": 8},
    "ewc": {"method": "ewc", "strength": 1e4},
    "joint": {"method": "joint"},
}


@pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)
def test_a_run_that_was_stopped_anywhere_ends_as_if_it_had_not(
    changes: dict[str, Any],
    base: Scorer,
    tables: dict[str, RatedTable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = dataclasses.replace(QUICK, **changes)
    expected = learn_stream(base, tables, recipe=recipe)

    class Stopped(Exception):
        pass

    told: list[str] = []

    def stop_after(count: int) -> Any:
        def tell(what: str, share: float) -> None:
            told.append(what)
            if len(told) == count:
                raise Stopped

        return tell

    learn_stream(base, tables, recipe=recipe, tell=stop_after(0))
    events = len(told)
    assert events > 5
    for at in (2, events // 2, events - 1):
        told.clear()
        with WorkFolder(tmp_path / f"{at}") as work, pytest.raises(Stopped):
            learn_stream(base, tables, recipe=recipe, work=work, tell=stop_after(at))
        with WorkFolder(tmp_path / f"{at}") as work:
            found = learn_stream(base, tables, recipe=recipe, work=work)
            assert equal(found, expected)
    calls: list[int] = []
    monkeypatch.setattr(streaming, "learn", lambda *_, **__: calls.append(1))
    with WorkFolder(tmp_path / f"{events - 1}") as work:
        assert equal(learn_stream(base, tables, recipe=recipe, work=work), expected) and not calls


def test_one_adapter_goes_on_and_keeps_a_head_for_each(base: Scorer, tables: dict[str, RatedTable]) -> None:
    found = learn_stream(base, tables, recipe=dataclasses.replace(QUICK, method="fine_tuning"))
    model: Any = found.scorer.model
    heads = [expert.get_base_model().head.modules_to_save["default"] for expert in model.adapted]
    assert [head.judge for head in heads] == [0, 1] and [len(head.directions) for head in heads] == [2, 2]
    first, second = (dict(expert.named_parameters()) for expert in model.adapted)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items() if "original_" not in name)
    figures = found.judged.report()["other_gates"]["oracle"]["figures"]
    assert figures["stability"] < 1  # the trunk has moved


def test_all_at_once_has_a_last_row_alone(base: Scorer, tables: dict[str, RatedTable]) -> None:
    report = learn_stream(base, tables, recipe=dataclasses.replace(QUICK, method="joint")).judged.report()
    assert report["figures"] is None and report["matrix"][0] == [None, None]
    assert None not in report["matrix"][1] and report["final"]["stars"]["value"] == report["matrix"][1][0]


def test_gates_by_hand() -> None:
    distances = {"a": np.array([[0.1, 0.2]] * 3), "b": np.array([[0.3, 0.1]] * 3)}
    quality = {
        "a": {0: np.array([[0.1], [0.2], [0.3]]), 1: np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])},
        "b": {1: np.array([[0.0, 0.1], [0.0, 0.2], [0.0, 0.3]])},
    }
    ratings = {"a": np.array([0.0, 0.5, 1.0]), "b": np.array([0.0, 0.5, 1.0])}
    judged = Judged(("a", "b"), ratings, distances, quality, 32.0)
    weights = np.array([0.960834, 0.039166])
    np.testing.assert_allclose(judged.predicted("softmin", 1, "a"), quality["a"][1] @ weights, atol=1e-6)
    assert judged.predicted("nearest", 1, "b").tolist() == [0.1, 0.2, 0.3]
    assert judged.predicted("last", 1, "a").tolist() == [0.9, 0.8, 0.7]
    assert judged.predicted("oracle", 1, "a").tolist() == [0.1, 0.2, 0.3]
    assert judged.predicted("mean", 1, "b").tolist() == [0.05, 0.1, 0.15]
    matrix = judged.matrix("last")
    assert matrix[0][1] is None and [matrix[0][0], *matrix[1]] == pytest.approx([1.0, -1.0, 1.0])
    assert judged.accuracy() == {"a": 1.0, "b": 1.0}
    figures = judged.figures("last")
    assert figures is not None and figures["stability"] == pytest.approx(0.0)


def test_pictures_that_cannot_be_read_are_left_out_of_tests(
    base: Scorer, tables: dict[str, RatedTable], tmp_path: Path
) -> None:
    table = tables["points"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    _, test = stream_split(table, None, 0).select(table)
    rows = tuple(dataclasses.replace(row, image=broken) if row is test[0] else row for row in table.rows)
    found = learn_stream(base, {**tables, "points": dataclasses.replace(table, rows=rows)}, recipe=QUICK)
    assert found.judged.unread == 1 and found.judged.final()["points"]["pictures"] == len(test) - 1


def test_what_cannot_be_a_stream_is_refused_before_any_work(base: Scorer, tables: dict[str, RatedTable]) -> None:
    said: list[str] = []

    def tell(what: str, share: float) -> None:
        said.append(what)

    with pytest.raises(GRMPError, match=r"at least two experts, got stars\."):
        learn_stream(base, {"stars": tables["stars"]}, recipe=QUICK, tell=tell)
    with pytest.raises(GRMPError, match=r"letters, digits, - \. _, got my stars\."):
        learn_stream(base, {"my stars": tables["stars"], "points": tables["points"]}, recipe=QUICK, tell=tell)
    with pytest.raises(GRMPError, match=r"between 1 and 24 shots"):
        learn_stream(base, tables, recipe=QUICK, shots=50, tell=tell)
    with pytest.raises(GRMPError, match=r"two pictures that teach and two that test, got 29 and 1"):
        stream_split(tables["points"], 29, 0)
    assert not said


def test_settings_that_differ_do_not_go_on(base: Scorer, tables: dict[str, RatedTable], tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "run") as work:
        learn_stream(base, tables, recipe=QUICK, work=work)
        with pytest.raises(GRMPError, match=r"unfinished run with other settings \(.*seed"):
            learn_stream(base, tables, recipe=QUICK, seed=1, work=work)
        scale = dataclasses.replace(tables["stars"].scale, higher_is_better=False)
        lower = {**tables, "stars": dataclasses.replace(tables["stars"], scale=scale)}
        with pytest.raises(GRMPError, match=r"unfinished run with other settings \(scales"):
            learn_stream(base, lower, recipe=QUICK, work=work)
