"""Several ratings of one picture: means by hand, raters' own use of the scale, and what is said and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from grmp_hf.data import RatingScale, read_ratings
from grmp_hf.data.raters import settle
from grmp_hf.errors import GRMPError

SCALE = RatingScale(1, 5)
NAMES = [f"{letter}.png" for letter in "abcdef"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for grey, name in enumerate(NAMES):
        Image.new("L", (4, 4), grey * 40).save(tmp_path / name)
    return tmp_path


def crossed(
    pictures: int, raters: int, seed: int = 0, noise: float = 0.3
) -> tuple[np.ndarray, list[str | None], np.ndarray, np.ndarray]:
    """Every rater has rated every picture: numbers, names, values, and the pictures' own."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1.5, 4.5, pictures)
    of = np.repeat(np.arange(pictures), raters)
    names: list[str | None] = [f"r{at}" for at in range(raters)] * pictures
    return of, names, truth[of] + noise * rng.normal(size=len(of)), truth


def means(of: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(of, values) / np.bincount(of)


# the means of all three layouts, of four pictures rated twice and two rated once
LONG = "image,who,mos\n" + "".join(
    f"{name},{who},{mos}\n"
    for name, given in zip(NAMES, [(1, 2), (2, 2), (5, 3), (4,), (3,), (5, 4)], strict=True)
    for who, mos in zip("xy", given, strict=False)
)
WIDE = "image,rater x,rater y\na.png,1,2\nb.png,2,2\nc.png,5,3\nd.png,4,\ne.png,3,NA\nf.png,5,4\n"
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "average": (LONG, {"raters": "average"}),
    "rater column": (LONG, {"rater_column": "Who"}),
    "a column a rater": (WIDE, {"rating_columns": ["rater x", "rater y"]}),
    "a pattern": (WIDE, {"rating_columns": ["Rater_*"]}),
}


@pytest.mark.parametrize("asked", ASKED)
def test_every_layout_gives_means_deviations_and_votes(asked: str, folder: Path) -> None:
    text, options = ASKED[asked]
    (folder / "labels.csv").write_text(text)
    read = read_ratings(folder, **options)
    assert [row.name for row in read.rows] == NAMES
    assert [row.mos for row in read.rows] == [1.5, 2, 4, 4, 3, 4.5]
    assert read.quality.tolist() == [0.125, 0.25, 0.75, 0.75, 0.5, 0.875]
    assert [row.votes for row in read.rows] == [2, 2, 2, 1, 1, 2]
    assert [row.mos_std for row in read.rows] == pytest.approx([0.5**0.5, 0, 2**0.5, None, None, 0.5**0.5])
    named = "" if asked == "average" else " by 2 raters"
    assert any(f"10 ratings of 6 pictures{named} are brought together, as means" in note for note in read.notes)


def test_direction_and_range_are_those_of_single_ratings(folder: Path) -> None:
    (folder / "labels.csv").write_text(LONG)
    read = read_ratings(folder, raters="average", scale=(0, 10), higher_is_better=False)
    assert read.rows[0].quality == pytest.approx(0.85)
    with pytest.raises(GRMPError, match=r"expected ratings from 1 .* got 2 outside: 5 in line"):
        read_ratings(folder, raters="average", scale=(1, 4.5))


def test_a_picture_under_two_spellings_is_one(folder: Path) -> None:
    (folder / "labels.csv").write_text(LONG + "A.PNG,z,3\n")
    assert read_ratings(folder, raters="average").rows[0].votes == 3


def test_pictures_inside_a_table_go_by_their_names(folder: Path) -> None:
    lines = [line.split(",") for line in LONG.split()[1:]]
    columns = {"image": [str(folder / line[0]) for line in lines], "mos": [float(line[2]) for line in lines]}
    inside = datasets.Dataset.from_dict(columns | {"file_name": [line[0] for line in lines]})
    read = read_ratings(inside.cast_column("image", datasets.Image()), raters="average")
    assert [row.mos for row in read.rows] == [1.5, 2, 4, 4, 3, 4.5]
    assert not any("no picture has a second rating" in note for note in read.notes)
    unnamed = inside.remove_columns("file_name").cast_column("image", datasets.Image())
    assert any("no picture has a second rating" in note for note in read_ratings(unnamed, raters="average").notes)


def test_a_raters_second_rating_of_a_picture_is_no_second_rater(folder: Path) -> None:
    (folder / "labels.csv").write_text(LONG + "a.png,x,2\n")
    read = read_ratings(folder, rater_column="who")
    assert (read.rows[0].mos, read.rows[0].votes) == (1.75, 2)
    assert any("1 ratings are a rater's second of a picture: his mean counts" in note for note in read.notes)


