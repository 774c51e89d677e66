"""Picture files on disk: what folders and patterns stand for, and which file a name in a table means."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from grmp_hf.errors import GRMPError

__all__ = ["PICTURE_SUFFIXES", "PictureFolders", "find_images"]

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm .pfm".split()
)
"""Suffixes, in lower case, that are taken from a folder."""


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """List the pictures that files, folders and patterns stand for, always in the same order.

    A folder gives the files below it with a known suffix, in natural order ("2.jpg" before "10.jpg"), hidden ones left
    out. A pattern (`*`, `?`, `[...]`, `**`) gives its matches in the same order. A file that is named is kept whatever
    its suffix, and so is a missing one with a picture's suffix: each becomes a row, if only one with an error code.

    Args:
        paths: in the order wanted.

    Returns:
        Paths as they were given ("./a.jpg" stays "./a.jpg"; those of a folder begin with its name as given, of "." with
        nothing), each once, at its first place.

    Raises:
        GRMPError: nothing was given, a folder without pictures, a pattern without a match, a path that does not exist.
    """
    found: dict[str, str] = {}
    given = [os.fspath(path) for path in paths]
    if not given:
        raise GRMPError("expected at least one picture, folder or pattern, got none; name one")
    for path in given:
        for match in _expand(path):
            found.setdefault(os.path.abspath(match), match)
    return list(found.values())


def _expand(path: str) -> list[str]:
    if os.path.isdir(path):
        return _list_folder(path)
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True), key=_natural_key)
        pictures = [picture for match in matches for picture in _expand_match(match)]
        if not pictures:
            raise GRMPError(f'pattern "{path}" matches no picture; check the spelling and the folder it starts from')
        return pictures
    if Path(path).suffix.lower() in PICTURE_SUFFIXES:
        return [path]
    raise GRMPError(f'"{path}" is neither a file nor a folder; check the spelling')


def _expand_match(match: str) -> list[str]:
    # Folders that match "*" may well be empty of pictures; files that match may be anything ("*" meets notes.txt too).
    if os.path.isdir(match):
        return list(_walk(match))
    return [match] if Path(match).suffix.lower() in PICTURE_SUFFIXES else []


def _list_folder(folder: str) -> list[str]:
    pictures = list(_walk(folder))
    if not pictures:
        suffixes = " ".join(sorted(PICTURE_SUFFIXES))
        raise GRMPError(f'folder "{folder}" holds no picture; expected files ending in {suffixes}')
    return pictures


def _walk(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_natural_key)
        for name in sorted(files, key=_natural_key):
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES:
                path = os.path.join(root, name)
                yield os.path.relpath(path, ".") if folder == "." else path


def _natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", name)
    # Text at even places, digits at odd ones; the name itself separates "01" from "1".
    return [(int(part), "") if place % 2 else (0, part.casefold()) for place, part in enumerate(parts)], name


class PictureFolders:
    """Finds the picture that a table means by a name, first as written, then without regard to case.

    Many published tables write "I01.bmp" for a file called "i01.BMP". Names may contain sub-folders, with either slash,
    and accents in either Unicode form.

    Args:
        roots: folders to look in, the first match wins. Absolute names must exist as written.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self._listings: dict[Path, tuple[frozenset[str], dict[str, str]]] = {}

    def find(self, name: str) -> Path | None:
        """Return the path of the picture `name` under its name on disk, or None."""
        relative = Path(name.replace("\\", "/"))
        for root in self.roots:
            direct = root / relative
            if os.path.isfile(direct):
                return direct
            folded = self._descend(root, relative.parts)
            if folded is not None and os.path.isfile(folded):
                return folded
        return None

    def _descend(self, folder: Path, parts: Sequence[str]) -> Path | None:
        for part in parts:  # an absolute name begins with a part that no folder lists
            on_disk = part if part == ".." else self._on_disk(folder, part)
            if on_disk is None:
                return None
            folder = folder / on_disk
        return folder

    def _on_disk(self, folder: Path, part: str) -> str | None:
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))
            except OSError:  # not a folder, or closed to us: nothing can be found in it
                names = []
            self._listings[folder] = frozenset(names), {_fold(name): name for name in reversed(names)}
        exact, folded = self._listings[folder]
        return part if part in exact else folded.get(_fold(part))


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
