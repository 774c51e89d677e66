"""Unpacking archives that strangers made: everything is checked before the first byte is written, all of it or nothing.

What an archive may do to a machine (write outside its folder, through links, over other files, or without end) is
listed in CWE-22, CWE-59 and CWE-409; the documentation of `tarfile` and `zipfile` says what both leave to the caller.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from grmp_hf.data.columns import shown
from grmp_hf.errors import GRMPError
from grmp_hf.scratch import clear_leftovers, scratch_folder

__all__ = ["ARCHIVE_SUFFIXES", "MAX_BYTES", "MAX_MEMBERS", "MAX_RATIO", "extract_archive", "is_archive"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Suffixes, in lower case, of the archives that can be unpacked."""

MAX_BYTES = 256 * 2**30
"""Largest content: several times that of the largest public set of rated pictures."""

MAX_RATIO = 100.0
"""Largest content over the size of the archive; bitmaps of photographs come to about 3, a bomb to 1,000 and more."""

MAX_MEMBERS = 250_000
"""Most files and folders."""

_NESTED = (*ARCHIVE_SUFFIXES, *".gz .bz2 .xz .zst .lz4 .lzma .z .7z .rar .cab .iso .jar".split())
_MARKER = ".unpacked.json"
_HARMLESS = 16 * 2**20  # content below this is no bomb whatever the ratio
_PIECE = 2**20  # bytes in memory at a time
_RECORD = 160  # bytes a member may take in a zip's directory on average; 46 is the least, the rest is its name
_DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError),  # RuntimeError: a compression that zipfile does not know
)


def is_archive(path: Path) -> bool:
    """Say whether a path is a file whose name ends in one of `ARCHIVE_SUFFIXES`; nothing is read."""
    return path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES)