def test_columns_of_the_table_give_way_to_the_ratings_themselves(folder: Path) -> None:
    lines = LONG.splitlines()
    (folder / "labels.csv").write_text("\n".join([lines[0] + ",mos_std", *(line + ",9" for line in lines[1:])]))
    read = read_ratings(folder, raters="average")
    assert read.rows[1].mos_std == 0 and any("not of the table's columns" in note for note in read.notes)


def test_offset_and_gain_are_taken_out() -> None:
    of, names, values, truth = crossed(60, 4)
    own = np.array([int(str(name)[1]) for name in names])
    spoiled = np.where(own == 0, 3 + 0.5 * (values - 3) + 1, values)
    spoiled[(own == 0) & (of % 2 == 0)] = np.nan  # who has rated half of the pictures harms them alone
    kept = np.isfinite(spoiled)
    settled, notes = settle(of[kept], [n for n, k in zip(names, kept, strict=True) if k], spoiled[kept], SCALE)
    before, after = (np.abs(means(of[kept], x) - truth - np.mean(means(of[kept], x) - truth)).mean() for x in (
        spoiled[kept], settled))  # fmt: skip
    assert after < before - 0.03 and notes == ["each rater's own offset and gain are taken out"]
    first = own[kept] == 0
    assert settled[first].std() == pytest.approx(settled[~first].std(), rel=0.2)
    assert abs(settled[first].mean() - settled[~first].mean()) < 0.25


def test_offsets_by_hand() -> None:
    of = np.repeat(np.arange(8), 2)
    truth = np.arange(8) / 2
    values = truth[of] + np.tile([0.6, -0.6], 8)
    settled, _ = settle(of, ["high", "low"] * 8, values, SCALE)
    # Least squares of y - q - o with 8 o^2: q are the means, 8 (0.6 - o) = 8 o.
    np.testing.assert_allclose(settled - truth[of], np.tile([0.3, -0.3], 8), atol=1e-6)


def test_few_shared_pictures_leave_raters_as_they_are() -> None:
    of, names, values, _ = crossed(7, 3)
    settled, notes = settle(of, names, values, SCALE)
    np.testing.assert_array_equal(settled, values)
    assert "but for 3 of 3, who have rated fewer than 8 pictures" in notes[0]


def test_a_rater_who_says_always_the_same_does_no_harm() -> None:
    of, names, values, truth = crossed(20, 3)
    values = np.where([name == "r1" for name in names], 3.0, values)
    settled, _ = settle(of, names, values, SCALE)
    assert np.corrcoef(means(of, settled), truth)[0, 1] > 0.95


def test_a_rater_who_is_upside_down_is_named_and_turned_round() -> None:
    of, names, values, truth = crossed(20, 3)
    turned = np.where([name == "r1" for name in names], 6 - values, values)
    settled, notes = settle(of, names, turned, SCALE)
    straight, _ = settle(of, names, values, SCALE)
    np.testing.assert_allclose(settled, straight)
    assert notes[0].startswith('rater "r1" has used the scale upside down (correlation -0.')
    assert len(notes) == 2 and np.corrcoef(means(of, settled), truth)[0, 1] > 0.95


def test_two_raters_who_contradict_one_another_are_named_and_kept() -> None:
    of, names, values, _ = crossed(20, 2)
    values = np.where([name == "r1" for name in names], 6 - values, values)
    _, notes = settle(of, names, values, SCALE)
    assert notes[0].startswith('raters "r0", "r1" contradict one another, and too few others say which')


