"""How good a taste is that was learnt: on the pictures that did not teach it, beside what needs no learning of ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from grmp_hf.data import RatedTable, Row
from grmp_hf.data.images import ImageError
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import RidgeModel, fit_ridge
from grmp_hf.evaluation.metrics import caveats, evaluate_scores
from grmp_hf.modeling.adapters import changes_embedding, teacher_mode
from grmp_hf.modeling.known_heads import describe
from grmp_hf.scoring import Scorer, Scores, joined
from grmp_hf.views import all_views, iter_warned

__all__ = ["Tested", "score_tests"]

_METHODS = ("score", "zero_shot", "ridge")


@dataclass(frozen=True)
class Tested:
    """Scores of the pictures that test, by the adapter, its base alone, and ridge regression on the base's embedding.

    Attributes:
        rows: for every picture ``path, score, quality, status, message, warning``, see
            :class:`~grmp_hf.scoring.ScoredPicture`, and ``rating, zero_shot, ridge``, in the unit of the ratings.
        score, zero_shot, ridge, rating: ``(n,)`` of those that could be read, in the order of the table.
    """

    rows: list[dict[str, Any]]
    score: NDArray[np.float64]
    zero_shot: NDArray[np.float64]
    ridge: NDArray[np.float64]
    rating: NDArray[np.float64]

    @property
    def notes(self) -> list[str]:
        """A sentence for each picture that could not be read."""
        return [row["message"] for row in self.rows if row["status"] != "ok"]

    def figures(self) -> dict[str, Any]:
        """Metrics with their intervals, see `evaluate_scores`; ``srcc`` is None with fewer than two pictures."""
        found: dict[str, dict[str, Any]] = {name: {"srcc": None, "srcc_interval": None} for name in _METHODS}
        if len(self.rating) >= 2:
            found = {name: dict(evaluate_scores(getattr(self, name), self.rating)) for name in _METHODS}
        return {
            "n_test": len(self.rating),
            "failed": len(self.notes),
            **{name: value for name, value in found["score"].items() if name != "n"},
            "caveats": caveats(self.score, self.rating) if len(self.rating) >= 2 else [],
            "baselines": {"zero_shot": found["zero_shot"], "ridge": found["ridge"]},
        }


def score_tests(
    scorer: Scorer, table: RatedTable, *, batch_size: int = 16, advance: Callable[[int], None] | None = None
) -> Tested:
    """Score the pictures of a table that test a scorer.

    Args:
        scorer: with an adapter that :func:`grmp_hf.adapt` has made.
        table: that it has learnt from; its ratings of test pictures choose nothing.
        batch_size: pictures at once.
        advance: told how many more are done.

    Raises:
        GRMPError: a scorer of which it is not known what has taught it, or a picture that taught and cannot be read.
    """
    if scorer.taught is None:
        raise GRMPError(
            "Expected a scorer that grmp_hf.adapt has made, got one that does not say what has taught it. Give "
            "what adapt returns, or load the folder that was adapted, with its split.json, which is never pushed."
        )
    taught, tests = scorer.taught.select(table)
    ridge = _fit_ridge(scorer, taught, batch_size)
    rows: list[dict[str, Any]] = []
    values = [np.empty((0, 3))]
    for chunk in iter_warned(tests, scorer.views, batch_size=batch_size):
        good = [found for _, found, _ in chunk if isinstance(found, Tensor)]
        if good:
            adapted, base = _look(scorer, torch.stack(good))
            judged, by_ridge = scorer.scores(adapted), ridge.predict(base.image_embeds.double().cpu().numpy())
            others = scorer.unit.to_score(np.stack([base.quality.double().cpu().numpy(), by_ridge], axis=1))
            values.append(np.column_stack([judged.score, others]))
        place = itertools.count()
        for row, found, warning in chunk:
            if isinstance(found, ImageError):
                rows.append(_row(scorer, row, found, (None, None), ""))
            else:
                at = next(place)
                rows.append(_row(scorer, row, judged.of(at), others[at].round(scorer.unit.places).tolist(), warning))
        if advance is not None:
            advance(len(chunk))
    rating = np.array([row["rating"] for row in rows if row["status"] == "ok"])
    score, zero_shot, by_ridge = np.concatenate(values).T
    return Tested(rows, score, zero_shot, by_ridge, rating)


def _fit_ridge(scorer: Scorer, taught: Sequence[Row], batch_size: int) -> RidgeModel:
    """Ridge regression on the base's embedding of the pictures that taught."""
    parts = all_views(taught, scorer.views, batch_size=batch_size)
    embeds = [_base_outputs(scorer, views).image_embeds.cpu() for views in parts]
    return fit_ridge(torch.cat(embeds).numpy(), [row.quality for row in taught])


def _base_outputs(scorer: Scorer, pixels: Tensor) -> Any:
    """What the base says of views, as if there were no adapter."""
    found = []
    with torch.inference_mode():
        for part in scorer.passes(pixels):
            with teacher_mode(scorer.model):
                found.append(scorer.model(pixel_values=part))
    return joined(found)


def _look(scorer: Scorer, pixels: Tensor) -> tuple[Any, Any]:
    """Outputs for views: with the adapter, and of the base as if there were none; one pass where it is the same."""
    base: Any = cast(PeftModel, scorer.model).get_base_model()
    if changes_embedding(base) or describe(base.head)["name"] != "AnchorHead":
        return scorer.outputs(pixels), _base_outputs(scorer, pixels)
    adapted, plain = [], []
    with torch.inference_mode():
        for part in scorer.passes(pixels):
            features = base.get_features(part, side=base.readout.needs_side)
            adapted.append(scorer.model(image_embeds=features.embeds, side=features.side))
            with teacher_mode(scorer.model):
                plain.append(base(image_embeds=features.embeds))
    return joined(adapted), joined(plain)


def _row(
    scorer: Scorer, row: Row, found: Scores | ImageError, others: Sequence[float | None], warning: str
) -> dict[str, Any]:
    scored = scorer.row(row.name, found)
    warning = warning if scored.status == "ok" else ""
    return {**scored._asdict(), "warning": warning, "rating": row.mos, "zero_shot": others[0], "ridge": others[1]}
