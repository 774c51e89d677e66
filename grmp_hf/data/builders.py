"""Official data sets as `datasets.Dataset`: a builder for each, whose cache notices a folder that was changed in place.

The library keys its cache by the folder's name, which says nothing about its content; so each builder also puts the
fingerprint of the folder into its configuration. Rows are those of `read_benchmark`; pictures stay where they are and
are decoded when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import datasets

from grmp_hf.data.benchmarks import OptionValue, find_benchmark
from grmp_hf.data.columns import Row
from grmp_hf.data.official import OfficialFolder, fingerprint, open_archive
from grmp_hf.data.readers import read_benchmark
from grmp_hf.errors import GRMPError

__all__ = ["BUILDERS", "FEATURES", "IQABuilder", "IQAConfig", "load_iqa_dataset", "row_values"]

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "name": datasets.Value("string"),
        "mos": datasets.Value("float64"),
        "quality": datasets.Value("float64"),
        "mos_std": datasets.Value("float64"),
        "reference": datasets.Value("string"),
        "distortion": datasets.Value("string"),
        "level": datasets.Value("string"),
        "scene": datasets.Value("string"),
        "split": datasets.Value("string"),
        "dataset": datasets.Value("string"),
        "index": datasets.Value("int64"),
    }
)
"""The columns of every data set: the fields of `Row`, but for `votes`, which readers leave open."""

_PARTS = {"train": datasets.Split.TRAIN, "validation": datasets.Split.VALIDATION, "test": datasets.Split.TEST}
_ROWS_PER_SHARD = 512
"""A stream is handed to the workers of a loader shard by shard."""


@dataclass
class IQAConfig(datasets.BuilderConfig):
    """What decides about the rows: options of the data set, and the content of its folder."""

    options: dict[str, OptionValue] = field(default_factory=dict)
    fingerprint: str = ""


class IQABuilder(datasets.GeneratorBasedBuilder):
    """Builds one official data set; the subclasses say which.

    Args:
        cache_dir: of the library; None is its default.
        data_dir: folder or archive file of the official data set.
        **options: of the data set, see `BenchmarkSpec.options`.

    Raises:
        GRMPError: no folder, or an option that the data set does not have.
    """

    BENCHMARK: str
    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = IQAConfig

    def __init__(
        self,
        cache_dir: str | PathLike[str] | None = None,
        *,
        data_dir: str | PathLike[str] | None = None,
        **options: OptionValue,
    ) -> None:
        spec = find_benchmark(self.BENCHMARK)
        if data_dir is None:
            raise GRMPError(f"expected data_dir, the folder of {spec.title}, got none; get it from {spec.home}")
        folder = OfficialFolder(open_archive(data_dir, cache_dir), spec)
        super().__init__(
            cache_dir=None if cache_dir is None else str(cache_dir),
            dataset_name=self.BENCHMARK,
            data_dir=str(folder.root),
            options=spec.choose(options),
            fingerprint=fingerprint(folder.root),
        )

    def _info(self) -> datasets.DatasetInfo:
        spec = find_benchmark(self.BENCHMARK)
        return datasets.DatasetInfo(
            description=spec.title, features=FEATURES, homepage=spec.home, citation=spec.citation, license=spec.terms
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        rows = read_benchmark(self.BENCHMARK, self.config.data_dir, **self.config.options).rows
        # Where nothing is marked, all is "train", as the library calls a data set of one part.
        parts = {part: [row for row in rows if (row.split or "train") == part] for part in _PARTS}
        return [
            datasets.SplitGenerator(name=_PARTS[part], gen_kwargs={"shards": _shards(chosen)})
            for part, chosen in parts.items()
            if chosen
        ]

    def _generate_examples(self, shards: Sequence[Sequence[Row]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for shard in shards:
            for row in shard:
                yield row.index or 0, row_values(row)


class LIVEChallenge(IQABuilder):
    """LIVE In the Wild Image Quality Challenge."""

    BENCHMARK = "livec"


class KonIQ10k(IQABuilder):
    """KonIQ-10k."""

    BENCHMARK = "koniq10k"


class SPAQ(IQABuilder):
    """Smartphone Photography Attribute and Quality."""

    BENCHMARK = "spaq"


class LIVE(IQABuilder):
    """LIVE Image Quality Assessment Database, release 2."""

    BENCHMARK = "live"


class CSIQ(IQABuilder):
    """Categorical Image Quality."""

    BENCHMARK = "csiq"


class TID2013(IQABuilder):
    """Tampere Image Database 2013."""

    BENCHMARK = "tid2013"


class KADID10k(IQABuilder):
    """Konstanz Artificially Distorted Image Database."""

    BENCHMARK = "kadid10k"


class BID(IQABuilder):
    """Blurred Image Database."""

    BENCHMARK = "bid"


class FLIVE(IQABuilder):
    """LIVE-FB, whole pictures."""

    BENCHMARK = "flive"


class PIPAL(IQABuilder):
    """Perceptual Image Processing Algorithms, public part."""

    BENCHMARK = "pipal"


class AGIQA3K(IQABuilder):
    """AI-generated pictures."""

    BENCHMARK = "agiqa3k"


class BIQ2021(IQABuilder):
    """BIQ2021."""

    BENCHMARK = "biq2021"


BUILDERS: Mapping[str, type[IQABuilder]] = {
    builder.BENCHMARK: builder
    for builder in (
        *(LIVEChallenge, KonIQ10k, SPAQ, LIVE, CSIQ, TID2013),
        *(KADID10k, BID, FLIVE, PIPAL, AGIQA3K, BIQ2021),
    )
}
"""The builder of each data set, by its short name."""


def load_iqa_dataset(
    name: str,
    data_dir: str | PathLike[str],
    *,
    split: str | None = None,
    streaming: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    **options: OptionValue,
) -> Any:
    """Load an official data set from the folder, or the archive file, that its authors publish.

    Nothing is downloaded and no picture is copied. The second call reads the cache, unless anything in the folder has
    changed.

    Args:
        name: one of `grmp_hf.data.benchmarks.BENCHMARKS`.
        data_dir: folder of the official archive, its inner folder, or the archive file.
        split: "train", "validation", "test", "all", or a slice such as "train[:10%]"; None gives all parts. A data set
            without official parts is all "train".
        streaming: read the label files, but write no cache.
        cache_dir: of the `datasets` library, and where an archive is unpacked.
        **options: of the data set, such as ``scores="1-5"`` of KonIQ-10k.

    Returns:
        `Dataset` (one part) or `DatasetDict`; with `streaming`, their iterable counterparts.

    Raises:
        GRMPError: no such data set, option or part; wrong folder; labels and pictures that do not match.
    """
    find_benchmark(name)
    builder = BUILDERS[name](cache_dir, data_dir=data_dir, **options)
    try:
        if streaming:
            return builder.as_streaming_dataset(split)
        builder.download_and_prepare()
        return builder.as_dataset(split)
    except GRMPError:
        raise
    except ValueError as error:
        raise GRMPError(f'{name}: expected a part of the data set, got split="{split}": {error}') from error


def row_values(row: Row) -> dict[str, Any]:
    """Return a row as the values of `FEATURES`, the picture as the path of its file."""
    return {column: str(row.image) if column == "image" else getattr(row, column) for column in FEATURES}


def _shards(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[start : start + _ROWS_PER_SHARD] for start in range(0, len(rows), _ROWS_PER_SHARD)]
