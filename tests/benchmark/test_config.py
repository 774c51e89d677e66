from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from grmp_hf.benchmark.choosing import make_methods
from grmp_hf.benchmark.config import BenchmarkConfig, MethodConfig
from grmp_hf.benchmark.reading import DatasetConfig
from grmp_hf.benchmark.stream_config import StreamsConfig
from grmp_hf.errors import GRMPError
from grmp_hf.hub import load
from grmp_hf.scoring import Scorer

ROOT = Path(__file__).parent.parent.parent


def test_what_is_left_out_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("datasets: {livec: {data_dir: /data/livec}}\nmethods: [ridge]\nshots: 20\n")
    config = BenchmarkConfig.from_yaml(path)
    assert config == BenchmarkConfig(
        "mine",
        (DatasetConfig("livec", "/data/livec", "livec", {}),),
        (MethodConfig("ridge", "ridge"),),
        shots=(20,),
        folder=tmp_path,
    )
    assert config.reference is None


def test_paths_are_relative_to_the_file(configure: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "koniq").mkdir()
    sets = {
        "koniq": {"data_dir": "koniq", "benchmark": "koniq10k", "options": {"size": "512x384"}},
        "hub": {"path": "owner/name", "range": [1, 5], "higher_is_better": False, "images": "koniq"},
    }
    config = BenchmarkConfig.from_yaml(configure(datasets=sets))
    assert config.output == tmp_path / "results"
    koniq, hub = config.datasets
    assert koniq == DatasetConfig("koniq", str(tmp_path / "koniq"), "koniq10k", {"size": "512x384"})
    options = {"scale": (1.0, 5.0), "higher_is_better": False, "images": str(tmp_path / "koniq")}
    assert hub == DatasetConfig("hub", "owner/name", None, options)


def test_methods_have_names_and_settings(configure: Callable[..., Path]) -> None:
    methods = ["ridge", {"method": "grmp", "name": "long", "recipe": {"steps": 9}}, {"method": "grmp", "name": "short"}]
    config = BenchmarkConfig.from_yaml(configure(methods=methods))
    assert config.method_names == ["ridge", "long", "short"] and config.reference == "long"
    assert config.methods[1] == MethodConfig("grmp", "long", {"recipe": {"steps": 9}})
    fewer = config.only_methods(["short", "ridge"])
    assert fewer.method_names == ["ridge", "short"] and fewer.reference == "short"


