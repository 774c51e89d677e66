"""What is known of pictures beside their ratings, by name: computed once, and kept for whoever asks next.

What is kept is found by content: the SHA-256 of the picture's bytes, under a folder whose name says what decided about
the numbers (base, preprocessing, versions). Letters in shapes: n pictures, B of them at once, V views, T tokens, D
width of the joint embedding, W width of the vision tower.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from grmp_hf.data import ImageError, Row, decode_row
from grmp_hf.data.opening import read_content
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import STATISTICS, handmade_statistics
from grmp_hf.modeling.image_processing_grmp import TILES, GRMPImageProcessor
from grmp_hf.saving import package_versions
from grmp_hf.scoring import Scorer
from grmp_hf.storing import TEMPORARY, atomic_path
from grmp_hf.views import all_views, large_alone

__all__ = [
    "COLUMNS",
    "OF_PICTURES",
    "OF_VIEWS",
    "FeatureStore",
    "OwnColumns",
    "Pictures",
    "Viewed",
    "first_views",
    "without_ratings",
]

Array = NDArray[Any]
Tell = Callable[[str, float], None]

BATCH = 16
_PART = 16 * BATCH  # pictures of a file; whole batches, so that a run that was killed goes on with the same ones


@dataclass(frozen=True)
class Viewed:
    """Pictures as a base sees them.

    Attributes:
        base: a scorer without adapter.
        pixels: views before normalisation, uint8 ``(B, V, 3, S, S)``.
    """

    base: Scorer
    pixels: Tensor

    @functools.cached_property
    def output(self) -> Any:
        """The model's ``GRMPOutput``."""
        return self.base.outputs(self.pixels)


def _tokens(seen: Viewed) -> Array:
    """States of the vision tower after its last norm, as heads see them, ``(B, V, T, W)`` float32."""
    model: Any = seen.base.model
    with torch.inference_mode():
        found: Array = model.get_features(seen.base.prepare(seen.pixels), tokens=True).tokens.float().cpu().numpy()
    return found


def _side(seen: Viewed) -> Array:
    """What the base's side network says, ``(B, F)`` float32."""
    model: Any = seen.base.model
    with torch.inference_mode():
        parts = [model.get_side(part) for part in seen.base.passes(seen.pixels)]
    found: Array = torch.cat(parts).float().cpu().numpy()
    return found


OF_VIEWS: Mapping[str, Callable[[Viewed], Array]] = {
    "embeds": lambda seen: seen.output.image_embeds.float().cpu().numpy(),
    "zero_shot": lambda seen: seen.output.quality.double().cpu().numpy(),
    "tokens": _tokens,
    "side": _side,
}
"""Name -> what is read from the views of B pictures, ``(B, ...)``: ``embeds (B, D)`` of the frozen base, ``zero_shot
(B,)``, its quality in [0, 1], ``tokens (B, V, T, W)``, and ``side (B, F)`` of its side network."""

OF_PICTURES: Mapping[str, Callable[[NDArray[np.uint8]], Array]] = {"statistics": handmade_statistics}
"""Name -> what is read from a whole picture, uint8 ``(H, W, 3)``: ``statistics (14,)``, see `handmade_statistics`."""

COLUMNS = ("embeds", "zero_shot", "statistics")
"""What every picture is described by unless others are asked for, beside the ``side`` of a base that has one."""


class OwnColumns(NamedTuple):
    """Columns of one's own; what decides about one, beside the base, must stand in its name.

    Attributes:
        of_views, of_pictures: as :data:`OF_VIEWS` and :data:`OF_PICTURES`.
    """

    of_views: Mapping[str, Callable[[Viewed], Array]] = MappingProxyType({})
    of_pictures: Mapping[str, Callable[[NDArray[np.uint8]], Array]] = MappingProxyType({})

    @property
    def names(self) -> tuple[str, ...]:
        """Of all of them."""
        return (*self.of_views, *self.of_pictures)

    @property
    def known(self) -> dict[str, Any]:
        """Arguments of a :class:`FeatureStore` that can be asked for them too."""
        pictures = {**OF_PICTURES, **self.of_pictures}
        return {"of_views": {**OF_VIEWS, **self.of_views}, "of_pictures": pictures}

    def __or__(self, other: OwnColumns) -> OwnColumns:
        """Both."""
        return OwnColumns({**self.of_views, **other.of_views}, {**self.of_pictures, **other.of_pictures})


