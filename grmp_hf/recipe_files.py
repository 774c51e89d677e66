"""Files of YAML that say what is to be done: recipes, those inside the package among them, and benchmarks."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from grmp_hf.errors import GRMPError

__all__ = ["find_recipe", "read_yaml", "recipe_names"]


def recipe_names(stage: str) -> list[str]:
    """Names of the recipes inside the package for "adapt", "pretrain" or "stream"."""
    found = (path.name for path in files("grmp_hf").joinpath("recipes").iterdir())
    return sorted(n.removeprefix(f"{stage}_").removesuffix(".yaml") for n in found if n.startswith(f"{stage}_"))


def find_recipe(stage: str, wanted: str | Path) -> Path:
    """The file of a recipe.

    Args:
        stage: "adapt", "pretrain" or "stream".
        wanted: name of a recipe inside the package, or a file.

    Raises:
        GRMPError: neither.
    """
    known = recipe_names(stage)
    if str(wanted) in known:
        return Path(str(files("grmp_hf").joinpath("recipes", f"{stage}_{wanted}.yaml")))
    if not Path(wanted).is_file():
        raise GRMPError(f"recipe {wanted}: expected a file, or one of {', '.join(known)}; check the spelling")
    return Path(wanted)


def read_yaml(path: str | Path, what: str) -> Any:
    """What a file of YAML holds.

    Args:
        path: the file.
        what: that is expected in it, for the message.

    Raises:
        GRMPError: no such file, or no YAML in it.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GRMPError(f"{path}: expected {what} in YAML, got: {error}") from error