def test_places_and_methods_can_be_chosen_later(configure: Callable[..., Path]) -> None:
    config = BenchmarkConfig.from_yaml(configure(datasets={"a": {"path": None}, "b": {"path": "b.csv"}}))
    assert [dataset.place for dataset in config.with_places({"a": "x"}).datasets] == ["x", "b.csv"]
    with pytest.raises(GRMPError, match="--data: expected data sets out of a, b, got c"):
        config.with_places({"c": "x"})
    with pytest.raises(GRMPError, match="--methods: expected some of zero_shot, ridge, grmp, got svr"):
        config.only_methods(["svr"])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"shotz": [5]}, "the file: expected keys out of .*, got shotz"),
    ({"datasets": ...}, "datasets is missing"),
    ({"datasets": {}}, "datasets: expected at least one"),
    ({"datasets": ["livec"]}, "datasets: expected a mapping from names"),
    ({"datasets": {"a": {"path": "x", "column": "y"}}}, "datasets: a: expected keys out of path.*, got column"),
    (
        {"datasets": {"a": {"place": "x"}}},
        "a, an official one, since it has no key path: expected keys out of .* got place",
    ),
    ({"datasets": {"a": {"data_dir": "x", "range": [0, 1]}}}, "expected keys out of benchmark.*, got range"),
    ({"datasets": {"a": {"path": 3}}}, "a: expected a folder or file, got 3"),
    ({"datasets": {"a": {"path": "x", "range": [1]}}}, r"a: range: expected \[low, high\], got \[1\]"),
    ({"datasets": {"a": {"data_dir": "x", "options": 3}}}, "a: options: expected a mapping, got 3"),
    ({"methods": []}, "methods: expected at least one"),
    ({"methods": "ridge"}, "methods: expected a list of names"),
    ({"methods": [{"name": "ridge"}]}, "a mapping with the key method"),
    ({"methods": ["grmp", "grmp"]}, "with names that differ, got grmp, grmp"),
    ({"protocols": ["dirty"]}, "protocols: expected some of clean, paper, got dirty"),
    ({"protocols": []}, "protocols: expected some of clean, paper, got nothing"),
    ({"split": "fifths"}, "split: expected some of official, random, folds, got fifths"),
    ({"shots": [1]}, "shots: expected at least 2, got 1"),
    ({"shots": []}, "shots: expected at least 2, got 0"),
    ({"shots": [True]}, "shots: expected whole numbers, got True"),
    ({"shots": ["many"]}, "shots: expected whole numbers, got 'many'"),
    ({"draws": 0}, "draws: expected at least 1"),
    ({"draws": 2.5}, "draws: expected a whole number, got 2.5"),
    ({"seed": -1}, "seed: expected 0 to"),
    ({"stratified": "no"}, "stratified: expected true or false, got 'no'"),
    ({"cross": [{"train": "stars"}]}, "cross: expected keys out of train, test, test is missing"),
    ({"cross": [{"train": "stars", "test": "moon"}]}, "cross: expected data sets out of stars, points, got 'moon'"),
    ({"cross": [{"train": "stars", "test": "stars"}]}, "got stars twice"),
    ({"cross": [{"train": "stars", "test": "points"}], "protocols": ["paper"]}, "cross: expected the protocol clean"),
    ({"compare_to": "svr"}, "compare_to: expected a method out of zero_shot, ridge, grmp, got 'svr'"),
]


@pytest.mark.parametrize(("keys", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_file_says_what_is_wrong(keys: dict[str, Any], message: str, configure: Callable[..., Path]) -> None:
    path = configure(**keys)
    with pytest.raises(GRMPError, match=message) as caught:
        BenchmarkConfig.from_yaml(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [None, "a: [", "- 3", ""])
def test_what_is_no_configuration(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(GRMPError, match="expected"):
        BenchmarkConfig.from_yaml(path)


def without_start(options: Mapping[str, Any]) -> dict[str, Any]:
    """Starts are made by a script, and are not in the repository."""
    return {key: value for key, value in options.items() if key != "start"}


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_configuration_of_the_repository_can_be_read(path: Path, base: Scorer) -> None:
    config = BenchmarkConfig.from_yaml(path)
    beside = {"grepq": {"low_level": "statistics"}}  # this base has no side network, which loda cannot do without
    bases = {"loda": load()}
    methods = [
        replace(method, options=without_start(method.options) | beside.get(method.kind, {}))
        for method in config.methods
    ]
    made = [make_methods([method], bases.get(method.kind, base), config.folder)[0] for method in methods]
    assert [method.name for method in made] == config.method_names
    assert config.reference in config.method_names


def test_the_example_of_the_documents_can_be_read(base: Scorer, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    example, streams = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(example)
    config = BenchmarkConfig.from_yaml(path)
    here = [method for method in config.methods if "pristine" not in method.options]  # whose folder there is not
    assert len(make_methods(here, base, ROOT / "docs")) == len(config.methods) - 1 == 10
    assert set(example_keys(example)) == {field.name for field in fields(BenchmarkConfig)} - {"folder", "revision"}
    path.write_text(streams)
    assert StreamsConfig.from_yaml(path).lengths == (2, 3)
    assert set(example_keys(streams)) < {field.name for field in fields(StreamsConfig)}


def example_keys(text: str) -> list[str]:
    """Keys of the outermost mapping."""
    return re.findall(r"^(\w+):", text, re.MULTILINE)
