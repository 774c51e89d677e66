"""Splits: functions of the seed, nested draws, no picture and no reference on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grmp_hf.data import RatedTable, RatingScale, Row, Split, draw_shots, fold_splits, random_split, split_rows
from grmp_hf.errors import GRMPError


def make_table(n: int = 40, references: int = 0, test: int = 0) -> RatedTable:
    rows = tuple(
        Row(
            image=Path(f"{i}.png"),
            name=f"{i}.png",
            mos=i % 7 / 6,
            quality=i % 7 / 6,
            reference=f"r{i % references}" if references else None,
            split=None if not test else "test" if i < test else "train",
        )
        for i in range(n)
    )
    return RatedTable("table.csv", rows, RatingScale(0, 1))


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_small_draw_begins_large_draw(seed: int, stratified: bool) -> None:
    quality = np.random.RandomState(9).random_sample(60)
    whole = draw_shots(quality, 60, seed=seed, stratified=stratified)
    assert sorted(whole) == list(range(60))
    for k in (1, 5, 20, 59):
        assert draw_shots(quality, k, seed=seed, stratified=stratified) == whole[:k]


def test_draws_differ_by_seed_and_are_fixed_for_good() -> None:
    assert draw_shots(1000, 5, seed=0) == [993, 859, 298, 553, 672]
    assert draw_shots(1000, 5, seed=1) != draw_shots(1000, 5, seed=0)
    assert draw_shots(1000, 5, seed=0) == draw_shots(np.zeros(1000), 5, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_stratified_draw_covers_the_range(seed: int) -> None:
    quality = np.arange(100) / 99
    drawn = quality[draw_shots(quality, 10, seed=seed, stratified=True)]
    assert np.histogram(drawn, bins=5, range=(0, 1))[0].min() >= 1
    assert drawn.std() > 0.2


def test_stratified_draw_takes_equal_ratings_at_random() -> None:
    draws = {tuple(draw_shots(np.zeros(50), 5, seed=seed, stratified=True)) for seed in range(5)}
    assert len(draws) == 5


@pytest.mark.parametrize(
    ("n", "k", "match"),
    [
        (10, 11, "expected between 1 and 10 shots, .* got 11; ask for fewer shots or rate more pictures"),
        (10, 0, "expected between 1 and 10 shots, .* got 0; ask for fewer shots or rate more pictures"),
    ],
)
def test_impossible_draws(n: int, k: int, match: str) -> None:
    with pytest.raises(GRMPError, match=match):
        draw_shots(n, k, seed=0)


def test_stratified_draw_needs_quality() -> None:
    with pytest.raises(GRMPError, match=r"expected the quality of each picture .*; give the quality"):
        draw_shots(10, 5, seed=0, stratified=True)


def test_marked_test_part_is_used() -> None:
    table = make_table(test=10)
    small, large, whole = (split_rows(table, shots=shots, seed=3) for shots in (5, 20, None))
    assert small.test == large.test == whole.test == tuple(f"{i}.png" for i in range(10))
    assert large.train[:5] == small.train
    assert sorted(whole.train) == sorted({row.name for row in table.rows} - set(whole.test))
    assert small.rule == '5 of 30 drawn at random; the test part is that of the table\'s "split" column'
    with pytest.raises(GRMPError, match=r"between 1 and 30 shots, .* got 31"):
        split_rows(table, shots=31)


def test_rest_is_the_test_part_else() -> None:
    split = split_rows(make_table(), shots=8, seed=1, stratified=True)
    assert len(split.train) == 8
    assert {*split.train, *split.test} == {f"{i}.png" for i in range(40)}
    assert not set(split.train) & set(split.test)
    assert split_rows(make_table()).test == ()


def test_no_reference_on_both_sides() -> None:
    table = make_table(references=10)
    splits = [
        split_rows(table, shots=8, seed=1),
        random_split(table, seed=1),
        random_split(table, seed=1, by="reference"),
        *fold_splits(table, 5, seed=1),
    ]
    for split in splits:
        train, test = split.select(table)
        assert train
        assert test
        assert not {row.reference for row in train} & {row.reference for row in test}
    mixed, _ = random_split(table, seed=1, by="picture").select(table)
    assert len({row.reference for row in mixed}) == 10


@pytest.mark.parametrize(("n", "references", "expected"), [(40, 0, 32), (7, 0, 5), (40, 10, 32), (81 * 2, 81, 64 * 2)])
def test_share_is_rounded_down(n: int, references: int, expected: int) -> None:
    assert len(random_split(make_table(n, references), seed=0).train) == expected


def test_folds_test_each_picture_once() -> None:
    splits = fold_splits(make_table(41), 4, seed=2)
    tested = [name for split in splits for name in split.test]
    assert len(tested) == len(set(tested)) == 41
    assert {len(split.test) for split in splits} == {10, 11}
    assert splits[0].rule == "fold 1 of 4 by picture tests"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: random_split(make_table(), by="reference"), 'column "reference" .* found none; split by "picture"'),
        (
            lambda: random_split(make_table(), train_share=0.01),
            "got 0 of 40 pictures to teach; choose another train_share",
        ),
        (
            lambda: random_split(make_table(), train_share=1.0),
            "got 40 of 40 pictures to teach; choose another train_share",
        ),
        (lambda: fold_splits(make_table(), 1), "between 2 and 40 folds, .* got 1; choose another number"),
        (
            lambda: fold_splits(make_table(references=4), 5),
            "between 2 and 4 folds, .* references, got 5; choose another",
        ),
    ],
)
def test_impossible_splits(make: Callable[[], object], match: str) -> None:
    with pytest.raises(GRMPError, match=match):
        make()


def test_hash_does_not_depend_on_order() -> None:
    split = Split(("a", "b"), ("c", "d"), "rule", 0)
    assert split.hash == Split(("b", "a"), ("d", "c"), "another", 1).hash
    assert split.hash != Split(("c", "d"), ("a", "b"), "rule", 0).hash
    assert split.hash == "54a8bc654e429c6267563c39bf121ca56e224c450a11e7ec087bf847f547f2a3"


def test_saved_split_comes_back(tmp_path: Path) -> None:
    split = split_rows(make_table(), shots=6, seed=5)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train": ["0.png"]}, "names do not match the hash in the file; restore it or make it again"),
        ({"seed": None}, r"expected a split written by Split\.save, got .*; make it again"),
        ({"train": 7}, r"expected a split written by Split\.save, got .*; make it again"),
    ],
)
def test_changed_split_is_refused(change: dict[str, object], match: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    split_rows(make_table(), shots=6).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(GRMPError, match=match):
        Split.load(path)


def test_absent_split_file(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r"absent\.json: expected a split written by Split\.save"):
        Split.load(tmp_path / "absent.json")


def test_split_of_another_table() -> None:
    split = split_rows(make_table(50), shots=6)
    with pytest.raises(GRMPError, match=r"10 are not in the table: .* and 7 more; use the split with the table"):
        split.select(make_table(40))
