"""The monotone curve from scores to ratings that comes before PLCC and RMSE in image quality assessment.

Source: VQEG, "Final report on the validation of objective models of video quality assessment" (2000 and 2003); the
five-parameter form: Sheikh, Sabir, Bovik, "A statistical evaluation of recent full reference image quality assessment
algorithms", IEEE TIP 15(11), 2006, equation (11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.special import expit

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, finite_array, is_constant, paired_arrays

__all__ = ["ENOUGH", "LogisticFit", "fit_logistic"]

ENOUGH = 20
"""Pictures from which four parameters of a logistic are no step between two of them."""

Curve = Callable[[FloatArray, FloatArray], FloatArray]

# Width b4 in units of the spread of the scores: from a step to a line. Beyond, the curve no longer changes visibly but
# its parameters run away together.
_STEEPEST, _FLATTEST = 0.01, 20.0


@dataclass(frozen=True)
class LogisticFit:
    """A fitted curve; call it with scores `(n,)` to get values on the scale of the ratings `(n,)`.

    `form` is one of

    - `"logistic4"`: b2 + (b1 - b2) / (1 + exp(-(x - b3) / b4)), b4 > 0,
    - `"logistic5"`: b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5,
    - `"line"`: b1 x + b2, where there are too few pictures for a logistic curve,
    - `"constant"`: b1, where all scores are equal.
    """

    form: str
    parameters: tuple[float, ...]

    def __call__(self, scores: npt.ArrayLike) -> FloatArray:
        """Value of the curve at every score, `(n,) -> (n,)`."""
        return _CURVES[self.form](finite_array(scores, "scores"), np.array(self.parameters))


def fit_logistic(scores: npt.ArrayLike, mos: npt.ArrayLike, parameters: int = 4) -> LogisticFit:
    """Least-squares fit of the logistic curve with four or five parameters from scores to ratings.

    The fit works in standardised units, from a rising or falling start, whichever way the data goes, at three slopes,
    and keeps the best. It falls back to a line when there are no more pictures than parameters, and to the mean rating
    when all scores are equal. A scorer that points the wrong way gets a falling curve, which correlates positively with
    the ratings: `plcc_logistic` gives the sign back.

    Args:
        scores: `(n,)`, n >= 2, any unit.
        mos: `(n,)`, ratings of the same pictures, any unit.
        parameters: 4 or 5.

    Raises:
        GRMPError: another number of parameters, or arrays that do not fit together.

    >>> import numpy as np
    >>> x = np.linspace(-3, 3, 50)
    >>> fit = fit_logistic(x, 1 + 4 / (1 + np.exp(-(x - 0.5) / 0.8)))
    >>> fit.form, [round(b, 3) for b in fit.parameters]
    ('logistic4', [5.0, 1.0, 0.5, 0.8])
    """
    if parameters not in (4, 5):
        raise GRMPError(f"parameters: expected 4 or 5, got {parameters!r}")
    x, y = paired_arrays(scores, mos)
    x_middle, y_middle = float(np.median(x)), float(y.mean())
    x_scale, y_scale = _robust_spread(x), float(y.std()) or 1.0
    if is_constant(x):
        return LogisticFit("constant", (y_middle,))
    if len(x) <= parameters:
        slope = float((x - x.mean()) @ (y - y_middle) / ((x - x.mean()) @ (x - x.mean())))
        return LogisticFit("line", (slope, y_middle - slope * float(x.mean())))
    u, v = (x - x_middle) / x_scale, (y - y_middle) / y_scale
    if parameters == 4:
        top, bottom, centre, width = _best_fit(u, v, "logistic4")
        b = [y_middle + y_scale * top, y_middle + y_scale * bottom, x_middle + x_scale * centre, x_scale * width]
    else:
        height, steepness, centre, tilt, offset = _best_fit(u, v, "logistic5")
        tilt *= y_scale / x_scale
        b = [y_scale * height, steepness / x_scale, x_middle + x_scale * centre, tilt]
        b.append(y_middle + y_scale * offset - tilt * x_middle)
    return LogisticFit(f"logistic{parameters}", tuple(map(float, b)))


def _robust_spread(x: FloatArray) -> float:
    """Half the width of the middle two thirds (one standard deviation of a normal), which no outlier moves."""
    low, high = np.quantile(x, [1 / 6, 5 / 6])
    return float(high - low) / 2 or float(x.std())


def _best_fit(u: FloatArray, v: FloatArray, form: str) -> FloatArray:
    """Parameters with the smallest squared error over three starts, all in standardised units."""
    curve, inf = _CURVES[form], np.inf
    falling = np.tanh(u) @ v < 0
    high, low = (v.min(), v.max()) if falling else (v.max(), v.min())
    starts: list[tuple[float, ...]]
    if form == "logistic4":
        starts = [(high, low, 0.0, width) for width in (0.25, 1.0, 4.0)]
        lower, upper = [-inf, -inf, -inf, _STEEPEST], [inf, inf, inf, _FLATTEST]
    else:
        starts = [(high - low, 1 / width, 0.0, 0.0, 0.0) for width in (0.25, 1.0, 4.0)]
        lower, upper = [-inf, 1 / _FLATTEST, -inf, -inf, -inf], [inf, 1 / _STEEPEST, inf, inf, inf]
    fits = [least_squares(lambda b: curve(u, b) - v, start, bounds=(lower, upper), max_nfev=400) for start in starts]
    best: FloatArray = min(fits, key=lambda fit: float(fit.cost)).x
    return best


def _logistic4(x: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(b[1] + (b[0] - b[1]) * expit((x - b[2]) / b[3]))


def _logistic5(x: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(b[0] * (expit(b[1] * (x - b[2])) - 0.5) + b[3] * x + b[4])


_CURVES: dict[str, Curve] = {
    "logistic4": _logistic4,
    "logistic5": _logistic5,
    "line": lambda x, b: np.asarray(b[0] * x + b[1]),
    "constant": lambda x, b: np.full_like(x, b[0]),
}
