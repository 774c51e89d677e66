"""Choices become values: by hand, with ties, cycles and pictures that nothing connects; and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import brentq
from scipy.stats import spearmanr

from grmp_hf.data import read_pairs, relative_noise
from grmp_hf.data.pairs import fit_choices
from grmp_hf.errors import GRMPError

NAMES = [f"{letter}.png" for letter in "abcdef"]
CHAIN = "better,worse\n" + "".join(f"{one},{other}\n" for one, other in pairwise(NAMES))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for grey, name in enumerate(NAMES):
        Image.new("L", (4, 4), grey * 40).save(tmp_path / name)
    return tmp_path


def fit(*choices: tuple[int, int, float], pictures: int) -> tuple[np.ndarray, np.ndarray]:
    first, second, share = (np.array(part) for part in zip(*choices, strict=True))
    return fit_choices(first, second, share.astype(float), pictures)


def test_one_choice_by_hand() -> None:
    values, variances = fit((0, 1, 1.0), pictures=2)
    x = brentq(lambda x: x / 1.5**2 - 1 / (1 + np.exp(2 * x)), 0, 5)
    assert values == pytest.approx([x, -x], abs=1e-6)
    chance = 1 / (1 + np.exp(-2 * x))
    weight, own = chance * (1 - chance), 1.5**-2
    # Of the matrix [[own + weight, -weight], [-weight, own + weight]].
    assert variances == pytest.approx(2 * [(own + weight) / ((own + weight) ** 2 - weight**2)], rel=1e-5)


def test_ties_are_half_a_choice_for_either() -> None:
    tied, split = fit((0, 1, 0.5), (0, 1, 0.5), pictures=2), fit((0, 1, 1), (1, 0, 1), pictures=2)
    assert tied[0] == pytest.approx([0, 0], abs=1e-9) and tied[0] == pytest.approx(split[0], abs=1e-9)
    np.testing.assert_allclose(tied[1], split[1])


def test_cycles_and_what_nothing_connects_do_no_harm() -> None:
    values, variances = fit((0, 1, 1), (1, 2, 1), (2, 0, 1), (3, 4, 1), pictures=6)
    assert values[:3] == pytest.approx([0, 0, 0], abs=1e-6) and values[3] == pytest.approx(-values[4], abs=1e-6)
    assert values[5] == 0 and variances[5] == pytest.approx(1.5**2)
    assert variances[0] < variances[3] < variances[5]


def test_a_picture_that_always_wins_stays_finite() -> None:
    values, _ = fit(*[(0, 1, 1.0)] * 1000, pictures=2)
    assert 2 < values[0] < 5


def test_values_of_drawn_choices_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    first, second = rng.integers(60, size=(2, 1500))
    first, second = first[first != second], second[first != second]
    share = (rng.uniform(size=len(first)) < 1 / (1 + np.exp(truth[second] - truth[first]))).astype(float)
    values, variances = fit_choices(first, second, share, 60)
    assert spearmanr(values, truth)[0] > 0.9
    off = (values - values.mean() - truth + truth.mean()) / np.sqrt(variances)
    assert 0.7 < off.std() < 1.3


LAYOUTS = {
    "better, worse": CHAIN,
    "winner; loser": CHAIN.replace("better,worse", "Winner,Loser").replace(",", ";"),
    "a, b, choice": "a,b,choice\n" + "".join(f"{y},{x},b\n" for x, y in pairwise(NAMES)),
    "left, right": "left,right,answer\n" + "".join(f"{x},{y},Left\n" for x, y in pairwise(NAMES)),
    "names": "a,b,winner\n" + "".join(f"{y},{x},{x}\n" for x, y in pairwise(NAMES)),
    "numbers": "image_1,image_2,choice\n" + "".join(f"{x},{y},1\n" for x, y in pairwise(NAMES)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_quality(layout: str, folder: Path) -> None:
    (folder / "pairs.csv").write_text(LAYOUTS[layout])
    read = read_pairs(folder / "pairs.csv")
    quality = {row.name: row.quality for row in read.rows}
    assert sorted(quality, key=quality.__getitem__, reverse=True) == NAMES
    assert all(0 < value < 1 for value in quality.values())
    assert quality["a.png"] == pytest.approx(1 - quality["f.png"], abs=1e-6)
    assert len(read) == 6 and all(0 < (row.mos_std or 0) < 0.5 for row in read.rows)
    assert (read.scale.low, read.scale.high) == (0, 1) and read.rows[0].mos == read.rows[0].quality
    assert any("5 choices between 6 pictures, 0 of them ties" in note for note in read.notes)


def test_pictures_of_many_choices_are_surer(folder: Path) -> None:
    (folder / "pairs.csv").write_text(CHAIN + "c.png,d.png\nd.png,c.png\n" * 20)
    read = read_pairs(folder / "pairs.csv")
    noise = dict(zip([row.name for row in read.rows], relative_noise(read.rows, read.scale), strict=True))
    assert noise["c.png"] < noise["a.png"] and noise["d.png"] < noise["f.png"]


def test_circles_are_allowed_and_told(folder: Path) -> None:
    (folder / "pairs.csv").write_text(CHAIN + "c.png,a.png\n")
    read = read_pairs(folder / "pairs.csv")
    assert any("choices go in circles among 3 pictures, which is allowed" in note for note in read.notes)
    assert ("c.png", "a.png", 1.0) in read.choices and len(read.choices) == 6
    (folder / "pairs.csv").write_text(CHAIN)
    assert not any("go in circles" in note for note in read_pairs(folder / "pairs.csv").notes)


def test_ties_and_separate_groups_are_told(folder: Path) -> None:
    (folder / "pairs.csv").write_text("a,b,choice\na.png,b.png,a\nb.png,c.png,tie\nd.png,e.png,=\n")
    read = read_pairs(folder / "pairs.csv", images=folder)
    assert any("3 choices between 5 pictures, 2 of them ties" in note for note in read.notes)
    assert any("2 groups of pictures that no choice connects" in note for note in read.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("better,worse\n", "expected rows below the header, got none"),
        ("", "got an empty file"),
        ("picture,grade\na.png,2\n", 'expected columns "better" and "worse", or "a", "b" and "choice", found picture'),
        (CHAIN + "a.png,x.png\n", r'1 of 7 pictures not found in .*: "x\.png" \(line 7\)'),
        (CHAIN + "a.png,A.PNG\n", "1 of a picture against itself: line 7; remove these lines"),
        (CHAIN + "a.png,\n", 'column "worse": expected the name of a picture in each row, got 1 without: line 7'),
        ("better,worse\na.png,b.png\n", "at least 5 pictures, got 2; compare more"),
        ("a,b,choice\na.png,b.png,0\n", 'or tie, got 1 others: "0" in line 2; correct them'),
        (CHAIN.replace("better,worse", "a,b,choice").replace("png\n", "png,tie\n"), "tell pictures apart, got none"),
    ],
)
def test_what_says_nothing_is_refused(text: str, message: str, folder: Path) -> None:
    (folder / "pairs.csv").write_text(text)
    with pytest.raises(GRMPError, match=message):
        read_pairs(folder / "pairs.csv")


def test_a_table_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(GRMPError, match="expected a table of choices between pictures, found no such file"):
        read_pairs(folder / "none.csv")


@pytest.mark.parametrize(("count", "told"), [("7", True), ("1", False)])
def test_a_column_of_counts_is_said_to_be_passed_over(count: str, told: bool, folder: Path) -> None:
    lines = CHAIN.splitlines()
    text = "\n".join([f"{lines[0]},count", *(f"{line},{count}" for line in lines[1:])])
    (folder / "pairs.csv").write_text(text)
    notes = read_pairs(folder / "pairs.csv").notes
    assert any('"count" is not used: a row is one choice; repeat rows' in note for note in notes) is told
