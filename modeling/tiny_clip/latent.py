"""Latent quality of every view, from synthetic faults, teacher features and sharpness; no rating enters.

Three steps. (1) A ridge regression learns the synthetic loss of quality from the features of distorted windows; applied
to undistorted photographs, it sees natural faults as if they were synthetic. (2) The natural quality of a photograph is
the normal score of that prediction and log sharpness, in equal parts; the latent quality of a view is natural quality
minus synthetic loss. (3) A second regression of that latent on window features replaces half of it, so that a window is
judged by what it shows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Floats = NDArray[np.float64]

LATENT_OF_ORDINARY = 1.0
NATURAL_VARIATION = 0.8
LOSS_PENALTY, LATENT_PENALTY = 3.0, 0.1
"""Ridge penalties a value: strong where synthetic faults must stand in for natural ones."""


class Ridge:
    """Least squares on standardised features with penalty ``penalty * N``; features are standardised already."""

    def __init__(self, features: Floats, targets: Floats, penalty: float) -> None:
        self.offset = float(targets.mean())
        self.centre = features.mean(0)
        centred = features - self.centre
        gram = centred.T @ centred + penalty * len(centred) * np.eye(centred.shape[1])
        self.slope: Floats = np.linalg.solve(gram, centred.T @ (targets - self.offset))

    def predict(self, features: Floats) -> Floats:
        """``(N, F)`` -> ``(N,)``."""
        predictions: Floats = self.offset + (features - self.centre) @ self.slope
        return predictions


def normal_scores(values: Floats) -> Floats:
    """Ranks mapped to the standard normal distribution."""
    scores: Floats = norm.ppf((rankdata(values) - 0.5) / len(values))
    return scores


def natural_quality(features: Floats, loss: Floats, clean_features: Floats, sharpness: Floats) -> Floats:
    """Normal scores ``(P,)`` of the photographs: steps 1 and 2 above.

    Args:
        features: ``(N, F)`` standardised windows of all views; ``loss``: ``(N,)`` their synthetic loss.
        clean_features: ``(P, F)`` undistorted native windows, one a photograph.
        sharpness: ``(P,)`` log variance of the Laplacian.
    """
    faultless = Ridge(features, -loss, LOSS_PENALTY).predict(clean_features)
    return normal_scores(normal_scores(faultless) + normal_scores(sharpness))
