"""Pictures of a result: scores against ratings, what is left after the fit, what more labels buy.

Drawn on a `Figure` of its own, without pyplot: no window system, no state left behind. Each function returns the
figure, and writes it where a path is given: PNG, SVG or PDF by its suffix.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, finite_array, paired_arrays

__all__ = ["FAINT", "GRID", "INK", "PAPER", "learning_curve", "residuals", "scatter", "step_curve"]

INK, FAINT, GRID, PAPER = "#222222", "#8a8a8a", "#e6e6e6", "#ffffff"
"""Text, frame, grid and ground. A page that is also read on a dark ground may replace them in an SVG."""

# Okabe and Ito (2008): told apart with any colour vision. Past the last, lines are dashed.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_NO_LABELS = (0, (1, 1.5))  # dots: the level of a method that needs no labels
_BITMAP = 500  # more points than this are a bitmap inside an SVG or PDF


def scatter(
    scores: npt.ArrayLike,
    mos: npt.ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    scale: str = "",
    title: str = "",
    caption: str = "",
    curve: Callable[[FloatArray], FloatArray] | None = None,
    same_unit: bool = True,
    size: tuple[float, float] = (5.2, 5.2),
) -> Figure:
    """Draw scores against ratings, a point a picture.

    Args:
        scores: `(n,)`, drawn along x.
        mos: `(n,)`, ratings of the same pictures, drawn along y.
        path: file to write; its folder is made.
        scale: unit and direction of the ratings, such as "1 to 5, 5 = best"; stands on both axes.
        title: bold first line, such as the model's name.
        caption: second line, such as "SRCC 0.61 [0.57, 0.65], 750 pictures".
        curve: fitted curve from scores to ratings (a `LogisticFit`), drawn over the points.
        same_unit: scores and ratings share a unit: equal axes and the line on which both agree.
        size: width and height in inches.

    Raises:
        GRMPError: arrays that do not fit together, or a suffix that matplotlib cannot write.
    """
    x, y = paired_arrays(scores, mos)
    figure, axes = _canvas(size, title, caption)
    unit = f" ({scale})" if scale else ""
    axes.set_xlabel(_plain(f"score{unit if same_unit else ''}"))
    axes.set_ylabel(_plain(f"rating{unit}"))
    if same_unit:
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        margin = 0.04 * (high - low) or 0.5
        limits = (low - margin, high + margin)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.plot(limits, limits, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="score = rating", zorder=1)
    _points(axes, x, y)
    if curve is not None:
        line = np.linspace(x.min(), x.max(), 200)
        axes.plot(line, curve(line), color=_COLOURS[1], linewidth=2, label="logistic fit", zorder=3)
    if axes.lines:
        _legend(figure, axes.lines)
    return _written(figure, path)


def residuals(
    predictions: npt.ArrayLike,
    mos: npt.ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    caption: str = "",
    size: tuple[float, float] = (5.2, 4.0),
) -> Figure:
    """Draw what is left, rating - prediction, against the prediction: a slope or a funnel shows where the fit fails.

    Args:
        predictions: `(n,)`, in the unit of the ratings, such as scores after a logistic fit.
        mos: `(n,)`, ratings of the same pictures.
        path: file to write; its folder is made.
        title: bold first line.
        caption: second line.
        size: width and height in inches.

    Raises:
        GRMPError: arrays that do not fit together, or a suffix that matplotlib cannot write.
    """
    x, y = paired_arrays(predictions, mos)
    figure, axes = _canvas(size, title, caption)
    axes.axhline(0, color=_COLOURS[1], linewidth=2, zorder=3)
    _points(axes, x, y - x)
    axes.set_xlabel("prediction, in the unit of the ratings")
    axes.set_ylabel("rating - prediction")
    return _written(figure, path)


def learning_curve(
    methods: Mapping[str, Mapping[int, Sequence[float]]],
    path: str | os.PathLike[str] | None = None,
    *,
    ylabel: str = "SRCC",
    title: str = "",
    caption: str = "",
    size: tuple[float, float] = (6.4, 4.4),
) -> Figure:
    """Draw a metric against the number of labels: the median over draws, with the range from worst to best draw.

    Args:
        methods: name -> number of labels -> value in each draw. One with 0 labels only (zero-shot) is a level line in a
            band from worst to best; values at 0 labels of any other method are not drawn, for the axis is logarithmic.
        path: file to write; its folder is made.
        ylabel: what the values are.
        title: bold first line.
        caption: second line, such as the data set and the number of draws.
        size: width and height in inches, without the names of more than four methods, which stand below.

    Raises:
        GRMPError: no method, a method without values, NaN or infinity, or a suffix that matplotlib cannot write.
    """
    if not methods:
        raise GRMPError("learning_curve: expected at least one method, got none")
    figure, axes = _canvas(size, title, caption)
    counts = sorted({shots for values in methods.values() for shots in values if shots > 0})
    apart = _distance_apart(counts, len(methods))
    handles: list[Any] = []
    for index, (name, values) in enumerate(methods.items()):
        draws = {shots: finite_array(values[shots], f"{name}, {shots} labels") for shots in sorted(values)}
        if not draws or not all(len(draw) for draw in draws.values()):
            raise GRMPError(f"learning_curve: expected values for {name!r}, got none; leave the method out")
        colour, label = _COLOURS[index % len(_COLOURS)], _plain(textwrap.fill(name, 40))
        if set(draws) == {0}:
            axes.axhspan(draws[0].min(), draws[0].max(), color=colour, alpha=0.1, linewidth=0)
            level = float(np.median(draws[0]))
            handles.append(axes.axhline(level, color=colour, linewidth=1.8, linestyle=_NO_LABELS, label=label))
            continue
        shots = np.array([s for s in draws if s > 0]) * apart ** (index - (len(methods) - 1) / 2)
        middle, low, high = (np.array([f(draws[s]) for s in draws if s > 0]) for f in (np.median, np.min, np.max))
        bars = axes.errorbar(
            *(shots, middle, [middle - low, high - middle]),
            color=colour, marker=_MARKERS[index % len(_MARKERS)], markersize=6, linewidth=1.8,
            linestyle="-" if index < len(_COLOURS) else "--", elinewidth=1.2, capsize=3,
        )  # fmt: skip
        bars.lines[0].set_label(label)
        handles.append(bars.lines[0])
    if counts:
        axes.set_xscale("log")
        margin = 1.15 * apart ** (len(methods) / 2)
        axes.set_xlim(counts[0] / margin, counts[-1] * margin)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_ylabel(_plain(ylabel))
    _legend(figure, handles)
    return _written(figure, path)


def step_curve(
    methods: Mapping[str, Mapping[int, float]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    caption: str = "",
    size: tuple[float, float] = (6.4, 4.4),
) -> Figure:
    """Draw the mean SRCC on the data sets that a stream has learnt against their number.

    Args:
        methods: name -> number of data sets -> value; of one number alone it is a point.
        path: file to write; its folder is made.
        title: bold first line.
        caption: second line.
        size: width and height in inches, without the names of the methods, which stand below.

    Raises:
        GRMPError: no method, NaN or infinity, or a suffix that matplotlib cannot write.
    """
    if not methods:
        raise GRMPError("step_curve: expected at least one method, got none")
    figure, axes = _canvas(size, title, caption)
    handles = []
    for index, (name, values) in enumerate(methods.items()):
        steps = sorted(values)
        (line,) = axes.plot(
            *(steps, finite_array([values[step] for step in steps], name)),
            color=_COLOURS[index % len(_COLOURS)], marker=_MARKERS[index % len(_MARKERS)], markersize=6, linewidth=1.8,
            linestyle="-" if index < len(_COLOURS) else "--", label=_plain(textwrap.fill(name, 40)),
        )  # fmt: skip
        handles.append(line)
    axes.set_xticks(sorted({step for values in methods.values() for step in values}))
    axes.set_xlabel("data sets learnt")
    axes.set_ylabel("mean SRCC on them")
    _legend(figure, handles)
    return _written(figure, path)


def _distance_apart(counts: Sequence[int], methods: int) -> float:
    """Factor between neighbours on the logarithmic axis, so that the ranges of several methods stand side by side.

    Three per cent, less where all the methods would fill more than half the way to the next number of labels.
    """
    way = min(np.diff(np.log(counts)), default=np.inf)
    return float(np.exp(min(np.log(1.03), way / 2 / methods)))


def _canvas(size: tuple[float, float], title: str, caption: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, color=FAINT, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    lines = textwrap.wrap(caption, int(size[0] * 12.5))
    if title or lines:
        axes.set_title(_plain(title), fontsize=11, fontweight="bold", color=INK, loc="left", pad=8 + 12 * len(lines))
    axes.annotate(
        *(_plain("\n".join(lines)), (0, 1)),
        xytext=(0, 6), xycoords="axes fraction", textcoords="offset points", va="bottom", fontsize=9, color=INK,
    )  # fmt: skip
    return figure, axes


def _points(axes: Axes, x: FloatArray, y: FloatArray) -> None:
    opacity = float(np.clip(6 / np.sqrt(len(x)), 0.15, 0.8))  # dense parts stay readable
    bitmap = len(x) > _BITMAP
    axes.scatter(x, y, s=22, color=_COLOURS[0], alpha=opacity, linewidths=0, zorder=2, rasterized=bitmap)


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Names below the axes, where they cover no point, on a figure that is made higher for them."""
    labels = [handle.get_label() for handle in handles]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    columns = int(figure.get_figwidth() * 12.5 / (longest + 7))  # a handle is as wide as seven letters
    columns = min(max(columns, 1), 3)
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(handles) / columns))
    style: dict[str, Any] = {"fontsize": 9, "labelcolor": INK, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **style)


def _plain(text: str) -> str:
    """The text without the meaning that matplotlib gives to dollars."""
    return text.replace("$", r"\$")


def _written(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is None:
        return figure
    target = Path(path)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix.lower().lstrip(".") not in known:
        raise GRMPError(
            f"{target}: expected the name of a picture to write, such as {target.stem or 'plot'}.png or .svg"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    return figure
