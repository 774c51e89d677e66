"""Options of a table of ratings reach its reader."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from PIL import Image

from grmp_hf.cli.main import main
from grmp_hf.cli.options import add_rating_options, read_table

LONG = "image,who,mos\n" + "".join(
    f"{at}.png,{who},{1 + (at + 2 * (who == 'y')) % 5}\n" for at in range(6) for who in "xy"
)
WIDE = "image,r1,r2\n" + "".join(f"{at}.png,{1 + at % 5},{1 + (at + 2) % 5}\n" for at in range(6))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (LONG, ["--raters", "average"]),
        (LONG, ["--rater-column", "who"]),
        (WIDE, ["--rating-columns", "r1", "r2"]),
        (WIDE, ["--rating-columns", "r*"]),
    ],
)
def test_several_raters(text: str, options: list[str], tmp_path: Path) -> None:
    for at in range(6):
        Image.new("L", (4, 4), 40 * at).save(tmp_path / f"{at}.png")
    (tmp_path / "labels.csv").write_text(text)
    parser = argparse.ArgumentParser()
    add_rating_options(parser)
    read = read_table(str(tmp_path), parser.parse_args(options))
    assert [row.mos for row in read.rows] == [2, 3, 4, 2.5, 3.5, 2] and {row.votes for row in read.rows} == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--range", "1", "5", "--raters", "average"], "choices without ratings, got --raters, --range beside them"),
        (["--rating-columns", "r*"], "got --rating-columns beside them"),
        ([], "expected a table of choices, found none. Check the spelling"),
    ],
)
def test_choices_come_without_options_of_ratings(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "none.csv"
    assert main(["adapt", "--pairs", str(pairs), "--output", str(tmp_path / "mine"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()
