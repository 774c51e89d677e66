"""What files, folders and patterns stand for: pictures, always in the same order, and a word on what is left out."""

from __future__ import annotations

import fnmatch
import functools
import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from grmp_hf.data.formats import READABLE, UNREADABLE, readable_suffixes, remedy
from grmp_hf.data.opening import is_address
from grmp_hf.errors import GRMPError

__all__ = ["Listing", "find_images", "list_images"]

_SYSTEM = frozenset(
    (
        *("@eadir", "#recycle", "$recycle.bin", "__macosx", "system volume information", "lost+found"),
        *(".thumbnails", ".trash", ".trashes", ".picasaoriginals", ".spotlight-v100", ".fseventsd"),
    )
)
"""Folders that systems and programs keep for themselves, in lower case."""

_OWN = ".grmp-iqa.json"
"""Where a folder of results holds the names of what a run wrote there: plots are no photographs."""


class Listing(NamedTuple):
    """Pictures, and what was met beside them.

    Attributes:
        paths: as they were given ("./a.jpg" stays "./a.jpg"; those of a folder begin with its name as given, of "."
            with nothing), each once, at its first place.
        left_out: reason -> how many files or folders.
    """

    paths: list[str]
    left_out: Counter[str]

    def note(self) -> str | None:
        """One sentence on what was left out, if anything."""
        if not self.left_out:
            return None
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.paths)} pictures; left out: {reasons}"


