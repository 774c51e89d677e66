"""The checks that functions of arrays make first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from grmp_hf.errors import GRMPError

__all__ = ["FloatArray", "check_rgb", "finite_array", "is_constant", "paired_arrays"]

FloatArray = npt.NDArray[np.float64]


def finite_array(values: npt.ArrayLike, name: str, dimensions: int = 1) -> FloatArray:
    """`values` as float64 with the given number of dimensions and nothing but finite numbers.

    Raises:
        GRMPError: another shape, text, NaN or infinity; the message says where.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GRMPError(f"{name}: expected numbers, got {values!r:.80}; {error}") from error
    if array.ndim != dimensions:
        raise GRMPError(f"{name}: expected {dimensions} dimension(s), got the shape {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = ", ".join(map(str, bad[0]))
        raise GRMPError(
            f"{name}: expected finite numbers, got {array[tuple(bad[0])]} at position {place} ({len(bad)} in all); "
            "leave those pictures out of both arrays"
        )
    return array


def check_rgb(rgb: Any) -> None:
    """Raise unless something is a picture of at least one pixel, `(H, W, 3)` uint8.

    Raises:
        GRMPError: another type, shape or dtype.
    """
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        found = f"{getattr(rgb, 'dtype', type(rgb).__name__)} of shape {getattr(rgb, 'shape', ())}"
        raise GRMPError(f"Expected a uint8 array of shape (height, width, 3), got {found}; decode to 8-bit RGB first")


def is_constant(values: FloatArray) -> bool:
    """Say whether all values are equal but for rounding: a spread below 1e-13 of the values themselves."""
    return bool(np.ptp(values) <= 1e-13 * np.abs(values).max())


def paired_arrays(scores: npt.ArrayLike, mos: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Scores and ratings of the same pictures as two float64 arrays of one length, at least two.

    Raises:
        GRMPError: different lengths, fewer than two pictures, or anything that `finite_array` refuses.
    """
    x, y = finite_array(scores, "scores"), finite_array(mos, "mos")
    if len(x) != len(y):
        raise GRMPError(f"Expected one rating a score, got {len(x)} scores and {len(y)} ratings; align them first")
    if len(x) < 2:
        raise GRMPError(f"Expected at least two rated pictures, got {len(x)}; a correlation needs more")
    return x, y
