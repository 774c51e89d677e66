"""grmp_hf.evaluation.plots: files come out as named, nothing of pyplot is touched, wrong input is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.logistic import fit_logistic
from grmp_hf.evaluation.plots import learning_curve, scatter

MOS = np.linspace(1, 5, 60)
SCORES = MOS + np.random.default_rng(0).normal(0, 0.5, 60)


def test_scatter_writes_a_picture_with_and_without_the_extras(tmp_path: Path) -> None:
    scatter(SCORES, MOS, tmp_path / "plain.png", same_unit=False)
    full = tmp_path / "made" / "full.png"
    scatter(SCORES, MOS, full, scale="1 to 5, 5 = best", title="a", caption="b " * 60, curve=fit_logistic(SCORES, MOS))
    with Image.open(tmp_path / "plain.png") as plain, Image.open(full) as other:
        assert plain.size == other.size == (832, 832)
        assert plain.tobytes() != other.tobytes()


def test_labels_stand_in_the_drawing(tmp_path: Path) -> None:
    scatter([1, 1], [2, 2], tmp_path / "s.svg", scale="1 to 5", title="the title", caption="the caption")
    curves = {"ours": {20: [0.5, 0.6], 50: [0.6, 0.7]}, "zero-shot": {0: [0.55]}}
    learning_curve(curves, tmp_path / "l.svg", ylabel="KRCC", caption="two draws")
    scattered, learnt = ((tmp_path / name).read_text(encoding="utf-8") for name in ("s.svg", "l.svg"))
    for text in ("the title", "the caption", "score (1 to 5)", "rating (1 to 5)", "score = rating"):
        assert f"<!-- {text} -->" in scattered
    for text in ("ours", "zero-shot", "KRCC", "two draws", "labels", "20", "50"):
        assert f"<!-- {text} -->" in learnt


def test_pyplot_is_never_imported() -> None:
    script = "import sys, grmp_hf.evaluation.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_wrong_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r"plot: expected the name of a picture to write, such as plot\.png or \.svg"):
        scatter(SCORES, MOS, tmp_path / "plot")
    with pytest.raises(GRMPError, match="at least one method, got none"):
        learning_curve({}, tmp_path / "curve.png")
    with pytest.raises(GRMPError, match="expected values for 'ours', got none"):
        learning_curve({"ours": {20: []}}, tmp_path / "curve.png")
    with pytest.raises(GRMPError, match="ours, 20 labels: expected finite numbers"):
        learning_curve({"ours": {20: [np.nan]}}, tmp_path / "curve.png")
