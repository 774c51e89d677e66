"""Splits: functions of the seed, nested draws, no picture and no reference on both sides."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grmp_hf.data import (
    RatedTable,
    RatingScale,
    Row,
    Split,
    draw_shots,
    fold_splits,
    official_split,
    random_split,
    split_rows,
)
from grmp_hf.data.identity import first_copies
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


def with_column(table: RatedTable, column: str, values: list[Any]) -> RatedTable:
    rows = tuple(replace(row, **{column: value}) for row, value in zip(table.rows, values, strict=True))
    return replace(table, rows=rows)


def test_scenes_stay_together_where_they_are_the_contents() -> None:
    scenes = with_column(make_table(), "scene", [f"Prompt {i % 10}" for i in range(40)])
    prompts = replace(scenes, content="scene")
    for table, by in ((prompts, "auto"), (prompts, "scene"), (scenes, "scene")):
        splits = [random_split(table, by=by), *fold_splits(table, 4, by=by), split_rows(table, shots=8, by=by)]
        for split in splits:
            train, test = split.select(table)
            assert not {row.scene for row in train} & {row.scene for row in test}
    # A scene that is only a group of contents, such as "indoor", does not keep pictures together by itself.
    train, test = random_split(scenes).select(scenes)
    assert {row.scene for row in train} & {row.scene for row in test}
    assert random_split(prompts).rule == "random split by scene, 8 of 10 scenes teach"
    assert len(split_rows(prompts, shots=8, by="picture").test) == 32


def test_contents_are_told_apart_without_case_and_alone_where_none_is_named() -> None:
    references = ["I01.png", "i01.PNG", *[f"I{i:02}.png" for i in range(2, 30)], *[None] * 10]
    table = with_column(make_table(), "reference", references)
    for seed in range(5):
        split = random_split(table, seed=seed)
        assert ("0.png" in split.train) == ("1.png" in split.train)
        assert split.rule == "random split by reference, 31 of 39 references teach"


PARTS = ["train", "validation", "test", "Query", None]


def test_official_parts() -> None:
    table = with_column(make_table(), "split", [PARTS[i % 5] for i in range(40)])
    split = official_split(table)
    assert split.train == tuple(f"{i}.png" for i in range(40) if i % 5 < 2)
    assert split.test == tuple(f"{i}.png" for i in range(40) if i % 5 == 2)
    assert split.rule == 'the parts of the table\'s "split" column, 16 teach and 8 test, 16 in neither'
    assert official_split(make_table(test=10)).rule == 'the parts of the table\'s "split" column, 30 teach and 10 test'


def test_what_is_held_out_never_teaches() -> None:
    for held, tested in (("validation", True), ("holdout", False), (None, False)):
        table = with_column(make_table(), "split", [held if i % 4 == 3 else "train" for i in range(40)])
        held_out = {row.name for row in table.rows if row.split == held}
        for shots in (None, 8):
            split = split_rows(table, shots=shots)
            assert not held_out & {*split.train} and len(split.train) == (shots or 30)
            assert {*split.test} == held_out if tested else not held_out & {*split.test}
            assert tested or "10 in other parts neither teach nor test" in split.rule
            assert not tested or 'the validation part is that of the table\'s "split" column and tests' in split.rule
    table = with_column(make_table(), "split", [PARTS[i % 5] for i in range(40)])
    split = split_rows(table)
    assert (len(split.train), len(split.test)) == (8, 8) and "24 in other parts" in split.rule
    alone = split_rows(with_column(make_table(), "split", ["validation", None] * 20), shots=8)
    assert len(alone.test) == 32


@pytest.mark.parametrize("parts", [["train"] * 40, ["test"] * 40, [None] * 40, ["A", "B"] * 20])
def test_table_without_parts(parts: list[str | None]) -> None:
    expected = f"got {parts.count('train')} to teach and {parts.count('test')} to test; mark them, or split at random"
    with pytest.raises(GRMPError, match=rf'table\.csv: expected rows marked train and test .*"split", {expected}'):
        official_split(with_column(make_table(), "split", parts))


@pytest.mark.parametrize("make", [official_split, lambda table, **by: split_rows(table, shots=5, **by)])
def test_one_content_in_both_parts_of_the_table(make: Callable[..., Split]) -> None:
    table = make_table(references=10, test=12)
    overlapping = r'each reference in one part of the table, got 10 .* teach as well: "r0", "r1", "r2" and 7 more'
    with pytest.raises(GRMPError, match=overlapping + r'; correct the column "split" .in Python, by="picture" lets'):
        make(table)
    assert len(make(table, by="picture").test) == 12
    apart = with_column(table, "reference", [f"r{i < 12}" for i in range(40)])
    assert make(apart).test == make(table, by="picture").test


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
            lambda: split_rows(make_table(), shots=5, by="scene"),
            'table.csv: expected a column "scene" to split by, found none; split by "picture"',
        ),
        (
            lambda: random_split(make_table(), train_share=0.01),
            "got 0 of 40 pictures to teach; choose a train_share from 1/40 to 39/40",
        ),
        (
            lambda: random_split(make_table(), train_share=1.0),
            "got 40 of 40 pictures to teach; choose a train_share from 1/40 to 39/40",
        ),
        (lambda: random_split(make_table(), train_share=float("nan")), r"train_share: expected .*, got nan; 0.8"),
        (lambda: random_split(make_table(), train_share=80), r"train_share: expected .*, got 80; 0.8 is usual"),
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


@pytest.fixture
def copied(tmp_path: Path) -> RatedTable:
    """Forty pictures of twenty contents, half of them under a second name: as a copy, a link or a hard link."""
    rows = []
    for number in range(20):
        original = tmp_path / f"{number}.bin"
        original.write_bytes(bytes([number]) * 5000)
        again = tmp_path / "again" / f"{number}.bin"
        again.parent.mkdir(exist_ok=True)
        if number % 3 == 0:
            again.write_bytes(original.read_bytes())
        elif number % 3 == 1:
            again.symlink_to(original)
        else:
            os.link(original, again)
        for path, mos in ((original, number / 20), (again, number / 20 if number % 2 else 1.0)):
            rows.append(Row(path, str(path.relative_to(tmp_path)), mos, mos))
    return RatedTable("copied.csv", tuple(rows), RatingScale(0, 1))


def contents(rows: list[Row]) -> set[bytes]:
    return {row.image.read_bytes() for row in rows if isinstance(row.image, Path)}


def test_a_picture_under_two_names_is_on_one_side(copied: RatedTable) -> None:
    splits = [
        *(random_split(copied, seed=seed, by=by) for seed in range(3) for by in ("auto", "picture")),
        *fold_splits(copied, 5, seed=1),
        *(split_rows(copied, shots=12, seed=seed, stratified=seed == 2) for seed in range(3)),
    ]
    for split in splits:
        train, test = split.select(copied)
        assert train and test and not contents(train) & contents(test)
        assert (
            "20 copies of pictures under other names (10 of them rated otherwise) are never on the other" in split.rule
        )
    drawn, _ = splits[-1].select(copied)
    assert len(contents(drawn)) == len(drawn) == 12  # a copy is no second shot
    assert splits[0].rule.startswith("random split by picture, 16 of 20 pictures teach")


def test_pictures_inside_a_table_are_told_by_content_too() -> None:
    rows = tuple(Row(bytes([number // 2]) * 9, str(number), number / 9, number / 9) for number in range(10))
    table = RatedTable("inside.parquet", rows, RatingScale(0, 1))
    assert table.copies == {"1": "0", "3": "2", "5": "4", "7": "6", "9": "8"}
    train, test = random_split(table).select(table)
    assert (len(train), len(test)) == (8, 2) and not {row.image for row in train} & {row.image for row in test}


def test_copies_join_the_references_that_they_have(copied: RatedTable) -> None:
    table = with_column(copied, "reference", [f"r{place % 7}" for place in range(40)])
    with pytest.raises(
        GRMPError, match=r"two or more references to split, got one for all 40 rows; rate .* another ref"
    ):
        random_split(table)
    table = with_column(copied, "reference", [f"r{place // 4}" for place in range(40)])
    assert random_split(table).rule.startswith("random split by reference, 8 of 10 references teach")


@pytest.mark.parametrize("make", [official_split, lambda table, **by: split_rows(table, shots=5, **by)])
@pytest.mark.parametrize("by", ["auto", "picture"])
def test_a_picture_in_both_parts_of_the_table_under_two_names(
    make: Callable[..., Split], by: str, copied: RatedTable
) -> None:
    table = with_column(copied, "split", ["train", "test"] * 3 + ["train"] * 26 + ["test"] * 8)
    names = r'"again/0.bin" \(the same as "0.bin"\), "again/1.bin" .*, "again/2.bin" .*; remove the lines from one of'
    with pytest.raises(GRMPError, match=rf"each picture in one part of the table, got 3 in the test part .*: {names}"):
        make(table, by=by)
    rows = [row for row in table.rows if row.name not in ("again/0.bin", "again/1.bin", "again/2.bin")]
    assert len(make(replace(table, rows=tuple(rows)), by=by).test) == 8


def test_files_of_one_size_are_no_copies(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.bin" for number in range(8)]
    for number, path in enumerate(paths):
        content = bytearray(100_000)
        content[number * 9_000] = 1  # most of the differences lie between the pieces that are looked at first
        path.write_bytes(content)
    absent = [tmp_path / "absent", tmp_path / "no\0path"]
    assert first_copies([*paths, *absent, *absent]) == list(range(12))
    assert first_copies([*paths, paths[3]])[-1] == 3


def test_contents_are_kept_with_a_split(copied: RatedTable, tmp_path: Path) -> None:
    split = split_rows(copied, shots=5).with_contents(copied.rows)
    split.save(tmp_path / "split.json")
    loaded = Split.load(tmp_path / "split.json")
    assert loaded == split and set(loaded.contents) == set(loaded.train)
    assert loaded.contents[loaded.train[0]].startswith("5000-") and hash(loaded) == hash(split)


def test_splits_of_earlier_versions_hold_no_contents(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    split_rows(make_table(), shots=6).save(path)
    fields = json.loads(path.read_text())
    del fields["contents"]
    path.write_text(json.dumps(fields))
    assert Split.load(path) == split_rows(make_table(), shots=6)


def test_hash_does_not_depend_on_order() -> None:
    split = Split(("a", "b"), ("c", "d"), "rule", 0)
    assert split.hash == Split(("b", "a"), ("d", "c"), "another", 1).hash
    assert split.hash != Split(("c", "d"), ("a", "b"), "rule", 0).hash
    assert split.hash == "54a8bc654e429c6267563c39bf121ca56e224c450a11e7ec087bf847f547f2a3"


def test_hash_does_not_depend_on_the_form_of_accents() -> None:
    assert Split(("\u00e9.png",), (), "", 0).hash == Split(("e\u0301.png",), (), "", 0).hash
    assert Split(("a", "b"), (), "", 0).hash != Split(("ab",), (), "", 0).hash != Split(("a,b",), (), "", 0).hash


ODD_NAMES = (
    "ss01 (1).jpg",
    " a\u00a0b ",
    "\u00e9.png",
    "e\u0301.png",
    "\u5199\U0001f4f7.png",
    'q"\\.png',
    "l\u2028.png",
    "\udce9.png",
)


@pytest.mark.parametrize(
    "split",
    [
        split_rows(make_table(), shots=6, seed=5),
        Split(ODD_NAMES[:3], ODD_NAMES[3:], "by hand: \u201cmine\u201d", 2**32 - 1),
    ],
    ids=["plain", "odd"],
)
def test_saved_split_comes_back(split: Split, tmp_path: Path) -> None:
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split


@pytest.mark.parametrize(("train", "test"), [(["0.png", "1.png"], ["1.png"]), (["1.png", "1.png"], ["2.png"])])
def test_picture_that_is_in_a_split_twice(train: list[str], test: list[str]) -> None:
    split = Split(tuple(train), tuple(test), "by hand", 0)
    with pytest.raises(
        GRMPError, match=r'each picture in one part of the split, once, got 1 .*: "1.png"; make the spl'
    ):
        split.select(make_table())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train": ["0.png"]}, "names do not match the hash in the file; restore it or make it again"),
        ({"seed": None}, r"expected a split written by Split\.save, got .*; make it again"),
        ({"seed": math.inf}, r"expected a split written by Split\.save, got .*; make it again"),
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


@pytest.mark.parametrize("shots", [10.0, 10.5, "10", [10]])
def test_shots_that_are_no_whole_number_are_refused_in_words(shots: Any) -> None:
    for draw in (lambda: split_rows(make_table(), shots=shots), lambda: draw_shots(40, shots, seed=0)):
        with pytest.raises(GRMPError, match=r"expected a whole number of shots, such as 10, got .*; give int\(shots\)"):
            draw()
    assert split_rows(make_table(), shots=np.int64(10)) == split_rows(make_table(), shots=10)  # type: ignore[arg-type]


@pytest.mark.parametrize("shots", [None, 3])
def test_a_table_that_marks_all_of_its_rows_as_test_has_none_that_teach(shots: int | None) -> None:
    with pytest.raises(GRMPError, match='expected rows that teach, got all 40 marked test in the column "split"; mark'):
        split_rows(make_table(test=40), shots=shots)


def test_tables_and_splits_are_shown_in_a_line() -> None:
    table = make_table()
    assert repr(table) == "RatedTable(table.csv; 40 pictures; 0 (worst) to 1 (best))"
    split = split_rows(table, shots=5)
    assert repr(split).startswith("Split(5 teach, 35 test; 5 of 40 drawn at random") and len(repr(split)) < 200
