"""grmp_hf.evaluation.logistic: recovers known curves, and has an answer for every input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.logistic import LogisticFit, fit_logistic

X = np.linspace(0, 100, 150)


def test_four_parameters_are_recovered_in_any_unit() -> None:
    expected = (4.5, 1.5, 40.0, 12.0)
    curve = LogisticFit("logistic4", expected)
    assert fit_logistic(X, curve(X)).parameters == pytest.approx(expected, rel=1e-5)
    falling = (1.5, 4.5, 40.0, 12.0)
    assert fit_logistic(X, LogisticFit("logistic4", falling)(X)).parameters == pytest.approx(falling, rel=1e-5)
    scaled = fit_logistic(1e-4 * X - 7, 1000 * curve(X))
    assert scaled.parameters == pytest.approx((4500, 1500, 1e-4 * 40 - 7, 12e-4), rel=1e-4)


def test_five_parameters_follow_their_curve() -> None:
    curve = LogisticFit("logistic5", (3.0, 0.15, 55.0, 0.01, 2.0))
    fit = fit_logistic(X, curve(X), parameters=5)
    assert fit.form == "logistic5"
    np.testing.assert_allclose(fit(X), curve(X), atol=1e-5)


@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize(
    "mos",
    [X, -X, np.exp(X / 20), (X > 50) * 1.0, 1e9 + X, np.random.default_rng(0).normal(size=150), X + 30 * np.sin(X)],
    ids=["line", "falling", "exponential", "step", "offset", "noise", "wave"],
)
def test_a_fit_is_never_worse_than_a_line(mos: np.ndarray, parameters: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        residual = np.std(fit_logistic(X, mos, parameters)(X) - mos)
    line = np.std(np.polyval(np.polyfit(X, mos, 1), X) - mos)
    assert residual <= 1.001 * line + 1e-3 * np.std(mos)


@pytest.mark.parametrize("parameters", [4, 5])
def test_one_wild_score_does_not_spoil_the_curve(parameters: int) -> None:
    mos = np.tanh((X - 50) / 20)
    wild = X.copy()
    wild[0] = 1e6
    residual = np.abs(fit_logistic(wild, mos, parameters)(wild) - mos)
    assert np.median(residual) < 0.05


def test_fallbacks_are_a_line_and_the_mean() -> None:
    assert fit_logistic([1, 2, 3, 4], [3, 5, 7, 9]).form == "line"
    assert fit_logistic([1, 2, 3, 4], [3, 5, 7, 9]).parameters == pytest.approx((2, 1))
    assert fit_logistic([0.1] * 20, np.arange(20)) == LogisticFit("constant", (9.5,))
    np.testing.assert_allclose(fit_logistic(X, np.full(150, 3.0))(X), 3.0)


def test_another_number_of_parameters_is_refused() -> None:
    with pytest.raises(GRMPError, match="parameters: expected 4 or 5, got 3"):
        fit_logistic(X, X, parameters=3)
