"""grmp_hf.evaluation.report: tables come straight from the figures."""

from __future__ import annotations

import numpy as np

from grmp_hf.evaluation.metrics import evaluate_scores
from grmp_hf.evaluation.report import metrics_table


def test_every_figure_has_a_column_with_its_interval() -> None:
    mos = np.arange(30.0)
    figures = evaluate_scores(np.sqrt(mos), mos, resamples=50)
    lines = metrics_table({"a | b": figures, "zero-shot": {"srcc": 0.5}}).splitlines()
    assert lines[0] == "| | pictures | SRCC | KRCC | PLCC | PLCC after fit | RMSE after fit |"
    assert lines[1] == "|---|---|---|---|---|---|---|"
    assert lines[2].startswith("| a \\| b | 30 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 0.9")
    assert lines[3] == "| zero-shot | - | 0.500 | - | - | - | - |"
