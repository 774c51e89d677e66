from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import grmp_hf
import grmp_hf.data
from grmp_hf.cli.compare import _score
from grmp_hf.cli.main import main
from grmp_hf.preferring import compare

Run = Callable[..., int]


@pytest.fixture
def run(clip_folder: Path) -> Run:
    return lambda *options: main(["compare", "--model", str(clip_folder), *map(str, options)])


def test_two_pictures_give_a_probability(run: Run, photos: list[Path], clip_folder: Path, capsys) -> None:
    expected = grmp_hf.load(clip_folder).compare(*photos[:2])
    assert run(*photos[:2]) == 0
    said = capsys.readouterr()
    better = photos[0] if expected > 0.5 else photos[1]
    assert said.out.startswith(f"{better} is better with probability {max(expected, 1 - expected):.2f}\n")
    assert "assumed noise of 0.2 in quality: this scorer does not know how sure it is" in said.err
    assert run(*photos[1::-1], "--quiet") == 0  # the order in which they are named does not matter
    again = capsys.readouterr()
    assert again.out.splitlines()[0] == said.out.splitlines()[0] and not again.err


def test_more_of_them_are_ranked(run: Run, photos: list[Path], capsys) -> None:
    assert run(photos[0].parent, "--json", "--noise", 0.1) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["known_by"] == "assumed" and found["noise"] == 0.1 and len(found["pictures"]) == 12
    quality = {row["path"]: row["quality"] for row in found["pictures"]}
    assert found["order"] == sorted(quality, key=lambda path: -quality[path])
    paths = [row["path"] for row in found["pictures"]]
    first, second = (paths.index(path) for path in found["order"][:2])
    assert run(photos[0].parent, "--noise", 0.1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13 and lines[1].split() == [
        "1",
        f"{found['pictures'][first]['score']:.4g}",
        f"{found['chance'][first][second]:.2f}",
        found["order"][0],
    ]
    assert lines[-1].split()[2] == "-"


def test_an_adapter_knows_from_its_ratings(photos: list[Path], adapter_folder: Path, tmp_path: Path, capsys) -> None:
    ratings = photos[0].parent / "ratings.csv"
    ratings.write_text("image,mos\n" + "".join(f"{p.name},{1 + at % 5}\n" for at, p in enumerate(photos)))
    options = ["--range", "1", "5", "--shots", "8", "--output", str(tmp_path / "mine")]
    assert main(["adapt", "--data", str(ratings), *options]) == 0
    capsys.readouterr()
    assert main(["compare", str(photos[0]), str(photos[1]), "--adapter", str(tmp_path / "mine"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["known_by"] == "ratings" and "noise" not in found and 0 < found["chance"][0][1] < 1


def test_scores_far_from_zero_are_told_apart(photos: list[Path], clip_folder: Path) -> None:
    scorer = dataclasses.replace(grmp_hf.load(clip_folder), scale=grmp_hf.data.RatingScale(1e6, 1e6 + 1))
    found = compare(scorer, photos[:2])
    shown = [float(_score(found, at, scorer.unit)) for at in (0, 1)]
    assert shown == pytest.approx(found.scores.score.tolist(), rel=0, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "the following arguments are required: PATH, or --list FILE"),
        (("{0}",), "expected at least two different pictures to compare, got 1"),
        (("{0}", "{0}"), "expected at least two different pictures to compare, got 1"),
        (("{0}", "{1}", "--noise", "0"), "--noise: expected a deviation above 0, such as 0.2, got 0"),
        (("{0}", "missing.jpg"), "missing.jpg"),
    ],
)
def test_what_cannot_be_compared(given: tuple[str, ...], message: str, run: Run, photos: list[Path], capsys) -> None:
    assert run(*(word.format(*photos) for word in given)) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out
