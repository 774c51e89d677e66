from __future__ import annotations

import json
import math

import pytest
import torch

from grmp_hf.errors import GRMPError
from grmp_hf.training.balancing import DynamicWeights, Watching


def watched(*epochs: dict[str, list[float]]) -> DynamicWeights:
    rule = DynamicWeights()
    for epoch, losses in enumerate(epochs):
        for step in range(max(map(len, losses.values()))):
            rule.watch({name: values[step] for name, values in losses.items() if step < len(values)}, epoch)
    return rule


def test_weights_are_1_for_two_epochs_and_then_follow_the_ratios() -> None:
    first = {"quality": [0.4, 0.2], "scene": [0.5, 0.5], "distortion": [1.0, 3.0]}
    second = {"quality": [0.3, 0.3], "scene": [0.25, 0.25], "distortion": [2.0, 1.0]}
    assert set(watched(first).weights().values()) == {1.0}
    assert set(watched(first, second).weights().values()) == {1.0}
    found = watched(first, second, {"quality": [9.0]}).weights()
    shares = {"quality": math.exp(1.0 / 2), "scene": math.exp(0.5 / 2), "distortion": math.exp(0.75 / 2)}
    assert found == pytest.approx({name: 3 * share / sum(shares.values()) for name, share in shares.items()})
    assert sum(found.values()) == pytest.approx(3)


def test_a_channel_that_did_not_count_is_weighed_as_if_nothing_had_changed() -> None:
    steady, missing = {"quality": [0.5], "scene": [0.5]}, {"quality": [0.5]}
    assert watched(steady, missing, missing).weights() == pytest.approx({"quality": 1, "scene": 1})
    assert watched(steady, {"quality": [0.25]}, missing).weights()["quality"] < 1


def test_the_step_is_the_weighted_sum() -> None:
    rule = watched({"a": [1.0], "b": [1.0]}, {"a": [2.0], "b": [0.5]}, {"a": [1.0], "b": [1.0]})
    gradients = {name: {"w": torch.randn(3)} for name in "ab"}
    weights = rule.weights()
    expected = weights["a"] * gradients["a"]["w"] + weights["b"] * gradients["b"]["w"]
    torch.testing.assert_close(rule(gradients, {"w": torch.zeros(3)})["w"], expected)
    alone = rule({"b": gradients["b"]}, {"w": torch.zeros(3)})["w"]
    torch.testing.assert_close(alone, weights["b"] * gradients["b"]["w"])


def test_its_state_goes_through_json() -> None:
    rule = watched({"a": [1.0, 2.0], "b": [1.0]}, {"a": [2.0], "b": [0.5]}, {"a": [0.1], "b": [0.3]})
    other = DynamicWeights()
    other.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    assert isinstance(rule, Watching) and other.weights() == rule.weights()
    for each in (rule, other):
        each.watch({"a": 1.0, "b": 7.0}, 3)
    assert other.weights() == rule.weights() != watched({"a": [1.0], "b": [1.0]}).weights()
    other.load_state_dict({})
    assert other.weights() == {} and other.epoch == 0


def test_only_the_last_epochs_are_kept() -> None:
    rule = watched(*[{"a": [1.0]} for _ in range(50)])
    assert len(rule.state_dict()["sums"]["a"]) == 3


def test_a_temperature_that_cannot_be() -> None:
    for wrong in (0, math.inf, math.nan):
        with pytest.raises(GRMPError, match=f"Expected a temperature above 0, got {wrong}"):
            DynamicWeights(wrong)
