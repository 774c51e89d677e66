"""grmp_hf.evaluation.provenance: what was run is told in full, what no row says is not made up."""

from __future__ import annotations

from typing import Any

import pytest

from grmp_hf.evaluation.provenance import about_methods, about_run, every_row, run_identity

ROW: dict[str, Any] = {
    "dataset": "livec", "test_dataset": "bid", "protocol": "clean", "method": "grmp", "shots": 20, "draw": 0, "seed": 7,
    "split_hash": "c" * 64, "data_hash": "d" * 64, "n_train": 20, "n_test": 100, "srcc": 0.51239, "krcc": 0.4,
    "plcc": 0.5, "plcc_logistic": 0.55, "rmse": 9.25, "recipe": {"steps": 9, "deep": {"rate": 0.1}}, "model": "tiny",
    "revision": "abc", "preprocessing": "5 views", "versions": {"torch": "2.9"}, "seconds": 2.0,
    "peak_memory_mib": 512.0, "selection": "last epoch",
}  # fmt: skip


def test_what_was_run_is_told_with_every_value_it_took() -> None:
    rows = [ROW, {**ROW, "draw": 1, "seed": 8, "split_hash": "e" * 64, "seconds": 3.5, "model": "large"}]
    assert about_run(rows) == [
        ("identity", [run_identity(rows)]),
        ("model", ["tiny", "large"]),
        ("revision", ["abc"]),
        ("preprocessing", ["5 views"]),
        ("versions", ["torch 2.9"]),
        ("data", [f"livec: {'d' * 64}"]),
        ("seeds", ["7, 8"]),
        ("splits", ["2, each named by its hash in every row"]),
        ("time", ["6 s in all runs"]),
        ("peak memory", ["512 MiB"]),
    ]


def test_what_no_row_says_is_left_out() -> None:
    assert [name for name, _ in about_run([{"method": "ridge"}])] == ["identity"]
    (settings,) = about_methods([{"method": "ridge"}])
    assert settings == ("ridge", "", "", [], [])


def test_methods_have_their_settings_and_their_cost() -> None:
    rows = [
        ROW,
        {**ROW, "draw": 1, "seconds": 5.0, "peak_memory_mib": 600.0},
        {**ROW, "method": "ridge", "recipe": None},
    ]
    grmp, ridge = about_methods(rows)
    assert grmp == ("grmp", "3.5", "600", ["last epoch"], ["steps 9, deep rate 0.1"])
    assert ridge == ("ridge", "2.0", "512", ["last epoch"], [])


@pytest.mark.parametrize(
    "change", ["dataset", "test_dataset", "protocol", "method", "split_hash", "data_hash", "model", "revision"]
)
def test_identity_changes_with_what_was_run(change: str) -> None:
    assert run_identity([ROW]) != run_identity([{**ROW, change: "other"}])
    assert run_identity([ROW]) != run_identity([{**ROW, "recipe": {"steps": 8}}])


def test_identity_keeps_with_order_figures_time_and_versions() -> None:
    other = {**ROW, "draw": 1}
    changed = {**ROW, "srcc": 0.1, "seconds": 9.0, "peak_memory_mib": 1.0, "versions": {"torch": "3"}}
    assert run_identity([ROW, other]) == run_identity([other, changed])


def test_every_row_has_its_figures() -> None:
    heads, (line, lacking) = every_row([ROW, {**ROW, "plcc": None}])
    told = dict(zip(heads, line, strict=True))
    assert told["data set"] == "livec" and told["tested on"] == "bid" and told["split"] == "c" * 12
    assert (told["SRCC"], told["RMSE after fit"], told["seconds"]) == ("0.5124", "9.2500", "2.0")
    assert dict(zip(heads, lacking, strict=True))["PLCC"] == "\N{EN DASH}"
