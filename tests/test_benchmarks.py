"""How the benchmarks write what they have measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def measuring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_measuring", ROOT / "benchmarks" / "measuring.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_results_have_one_row_a_line(path: Path, measuring: ModuleType) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == measuring.one_row_a_line(json.loads(text)) + "\n"


def test_a_row_is_what_holds_no_other(measuring: ModuleType) -> None:
    report = {"bound": 1.0, "rows": [{"what": "a", "values": [1, 2]}, {"what": "b", "values": []}], "of": {"x": 1}}
    assert measuring.one_row_a_line(report).splitlines() == [
        "{",
        ' "bound": 1.0,',
        ' "rows": [',
        '  {"what": "a", "values": [1, 2]},',
        '  {"what": "b", "values": []}',
        " ],",
        ' "of": {"x": 1}',
        "}",
    ]


@pytest.mark.parametrize("value", [{}, [], [[], {}], {"a": [{"b": {"c": [1.5, None, True, "é"]}}]}, [[1], [{"d": 2}]]])
def test_no_layout_changes_the_content(value: object, measuring: ModuleType) -> None:
    assert json.loads(measuring.one_row_a_line(value)) == value
