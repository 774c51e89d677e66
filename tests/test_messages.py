"""Advice that names an option names one that exists where the advice is given."""

from __future__ import annotations

import argparse
import ast
import configparser
import pkgutil
import re
from pathlib import Path

import pytest

import grmp_hf
from grmp_hf.cli.main import build_parser

PACKAGE = Path(grmp_hf.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
PYTHON = re.compile(r"grmp_hf(?:\.[A-Za-z_]\w*)+")
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


def test_extras_in_texts_exist_and_are_named_in_one_way() -> None:
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py"))
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    named = {name for text in texts if isinstance(text, str) for name in re.findall(r"pip install '(.*?)'", text)}
    wanted = {f"grmp_hf[{extra}]" for extra in setup["options.extras_require"]}
    assert len(named) > 4 and {name for name in named if "[" in name} <= wanted


def test_python_names_in_refusals_exist() -> None:
    for path in PACKAGE.rglob("*.py"):
        raised = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Raise)]
        texts = [n.value for node in raised for n in ast.walk(node) if isinstance(n, ast.Constant)]
        for name in {name for text in texts if isinstance(text, str) for name in PYTHON.findall(text)}:
            assert pkgutil.resolve_name(name) is not None
