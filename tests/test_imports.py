"""Which way imports may point, which names are public, and what importing the package costs."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "grmp_hf"

# part -> the parts of grmp_hf that it may import besides itself and grmp_hf.errors; parts not named here may import all
ALLOWED: dict[str, set[str]] = {
    "adapter_files": {"embedded", "modeling", "places", "record"},
    "cards": {"data", "places", "record"},
    "benchmark": {
        *("cards", "claims", "combining", "comparing", "data", "embedded", "evaluation", "features"),
        *("hub", "learning", "measuring", "modeling", "outputs", "pictures", "places", "recipe_files", "saving"),
        *("scoring", "scratch", "storing", "streaming", "tasks", "teaching", "training", "views"),
    },
    "claims": {"storing"},
    "combining": {
        *("adapter_files", "data", "hub", "learning", "modeling", "record", "saving", "scoring", "scratch", "views"),
    },
    "comparing": {"data", "evaluation", "modeling", "scoring", "views"},
    "contrasting": {"data", "families", "learning", "modeling", "scoring", "teaching", "training"},
    "data": {"places", "record", "scratch"},
    "diffusion": {"data", "modeling", "saving", "scoring", "training"},
    "embedded": set(),
    "errors": set(),
    "evaluation": set(),
    "explaining": {"modeling"},
    "families": {"data", "storing"},
    "features": {"data", "evaluation", "modeling", "saving", "scoring", "storing", "views"},
    "judging": {"data", "evaluation", "modeling", "scoring", "storing", "views"},
    "hub": {"adapter_files", "data", "modeling", "outputs", "places", "pushing", "record", "saving", "scoring"},
    "learning": {
        *(
            "claims",
            "data",
            "embedded",
            "evaluation",
            "modeling",
            "record",
            "saving",
            "scoring",
            "scratch",
            "storing",
            "tasks",
            "teaching",
            "training",
        ),
    },
    "modeling": {"embedded", "record"},
    "outputs": {"claims", "storing"},
    "pictures": {"data"},
    "pipelines": {"data", "explaining", "hub", "modeling", "pictures", "record", "scoring"},
    "places": {"embedded"},
    "preferring": {"modeling", "pictures", "scores", "scoring", "views"},
    "pushing": {"cards", "embedded", "places", "record"},
    "recipe_files": set(),
    "record": set(),
    "saving": {"cards", "data", "embedded", "modeling", "places", "record", "scoring", "scratch", "storing"},
    "scores": set(),
    "scoring": {"data", "explaining", "modeling", "pictures", "preferring", "record", "saving", "scores", "views"},
    "scratch": {"storing"},
    "storing": set(),
    "streaming": {
        *("adapter_files", "claims", "combining", "data", "hub", "judging", "learning", "modeling", "record"),
        *("saving", "scoring", "storing", "teaching", "training"),
    },
    "suggesting": {"data", "modeling", "pictures", "scoring", "training", "views"},
    "tasks": {"data", "modeling", "training"},
    "teaching": {"data", "scoring", "training", "views"},
    "training": {"record", "claims", "modeling", "recipe_files"},
    "views": {"data"},
}
PUBLIC = [
    "FewShotRecipe",
    "GRMPConfig",
    "GRMPForImageQualityAssessment",
    "GRMPImageProcessor",
    "GRMPPromptConfig",
    "GRMPPromptModel",
    "GRMPTrainer",
    "GRMPTrainingArguments",
    "Scorer",
    "__version__",
    "adapt",
    "krcc",
    "load",
    "load_iqa_dataset",
    "plcc",
    "read_ratings",
    "srcc",
]


def imported_parts(source: str, module: str, is_package: bool = False) -> set[str]:
    """Parts of grmp_hf (second word of the dotted name; "" for the package itself) that a module's source imports.

    `module` is the dotted name of the module, needed to resolve relative imports. Imports inside functions count too.
    """
    home = module.split(".") if is_package else module.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{origin}.{alias.name}" if origin == "grmp_hf" else origin for alias in node.names)
    return {[*name.split("."), ""][1] for name in names if name.split(".")[0] == "grmp_hf"}


def module_name(path: Path) -> str:
    """Dotted name of a source file below the project's root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def guarded_files() -> list[Path]:
    """Source files of the parts whose imports are limited."""
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.relative_to(PACKAGE).parts[0].removesuffix(".py") in ALLOWED]


@pytest.mark.parametrize("path", guarded_files(), ids=module_name)
def test_imports_point_the_allowed_way(path: Path) -> None:
    name = module_name(path)
    part = name.split(".")[1]
    found = imported_parts(path.read_text(encoding="utf-8"), name, is_package=path.name == "__init__.py")
    forbidden = found - ALLOWED[part] - {part, "errors"}
    assert not forbidden, f"{name} imports {sorted(forbidden)}; {part} may import {sorted(ALLOWED[part] | {'errors'})}"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import torch, grmp_hf.data.columns", {"data"}),
        ("from grmp_hf import load, errors", {"load", "errors"}),
        ("from .functional import f", {"modeling"}),
        ("from . import functional", {"modeling"}),
        ("from ..data import columns", {"data"}),
        ("from .. import data", {"data"}),
        ("def f():\n    from grmp_hf.cli.main import main", {"cli"}),
        ("import grmp_hf", {""}),
    ],
)
def test_every_form_of_import_is_seen(source: str, parts: set[str]) -> None:
    assert imported_parts(source, "grmp_hf.modeling.prompts") == parts


@pytest.mark.parametrize("folder", ["modeling", "training"])
def test_script_folders_are_not_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_public_names_are_pinned() -> None:
    import grmp_hf

    assert sorted(grmp_hf.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(grmp_hf, name) is not None
        assert name in dir(grmp_hf)
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = grmp_hf.no_such_name


def test_version_has_one_value() -> None:
    import grmp_hf

    assert grmp_hf.__version__ == importlib.metadata.version("grmp_hf")


def modules_after(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter holds after a statement."""
    script = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    ours = modules_after("import grmp_hf")
    allowed = modules_after("import transformers")
    heavy = {"torch", "peft", "datasets", "accelerate", "scipy", "matplotlib", "pandas", "PIL"}
    assert not (ours & heavy) - allowed
    assert not {name for name in ours - allowed if name.startswith("transformers.") and "modeling_" in name}


def test_asking_for_help_loads_nothing_heavy() -> None:
    help_text = "import contextlib, grmp_hf.cli.main as cli\nwith contextlib.suppress(SystemExit): cli.main(['--help'])"
    assert not modules_after(help_text) & {"torch", "transformers", "peft", "datasets", "scipy", "matplotlib", "numpy"}
