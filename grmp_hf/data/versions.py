"""A photograph and what is made of it: versions under several distortions, and how similar they are to one another.

Letters in shapes: N versions, the photograph itself the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.distortions import DISTORTIONS, LEVELS, Pixels, distort
from grmp_hf.data.gmsd import gmsd, gmsd_quality
from grmp_hf.errors import GRMPError

__all__ = ["Similarity", "by_gmsd", "draw_versions", "make_versions", "similarities"]

Similarity = Callable[[Pixels, Pixels], float]
"""Two pictures of one shape -> how similar they are, from 0 to 1 for equal ones; their order does not matter."""


def by_gmsd(first: Pixels, second: Pixels) -> float:
    """The quality that their gradient magnitude similarity deviation stands for.

    It does not see a change of colour at constant luminance.
    """
    return gmsd_quality(gmsd(first, second))


def draw_versions(count: int, rng: np.random.Generator, kinds: Sequence[str] = tuple(DISTORTIONS)) -> list[str]:
    """Names of distortions, as many as there are versions beside the photograph, each once.

    Raises:
        GRMPError: fewer kinds than that.
    """
    if not 1 <= count <= len(kinds):
        raise GRMPError(f"Expected 1 to {len(kinds)} versions, one for each kind of distortion, got {count}")
    return [kinds[at] for at in rng.permutation(len(kinds))[:count]]


def make_versions(
    photograph: Pixels, count: int, *, seed: int, kinds: Sequence[str] = tuple(DISTORTIONS)
) -> tuple[Pixels, list[tuple[str, int]]]:
    """A photograph and distorted versions of it, each of another kind, at a level drawn at random.

    Args:
        photograph: (H, W, 3) uint8, sides of at least 16 pixels.
        count: versions beside the photograph.
        seed: decides about kinds, levels and what is random in a distortion.
        kinds: names in `grmp_hf.data.distortions.DISTORTIONS`.

    Returns:
        (1 + count, H, W, 3) uint8, and (kind, level) of each but the first.

    Raises:
        GRMPError: an unknown kind, fewer kinds than versions, or no such picture.
    """
    rng = np.random.default_rng(seed)
    made = [(kind, int(rng.choice(LEVELS))) for kind in draw_versions(count, rng, kinds)]
    return np.stack([photograph, *(distort(photograph, kind, level, seed=seed) for kind, level in made)]), made


def similarities(pictures: Pixels, similarity: Similarity = by_gmsd) -> NDArray[np.float32]:
    """How similar pictures (N, H, W, 3) are to one another: (N, N), symmetric, 1 on the diagonal.

    Each pair is compared once.

    Raises:
        GRMPError: a similarity outside [0, 1].
    """
    found = np.eye(len(pictures), dtype=np.float32)
    for at, first in enumerate(pictures):
        for beyond, second in enumerate(pictures[at + 1 :], at + 1):
            value = float(similarity(first, second))
            if not 0 <= value <= 1:  # false of NaN too
                raise GRMPError(
                    f"Expected a similarity from 0 to 1 for equal pictures, got {value}; scale it, or take 1 / (1 + x) "
                    "of a distance x"
                )
            found[at, beyond] = found[beyond, at] = value
    return found
