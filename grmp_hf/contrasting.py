"""Features learnt from photographs without ratings, a low-level encoder and a high-level adapter (after GRepQ)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from grmp_hf.data import ImageError, Row
from grmp_hf.data.distortions import DISTORTIONS, Pixels
from grmp_hf.data.images import decode_image
from grmp_hf.data.listing import list_images
from grmp_hf.data.photographs import middle
from grmp_hf.data.versions import Similarity, by_gmsd
from grmp_hf.errors import GRMPError
from grmp_hf.families import make_families
from grmp_hf.learning import check_bare
from grmp_hf.modeling.low_level import LowLevelEncoder
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.scoring import Scorer
from grmp_hf.teaching import cropped_pictures, rated_pictures
from grmp_hf.training.high_level import HighLevelRecipe, learn_high_level
from grmp_hf.training.low_level import LowLevelRecipe, learn_low_level

__all__ = ["high_level", "low_level"]

Tell = Callable[[str, float], None]


def low_level(
    photographs: str | os.PathLike[str],
    work: str | os.PathLike[str],
    *,
    recipe: LowLevelRecipe | str | Path | None = None,
    similarity: Similarity = by_gmsd,
    kinds: Sequence[str] = tuple(DISTORTIONS),
    seed: int = 0,
    device: str = "cpu",
    tell: Tell | None = None,
) -> LowLevelEncoder:
    """Learn a low-level encoder from a folder of good photographs.

    Args:
        photographs: folder, with all below it.
        work: folder for families of pictures (``families``, which stays) and the state of an unfinished run, which the
            same call takes up again.
        recipe: what is learnt and how; a name in the package (``default``, ``paper``) or a file.
        similarity: of two versions, see :data:`~grmp_hf.data.versions.Similarity`.
        kinds: of distortion, at least as many as the recipe has versions.
        seed: of everything random; the result is a function of the arguments alone.
        device: to learn on.
        tell: told what is being done and which share of it is done.

    Returns:
        The encoder, for its ``save_pretrained``.

    Raises:
        GRMPError: no photograph, one that cannot be read, or a folder of another run.
    """
    wanted, place = LowLevelRecipe.named(recipe), Path(work)
    middles = _Middles([Path(path) for path in list_images([photographs]).paths], wanted.side)
    given: dict[str, Any] = {"versions": wanted.versions, "kinds": kinds, "similarity": similarity, "seed": seed}
    families = make_families(middles, place / "families", tell=tell or _silent, **given)
    return learn_low_level(families, recipe=wanted, seed=seed, output_dir=place, progress=tell, device=device)


def high_level(
    scorer: Scorer,
    photographs: str | os.PathLike[str],
    work: str | os.PathLike[str],
    *,
    recipe: HighLevelRecipe | str | Path | None = None,
    seed: int = 0,
    tell: Tell | None = None,
) -> Scorer:
    """Learn an adapter of the vision tower from a folder of photographs, whose best the base tells from the worst.

    Args:
        scorer: the base.
        photographs: folder, with all below it.
        work: folder for the state of an unfinished run, which the same call takes up again.
        recipe: what is learnt and how; a name in the package (``default``, ``paper``) or a file.
        seed: of everything random; the result is a function of the arguments alone.
        tell: told what is being done and which share of it is done.

    Returns:
        The scorer with the adapter, for its ``save``.

    Raises:
        GRMPError: fewer than four photographs, one that cannot be read, no base, or a folder of another run.
    """
    check_bare(scorer)
    wanted = HighLevelRecipe.named(recipe)
    nan = float("nan")
    rows = [Row(image=Path(path), name=path, mos=nan, quality=nan) for path in list_images([photographs]).paths]
    seen = scorer.without_tiles()
    crops = cropped_pictures(seen, rows, seed=seed, of="photographs")
    views = rated_pictures(seen, rows, of="photographs")
    model = cast(GRMPForImageQualityAssessment, scorer.model)
    given: dict[str, Any] = {"recipe": wanted, "seed": seed, "output_dir": work, "progress": tell}
    return dataclasses.replace(scorer, model=learn_high_level(model, crops, views=views, **given))


class _Middles(Sequence[Pixels]):
    """The middle of each photograph, read when it is asked for."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths, self.side = paths, side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        path = self.paths[index]
        try:
            return middle(decode_image(path), self.side)
        except ImageError as error:
            raise GRMPError(f"{path}: {error}; or remove it from the photographs") from error


def _silent(text: str, share: float) -> None:
    """Tell nobody."""
