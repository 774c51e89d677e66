"""An official archive as it lies on disk: its files and folders by name, its pictures, and whether anything changed."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from grmp_hf.data.benchmarks import BenchmarkSpec
from grmp_hf.data.columns import first_few
from grmp_hf.data.formats import READABLE
from grmp_hf.errors import GRMPError

__all__ = ["OfficialFolder", "fingerprint", "fold", "list_pictures", "open_archive"]

_DEPTH = 3
"""How far below the given folder files are looked for: it may hold the archive's root, and that an inner folder."""

_LABEL_SUFFIXES = frozenset(".csv .mat .txt .xls .xlsx".split())
_PACKED_SUFFIXES = frozenset(".zip .tar .gz .tgz .bz2 .xz .rar .7z".split())


class OfficialFolder:
    """Finds files and folders of a data set, shallowest first, without regard to case.

    Args:
        root: the unpacked archive, its inner folder, or a folder that holds it.
        spec: of the data set, for messages.

    Raises:
        GRMPError: there is no such folder.
    """

    def __init__(self, root: Path, spec: BenchmarkSpec) -> None:
        if not root.is_dir():
            raise GRMPError(
                f"{root}: expected the folder or archive of {spec.title}, found none; get it from {spec.home}"
            )
        self.root = root
        self.spec = spec
        self._levels = _list_levels(root)

    def find(self, *patterns: str) -> list[Path]:
        """Return all files and folders of the shallowest level that match the first pattern with any match."""
        for pattern in map(fold, patterns):
            for level in self._levels:
                found = [Path(path) for name, path in level if fnmatch.fnmatchcase(name, pattern)]
                if found:
                    return found
        return []

    def one(self, *patterns: str) -> Path:
        """Return the one file or folder that matches; earlier patterns win.

        Raises:
            GRMPError: none, or several at the same level.
        """
        found = self.find(*patterns)
        if not found:
            raise self.missing(" or ".join(f'"{pattern}"' for pattern in patterns))
        if len(found) > 1:
            places = first_few([f'"{path.relative_to(self.root)}"' for path in found])
            raise GRMPError(
                f"{self.root}: expected one {found[0].name} of {self.spec.title}, found {len(found)}: {places}; "
                "give the one folder that is meant"
            )
        return found[0]

    def missing(self, expected: str) -> GRMPError:
        """Return the error for something that was looked for and is not there."""
        here = [os.path.basename(path) for _, path in self._levels[0]]
        packed = [name for name in here if Path(name).suffix.lower() in _PACKED_SUFFIXES]
        hint = f"; unpack {first_few(packed)} first" if packed else ""
        return GRMPError(
            f"{self.root}: expected {expected} of {self.spec.title} here or up to {_DEPTH} folders below, found "
            f"{first_few(here) or 'an empty folder'}{hint}; the folder must hold {self.spec.layout}; get it from "
            f"{self.spec.home}"
        )


def list_pictures(folders: Sequence[Path], *, prefix: bool = False) -> dict[str, Path]:
    """List the pictures that lie in folders, not below them.

    Args:
        folders: the first one wins where a name is in several.
        prefix: put the folder's own name before that of the picture, as in "jp2k/img1.bmp".

    Returns:
        Paths by folded name.

    Raises:
        GRMPError: two names in one folder that differ in case alone: nobody can say which one a label means.
    """
    pictures: dict[str, Path] = {}
    for folder in reversed(folders):
        here: dict[str, Path] = {}
        for name in _picture_names(folder):
            key = fold(f"{folder.name}/{name}" if prefix else name)
            if key in here:
                raise GRMPError(
                    f"{folder}: expected names that differ in more than case, got {here[key].name} and {name}; "
                    "remove the copy"
                )
            here[key] = folder / name
        pictures |= here
    return pictures


def fold(name: str) -> str:
    """Return a name in the form in which names are compared: without case, accents in one Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def open_archive(data_dir: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a data set, unpacking it first where an archive file was given.

    Args:
        data_dir: folder, or archive file (zip, tar).
        cache_dir: archives are unpacked below `grmp_hf/archives` in it; by default in the cache of the Hub's libraries.

    Raises:
        GRMPError: a file that is no archive, or an archive that is refused.
    """
    path = Path(os.path.abspath(data_dir))
    if not path.is_file():
        return path
    from huggingface_hub.constants import HF_HOME

    from grmp_hf.data.archives import extract_archive, is_archive

    if not is_archive(path):
        raise GRMPError(f"{path}: expected a folder or an archive (zip, tar), got another file; give its folder")
    about = path.stat()
    key = hashlib.sha256(f"{path}:{about.st_size}:{about.st_mtime_ns}".encode()).hexdigest()[:16]
    target = Path(cache_dir or HF_HOME) / "grmp_hf" / "archives" / f"{path.name.partition('.')[0]}-{key}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return extract_archive(path, target)


def fingerprint(root: Path) -> str:
    """Return a hash of a folder that changes with its label files and with the pictures in it.

    It covers the bytes of all label files, and name, size and time of change of every file.
    """
    digest = hashlib.sha256()
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(folders)  # links may lead in a circle
        seen.add(real)
        for name in sorted(names):
            path = os.path.join(folder, name)
            about = os.stat(path) if os.path.exists(path) else os.lstat(path)
            digest.update(f"{os.path.relpath(path, root)}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
            if os.path.splitext(name)[1].lower() in _LABEL_SUFFIXES and os.path.isfile(path):
                digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _list_levels(root: Path) -> list[list[tuple[str, str]]]:
    """List what lies in the folder, in its folders, and so on: folded name and path of each file and folder."""
    levels: list[list[tuple[str, str]]] = []
    folders = [os.fspath(root)]
    for _ in range(_DEPTH + 1):
        entries = [entry for folder in folders for entry in _entries(folder)]
        levels.append([(fold(entry.name), entry.path) for entry in entries])
        folders = [entry.path for entry in entries if entry.is_dir()]
    return levels


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
        return sorted(seen, key=lambda entry: entry.name)
    except PermissionError:  # what may not be read holds nothing that could be used
        return []


def _picture_names(folder: Path) -> Iterator[str]:
    for entry in _entries(folder):
        if os.path.splitext(entry.name)[1].lower() in READABLE and entry.is_file():
            yield entry.name
