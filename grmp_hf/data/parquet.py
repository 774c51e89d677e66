"""Parquet files: plain columns read whole, pictures a row group at a time when they are asked for; nothing is cached.

What a cell may be:

| type | is read as |
|---|---|
| text, also dictionary-encoded; numbers, decimals, truth values | the value, a decimal as a float |
| dates and times | text |
| bytes that are text | text, as names on disk are decoded |
| other bytes; a structure of `bytes`, `path` or both | a picture; a path is looked for as that of any table |
| lists, maps, other structures | `NestedCell`, which is refused by name where a value is needed |
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grmp_hf.data.columns import first_few, shown
from grmp_hf.data.images import ImageError
from grmp_hf.data.numbers import NestedCell
from grmp_hf.data.tables import Table
from grmp_hf.data.text import describe_foreign, legacy
from grmp_hf.errors import GRMPError

__all__ = ["ParquetPicture", "is_name", "read_parquet"]

_KEPT_GROUPS = 2  # threads that read ahead are at most a few pictures apart
_LONGEST_NAME = 4096


class PictureColumn:
    """The pictures of one column, in memory a row group at a time; can be sent to another process.

    Args:
        path: of the file.
        name: of the column.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._stamp = _stamp(path)
        self._open()

    def _open(self) -> None:
        import pyarrow.parquet as pq

        self._lock = threading.Lock()
        self._file = pq.ParquetFile(self.path)
        self._groups: dict[int, Any] = {}
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "name": self.name, "_stamp": self._stamp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if _stamp(self.path) != self._stamp:
            raise GRMPError(f"{self.path}: expected the file that was read before, got another one; start again")
        self._open()

    def entry(self, index: int) -> Any:
        """The cell: bytes, a dictionary of `bytes` and `path`, or None."""
        import bisect

        group = bisect.bisect_right(self._starts, index) - 1
        with self._lock:
            if group not in self._groups:
                while len(self._groups) >= _KEPT_GROUPS:
                    del self._groups[next(iter(self._groups))]
                self._groups[group] = self._file.read_row_group(group, columns=[self.name]).column(0)
            return self._groups[group][index - self._starts[group]].as_py()

    def paths(self) -> list[str | None]:
        """Of each picture the path of its file, where that is all that there is of it; else None."""
        import pyarrow

        kind, found = self._file.schema_arrow.field(self.name).type, list[str | None]()
        fields = {kind.field(at).name for at in range(kind.num_fields)} if pyarrow.types.is_struct(kind) else set()
        for group in range(self._file.num_row_groups):
            count = self._starts[group + 1] - self._starts[group]
            if "path" not in fields or self._nulls(group, "bytes") == 0:
                found += [None] * count
                continue
            whole = "bytes" in fields and self._nulls(group, "bytes") != count
            try:
                part = self._file.read_row_group(group, columns=[self.name if whole else f"{self.name}.path"])
                entries = (cell.as_py() or {} for cell in part.column(0))
                found += [entry.get("path") if entry.get("bytes") is None else None for entry in entries]
            except (OSError, pyarrow.ArrowException):  # said of the picture that is asked for
                found += [None] * count
        return found

    def _nulls(self, group: int, field: str) -> int | None:
        """How many pictures of a row group have nothing in a field, where the file says so."""
        said = self._file.metadata.row_group(group)
        columns = (said.column(at) for at in range(said.num_columns))
        counted = (c.statistics for c in columns if c.path_in_schema == f"{self.name}.{field}")
        return next((c.null_count for c in counted if c is not None and c.has_null_count), None)


@dataclass(frozen=True)
class ParquetPicture:
    """One picture of a parquet file; its bytes stay on disk until they are asked for."""

    column: PictureColumn
    index: int
    file: Path | None = None
    """Where it has been found, if it lies outside."""

    @staticmethod
    def paths(pictures: Sequence[ParquetPicture]) -> list[str | None]:
        """Of all pictures of a column, the path of the file where there is no more of it; else None."""
        return pictures[0].column.paths()

    def read(self) -> bytes | Path:
        """Return the encoded picture or the file that holds it.

        Raises:
            ImageError: "empty" where there is none, "unreadable" where the parquet file is damaged.
        """
        import pyarrow

        if self.file is not None:
            return self.file
        place = f"row {self.index + 1} of {self.column.path.name}"
        try:
            entry = self.column.entry(self.index)
        except (OSError, pyarrow.ArrowException) as error:
            raise ImageError(f"{place} cannot be read ({error}); write the file again", "unreadable") from error
        entry = entry if isinstance(entry, dict) else {"bytes": entry}
        if entry.get("bytes") is not None:
            return bytes(entry["bytes"])
        if entry.get("path") is None:
            raise ImageError(f"{place} holds no picture; leave it out", "empty")
        return self.column.path.parent / str(entry["path"])


