"""Strengths from the shots: the closed form against plain least squares, sampling and its limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr, t

from grmp_hf.errors import GRMPError
from grmp_hf.training.evidence import Belief, Prior, Standard, believe, standardise, standards_of

Floats = np.ndarray


def world(
    n: int, agree: float, free: float, seed: int = 0, noise: float = 0.5
) -> tuple[dict[str, Floats], Floats, Floats]:
    """Pictures of two groups of features, and ratings that follow the base and the first group."""
    rng = np.random.default_rng(seed)
    groups = {"embeds": rng.normal(size=(n, 40)), "deep": rng.normal(size=(n, 90))}
    base = rng.normal(size=n)
    weights = rng.normal(size=40) / np.sqrt(40)
    ratings = agree * base + free * groups["embeds"] @ weights + noise * rng.normal(size=n)
    return groups, base, 3 + 2 * ratings


def part(groups: dict[str, Floats], rows: slice) -> dict[str, Floats]:
    return {name: x[rows] for name, x in groups.items()}


def by_hand(belief: Belief, groups: dict[str, Floats], base: Floats, ratings: Floats, prior: Prior) -> Floats:
    """Predictions of the shots themselves from the penalised least squares that the strengths describe."""
    unit, slope = ratings.std(), belief.slope
    y = (ratings - ratings.mean()) / unit
    x = np.column_stack([*groups.values(), base, np.ones(len(y))])
    sizes = [g.shape[1] for g in groups.values()]
    variances = [*np.repeat([belief.strengths[name] / d for name, d in zip(groups, sizes, strict=True)], sizes)]
    penalty = np.diag(1 / np.maximum([*variances, prior.freedom, 1e12], 1e-12))
    found = np.linalg.solve(x.T @ x + penalty, x.T @ (y - slope * base))
    return ratings.mean() + unit * (slope * base + x @ found)


def test_predictions_are_those_of_penalised_least_squares() -> None:
    groups, base, ratings = world(30, 0.8, 0.6)
    belief = believe(groups, base, ratings)
    np.testing.assert_allclose(
        belief.predict(groups, base), by_hand(belief, groups, base, ratings, Prior()), rtol=1e-6, atol=1e-6
    )


def test_residuals_are_those_of_leaving_each_shot_out(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, base, ratings = world(14, 0.8, 0.6)
    ratings = (ratings - ratings.mean()) / ratings.std()
    belief = believe(groups, base, ratings)
    from grmp_hf.training import evidence

    strengths = np.array(list(belief.strengths.values()))
    for out in (0, 5, 13):
        keep = np.arange(14) != out
        slope = belief.slope / ratings[keep].std()  # in the unit of the others
        monkeypatch.setattr(evidence, "weigh", lambda *_, slope=slope: (strengths, slope))
        rest = believe({name: x[keep] for name, x in groups.items()}, base[keep], ratings[keep])
        predicted = rest.predict({name: x[[out]] for name, x in groups.items()}, base[[out]])
        assert ratings[out] - predicted[0] == pytest.approx(belief.residuals[out], abs=1e-9)


def test_ratings_that_follow_the_base_hold_to_it_and_others_do_not() -> None:
    agreeing, differing = believe(*world(40, 1.0, 0.0)), believe(*world(40, 0.0, 1.5))
    assert agreeing.slope > 0.6 and sum(agreeing.strengths.values()) < 0.5
    assert differing.slope < agreeing.slope and differing.strengths["embeds"] > 2 * agreeing.strengths["embeds"]


@pytest.mark.parametrize("turned", [1.0, -1.0, 0.0], ids=["anticorrelated", "correlated", "useless"])
def test_it_works_whatever_the_base_says(turned: float) -> None:
    groups, base, ratings = world(360, 0.0, 2.0)
    base = -turned * ratings + 0.5 * base
    base = (base - base.mean()) / base.std()
    shots, tests = slice(0, 160), slice(160, None)
    belief = believe(part(groups, shots), base[shots], ratings[shots])
    found = belief.predict(part(groups, tests), base[tests])
    assert spearmanr(found, ratings[tests])[0] > (0.6 if turned else 0.5)


def test_a_constant_base_and_a_constant_group_say_nothing() -> None:
    groups, _, ratings = world(30, 0.0, 1.0)
    nothing = Standard.of(np.full((30, 1), 0.3))(np.full((30, 1), 0.3))[:, 0]
    assert not nothing.any()
    belief = believe({**groups, "flat": np.zeros((30, 5))}, nothing, ratings)
    assert np.isfinite(belief.predict({**groups, "flat": np.zeros((30, 5))}, nothing)).all()


def test_intervals_hold_what_they_say_and_shrink_with_ratings() -> None:
    groups, base, ratings = world(900, 0.8, 1.0, seed=3)
    tests, widths = slice(400, None), []
    for n in (20, 50, 200):
        belief = believe(part(groups, slice(0, n)), base[:n], ratings[:n])
        spread = belief.spread(part(groups, tests), base[tests])
        inside = np.abs(ratings[tests] - belief.predict(part(groups, tests), base[tests]))
        covered = (inside <= t.ppf(0.95, belief.degrees) * spread).mean()
        assert 0.8 < covered <= 0.98
        widths.append(spread.mean())
    assert widths[0] > widths[1] > widths[2]


def test_a_lower_rank_widens_intervals_and_nothing_else() -> None:
    groups, base, ratings = world(60, 0.8, 1.0)
    whole, low = believe(groups, base, ratings, rank=60), believe(groups, base, ratings, rank=5)
    np.testing.assert_array_equal(whole.predict(groups, base), low.predict(groups, base))
    assert (low.spread(groups, base) >= whole.spread(groups, base) - 1e-12).all() and low.factor.shape == (5, 131)


def test_ratings_of_more_noise_count_less() -> None:
    groups, base, ratings = world(40, 0.8, 0.8)
    spoiled = ratings.copy()
    spoiled[:5] += 20
    noise = np.where(np.arange(40) < 5, 1e4, 1.0)
    trusting, warned = believe(groups, base, spoiled), believe(groups, base, spoiled, noise=noise)
    honest = believe(part(groups, slice(5, None)), base[5:], ratings[5:])
    far = [np.abs(b.predict(groups, base) - honest.predict(groups, base)).mean() for b in (trusting, warned)]
    assert far[1] < far[0] / 3


def test_the_unit_of_the_ratings_changes_nothing() -> None:
    groups, base, ratings = world(25, 0.8, 0.8)
    first, second = believe(groups, base, ratings), believe(groups, base, 10 * ratings - 4)
    assert first.strengths == pytest.approx(second.strengths)
    np.testing.assert_allclose(10 * first.predict(groups, base) - 4, second.predict(groups, base))
    np.testing.assert_allclose(10 * first.spread(groups, base), second.spread(groups, base))


def test_many_groups_and_many_shots_take_a_coarser_look() -> None:
    rng = np.random.default_rng(0)
    groups = {f"g{at}": rng.normal(size=(400, 6)) for at in range(7)}
    belief = believe(groups, rng.normal(size=400), rng.normal(size=400))
    assert len(belief.strengths) == 7 and max(belief.strengths.values()) < 1


def test_modesty_holds_few_shots_back_and_gives_way_to_many() -> None:
    def shrunk(shots: int) -> float:
        data = world(shots, 0.0, 1.5)
        free, modest = (believe(*data, prior=Prior(modesty=modesty)) for modesty in (0.0, 2.0))
        return modest.strengths["embeds"] / free.strengths["embeds"]

    assert shrunk(12) < 0.8 and shrunk(12) < shrunk(200) <= 1


def test_a_handful_of_shots_changes_little() -> None:
    groups, base, ratings = world(5, 1.0, 1.0)
    belief = believe(groups, base, ratings)
    bold = believe(groups, base, ratings, prior=dataclasses.replace(Prior(), caution=0.0))
    assert sum(belief.strengths.values()) < 0.1 < sum(bold.strengths.values())
    assert belief.slope > bold.slope


def test_standardised_features_are_held() -> None:
    assert standardise(np.array([[100.0, -9.0, 1.0]]), np.zeros(3), np.ones(3)).tolist() == [[5.0, -5.0, 1.0]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda g, b, r: (g, b[:5], r), "got others for base"),
        (lambda g, b, r: ({**g, "deep": g["deep"][:3]}, b, r), "got others for deep"),
        (lambda g, b, r: (g, b, np.full(10, 2.0)), "got 10 that are all alike"),
        (lambda g, b, r: (g, b, np.where(np.arange(10) == 3, np.nan, r)), "Look for NaN"),
        (lambda g, b, r: (part(g, slice(0, 1)), b[:1], r[:1]), "two are needed"),
    ],
)
def test_what_does_not_fit_is_refused(spoil: object, message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        believe(*spoil(*world(10, 1.0, 1.0)))  # type: ignore[operator]


def test_a_known_standard_counts_as_much_as_twenty_shots() -> None:
    own, known = Standard(np.array([1.0, 2.0, 3.0]), np.array([4.0, 1.0, np.inf])), Standard(np.zeros(3), np.ones(3))
    between = own.believed(known, 20)
    assert between.mean.tolist() == [1, 2, 3] and between.spread[:2] == pytest.approx([2, 1])
    assert own.believed(known, 2000).spread[0] == pytest.approx(4, rel=0.02) and np.isfinite(between.spread).all()


def photographs(count: int, shift: float, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, Standard]]:
    """Features of shots whose mean lies somewhere else than that of photographs, and what is known of these."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.1, 10, size=300)
    known = {"deep": Standard(np.full(300, 3.0), spread), "mid": Standard(np.zeros(40), np.ones(40))}
    values = {name: k.mean + k.spread * (shift + rng.normal(size=(count, len(k.mean)))) for name, k in known.items()}
    return {**values, "embeds": rng.normal(size=(count, 8))}, known


