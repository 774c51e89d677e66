"""grmp_hf.evaluation.metrics: equal to scipy, defined on constant input, resampling equal to the plain metric."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation import metrics, weighted
from grmp_hf.evaluation.logistic import fit_logistic
from grmp_hf.evaluation.metrics import (
    bootstrap_interval,
    caveats,
    evaluate_scores,
    krcc,
    plcc,
    plcc_logistic,
    point_figures,
    rmse,
    rmse_logistic,
    srcc,
)

SCIPY = {srcc: scipy.stats.spearmanr, krcc: scipy.stats.kendalltau, plcc: scipy.stats.pearsonr}
correlations = pytest.mark.parametrize("metric", SCIPY, ids=lambda metric: metric.__name__)
Data = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def rated(n: int = 120, seed: int = 0) -> Data:
    """Scores and ratings with a correlation of about .7; ratings on a grid, so that many tie."""
    rng = np.random.default_rng(seed)
    mos = rng.normal(size=n)
    return mos + rng.normal(size=n), np.round(mos * 3) / 3


@correlations
@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("n", [2, 3, 7, 50, 700])
def test_equal_to_scipy_with_and_without_ties(metric: metrics.Metric, n: int, levels: int) -> None:
    rng = np.random.default_rng([n, levels])
    for _ in range(5):
        x, y = rng.integers(levels, size=(2, n)).astype(float)
        x[0], x[1], y[0], y[1] = 0, 1, 1, 0  # neither is constant
        expected = SCIPY[metric](x, y).statistic
        assert metric(x, y) == pytest.approx(expected, abs=1e-12)
        assert metric(1e6 + x, -3 * y) == pytest.approx(-expected, abs=1e-9 if metric is plcc else 1e-12)


@correlations
@pytest.mark.parametrize("constant", [[0.1] * 7, [0.0] * 7, [1e300] * 7])
def test_constant_input_gives_zero_without_a_warning(metric: metrics.Metric, constant: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric(constant, range(7)) == metric(range(7), constant) == metric(constant, constant) == 0.0


def test_values_of_any_size_are_handled() -> None:
    for size in (1e-300, 1e-160, 1e160, 1e300):
        assert plcc([size, 2 * size, 3 * size], [1, 2, 4]) == pytest.approx(plcc([1, 2, 3], [1, 2, 4]), abs=1e-12)


def test_rmse_is_in_the_unit_of_the_ratings() -> None:
    assert rmse([1.0, 2.0], [4.0, 6.0]) == pytest.approx(np.sqrt(12.5), abs=1e-15)


def test_plcc_after_the_fit_follows_a_bent_relation() -> None:
    x = np.linspace(-4, 4, 80)
    y = 2 + 3 / (1 + np.exp(-2 * x))
    assert plcc(x, y) < 0.95 < 1 - 1e-9 < plcc_logistic(x, y)


@pytest.mark.parametrize("parameters", [4, 5])
def test_rmse_after_the_fit_does_not_depend_on_the_unit_of_the_scores(parameters: int) -> None:
    x, y = rated(80)
    found = rmse_logistic(x, y, parameters)
    assert found < rmse(x, y)
    assert found <= np.std(y) * np.sqrt(1 - plcc(x, y) ** 2) + 1e-3  # never worse than the best line
    assert rmse_logistic(1e3 * x - 5, y, parameters) == pytest.approx(found, rel=1e-4)
    assert rmse_logistic(x, 20 * y + 7, parameters) == pytest.approx(20 * found, rel=1e-4)
    spread = np.std(fit_logistic(x, y, parameters)(x) - y)
    assert found == pytest.approx(spread, rel=1e-4)  # the residuals of a least-squares fit have mean zero


@pytest.mark.parametrize("mos", [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
@pytest.mark.parametrize("scores", [[0.1, 0.4], [0.3, 0.3]])
def test_two_pictures_have_every_figure(scores: list[float], mos: list[float]) -> None:
    order = float(np.sign(scores[1] - scores[0]) * np.sign(mos[1] - mos[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = evaluate_scores(scores, mos, resamples=20)
        assert plcc_logistic(scores, mos, 5) == pytest.approx(order, abs=1e-12)
    assert [figures[name] for name in ("srcc", "krcc", "plcc")] == pytest.approx([order] * 3, abs=1e-12)
    assert figures["plcc_logistic"] == pytest.approx(order, abs=1e-12)
    assert figures["rmse"] == pytest.approx(0 if order or mos[0] == mos[1] else 0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "mos", "message"),
    [
        ([1, 2, 3], [1, 2], "one rating a score, got 3 scores and 2 ratings"),
        ([1], [1], "at least two rated pictures, got 1"),
        ([[1, 2]], [1, 2], r"scores: expected 1 dimension\(s\), got the shape \(1, 2\)"),
        ([1, np.nan, 3], [1, 2, 3], "scores: expected finite numbers, got nan at position 1"),
        ([1, 2, 3], [1, 2, np.inf], "mos: expected finite numbers, got inf at position 2"),
        (["good", "bad"], [1, 2], "scores: expected numbers"),
    ],
)
@pytest.mark.parametrize("metric", [*SCIPY, rmse], ids=lambda metric: metric.__name__)
def test_unfit_input_is_named(metric: metrics.Metric, scores: npt.ArrayLike, mos: npt.ArrayLike, message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        metric(scores, mos)


@pytest.mark.parametrize("metric", [*SCIPY, rmse], ids=lambda metric: metric.__name__)
def test_all_resamples_at_once_equal_one_at_a_time(metric: metrics.Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rated(60)
    for block in (1 << 20, 70, 1):  # also in pieces
        monkeypatch.setattr(metrics, "BLOCK", block)
        monkeypatch.setattr(weighted, "BLOCK", block)
        many = metrics.resampled_metric(metric, x, y, 50, seed=3)
        one = metrics.resampled_metric(lambda a, b: metric(a, b), x, y, 50, seed=3)
        np.testing.assert_allclose(many, one, rtol=0, atol=1e-12)


@correlations
def test_resamples_that_are_constant_count_as_zero(metric: metrics.Metric) -> None:
    values = metrics.resampled_metric(metric, np.array([0.1, 0.3]), np.array([1.0, 2.0]), 100, seed=0)
    assert set(values.round(12)) == {0.0, 1.0}


def test_interval_depends_on_seed_and_level_only() -> None:
    x, y = rated()
    base = bootstrap_interval(srcc, x, y, resamples=500)
    assert base == bootstrap_interval(srcc, x, y, resamples=500)
    assert base != bootstrap_interval(srcc, x, y, resamples=500, seed=1)
    wide = bootstrap_interval(srcc, x, y, resamples=500, level=0.99)
    assert wide.low < base.low < base.value < base.high < wide.high
    assert base.value == srcc(x, y)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rho = 0.6
    covered = 0
    for seed in range(200):
        x, e = np.random.default_rng(seed).normal(size=(2, 100))
        found = bootstrap_interval(plcc, x, rho * x + np.sqrt(1 - rho**2) * e, resamples=300, seed=seed)
        covered += found.low < rho < found.high
    assert 0.88 < covered / 200 <= 0.99


@pytest.mark.parametrize(("options", "message"), [({"level": 1.0}, "level"), ({"resamples": 0}, "resamples")])
def test_senseless_bootstrap_settings_are_refused(options: dict[str, float], message: str) -> None:
    x, y = rated()
    with pytest.raises(GRMPError, match=f"{message}: expected"):
        bootstrap_interval(srcc, x, y, **options)


def test_evaluation_holds_every_figure_with_its_interval_and_is_json() -> None:
    x, y = rated(400)
    figures = evaluate_scores(x, y, resamples=200)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["n"] == 400
    for name, metric in (("srcc", srcc), ("krcc", krcc), ("plcc", plcc), ("plcc_logistic", plcc_logistic)):
        low, high = figures[f"{name}_interval"]
        assert low < figures[name] < high
        assert figures[name] == pytest.approx(metric(x, y), abs=1e-12)
    assert figures["rmse"] < np.std(y)


@pytest.mark.parametrize("parameters", [4, 5])
def test_a_scorer_that_points_the_wrong_way_keeps_its_sign_after_the_fit(parameters: int) -> None:
    x, y = rated(200)
    right, wrong = plcc_logistic(x, y, parameters), plcc_logistic(-x, y, parameters)
    assert right > 0.5 and wrong == pytest.approx(-right, rel=1e-4)
    assert point_figures(-x, y, parameters)["rmse"] == pytest.approx(rmse_logistic(x, y, parameters), rel=1e-4)
    figures = evaluate_scores(-x, y, resamples=50)
    low, high = figures["plcc_logistic_interval"]
    assert low < figures["plcc_logistic"] < high < 0 < figures["rmse"]


@pytest.mark.parametrize(("scores", "mos"), [([0.5] * 6, range(6)), (range(6), [3.0] * 6), ([0.1] * 6, [0.3] * 6)])
def test_what_is_constant_has_no_interval_and_is_told(scores: Sequence[float], mos: Sequence[float]) -> None:
    figures = evaluate_scores(scores, mos, resamples=20)
    for name in ("srcc", "krcc", "plcc", "plcc_logistic"):
        assert (figures[name], figures[f"{name}_interval"]) == (0.0, None)
    assert (figures["rmse_interval"] is None) == (len(set(mos)) == 1)
    told = caveats(scores, mos)
    assert len(told) == (len(set(scores)) == 1) + (len(set(mos)) == 1)
    assert all("they order nothing" in sentence for sentence in told)


def test_nothing_is_told_of_what_varies() -> None:
    assert caveats([1, 1, 1.001], [3, 3, 4]) == []


def test_long_evaluations_tell_how_far_they_are() -> None:
    told: list[tuple[str, float]] = []
    x, y = rated(3000)
    evaluate_scores(x, y, resamples=400, tell=lambda text, share: told.append((text, share)))
    shares = [share for _, share in told]
    assert len(told) > 5 and shares == sorted(shares) and shares[0] == 0 and 0.8 <= shares[-1] < 1
    assert {text for text, _ in told} == {"bootstrap intervals"}


def test_evaluation_of_a_constant_scorer_is_finite() -> None:
    figures = evaluate_scores([0.5] * 6, range(6), resamples=50)
    assert figures["srcc"] == figures["plcc_logistic"] == 0.0
    assert figures["rmse"] == pytest.approx(np.std(range(6)))
    json.dumps(figures, allow_nan=False)
