"""Both stages from a folder of photographs, from Python and by the script; what they leave, in a new process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import grmp_hf
from grmp_hf.contrasting import high_level, low_level
from grmp_hf.errors import GRMPError
from grmp_hf.families import read_families
from grmp_hf.modeling.low_level import load_encoder
from grmp_hf.scoring import Scorer
from grmp_hf.training.high_level import HighLevelRecipe
from grmp_hf.training.low_level import LowLevelRecipe

SCRIPT = Path(__file__).parent.parent / "training" / "grepq.py"
LOW = LowLevelRecipe(versions=2, side=40, grid=2, piece=16, epochs=1, batch_size=4, smallest_rate=0.0, save_steps=0)
HIGH = HighLevelRecipe(epochs=2, batch_size=6, learning_rate=0.05, width=16, save_steps=0)
_AGAIN = """
import json, sys, numpy as np, PIL.Image, grmp_hf
from grmp_hf.modeling.low_level import load_encoder

encoder, scorer = load_encoder(sys.argv[1]), grmp_hf.load(adapter=sys.argv[2])
features = [encoder.describe(np.asarray(PIL.Image.open(path))).tolist() for path in sys.argv[3:]]
print(json.dumps([features, scorer.score(sys.argv[3:]).quality.tolist()]))
"""


def test_what_is_learnt_scores_the_same_in_a_new_process(
    base: Scorer, photos: list[Path], tmp_path: Path, elsewhere: Callable[..., Any]
) -> None:
    folder, told = photos[0].parent, set[str]()
    encoder = low_level(folder, tmp_path / "run", recipe=LOW, tell=lambda text, share: told.add(text))
    families = read_families(tmp_path / "run" / "families")
    assert len(families) == 12 and families[0].pictures.shape[0] == 3 and max(families[3].pictures.shape[1:3]) <= 40
    found = high_level(base, folder, tmp_path / "run", recipe=HIGH, tell=lambda text, share: told.add(text))
    assert told == {"distort and compare", "learn low-level features", "embed", "learn high-level features"}
    encoder.save_pretrained(tmp_path / "low")
    found.save(tmp_path / "high")
    paths = list(map(str, photos[:4]))
    done = elsewhere(_AGAIN, tmp_path / "low", tmp_path / "high", *paths)
    features, quality = json.loads(done.out.splitlines()[-1])
    assert load_encoder(tmp_path / "low").config.provenance == {
        "recipe": dataclasses.asdict(LOW),
        "seed": 0,
        "families": families.content_hash,
    }
    np.testing.assert_array_equal(features, [encoder.describe(np.asarray(Image.open(path))) for path in paths])
    np.testing.assert_array_equal(quality, found.score(paths).quality)
    assert np.abs(found.score(paths).quality - base.score(paths).quality).max() > 1e-4
    assert found.processor.settings() == base.processor.settings()


def test_any_similarity_may_say_what_is_alike(photos: list[Path], tmp_path: Path) -> None:
    def brightness(first: np.ndarray, second: np.ndarray) -> float:
        return float(1 - abs(first.mean() - second.mean()) / 255)

    folder = photos[0].parent
    encoder = low_level(folder, tmp_path / "a", recipe=LOW, similarity=brightness, kinds=["darken", "brighten", "jpeg"])
    family = read_families(tmp_path / "a" / "families")[5]
    assert family.similarity[0, 1] == pytest.approx(brightness(family.pictures[0], family.pictures[1]))
    assert encoder.fingerprint != low_level(folder, tmp_path / "b", recipe=LOW).fingerprint


def test_the_script_learns_both(
    photos: list[Path], clip_folder: Path, tmp_path: Path, elsewhere: Callable[..., Any]
) -> None:
    for stage, recipe in (("low", LOW), ("high", HIGH)):
        file = tmp_path / f"{stage}.yaml"
        file.write_text(
            "\n".join(f"{name}: {str(value).lower()}" for name, value in dataclasses.asdict(recipe).items())
        )
        output = tmp_path / f"my-{stage}"
        options = ["--photos", photos[0].parent, "--output", output, "--recipe", file, "--model", clip_folder]
        elsewhere(SCRIPT, stage, *options)
        assert not (tmp_path / f"my-{stage}-run").exists()
        assert "expected a new folder, got one that exists" in elsewhere(SCRIPT, stage, *options, code=2).errors
    expected = low_level(photos[0].parent, tmp_path / "run", recipe=LOW)
    assert load_encoder(tmp_path / "my-low").fingerprint == expected.fingerprint
    own = grmp_hf.load(adapter=tmp_path / "my-high").score(photos).quality
    same = high_level(grmp_hf.load(clip_folder), photos[0].parent, tmp_path / "run", recipe=HIGH).score(photos).quality
    np.testing.assert_array_equal(own, same)


def test_folders_that_cannot_teach(base: Scorer, photos: list[Path], adapter_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for learn in (low_level, lambda *given: high_level(base, *given)):
        with pytest.raises(GRMPError, match="holds no picture that can be read"):
            learn(tmp_path / "empty", tmp_path / "run")
    with pytest.raises(GRMPError, match="which has learnt already"):
        high_level(grmp_hf.load(adapter=adapter_folder), photos[0].parent, tmp_path / "run")
    with pytest.raises(GRMPError, match="recipe small: expected a file, or one of default, paper"):
        low_level(photos[0].parent, tmp_path / "run", recipe="small")
    photos[3].write_bytes(b"no picture")
    with pytest.raises(GRMPError, match=r"03\.png.*or remove it from the photographs"):
        low_level(photos[0].parent, tmp_path / "run", recipe=LOW)
    with pytest.raises(GRMPError, match=r"03\.png, drawn to learn from"):
        high_level(base, photos[0].parent, tmp_path / "run", recipe=HIGH)