def list_images(paths: Iterable[str | os.PathLike[str]], names: Iterable[str] = ()) -> Listing:
    """List the pictures that files, folders and patterns stand for, always in the same order.

    A folder gives the files below it with a picture's suffix, in natural order ("2.jpg" before "10.jpg"). Linked
    folders are followed, each real folder once, so that no loop of links lasts. A pattern (`*`, `?`, `[...]`, `**`)
    gives its matches by the same rule. What is hidden, of the system, written by this tool, unreadable, or of a format
    that cannot be read here is left out and counted. A file that is named is kept whatever its suffix, and so is a
    missing one with a picture's suffix, or an address: each becomes a row, if only one with an error code. So
    "a[1].jpg" is a name, and never a pattern for "a1.jpg".

    Args:
        paths: in the order wanted.
        names: files and folders that follow, of which none is a pattern.

    Raises:
        GRMPError: nothing was given, a folder without pictures, a pattern without a match, a path that does not exist.
    """
    given = [(os.fspath(path), True) for path in paths] + [(name, False) for name in names]
    if not given:
        raise GRMPError("expected at least one picture, folder or pattern, got none; name one")
    found: dict[tuple[str, str], str] = {}
    real = functools.cache(_real)
    left_out: Counter[str] = Counter()
    for path, patterns in given:
        walk = _Walk(left_out)
        for match in _expand(path, walk, patterns=patterns):
            folder, name = os.path.split(match)
            found.setdefault((real(folder), name), match)
    return Listing(list(found.values()), left_out)


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The paths of `list_images`."""
    return list_images(paths).paths


def _real(folder: str) -> str:
    """Where a folder lies: ".." behind a link leads elsewhere than it reads."""
    try:
        return os.path.realpath(folder)
    except (OSError, ValueError):  # a name with NUL
        return folder


def _expand(path: str, walk: _Walk, *, patterns: bool) -> Sequence[str]:
    if os.path.isdir(path):
        return _need(list(walk.below(path)), f'folder "{path}" holds no picture that can be read', walk)
    if os.path.lexists(path) or is_address(path):  # whose "?" is no pattern, and which need not end like a file
        return [path]
    named = Path(path).suffix.lower() in READABLE | UNREADABLE
    if patterns and glob.has_magic(path) and not (named and "*" not in path and "?" not in path):
        return _need(
            [picture for match in _matches(path, walk) for picture in walk.take(match)],
            f'pattern "{path}" matches no picture; check the spelling and the folder it starts from',
            walk,
        )
    if named:
        return [path]
    raise GRMPError(f'"{path}" is neither a file nor a folder; check the spelling')


def _need(pictures: list[str], otherwise: str, walk: _Walk) -> list[str]:
    if not pictures:
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(walk.left_out.items()))
        suffixes = " ".join(sorted(READABLE))
        raise GRMPError(f"{otherwise}; {f'left out: {said}' if said else 'expected files ending in ' + suffixes}")
    return pictures


def _matches(pattern: str, walk: _Walk) -> list[str]:
    """Files and folders that a pattern means; `**` goes through folders as a folder that is named does."""
    parts = pattern.split("/") if os.sep == "/" else re.split(r"[\\/]", pattern)
    if "**" not in parts:
        return sorted(glob.glob(pattern), key=natural_key)
    at = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root, wanted = "/".join(parts[:at]) or ("/" if at else "."), parts[at:]
    return [path for path in walk.below(root) if _fits(Path(os.path.relpath(path, root)).parts, wanted)]


def _fits(names: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not names
    if wanted[0] == "**":
        return any(_fits(names[skipped:], wanted[1:] or ["*"]) for skipped in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], wanted[0]) and _fits(names[1:], wanted[1:])


class _Walk:
    """Goes through folders, each real one once, and counts what it leaves out."""

    def __init__(self, left_out: Counter[str]) -> None:
        self.left_out = left_out
        self._seen: set[tuple[int, int]] = set()
        self._readable = readable_suffixes()
        self._own: dict[str, frozenset[str]] = {}

    def take(self, match: str) -> Iterator[str]:
        """The pictures of a match of a pattern: itself, or those below it."""
        folder, name = os.path.split(os.path.normpath(match))
        if os.path.isdir(match):
            if self._is_walked(name):
                yield from self.below(match)
        else:
            if folder not in self._own:
                self._own[folder] = _written_here(folder)
            if self._is_picture(name, self._own[folder]):
                yield match

    def below(self, folder: str) -> Iterator[str]:
        """The pictures in a folder, then those in its folders, in natural order."""
        try:
            state = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: natural_key(entry.name))
        except OSError as error:
            self.left_out[f"folder that cannot be read ({error.strerror})"] += 1
            return
        if (state.st_dev, state.st_ino) in self._seen:
            return
        self._seen.add((state.st_dev, state.st_ino))
        own, folders = _written_here(folder), []
        for entry in entries:
            path = entry.name if folder == "." else os.path.join(folder, entry.name)
            if entry.is_dir():
                if self._is_walked(entry.name):
                    folders.append(path)
            elif self._is_picture(entry.name, own):
                yield path
        for path in folders:
            yield from self.below(path)

    def _is_walked(self, name: str) -> bool:
        if name.casefold() in _SYSTEM:
            self.left_out["folder of the system"] += 1
            return False
        if name.startswith("."):
            self.left_out["hidden folder"] += 1
            return False
        return True

    def _is_picture(self, name: str, own: frozenset[str] = frozenset()) -> bool:
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in READABLE and suffix not in UNREADABLE:
            return False
        if name in own:
            self.left_out["written by this tool"] += 1
        elif name.startswith("."):
            self.left_out["hidden"] += 1
        elif suffix not in self._readable:
            self.left_out[f"{suffix.removeprefix('.').upper()} ({remedy(suffix)})"] += 1
        else:
            return True
        return False


def _written_here(folder: str) -> frozenset[str]:
    try:
        with open(os.path.join(folder, _OWN), encoding="utf-8") as file:
            return frozenset(json.load(file)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts "2.jpg" before "10.jpg", whatever the case; "01" and "1" apart."""
    parts = re.split(r"([0-9]+)", name)
    # Text at even places, digits at odd ones; the name itself separates "01" from "1".
    return [(int(part), "") if place % 2 else (0, part.casefold()) for place, part in enumerate(parts)], name
