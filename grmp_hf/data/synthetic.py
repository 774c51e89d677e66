"""Labels of pictures that were distorted on purpose."""

from __future__ import annotations

from grmp_hf.data.distortions import LEVELS
from grmp_hf.errors import GRMPError

__all__ = ["level_quality"]


def level_quality(level: int) -> float:
    """Quality of a level of distortion: quality = 1 - level / 6, the same for every kind.

    Nothing in it is fitted. For comparison: the mean of KADID-10k's published ratings over its 25 types is 0.77, 0.63,
    0.52, 0.38 and 0.25 at levels 1 to 5; single types are far from it.

    Args:
        level: 0 (not distorted) or a level of `grmp_hf.data.distortions.distort`, 1 (mild) to 5 (strong).

    Returns:
        quality in (0, 1], 1 = best.

    Raises:
        GRMPError: another level.

    Examples:
        >>> [round(level_quality(level), 2) for level in (0, 1, 2, 3, 4, 5)]
        [1.0, 0.83, 0.67, 0.5, 0.33, 0.17]
    """
    if level not in (0, *LEVELS):
        raise GRMPError(f"expected a level of 0 (not distorted) to 5 (strong), got {level!r}; choose one of these")
    return 1 - level / (LEVELS[-1] + 1)
