"""The metrics as one `evaluate.Metric`, for code that is written around that library (extra `metrics`).

No network is needed: make an `IQAMetric()`, or give the path of this file to `evaluate.load`.
"""

from __future__ import annotations

from collections.abc import Sequence

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import point_figures

try:
    import datasets
    import evaluate
except ImportError as error:
    raise GRMPError(
        "expected the library evaluate for an evaluate.Metric, it is not installed; pip install 'grmp_hf[metrics]', "
        "or use the functions of grmp_hf.evaluation.metrics, which need nothing more"
    ) from error

__all__ = ["IQAMetric"]


class IQAMetric(evaluate.Metric):
    """SRCC, KRCC, PLCC, and PLCC and RMSE after a logistic fit; "predictions" are scores, "references" ratings.

    `compute(predictions=(n,), references=(n,), parameters=4)` returns the five figures under the names of
    `grmp_hf.evaluation.metrics.evaluate_scores`, equal to its values; `parameters` of the logistic curve are 4 or 5.
    Batches can be added with `add_batch`, and the metric stands beside others in `evaluate.combine`.

    Raises:
        GRMPError: on `compute`, as for `srcc` and `fit_logistic`.

    >>> metric = IQAMetric(keep_in_memory=True)
    >>> figures = metric.compute(predictions=[1.0, 2.0, 4.0, 3.0], references=[1.0, 2.0, 3.0, 4.0])
    >>> round(figures["srcc"], 6), sorted(figures)
    (0.8, ['krcc', 'plcc', 'plcc_logistic', 'rmse', 'srcc'])
    """

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")  # in single precision close scores would tie
        return evaluate.MetricInfo(
            description="Agreement of picture quality scores with human ratings.",
            citation="",
            inputs_description="predictions: scores; references: ratings of the same pictures.",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], parameters: int = 4
    ) -> dict[str, float]:
        return point_figures(predictions, references, parameters)
