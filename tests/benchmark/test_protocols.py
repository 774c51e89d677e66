from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grmp_hf.benchmark.finetuning import FullFineTuning
from grmp_hf.benchmark.methods import GRMP, Method, ZeroShot
from grmp_hf.benchmark.protocols import TestSelection, run_clean, run_paper
from grmp_hf.benchmark.watching import Fitted, Observer
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import plcc, srcc
from grmp_hf.features import Pictures
from grmp_hf.scoring import Scorer
from grmp_hf.training.few_shot import FewShotRecipe

Described = tuple[Pictures, np.ndarray]


def scripted(quality: np.ndarray, agreement: float) -> Fitted:
    """A model that agrees with the ratings more or less."""
    noise = np.random.default_rng(0).normal(size=len(quality))
    scores = agreement * quality + (1 - agreement) * noise
    return Fitted(lambda pictures: scores, lambda: {"agreement": np.array([agreement])})


def test_the_best_epoch_is_kept_the_untrained_one_too(described: Described) -> None:
    pictures, quality = described
    for agreements, best in (((0.9, 0.5, 0.8), 0), ((0.1, 0.6, 0.95), 10), ((0.1, 0.7, 0.6), 5)):
        selection = TestSelection(pictures, quality)
        for number, agreement in enumerate(agreements):
            assert selection(5 * number, scripted(quality, agreement), 1e-3) == 1.0
            assert selection(5 * number + 1, scripted(quality, 1.0), 1e-3) == 1.0  # not looked at
        assert selection.epoch == best
        assert selection.learnt["agreement"] == max(agreements)
        expected = srcc(selection.scores, quality) + plcc(selection.scores, quality)
        assert selection.best == pytest.approx(expected)


def test_the_rate_falls_at_the_sixth_test_without_progress_and_training_ends(described: Described) -> None:
    pictures, quality = described
    selection, rate, epoch, factors = TestSelection(pictures, quality), 1e-3, 0, []
    while not factors or factors[-1]:
        factors.append(selection(epoch, scripted(quality, 0.5), rate))
        rate, epoch = rate * factors[-1], epoch + 5
    assert epoch - 5 == 210, "seven decays, six tests of five epochs each"
    assert [number for number, factor in enumerate(factors) if factor == 0.3] == [6, 12, 18, 24, 30, 36]


class Steps:
    """Records what an observer is shown."""

    def __init__(self, factors: dict[int, float]) -> None:
        self.factors, self.seen = factors, list[tuple[int, float]]()

    def __call__(self, epoch: int, fitted: Fitted, rate: float) -> float:
        self.seen.append((epoch, rate))
        return self.factors.get(epoch, 1.0)


METHODS: dict[str, Callable[[Scorer], Method]] = {
    "grmp": lambda base: GRMP("grmp", base, FewShotRecipe(steps=6, schedule="constant", learning_rate=0.02)),
    "batches": lambda base: GRMP("b", base, FewShotRecipe(steps=12, schedule="constant", batch_size=18)),
    "full": lambda base: FullFineTuning("full", base, epochs=6, batch_size=18, warmup=0.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_an_observer_sees_each_epoch_and_rules_the_rate(name: str, base: Scorer, described: Described) -> None:
    observer = Steps({2: 0.5, 4: 0.0})
    METHODS[name](base).fit(*described, seed=0, observer=observer)
    assert [epoch for epoch, _ in observer.seen] == [0, 1, 2, 3, 4], "and none after the factor 0"
    rates = [rate for _, rate in observer.seen]
    schedule = [1.0] * 5 if name != "full" else [1 - epoch / 6 for epoch in range(5)]
    expected = [rates[0] * share * (0.5 if epoch > 2 else 1) for epoch, share in enumerate(schedule)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("name", METHODS)
def test_being_watched_changes_nothing(name: str, base: Scorer, described: Described) -> None:
    pictures, quality = described

    def look(epoch: int, fitted: Fitted, rate: float) -> float:
        fitted.predict(pictures)
        return 1.0

    method = METHODS[name](base)
    alone, watched = (method.fit(pictures, quality, seed=0, observer=o).predict(pictures) for o in (None, look))
    np.testing.assert_array_equal(alone, watched)


class Recorder:
    """A method that keeps what it is given."""

    name, needs_shots, trains_by_steps = "recorder", True, False

    def __init__(self) -> None:
        self.given: list[Any] = []

    def settings(self) -> dict[str, Any]:
        return {}

    def fit(self, shots: Pictures, quality: np.ndarray, *, seed: int, observer: Observer | None = None) -> Fitted:
        self.given.append((shots, quality, seed, observer))
        return Fitted(lambda pictures: pictures["zero_shot"], dict)


def test_clean_gives_quality_as_it_is_and_paper_scales_it_among_the_shots(described: Described) -> None:
    pictures, quality = described
    method, some = Recorder(), 0.2 + 0.5 * quality
    run_clean(method, pictures, some, [pictures], seed=4)
    run_paper(method, pictures, some, pictures, quality, seed=4)
    (_, clean, seed, observer), (_, paper, *_) = method.given
    np.testing.assert_array_equal(clean, some)
    assert seed == 4 and observer is None
    assert (paper.min(), paper.max()) == (0.0, 1.0)
    np.testing.assert_allclose(paper, (some - some.min()) / np.ptp(some))


def test_paper_reports_the_selected_epoch_and_keeps_the_last_one(base: Scorer, described: Described) -> None:
    pictures, quality = described
    method = GRMP("grmp", base, FewShotRecipe(steps=7, schedule="constant"))
    trained = run_clean(method, pictures, quality, [pictures], seed=0).scores[0]
    wanted = -trained  # ratings with which training agrees less and less
    outcome = run_paper(method, pictures, quality, pictures, wanted, seed=0)
    assert outcome.selection.startswith("on the test part") and outcome.epochs == (0, 7)
    np.testing.assert_array_equal(outcome.last, trained)  # the shots span [0, 1], so nothing was scaled
    assert srcc(outcome.scores[0], wanted) > srcc(trained, wanted)
    alone = run_paper(ZeroShot(), pictures, quality, pictures, quality, seed=0)
    assert alone.selection == "none: no epochs to choose from" and alone.last is alone.epochs is None


def test_shots_that_are_all_alike_are_refused(base: Scorer, described: Described) -> None:
    with pytest.raises(GRMPError, match="shots with different ratings, got 36"):
        run_paper(Recorder(), described[0], np.full(36, 0.5), *described, seed=0)
