"""What no recipe can hold is refused in one line: from Python, in a mapping, and from a file."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import grmp_hf.diffusion
import grmp_hf.training
from grmp_hf.benchmark.choosing import make_methods
from grmp_hf.benchmark.config import MethodConfig
from grmp_hf.errors import GRMPError
from grmp_hf.hub import load
from grmp_hf.training.recipes import Recipe, make_recipe

for package in (grmp_hf.training, grmp_hf.diffusion):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
KINDS: list[Any] = sorted(Recipe.__subclasses__(), key=lambda kind: kind.__name__)
WORD = "no-such-word"


def wrong_values(kind: Any) -> Iterator[tuple[str, Any, str]]:
    """Names of a recipe, values that they cannot have, and what is said of them."""
    for field in dataclasses.fields(kind):
        name, default = field.name, field.default
        if isinstance(default, bool) or name == "bf16":
            wrong: list[tuple[Any, str]] = [("maybe", "'maybe'"), (1, "got 1")]
        elif isinstance(default, int):
            wrong = [(2.5, "of type int"), ("2", "of type int"), (True, "of type int"), (-1, "of at least")]
        elif isinstance(default, float):
            wrong = [("1e-3", "write 0.001"), ("heavy", "'heavy'"), (True, "of type float"), (-5, "got -5")]
            wrong += [(float("nan"), "got nan"), (float("inf"), "got inf")]
        elif isinstance(default, str):
            wrong = [(WORD, "out of"), (3, "out of")]
        elif default is None:
            wrong = [(1.5, "of type"), (0, "of at least 1")]
        else:
            wrong = [(3, "of type tuple"), ([3], "of type tuple")]
        wrong += [(0, "above 0")] if name in kind.above_0 else []
        wrong += [(1, "below 1"), (3, "below 1")] if name in ("dropout", "prompt_dropout", "held_out_share") else []
        yield from ((name, value, said) for value, said in wrong)


def from_python(kind: Any, values: dict[str, Any], folder: Path) -> Any:
    return kind(**values)


def in_place(kind: Any, values: dict[str, Any], folder: Path) -> Any:
    return make_recipe(kind, values)


def from_a_file(kind: Any, values: dict[str, Any], folder: Path) -> Any:
    (value,) = values.values()
    numbers = {"nan": ".nan", "inf": ".inf"}
    text = numbers.get(str(value)) or json.dumps(value)
    (folder / "recipe.yaml").write_text(f"{next(iter(values))}: {text}\n")
    return kind.from_yaml(folder / "recipe.yaml")


def test_all_recipes_are_here() -> None:
    stages = {kind.stage for kind in KINDS}
    assert stages == {"adapt", "pretrain", "stream", "loda", "lpf", "low_level", "high_level", "student", "diffusion"}


@pytest.mark.parametrize("made", [from_python, in_place, from_a_file])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_recipe_holds_what_it_cannot(kind: Any, made: Callable[..., Any], tmp_path: Path) -> None:
    fields = set()
    for name, value, said in wrong_values(kind):
        with pytest.raises(GRMPError, match=rf"^Expected {name} [^\n]*{re.escape(said)}[^\n]*$"):
            made(kind, {name: value}, tmp_path)
        fields.add(name)
    assert fields == {field.name for field in dataclasses.fields(kind)}, "every field is tried"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_recipe_holds_its_own_values(kind: Any) -> None:
    assert make_recipe(kind, dataclasses.asdict(kind())) == kind()


METHODS: list[tuple[str, dict[str, Any], str]] = [
    (kind, {"recipe": {key: value}}, key)
    for kind in ("loda", "two_stream", "grmp", "expert")
    for key, value in (
        ("learning_rate", "1e-3"),
        ("learning_rate", -1),
        ("weight_decay", "heavy"),
        ("weight_decay", -5),
        ("bf16", "maybe"),
    )
]
METHODS += [
    ("loda", {"recipe": {"dropout": 3}}, "dropout"),
    ("loda", {"recipe": {"crops": 1.5}}, "crops"),
    ("two_stream", {"recipe": {"latent": 1.5}}, "latent"),
    ("grmp", {"recipe": {"batch_size": 2.5}}, "batch_size"),
    ("grmp", {"views": 1.5}, "views"),
    ("full_finetune", {"bf16": "maybe"}, "bf16"),
    ("full_finetune", {"learning_rate": "1e-3"}, "learning_rate"),
    ("full_finetune", {"learning_rate": 0.0}, "learning_rate"),
    ("full_finetune", {"batch_size": 2.5}, "batch_size"),
    ("full_finetune", {"warmup": 1}, "warmup"),
]


@pytest.mark.parametrize(("method", "options", "key"), METHODS)
def test_no_method_of_the_benchmark_takes_them(method: str, options: dict[str, Any], key: str) -> None:
    with pytest.raises(GRMPError, match=f"^methods: mine: Expected {key} .*, got "):
        make_methods([MethodConfig(method, "mine", options)], load(), Path())