def extract_archive(
    archive: Path,
    target: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
    max_members: int = MAX_MEMBERS,
) -> Path:
    """Unpack a zip or tar (plain, gzip, bzip2, xz) into a new folder, or find it unpacked there already.

    The content appears under `target` in one step, when all of it has been written and checked; after a failure
    nothing is left. Only folders and plain files are made, with the permissions of any new file. A marker file in
    `target` tells a finished extraction from another folder.

    Args:
        archive: recognised by its first bytes.
        target: folder to make; its parents are made too.
        max_bytes: of the content.
        max_ratio: of the content to the archive's own size; content below 16 MiB is always let through.
        max_members: files and folders.

    Returns:
        `target`.

    Raises:
        GRMPError: the archive is damaged, encrypted, empty or over a limit; or it holds a name that leads outside,
            is absolute, too long, holds control characters, comes twice or differs from another in case alone; a link,
            a device or a pipe; another archive. Or `target` holds something else.
    """
    if _is_unpacked(archive, target):
        clear_leftovers(target.parent)
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise _taken(archive, target)
    try:
        size = archive.stat().st_size
        with _opened(archive, max_members) as members:
            limit = min(max_bytes, max(int(max_ratio * size), _HARMLESS))
            plan = _checked(archive, members, limit, max_members)
            _write(archive, plan, target, size)
    except GRMPError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GRMPError(
            f"{archive}: could not be unpacked ({reason}); expected a complete zip or tar and room on the disk: "
            "fetch the archive again, or unpack it by hand and name the folder"
        ) from error
    return target


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive; `open` gives its content."""

    name: str
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes]]


class _Pieces(io.BufferedIOBase):
    """A stream to read from in pieces of a limited size.

    `zipfile` reads its directory in one piece and `tarfile` a long name, as large as the archive says they are.
    """

    def __init__(self, stream: IO[bytes], largest: int) -> None:
        self._stream, self._largest = stream, largest

    def read(self, size: int | None = -1) -> bytes:
        more = self._largest + 1
        piece = self._stream.read(more if size is None or size < 0 else min(size, more))
        if len(piece) > self._largest:
            raise tarfile.TarError(f"more than {self._largest} bytes of names at once: too many members")
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def _opened(archive: Path, max_members: int) -> Iterator[Iterable[_Member]]:
    with ExitStack() as stack:
        raw = stack.enter_context(archive.open("rb"))
        head = raw.read(6)
        raw.seek(0)
        if head.startswith(b"PK"):
            directory = max(_PIECE, _RECORD * max_members)
            opened_zip = stack.enter_context(zipfile.ZipFile(_Pieces(raw, directory)))
            yield _zip_members(archive, opened_zip)
        else:
            decompress = next((opener for magic, opener in _DECOMPRESSORS.items() if head.startswith(magic)), None)
            plain = raw if decompress is None else stack.enter_context(decompress(raw))
            opened_tar = stack.enter_context(tarfile.open(fileobj=_Pieces(plain, _PIECE), mode="r:"))
            yield _tar_members(archive, opened_tar)


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        name = info.orig_filename  # `filename` ends at the first NUL
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.flag_bits & 1:
            raise _refusal(archive, name, "is encrypted")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refusal(archive, name, "is a link, a device or a pipe")
        yield _Member(name, info.file_size, info.is_dir(), partial(opened.open, info))


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[_Member]:
    for info in opened:
        if not (info.isreg() or info.isdir()) or info.issparse():
            raise _refusal(archive, info.name, "is a link, a device, a pipe or a sparse file")
        content = partial(opened.extractfile, info)
        yield _Member(info.name, info.size, info.isdir(), content)  # type: ignore[arg-type]  # None only for links


def _checked(archive: Path, members: Iterable[_Member], limit: int, max_members: int) -> list[tuple[str, _Member]]:
    """Return the members with their clean relative paths, when there is nothing to object to in any of them."""
    plan: list[tuple[str, _Member]] = []
    seen: dict[str, tuple[str, bool]] = {}
    total = 0
    for count, member in enumerate(members, start=1):
        if count > max_members:
            raise _refusal(archive, member.name, f"is one more than {max_members} files and folders")
        total += member.size
        if total > limit:
            raise _refusal(archive, member.name, f"makes it more than {limit} bytes, {archive.stat().st_size} packed")
        parts = _clean_parts(archive, member)
        for depth in range(1, len(parts) + 1):
            whole = depth == len(parts)
            _check_clash(archive, "/".join(parts[:depth]), not whole or member.is_folder, whole, seen)
        if parts:  # "./" is the target itself
            plan.append(("/".join(parts), member))
    if not any(not member.is_folder for _, member in plan):
        raise GRMPError(f"{archive}: expected an archive with files, found none in it; fetch it again")
    return plan


def _clean_parts(archive: Path, member: _Member) -> list[str]:
    name = member.name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    faults = (
        (member.size < 0, "declares a negative size"),
        (name.startswith("/") or re.match("[A-Za-z]:", name), "is absolute"),
        (".." in parts, "leads outside"),
        (any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name), "holds control characters or is no text"),
        (any(len(part.encode(errors="replace")) > 255 for part in parts) or len(name) > 1024, "is too long"),
        (not member.is_folder and name.lower().endswith(_NESTED), "is an archive itself"),
        (not member.is_folder and not parts, "has no name"),
        (name.casefold() == _MARKER, "has the name of our own marker"),
    )
    for is_faulty, fault in faults:
        if is_faulty:
            raise _refusal(archive, member.name, fault)
    return parts


def _check_clash(archive: Path, path: str, is_folder: bool, whole: bool, seen: dict[str, tuple[str, bool]]) -> None:
    """Refuse a path that another member has taken, also on disks without case; folders may be named again."""
    key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    if key not in seen:
        seen[key] = (path, is_folder)
    elif seen[key][0] != path:
        raise _refusal(archive, path, f'differs from "{seen[key][0]}" in case or accents alone')
    elif not (is_folder and seen[key][1]):
        raise _refusal(archive, path, "comes twice" if whole else "is a file and a folder")


def _write(archive: Path, plan: list[tuple[str, _Member]], target: Path, size: int) -> None:
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with scratch_folder(target.parent) as ready:
            for path, member in plan:
                _write_member(archive, ready / path, member)
            (ready / _MARKER).write_text(json.dumps({"archive": archive.name, "bytes": size}), encoding="utf-8")
            try:
                ready.replace(target)
            except OSError:  # there is a file, or a folder that is not empty: perhaps of another process meanwhile
                if not _is_unpacked(archive, target):
                    raise _taken(archive, target) from None
    except BaseException:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _write_member(archive: Path, path: Path, member: _Member) -> None:
    if member.is_folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with member.open() as source, path.open("xb") as file:
        while piece := source.read(_PIECE):
            written += len(piece)
            if written > member.size:
                break
            file.write(piece)
    if written != member.size:
        raise _refusal(archive, member.name, f"holds other than the {member.size} bytes that it declares")


def _is_unpacked(archive: Path, target: Path) -> bool:
    """Say whether the target is a finished extraction of this archive, going by the archive's size."""
    try:
        marker = json.loads((target / _MARKER).read_text(encoding="utf-8"))
        return bool(marker["bytes"] == archive.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _taken(archive: Path, target: Path) -> GRMPError:
    return GRMPError(f"{target}: expected a new folder to unpack {archive} into, it holds something else; name another")


def _refusal(archive: Path, name: str, fault: str) -> GRMPError:
    return GRMPError(
        f'{archive}: "{shown(name, limit=80)}" {fault}; nothing was unpacked. '
        "Where you trust the archive, unpack it by hand and name the folder"
    )
