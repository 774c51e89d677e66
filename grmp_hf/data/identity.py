"""Which picture is which: by content, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grmp_hf.data.image_errors import ImageError
from grmp_hf.data.opening import open_picture

if TYPE_CHECKING:
    from grmp_hf.data.columns import ImageSource

__all__ = ["KnownPictures", "content_id", "first_copies", "name_parts"]

_PIECE = 4096  # bytes


def content_id(source: ImageSource) -> str | None:
    """Length and SHA-256 of the encoded picture, "4096-9f86d0...", or None where it cannot be read.

    Copies, links and other spellings of a path have one identity; a picture that was saved again has another.
    """
    try:
        if not isinstance(source, bytes | Path):
            source = source.read()
        if isinstance(source, bytes):
            return f"{len(source)}-{hashlib.sha256(source).hexdigest()}"
        with open_picture(source) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return f"{file.tell()}-{digest}"
    except (OSError, ImageError):
        return None


def name_parts(name: str) -> tuple[str, ...]:
    """A name as folders and file, whatever its slashes and accents; odd bytes as escapes, as parquet holds them.

    >>> name_parts("./photos\\\\a.jpg"), name_parts("a.jpg")
    (('photos', 'a.jpg'), ('a.jpg',))
    """
    text = unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())
    return tuple(part for part in text.replace("\\", "/").split("/") if part not in ("", "."))


def first_copies(sources: Sequence[ImageSource]) -> list[int]:
    """For each picture the place of the first one with the same content: its own where none before it has.

    Files are compared by size first, then by three small pieces; only what still agrees is read whole. A picture that
    cannot be read is a copy of none.
    """
    inside = {at: content_id(source) for at, source in enumerate(sources) if not isinstance(source, Path)}

    def size(at: int) -> object:
        found = inside.get(at)
        return _size(sources[at]) if at not in inside else found and int(found.partition("-")[0])

    def pieces(at: int) -> object:
        return _pieces(sources[at])

    def whole(at: int) -> object:
        return inside[at] if at in inside else content_id(sources[at])

    groups = [list(range(len(sources)))]
    for key in (size, whole) if inside else (size, pieces, whole):
        groups = [part for group in groups for part in _parted(group, key)]
    first = list(range(len(sources)))
    for group in groups:
        for at in group:
            first[at] = group[0]
    return first


class KnownPictures:
    """Contents that are known; a file is read only if it has the length of one of them.

    Args:
        ids: as `content_id` gives them.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._sizes = frozenset(found.partition("-")[0] for found in self._ids)

    def holds(self, source: ImageSource) -> bool | None:
        """Say whether a picture is one of them; None where it cannot be read."""
        if isinstance(source, Path):
            size = _size(source)
            if size is not None and str(size) not in self._sizes:
                return False
        found = content_id(source)
        return None if found is None else found in self._ids


def _parted(group: Sequence[int], key: Callable[[int], object]) -> list[list[int]]:
    """Those of a group that agree in a key with another one, together."""
    parts: dict[object, list[int]] = {}
    for at in group:
        found = key(at)
        if found is not None:
            parts.setdefault(found, []).append(at)
    return [part for part in parts.values() if len(part) > 1]


def _size(source: ImageSource) -> int | None:
    try:
        return os.stat(source).st_size if isinstance(source, Path) else None
    except (OSError, ValueError):
        return None


def _pieces(source: ImageSource) -> tuple[bytes, ...] | None:
    if not isinstance(source, Path):
        return None
    try:
        with open_picture(source) as file:
            size = os.fstat(file.fileno()).st_size
            found = []
            for start in (0, size // 2, max(0, size - _PIECE)):
                file.seek(start)
                found.append(file.read(_PIECE))
            return tuple(found)
    except (OSError, ImageError):
        return None
