"""The data sets of a configuration as tables of rated pictures."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from grmp_hf.benchmark.config import BenchmarkConfig
from grmp_hf.benchmark.reading import DatasetConfig
from grmp_hf.benchmark.stream_config import StreamsConfig
from grmp_hf.data import RatedTable, read_ratings
from grmp_hf.data.readers import read_benchmark
from grmp_hf.errors import GRMPError

__all__ = ["Tables", "read_tables"]

Tables = dict[tuple[str, str], RatedTable]
"""(data set, protocol) -> its ratings."""

_PAPER_OPTIONS: dict[str, dict[str, Any]] = {"livec": {"practice": True}, "koniq10k": {"scores": "1-5"}}
"""What the published code reads: LIVE Challenge with its seven practice pictures, KonIQ-10k on the scale 1 to 5."""


_KEYS = {
    r"--range (\S+) ([^\s,;]+)": r"range: [\1, \2]",
    "--higher-is-better": "higher_is_better: true",
    "--lower-is-better": "higher_is_better: false",
    r"--images(?: DIR)?": "the key images",
    r"--raters average": "raters: average",
    r"--raters": "raters",
    r"--(image|rating|rater|split)-column(s?)(?: NAME)?": r"the key \1_column\2",
}


def read_tables(config: BenchmarkConfig | StreamsConfig) -> Tables:
    """Read all data sets; every picture has been seen to exist, none has been decoded.

    Raises:
        GRMPError: a data set without a place, or whatever keeps it from being read.
    """
    tables: Tables = {}
    for dataset in config.datasets:
        read: dict[str, RatedTable] = {}
        for protocol in config.protocols:
            defaults = _PAPER_OPTIONS.get(dataset.benchmark or "", {}) if protocol == "paper" else {}
            options = {**defaults, **dataset.options}
            if repr(options) not in read:
                table = _read(dataset, options)
                rows = tuple(replace(row, dataset=dataset.name) for row in table.rows)
                read[repr(options)] = replace(table, name=dataset.name, rows=rows)
            tables[dataset.name, protocol] = read[repr(options)]
    return tables


def _by_keys(advice: str) -> str:
    """Advice that names options of other commands, with the keys of a data set that say the same."""
    for option, key in _KEYS.items():
        advice = re.sub(option, key, advice)
    return advice


def _read(dataset: DatasetConfig, options: dict[str, Any]) -> RatedTable:
    if dataset.place is None:
        raise GRMPError(f"{dataset.name}: expected the place of this data set; give it with --data {dataset.name}=DIR")
    if dataset.benchmark is None:
        try:
            return read_ratings(dataset.place, **options)
        except GRMPError as error:
            raise GRMPError(_by_keys(str(error))) from error
    return read_benchmark(dataset.benchmark, dataset.place, **options)
