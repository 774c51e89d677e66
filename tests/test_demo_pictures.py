"""training/make_demo_pictures.py: same arguments, same pictures; labels follow the distortion level."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parent.parent / "training" / "make_demo_pictures.py"


def make(folder: Path, *options: str) -> dict[str, bytes]:
    subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), "--count", "12", *options], check=True, capture_output=True
    )
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_arguments_make_the_same_pictures(tmp_path: Path) -> None:
    first = make(tmp_path / "first")
    assert len(first) == 13
    assert make(tmp_path / "again") == first
    assert make(tmp_path / "other", "--seed", "1") != first


def test_labels_name_the_pictures_and_follow_the_level(tmp_path: Path) -> None:
    make(tmp_path)
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        with Image.open(tmp_path / "images" / row["image"]) as picture:
            assert (picture.mode, picture.size) == ("RGB", (320, 320))
        assert abs(float(row["mos"]) - (5 - 4 * float(row["level"]))) < 1e-3
        assert (row["distortion"] == "none") == (float(row["level"]) == 0)
