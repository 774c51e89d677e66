"""Which file on disk a name in a table means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from grmp_hf.data.cells import is_inside
from grmp_hf.data.columns import BLANKS, first_few, shown
from grmp_hf.data.formats import READABLE, UNREADABLE
from grmp_hf.data.opening import is_address
from grmp_hf.data.tables import Table
from grmp_hf.data.text import legacy
from grmp_hf.errors import GRMPError

__all__ = ["PictureFolders", "find_pictures"]


class PictureFolders:
    """Finds the picture that a table means by a name, first as written in all folders, then without regard to case.

    Many published tables write "I01.bmp" for a file called "i01.BMP". Names may contain sub-folders, with either slash,
    and accents in either Unicode form; blanks around them on disk may be missing in the table.

    Args:
        roots: folders to look in, the first match wins. Absolute names must exist as written.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self._listings: dict[Path, _Listing] = {}

    def find(self, name: str) -> Path | None:
        """Return the path of the picture `name` under its name on disk, or None.

        Raises:
            GRMPError: no name on disk is the same, and several differ from it in case alone.
        """
        spellings = [Path(spelling) for spelling in dict.fromkeys((name, name.replace("\\", "/")))]
        for spelling in spellings:
            for root in self.roots:
                if os.path.isfile(root / spelling):
                    return root / spelling
        for spelling in spellings:
            for root in self.roots:
                if found := self._descend(root, spelling.parts):
                    return _only(name, found)
        return None

    def find_alike(self, name: str) -> str | None:
        """The name of a picture where `name` would be, which has another extension, or one that `name` lacks."""
        path = Path(name.replace("\\", "/"))
        stem = path.stem if path.suffix.lower() in READABLE | UNREADABLE else path.name
        parts = path.parent.parts[1:] if path.anchor else path.parent.parts
        for root in (Path(path.anchor),) if path.anchor else self.roots:
            for folder in self._reach(root, parts):
                if (other := self._listed(folder).stems.get(_fold(stem))) is not None:
                    return other
        return None

    def _descend(self, folder: Path, parts: Sequence[str]) -> list[Path]:
        """Files that the parts of a name mean below a folder."""
        return [path for path in self._reach(folder, parts) if os.path.isfile(path)]

    def _reach(self, folder: Path, parts: Sequence[str]) -> list[Path]:
        """What the parts of a name mean below a folder."""
        found = [folder]
        for part in parts:  # an absolute name begins with a part that no folder lists
            found = [inner / name for inner in found for name in self._on_disk(inner, part)]
        return found

    def _on_disk(self, folder: Path, part: str) -> list[str]:
        """Names in a folder that a part of a name means: the same, or else those that differ in case alone."""
        if part == "..":
            return [part]
        listed = self._listed(folder)
        return [part] if part in listed.exact else listed.folded.get(_fold(part), [])

    def _listed(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))
            except OSError:  # not a folder, or closed to us: nothing can be found in it
                names = []
            listing = self._listings[folder] = _Listing(frozenset(names), {}, {})
            for name in names:
                listing.folded.setdefault(_fold(name), []).append(name)
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in READABLE:
                    listing.stems.setdefault(_fold(stem), name)
        return self._listings[folder]


class _Listing(NamedTuple):
    """Names in a folder: as they are, by their folded form, and those of pictures by that of their stem."""

    exact: frozenset[str]
    folded: dict[str, list[str]]
    stems: dict[str, str]


def _only(name: str, found: Sequence[Path]) -> Path:
    if len(found) > 1:
        several = first_few([f'"{path}"' for path in found])
        raise GRMPError(f'"{name}": expected one file of that name in any case, found {several}; write it as on disk')
    return found[0]


def _is_whole(name: str) -> bool:
    """Whether a name says the whole place of a file, on this system, on another one or in the network."""
    return name.startswith(("/", "\\")) or is_address(name) or bool(PureWindowsPath(name).drive)


def _fold(name: str) -> str:
    # Not casefold(), by which "stra\u00dfe" and "strasse" would be one name.
    return unicodedata.normalize("NFC", name).strip(BLANKS).lower()


def find_pictures(
    table: Table, image_column: str, names: Sequence[str], images: Path | None, needed: bool
) -> tuple[Sequence[Any], Sequence[str]]:
    """Pictures of a table, and their names without odd bytes, except where a name on disk has them.

    Of pictures inside a table, those of which it holds a path alone are looked for as well.

    Args:
        table: with this column of pictures.
        image_column: of their cells.
        names: of the pictures.
        images: their folder; None to look beside the table.
        needed: whether each must be there.

    Raises:
        GRMPError: no such folder, or a picture that is needed and not there.
    """
    cells = table.columns[image_column]
    if not is_inside(cells):
        return _look(table, names, table.places, images, needed)
    names = [legacy(name) for name in names]
    outside = {at: path for at, path in enumerate(type(cells[0]).paths(cells)) if path is not None}
    if not outside:
        return cells, names
    found, _ = _look(table, [*outside.values()], [table.places[at] for at in outside], images, needed)
    known = dict(zip(outside, found, strict=True))
    return [replace(cell, file=known.get(at)) for at, cell in enumerate(cells)], names


def _look(
    table: Table, names: Sequence[str], places: Sequence[str], images: Path | None, needed: bool
) -> tuple[list[Path], list[str]]:
    """The files of some names, in places of a table, and the names as they were found."""
    if images is not None and not images.is_dir():
        raise GRMPError(f"{images}: expected the folder of the pictures, found none; check --images")
    beside = Path() if table.folder is None else table.folder
    inner = sorted(path for path in beside.iterdir() if path.name.casefold() == "images" and path.is_dir())
    roots = [images] if images is not None else [beside, *inner]
    folders = PictureFolders(roots)
    found = [folders.find(name) for name in names]
    names = [name if picture is not None else legacy(name) for name, picture in zip(names, found, strict=True)]
    pictures = [picture or folders.find(name) for picture, name in zip(found, names, strict=True)]
    missing = [(n, place) for n, place, picture in zip(names, places, pictures, strict=True) if picture is None]
    if missing and needed:
        looked_in = ", ".join(str(root) for root in roots)
        remedy = (
            "give their folder with --images DIR" if images is None else "check --images, to which they are relative"
        )
        if any(_is_whole(name) for name, _ in missing):
            remedy = (
                "addresses, and names that begin with a slash or a drive, mean that place alone: write names relative "
                "to the folder of the pictures"
            )
        alike = [other for name, _ in missing if (other := folders.find_alike(name)) is not None]
        if alike:
            there = first_few([f'"{shown(name)}"' for name in alike])
            remedy = f"there is {there}: write names with the extension that they have on disk; else {remedy}"
        first = first_few([f'"{shown(name)}" ({place})' for name, place in missing])
        raise GRMPError(
            f"{table.where}: {len(missing)} of {len(table.places)} pictures not found in {looked_in}: {first}; "
            f"{remedy}, or remove the lines"
        )
    absent = [picture or roots[0] / name.replace("\0", "") for picture, name in zip(pictures, names, strict=True)]
    return absent, [*names]
