"""Rated rows as training takes them: pictures to look at, and what says which of two is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grmp_hf.data import RatedTable, Row, decode_row
from grmp_hf.errors import GRMPError
from grmp_hf.scoring import Scorer
from grmp_hf.training.pairing import Compared
from grmp_hf.training.pictures import RatedPictures, random_crops
from grmp_hf.views import as_image_error

__all__ = ["compare_rows", "cropped_pictures", "rated_pictures"]


def rated_pictures(scorer: Scorer, rows: Sequence[Row], *, of: str = "ratings") -> RatedPictures:
    """The pictures that teach; one that cannot be read is an error when it is first looked at, before any training.

    Args:
        scorer: whose preprocessing it is.
        rows: the pictures.
        of: what they are given by, for the message: whoever removes one removes it there.
    """
    return _pictures(scorer, rows, scorer.views, of)


def cropped_pictures(scorer: Scorer, rows: Sequence[Row], *, seed: int = 0, of: str = "ratings") -> RatedPictures:
    """The same as one native crop each, anywhere in the picture that the scorer's first view is cut from.

    Args:
        scorer: whose preprocessing it is.
        rows: rated pictures.
        seed: of the crops, which are functions of (seed, epoch, index).
        of: as for :func:`rated_pictures`.
    """

    def look(row: Row) -> Tensor:
        return torch.from_numpy(np.array(scorer.processor.uncropped(decode_row(row)))).permute(2, 0, 1)

    return _pictures(scorer, rows, look, of, crop=random_crops(scorer.processor.size), seed=seed)


def _pictures(
    scorer: Scorer, rows: Sequence[Row], look: Callable[[Row], Tensor], of: str, **given: Any
) -> RatedPictures:
    def load(index: int) -> Tensor:
        try:
            return look(rows[index])
        except Exception as error:
            found = as_image_error(error)
            raise GRMPError(f"{rows[index].name}, drawn to learn from: {found}; or remove it from the {of}") from error

    quality = torch.tensor([row.quality for row in rows], dtype=torch.float32)
    return RatedPictures(load, quality, scorer.processor.image_mean, scorer.processor.image_std, **given)


def compare_rows(table: RatedTable, rows: Sequence[Row]) -> Compared:
    """What says which of two pictures that teach is better: choices, where the table was made of them, else ratings.

    Args:
        table: of rated pictures.
        rows: those of it that teach; pairs are taken within a data set (their column ``dataset``).

    Raises:
        GRMPError: choices, and none of them between two pictures that teach.
    """
    if table.choices:
        place = {row.name: at for at, row in enumerate(rows)}
        wins = torch.zeros(len(rows), len(rows))
        for first, second, share in table.choices:
            if first in place and second in place:
                wins[place[first], place[second]] += share
                wins[place[second], place[first]] += 1 - share
        return Compared(wins=wins)
    sets = [row.dataset or "" for row in rows]
    length = table.scale.high - table.scale.low
    stds = torch.tensor([float("nan") if row.mos_std is None else row.mos_std / length for row in rows])
    return Compared(sets, stds if bool(stds.isfinite().any()) else None)
