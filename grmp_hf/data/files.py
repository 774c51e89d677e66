"""Which file on disk a name in a table means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PictureFolders"]


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
