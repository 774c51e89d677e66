"""``BenchmarkConfig``: what is compared on what, read from YAML and checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from grmp_hf.errors import GRMPError
from grmp_hf.recipe_files import read_yaml

__all__ = [
    "CONVERTERS",
    "PROTOCOLS",
    "SPLITS",
    "BenchmarkConfig",
    "DatasetConfig",
    "MethodConfig",
    "listed",
    "mapping_of",
    "one_of",
    "several_of",
]

PROTOCOLS = ("clean", "paper")
SPLITS = ("official", "random", "folds")

_OFFICIAL_KEYS = ("benchmark", "data_dir", "options")
_TABLE_KEYS = (
    *("path", "images", "image_column", "rating_column", "split_column", "range", "higher_is_better", "unit"),
    *("config", "revision"),
)


@dataclass(frozen=True)
class DatasetConfig:
    """One data set.

    Attributes:
        name: in the results.
        place: folder, table or data set of the Hub; None where the command line is to say it.
        benchmark: id of the official reader; None for a table of ratings.
        options: of that reader, or of ``read_ratings``.
    """

    name: str
    place: str | None
    benchmark: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodConfig:
    """One method: its kind, its name in the results, and its settings."""

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkConfig:
    """What ``grmp-iqa benchmark`` runs: data sets x protocols x shots x draws x methods.

    Attributes:
        name: title of table and report.
        datasets: at least one.
        methods: at least one, with names that differ.
        model: the base of every method: "default", a folder or a Hub id.
        revision: branch, tag or commit of the model.
        protocols: out of `PROTOCOLS`.
        shots: numbers of rated pictures to learn from.
        draws: how many times they are drawn.
        seed: draw d has the seed ``seed + d``, of the split, of the shots and of training.
        stratified: draw the shots spread over the range of quality.
        split: out of `SPLITS`, of the clean protocol; None is the official one where the set has it, else random.
        folds: how many, under ``split: folds``; draw d tests on fold d modulo their number.
        cross: pairs (data set to learn from, data set to score), under the clean protocol.
        compare_to: name of the method that the others are compared with; None is the first of kind ``grmp``.
        output: folder of the results; None where the command line is to say it.
        folder: of the file, to which its paths are relative.
    """

    name: str
    datasets: tuple[DatasetConfig, ...]
    methods: tuple[MethodConfig, ...]
    model: str = "default"
    revision: str | None = None
    protocols: tuple[str, ...] = ("clean",)
    shots: tuple[int, ...] = (20, 50, 100, 200)
    draws: int = 10
    seed: int = 0
    stratified: bool = False
    split: str | None = None
    folds: int = 5
    cross: tuple[tuple[str, str], ...] = ()
    compare_to: str | None = None
    output: Path | None = None
    folder: Path = Path()

    def __post_init__(self) -> None:
        for key, found, known in (("protocols", self.protocols, PROTOCOLS), ("split", (self.split,), (*SPLITS, None))):
            if not set(found) <= set(known) or not found:
                raise GRMPError(f"{key}: expected some of {', '.join(filter(None, known))}, got {listed(found)}")
        for key, names in (("datasets", self.dataset_names), ("methods", self.method_names)):
            if not names or len(set(names)) < len(names):
                raise GRMPError(f"{key}: expected at least one, with names that differ, got {listed(names)}; name them")
        for key, value, least in (("shots", min(self.shots, default=0), 2), ("draws", self.draws, 1)):
            if value < least:
                raise GRMPError(f"{key}: expected at least {least}, got {value}")
        if not 0 <= self.seed <= 2**32 - self.draws:
            raise GRMPError(f"seed: expected 0 to {2**32 - self.draws}, got {self.seed}")
        for name in (name for pair in self.cross for name in pair):
            if name not in self.dataset_names:
                raise GRMPError(f"cross: expected data sets out of {listed(self.dataset_names)}, got {name!r}")
        if self.cross and "clean" not in self.protocols:
            raise GRMPError("cross: expected the protocol clean, under which other data sets are scored; add it")
        if self.compare_to is not None and self.compare_to not in self.method_names:
            methods = listed(self.method_names)
            raise GRMPError(f"compare_to: expected a method out of {methods}, got {self.compare_to!r}")

    @property
    def dataset_names(self) -> list[str]:
        """Names of the data sets, in order."""
        return [dataset.name for dataset in self.datasets]

    @property
    def method_names(self) -> list[str]:
        """Names of the methods, in order."""
        return [method.name for method in self.methods]

    @property
    def reference(self) -> str | None:
        """Name of the method that the others are compared with."""
        return self.compare_to or next((method.name for method in self.methods if method.kind == "grmp"), None)

    def with_places(self, places: Mapping[str, str]) -> BenchmarkConfig:
        """The same with other places of some data sets.

        Raises:
            GRMPError: a data set that is not in the configuration.
        """
        unknown = sorted(set(places) - set(self.dataset_names))
        if unknown:
            raise GRMPError(f"--data: expected data sets out of {listed(self.dataset_names)}, got {listed(unknown)}")
        moved = [replace(dataset, place=places.get(dataset.name, dataset.place)) for dataset in self.datasets]
        return replace(self, datasets=tuple(moved))

    def only_methods(self, names: Sequence[str]) -> BenchmarkConfig:
        """The same with some of the methods.

        Raises:
            GRMPError: a method that is not in the configuration.
        """
        unknown = sorted(set(names) - set(self.method_names))
        if unknown:
            raise GRMPError(f"--methods: expected some of {listed(self.method_names)}, got {listed(unknown)}")
        kept = tuple(method for method in self.methods if method.name in names)
        return replace(self, methods=kept, compare_to=self.compare_to if self.compare_to in names else None)

    @classmethod
    def from_yaml(cls, path: str | Path) -> BenchmarkConfig:
        """Read a configuration; keys are the attributes, and what is left out keeps its default.

        Raises:
            GRMPError: no such file, no mapping in it, a key that it does not have, or a value of another kind; with the
                file and the key.
        """
        file = Path(path)
        values = read_yaml(file, "a benchmark")
        try:
            known = [field.name for field in fields(cls) if field.name != "folder"]
            given = mapping_of(values, "the file", known, needed=("datasets", "methods"))
            converted = {key: CONVERTERS[key](value, file.parent) for key, value in given.items()}
            return cls(**{"name": file.stem, **converted, "folder": file.parent})
        except GRMPError as error:
            raise GRMPError(f"{file}: {error}") from error


def listed(items: Sequence[Any]) -> str:
    """Items in words."""
    return ", ".join(map(str, items)) or "nothing"


def mapping_of(value: Any, where: str, known: Sequence[str], needed: Sequence[str] = ()) -> dict[str, Any]:
    """A mapping with some of the known keys and all of the needed ones."""
    if not isinstance(value, dict):
        raise GRMPError(f"{where}: expected keys out of {', '.join(known)}, got {value!r}")
    unknown, missing = [key for key in value if key not in known], [key for key in needed if key not in value]
    if unknown or missing:
        found = f"got {listed(unknown)}" if unknown else f"{listed(missing)} is missing"
        raise GRMPError(f"{where}: expected keys out of {', '.join(known)}, {found}")
    return value


def one_of(kind: type[Any], word: str, key: str, *, optional: bool = False) -> Callable[[Any, Path], Any]:
    """Takes a value of one kind, or refuses it by the name of its key."""

    def convert(value: Any, folder: Path) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise GRMPError(f"{key}: expected {word}, got {value!r}")
        return value

    return convert


def several_of(kind: type[Any], word: str, key: str) -> Callable[[Any, Path], tuple[Any, ...]]:
    """Takes a value of one kind, or a list of them, each once."""
    one = one_of(kind, word, key)

    def convert(value: Any, folder: Path) -> tuple[Any, ...]:
        items = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(one(item, folder) for item in items))

    return convert


def _datasets(value: Any, folder: Path) -> tuple[DatasetConfig, ...]:
    if not isinstance(value, dict):
        raise GRMPError(f"datasets: expected a mapping from names to data sets, got {value!r}")
    return tuple(_dataset(str(name), entry, folder) for name, entry in value.items())


def _dataset(name: str, entry: Any, folder: Path) -> DatasetConfig:
    where = f"datasets: {name}"
    official = isinstance(entry, dict) and "path" not in entry
    keys = mapping_of(entry, where, _OFFICIAL_KEYS if official else _TABLE_KEYS)
    place = keys.get("data_dir" if official else "path")
    if place is not None and not isinstance(place, str):
        raise GRMPError(f"{where}: expected a folder or file, got {place!r}")
    if official:
        options = _mapping_of_options(keys.get("options"), where)
        return DatasetConfig(name, _beside(place, folder), str(keys.get("benchmark", name)), options)
    options = {key: option for key, option in keys.items() if key != "path" and option is not None}
    if "range" in options:
        ends = options.pop("range")
        if not (isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)):
            raise GRMPError(f"{where}: range: expected [low, high], got {ends!r}")
        options["scale"] = (float(ends[0]), float(ends[1]))
    if "images" in options:
        options["images"] = _beside(str(options["images"]), folder)
    return DatasetConfig(name, _beside(place, folder), None, options)


def _mapping_of_options(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise GRMPError(f"{where}: options: expected a mapping, got {value!r}")
    return dict(value or {})


def _beside(place: str | None, folder: Path) -> str | None:
    """A path relative to the file; what is not there is left as it is, since it may be the name of a Hub data set."""
    if place is None:
        return None
    path = folder / os.path.expanduser(place)
    return str(path) if path.exists() else place


def _methods(value: Any, folder: Path) -> tuple[MethodConfig, ...]:
    if not isinstance(value, list):
        raise GRMPError(f"methods: expected a list of names or mappings, got {value!r}")
    methods = []
    for entry in value:
        keys = {"method": entry} if isinstance(entry, str) else entry
        if not isinstance(keys, dict) or not isinstance(keys.get("method"), str):
            raise GRMPError(f"methods: expected a name, or a mapping with the key method, got {entry!r}")
        options = {str(key): option for key, option in keys.items() if key not in ("method", "name")}
        methods.append(MethodConfig(keys["method"], str(keys.get("name", keys["method"])), options))
    return tuple(methods)


def _cross(value: Any, folder: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise GRMPError(f"cross: expected a list of {{train: NAME, test: NAME}}, got {value!r}")
    keys = [mapping_of(pair, "cross", ("train", "test"), ("train", "test")) for pair in value]
    same = [pair["train"] for pair in keys if pair["train"] == pair["test"]]
    if same:
        raise GRMPError(f"cross: expected two data sets, got {same[0]} twice; its own test part is scored anyway")
    return tuple((str(pair["train"]), str(pair["test"])) for pair in keys)


CONVERTERS: Mapping[str, Callable[[Any, Path], Any]] = {
    "name": one_of(str, "a text", "name"),
    "datasets": _datasets,
    "methods": _methods,
    "model": lambda value, folder: _beside(one_of(str, "a name or folder", "model")(value, folder), folder),
    "revision": one_of(str, "a text", "revision", optional=True),
    "protocols": several_of(str, "a name", "protocols"),
    "shots": several_of(int, "whole numbers", "shots"),
    "draws": one_of(int, "a whole number", "draws"),
    "seed": one_of(int, "a whole number", "seed"),
    "stratified": one_of(bool, "true or false", "stratified"),
    "split": one_of(str, "a name", "split", optional=True),
    "folds": one_of(int, "a whole number", "folds"),
    "cross": _cross,
    "compare_to": one_of(str, "a name", "compare_to", optional=True),
    "output": lambda value, folder: folder / one_of(str, "a folder", "output")(value, folder),
}
"""Key -> what turns its value in a file, whose folder is given, into that of the attribute."""
