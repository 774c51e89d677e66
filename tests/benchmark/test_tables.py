from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grmp_hf.benchmark import tables
from grmp_hf.benchmark.config import BenchmarkConfig
from grmp_hf.benchmark.tables import read_tables
from grmp_hf.data import RatedTable, read_ratings
from grmp_hf.errors import GRMPError


def test_rows_carry_the_name_of_the_configuration(configure: Callable[..., Path]) -> None:
    tables = read_tables(BenchmarkConfig.from_yaml(configure(protocols=["clean", "paper"])))
    assert set(tables) == {(name, protocol) for name in ("stars", "points") for protocol in ("clean", "paper")}
    for (name, protocol), table in tables.items():
        assert table.name == name and {row.dataset for row in table.rows} == {name}
        assert table is tables[name, "clean"], protocol
    assert str(tables["points", "clean"].scale) == "0 (worst) to 100 (best) points"
    assert len(tables["stars", "clean"]) == 36


@pytest.fixture
def official(stars: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Calls of the official reader, which gives the pictures rated in stars."""
    calls: list[tuple[Any, ...]] = []

    def read(name: str, place: str, **options: Any) -> RatedTable:
        calls.append((name, place, options))
        return read_ratings(stars, scale=(1, 5))

    monkeypatch.setattr(tables, "read_benchmark", read)
    return calls


def test_official_sets_are_read_as_the_protocol_wants(
    official: list[tuple[Any, ...]], configure: Callable[..., Path]
) -> None:
    sets = {
        "livec": {"data_dir": "a"},
        "wild": {"data_dir": "b", "benchmark": "livec", "options": {"practice": False}},
        "koniq10k": {"data_dir": "c", "options": {"size": "512x384"}},
        "spaq": {"data_dir": "d"},
    }
    tables = read_tables(BenchmarkConfig.from_yaml(configure(datasets=sets, protocols=["clean", "paper"])))
    assert len(tables) == 8
    assert official == [
        ("livec", "a", {}),
        ("livec", "a", {"practice": True}),
        ("livec", "b", {"practice": False}),
        ("koniq10k", "c", {"size": "512x384"}),
        ("koniq10k", "c", {"scores": "1-5", "size": "512x384"}),
        ("spaq", "d", {}),
    ]


def test_the_paper_options_exist() -> None:
    from grmp_hf.data.benchmarks import BENCHMARKS

    for name, options in tables._PAPER_OPTIONS.items():
        assert BENCHMARKS[name].choose(options)


def test_an_unknown_official_set_is_named(configure: Callable[..., Path]) -> None:
    with pytest.raises(GRMPError, match="moon"):
        read_tables(BenchmarkConfig.from_yaml(configure(datasets={"moon": {"data_dir": "/nowhere"}})))


def test_a_place_that_is_not_known_is_asked_for(configure: Callable[..., Path]) -> None:
    config = BenchmarkConfig.from_yaml(configure(datasets={"mine": {"path": None}}))
    with pytest.raises(GRMPError, match="mine: expected the place of this data set; give it with --data mine=DIR"):
        read_tables(config)
