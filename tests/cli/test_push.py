from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grmp_hf import pushing
from grmp_hf.cli.main import main


@pytest.mark.parametrize(("options", "private"), [([], True), (["--public"], False)])
def test_the_options_reach_the_client(
    options: list[str], private: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, Any] = {}

    def push(folder: Path, repo: str, **given: Any) -> str:
        told.update(folder=folder, repo=repo, **given)
        return "https://example.org/commit/1"

    monkeypatch.setattr(pushing, "push", push)
    assert main(["push", "mine", "owner/mine", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": "https://example.org/commit/1"}
    assert told == {"folder": Path("mine"), "repo": "owner/mine", "private": private, "revision": None}


def test_nothing_to_push(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(tmp_path), "owner/mine"]) == 2
    assert "found neither" in capsys.readouterr().err
