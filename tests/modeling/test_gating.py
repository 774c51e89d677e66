"""The gate: weights by hand, centres by name, and what it refuses."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.gating import (
    GATE_FILE,
    KMeansGate,
    fit_centers,
    gate_features,
    nearest_alone,
    nearest_center,
    oracle,
    softmin,
)
from grmp_hf.modeling.heads import Features


def cloud(middle: list[float], n: int, seed: int) -> Tensor:
    noise = torch.randn(n, len(middle), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(middle) + 0.05 * noise


def test_weights_by_hand() -> None:
    found = softmin(torch.tensor([[0.1, 0.2], [0.2, 0.2]], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx([0.960834, 0.039166], abs=1e-6)
    assert found[1].tolist() == [0.5, 0.5]
    far = softmin(torch.tensor([[500.0, 0.0, 1e6]]), 1e3)
    assert far.tolist() == [[0.0, 1.0, 0.0]]
    assert softmin(torch.tensor([[0.1, 7.0, 3.0]]), 0.0)[0].tolist() == pytest.approx([1 / 3] * 3)


def test_weights_sum_to_one_and_follow_the_distances() -> None:
    distances = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    found = softmin(distances)
    torch.testing.assert_close(found.sum(-1), torch.ones(50))
    assert torch.equal(found.argsort(-1, descending=True), distances.argsort(-1))
    assert torch.equal(nearest_alone(distances), torch.nn.functional.one_hot(distances.argmin(-1), 4).float())
    assert torch.equal(oracle(2, 4, 3), torch.tensor([[0.0, 0.0, 1.0, 0.0]] * 3))
    with pytest.raises(GRMPError, match="one of 4 experts, numbered from 0, got 4"):
        oracle(4, 4, 3)


def test_the_nearest_centre_is_the_same_for_a_picture_alone() -> None:
    pictures, centers = torch.randn(9, 300), torch.randn(31, 300)
    found = nearest_center(pictures, centers)
    assert torch.equal(found, torch.cat([nearest_center(picture[None], centers) for picture in pictures]))
    torch.testing.assert_close(found, torch.cdist(pictures, centers).min(-1).values)
    assert nearest_center(centers[:3], centers).tolist() == [0.0, 0.0, 0.0]


def test_few_pictures_are_centres_themselves() -> None:
    few = cloud([1.0, 0.0], 5, 0)
    assert torch.equal(fit_centers(few, 5), few)


def test_centres_are_those_of_the_clusters_and_a_function_of_the_seed() -> None:
    middles = [[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]
    features = torch.cat([cloud(middle, 20, seed) for seed, middle in enumerate(middles)])
    found = fit_centers(features, 3, seed=1)
    assert found.dtype == torch.float32 and torch.equal(found, fit_centers(features, 3, seed=1))
    expected = features.view(3, 20, 2).mean(1)
    torch.testing.assert_close(found[torch.cdist(expected, found).argmin(-1)], expected)


def test_features_are_the_embedding_of_unit_length() -> None:
    embeds = torch.nn.functional.normalize(torch.randn(4, 2, 8), dim=-1)
    found = gate_features(Features(embeds, torch.tensor([0.7, 0.3])))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(4))
    assert found.dtype == gate_features(Features(embeds.half(), torch.tensor([0.7, 0.3]).half())).dtype


def gate() -> KMeansGate:
    return KMeansGate({"zebra": cloud([1.0, 0.0], 4, 0), "ant": cloud([0.0, 1.0], 6, 1)}, 20.0)


def test_it_is_kept_by_name_in_an_order_of_its_own(tmp_path: Path) -> None:
    features = Features(torch.nn.functional.normalize(torch.randn(5, 1, 2), dim=-1), torch.ones(1))
    gate().save(tmp_path)
    found = KMeansGate.load(tmp_path, ["zebra", "ant"])
    assert found.experts == ("zebra", "ant") and found.temperature == 20.0
    assert torch.equal(found(features), gate()(features))
    turned = KMeansGate.load(tmp_path, ["ant", "zebra"])
    assert torch.equal(turned(features), gate()(features).flip(-1))
    assert torch.equal(gate().of(["ant"]).distances(features), gate().distances(features)[:, 1:])


def test_what_is_no_gate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r"gate in .* got .*No such file"):
        KMeansGate.load(tmp_path, ["ant"])
    gate().save(tmp_path)
    with pytest.raises(GRMPError, match=r"centres of ant, bee .* got those of (ant, zebra|zebra, ant)"):
        KMeansGate.load(tmp_path, ["ant", "bee"])
    (tmp_path / GATE_FILE).write_bytes(b"nothing")
    with pytest.raises(GRMPError, match="Copy it again"):
        KMeansGate.load(tmp_path, ["ant", "zebra"])
    with pytest.raises(GRMPError, match="of every expert, got none"):
        KMeansGate({})
    with pytest.raises(GRMPError, match="one width"):
        KMeansGate({"ant": torch.ones(1, 2), "bee": torch.ones(1, 3)})
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(GRMPError, match=f"a finite temperature of at least 0, got .* and {wrong}"):
            KMeansGate({"ant": torch.ones(1, 2)}, wrong)
    with pytest.raises(GRMPError, match="out of zebra, ant, got bee"):
        gate().of(["bee"])
    for features in (torch.ones(0, 3), torch.ones(3)):
        with pytest.raises(GRMPError, match="features of some pictures"):
            fit_centers(features)
    with pytest.raises(GRMPError, match="finite features, got others of 1 of 2 pictures"):
        fit_centers(torch.tensor([[1.0, math.nan], [1.0, 2.0]]))


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    features: Any = torch.randn(9, 2)
    with pytest.raises(GRMPError, match=r"pip install 'grmp_hf\[experts\]'"):
        fit_centers(features, 3)
    assert torch.equal(fit_centers(features, 9), features)
