"""An official data set as Parquet with the pictures inside, its card, and its way to the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cards import REPOSITORY

if TYPE_CHECKING:
    from grmp_hf.data import BenchmarkSpec, RatedTable, Row

__all__ = ["describe_terms", "size_of", "split_parts", "upload_set", "write_set"]

_SHARD_BYTES = 400 * 10**6
_GROUP_ROWS = 100
_COLUMNS = {
    "image": "the picture, as published, not encoded again",
    "name": "of the picture in the label file",
    "mos": "score as published, whatever its direction",
    "quality": "the score in [0, 1], 1 = best, by the fixed map above",
    "mos_std": "deviation of the votes, in units of mos",
    "reference": "the pristine picture that this one was made from",
    "distortion, level, scene": "as published",
    "split": "official part, null where there is none",
    "dataset": "short name of the data set",
    "index": "row of the label file, from 0",
}


def describe_terms(spec: BenchmarkSpec) -> str:
    """What somebody who passes a data set on has to know, in a few lines."""
    return f"{spec.title}\n  home:  {spec.home}\n  terms: {spec.terms}\n  cite:  {spec.citation}"


def size_of(rows: Sequence[Row]) -> int:
    """Bytes of the pictures."""
    return sum(_file(row).stat().st_size for row in rows)


def split_parts(table: RatedTable) -> dict[str, list[Row]]:
    """Rows by official part, empty parts left out; all are "train" where nothing is marked."""
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in table.rows:
        parts[row.split or "train"].append(row)
    return {part: rows for part, rows in parts.items() if rows}


def write_set(table: RatedTable, spec: BenchmarkSpec, folder: Path) -> list[Path]:
    """Write the Parquet files of all parts to `folder/data`, and the card, into a folder without any; return the files.

    Paths on this machine are cut to the names of the files.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from grmp_hf.data.builders import FEATURES

    (folder / "data").mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for part, rows in split_parts(table).items():
        shards = list(_shards(rows))
        for number, shard in enumerate(shards):
            path = folder / "data" / f"{part}-{number:05}-of-{len(shards):05}.parquet"
            with pq.ParquetWriter(path, FEATURES.arrow_schema) as writer:
                for group in _groups(shard):
                    writer.write_table(pa.Table.from_pylist([_values(row) for row in group], FEATURES.arrow_schema))
            written.append(path)
    card = folder / "README.md"
    card.write_text(_card(table, spec), encoding="utf-8")
    return [*written, card]


def upload_set(folder: Path, repo_id: str, *, private: bool) -> str:
    """Upload what `write_set` wrote as a data set of the Hub, with its name in the card; return the commit's address.

    Raises:
        GRMPError: the repository is public although a private one was asked for, no network, or no permission.
    """
    from huggingface_hub import HfApi

    from grmp_hf.pushing import repository

    api = HfApi()
    with repository(api, repo_id, private=private, dataset=True) as name:
        card = folder / "README.md"
        card.write_text(card.read_text(encoding="utf-8").replace(REPOSITORY, name), encoding="utf-8")
        done = api.upload_folder(
            folder_path=folder,
            repo_id=name,
            repo_type="dataset",
            commit_message="Upload with grmp_hf",
            allow_patterns=["data/*.parquet", "README.md"],
            delete_patterns=["data/*.parquet"],
        )
    return str(done.commit_url)


def _file(row: Row) -> Path:
    assert isinstance(row.image, Path)  # official data sets are files
    return row.image


def _values(row: Row) -> dict[str, Any]:
    from grmp_hf.data.builders import row_values
    from grmp_hf.data.opening import read_content

    return {**row_values(row), "image": {"bytes": read_content(_file(row)), "path": _file(row).name}}


def _shards(rows: Sequence[Row]) -> Iterator[list[Row]]:
    shard: list[Row] = []
    size = 0
    for row in rows:
        size += _file(row).stat().st_size
        if shard and size > _SHARD_BYTES:
            yield shard
            shard, size = [], _file(row).stat().st_size
        shard.append(row)
    yield shard


def _groups(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + _GROUP_ROWS] for start in range(0, len(rows), _GROUP_ROWS))


def _card(table: RatedTable, spec: BenchmarkSpec) -> str:
    import grmp_hf

    parts = {part: len(rows) for part, rows in split_parts(table).items()}
    files = "\n".join(f"  - split: {part}\n    path: data/{part}-*" for part in parts)
    columns = "\n".join(f"| {name} | {meaning} |" for name, meaning in _COLUMNS.items())
    counts = ", ".join(f"{part} {count}" for part, count in parts.items())
    first = next(iter(parts))
    return f"""---
pretty_name: {json.dumps(spec.title)}
license: other
license_name: see-terms
tags:
- image-quality-assessment
configs:
- config_name: default
  data_files:
{files}
---

# {spec.title}

Made from the official archive of the data set with grmp_hf {grmp_hf.__version__}. The pictures and scores are those of
its authors, whose terms hold here too.

- Home: {spec.home}
- Terms: {spec.terms}
- Cite: {spec.citation}

{len(table)} rated pictures ({counts}). Scores run from {table.scale}; `quality` is the fixed map of these ends to
[0, 1]. SHA-256 of names and scores: `{table.content_hash}`.

| column | meaning |
|---|---|
{columns}

```python
import datasets

data = datasets.load_dataset("{REPOSITORY}", split="{first}")  # the name of this repository
```
"""
