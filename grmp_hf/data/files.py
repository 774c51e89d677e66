"""Which file on disk a name in a table means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from grmp_hf.data.columns import BLANKS, first_few
from grmp_hf.errors import GRMPError

__all__ = ["PictureFolders"]


class PictureFolders:
    """Finds the picture that a table means by a name, first as written in all folders, then without regard to case.

    Many published tables write "I01.bmp" for a file called "i01.BMP". Names may contain sub-folders, with either slash,
    and accents in either Unicode form; blanks around them on disk may be missing in the table.

    Args:
        roots: folders to look in, the first match wins. Absolute names must exist as written.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self._listings: dict[Path, tuple[frozenset[str], dict[str, list[str]]]] = {}

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

    def _descend(self, folder: Path, parts: Sequence[str]) -> list[Path]:
        """Files that the parts of a name mean below a folder."""
        folders = [folder]
        for part in parts:  # an absolute name begins with a part that no folder lists
            folders = [inner / name for inner in folders for name in self._on_disk(inner, part)]
        return [path for path in folders if os.path.isfile(path)]

    def _on_disk(self, folder: Path, part: str) -> list[str]:
        """Names in a folder that a part of a name means: the same, or else those that differ in case alone."""
        if part == "..":
            return [part]
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))
            except OSError:  # not a folder, or closed to us: nothing can be found in it
                names = []
            folded: dict[str, list[str]] = {}
            for name in names:
                folded.setdefault(_fold(name), []).append(name)
            self._listings[folder] = frozenset(names), folded
        exact, folded = self._listings[folder]
        return [part] if part in exact else folded.get(_fold(part), [])


def _only(name: str, found: Sequence[Path]) -> Path:
    if len(found) > 1:
        several = first_few([f'"{path}"' for path in found])
        raise GRMPError(f'"{name}": expected one file of that name in any case, found {several}; write it as on disk')
    return found[0]


def _fold(name: str) -> str:
    # Not casefold(), by which "stra\u00dfe" and "strasse" would be one name.
    return unicodedata.normalize("NFC", name).strip(BLANKS).lower()
