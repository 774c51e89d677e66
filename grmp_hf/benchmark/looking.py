"""Views of pictures for methods that look at them, kept for the next draw that scores the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from grmp_hf.features import BATCH, Pictures
from grmp_hf.scoring import Scorer
from grmp_hf.views import all_views

__all__ = ["Looking"]

_KEPT = 2**29  # bytes of views that one method may keep


class Looking:
    """Shows pictures as a scorer sees them; what was looked at last is kept where it takes at most half a GiB.

    Args:
        seen: whose views they are.
    """

    def __init__(self, seen: Scorer) -> None:
        self.seen = seen
        self._kept: dict[tuple[tuple[str | None, str], ...], list[Tensor]] = {}

    def __call__(self, pictures: Pictures) -> Iterable[Tensor]:
        """Views before normalisation, uint8 ``(B, V, 3, S, S)``, a batch at a time, in order.

        Raises:
            ImageError: of the first picture that cannot be used.
        """
        key = tuple((row.dataset, row.name) for row in pictures.rows)
        if key in self._kept:
            return self._kept[key]
        views = all_views(pictures.rows, self.seen.views, batch_size=BATCH)
        processor = self.seen.processor
        if math.prod((len(key), processor.count, 3, processor.size, processor.size)) > _KEPT:
            return views
        self._kept = {key: list(views)}
        return self._kept[key]
