"""``BenchmarkConfig``: what is compared on what, read from YAML and checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grmp_hf.benchmark.reading import (
    COMMON,
    Configuration,
    Converter,
    DatasetConfig,
    listed,
    mapping_of,
    one_of,
    several_of,
)
from grmp_hf.errors import GRMPError

__all__ = ["PROTOCOLS", "SPLITS", "BenchmarkConfig", "MethodConfig"]

PROTOCOLS = ("clean", "paper")
SPLITS = ("official", "random", "folds")


@dataclass(frozen=True)
class MethodConfig:
    """One method: its kind, its name in the results, and its settings."""

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


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


_CONVERTERS: Mapping[str, Converter] = {
    **COMMON,
    "methods": _methods,
    "protocols": several_of(str, "a name", "protocols"),
    "shots": several_of(int, "whole numbers", "shots"),
    "stratified": one_of(bool, "true or false", "stratified"),
    "split": one_of(str, "a name", "split", optional=True),
    "folds": one_of(int, "a whole number", "folds"),
    "cross": _cross,
}


@dataclass(frozen=True)
class BenchmarkConfig(Configuration):
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

    converters = _CONVERTERS
    needed = ("datasets", "methods")

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
    def method_names(self) -> list[str]:
        """Names of the methods, in order."""
        return [method.name for method in self.methods]

    @property
    def reference(self) -> str | None:
        """Name of the method that the others are compared with."""
        return self.compare_to or next((method.name for method in self.methods if method.kind == "grmp"), None)

    def only_methods(self, names: Sequence[str]) -> BenchmarkConfig:
        """The same with some of the methods.

        Raises:
            GRMPError: a method that is not in the configuration.
        """
        chosen = self.known_methods(names)
        kept = tuple(method for method in self.methods if method.name in chosen)
        return replace(self, methods=kept, compare_to=self.compare_to if self.compare_to in names else None)
