"""What commands print has one line a text and no sign that moves a cursor or colours, whatever names hold."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from grmp_hf.cli.main import main
from grmp_hf.cli.progress import Progress

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names cannot hold such signs there")
ODD = "a\nb\x1b[31mc"


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    """A folder with an odd name: eight rated pictures with such names, and one that is damaged."""
    folder = tmp_path / ODD
    folder.mkdir()
    rows = ["image,mos"]
    for number in range(8):
        Image.effect_noise((48, 48), 10 * number).convert("RGB").save(folder / f"{ODD}{number}.png")
        rows.append(f'"{ODD}{number}.png",{1 + number / 2}')
    (folder / f"{ODD}bad.png").write_bytes(b"no picture")
    (folder / "ratings.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def clean(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, once it is clear that no line of it is a piece of a name and no escape is left."""
    streams = capsys.readouterr()
    text = streams.out + streams.err
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("b")]  # the piece after the end of a line
    return text


def test_names_in_what_is_printed(rated: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shutil.copytree(clip_folder, rated.parent / f"{ODD}model")
    scores = rated.parent / f"{ODD}.csv"
    assert main(["score", str(rated), "--model", str(model)]) == 1
    assert r"a\nb\x1b[31mc0.png" in clean(capsys)
    assert main(["score", str(rated), "--model", str(model), "--output", str(scores)]) == 1
    assert "1 of 9 pictures could not be scored" in clean(capsys)
    assert main(["evaluate", str(rated), "--model", str(model)]) == 0
    assert main(["evaluate", str(rated), "--scores", str(scores)]) == 0
    assert "SRCC" in clean(capsys)
    assert main(["bake", "--model", str(model), str(rated / ODD)]) == 0
    assert r"a\nb\x1b[31mc" in clean(capsys)


@pytest.mark.parametrize(
    "command",
    [
        ["score", ODD],
        ["score", "--list", ODD],
        ["score", "--output", "x.csv", "--adapter", f"./{ODD}", "y.png"],
        ["adapt", "--data", f"./{ODD}", "--output", ODD],
        ["adapt", "--recipe", ODD, "--data", ".", "--output", ODD],
        ["evaluate", f"./{ODD}"],
        ["evaluate", ".", "--scores", ODD],
        ["pretrain", "--photos", ODD, "--output", ODD],
        ["benchmark", ODD],
        ["data", "check", "koniq10k", ODD],
        ["data", "check", ODD, "."],
        ["convert", ODD, ODD],
        ["bake", "--adapter", f"./{ODD}", ODD],
        ["push", ODD, "me/mine"],
        ["push", ".", ODD],
        [ODD],
        ["score", f"--{ODD}", "x"],
    ],
    ids=lambda words: "-".join(words).encode("unicode_escape").decode(),
)
def test_names_in_what_is_refused(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratings.csv").write_text("image,mos\n", encoding="utf-8")
    assert main(command) == 2
    assert "error: " in clean(capsys)


def test_blanks_in_a_name_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "two  blanks"]) == 2
    assert '"two  blanks"' in capsys.readouterr().err


def test_names_in_progress(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("benchmark", 0).tell(ODD, 1.0)
    assert capsys.readouterr().err == "benchmark: a\\nb\\x1b[31mc, 100%\n"
