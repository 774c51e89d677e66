"""Files of YAML that say what is to be done: recipes, those inside the package among them, and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from grmp_hf.errors import GRMPError

__all__ = ["find_recipe", "read_yaml", "recipe_names", "whose_keys"]

_TAKEN_BY = {
    "adapt": "grmp-iqa adapt",
    "diffusion": "grmp_hf.diffusion.fitting.adapt_diffusion",
    "high_level": "training/grepq.py high",
    "loda": "examples/loda.py, or grmp_hf.training.local_features.adapt_locally",
    "low_level": "training/grepq.py low",
    "lpf": "grmp_hf.training.two_stream.adapt_streams",
    "pretrain": "grmp-iqa pretrain",
    "stream": "grmp-iqa stream",
    "student": "grmp_hf.training.distilling.adapt_student",
}


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


def whose_keys(keys: Iterable[str]) -> str:
    """Advice about keys that a recipe does not have: what takes them, where they are those of one other stage.

    >>> whose_keys(["up", "start", "head"])
    ' They are those of examples/loda.py, or grmp_hf.training.local_features.adapt_locally: give them to that.'
    >>> whose_keys(["stepz"])
    ''
    """
    given = set(keys)
    stages = [stage for stage in _TAKEN_BY if given and given <= _keys(stage)]
    return f" They are those of {_TAKEN_BY[stages[0]]}: give them to that." if len(stages) == 1 else ""


def _keys(stage: str) -> set[str]:
    """Of the recipes inside the package for a stage."""
    paths = (find_recipe(stage, name) for name in recipe_names(stage))
    return {"bf16"}.union(*(read_yaml(path, "a recipe") for path in paths))


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