@dataclass(frozen=True)
class Pictures:
    """All that a method may know of n pictures: never a rating.

    Attributes:
        rows: where they are and what they are called; ratings and everything said beside them are blanked.
        columns: name -> ``(n, ...)``; ``pictures["embeds"]`` is the short way to one. Shots may have ``"noise"``, how
            sure the rating of each is beside the others (:func:`~grmp_hf.data.relative_noise`).
    """

    rows: tuple[Row, ...]
    columns: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]


def without_ratings(row: Row) -> Row:
    """The picture of a row, its name and its data set: all else is blank, the ratings NaN."""
    nan = float("nan")
    return Row(image=row.image, name=row.name, mos=nan, quality=nan, dataset=row.dataset)


@dataclass
class FeatureStore:
    """Features of pictures by one base, in memory and on disk.

    Attributes:
        place: folder shared by all bases.
        base: a scorer without adapter.
        of_views, of_pictures: what can be asked for; what decides about a column of one's own must stand in its name.
        run: a word that no other run has at the same time; what it left unfinished when it was killed is removed.

    Raises:
        GRMPError: a file in the folder that holds no features.
    """

    place: Path
    base: Scorer
    of_views: Mapping[str, Callable[[Viewed], Array]] = field(default_factory=lambda: OF_VIEWS)
    of_pictures: Mapping[str, Callable[[NDArray[np.uint8]], Array]] = field(default_factory=lambda: OF_PICTURES)
    run: str | None = None

    def __post_init__(self) -> None:
        identity = self.base.identity
        settings = [self.base.about_base, package_versions(), list(STATISTICS), self.base.device.type]
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = self.place / f"{identity['base_fingerprint']}-{name}"
        self._found: dict[str, dict[bytes, Array]] = {}
        self._unread: dict[str, list[Path]] = {}
        self._digests: dict[tuple[str | None, str], bytes] = {}
        self._unfinished = self.folder / f"{TEMPORARY}{self.run or uuid.uuid4().hex}"
        self._unfinished.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("*.safetensors")):
            with _opened(path) as file:
                for name in {*file.keys()} - {"digest"}:
                    self._unread.setdefault(name, []).append(path)

    @property
    def usual(self) -> tuple[str, ...]:
        """:data:`COLUMNS`, and ``side`` where the base has one."""
        model: Any = self.base.model
        return COLUMNS if getattr(model, "side", None) is None else (*COLUMNS, "side")

    def describe(self, rows: Sequence[Row], tell: Tell, columns: Sequence[str] | None = None) -> None:
        """Compute what is not known yet of some pictures.

        Args:
            rows: names are unique inside a data set.
            tell: told what is done and how far it is.
            columns: names out of ``of_views`` and ``of_pictures``.

        Raises:
            GRMPError: a picture that cannot be read, or a column that nobody knows how to compute.
        """
        known, columns = [*self.of_views, *self.of_pictures], self.usual if columns is None else columns
        if not set(columns) <= set(known):
            raise GRMPError(f"Expected columns out of {', '.join(known)}, got {', '.join(columns)}.")
        self._identify(rows)
        by_content = {self.digest(row): row for row in rows}
        wanted = [name for name in columns if not by_content.keys() <= self._column(name).keys()]
        missing = {d: row for d, row in by_content.items() if any(d not in self._column(name) for name in wanted)}
        done, part = 0, dict[bytes, dict[str, Array]]()
        aside: dict[bytes, dict[str, Array]] = {}
        look = functools.partial(self._look, wanted=[name for name in wanted if name in self.of_pictures], aside=aside)
        for pixels in all_views(missing.values(), look, batch_size=BATCH):
            seen = Viewed(self.base, pixels)
            made = {name: self.of_views[name](seen) for name in wanted if name in self.of_views}
            for at, digest in enumerate([*missing][done : done + len(pixels)]):
                part[digest] = {name: column[at] for name, column in made.items()} | aside.pop(digest)
            done += len(pixels)
            if len(part) >= _PART or done == len(missing):
                self._write(part)
                part = {}
            tell("pictures described once for all methods", done / len(missing))

    def pictures(self, rows: Sequence[Row], columns: Sequence[str] | None = None) -> Pictures:
        """What methods may know of pictures that have been described; columns ``(0, 0)`` where nothing ever was."""
        found = {}
        for name in self.usual if columns is None else columns:
            known = self._column(name)
            example = next(iter(known.values()), np.empty(0, np.float32))
            values = [known[self.digest(row)] for row in rows]
            found[name] = np.array(values, dtype=example.dtype).reshape(len(rows), *example.shape)
        return Pictures(tuple(map(without_ratings, rows)), found)

    def digest(self, row: Row) -> bytes:
        """SHA-256 of the picture's bytes, as it was when it was described."""
        return self._digests[row.dataset, row.name]

    def _column(self, name: str) -> dict[bytes, Array]:
        """What is known of a column: only what somebody asks for is read, for tokens of a picture are 150 kB."""
        for path in self._unread.pop(name, ()):
            with _opened(path) as file:
                self._keep({of: file.get_tensor(of) for of in ("digest", name)})
        return self._found.setdefault(name, {})

    def _identify(self, rows: Sequence[Row]) -> None:
        new = [row for row in rows if (row.dataset, row.name) not in self._digests]
        with ThreadPoolExecutor() as pool:
            for row, digest in zip(new, pool.map(_digest, new), strict=True):
                self._digests[row.dataset, row.name] = digest

    def _look(self, row: Row, *, wanted: Sequence[str], aside: dict[bytes, dict[str, Array]]) -> Tensor:
        """Views of a picture; what is read from the whole of it is put aside."""

        def decode(max_pixels: int) -> Tensor:
            picture = decode_row(row, max_pixels=max_pixels)
            whole = np.asarray(picture)
            aside[self.digest(row)] = {name: self.of_pictures[name](whole) for name in wanted}
            return self.base.processor.pixels(picture)

        return large_alone(decode)

    def _write(self, part: Mapping[bytes, Mapping[str, Array]]) -> None:
        names = list(next(iter(part.values())))
        columns = {
            "digest": np.stack([np.frombuffer(digest, np.uint8) for digest in part]),
            **{name: np.stack([found[name] for found in part.values()]) for name in names},
        }
        file = hashlib.sha256(b"".join(part) + " ".join(names).encode()).hexdigest()[:16]
        with atomic_path(self.folder / f"{file}.safetensors", self._unfinished) as temporary:
            temporary.write_bytes(save(columns))
        self._keep(columns)

    def _keep(self, columns: Mapping[str, Array]) -> None:
        digests = [digest.tobytes() for digest in columns["digest"]]
        for name, column in columns.items():
            if name != "digest":
                self._column(name).update(zip(digests, column, strict=True))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of columns, none of which is read yet."""
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise GRMPError(
            f"{path}: expected features of pictures, got ({error}); move the file away or choose another --cache"
        ) from error


def first_views(base: Scorer, count: int) -> Scorer:
    """The base with the first of its views, their weights divided by their sum; its identity says so.

    Raises:
        GRMPError: it has fewer, or none is asked for.
    """
    settings = base.processor.settings()
    views = [view for view in settings["views"] if view != TILES]
    if not 1 <= count <= len(views):
        raise GRMPError(f"expected 1 to {len(views)} views, as many as the base has, got {count}")
    kept = np.array((settings["view_weights"] or [1.0] * len(views))[:count])
    tiles = [TILES] if base.processor.has_tiles else []
    fewer = {**settings, "views": [*views[:count], *tiles], "view_weights": (kept / kept.sum()).tolist()}
    identity = {**base.identity, "preprocessing": fewer}
    return dataclasses.replace(base, processor=GRMPImageProcessor(**fewer), identity=identity)


def _digest(row: Row) -> bytes:
    try:
        source = row.image if isinstance(row.image, bytes | Path) else row.image.read()
        return hashlib.sha256(source if isinstance(source, bytes) else read_content(source)).digest()
    except (OSError, ImageError) as error:
        raise GRMPError(f"{row.dataset}, {row.name}: cannot be read ({error}); restore the picture") from error
