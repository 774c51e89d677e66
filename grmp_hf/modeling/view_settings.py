"""Settings that decide how pictures become views, as a file may hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np

from grmp_hf.errors import GRMPError

__all__ = ["NAMES", "check_names", "check_numbers"]

NAMES = ("size", "views", "view_weights", "shortest_edge_limit", "image_mean", "image_std", "side_size")
"""What can be set."""

_OF_THE_LIBRARY = ("image_processor_type", "feature_extractor_type", "processor_class", "auto_map")

_FITTING: dict[str, Callable[[Any], bool]] = {
    "view_weights": lambda weights: all(weight >= 0 for weight in weights),
    "image_mean": lambda mean: len(mean) == 3,
    "image_std": lambda std: len(std) == 3 and min(std) > 0,
}


def check_names(others: Iterable[str]) -> None:
    """Check what settings hold beside :data:`NAMES`: a misspelt one would leave its default to decide about pixels.

    Raises:
        GRMPError: a name that neither this package nor transformers knows.
    """
    unknown = [name for name in others if name not in _OF_THE_LIBRARY and not name.startswith("_")]
    if unknown:
        raise GRMPError(
            f"Expected settings of the preprocessing out of {', '.join(NAMES)}, got {', '.join(map(repr, unknown))}. "
            "Correct it where they are kept: preprocessor_config.json, or record.json."
        )


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
