"""``StreamsConfig``: which streams of data sets are compared, read from YAML and checked before any work is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from grmp_hf.benchmark.reading import COMMON, Configuration, Converter, DatasetConfig, listed, one_of, several_of
from grmp_hf.errors import GRMPError
from grmp_hf.recipe_files import read_yaml
from grmp_hf.training.stream_recipe import StreamRecipe

__all__ = ["StreamsConfig", "is_streams"]


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
        known = [field.name for field in fields(StreamRecipe)]
        wrong = sorted(settings.keys() - set(known))
        if wrong:
            raise GRMPError(f"streams: {name}: expected settings out of {', '.join(known)}, got {listed(wrong)}")
        place = folder / recipe
        try:
            found[name] = dataclasses.replace(StreamRecipe.named(place if place.is_file() else recipe), **settings)
        except GRMPError as error:
            raise GRMPError(f"streams: {name}: {error}") from error
    return found


_CONVERTERS: Mapping[str, Converter] = {
    **COMMON,
    "streams": _streams,
    "shots": one_of(int, "a whole number", "shots", optional=True),
    "orders": one_of(int, "a whole number", "orders"),
    "lengths": several_of(int, "whole numbers", "lengths"),
}


@dataclass(frozen=True)
class StreamsConfig(Configuration):
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

    converters = _CONVERTERS
    needed = ("datasets", "streams")
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
    def method_names(self) -> list[str]:
        """Names of the methods, in order."""
        return [*self.streams]

    @property
    def reference(self) -> str:
        """Name of the method that the others are compared with."""
        return self.compare_to or next(iter(self.streams))

    def only_methods(self, names: Sequence[str]) -> StreamsConfig:
        """The same with some of the methods.

        Raises:
            GRMPError: a method that is not in the configuration.
        """
        chosen = self.known_methods(names)
        kept = {name: recipe for name, recipe in self.streams.items() if name in chosen}
        return dataclasses.replace(self, streams=kept, compare_to=self.compare_to if self.compare_to in names else None)


def is_streams(path: str | Path) -> bool:
    """Whether a configuration compares streams."""
    found = read_yaml(Path(path), "a benchmark")
    return isinstance(found, dict) and "streams" in found
