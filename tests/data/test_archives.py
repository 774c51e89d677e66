"""Unpacking: good archives come out whole, crafted ones are refused with nothing written anywhere."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from grmp_hf.data import archives
from grmp_hf.data.archives import extract_archive, is_archive
from grmp_hf.errors import GRMPError

Entry = tuple[str, bytes | dict[str, Any]]  # name and content, or name and fields of a tarfile.TarInfo

FILES: list[Entry] = [
    ("set/labels.csv", b"image,mos\n"),
    ("set/Images/ss01 (1).jpg", bytes(range(256)) * 12),
    ("set/été.png", b""),
]
FOLDER, LINK = {"type": tarfile.DIRTYPE}, {"type": tarfile.SYMTYPE, "linkname": "/etc"}
ZIP_KINDS = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.FIFOTYPE: stat.S_IFIFO}


def write_zip(path: Path, entries: Sequence[Entry], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a duplicate name
        for name, content in entries:
            info = zipfile.ZipInfo("replaced")
            info.filename = name  # the constructor would end it at a NUL
            info.compress_type = compression
            if isinstance(content, dict):
                info.external_attr = (ZIP_KINDS[content["type"]] | 0o777) << 16
                content = content.get("linkname", "").encode()
            opened.writestr(info, content)
    return path


def write_tar(path: Path, entries: Sequence[Entry], mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as opened:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if "\0" in name:  # the plain header would end it there
                info.pax_headers = {"path": name}
            for field, value in (content if isinstance(content, dict) else {"size": len(content)}).items():
                setattr(info, field, value)
            opened.addfile(info, None if isinstance(content, dict) else io.BytesIO(content))
    return path


WRITERS: dict[str, Callable[[Path, Sequence[Entry]], Path]] = {
    "zip": write_zip,
    "tar": write_tar,
    "tar.gz": lambda path, entries: write_tar(path, entries, "w:gz"),
}
in_zip_and_tar = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Content of every file below a folder by relative path; None for folders."""
    paths = sorted(folder.rglob("*"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Folder below which the target is to be made, with files beside and above it that must not change."""
    (tmp_path / "above.txt").write_text("above")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "beside.txt").write_text("beside")
    return tmp_path / "home"


def assert_refused(archive: Path, home: Path, match: str, **limits: Any) -> None:
    """The error is the one expected and names the archive, and nothing came or went anywhere around the target."""
    before = tree(home.parent)
    for target in (home / "target", home / "new" / "target"):
        with pytest.raises(GRMPError, match=match) as caught:
            extract_archive(archive, target, **limits)
        assert str(archive) in str(caught.value)
        assert tree(home.parent) == before


@pytest.mark.parametrize("file", ["a.zip", "a.ZIP", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_good_archives_come_out_whole(file: str, home: Path) -> None:
    kind = file.lower().split(".")[-1]
    if kind == "zip":
        archive = write_zip(home / file, FILES)
    else:
        mode = "w" if kind == "tar" else "w:" + kind.replace("tgz", "gz")
        archive = write_tar(home / file, [("./", FOLDER), ("set", FOLDER), ("./set/", FOLDER), *FILES], mode)
    assert is_archive(archive)
    target = extract_archive(archive, home / "cache" / "set")
    assert target == home / "cache" / "set"
    found = tree(target)
    assert {name: content for name, content in found.items() if content is not None and name[0] != "."} == dict(FILES)
    assert set(found) == {"set", "set/Images", ".unpacked.json", *dict(FILES)}
    assert [path.name for path in target.parent.iterdir()] == ["set"]


def test_new_files_have_the_permissions_of_any_new_file(home: Path) -> None:
    archive = write_tar(home / "a.tar", [("tool", {"mode": 0o6777}), *FILES])
    (home / "plain").touch()
    (home / "folder").mkdir()
    target = extract_archive(archive, home / "target")
    assert (target / "tool").stat().st_mode == (home / "plain").stat().st_mode
    assert target.stat().st_mode == (home / "folder").stat().st_mode


def test_finished_extraction_is_used_again(home: Path) -> None:
    archive = write_zip(home / "a.zip", FILES)
    target = extract_archive(archive, home / "target")
    (target / "set" / "labels.csv").write_text("mine")
    assert extract_archive(archive, target) == target
    assert (target / "set" / "labels.csv").read_text() == "mine"
    other = write_zip(home / "b.zip", FILES[:2])
    with pytest.raises(
        GRMPError, match=r"target: expected a new folder to unpack .*b\.zip into, it holds something else"
    ):
        extract_archive(other, target)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_folder_of_the_user_is_left_alone(kind: str, home: Path) -> None:
    target = home / "target"
    if kind == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    else:
        target.write_text("mine")
    archive = write_zip(home / "a.zip", FILES)
    before = tree(home)
    with pytest.raises(GRMPError, match="it holds something else"):
        extract_archive(archive, target)
    assert tree(home) == before


def test_empty_folder_is_filled(home: Path) -> None:
    (home / "target").mkdir()
    assert (extract_archive(write_zip(home / "a.zip", FILES), home / "target") / "set" / "labels.csv").is_file()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.txt", False), ("a.xlsx", False), ("a.gz", False), ("folder.zip", False), ("no.zip", False)],
)
def test_what_is_no_archive(name: str, expected: bool, home: Path) -> None:
    if name == "folder.zip":
        (home / name).mkdir()
    elif name != "no.zip":
        (home / name).touch()
    assert is_archive(home / name) is expected


# what is crafted -> (entries, the fault that the message names); each in a zip and in a tar, behind a good file
CRAFTED: dict[str, tuple[list[Entry], str]] = {
    "parent": ([("../out.txt", b"x")], "leads outside"),
    "parent inside": ([("set/../../out.txt", b"x")], "leads outside"),
    "parent with backslashes": ([("set\\..\\..\\out.txt", b"x")], "leads outside"),
    "absolute": ([("/tmp/out.txt", b"x")], "is absolute"),
    "drive": ([("C:\\out.txt", b"x")], "is absolute"),
    "network share": ([("\\\\host\\share\\out.txt", b"x")], "is absolute"),
    "symbolic link": ([("link", LINK), ("link/out.txt", b"x")], "is a link, a device"),
    "device": ([("dev", {"type": tarfile.CHRTYPE})], "is a link, a device"),
    "pipe": ([("pipe", {"type": tarfile.FIFOTYPE})], "is a link, a device"),
    "duplicate": ([("a.txt", b"x"), ("a.txt", b"y")], '"a.txt" comes twice'),
    "duplicate by another path": ([("b/a.txt", b"x"), ("./b//a.txt", b"y")], '"b/a.txt" comes twice'),
    "file and folder": ([("a", b"x"), ("a/b", b"y")], '"a" is a file and a folder'),
    "folder and file": ([("a/b", b"x"), ("a", b"y")], '"a" comes twice'),
    "case": ([("a.txt", b"x"), ("A.TXT", b"y")], '"A.TXT" differs from "a.txt" in case'),
    "case of a folder": ([("a/1.txt", b"x"), ("A/2.txt", b"y")], '"A" differs from "a" in case'),
    "accents": (
        [(unicodedata.normalize("NFC", "é.txt"), b"x"), (unicodedata.normalize("NFD", "é.txt"), b"y")],
        "in case or accents alone",
    ),
    "long name": ([("a" * 300, b"x")], r'"a{77}\.\.\." is too long'),
    "long name in bytes": ([("é" * 200, b"x")], "is too long"),
    "long path": ([("a/" * 600 + "b", b"x")], "is too long"),
    "NUL": ([("a.txt\0.jpg", b"x")], r'"a\.txt\\x00\.jpg" holds control characters'),
    "line feed": ([("a\nb.txt", b"x")], "holds control characters"),
    "zip inside": ([("more/Images.ZIP", b"PK")], "is an archive itself"),
    "tar inside": ([("Images.tar.gz", b"x")], "is an archive itself"),
    "own marker": ([(".unpacked.json", b"{}")], "has the name of our own marker"),
}


@in_zip_and_tar
@pytest.mark.parametrize("kind", CRAFTED)
def test_crafted_members_are_refused(kind: str, write: Callable[..., Path], home: Path) -> None:
    entries, fault = CRAFTED[kind]
    archive = write(home / "a.bin", [("good.txt", b"good"), *entries])
    assert_refused(archive, home, rf"{fault}.*; nothing was unpacked\. Where you trust the archive, unpack it by hand")


@pytest.mark.parametrize("linkname", ["good.txt", "../above.txt", "/etc/passwd"])
def test_hard_links_are_refused(linkname: str, home: Path) -> None:
    archive = write_tar(home / "a.tar", [("good.txt", b"x"), ("l", {"type": tarfile.LNKTYPE, "linkname": linkname})])
    assert_refused(archive, home, '"l" is a link, a device')


def test_sparse_files_are_refused(home: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    archive = home / "a.tar"
    info = tarfile.TarInfo("hole")
    info.pax_headers, info.size = headers, 512
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info, io.BytesIO(b"0\n".ljust(512, b"\0")))
    assert_refused(archive, home, '"hole" is .* a sparse file')


ZEROS = bytes(20 * 2**20)


@pytest.mark.parametrize("write", [WRITERS["zip"], WRITERS["tar.gz"]], ids=["zip", "tar.gz"])
def test_bombs_are_refused(write: Callable[..., Path], home: Path) -> None:
    archive = write(home / "a.bin", [("bomb", ZEROS)])
    assert archive.stat().st_size < 2**15
    assert_refused(archive, home, r'"bomb" makes it more than 16777216 bytes, \d+ packed')
    assert (extract_archive(archive, home / "t", max_ratio=2000) / "bomb").stat().st_size == len(ZEROS)


@in_zip_and_tar
def test_content_over_the_limit_is_refused(write: Callable[..., Path], home: Path) -> None:
    archive = write(home / "a.bin", [("a", bytes(600)), ("b", bytes(600))])
    assert_refused(archive, home, '"b" makes it more than 1000 bytes', max_bytes=1000)
    extract_archive(archive, home / "target", max_bytes=1200)


def test_tar_that_declares_more_than_a_disk_is_refused_at_once(home: Path) -> None:
    (home / "a.tar").write_bytes(tarfile_header("huge", 2**50) + bytes(1024))
    assert_refused(home / "a.tar", home, '"huge" makes it more than')


def tarfile_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_negative_size_is_refused(home: Path) -> None:
    (home / "a.tar").write_bytes(tarfile_header("back", -1024) + bytes(1024))
    assert_refused(home / "a.tar", home, '"back" declares a negative size')


@pytest.mark.parametrize("size", [2**40, 2**21, -512])
def test_name_that_would_fill_the_memory_is_refused(size: int, home: Path) -> None:
    content = tarfile_header("name", size, tarfile.GNUTYPE_LONGNAME) + b"a" * 2**21
    (home / "a.tar.gz").write_bytes(gzip.compress(content))
    assert_refused(home / "a.tar.gz", home, r"could not be unpacked \(more than 1048576 bytes of names at once")


def test_a_million_members_of_a_zip_are_refused(home: Path) -> None:
    count = 10**6
    record = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 7, *[0] * 6)
    directory = b"".join(record + b"%07d" % number for number in range(count))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 30, 0)  # "one member", it says
    with zipfile.ZipFile(home / "a.zip", "w") as opened:
        opened.writestr("0000000", b"")
    local = (home / "a.zip").read_bytes()[:37]
    (home / "a.zip").write_bytes(local + directory + end)
    assert_refused(home / "a.zip", home, "more than 40000000 bytes of names at once: too many members")


def test_a_million_members_of_a_tar_are_refused(home: Path) -> None:
    block = gzip.compress(tarfile_header("folder/", 0, tarfile.DIRTYPE) * 2000)
    (home / "a.tar.gz").write_bytes(block * 500)
    assert_refused(home / "a.tar.gz", home, '"folder" is one more than 5000 files and folders', max_members=5000)


@in_zip_and_tar
def test_members_are_counted(write: Callable[..., Path], home: Path) -> None:
    archive = write(home / "a.bin", [(f"{number}.txt", b"") for number in range(4)])
    assert_refused(archive, home, r'"3\.txt" is one more than 3 files and folders', max_members=3)
    extract_archive(archive, home / "target", max_members=4)


def patched(archive: Path, old: bytes, new: bytes, times: int) -> Path:
    content = archive.read_bytes()
    assert content.count(old) == times
    archive.write_bytes(content.replace(old, new))
    return archive


def test_encrypted_zip_is_refused(home: Path) -> None:
    archive = write_zip(home / "a.zip", [("a.txt", b"secret")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    assert_refused(archive, home, r'"a\.txt" is encrypted')


@pytest.mark.parametrize(("declared", "match"), [(10, "CRC"), (5000, "holds other than the 5000 bytes")])
def test_zip_that_lies_about_a_size_is_refused(declared: int, match: str, home: Path) -> None:
    archive = write_zip(home / "a.zip", [("good.txt", b"good"), ("a.txt", bytes(1357))])
    patched(archive, struct.pack("<L", 1357), struct.pack("<L", declared), 2)
    assert_refused(archive, home, match)


def test_zip_whose_names_differ_is_refused(home: Path) -> None:
    archive = write_zip(home / "a.zip", [("good.txt", b"good"), ("aaaa.txt", b"x")])
    archive.write_bytes(archive.read_bytes().replace(b"aaaa", b"../a", 1))
    assert_refused(archive, home, r"could not be unpacked \(File name in directory .* and header .* differ")


@in_zip_and_tar
def test_truncated_archive_is_refused(write: Callable[..., Path], home: Path) -> None:
    archive = write(home / "a.bin", [*FILES, ("last.bin", bytes(range(256)) * 400)])
    content = archive.read_bytes()
    for share in (0.3, 0.6):
        archive.write_bytes(content[: int(len(content) * share)])
        assert_refused(archive, home, "could not be unpacked .*: fetch the archive again, or unpack it by hand")


def test_changed_content_is_refused(home: Path) -> None:
    archive = write_zip(home / "a.zip", [("good.txt", b"good"), ("a.txt", b"1234567")], zipfile.ZIP_STORED)
    assert_refused(patched(archive, b"1234567", b"1234568", 1), home, "could not be unpacked .*CRC")


@pytest.mark.parametrize(
    "content", [b"", b"<html>Not found</html>", b"Rar!\x1a\x07\x00", bytes(2000), b"\x1f\x8b\x08oops"]
)
def test_file_that_is_no_archive_is_refused(content: bytes, home: Path) -> None:
    (home / "a.zip").write_bytes(content)
    assert_refused(
        home / "a.zip", home, "expected a complete zip or tar|expected an archive with files, found none in it"
    )


@in_zip_and_tar
def test_archive_without_files_is_refused(write: Callable[..., Path], home: Path) -> None:
    assert_refused(write(home / "a.bin", []), home, "expected an archive with files, found none in it; fetch it again")


def test_absent_archive(home: Path) -> None:
    assert_refused(home / "a.zip", home, r"could not be unpacked \(.*No such file")


def test_interrupted_extraction_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(archive: Path, path: Path, member: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    archive = write_zip(home / "a.zip", [("a", b"x")])
    before = tree(home)
    monkeypatch.setattr(archives, "_write_member", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract_archive(archive, home / "new" / "target")
    assert tree(home) == before


def test_what_a_killed_unpacking_has_left_goes(home: Path) -> None:
    archive = write_zip(home / "a.zip", FILES)
    code = (
        "import os, pathlib, sys\nfrom grmp_hf.data import archives\n"
        "archives._write_member = lambda archive, path, member: os.kill(os.getpid(), 9)\n"
        "archives.extract_archive(*map(pathlib.Path, sys.argv[1:]))"
    )
    for _ in range(2):  # when the target has to be made, and when it is there
        killed = subprocess.run([sys.executable, "-c", code, archive, home / "cache" / "other"], check=False)
        assert killed.returncode == -9 and list((home / "cache").glob(".grmp-iqa-scratch-*/content"))
        extract_archive(archive, home / "cache" / "target")
        assert os.listdir(home / "cache") == ["target"]


def test_another_process_was_faster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_zip(home / "a.zip", FILES)
    checked = archives._checked
    target = home / "target"

    def slow(*arguments: Any) -> Any:
        monkeypatch.setattr(archives, "_checked", checked)
        plan = checked(*arguments)
        extract_archive(archive, target)
        return plan

    monkeypatch.setattr(archives, "_checked", slow)
    assert extract_archive(archive, target) == target
    assert sorted(path.name for path in home.iterdir()) == ["a.zip", "beside.txt", "target"]


def test_somebody_else_has_taken_the_place_meanwhile(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, target = write_zip(home / "a.zip", FILES), home / "target"
    write_member = archives._write_member

    def slow(*arguments: Any) -> None:
        target.mkdir(exist_ok=True)
        (target / "mine.txt").write_text("mine")
        write_member(*arguments)

    monkeypatch.setattr(archives, "_write_member", slow)
    with pytest.raises(GRMPError, match="it holds something else; name another"):
        extract_archive(archive, target)
    assert tree(target) == {"mine.txt": b"mine"}
    assert extract_archive(archive, home / "another").is_dir()
