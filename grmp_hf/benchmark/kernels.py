"""Regressions on frozen features, with kernels and as GRepQ has it; scikit-learn, the extra ``benchmark``.

Under kernels, features are standardised and clipped as for `fit_ridge`, ratings standardised; strength and width are
chosen by five-fold cross-validation inside the shots, everything fitted anew in each fold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grmp_hf.errors import GRMPError

__all__ = ["GRIDS", "kernel_ridge", "ridge_cv", "svr"]

Floats = NDArray[np.float64]
_CLIP = 5.0  # as in grmp_hf.evaluation.baselines

GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "kernel_ridge": {"alpha": (0.03, 0.1, 0.3, 1.0, 3.0), "gamma": (0.1, 0.3, 1.0)},
    "ridge_cv": {"alpha": (0.1, 1.0, 10.0, 100.0)},
    "svr": {"C": (0.1, 0.3, 1.0, 3.0, 10.0), "gamma": (0.1, 0.3, 1.0)},
}
"""What cross-validation chooses from; gamma is the share of 1 / d, d the number of features."""


def kernel_ridge(features: Floats, quality: Floats, seed: int) -> tuple[Callable[[Floats], Floats], dict[str, Any]]:
    """Kernel ridge regression with a Gaussian kernel; see `grmp_hf.benchmark.methods.Regressor`.

    Raises:
        GRMPError: scikit-learn is not installed.
    """
    _need_sklearn()
    from sklearn.kernel_ridge import KernelRidge

    found = _search(KernelRidge(kernel="rbf"), "kernel_ridge", features, quality, seed)
    return found.predict, _standards(found) | {
        "dual_coef": np.asarray(_kernel(found).dual_coef_),
        "support": np.asarray(_kernel(found).X_fit_),
        "gamma": np.array([_kernel(found).gamma]),
    }


def ridge_cv(features: Floats, quality: Floats, seed: int) -> tuple[Callable[[Floats], Floats], dict[str, Any]]:
    """Ridge regression on features as they are, its strength by leave-one-out, as GRepQ's code has it.

    See `grmp_hf.benchmark.methods.Regressor`.

    Raises:
        GRMPError: scikit-learn is not installed.
    """
    _need_sklearn()
    from sklearn.linear_model import RidgeCV

    found = RidgeCV(alphas=GRIDS["ridge_cv"]["alpha"]).fit(features, quality)
    learnt = {"weights": found.coef_, "intercept": np.atleast_1d(found.intercept_), "alpha": np.array([found.alpha_])}
    return found.predict, learnt


def svr(features: Floats, quality: Floats, seed: int) -> tuple[Callable[[Floats], Floats], dict[str, Any]]:
    """Support vector regression with a Gaussian kernel; see `grmp_hf.benchmark.methods.Regressor`.

    Raises:
        GRMPError: scikit-learn is not installed.
    """
    _need_sklearn()
    from sklearn.svm import SVR

    found = _search(SVR(kernel="rbf", epsilon=0.1), "svr", features, quality, seed)
    return found.predict, _standards(found) | {
        "dual_coef": np.asarray(_kernel(found).dual_coef_),
        "support": np.asarray(_kernel(found).support_vectors_),
        "intercept": np.asarray(_kernel(found).intercept_),
        "gamma": np.array([_kernel(found).gamma]),
    }


def _need_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise GRMPError(
            "kernel_ridge, ridge_cv and svr: expected scikit-learn, which is not installed; pip install "
            "'grmp_hf[benchmark]', or take ridge instead"
        ) from error


def _search(estimator: Any, name: str, features: Floats, quality: Floats, seed: int) -> Any:
    """The estimator with the best parameters of its grid, refitted on all shots."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    clip = FunctionTransformer(np.clip, kw_args={"a_min": -_CLIP, "a_max": _CLIP})
    standardised = make_pipeline(StandardScaler(), clip, estimator)
    model = TransformedTargetRegressor(standardised, transformer=StandardScaler())
    prefix = f"regressor__{type(estimator).__name__.lower()}__"
    grid = {prefix + key: values for key, values in GRIDS[name].items()}
    grid[prefix + "gamma"] = tuple(share / features.shape[1] for share in GRIDS[name]["gamma"])
    folds = KFold(min(5, len(quality)), shuffle=True, random_state=seed)
    search = GridSearchCV(model, grid, scoring="neg_mean_squared_error", cv=folds)
    return search.fit(features, quality).best_estimator_


def _kernel(model: Any) -> Any:
    return model.regressor_[-1]


def _standards(model: Any) -> dict[str, Any]:
    features, target = model.regressor_[0], model.transformer_
    return {
        **{f"features_{name}": np.asarray(getattr(features, f"{name}_")) for name in ("mean", "scale")},
        **{f"quality_{name}": np.asarray(getattr(target, f"{name}_")) for name in ("mean", "scale")},
    }
