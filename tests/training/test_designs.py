"""Designs: the greedy choice against the plain formulas, and its limits."""

from __future__ import annotations

import numpy as np
import pytest

from grmp_hf.training.designs import STRENGTHS, Covariance, choose, features_after, features_alone
from grmp_hf.training.evidence import believe

Floats = np.ndarray


def full(covariance: Covariance) -> Floats:
    found: Floats = covariance.columns @ np.diag(covariance.signs) @ covariance.columns.T
    return found


def by_hand(known: Floats, count: int, allowed: list[int], rated: list[int]) -> list[int]:
    """The same choice, with the whole covariance of each step."""
    known, chosen, left = known.copy(), [], list(allowed)
    for _ in range(len(rated) + count):
        sums = (known**2).sum(0) / (np.diag(known) + 1)
        at = rated[len(chosen)] if len(chosen) < len(rated) else max(left, key=lambda index: sums[index])
        known -= np.outer(known[at], known[at]) / (known[at, at] + 1)
        chosen.append(at)
        left = [index for index in left if index != at]
    return chosen[len(rated) :]


@pytest.mark.parametrize("rated", [[], [3, 8]])
def test_the_choice_is_that_of_the_formula(rated: list[int]) -> None:
    columns = np.random.default_rng(0).normal(size=(30, 9)) / 2
    covariance = Covariance(columns, np.ones(9))
    allowed = [at for at in range(25) if at not in rated]
    found = choose(covariance, 12, allowed, rated=rated)
    assert found == by_hand(full(covariance), 12, allowed, rated)
    assert choose(covariance, 99, [4, 2]) in ([4, 2], [2, 4])


def test_groups_of_one_kind_are_all_seen() -> None:
    centres = 5 * np.eye(4)
    values = np.repeat(centres, [20, 10, 6, 4], 0) + 0.1 * np.random.default_rng(1).normal(size=(40, 4))
    kinds = np.repeat(np.arange(4), [20, 10, 6, 4])
    known = {"deep": (np.zeros(4), np.ones(4))}
    chosen = choose(features_alone({"deep": values}, known), 4, np.arange(40))
    assert sorted(kinds[chosen]) == [0, 1, 2, 3]


def test_features_count_as_much_as_their_group() -> None:
    rng = np.random.default_rng(2)
    features = {"deep": rng.normal(size=(50, 8)), "stage3": rng.normal(size=(50, 3)), "base": np.ones((50, 1))}
    known = {"deep": (np.full(8, 1.0), np.full(8, 2.0))}
    covariance = features_alone(features, known)
    deep, other, base = np.split(covariance.columns, [8, 11], 1)
    standard = (features["deep"] - 1) / 2 * np.sqrt(STRENGTHS["deep"] / 8)
    stage = (features["stage3"] - features["stage3"].mean(0)) / features["stage3"].std(0)
    stage *= np.sqrt(STRENGTHS["mid"] / 3)
    lengths = np.sqrt((standard**2).sum(1) + (stage**2).sum(1))
    np.testing.assert_allclose(deep, standard * np.median(lengths) / lengths[:, None])
    np.testing.assert_allclose(other, stage * np.median(lengths) / lengths[:, None])
    np.testing.assert_allclose(covariance.diagonal(), np.median(lengths) ** 2)
    assert not base.any(), "what is the same everywhere says nothing"


def test_after_ratings_variances_are_those_of_the_belief() -> None:
    rng = np.random.default_rng(3)
    groups, base, ratings = {"deep": rng.normal(size=(40, 5))}, rng.normal(size=40), rng.normal(size=40)
    ratings += groups["deep"][:, 0]
    shots = slice(0, 12)
    belief = believe({"deep": groups["deep"][shots]}, base[shots], ratings[shots])
    phi = np.column_stack([groups["deep"], base]) * belief.scales
    covariance = features_after(phi, belief.factor, belief.drift, belief.centre_variance)
    np.testing.assert_allclose(
        belief.noise * np.sqrt(1 + covariance.diagonal()), belief.spread(groups, base), rtol=1e-9
    )
    assert min(choose(covariance, 5, np.arange(13, 40))) > 12
