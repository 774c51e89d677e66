"""Options of a table of ratings reach its reader."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from grmp_hf.cli.main import main
from grmp_hf.cli.options import add_rating_options, listed, read_table
from grmp_hf.errors import GRMPError

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


@pytest.mark.parametrize(
    "encode",
    [
        lambda names: "\n".join(names).encode(),
        lambda names: "\r\n".join(names).encode("utf-8-sig"),
        lambda names: "\n".join(names).encode("utf-16"),
        lambda names: "\n\n".join(names).encode("utf-16-le"),
        lambda names: "".join(f"{name}\0" for name in names).encode(),
    ],
    ids=["plain", "UTF-8 with a mark", "UTF-16 with a mark", "UTF-16", "between NULs"],
)
def test_lists_are_read_in_any_encoding_and_from_standard_input(
    encode: Callable[[list[str]], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["photos/\u00e9t\u00e9.jpg", "photos/a b.jpg", "photos/[1].jpg"]
    content = encode(names)
    (tmp_path / "list").write_bytes(content)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert listed(tmp_path / "list") == listed(Path("-")) == names


def test_names_between_nul_may_hold_line_breaks_and_odd_bytes_stay(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a\nb.jpg\0c\xe9.jpg\0")
    assert listed(tmp_path / "list") == ["a\nb.jpg", "c\udce9.jpg"]
    (tmp_path / "list").write_bytes(b"\xff\xfea")
    with pytest.raises(GRMPError, match=r"--list .*: expected UTF-16 text, got .*; save it as UTF-8"):
        listed(tmp_path / "list")
