"""The published splits: equal to the authors' lists, whatever else draws from numpy meanwhile."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from grmp_hf.data import RatedTable, RatingScale, Row
from grmp_hf.data.paper_splits import paper_indices, paper_splits
from grmp_hf.errors import GRMPError


def sha256(*lists: npt.ArrayLike) -> str:
    """Hash of lists one after the other, as little-endian signed 64-bit integers."""
    return hashlib.sha256(np.concatenate([np.asarray(part) for part in lists]).astype("<i8").tobytes()).hexdigest()


def make_table(names: list[str], **columns: Any) -> RatedTable:
    rows = tuple(Row(Path(name), name, 0.5, 0.5, **columns) for name in names)
    return RatedTable("table", rows, RatingScale(0, 1))


def test_lists_of_live_challenge() -> None:
    rounds = paper_indices(1169, 50)
    assert rounds[0].picks[:5].tolist() == [157, 89, 1034, 615, 485]
    assert rounds[0].test[:5].tolist() == [565, 383, 714, 429, 340]
    assert sha256(rounds[0].test) == "5270401c5bdf1708bc373eca8c86710f7ec9e67a2f59661c7728a6ec427f334e"
    assert sha256(*(part.test for part in rounds)) == "59e723aeccaa5518d2c79aca42a5f2ff91d43241edc82ecab2db4560785e2213"
    assert (
        sha256(*(part.picks for part in rounds)) == "099a7643acddd204eefc07740c0642eb34fda35611572a07bcbe545fbd29b532"
    )


@pytest.mark.parametrize("name", ["livec", "koniq10k"])
def test_every_published_hash(name: str, labels_folder: Path) -> None:
    expected = json.loads((labels_folder / "paper_splits_check.json").read_text())[name]
    for shots, joined in expected["all_ten_few_shot_lists_concatenated_sha256"].items():
        rounds = paper_indices(expected["n"], int(shots))
        assert {len(part.pool) for part in rounds} == {expected["train_pool"]}
        assert {len(part.test) for part in rounds} == {expected["test"]}
        assert sha256(*(part.picks for part in rounds)) == joined
        assert sha256(*(part.test for part in rounds)) == expected["all_ten_test_lists_concatenated_sha256"]
        for part, published in zip(rounds, expected["splits"], strict=True):
            assert sha256(part.pool, part.test) == published["permutation_sha256"]
            assert sha256(part.pool) == published["train_pool_sha256"]
            assert sha256(part.test) == published["test_sha256"]
            assert sha256(part.picks) == published["few_shot_sha256"][shots]
            assert part.test[:5].tolist() == published["test_first5"]
            assert part.picks[:5].tolist() == published["few_shot_first5"]


def test_names_are_those_of_the_label_file(labels_folder: Path) -> None:
    with (labels_folder / "livec" / "livec_release.csv").open(newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    split = paper_splits(make_table(names), 50)[0]
    assert split.train[0] == names[157]
    assert split.test[:2] == (names[565], names[383])


def test_global_generator_is_neither_read_nor_moved() -> None:
    np.random.seed(7)
    expected = np.random.random_sample(3)
    np.random.seed(7)
    first = paper_indices(100, 10, 2)
    assert np.random.random_sample(3).tolist() == expected.tolist()
    assert [part.picks.tolist() for part in paper_indices(100, 10, 2)] == [part.picks.tolist() for part in first]


def test_parts_are_disjoint_and_few_shots_begin_many() -> None:
    few, many = paper_indices(101, 5, 3), paper_indices(101, 40, 4)
    for small, large in zip(few, many, strict=False):
        assert large.picks[:5].tolist() == small.picks.tolist()
        assert small.test.tolist() == large.test.tolist()
        assert sorted([*small.pool, *small.test]) == list(range(101))
        assert set(large.picks) <= set(large.pool)
        assert len(small.pool) == 80
    assert len({tuple(part.test) for part in many}) == 4


def test_splits_name_the_pictures_in_the_published_order() -> None:
    table = make_table([f"{number}.png" for number in range(100)])
    splits = paper_splits(table, 7, rounds=3)
    for split, part in zip(splits, paper_indices(100, 7, 3), strict=True):
        assert split.train == tuple(f"{index}.png" for index in part.picks)
        assert split.test == tuple(f"{index}.png" for index in part.test)
    assert splits[1].rule == "round 2 of the published evaluation, 7 of 80 drawn at random"
    assert splits[0].seed == 2024
    assert len(paper_splits(table, 7)) == 10


def test_contents_on_both_sides_are_told() -> None:
    (split,) = paper_splits(make_table([str(number) for number in range(20)], reference="r"), 5, rounds=1)
    assert split.rule.endswith("drawn at random, pictures of one reference on both sides")


@pytest.mark.parametrize(
    ("shots", "rounds", "match"),
    [
        (17, 10, "table: expected between 1 and 16 shots, 80 of 100 of 20 pictures, got 17; ask for fewer"),
        (0, 10, "expected between 1 and 16 shots"),
        (5, 0, "expected at least one round, got 0; the published evaluation has ten"),
    ],
)
def test_impossible_rounds(shots: int, rounds: int, match: str) -> None:
    with pytest.raises(GRMPError, match=match):
        paper_splits(make_table([str(number) for number in range(20)]), shots, rounds)
