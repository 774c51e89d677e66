"""What the tests of training share: how far rounding may lead."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def rounding() -> Callable[..., float]:
    """`rounding(weights, steps)`: what weights may differ by after steps whose sums were taken in another order.

    A step rounds some numbers of the size of the largest weight, each by half an `eps` of it at most. Margin: twenty
    of them a step, all in one direction.
    """

    def bound(weights: Mapping[str, Tensor], steps: int) -> float:
        largest = max(weight.abs().max().item() for weight in weights.values() if weight.numel())
        return 10 * steps * torch.finfo(next(iter(weights.values())).dtype).eps * largest

    return bound
