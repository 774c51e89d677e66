"""The documents agree with the repository: links lead somewhere, names, options and figures are right, examples run."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert not [target for target in local if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert not named - targets


def test_every_public_name_is_documented() -> None:
    import grmp_hf

    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert not [name for name in grmp_hf.__all__ if name not in text]


def code_blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_every_option_of_every_command_is_documented() -> None:
    from grmp_hf.cli.main import build_parser

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    actions = build_parser()._actions
    commands = next(action.choices for action in actions if isinstance(action, argparse._SubParsersAction))
    assert not [name for name in commands if f"`grmp-iqa {name} " not in text]
    options = {o for parser in commands.values() for action in parser._actions for o in action.option_strings}
    assert not [option for option in sorted(options - {"-h", "--help"}) if f"`{option}" not in text]


def test_functions_and_tests_named_in_the_method_exist() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:grmp_hf|tests)/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 30
    for path, name in named:
        assert re.search(rf"^ *(?:def|class) {name or ''}", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
            name
        )


def test_figures_are_those_of_the_results() -> None:
    done = subprocess.run([sys.executable, "benchmarks/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run python benchmarks/tables.py: {done.stdout}{done.stderr}"


BENCHMARKS = sorted((ROOT / "benchmarks").glob("bench_*.py"))
_ASK = """
import contextlib, io, json, pathlib, runpy, sys, traceback

found = {}
for script in sys.argv[1:]:
    said, ended = io.StringIO(), "no end"
    before, sys.argv, sys.path[0] = sys.argv, [script, "--help"], str(pathlib.Path(script).parent)
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            ended = end.code
        except BaseException:
            ended = traceback.format_exc()
    sys.argv, found[pathlib.Path(script).name] = before, [ended, said.getvalue()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[object, str]]:
    """Name of each benchmark -> how it ends when it is asked for help, and what it says; all of one process."""
    command = [sys.executable, "-c", _ASK, *map(str, BENCHMARKS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda path: path.name)
def test_benchmarks_say_what_they_do(script: Path, helps: dict[str, tuple[object, str]]) -> None:
    ended, said = helps[script.name]
    assert ended in (0, None) and script.name in said, ended


@pytest.fixture(scope="module")
def folder_of_the_readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the README's examples run: `photos/` with sixty rated pictures, as the examples expect."""
    folder = tmp_path_factory.mktemp("readme")
    script = ROOT / "training" / "make_demo_pictures.py"
    subprocess.run([sys.executable, str(script), str(folder / "photos"), "--count", "60"], check=True)
    return folder


def test_the_commands_of_the_readme_run(folder_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grmp_hf.cli.main import main

    monkeypatch.chdir(folder_of_the_readme)
    lines = [line for block in code_blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("grmp-iqa ")]
    assert len(commands) == 3
    for command in commands:
        assert main(command) == 0, command
    assert len(Path("scores.csv").read_text(encoding="utf-8").splitlines()) == 61
    for name, picture in zip(("a.jpg", "b.jpg"), sorted(Path("photos/images").iterdir()), strict=False):
        shutil.copy(picture, name)
    for example in code_blocks(ROOT / "docs" / "quickstart.md", "python"):
        exec(compile(example, "quickstart.md", "exec"), {})


def test_the_python_example_of_the_readme_runs(
    folder_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder_of_the_readme)
    shutil.copy(min(Path("photos/images").iterdir()), "new.jpg")
    (example,) = code_blocks(ROOT / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    assert 1 <= float(re.search(r"^\[(\d\.\d+)\]$", capsys.readouterr().out, re.MULTILINE)[1]) <= 5  # type: ignore[index]
    assert len(ast.parse(example).body) <= 6


def test_the_readme_is_short_and_its_picture_small() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
    assert (ROOT / "docs" / "figures" / "scatter.png").stat().st_size < 100_000


def test_the_recipes_of_the_map_run(folder_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder_of_the_readme)
    names: dict[str, object] = {"__name__": "recipes"}
    for example in code_blocks(ROOT / "docs" / "architecture.md", "python"):
        exec(compile(example, "architecture.md", "exec"), names)


def test_every_module_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### `grmp_hf/(?:(\w+)/)?`\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))
    paths = [path.relative_to(ROOT / "grmp_hf").parts for path in sorted((ROOT / "grmp_hf").rglob("*.py"))]
    parts = [("" if len(path) == 1 else path[0], "/".join(path[1:] or path)) for path in paths]
    missing = [f"{part}/{name}" for part, name in parts if f"| `{name}` |" not in sections.get(part, "")]
    assert not missing, "each needs a line in docs/architecture.md"


def test_sections_named_in_links_exist() -> None:
    """Of the documents that decisions refer to."""
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"experiments\.md#([\w-]+)", text)) <= anchors
