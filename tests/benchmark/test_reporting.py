from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grmp_hf.benchmark.reporting import compare


def row(method: str, shots: int, draw: int, srcc: float, **others: Any) -> dict[str, Any]:
    where = {"dataset": "a", "test_dataset": "a", "protocol": "clean", **others}
    return {**where, "method": method, "shots": shots, "draw": draw, "srcc": srcc}


def test_methods_are_compared_in_the_draws_that_both_have() -> None:
    ours = [row("ours", shots, draw, 0.6 + draw / 100) for shots in (20, 50) for draw in range(4)]
    theirs = [row("ridge", 20, draw, 0.5 + draw / 50) for draw in range(3)]
    alone = [row("zero", 0, draw, 0.55) for draw in range(4)]
    found = {(c["method"], c["shots"]): c for c in compare([*ours, *theirs, *alone], "ours")}
    assert set(found) == {("ridge", 20), ("zero", 20), ("zero", 50)}
    difference = np.mean([0.5 + draw / 50 - 0.6 - draw / 100 for draw in range(3)])
    assert found["ridge", 20]["difference"] == pytest.approx(difference)
    assert found["ridge", 20]["share"] == 0 and found["ridge", 20]["reference"] == "ours"
    low, high = (found["zero", 50][end] for end in ("low", "high"))
    assert low <= np.mean([-0.05, -0.06, -0.07, -0.08]) <= high


def test_data_sets_and_protocols_are_not_mixed() -> None:
    rows = [row(m, 20, d, 0.5 + d / 10) for m in ("ours", "ridge") for d in range(2)]
    rows += [row("ridge", 20, d, 0.1, protocol="paper") for d in range(2)]
    rows += [row("ours", 20, d, 0.1, test_dataset="b") for d in range(2)]
    (only,) = compare(rows, "ours")
    assert (only["protocol"], only["test_dataset"], only["difference"]) == ("clean", "a", 0.0)


def test_one_draw_or_no_reference_compares_nothing() -> None:
    rows = [row(method, 20, 0, 0.5) for method in ("ours", "ridge")]
    assert compare(rows, "ours") == [] and compare(rows * 1, None) == [] and compare(rows, "other") == []
