"""Advice that names an option names one that exists where the advice is given."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

import pytest

import grmp_hf
from grmp_hf.cli.main import build_parser

PACKAGE = Path(grmp_hf.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FOREIGN = {
    "--upgrade",
    "--no-deps",
    "--local-dir",
    "--ink",
    "--faint",
    "--grid",
    "--paper",
}  # of pip and hf, and colours


def options() -> set[str]:
    """Options of the command line, of all its commands."""

    def found(parser: argparse.ArgumentParser) -> set[str]:
        own = {option for action in parser._actions for option in action.option_strings}
        inner = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        return own.union(*(found(child) for choices in inner for child in choices.values()))

    return found(build_parser())


def named(path: Path) -> set[str]:
    """Options in the texts of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {option.rstrip("-") for text in texts for option in OPTION.findall(text)} - FOREIGN


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_options_in_texts_exist(path: Path) -> None:
    assert named(path) <= options()


def test_no_text_promises_what_there_is_no_option_for() -> None:
    texts = " ".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for promise in ("raise the limit", "increase max_pixels"):
        assert promise not in texts
