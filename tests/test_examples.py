"""Every script in `examples/` runs, on a few made pictures and the embedded base; push.py in test_hub_clients.py."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grmp_hf.embedded import EMBEDDED_PROMPTS

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture
def rated(photos: list[Path]) -> Path:
    """The folder of the photos, with ratings."""
    with (photos[0].parent / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *((path.name, 1 + i % 5) for i, path in enumerate(photos))])
    return photos[0].parent


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "push.py"])
def test_the_example_runs(
    script: str, rated: Path, photos: list[Path], tmp_path: Path, elsewhere: Callable[..., Any]
) -> None:
    prompts, output, picture = str(EMBEDDED_PROMPTS), str(tmp_path / "out"), str(photos[0])
    arguments = {
        "adapt.py": [str(rated), "6", output],
        "bake.py": [prompts, picture, output],
        "loda.py": [str(rated), output],
        "lpf.py": [str(rated), output],
        "pairs.py": [output, str(rated), str(rated / "labels.csv")],
        "pipeline.py": [prompts, picture, str(photos[1])],
        "save_and_load.py": [prompts, picture, output],
        "score.py": [picture, str(photos[1])],
        "trainer.py": [str(rated), output],
    }
    said = elsewhere(ROOT / "examples" / script, *arguments[script]).out
    if script in ("bake.py", "save_and_load.py"):  # the same score by every door
        numbers = [float(found) for found in re.findall(r"\[([\d.e-]+)\]", said)]
        assert len(numbers) >= 2 and numbers == pytest.approx([numbers[0]] * len(numbers), abs=1e-5)
    else:
        assert said


def test_an_adapter_with_a_side_network_scores_the_same_by_every_door(
    points_adapter: Path, photos: list[Path], tmp_path: Path, elsewhere: Callable[..., Any]
) -> None:
    script = ROOT / "examples" / "save_and_load.py"
    said = elsewhere(script, points_adapter, photos[0], tmp_path / "out").out
    numbers = [float(found) for found in re.findall(r"\[([\d.e-]+)\]", said)]
    assert len(numbers) == 3 and numbers == pytest.approx([numbers[0]] * 3, abs=1e-5)


def test_examples_are_short_and_named_in_the_documents() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs" / "quickstart.md").read_text(
        encoding="utf-8"
    )
    for name in SCRIPTS:
        assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) <= 30
        assert f"examples/{name}" in text
