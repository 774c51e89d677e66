"""Tables whose pictures lie inside: data sets of the Hub and of the `datasets` library."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.data.columns import OPTIONAL_NAMES, SPLIT_WORDS, column_key, first_few, shown
from grmp_hf.data.images import ImageError, decode_image
from grmp_hf.data.numbers import NestedCell
from grmp_hf.data.parquet import is_name
from grmp_hf.data.tables import Table
from grmp_hf.errors import GRMPError
from grmp_hf.places import cached_only

if TYPE_CHECKING:
    import datasets

__all__ = ["DatasetPicture", "load_hub_table", "pictures_of", "table_from_dataset", "without_format"]

_MODES = (None, "1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")  # which Pillow brings back to RGB


@dataclass(frozen=True)
class DatasetPicture:
    """One picture of a data set; its bytes stay on disk until they are asked for."""

    dataset: datasets.Dataset
    column: str
    index: int
    mode: str | None = None
    """Of Pillow, in which the data set gives it; None for RGB."""
    file: Path | None = None
    """Where it has been found, if it lies outside."""

    @staticmethod
    def paths(pictures: Sequence[DatasetPicture]) -> list[str | None]:
        """Of each of some pictures, the path of the file where the data set has no more of it; else None."""
        known: dict[int, list[str | None]] = {}
        for picture in pictures:
            if id(picture.dataset) not in known:
                known[id(picture.dataset)] = _paths(picture.dataset, picture.column)
        return [known[id(picture.dataset)][picture.index] for picture in pictures]

    def entry(self) -> dict[str, Any]:
        """Its ``bytes``, or the ``path`` of the file that holds it.

        Raises:
            ImageError: "empty" where the data set has none.
        """
        entry = self.dataset[self.index][self.column] or {}
        if entry.get("bytes") is None and entry.get("path") is None:
            raise ImageError(f"row {self.index + 1} of the data set holds no picture; leave it out", "empty")
        return dict(entry)

    def read(self) -> bytes | Path:
        """Return the encoded picture or the file that holds it; where it is in a mode, what it shows there, as PNG.

        Raises:
            ImageError: "empty" where the data set has none; as `decode_image` where it is to be in a mode.
        """
        entry = self.entry() if self.file is None else {"path": self.file}
        found = Path(entry["path"]) if entry.get("bytes") is None else bytes(entry["bytes"])
        if self.mode is None:
            return found
        stream = io.BytesIO()
        decode_image(found).convert(self.mode).convert("RGB").save(stream, "PNG", compress_level=1)
        return stream.getvalue()


def _paths(dataset: datasets.Dataset, column: str) -> list[str | None]:
    import pyarrow.compute

    if not pyarrow.compute.struct_field(dataset.data.column(column), "bytes").null_count:  # which reads no bytes
        return [None] * len(dataset)
    entries = (entry or {} for entry in dataset[column])
    return [entry.get("path") if entry.get("bytes") is None else None for entry in entries]


def without_format(dataset: Any) -> Any:
    """A data set that gives its rows as they are: a format changes what they are given as, not what they hold.

    Args:
        dataset: of `datasets`, in memory or streamed.

    Raises:
        GRMPError: it has a transform, which may make other pictures and ratings at every look.
    """
    if (getattr(dataset, "format", None) or {}).get("type") == "custom":
        raise GRMPError(
            "Expected a data set without a transform, got one with a function of with_transform, which may change "
            "pictures and ratings at every look. Take it off with data.with_format(None); to keep what it does, apply "
            "it once with .map(function, batched=True) after that."
        )
    return dataset.with_format(None)


def pictures_of(dataset: datasets.Dataset, name: str) -> list[DatasetPicture]:
    """The pictures of a column, whatever the format of the data set, in the mode that the column has.

    Raises:
        GRMPError: the data set has a transform, or the mode is none that becomes RGB.
    """
    import datasets

    feature = dataset.features[name]
    mode = feature.mode if isinstance(feature, datasets.Image) and feature.decode else None
    if mode not in _MODES:
        raise GRMPError(
            f'Expected pictures as they are or in one of the modes {", ".join(map(str, _MODES[1:]))}, got "{mode}" in '
            f'the column "{shown(name)}". Cast it: data.cast_column("{shown(name)}", datasets.Image()).'
        )
    plain = without_format(dataset).select_columns([name]).cast_column(name, datasets.Image(decode=False))
    return [DatasetPicture(plain, name, index, None if mode == "RGB" else mode) for index in range(len(plain))]


def load_hub_table(
    name: str, *, config: str | None = None, revision: str | None = None, local_files_only: bool = False
) -> Table:
    """Load all parts of a data set of the Hub, or of the local cache, with the part's name in a column `split`.

    Args:
        name: "owner/name".
        config: configuration, for data sets that have several.
        revision: branch, tag or commit.
        local_files_only: never ask the network.

    Raises:
        GRMPError: it does not exist or cannot be reached.
    """
    import datasets

    try:
        with _cache_alone(cached_only(name, revision, offline=local_files_only, dataset=True)):
            loaded = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # the errors of the network, of the Hub and of the format have no common base
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GRMPError(
            f'"{name}" is no file or folder here and could not be loaded as a data set of the Hub ({reason}); '
            "check the spelling and the network, or give a table or folder on this machine"
        ) from error
    return table_from_dataset(loaded, where=name)


@contextmanager
def _cache_alone(needed: bool) -> Iterator[None]:
    """Where it is needed, `datasets` looks into its cache at once; it has no argument for that."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = needed or before
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def table_from_dataset(data: Any, *, where: str) -> Table:
    """Make a table of a `datasets.Dataset` or `DatasetDict`: pictures as `DatasetPicture`, the other cells as values.

    The name of the part becomes the column `split` where there are several parts, unless a column of the data set says
    the same in its own words (train, validation, test).
    Cells of columns that are no plain values are `NestedCell`, and refused by name where a value is needed.

    Raises:
        GRMPError: it is neither, has no rows, has a transform, or a column that says other parts than it has.
    """
    import datasets

    if isinstance(data, datasets.Dataset):
        data = {"train": data}
    elif not isinstance(data, datasets.DatasetDict):
        raise GRMPError(f"expected a path, a Hub name, a Dataset or a DatasetDict, got a {type(data).__name__}")
    columns: dict[str, list[Any]] = {}
    places: list[str] = []
    for part, dataset in data.items():
        cells = _cells(dataset)
        if len(data) > 1 and not _says_parts(cells, str(part), where):
            cells["split"] = [str(part)] * len(dataset)
        for name, values in cells.items():
            columns.setdefault(name, []).extend(values)
        prefix = f"{part} row" if len(data) > 1 else "row"
        places.extend(f"{prefix} {number}" for number in range(1, len(dataset) + 1))
    if not places:
        raise GRMPError(f"{where}: expected rated pictures, got a data set without rows; check its name and parts")
    uneven = [f'"{name}"' for name, values in columns.items() if len(values) != len(places)]
    if uneven:
        raise GRMPError(
            f"{where}: expected the same columns in every part, got {', '.join(uneven)} in some only; "
            "in Python, pass the one part that is rated, as a Dataset; else write it as parquet and name the file"
        )
    return Table(where, dict(columns), places, None)


