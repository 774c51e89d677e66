"""grmp_hf.evaluation.results: nothing is mixed, nothing is lost, and the worst draw is the worst."""

from __future__ import annotations

from typing import Any

import pytest

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.results import Summary, group_results


def row(method: str = "ridge", shots: int = 20, draw: int = 0, **others: Any) -> dict[str, Any]:
    start = {"dataset": "livec", "test_dataset": "livec", "protocol": "clean", "srcc": 0.5}
    return {**start, "method": method, "shots": shots, "draw": draw, **others}


def test_groups_and_methods_stand_as_first_seen() -> None:
    rows = [
        row("svr", protocol="paper"),
        row("ridge"),
        row("svr"),
        row("ridge", test_dataset="bid"),
        row("svr", 50),
        row("zero-shot", 0),
    ]
    groups = group_results(rows)
    assert [group.key for group in groups] == [
        ("livec", "livec", "paper"),
        ("livec", "livec", "clean"),
        ("livec", "bid", "clean"),
    ]
    assert [group.title for group in groups] == ["livec", "livec", "livec → bid"]
    assert list(groups[1].rows) == ["ridge", "svr", "zero-shot"]
    assert groups[1].shots == [0, 20, 50]


def test_low_is_best_for_rmse_and_high_for_the_others() -> None:
    rows = [row(draw=draw, srcc=value, rmse=10 * value) for draw, value in enumerate((0.4, 0.7, 0.5, 0.6))]
    (group,) = group_results(rows)
    assert group.summaries("srcc")["ridge"][20] == Summary(0.55, 0.4, 0.7, 4)
    assert group.summaries("rmse")["ridge"][20] == Summary(5.5, 7.0, 4.0, 4)
    assert group.draws == 4


def test_a_metric_that_is_missing_is_left_out() -> None:
    (group,) = group_results([row(plcc=None), row(draw=1, plcc=0.3), row("svr")])
    assert group.values("plcc") == {"ridge": {20: [0.3]}}
    assert group.values("krcc") == {}


@pytest.mark.parametrize(("values", "middle"), [((0.7, 0.5, 0.6), 2), ((0.7, 0.5, 0.6, 0.4), 1), ((0.7,), 0)])
def test_the_median_row_is_a_draw(values: tuple[float, ...], middle: int) -> None:
    (group,) = group_results([row(draw=draw, srcc=value) for draw, value in enumerate(values)])
    assert group.median_row("ridge", 20)["draw"] == middle


def test_a_method_without_labels_has_the_same_at_every_number() -> None:
    (group,) = group_results([row("zero-shot", 0, srcc=0.3), row("zero-shot", 0, 1, srcc=0.4), row()])
    assert group.by_draw("zero-shot", 20) == group.by_draw("zero-shot", 0) == {0: 0.3, 1: 0.4}
    assert group.by_draw("ridge", 50) == group.by_draw("other", 20) == {}


def test_what_cannot_be_gathered_is_named() -> None:
    with pytest.raises(GRMPError, match="Expected the rows of a benchmark, got none"):
        group_results([])
    with pytest.raises(GRMPError, match="Result row 2: expected a value for draw, srcc, got none"):
        group_results([row(), {**row(srcc=None), "draw": None}])
    with pytest.raises(GRMPError, match=r"expected each draw once, got dataset livec, .* shots 20, draw 0 again"):
        group_results([row(), row(draw=1), row(srcc=0.6)])
