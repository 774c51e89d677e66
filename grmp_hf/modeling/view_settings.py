"""Numbers that decide how pictures become views, as a file may hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np

from grmp_hf.errors import GRMPError

__all__ = ["check_numbers"]

_FITTING: dict[str, Callable[[Any], bool]] = {
    "view_weights": lambda weights: all(weight >= 0 for weight in weights),
    "image_mean": lambda mean: len(mean) == 3,
    "image_std": lambda std: len(std) == 3 and min(std) > 0,
}


def check_numbers(**given: Any) -> None:
    """Check settings of :class:`~grmp_hf.modeling.image_processing_grmp.GRMPImageProcessor` by their names.

    Raises:
        GRMPError: a list that does not hold fitting numbers, or a size that is no whole number above 0.
    """
    for name, value in given.items():
        if name in _FITTING:
            real = isinstance(value, Iterable) and all(isinstance(v, Real) and math.isfinite(v) for v in value)
            fits = real and _FITTING[name](value)
        else:
            fits = isinstance(value, int | np.integer) and bool(value > 0)
        if not fits:
            raise GRMPError(
                f"Expected numbers that can be {name}, got {value!r}. Correct it in the settings of the preprocessing."
            )
