from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.data import RatingScale


@pytest.fixture
def adapter(clip_folder: Path, tmp_path: Path) -> Path:
    """An adapter on a user's scale, with prompts, residuals and calibration that change the scores."""
    scorer = grmp_hf.load(clip_folder)
    torch.manual_seed(1)
    config = grmp_hf.GRMPPromptConfig(text_prompts=3, visual_prompts=4, anchor_residuals=True, calibrate=True)
    model = get_peft_model(scorer.model, config)
    with torch.no_grad():
        readout = model.get_base_model().readout.grmp_readout["default"]
        readout.residual.normal_(std=0.2)
        readout.offset.normal_()
    stars = RatingScale(1.0, 5.0, True, "stars")
    dataclasses.replace(scorer, model=model, scale=stars).save(tmp_path / "adapter")
    return tmp_path / "adapter"


def scores(path: Path) -> list[float]:
    with path.open(newline="") as file:
        return [float(row["score"]) for row in csv.DictReader(file)]


def test_a_baked_scorer_scores_as_the_adapter_does(adapter: Path, tmp_path: Path, capsys) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{index}.png")
    assert main(["bake", str(tmp_path / "baked"), "--model", str(adapter), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scorer"].endswith("baked")
    for name, model in (("a", adapter), ("b", tmp_path / "baked")):
        command = ["score", str(pictures), "--model", str(model), "--format", "csv", "--output", str(tmp_path / name)]
        assert main(command) == 0
    np.testing.assert_allclose(scores(tmp_path / "a"), scores(tmp_path / "b"), atol=1e-5)
    assert np.ptp(scores(tmp_path / "a")) > 1e-3
    baked = grmp_hf.load(tmp_path / "baked")
    assert str(baked.unit) == "1 (worst) to 5 (best) stars"
    assert not [name for name, _ in baked.model.named_parameters() if "text" in name]


def test_wrong_use_is_one_line(adapter: Path, photos: list[Path], tmp_path: Path, capsys) -> None:
    assert main(["bake", str(adapter), "--model", str(adapter)]) == 2
    assert "--model: expected another folder than the one to write to" in capsys.readouterr().err
    assert main(["bake", str(tmp_path / "baked"), "--model", str(adapter)]) == 0
    assert main(["bake", str(tmp_path / "again"), "--model", str(tmp_path / "baked")]) == 2
    assert "baked already" in capsys.readouterr().err
    assert main(["score", str(photos[0]), "--model", str(tmp_path / "baked"), "--adapter", str(adapter)]) == 2
    assert "which has its own" in capsys.readouterr().err
