"""The recipe of what explains scores, end to end on generated pictures with a stand-in teacher."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import grmp_hf
from grmp_hf.modeling.explaining import EXPLAINER, read_probes
from grmp_hf.modeling.templates import AXES

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> Any:
    """The script as a module; ``tiny_clip`` beside it is importable for as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "modeling"))
        spec = importlib.util.spec_from_file_location("build_explainer", ROOT / "modeling" / "build_explainer.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty files, every sixth no picture: nobody is to look at them."""
    folder = tmp_path_factory.mktemp("photos")
    for at in range(30):
        if at % 6 == 5:
            (folder / f"{at:02}.png").write_text("held out")
            continue
        pixels = np.random.default_rng(at).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((420, 280)).save(folder / f"{at:02}.png")
    return folder


def make_teacher() -> Any:
    """Sees classes 0 and 999 in turn."""
    from tiny_clip.teacher import TeacherOutput

    turns = itertools.cycle((0, 999))

    def teacher(pixels: torch.Tensor) -> Any:
        logits = torch.zeros(len(pixels), 1000)
        logits[:, next(turns)] = 9.0
        return TeacherOutput([], torch.zeros(len(pixels), 1280), logits)

    return teacher


def test_photographs_become_probes_and_those_held_out_are_not_looked_at(
    script: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.build(photos, tmp_path / "work", tmp_path, make_teacher, copies=3)
    read_probes.cache_clear()
    probes = read_probes(tmp_path / EXPLAINER)
    assert probes["distortion"].values == script.VALUES and probes["scene"].values == AXES["scene"]
    with np.load(tmp_path / "work" / "looked.npz") as seen:
        assert set(seen["photo"]) == {at for at in range(30) if at % 6 != 5} and len(seen["side"]) == 75
        features, types = torch.from_numpy(seen["side"]), seen["type"]
    side: Any = grmp_hf.load().model.side
    said, distorted = probes["distortion"].logits(features, side)[:, :11].argmax(1).numpy(), types < 11
    assert (said == types)[distorted].mean() > 0.5, "it knows at least what has taught it"
    assert probes["scene"].bias.min() == -20, "a scene that no picture has stays unlikely"
    first = (tmp_path / EXPLAINER).read_bytes()
    script.build(photos, tmp_path / "work", tmp_path, lambda: None, copies=3)
    assert (tmp_path / EXPLAINER).read_bytes() == first, "what was looked at is kept"
    assert "copies of other train photographs" in capsys.readouterr().out


def test_a_copy_is_a_function_of_its_seed(script: Any) -> None:
    photo = Image.effect_noise((512, 400), 60).convert("RGB")
    made = [script.make_copy(photo, np.random.default_rng([20, 3, copy])) for copy in (0, 0, 1)]
    assert np.array_equal(made[0][0], made[1][0]) and made[0][1] == made[1][1]
    assert made[0][0].shape != made[2][0].shape
    assert sum(len(kinds) for kinds in script.KINDS.values()) == 25 and all(script.KINDS.values())
