"""Tasks from photographs that are distorted on purpose: a type of distortion is a task, and its labels are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from grmp_hf.data.distortions import DISTORTIONS, LEVELS, Pixels, distort
from grmp_hf.data.gmsd import gmsd, gmsd_quality
from grmp_hf.errors import GRMPError

__all__ = [
    "LABELS",
    "Labeller",
    "SyntheticPicture",
    "distorted_crop",
    "level_quality",
    "random_crop",
    "synthetic_tasks",
]


class SyntheticPicture(NamedTuple):
    """What a distorted picture is made from.

    Attributes:
        photograph: its number among the photographs.
        kind: a name in `DISTORTIONS`.
        level: 0 (not distorted) to 5 (strong).
    """

    photograph: int
    kind: str
    level: int


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


Labeller: TypeAlias = Callable[[Pixels, Pixels, int], float]
"""(picture, what was made of it, level) -> quality in [0, 1]."""


def _by_level(original: Pixels, distorted: Pixels, level: int) -> float:
    return level_quality(level)


def _by_gmsd(original: Pixels, distorted: Pixels, level: int) -> float:
    return gmsd_quality(gmsd(original, distorted))


LABELS: Mapping[str, Labeller] = {"level": _by_level, "gmsd": _by_gmsd}
"""Where the label of a distorted picture may come from; docs/decisions.md says how they compare."""


def synthetic_tasks(photographs: int, kinds: Sequence[str] = tuple(DISTORTIONS)) -> dict[str, list[SyntheticPicture]]:
    """A task for each type of distortion: every photograph at the levels 0 to 5.

    Args:
        photographs: how many there are.
        kinds: names in `DISTORTIONS`.

    Raises:
        GRMPError: no photograph, or an unknown kind.

    Examples:
        >>> tasks = synthetic_tasks(2, ["jpeg"])
        >>> [(picture.photograph, picture.level) for picture in tasks["jpeg"]][:7]
        [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0)]
    """
    unknown = [kind for kind in kinds if kind not in DISTORTIONS]
    if photographs < 1 or unknown:
        raise GRMPError(
            f"expected at least one photograph and kinds out of {', '.join(DISTORTIONS)}, got {photographs} "
            f"photographs, kinds {', '.join(unknown) or 'that are all known'}; name what there is"
        )
    return {
        kind: [SyntheticPicture(photo, kind, level) for photo in range(photographs) for level in (0, *LEVELS)]
        for kind in kinds
    }


def random_crop(picture: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """A square of native pixels at a random place.

    Args:
        picture: (H, W, 3), sides of at least `size`.
        size: S.
        rng: decides about the place.

    Returns:
        (S, S, 3), a view of the picture.
    """
    top, left = (int(rng.integers(side - size + 1)) for side in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def distorted_crop(
    photograph: Pixels, kind: str, level: int, *, size: int, seed: int, label: Labeller
) -> tuple[Pixels, float]:
    """Crop a photograph, then distort the crop: what is learnt is what the model sees.

    Args:
        photograph: (H, W, 3) uint8, sides of at least `size`.
        kind: a name in `DISTORTIONS`.
        level: 0 (not distorted) to 5 (strong).
        size: S, of the crop.
        seed: of the crop's place and of the distortion.
        label: one of `LABELS`.

    Returns:
        (S, S, 3) uint8, and its quality in [0, 1].
    """
    crop = random_crop(photograph, size, np.random.default_rng(seed))
    distorted = distort(crop, kind, level, seed=seed) if level else crop
    return distorted, label(crop, distorted, level)
