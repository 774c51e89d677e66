from __future__ import annotations

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
        (["score", "a.jpg", "--adaptr", "x"], "unknown option '--adaptr'; did you mean '--adapter'?"),
        (["score", "a.jpg", "--adap", "x"], "unknown option '--adap'; did you mean '--adapter'?"),
        (["adapt", "--data", "x", "-o", "y", "--shot=50"], "unknown option '--shot'; did you mean '--shots'?"),
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
    assert "interrupted" in capsys.readouterr().err
