"""Commands that are killed at random moments and started again end as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

MOMENTS = int(os.environ.get("GRMP_HF_TEST_KILLS", "6"))
"""How often each command is killed."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "grmp_hf.cli.main", *map(str, arguments)]


def run(words: list[str]) -> float:
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start


def killed(words: list[str], seconds: float) -> None:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
    process.wait()


def results(folder: Path) -> dict[str, str]:
    """Files of a folder that do not say how long something took."""
    timed = {"metrics.json", "README.md", "scatter.png", ".grmp-iqa.json"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in timed
    }


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    folder = tmp_path / "rated"
    folder.mkdir()
    rows = ["image,mos"]
    for index in range(300):
        Image.effect_noise((64, 56), 0.7 * index).convert("RGB").save(folder / f"{index}.png")
        rows.append(f"{index}.png,{1 + index / 75:.3f}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["score", "adapt", "bake"])
def test_a_killed_command_ends_as_if_nothing_had_happened(
    kind: str, rated: Path, clip_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    def words(folder: Path) -> list[str]:
        if kind == "score":
            return command(
                "score", rated, "--model", clip_folder, "--output", folder / "t.csv", "--batch-size", 4, "-q"
            )
        if kind == "bake":
            return command("bake", folder, "--adapter", adapter_folder, "--overwrite")
        return command("adapt", "--data", rated, "--shots", 20, "--model", clip_folder, "--output", folder, "-q")

    whole = run(words(tmp_path / "whole" / "mine"))
    expected, generator = results(tmp_path / "whole" / "mine"), random.Random(0)
    for moment in range(MOMENTS):
        folder = tmp_path / str(moment) / "mine"  # the name stands in every row
        for _ in range(1 + moment % 2):  # some are killed twice
            killed(words(folder), generator.uniform(0.3, 1.0) * whole)
        if (folder / "t.csv").exists() or (kind == "adapt" and (folder / "metrics.json").exists()):
            continue  # it was done before it was killed
        run(words(folder))
        assert results(folder).keys() == expected.keys()
        assert results(folder) == expected
