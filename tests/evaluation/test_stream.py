"""Figures of a stream: by hand, and what must hold whatever is predicted."""

from __future__ import annotations

import numpy as np
import pytest

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.arrays import FloatArray
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.evaluation.stream import average, mpsr, plasticity, stability, stream_figures, stream_matrix

NAN = np.nan
MATRIX = [[0.9, NAN, NAN], [0.5, 0.8, NAN], [0.1, 0.6, 0.7]]


def predictions(sets: int = 3, pictures: int = 20, seed: int = 0) -> list[list[FloatArray]]:
    random = np.random.default_rng(seed)
    return [[random.normal(size=pictures + s) for s in range(t + 1)] for t in range(sets)]


def test_by_hand() -> None:
    assert plasticity(MATRIX) == pytest.approx(0.8, abs=1e-15)
    assert average(MATRIX) == pytest.approx((0.9 + 0.65 + 1.4 / 3) / 3, abs=1e-15)
    # R': .95; .75, .9; .55, .8, .85
    second, third = 0.8 * 0.75 / 0.95, 0.7 * (0.55 / 0.95 + 0.8 / 0.9) / 2
    assert mpsr(MATRIX) == pytest.approx((0.9 + second + third) / 3, abs=1e-15)
    assert mpsr(MATRIX) == pytest.approx(0.6817739, abs=1e-6)


def test_stability_by_hand() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0], [4.0, 1.0, 3.0]
    swapped, turned = [2.0, 1.0, 3.0, 4.0], [1.0, 4.0, 2.0]
    # SRCC of the swapped ones is .8, of the turned ones -1
    found = stability([[first], [swapped, second], [first, turned, [1.0, 2.0]]])
    assert found == pytest.approx((1 + 0.8 + (1 - 1) / 2) / 3, abs=1e-15)


def test_what_never_changes_is_stable_whatever_it_says() -> None:
    own = predictions()
    kept = [[own[s][s] for s in range(t + 1)] for t in range(3)]
    kept[1][0] = kept[2][0] = kept[0][0] = np.ones(20)  # of one who says the same of all
    assert stability(kept) == 1.0
    matrix = stream_matrix(kept, [np.arange(20.0 + s) for s in range(3)])
    assert mpsr(matrix) == pytest.approx(plasticity(matrix), abs=1e-15)


def test_the_matrix_holds_what_was_learnt_so_far() -> None:
    said, ratings = predictions(), [np.arange(20.0 + s) for s in range(3)]
    matrix = stream_matrix(said, ratings)
    assert np.isnan(matrix[np.triu_indices(3, 1)]).all()
    assert matrix[2, 1] == srcc(said[2][1], ratings[1])
    found = stream_figures(said, ratings)
    assert found == (plasticity(matrix), average(matrix), stability(said), mpsr(matrix))


def test_one_data_set_is_a_stream() -> None:
    assert (plasticity([[0.7]]), average([[0.7]]), mpsr([[0.7]]), stability([[[1, 2]]])) == (0.7, 0.7, 0.7, 1.0)


@pytest.mark.parametrize("figure", [plasticity, average, mpsr])
def test_what_is_no_matrix_of_a_stream_is_refused(figure: object) -> None:
    assert callable(figure)
    for wrong in ([[0.5, 0.5]], [], 0.5):
        with pytest.raises(GRMPError, match="T times T correlations"):
            figure(wrong)
    with pytest.raises(GRMPError, match=r"got nan at position 1, 0"):
        figure([[0.5, NAN], [NAN, 0.5]])


def test_predictions_that_are_missing_are_refused() -> None:
    said = predictions()
    with pytest.raises(GRMPError, match=r"of 3 in all, got those of \[1, 2, 2\]"):
        stream_matrix([*said[:2], said[2][:2]], [np.arange(20.0 + s) for s in range(3)])
    with pytest.raises(GRMPError, match=r"of 0 in all"):
        stability([])


def test_of_a_data_set_that_is_upside_down_nothing_is_kept() -> None:
    upside_down = [[0.8, NAN, NAN], [0.6, -1.0, NAN], [0.5, 0.4, 0.9]]
    # R': .9; .8, 0; .75, .7, .95; nothing is kept of the second
    expected = (0.8 + -1.0 * 0.8 / 0.9 + 0.9 * (0.75 / 0.9 + 0) / 2) / 3
    assert mpsr(upside_down) == pytest.approx(expected, abs=1e-15)
    assert mpsr([[np.nextafter(-1.0, 0), NAN], [0.5, 0.5]]) == pytest.approx(-0.5, abs=1e-12)
