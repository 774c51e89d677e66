"""The one table from the names of methods in a configuration to the methods themselves."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grmp_hf.benchmark.config import MethodConfig
from grmp_hf.benchmark.finetuning import FullFineTuning
from grmp_hf.benchmark.kernels import GRIDS, kernel_ridge, svr
from grmp_hf.benchmark.methods import GRMP, Method, Regression, ZeroShot, ridge
from grmp_hf.benchmark.pathways import COLUMNS, grepq, grepq_zero_shot
from grmp_hf.benchmark.towers import Expert, LoDa
from grmp_hf.benchmark.two_stream import TwoStream
from grmp_hf.embedded import find_start
from grmp_hf.errors import GRMPError
from grmp_hf.features import OwnColumns
from grmp_hf.modeling.bases import check_base
from grmp_hf.recipe_files import recipe_names
from grmp_hf.scoring import Scorer
from grmp_hf.training.few_shot import FewShotRecipe
from grmp_hf.training.recipes import make_recipe
from grmp_hf.training.starts import read_start

__all__ = ["make_methods", "own_columns"]

_Maker = Callable[..., Method]


def make_methods(configs: Sequence[MethodConfig], base: Scorer, folder: Path) -> list[Method]:
    """The methods of a configuration.

    Args:
        configs: their kinds, names and settings.
        base: a scorer without adapter.
        folder: to which recipes and starts are relative.

    Raises:
        GRMPError: a method or a setting that does not exist.
    """
    return [_make(config, base, folder) for config in configs]


def own_columns(methods: Sequence[Method]) -> OwnColumns:
    """How columns are computed that methods bring along, those of them that do, as their attribute `own`."""
    return functools.reduce(operator.or_, (getattr(method, "own", OwnColumns()) for method in methods), OwnColumns())


def _make(config: MethodConfig, base: Scorer, folder: Path) -> Method:
    if config.kind not in _MAKERS:
        raise GRMPError(f"methods: expected some of {', '.join(_MAKERS)}, got {config.kind!r}")
    maker, options = _MAKERS[config.kind], dict(config.options)
    known = [name for name in inspect.signature(maker).parameters if name not in ("name", "base")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        accepted = f"settings out of {', '.join(known)}" if known else "no settings"
        raise GRMPError(f"methods: {config.name}: expected {accepted}, got {', '.join(unknown)}")
    try:
        if "recipe" in options:
            kind = type(inspect.signature(maker).parameters["recipe"].default)
            options["recipe"] = _recipe(options["recipe"], folder, kind)
        if "start" in options:
            options["start"] = _start(options["start"], base, folder)
        for key in ("low_level", "high_level", "pristine"):
            if key in options:
                options[key] = _place(key, options[key], folder)
        return maker(name=config.name, base=base, **options)
    except GRMPError as error:
        raise GRMPError(f"methods: {config.name}: {error}") from error


def _recipe(value: Any, folder: Path, kind: Any) -> Any:
    """The recipe of that name, of a file relative to the folder, or of settings that stand in place."""
    if isinstance(value, str):
        place = folder / value
        return kind.named(value if not place.is_file() and value in recipe_names(kind.stage) else place)
    if not isinstance(value, dict):
        raise GRMPError(f"recipe: expected a name, a file, or a mapping of settings, got {value!r}")
    return make_recipe(kind, value)


def _start(value: Any, base: Scorer, folder: Path) -> Path | None:
    """The folder of an adapter of the base, relative to the file; "package" and "none" as for `grmp-iqa adapt`."""
    if not isinstance(value, str):
        raise GRMPError(f"start: expected the folder of an adapter, package or none, got {value!r}")
    named = value in ("package", "none")
    found = find_start(value, base.identity["model"]) if named else folder / value
    if found is not None:
        check_base(read_start(found), base.model)
    return found


def _place(key: str, value: Any, folder: Path) -> str:
    """The name of a column that every base may have, or a folder, relative to the file."""
    if not isinstance(value, str):
        raise GRMPError(f"{key}: expected a folder, got {value!r}")
    return value if key == "low_level" and value in COLUMNS else str(folder / value)


def _zero_shot(name: str, base: Scorer) -> Method:
    return ZeroShot(name)


def _ridge(name: str, base: Scorer) -> Method:
    return Regression(name, lambda pictures: pictures["embeds"], ridge, {"method": "ridge"})


def _kernel_ridge(name: str, base: Scorer) -> Method:
    about = {"method": "kernel_ridge", **GRIDS["kernel_ridge"]}
    return Regression(name, lambda pictures: pictures["embeds"], kernel_ridge, about)


def _svr(name: str, base: Scorer) -> Method:
    return Regression(name, lambda pictures: pictures["embeds"], svr, {"method": "svr", **GRIDS["svr"]})


def _statistics(name: str, base: Scorer) -> Method:
    return Regression(name, lambda pictures: pictures["statistics"], ridge, {"method": "statistics"})


def _grmp(
    name: str,
    base: Scorer,
    recipe: FewShotRecipe = FewShotRecipe(),  # noqa: B008 (frozen)
    start: Path | None = None,
    views: int | None = None,
) -> Method:
    return GRMP(name, base, recipe, start, views)


_MAKERS: Mapping[str, _Maker] = {
    "zero_shot": _zero_shot,
    "ridge": _ridge,
    "kernel_ridge": _kernel_ridge,
    "svr": _svr,
    "statistics": _statistics,
    "grmp": _grmp,
    "full_finetune": FullFineTuning,
    "grepq": grepq,
    "grepq_zero_shot": grepq_zero_shot,
    "two_stream": TwoStream,
    "expert": Expert,
    "loda": LoDa,
}
