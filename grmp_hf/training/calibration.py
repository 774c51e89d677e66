"""Scale and offset of the logits, fitted before training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import quality_cross_entropy

__all__ = ["check_finite", "fit_calibration", "place_means"]


def check_finite(logits: Tensor, quality: Tensor) -> None:
    """Raise unless what a model says of pictures ``(n, .)`` and their quality ``(n,)`` can be learnt from.

    Raises:
        GRMPError: a value that is not finite.
    """
    bad = ~(logits.isfinite().all(-1) & quality.isfinite())
    if bool(bad.any()):
        raise GRMPError(
            f"Expected finite logits and quality to calibrate with, got others for {int(bad.sum())} of {len(bad)} "
            f"pictures, number {int(bad.nonzero()[0])} (from 0) the first. Look for pixel_values, image_embeds or "
            "weights of the base that are not finite, and for pictures without a rating."
        )


def fit_calibration(model: PeftModel, logits: Tensor, quality: Tensor) -> None:
    """Fit scale and offset of the readout to rated pictures, before anything else is trained.

    Otherwise the first steps of everything else would be spent on the mean and the spread of the ratings. The scale
    stays within a factor of 4: where the model says nothing of these ratings, or the contrary, the best scale would be
    0, from where nothing can be learnt.

    Args:
        model: with an adapter that calibrates, its scale and offset still 0.
        logits: ``(n, A)``, what the model says of the pictures.
        quality: ``(n,)`` in [0, 1].

    Raises:
        GRMPError: logits or quality that are not finite.
    """
    check_finite(logits, quality)
    base = model.get_base_model()
    readout = base.readout.grmp_readout["default"]
    # In double precision: where a model says nearly the same of all pictures, single precision stops far from the best.
    logits, quality = logits.cpu().double(), quality.cpu().double()
    share, offset = (
        torch.zeros_like(value, dtype=torch.float64, device="cpu", requires_grad=True)
        for value in (readout.log_scale, readout.offset)
    )
    optimizer: Any = torch.optim.LBFGS([share, offset], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        calibrated = _log_scale(share).exp() * logits + offset
        loss = quality_cross_entropy(calibrated, quality, base.config.quality_levels)
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    readout.log_scale.copy_(_log_scale(share).detach())
    readout.offset.data.copy_(offset.detach())


def place_means(means: Tensor, quality: Tensor) -> tuple[float, float]:
    """Where the axis of a head of means lies on the scale of ratings: ``quality = sigmoid(scale mean + offset)``.

    Pairs fix differences of means alone. Scale and offset are those of the smallest cross-entropy; the scale is above
    0, so that no order changes.

    Args:
        means: ``(n,)``, of rated pictures.
        quality: ``(n,)`` in [0, 1], their ratings.

    Returns:
        scale and offset, for :meth:`~grmp_hf.modeling.linear_heads.MeanSigma.place`.

    Raises:
        GRMPError: a value that is not finite, or means that are all alike.
    """
    from scipy import optimize, special

    check_finite(means.unsqueeze(-1), quality)
    values, rated = means.detach().cpu().double().numpy(), quality.detach().cpu().double().numpy()
    middle, spread = values.mean(), values.std()
    if spread < 1e-9:
        raise GRMPError(
            "Expected pictures with different means to place them on a scale, got means that are all alike."
        )
    standard = (values - middle) / spread

    def loss(at: Any) -> tuple[float, Any]:
        logit = at[0] * standard + at[1]
        wrong = special.expit(logit) - rated
        slope = np.array([(wrong * standard).mean(), wrong.mean()])
        return float((np.logaddexp(0, logit) - rated * logit).mean()), slope

    scale, offset = optimize.minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0.01, 20), (-20, 20)]).x
    return float(scale / spread), float(offset - scale * middle / spread)


def _log_scale(share: Tensor) -> Tensor:
    return math.log(4) * share.tanh()
