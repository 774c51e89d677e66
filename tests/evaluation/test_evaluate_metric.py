"""The evaluate.Metric: the same figures as the functions, offline, in batches, loaded from its file, and combined."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pytest

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation import evaluate_metric
from grmp_hf.evaluation.evaluate_metric import IQAMetric
from grmp_hf.evaluation.metrics import evaluate_scores, plcc_logistic, rmse_logistic

NAMES = ("srcc", "krcc", "plcc", "plcc_logistic", "rmse")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """evaluate writes what it is given, and copies what it loads, below its caches; it asks no network."""
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield


@pytest.fixture
def data() -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    mos = np.round(rng.normal(size=60), 1)
    scores = 1 + 1e-9 * (mos + rng.normal(size=60))  # equal to each other in single precision
    return {"predictions": scores.tolist(), "references": mos.tolist()}


def test_figures_are_those_of_the_functions(data: dict[str, list[float]]) -> None:
    expected = evaluate_scores(data["predictions"], data["references"], resamples=1)
    assert IQAMetric().compute(**data) == pytest.approx({name: expected[name] for name in NAMES}, abs=1e-12)
    five = IQAMetric().compute(**data, parameters=5)
    assert five["plcc_logistic"] == plcc_logistic(*data.values(), parameters=5)
    assert five["rmse"] == rmse_logistic(*data.values(), parameters=5)


def test_batches_add_up(data: dict[str, list[float]]) -> None:
    metric = IQAMetric()
    for start in range(0, 60, 25):
        metric.add_batch(**{name: values[start : start + 25] for name, values in data.items()})
    batches = metric.compute()
    for prediction, reference in zip(*data.values(), strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert batches == metric.compute() == IQAMetric(keep_in_memory=True).compute(**data)


def test_loaded_from_its_file(data: dict[str, list[float]]) -> None:
    loaded = evaluate.load(evaluate_metric.__file__)
    assert type(loaded).__module__ != IQAMetric.__module__  # evaluate runs a copy
    assert loaded.compute(**data) == IQAMetric().compute(**data)


class MeanAbsoluteError(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"mae": float(np.abs(np.subtract(predictions, references)).mean())}


def test_combined_with_another(data: dict[str, list[float]]) -> None:
    both = evaluate.combine([IQAMetric(), MeanAbsoluteError()])
    assert both.compute(**data) == IQAMetric().compute(**data) | MeanAbsoluteError().compute(**data)


@pytest.mark.parametrize(
    ("predictions", "match"),
    [([1.0], "at least two rated pictures, got 1"), ([1.0, float("nan")], "scores: expected finite numbers, got nan")],
)
def test_unfit_input_is_named(predictions: list[float], match: str) -> None:
    with pytest.raises(GRMPError, match=match):
        IQAMetric().compute(predictions=predictions, references=[1.0, 2.0][: len(predictions)])


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evaluate", None)
    with pytest.raises(
        GRMPError, match=r"library evaluate .* not installed; pip install .grmp_hf\[metrics\]., or use the"
    ):
        runpy.run_path(evaluate_metric.__file__)
