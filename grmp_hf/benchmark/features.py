"""What methods see of pictures: embeddings, zero-shot quality and hand-made statistics, computed once and kept.

What is kept is found by content: the SHA-256 of the picture's bytes, under a folder whose name says what decided about
the numbers (base, preprocessing, versions). Letters in shapes: n pictures, D width of the embedding.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from grmp_hf.data import ImageError, Row, decode_row
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import STATISTICS, handmade_statistics
from grmp_hf.hub import package_versions
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.scoring import Scorer, iter_views, large_alone
from grmp_hf.storing import atomic_path

__all__ = ["FeatureStore", "Pictures", "first_views", "iter_pixels", "without_ratings"]

Floats = NDArray[np.float64]
Tell = Callable[[str, float], None]

_BATCH = 16
_PART = 16 * _BATCH  # pictures of a file; whole batches, so that a run that was killed goes on with the same ones


@dataclass(frozen=True)
class Pictures:
    """All that a method may know of n pictures: never a rating.

    Attributes:
        rows: where they are and what they are called; ratings and everything said beside them are blanked.
        embeds: (n, D) float32, of the frozen base.
        zero_shot: (n,) quality in [0, 1] by the base alone.
        statistics: (n, 14), see `handmade_statistics`.
    """

    rows: tuple[Row, ...]
    embeds: NDArray[np.float32]
    zero_shot: Floats
    statistics: Floats

    def __len__(self) -> int:
        return len(self.rows)


class _Features(NamedTuple):
    embeds: NDArray[np.float32]
    zero_shot: np.float64
    statistics: Floats


def without_ratings(row: Row) -> Row:
    """The picture of a row, its name and its data set: all else is blank, the ratings NaN."""
    nan = float("nan")
    return Row(image=row.image, name=row.name, mos=nan, quality=nan, dataset=row.dataset)


class FeatureStore:
    """Features of pictures by one base, in memory and on disk.

    Args:
        folder: shared by all bases.
        base: a scorer without adapter.
    """

    def __init__(self, folder: Path, base: Scorer) -> None:
        identity = base.identity
        settings = [identity["base_fingerprint"], identity["preprocessing"], identity["dtype"], package_versions()]
        settings += [list(STATISTICS), str(next(base.model.parameters()).device.type)]
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.base, self.folder = base, folder / f"{identity['base_fingerprint']}-{name}"
        self._found: dict[bytes, _Features] = {}
        self._digests: dict[tuple[str | None, str], bytes] = {}
        self._statistics: dict[bytes, Floats] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            self._read(path)

    def describe(self, rows: Sequence[Row], tell: Tell) -> None:
        """Compute what is not known yet of some pictures.

        Args:
            rows: names are unique inside a data set.
            tell: told what is done and how far it is.

        Raises:
            GRMPError: a picture that cannot be read; a benchmark has no partial data sets.
        """
        self._identify(rows)
        missing = {digest: row for row in rows if (digest := self.digest(row)) not in self._found}
        keys, done = {(row.dataset, row.name): digest for digest, row in missing.items()}, 0
        part: dict[bytes, _Features] = {}
        for chunk in iter_views(missing.values(), self._look, batch_size=_BATCH):
            views = [_need(row, found) for row, found in chunk]
            output = self.base.outputs(torch.stack(views))
            embeds, quality = output.image_embeds.float().cpu().numpy(), output.quality.double().cpu().numpy()
            for at, (row, _) in enumerate(chunk):
                digest = keys[row.dataset, row.name]
                part[digest] = _Features(embeds[at], quality[at], self._statistics.pop(digest))
            done += len(chunk)
            if len(part) >= _PART or done == len(missing):
                self._write(part)
                self._found |= part
                part = {}
            tell("pictures described once for all methods", done / len(missing))

    def pictures(self, rows: Sequence[Row]) -> Pictures:
        """What methods may know of pictures that have been described; there may be none."""
        found = [self._found[self.digest(row)] for row in rows]
        width = len(next(iter(self._found.values())).embeds)
        return Pictures(
            tuple(map(without_ratings, rows)),
            np.array([features.embeds for features in found], dtype=np.float32).reshape(len(rows), width),
            np.array([features.zero_shot for features in found], dtype=np.float64),
            np.array([features.statistics for features in found]).reshape(len(rows), len(STATISTICS)),
        )

    def digest(self, row: Row) -> bytes:
        """SHA-256 of the picture's bytes, as it was when it was described."""
        return self._digests[row.dataset, row.name]

    def _identify(self, rows: Sequence[Row]) -> None:
        new = [row for row in rows if (row.dataset, row.name) not in self._digests]
        with ThreadPoolExecutor() as pool:
            for row, digest in zip(new, pool.map(_digest, new), strict=True):
                self._digests[row.dataset, row.name] = digest

    def _look(self, row: Row) -> Tensor:
        """Views of a picture; its statistics are kept aside."""
        return large_alone(functools.partial(self._decode, row))

    def _decode(self, row: Row, max_pixels: int) -> Tensor:
        picture = decode_row(row, max_pixels=max_pixels)
        self._statistics[self.digest(row)] = handmade_statistics(np.asarray(picture))
        return self.base.processor.pixels(picture)

    def _write(self, part: dict[bytes, _Features]) -> None:
        columns = {
            "digest": np.stack([np.frombuffer(digest, np.uint8) for digest in part]),
            **{name: np.stack([getattr(features, name) for features in part.values()]) for name in _Features._fields},
        }
        name = hashlib.sha256(b"".join(part)).hexdigest()[:16]
        with atomic_path(self.folder / f"{name}.safetensors") as temporary:
            save_file(columns, temporary)

    def _read(self, path: Path) -> None:
        try:
            columns = load_file(path)
            rows = zip(*(columns[name] for name in ("digest", *_Features._fields)), strict=True)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise GRMPError(
                f"{path}: expected features of pictures, got ({error}); move the file away or choose another --cache"
            ) from error
        for digest, *features in rows:
            self._found[digest.tobytes()] = _Features(*features)


