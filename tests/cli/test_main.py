from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import grmp_hf
from grmp_hf.cli import score
from grmp_hf.cli.main import main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("adapt", "score", "evaluate", "convert", "push"):
        assert f"    {command} " in text
        assert main([command, "--help"]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"grmp-iqa {grmp_hf.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scor"], "unknown command 'scor'; did you mean 'score'?; known are adapt, score"),
        (["x"], "unknown command 'x'; known are"),
        (["convert", "a.pt", "b", "c"], "did not expect 'c' here; see grmp-iqa convert --help"),
        (["adapt", "c", "--data", "x", "-o", "y"], "did not expect 'c' here; see grmp-iqa adapt --help"),
        (["score", "a.jpg", "--adaptr", "x"], "unknown option '--adaptr'; did you mean '--adapter'?"),
        (["score", "a.jpg", "--adap", "x"], "unknown option '--adap'; did you mean '--adapter'?"),
        (["adapt", "--data", "x", "-o", "y", "--shot=50"], "unknown option '--shot'; did you mean '--shots'?"),
        (["adapt", "--data", "x", "-o", "y", "--scale", "0", "100"], "did you mean '--range'?"),
        (["score"], "required: PATH"),
        (["score", "a.jpg", "--batch-size", "0"], "expected at least 1, got 0"),
        (["score", "a.jpg", "--format", "xml"], "invalid choice: 'xml'"),
        ([], "usage: grmp-iqa"),
    ],
)
def test_wrong_use_is_two_with_a_hint(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert not streams.out


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "nowhere/"]) == 2
    assert capsys.readouterr().err == (
        'grmp-iqa: error: "nowhere/" is neither a file nor a folder; check the spelling\n'
    )


def test_an_interruption_is_no_stack_trace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "run", interrupted)
    assert main(["score", "a.jpg"]) == 130
    assert capsys.readouterr().err == "grmp-iqa: interrupted\n"  # nothing is kept of what was printed
    assert main(["score", "a.jpg", "--output", "a.csv"]) == 130
    assert capsys.readouterr().err == "grmp-iqa: interrupted; the same command goes on from here\n"


def shell(command: str, *arguments: object) -> subprocess.Popen[str]:
    """A command line at work, `{}` in it for the program and its arguments."""
    words = [shlex.quote(str(argument)) for argument in arguments]
    program = f"{shlex.quote(sys.executable)} -m grmp_hf.cli.main"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(["bash", "-c", command.format(program, *words)], text=True, **pipes)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_an_output_that_is_full_closed_or_not_read_is_one_line_or_none(clip_folder: Path, photos: list[Path]) -> None:
    score = "{} score --model {} {} --quiet"
    full = shell(f"{score} > /dev/full", clip_folder, photos[0])
    closed = shell(f"{score} >&-", clip_folder, photos[0])
    unread = shell(f"set -o pipefail; {score} | true", clip_folder, photos[0].parent)
    said = full.communicate()[1]
    assert full.returncode == 2 and said.count("\n") == 1 and "No space left on device" in said
    assert not closed.communicate()[1] and closed.returncode == 0
    assert not unread.communicate()[1] and unread.returncode in (0, 141)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted")
def test_a_folder_that_is_gone_is_named_and_not_the_output(
    clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    away = "cd {1} && rmdir {1} && {0} score --model {2} {3} --quiet"
    (tmp_path / "gone").mkdir()
    command = away.format("{}", tmp_path / "gone", clip_folder, photos[0])
    run = shell(command)
    said = run.communicate()[1]
    assert run.returncode == 2 and said.count("\n") == 1
    assert "got one that was deleted or replaced since; change into one" in said


def test_a_device_that_is_not_there_is_one_line(clip_folder: Path, photos: list[Path]) -> None:
    done = shell("{} score --model {} {} --device cuda:7", clip_folder, photos[0])
    said = done.communicate()[1]
    assert done.returncode == 2 and said.count("\n") == 1 and "cuda:7" in said