def read_parquet(path: Path) -> Table:
    """Read a parquet file with the pictures inside, or with their paths relative to its folder.

    Raises:
        GRMPError: it is no parquet file, is damaged, has no rows, or a name twice; with the cause.
    """
    import pyarrow
    import pyarrow.parquet as pq

    _check_frame(path)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            twice = [f'"{shown(name)}"' for name in dict.fromkeys(schema.names) if schema.names.count(name) > 1]
            if twice:
                raise GRMPError(f"{path}: expected each column once, got {first_few(twice)} more than once; rename one")
            if not file.metadata.num_rows:
                raise GRMPError(f"{path}: expected rated pictures, got a file without rows; write it again")
            labels = _class_labels(schema)
            columns = {name: _cells(file, path, name, labels.get(name)) for name in schema.names}
            places = [f"row {number}" for number in range(1, file.metadata.num_rows + 1)]
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise GRMPError(f"{path}: this parquet file cannot be read ({reason}); write it again or use CSV") from error
    return Table(str(path), columns, places, path.parent)


def is_name(value: bytes) -> bool:
    """Say whether bytes are text on one line, such as the name of a file; no picture is."""
    return len(value) <= _LONGEST_NAME and legacy(value.decode("utf-8", "surrogateescape")).isprintable()


def _check_frame(path: Path) -> None:
    """Name what keeps a file from being parquet, before a library that knows only that it is none."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            file.seek(max(0, path.stat().st_size - 4))
            tail = file.read()
    except OSError as error:
        raise GRMPError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    found = "an empty file" if not head else describe_foreign(head) if head[:4] != b"PAR1" else None
    if head[:4] == b"PARE":
        found = "an encrypted one"
    elif head[:4] == b"PAR1" and (tail != b"PAR1" or path.stat().st_size < 12):
        found = "one that ends too early, as if it was not copied whole"
    if found or head[:4] != b"PAR1":
        begins = f"a file that begins with {head[:4]!r}"
        raise GRMPError(f"{path}: expected a parquet file, got {found or begins}; write it again or use CSV")


def _cells(file: Any, path: Path, name: str, labels: Sequence[str] | None) -> Sequence[Any]:
    import pyarrow

    kind, count = file.schema_arrow.field(name).type, file.metadata.num_rows
    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if _is_picture(kind):
        pictures = PictureColumn(path, name)
        return [ParquetPicture(pictures, index) for index in range(count)]
    if _is_bytes(kind):
        first = _first_value(file, name)
        if first is not None and not is_name(first):
            pictures = PictureColumn(path, name)
            return [ParquetPicture(pictures, index) for index in range(count)]
        return [value and value.decode("utf-8", "surrogateescape") for value in _read(file, name).to_pylist()]
    if types.is_nested(kind) or isinstance(kind, pyarrow.BaseExtensionType):
        return [NestedCell(shown(f"values of the type {kind}"))] * count
    column = _read(file, name)
    if types.is_temporal(kind):
        return [str(cell) if cell.is_valid else None for chunk in column.chunks for cell in chunk]
    values = column.to_pylist()
    if labels is not None:
        return [labels[value] if value is not None and 0 <= value < len(labels) else value for value in values]
    if types.is_decimal(kind) or types.is_floating(kind):
        return [None if value is None else float(value) for value in values]
    return list(values)


def _read(file: Any, name: str) -> Any:
    import pyarrow

    column = file.read(columns=[name]).column(0)
    return column.cast(column.type.value_type) if pyarrow.types.is_dictionary(column.type) else column


def _first_value(file: Any, name: str) -> bytes | None:
    for batch in file.iter_batches(batch_size=16, columns=[name]):
        for cell in batch.column(0):
            if cell.is_valid:
                return bytes(cell.as_py())
    return None


def _is_bytes(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    checks = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(check(kind) for check in checks)


def _is_picture(kind: Any) -> bool:
    import pyarrow

    if not pyarrow.types.is_struct(kind) or not kind.num_fields:
        return False
    fields = {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}
    texts = (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(), pyarrow.null())
    return set(fields) <= {"bytes", "path"} and all(
        _is_bytes(type_) or type_ == pyarrow.null() if name == "bytes" else type_ in texts
        for name, type_ in fields.items()
    )


def _class_labels(schema: Any) -> dict[str, list[str]]:
    """Names of the classes of columns that the `datasets` library has written as numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(feature["names"])
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError):
        return {}


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
