"""Configurations of `grmp-iqa benchmark` as files of YAML: what all kinds of them share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias, cast

from grmp_hf.errors import GRMPError
from grmp_hf.recipe_files import read_yaml

__all__ = ["COMMON", "Configuration", "Converter", "DatasetConfig", "listed", "mapping_of", "one_of", "several_of"]

Converter: TypeAlias = Callable[[Any, Path], Any]
"""(value in a file, folder of the file) -> value of the attribute."""

_OFFICIAL_KEYS = ("benchmark", "data_dir", "options")
_TABLE_KEYS = (
    *("path", "images", "image_column", "rating_column", "split_column", "range", "higher_is_better", "unit"),
    *("config", "revision", "raters", "rater_column", "rating_columns"),
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


class Configuration:
    """What a configuration compares: data sets and methods, read from a file whose keys are its attributes.

    Attributes:
        converters: how the value of each key becomes that of the attribute.
        needed: keys that a file must have.
    """

    converters: ClassVar[Mapping[str, Converter]]
    needed: ClassVar[tuple[str, ...]]
    datasets: tuple[DatasetConfig, ...]
    method_names: Any  # a property of each kind

    @property
    def dataset_names(self) -> list[str]:
        """Names of the data sets, in order."""
        return [dataset.name for dataset in self.datasets]

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a configuration; keys are the attributes, and what is left out keeps its default.

        Raises:
            GRMPError: no such file, no mapping in it, a key that it does not have, or a value of another kind; with the
                file and the key.
        """
        file, kind = Path(path), cast(Any, cls)
        values = read_yaml(file, "a benchmark")
        try:
            known = [field.name for field in dataclasses.fields(kind) if field.name != "folder"]
            given = mapping_of(values, "the file", known, needed=cls.needed)
            converted = {key: cls.converters[key](value, file.parent) for key, value in given.items()}
            return cast(Self, kind(**{"name": file.stem, **converted, "folder": file.parent}))
        except GRMPError as error:
            raise GRMPError(f"{file}: {error}") from error

    def with_places(self, places: Mapping[str, str]) -> Self:
        """The same with other places of some data sets.

        Raises:
            GRMPError: a data set that is not in the configuration.
        """
        unknown = sorted(set(places) - set(self.dataset_names))
        if unknown:
            raise GRMPError(f"--data: expected data sets out of {listed(self.dataset_names)}, got {listed(unknown)}")
        moved = [dataclasses.replace(one, place=places.get(one.name, one.place)) for one in self.datasets]
        return cast(Self, dataclasses.replace(cast(Any, self), datasets=tuple(moved)))

    def known_methods(self, names: Sequence[str]) -> Sequence[str]:
        """Names of methods, all of which it has.

        Raises:
            GRMPError: it has not.
        """
        unknown = sorted(set(names) - set(self.method_names))
        if unknown:
            raise GRMPError(f"--methods: expected some of {listed(self.method_names)}, got {listed(unknown)}")
        return names

    def public(self) -> dict[str, Any]:
        """Its settings without places on this machine."""
        settings = dataclasses.asdict(cast(Any, self))
        for key in ("output", "folder"):
            settings.pop(key)
        for dataset in settings["datasets"]:
            dataset.pop("place")
            dataset["options"].pop("images", None)
        return settings


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
    kind = f"{where}, an official one, since it has no key path" if official else where
    keys = mapping_of(entry, kind, _OFFICIAL_KEYS if official else _TABLE_KEYS)
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
    if "rating_columns" in options:
        named = several_of(str, "names or patterns", f"{where}: rating_columns")
        options["rating_columns"] = named(options["rating_columns"], folder)
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


COMMON: Mapping[str, Converter] = {
    "name": one_of(str, "a text", "name"),
    "datasets": _datasets,
    "model": lambda value, folder: _beside(one_of(str, "a name or folder", "model")(value, folder), folder),
    "revision": one_of(str, "a text", "revision", optional=True),
    "draws": one_of(int, "a whole number", "draws"),
    "seed": one_of(int, "a whole number", "seed"),
    "compare_to": one_of(str, "a name", "compare_to", optional=True),
    "output": lambda value, folder: folder / one_of(str, "a folder", "output")(value, folder),
}
"""Keys that every kind of configuration has."""
