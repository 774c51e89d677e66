"""Properties of the repository as a whole, read from the files that git tracks."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LARGEST = 10 * 1024 * 1024
# Built from pieces so that this file does not match itself.
ABSOLUTE = re.compile("(?<![\\w.:/])/" + "(?:home|root|Users|work|mnt|opt)/" + "[\\w.-]+|file:" + "///[\\w.-]+")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout: the tracked files are not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_large_file(tracked: list[Path]) -> None:
    assert not [path for path in tracked if path.stat().st_size > LARGEST]


def test_no_absolute_path_of_a_machine(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # weights and pictures
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in ABSOLUTE.finditer(text)]
    assert not found


def test_one_home_for_the_metadata() -> None:
    assert not re.search(r"^\[project\b", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
