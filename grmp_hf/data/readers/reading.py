"""From what a reader found to a rated table: labels and pictures matched, all ratings on the scale, nothing dropped."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping

from grmp_hf.data.benchmarks import OptionValue, find_benchmark
from grmp_hf.data.columns import RatedTable, first_few
from grmp_hf.data.numbers import check_ratings
from grmp_hf.data.official import OfficialFolder, fold, open_archive
from grmp_hf.data.readers import authentic, distorted
from grmp_hf.data.readers.labels import Labels
from grmp_hf.data.scales import RatingScale
from grmp_hf.errors import GRMPError

__all__ = ["read_benchmark"]

_READERS: Mapping[str, Callable[..., Labels]] = {
    "livec": authentic.read_livec,
    "koniq10k": authentic.read_koniq10k,
    "spaq": authentic.read_spaq,
    "live": distorted.read_live,
    "csiq": distorted.read_csiq,
    "tid2013": distorted.read_tid2013,
    "kadid10k": distorted.read_kadid10k,
    "bid": authentic.read_bid,
    "flive": authentic.read_flive,
    "pipal": distorted.read_pipal,
    "agiqa3k": authentic.read_agiqa3k,
    "biq2021": authentic.read_biq2021,
}


def read_benchmark(
    name: str,
    data_dir: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: OptionValue,
) -> RatedTable:
    """Read an official data set; every picture has been seen to exist, none has been decoded.

    Args:
        name: one of `BENCHMARKS`.
        data_dir: folder of the official archive (its root, its inner folder, or one that holds it), or the archive
            file.
        cache_dir: where an archive file is unpacked, once.
        options: of this data set, see `BenchmarkSpec.options`.

    Returns:
        The rows in the order of the label file. `index` counts its rows from 0, through all files where there are
        several, and keeps its gaps where rows are left out by an option.

    Raises:
        GRMPError: wrong folder, missing file, a label without its picture, a picture without a label, a rating that
            cannot be.
    """
    spec = find_benchmark(name)
    chosen = spec.choose(options)
    folder = OfficialFolder(open_archive(data_dir, cache_dir), spec)
    return _make_table(folder, _READERS[name](folder, **chosen))


def _make_table(folder: OfficialFolder, labels: Labels) -> RatedTable:
    spec = folder.spec
    scale = labels.scale or spec.scale
    _check_labels(labels, scale)
    _check_pictures(folder, labels)
    rows = tuple(
        dataclasses.replace(
            row,
            image=labels.pictures[fold(row.name)],
            quality=min(max(scale.to_quality(row.mos), 0.0), 1.0),
            dataset=spec.id,
        )
        for row in labels.rows
    )
    notes = [f"{spec.title}: {len(rows)} rows from {labels.file.name}", *labels.notes]
    if not spec.is_whole(len(rows)):
        notes.append(f"{spec.title}: this is not the whole data set, which has {spec.rows} rows")
    return RatedTable(spec.id, rows, scale, tuple(notes), content=spec.content or "reference")


def _check_labels(labels: Labels, scale: RatingScale) -> None:
    times = Counter(fold(label.name) for label in labels.rows)
    repeated = [f'"{label.name}"' for label in labels.rows if times[fold(label.name)] > 1]
    if repeated:
        raise GRMPError(
            f"{labels.file}: expected one row a picture, got {len(repeated)} rows that share a name: "
            f"{first_few(repeated)}; get the label file again"
        )
    # Copies of one score differ in their last digits: an end of the scale may be passed by rounding, by no more.
    slack = 1e-6 * (scale.high - scale.low)
    wide = RatingScale(scale.low - slack, scale.high + slack, scale.higher_is_better)
    names = [label.name for label in labels.rows]
    mos = [label.mos for label in labels.rows]
    check_ratings(mos, names, where=str(labels.file))
    outside = [f"{value:g} ({name})" for value, name in zip(mos, names, strict=True) if not wide.contains(value)]
    if outside:
        raise GRMPError(
            f"{labels.file}: expected scores from {scale}, got {len(outside)} outside: {first_few(outside)}; "
            "get the label file again"
        )


def _check_pictures(folder: OfficialFolder, labels: Labels) -> None:
    spec = folder.spec
    places = first_few(sorted({str(path.parent) for path in labels.pictures.values()})) or str(folder.root)
    missing = [f'"{label.name}"' for label in labels.rows if fold(label.name) not in labels.pictures]
    if missing:
        raise GRMPError(
            f"{places}: expected a picture for each of the {len(labels.rows)} labels in {labels.file}, {len(missing)} "
            f"are missing: {first_few(missing)}; get the whole of {spec.title} from {spec.home}"
        )
    labelled = {fold(label.name) for label in labels.rows} | set(labels.known)
    extra = [f'"{path.name}"' for key, path in labels.pictures.items() if key not in labelled]
    if extra:
        raise GRMPError(
            f"{places}: expected a label in {labels.file} for each picture, {len(extra)} pictures have none: "
            f"{first_few(extra)}; remove them, or get {spec.title} again from {spec.home}"
        )
