"""Text of tables as it lies on disk: its encoding, and what only looks like text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from grmp_hf.errors import GRMPError

__all__ = ["describe_foreign", "describe_stand_in", "encoding_of", "has_odd_bytes", "legacy", "read_text"]

_FOREIGN = (
    (b"PK\x03\x04", "an Excel workbook or another zip archive", "export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old kind", "export it as CSV"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"%PDF", "a PDF", "export it as CSV"),
    (b"PAR1", "a parquet file", "give its name the ending .parquet"),
)
_STAND_INS = (
    (b"version https://git-lfs", "the pointer of a file in Git LFS", "fetch the file itself with git lfs pull"),
    (b"<!doctype html", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
)
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_ODD = re.compile("[\udc80-\udcff]")


def read_text(path: Path) -> str:
    """Read a whole text file: UTF-8, or UTF-16 and UTF-32, with or without their mark.

    Bytes that are no UTF-8 are kept as Python keeps those in names of files, one surrogate each: a name on disk may
    hold them, and `legacy` makes letters of them.

    Raises:
        GRMPError: it cannot be read, is a file of another kind, or holds NUL; with the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GRMPError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    foreign = describe_foreign(content)
    if foreign is not None:
        raise GRMPError(f"{path}: expected a table as text, got {foreign}")
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        raise GRMPError(f"{path}: expected {encoding.upper()} text, got ({error}); save the table as UTF-8") from error
    at = text.find("\0")
    if at >= 0:
        line = text.count("\n", 0, at) + 1
        raise GRMPError(f"{path}, line {line}: expected text, got a NUL character; save the table as UTF-8")
    return text


def encoding_of(content: bytes) -> str:
    """The encoding of a text: that of its mark, or else UTF-16 where it looks so, or UTF-8."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), None) or _without_mark(content)


def describe_foreign(content: bytes) -> str | None:
    """Say what content is that begins like a file of another kind, and what to do with it; None for all else."""
    return _describe(content, _FOREIGN + _STAND_INS)


def describe_stand_in(content: bytes) -> str | None:
    """Say what content is that came in the place of the file itself, and what to do; None for all else."""
    return _describe(content, _STAND_INS)


def _describe(content: bytes, kinds: Sequence[tuple[bytes, str, str]]) -> str | None:
    for start, what, remedy in kinds:
        if content[: len(start)].lower() == start.lower():
            return f"{what}; {remedy}"
    return None


def has_odd_bytes(text: str) -> bool:
    """Say whether text holds bytes that were no UTF-8."""
    return _ODD.search(text) is not None


def legacy(text: str) -> str:
    """Text whose odd bytes are read as Windows-1252, the usual encoding of older programs.

    >>> legacy("caf\\udce9"), legacy("café")
    ('café', 'café')
    """
    if not has_odd_bytes(text):
        return text
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a sign, out of JSON
        return text
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _without_mark(content: bytes) -> str:
    # Most letters of a table are ASCII, in UTF-16 a NUL beside each.
    pairs = len(content) // 2
    for name, start in (("utf-16-le", 1), ("utf-16-be", 0)):
        if pairs and len(content) % 2 == 0 and content[start::2].count(0) > 0.6 * pairs and b"\0\0" not in content[:8]:
            return name
    return "utf-8"
