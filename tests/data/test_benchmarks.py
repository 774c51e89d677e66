from __future__ import annotations

from pathlib import Path

import pytest

from grmp_hf.data.benchmarks import BENCHMARKS, BenchmarkSpec, find_benchmark
from grmp_hf.errors import GRMPError

# rows, references, low, high, direction: the table of published figures
FACTS = {
    "livec": (1162, None, 0, 100, True),
    "koniq10k": (10073, None, 0, 100, True),
    "spaq": (11125, None, 0, 100, True),
    "live": (779, 29, -2.64, 111.7747, False),
    "csiq": (866, 30, 0, 1, False),
    "tid2013": (3000, 25, 0, 9, True),
    "kadid10k": (10125, 81, 1, 5, True),
    "bid": (586, None, 0, 5, True),
    "flive": (39810, None, 0, 100, True),
    "pipal": (23200, 200, 868.2988, 1857, True),
    "agiqa3k": (2982, 300, 0, 5, True),
    "biq2021": (12000, None, 0, 1, True),
}


def test_facts_are_the_published_ones() -> None:
    assert list(BENCHMARKS) == list(FACTS)
    for name, (rows, references, low, high, up) in FACTS.items():
        spec = BENCHMARKS[name]
        assert (spec.id, spec.rows, spec.references, spec.scale.higher_is_better) == (name, rows, references, up)
        assert (spec.scale.low, spec.scale.high) == pytest.approx((low, high), abs=5e-5)


def test_live_maps_as_published() -> None:
    scale = BENCHMARKS["live"].scale
    for dmos in (-2.64, 0.0, 48.5812, 111.7747):
        assert scale.to_quality(dmos) == pytest.approx((111.77469352631448 - dmos) / 114.4147085427239, abs=1e-12)


@pytest.mark.parametrize("spec", BENCHMARKS.values(), ids=lambda spec: spec.id)
def test_every_set_says_where_it_comes_from_and_under_which_terms(spec: BenchmarkSpec) -> None:
    assert spec.home.startswith("https://") and len(spec.citation) > 40 and spec.terms and spec.layout
    assert (spec.references is None) == (spec.content is None)
    assert all(len(values) == 2 for values in spec.options.values())
    assert spec.is_whole(spec.rows) and not spec.is_whole(spec.rows - 1)


def test_parts_and_contents() -> None:
    assert {name for name, spec in BENCHMARKS.items() if spec.has_official_split} == {"koniq10k", "flive", "biq2021"}
    assert {name: spec.content for name, spec in BENCHMARKS.items() if spec.content == "scene"} == {"agiqa3k": "scene"}
    assert BENCHMARKS["livec"].is_whole(1169) and BENCHMARKS["pipal"].is_whole(24200)


def test_options_have_defaults_and_limits() -> None:
    spec = BENCHMARKS["koniq10k"]
    assert spec.choose({}) == {"scores": "0-100", "size": "1024x768"}
    assert spec.choose({"scores": "1-5"}) == {"scores": "1-5", "size": "1024x768"}
    with pytest.raises(GRMPError, match=r'kadid10k: expected options out of \(none\), got "scores"; leave it out'):
        BENCHMARKS["kadid10k"].choose({"scores": "1-5"})
    with pytest.raises(GRMPError, match="livec: expected practice to be one of False, True, got 'yes'"):
        BENCHMARKS["livec"].choose({"practice": "yes"})


def test_unknown_names_get_a_suggestion() -> None:
    assert find_benchmark("live").rows == 779
    with pytest.raises(GRMPError, match=r'got "KADID" \(did you mean "kadid10k"\?\)'):
        find_benchmark("KADID")


@pytest.mark.parametrize("spec", BENCHMARKS.values(), ids=lambda spec: spec.id)
def test_the_document_has_the_same_facts(spec: BenchmarkSpec) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{spec.id}` |")]
    direction = "up" if spec.scale.higher_is_better else "down"
    assert f"| {spec.rows} |" in row and f"| {spec.scale.low:g} to {spec.scale.high:g}, {direction} |" in row
    assert spec.references is None or f"| {spec.references} " in row
    for name, values in spec.options.items():
        assert f"`{name}`" in row and all(str(value) in row for value in values)
