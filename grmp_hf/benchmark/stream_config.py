"""``StreamsConfig``: which streams of data sets are compared, read from YAML and checked before any work is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from grmp_hf.benchmark.config import CONVERTERS, DatasetConfig, listed, mapping_of, one_of, several_of
from grmp_hf.errors import GRMPError
from grmp_hf.recipe_files import read_yaml
from grmp_hf.training.stream_recipe import StreamRecipe

__all__ = ["StreamsConfig", "is_streams"]


@dataclass(frozen=True)
class StreamsConfig:
    """What ``grmp-iqa benchmark`` runs where the file has the key ``streams``: methods x lengths x orders x draws.

    Attributes:
        name: title of the table.
        datasets: at least two.
        streams: name of a method -> its recipe.
        model: the base: "default", a folder or a Hub id.
        revision: branch, tag or commit of the model.
        shots: how many pictures of each set teach; None for four of five, or as its own column says.
        orders: how many: as listed, backwards, and then shuffled.
        lengths: of the streams, the first sets of an order; empty for all sets.
        draws: of shots and training; draw d has the seed ``seed + d``.
        seed: of the first draw.
        compare_to: name of the method that the others are compared with; None is the first.
        output: folder of the results; None where the command line is to say it.
        folder: of the file, to which its paths are relative.
    """

    name: str
    datasets: tuple[DatasetConfig, ...]
    streams: Mapping[str, StreamRecipe]
    model: str = "default"
    revision: str | None = None
    shots: int | None = None
    orders: int = 3
    lengths: tuple[int, ...] = ()
    draws: int = 1
    seed: int = 0
    compare_to: str | None = None
    output: Path | None = None
    folder: Path = Path()

    protocols = ("clean",)

    def __post_init__(self) -> None:
        if len(self.datasets) < 2:
            raise GRMPError(f"datasets: expected at least two, got {listed(self.dataset_names)}; add one")
        if not self.streams:
            raise GRMPError("streams: expected at least one method, got none; default is one")
        for key, value, least in (("orders", self.orders, 1), ("draws", self.draws, 1), ("shots", self.shots, 2)):
            if value is not None and value < least:
                raise GRMPError(f"{key}: expected at least {least}, got {value}")
        if any(not 2 <= length <= len(self.datasets) for length in self.lengths):
            raise GRMPError(f"lengths: expected 2 to {len(self.datasets)}, got {listed(self.lengths)}")
        if not 0 <= self.seed <= 2**32 - self.draws:
            raise GRMPError(f"seed: expected 0 to {2**32 - self.draws}, got {self.seed}")
        if self.compare_to is not None and self.compare_to not in self.streams:
            raise GRMPError(f"compare_to: expected a method out of {listed([*self.streams])}, got {self.compare_to!r}")

    @property
    def dataset_names(self) -> list[str]:
        """Names of the data sets, in order."""
        return [dataset.name for dataset in self.datasets]

    @property
    def reference(self) -> str:
        """Name of the method that the others are compared with."""
        return self.compare_to or next(iter(self.streams))

    def with_places(self, places: Mapping[str, str]) -> StreamsConfig:
        """The same with other places of some data sets.

        Raises:
            GRMPError: a data set that is not in the configuration.
        """
        unknown = sorted(set(places) - set(self.dataset_names))
        if unknown:
            raise GRMPError(f"--data: expected data sets out of {listed(self.dataset_names)}, got {listed(unknown)}")
        moved = (dataclasses.replace(one, place=places.get(one.name, one.place)) for one in self.datasets)
        return dataclasses.replace(self, datasets=tuple(moved))

    def only_methods(self, names: list[str]) -> StreamsConfig:
        """The same with some of the methods.

        Raises:
            GRMPError: a method that is not in the configuration.
        """
        unknown = sorted(set(names) - set(self.streams))
        if unknown:
            raise GRMPError(f"--methods: expected some of {listed([*self.streams])}, got {listed(unknown)}")
        kept = {name: recipe for name, recipe in self.streams.items() if name in names}
        return dataclasses.replace(self, streams=kept, compare_to=self.compare_to if self.compare_to in names else None)

    @classmethod
    def from_yaml(cls, path: str | Path) -> StreamsConfig:
        """Read a configuration; keys are the attributes, and what is left out keeps its default.

        Raises:
            GRMPError: no such file, no mapping in it, a key that it does not have, or a value of another kind; with the
                file and the key.
        """
        file = Path(path)
        values = read_yaml(file, "a benchmark")
        try:
            known = [field.name for field in fields(cls) if field.name != "folder"]
            given = mapping_of(values, "the file", known, needed=("datasets", "streams"))
            converted = {key: _CONVERTERS[key](value, file.parent) for key, value in given.items()}
            return cls(**{"name": file.stem, **converted, "folder": file.parent})
        except GRMPError as error:
            raise GRMPError(f"{file}: {error}") from error


def is_streams(path: str | Path) -> bool:
    """Whether a configuration compares streams."""
    return "streams" in read_yaml(Path(path), "a benchmark")


def _streams(value: Any, folder: Path) -> dict[str, StreamRecipe]:
    if not isinstance(value, list):
        raise GRMPError(f"streams: expected a list of recipes, got {value!r}")
    found: dict[str, StreamRecipe] = {}
    for entry in value:
        keys = {"recipe": entry} if isinstance(entry, str) else entry
        if not isinstance(keys, dict):
            raise GRMPError(f"streams: expected the name of a recipe, or a mapping with its settings, got {entry!r}")
        settings = {str(key): option for key, option in keys.items() if key not in ("recipe", "name")}
        recipe = str(keys.get("recipe", "default"))
        name = str(keys.get("name", recipe))
        if name in found:
            raise GRMPError(f"streams: expected names that differ, got {name} twice; give one a name")
        wrong = sorted(settings.keys() - {field.name for field in fields(StreamRecipe)})
        if wrong:
            raise GRMPError(f"streams: {name}: expected settings of a StreamRecipe, got {listed(wrong)}")
        place = folder / recipe
        found[name] = dataclasses.replace(StreamRecipe.named(place if place.is_file() else recipe), **settings)
    return found


_CONVERTERS: Mapping[str, Callable[[Any, Path], Any]] = {
    **{key: CONVERTERS[key] for key in ("name", "datasets", "model", "revision", "draws", "seed", "output")},
    "streams": _streams,
    "shots": one_of(int, "a whole number", "shots", optional=True),
    "orders": one_of(int, "a whole number", "orders"),
    "lengths": several_of(int, "whole numbers", "lengths"),
    "compare_to": CONVERTERS["compare_to"],
}
