"""grmp_hf.evaluation.report: tables come straight from the figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from grmp_hf.evaluation.metrics import evaluate_scores
from grmp_hf.evaluation.report import benchmark_table, metrics_table


def rows(method: str, shots: int, *values: float, **others: Any) -> list[dict[str, Any]]:
    start = {"dataset": "livec", "test_dataset": "livec", "protocol": "clean", "method": method, "shots": shots}
    return [{**start, "draw": draw, "srcc": value, **others} for draw, value in enumerate(values)]


def test_every_figure_has_a_column_with_its_interval() -> None:
    mos = np.arange(30.0)
    figures = evaluate_scores(np.sqrt(mos), mos, resamples=50)
    lines = metrics_table({"a | b": figures, "zero-shot": {"srcc": 0.5}}).splitlines()
    assert lines[0] == "| | pictures | SRCC | KRCC | PLCC | PLCC after fit | RMSE after fit |"
    assert lines[1] == "|---|---|---|---|---|---|---|"
    assert lines[2].startswith("| a \\| b | 30 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 0.9")
    assert lines[3] == "| zero-shot | - | 0.500 | - | - | - | - |"


def test_cells_are_median_worst_and_best_and_say_what_is_missing() -> None:
    found = [
        *rows("zero-shot", 0, 0.4),
        *rows("ridge", 20, 0.5, 0.7, 0.6),
        *rows("a | b", 20, 0.55, 0.65),
        *rows("ridge", 50, 0.8),
    ]
    assert benchmark_table(found).splitlines() == [
        "## livec, protocol `clean`",
        "",
        "SRCC: median [worst, best] of 3 draws",
        "",
        "| method | no labels | 20 labels | 50 labels |",
        "|---|---|---|---|",
        "| zero-shot | 0.400 | \N{EN DASH} | \N{EN DASH} |",
        "| ridge | \N{EN DASH} | **0.600** [0.500, 0.700] | 0.800 (1 draw) |",
        "| a \\| b | \N{EN DASH} | **0.600** [0.550, 0.650] (2 draws) | \N{EN DASH} |",
    ]


def test_a_single_draw_has_no_range() -> None:
    lines = benchmark_table([*rows("ridge", 1, 0.5), *rows("svr", 1, 0.25)]).splitlines()
    assert lines[2:] == [
        "SRCC: one draw",
        "",
        "| method | 1 label |",
        "|---|---|",
        "| ridge | **0.500** |",
        "| svr | 0.250 |",
    ]


def test_each_data_set_pair_and_protocol_has_its_tables() -> None:
    found = [*rows("ridge", 20, 0.5, plcc=0.4, rmse=9.0), *rows("svr", 20, 0.6, plcc=0.5, rmse=8.0)]
    found += rows("ridge", 20, 0.7, protocol="paper", plcc=0.6) + rows("ridge", 20, 0.3, test_dataset="bid", plcc=0.2)
    text = benchmark_table(found, metrics=("srcc", "plcc", "rmse"))
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "## livec, protocol `clean`",
        "## livec, protocol `paper`",
        "## livec → bid, protocol `clean`",
    ]
    clean, paper, crossed = text.split("## ")[1:]
    assert "PLCC: one draw" in clean and "| svr | **0.500** |" in clean
    assert "RMSE after fit: one draw" in clean and "| ridge | 9.000 |\n| svr | **8.000** |" in clean
    assert "| ridge | 0.700 |" in paper and "| ridge | 0.600 |" in paper
    assert "| ridge | 0.300 |" in crossed and "| ridge | 0.200 |" in crossed


def test_differences_count_the_draws_that_both_have() -> None:
    found = [*rows("ridge", 20, 0.5, 0.6, 0.7), *rows("svr", 20, 0.6, 0.6), *rows("zero-shot", 0, 0.55, 0.55, 0.55)]
    where = {"dataset": "livec", "test_dataset": "livec", "protocol": "clean", "reference": "ridge", "shots": 20}
    comparisons = [
        {**where, "method": "svr", "difference": 0.05, "low": 0.0, "high": 0.1},
        {**where, "method": "zero-shot", "difference": -0.05, "low": -0.15, "high": 0.05},
        {**where, "method": "svr", "shots": 50, "difference": 0.25, "low": 0.2, "high": 0.3},
        {**where, "method": "svr", "protocol": "paper", "difference": 9.0, "low": 9.0, "high": 9.0},
    ]
    found += rows("ridge", 50, 0.5, 0.6) + rows("svr", 50, 0.7, 0.9)
    assert benchmark_table(found, comparisons=comparisons).splitlines()[-6:] == [
        "SRCC less that of ridge in the same draw: mean [low, high] (draws in which it is higher)",
        "",
        "| method | 20 labels | 50 labels |",
        "|---|---|---|",
        "| svr | +0.050 [0.000, 0.100] (1 of 2) | +0.250 [0.200, 0.300] (2 of 2) |",
        "| zero-shot | -0.050 [-0.150, 0.050] (1 of 3) | \N{EN DASH} |",
    ]
