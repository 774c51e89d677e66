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
from grmp_hf.evaluation.plots import learning_curve, residuals, scatter

MOS = np.linspace(1, 5, 60)
SCORES = MOS + np.random.default_rng(0).normal(0, 0.5, 60)


def test_scatter_writes_a_picture_with_and_without_the_extras(tmp_path: Path) -> None:
    scatter(SCORES, MOS, tmp_path / "plain.png", same_unit=False)
    full = tmp_path / "made" / "full.png"
    scatter(SCORES, MOS, full, scale="1 to 5, 5 = best", title="a", caption="b " * 60, curve=fit_logistic(SCORES, MOS))
    with Image.open(tmp_path / "plain.png") as plain, Image.open(full) as other:
        assert plain.size == (832, 832) and other.size == (832, 864)  # higher by a line of names
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


def test_a_figure_can_be_had_without_a_file() -> None:
    figure = residuals(SCORES, MOS, title="what is left")
    (axes,) = figure.axes
    assert np.allclose(axes.collections[0].get_offsets(), np.stack([SCORES, MOS - SCORES], axis=1))
    assert (axes.get_ylabel(), axes.get_title("left")) == ("rating - prediction", "what is left")


def test_residuals_write_a_picture(tmp_path: Path) -> None:
    residuals(SCORES, MOS, tmp_path / "residuals.png", size=(4, 3))
    with Image.open(tmp_path / "residuals.png") as picture:
        assert picture.size == (640, 480)


def test_learning_curve_holds_median_and_range_of_every_draw() -> None:
    figure = learning_curve({"ours": {20: [0.5, 0.9, 0.6], 50: [0.7]}, "zero-shot": {0: [0.3, 0.5, 0.45]}})
    (axes,) = figure.axes
    bars = axes.containers[0]
    assert bars.lines[0].get_ydata().tolist() == [0.6, 0.7]
    assert [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()] == [
        pytest.approx([0.5, 0.9]),
        pytest.approx([0.7, 0.7]),
    ]
    level = next(line for line in axes.lines if line.get_label() == "zero-shot")
    assert set(level.get_ydata()) == {0.45}
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == (0.3, 0.5)


def test_nine_methods_are_told_apart_with_their_names_below() -> None:
    names = [f"method {number}" for number in range(9)]
    figure = learning_curve({name: {20: [0.5, 0.6], 50: [0.7]} for name in names}, size=(6.4, 4.4))
    (axes,) = figure.axes
    (legend,) = figure.legends
    assert axes.get_legend() is None
    assert [text.get_text() for text in legend.get_texts()] == names
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in legend.get_lines()}
    assert len(looks) == 9
    figure.draw_without_rendering()
    below = legend.get_window_extent().y1
    assert below <= axes.xaxis.label.get_window_extent().y0 + 1
    assert axes.get_position().height * figure.get_figheight() > 3  # the drawing keeps its size


def test_ranges_of_many_methods_stay_beside_their_number() -> None:
    figure = learning_curve({f"method {number}": {40: [0.5], 44: [0.6]} for number in range(9)})
    at = np.array([bars.lines[0].get_xdata() for bars in figure.axes[0].containers])  # (methods, numbers)
    assert at[:, 0].max() < at[:, 1].min()


def test_one_number_of_labels_stands_in_the_middle() -> None:
    (axes,) = learning_curve({f"method {number}": {50: [0.5]} for number in range(3)}).axes
    low, high = axes.get_xlim()
    at = [bars.lines[0].get_xdata()[0] for bars in axes.containers]
    assert low < at[0] / 1.1 and at[-1] * 1.1 < high
    assert low * high == pytest.approx(50**2)


def test_many_points_become_a_bitmap() -> None:
    few, many = (scatter(np.arange(n), np.arange(n)).axes[0].collections[0] for n in (500, 501))
    assert (few.get_rasterized(), many.get_rasterized()) == (False, True)


def test_no_name_is_taken_for_mathematics(tmp_path: Path) -> None:
    learning_curve({"a $x_1$ b": {20: [0.5]}}, tmp_path / "curve.svg", title="costs 5$ or 6$", caption="$y$")
    text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    for name in ("a $x_1$ b", "costs 5$ or 6$", "$y$"):
        assert f"<!-- {name.replace('$', chr(92) + '$')} -->" in text or f"<!-- {name} -->" in text


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