@pytest.mark.parametrize("answer", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("once", [0.0, 1.0])
def test_a_rater_who_hardly_varies_takes_nothing_from_the_others(answer: float, once: float) -> None:
    of, names, values, truth = crossed(30, 4)
    lazy = np.array([name == "r3" for name in names])
    values = np.where(lazy, answer, values)
    values[3] -= once  # one answer is another
    settled, notes = settle(of, names, values, SCALE)
    assert any('ratings by "r3" hardly differ' in note for note in notes)
    assert means(of, settled).std() > 0.95 * means(of, values).std()
    others, _ = settle(of[~lazy], [name for name in names if name != "r3"], values[~lazy], SCALE)
    np.testing.assert_allclose(settled[~lazy] - settled[~lazy].mean(), others - others.mean(), atol=0.05)
    assert np.corrcoef(means(of, settled), truth)[0, 1] > 0.95


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("way", [1, -1])
def test_neither_of_two_camps_of_one_size_is_turned(seed: int, way: int) -> None:
    of, names, values, _ = crossed(30, 4, seed)
    upside = np.array([str(name) in ("r2", "r3") for name in names])
    values = np.where(upside, 6 - values, values)[::way]
    settled, notes = settle(of[::way], names[::way], values, SCALE)
    assert any("the other way round than" in note and "neither are clearly more" in note for note in notes)
    assert not any("turned round" in note for note in notes)
    for name in ("r0", "r2"):
        own = np.array([other == name for other in names])[::way]
        assert np.corrcoef(settled[own], values[own])[0, 1] > 0.999


def test_a_smaller_camp_is_turned() -> None:
    of, names, values, _ = crossed(30, 5)
    turned = np.where([str(name) in ("r2", "r3") for name in names], 6 - values, values)
    settled, notes = settle(of, names, turned, SCALE)
    np.testing.assert_allclose(settled, settle(of, names, values, SCALE)[0])
    assert sum("has used the scale upside down" in note for note in notes) == 2


def test_raters_on_scales_of_their_own_are_asked_about(tmp_path: Path) -> None:
    lines = ["image,rater,mos"]
    for at in range(12):
        Image.new("L", (4, 4), at * 20).save(tmp_path / f"{at}.png")
        lines += [f"{at}.png,{who},{1 + at % 5}" for who in "abc"] + [f"{at}.png,d,{2 + 8 * at}"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(GRMPError, match=r'raters on one scale, got ratings by "b" from 1 to 5, by "d" from 2 to 90'):
        read_ratings(tmp_path, rater_column="rater")
    read = read_ratings(tmp_path, rater_column="rater", scale=(0, 100))
    assert any('by "d" from 2 to 90: are they on one scale?' in note for note in read.notes)


def test_a_pattern_passes_over_what_sums_ratings_up(folder: Path) -> None:
    head, *rows = WIDE.replace("rater ", "rating_").splitlines()
    text = "\n".join([f"{head},rating_mean,rating_std,rating_count", *(f"{row},2.5,0.7,2" for row in rows)])
    (folder / "labels.csv").write_text(text)
    read = read_ratings(folder, rating_columns=["rating_*"])
    assert [row.mos for row in read.rows] == [1.5, 2, 4, 4, 3, 4.5]
    assert any(
        'columns "rating_mean", "rating_std", "rating_count"; name them to take them' in note for note in read.notes
    )
    named = read_ratings(folder, rating_columns=["rating_*", "rating_mean"], scale=(1, 5))
    assert named.rows[0].votes == 3


def test_noise_turns_nobody() -> None:
    rng = np.random.default_rng(1)
    for seed in range(10):
        of, names, _, _ = crossed(12, 5, seed)
        assert len(settle(of, names, rng.uniform(1, 5, len(of)), SCALE)[1]) == 1


def test_means_stay_on_the_scale(folder: Path) -> None:
    lines = ["image,who,mos"]
    for at in range(12):
        Image.new("L", (4, 4), at * 20).save(folder / f"{at}.png")
        mos = 1 + at % 5
        lines += [f"{at}.png,x,{mos}", f"{at}.png,y,{max(mos - 2, 1)}", f"{at}.png,z,{mos}"]
    (folder / "labels.csv").write_text("\n".join(lines))
    read = read_ratings(folder, rater_column="who", scale=(1, 5))
    assert min(row.mos for row in read.rows) >= 1 and max(row.mos for row in read.rows) <= 5


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (LONG, {}, "average the votes .* or let --raters average do it, or --rater-column NAME where a column"),
        (WIDE, {}, "name the column with --rating-column, or those of one rater each with --rating-columns"),
        (LONG, {"raters": "median"}, '--raters: expected "average" or nothing, got "median"'),
        (LONG, {"rater_column": "whom"}, 'expected a rater column "whom", .*did you mean "who"'),
        (WIDE, {"rating_columns": ["judge*"]}, 'such as "judge\\*", found "rater x", "rater y"; correct'),
        (WIDE, {"rating_columns": ["rater x"]}, "columns of at least two raters for --rating-columns, got one"),
        (WIDE, {"rating_columns": ["rater*"], "rating_column": "mos"}, "or --rating-column, got both; leave one"),
        (WIDE, {"rating_columns": ["rater*"], "rater_column": "who"}, "or --rater-column, got both; leave one"),
        (WIDE.replace("d.png,4,", "d.png,,"), {"rating_columns": ["rater*"]}, "by somebody in each row, got 1 without"),
        (WIDE.replace("2,2", "2,x"), {"rating_columns": ["rater*"]}, 'column "rater y": expected numbers, got 1 that'),
    ],
)
def test_what_is_not_asked_for_or_does_not_fit_is_refused(
    text: str, options: dict[str, Any], message: str, folder: Path
) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(GRMPError, match=message):
        read_ratings(folder, **options)


def test_a_picture_in_two_parts_is_refused(folder: Path) -> None:
    lines = [f"{line},{'split' if at == 0 else 'test' if at == 2 else 'train'}" for at, line in enumerate(LONG.split())]
    (folder / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(GRMPError, match=r"each picture in one part of the table, got 1 rows that say another: a\.png"):
        read_ratings(folder, raters="average")