@pytest.mark.parametrize("count", [2, 5, 20, 200])
def test_few_photographs_are_no_further_from_photographs_than_many(count: int) -> None:
    found = [standards_of(*photographs(count, 0.0, seed))[1] for seed in range(20)]
    assert np.mean(found) < 0.05
    assert standards_of(*photographs(count, 0.1))[1] < 0.1
    assert standards_of(*photographs(count, 1.3))[1] > 0.9


def test_a_feature_that_photographs_do_not_have_counts_as_one_feature() -> None:
    features, known = photographs(20, 0.0)
    known["deep"].spread[0] = 1e-9
    assert standards_of(features, known)[1] < 0.05


def test_far_from_photographs_their_spreads_and_the_base_count_less() -> None:
    features, known = photographs(20, 2.0)
    features["deep"] *= 4
    near, far = Standard.of(features["deep"]).believed(known["deep"], 20), standards_of(features, known)[0]["deep"]
    own = np.log(features["deep"].std(0))
    assert np.abs(np.log(far.spread) - own).max() < 0.2 * np.abs(np.log(near.spread) - own).max()
    assert standards_of({"embeds": features["embeds"]}, {})[1] == 0
    prior, here, there = Prior(), Prior().at(0), Prior().at(1)
    assert here == prior and there.agreement == 0 and there.modesty == prior.modesty_elsewhere
    groups, base, ratings = world(10, 0.0, 1.0)
    yields = [sum(believe(groups, base, ratings, prior=p).strengths.values()) for p in (here, Prior().at(0.5), there)]
    assert yields[0] < yields[1] < yields[2]
