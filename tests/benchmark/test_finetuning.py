from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from grmp_hf.benchmark.finetuning import FullFineTuning
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import BATCH, Pictures, first_views
from grmp_hf.scoring import Scorer
from grmp_hf.views import all_views

Described = tuple[Pictures, np.ndarray]


def tower(base: Scorer) -> dict[str, Any]:
    model: Any = base.model
    return {f"vision_model.{name}": weight.numpy() for name, weight in model.clip.vision_model.state_dict().items()}


def test_it_starts_from_the_base_and_moves_everything(base: Scorer, described: Described) -> None:
    learnt = FullFineTuning("full", base, epochs=2).fit(*described, seed=0).learnt()
    start = tower(base)
    assert learnt.keys() == {*start, "classifier.weight", "classifier.bias", "quality"}
    unused = "post_layernorm"  # transformers' head reads the tokens before it
    moved = [name for name in start if name not in ("vision_model.embeddings.position_ids",) and unused not in name]
    for name in moved:
        difference = np.abs(learnt[name] - start[name])
        assert 0 < difference.max() < 0.01 or "k_proj.bias" in name, name


def test_it_learns_the_shots(base: Scorer, described: Described) -> None:
    pictures, quality = described
    fitted = FullFineTuning("full", base, epochs=25, learning_rate=2e-3).fit(pictures, quality, seed=0)
    assert srcc(fitted.predict(pictures), quality) > 0.8
    assert fitted.predict(pictures).mean() == pytest.approx(quality.mean(), abs=0.15)


def test_the_first_views_are_seen_and_predictions_are_their_mean(base: Scorer, described: Described) -> None:
    pictures, quality = described
    method = FullFineTuning("full", base, epochs=1, views=2)
    fitted = method.fit(pictures, quality, seed=0)
    seen = first_views(base, 2)
    assert seen.processor.views == base.processor.views[:2]
    assert seen.processor.view_weights == pytest.approx([0.5 / 0.8, 0.3 / 0.8])
    assert next(all_views(pictures.rows, seen.views, batch_size=BATCH)).shape[1] == 2
    one = FullFineTuning("full", base, epochs=1, views=1).fit(pictures, quality, seed=0)
    assert not np.allclose(one.predict(pictures), fitted.predict(pictures))


def test_bfloat16_changes_the_training_but_not_what_is_kept(base: Scorer, described: Described) -> None:
    pictures, quality = described
    plain = FullFineTuning("full", base, epochs=2).fit(pictures, quality, seed=0)
    short = FullFineTuning("full", base, epochs=2, bf16=True).fit(pictures, quality, seed=0)
    assert {value.dtype for value in short.learnt().values()} <= {np.dtype(t) for t in ("f4", "f8")}
    difference = np.abs(plain.predict(pictures) - short.predict(pictures))
    assert 0 < difference.max() < 0.05
    assert torch.get_default_dtype() == torch.float32


def test_ratings_that_are_all_alike_are_refused(base: Scorer, described: Described) -> None:
    with pytest.raises(GRMPError, match="36 that are all alike"):
        FullFineTuning("full", base).fit(described[0], np.full(36, 0.5), seed=0)