def first_views(base: Scorer, count: int) -> Scorer:
    """The base with the first of its views, their weights divided by their sum; its identity says so.

    Raises:
        GRMPError: it has fewer, or none is asked for.
    """
    settings = base.processor.settings()
    views = settings["views"]
    if not 1 <= count <= len(views):
        raise GRMPError(f"expected 1 to {len(views)} views, as many as the base has, got {count}")
    kept = np.array((settings["view_weights"] or [1.0] * len(views))[:count])
    fewer = {**settings, "views": views[:count], "view_weights": (kept / kept.sum()).tolist()}
    identity = {**base.identity, "preprocessing": fewer}
    return dataclasses.replace(base, processor=GRMPImageProcessor(**fewer), identity=identity)


def iter_pixels(base: Scorer, rows: Sequence[Row], batch_size: int = _BATCH) -> Iterator[Tensor]:
    """Views of pictures, uint8 ``(B, V, 3, S, S)`` at a time, in order.

    Raises:
        GRMPError: a picture that cannot be read.
    """
    for chunk in iter_views(rows, base.views, batch_size=batch_size):
        yield torch.stack([_need(row, found) for row, found in chunk])


def _need(row: Row, found: Tensor | ImageError) -> Tensor:
    if isinstance(found, ImageError):
        raise GRMPError(f"{row.dataset}, {row.name}: {found}; a benchmark needs all pictures: mend or remove this one")
    return found


def _digest(row: Row) -> bytes:
    try:
        source = row.image if isinstance(row.image, bytes | Path) else row.image.read()
        return hashlib.sha256(source if isinstance(source, bytes) else source.read_bytes()).digest()
    except OSError as error:
        raise GRMPError(f"{row.dataset}, {row.name}: cannot be read ({error.strerror}); restore the picture") from error