def _says_parts(cells: Mapping[str, Sequence[Any]], part: str, where: str) -> bool:
    """Whether a column of a part's rows says train, validation and test too; it then must not say another part."""
    for name in (name for name in cells if column_key(name) in OPTIONAL_NAMES["split"]):
        words = {SPLIT_WORDS.get(str(cell).strip().casefold()) for cell in cells[name]} - {None}
        if not words:
            continue
        own = SPLIT_WORDS.get(part.casefold())
        if own is not None and words != {own}:
            raise GRMPError(
                f'{where}: expected the rows of the part "{shown(part)}" to be of that part, got '
                f'{first_few(sorted(map(str, words)))} in their column "{shown(name)}"; take that column out, or pass '
                "one Dataset of all rows"
            )
        return True
    return False


def _cells(dataset: datasets.Dataset) -> dict[str, list[Any]]:
    import datasets

    dataset = without_format(dataset)
    cells: dict[str, list[Any]] = {}
    for name, feature in dataset.features.items():
        if _holds_pictures(feature, dataset, name):
            cells[name] = [*pictures_of(dataset, name)]
        elif isinstance(feature, datasets.ClassLabel):
            cells[name] = [None if value is None else feature.int2str(value) for value in dataset[name]]
        elif isinstance(feature, datasets.Value):
            values = list(dataset[name])
            cells[name] = [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v for v in values]
        else:
            cells[name] = [NestedCell(shown(f"values of the type {feature}"))] * len(dataset)
    return cells


def _holds_pictures(feature: Any, dataset: datasets.Dataset, name: str) -> bool:
    import datasets

    if isinstance(feature, datasets.Value) and feature.dtype in {"binary", "large_binary"}:
        first = next((value for value in dataset[name] if value is not None), None)
        return first is None or not is_name(first)
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
