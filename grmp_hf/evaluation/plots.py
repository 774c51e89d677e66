"""Two pictures of a result: scores against ratings, and what more labels buy. PNG, SVG or PDF by the path's suffix.

Drawn on a `Figure` of its own, without pyplot: no window system, no state left behind.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grmp_hf.errors import GRMPError

from .arrays import FloatArray, finite_array, paired_arrays

__all__ = ["learning_curve", "scatter"]

# Okabe and Ito (2008): told apart with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INK, _FAINT = "#222222", "#8a8a8a"


def scatter(
    scores: npt.ArrayLike,
    mos: npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    scale: str = "",
    title: str = "",
    caption: str = "",
    curve: Callable[[FloatArray], FloatArray] | None = None,
    same_unit: bool = True,
) -> None:
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

    Raises:
        GRMPError: arrays that do not fit together, or a suffix that matplotlib cannot write.
    """
    x, y = paired_arrays(scores, mos)
    figure, axes = _canvas(5.2, 5.2, title, caption)
    unit = f" ({scale})" if scale else ""
    axes.set_xlabel(f"score{unit if same_unit else ''}")
    axes.set_ylabel(f"rating{unit}")
    if same_unit:
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        margin = 0.04 * (high - low) or 0.5
        limits = (low - margin, high + margin)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.plot(limits, limits, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)), label="score = rating", zorder=1)
    opacity = float(np.clip(6 / np.sqrt(len(x)), 0.15, 0.8))  # dense parts stay readable
    axes.scatter(x, y, s=22, color=_COLOURS[0], alpha=opacity, linewidths=0, zorder=2)
    if curve is not None:
        line = np.linspace(x.min(), x.max(), 200)
        axes.plot(line, curve(line), color=_COLOURS[1], linewidth=2, label="logistic fit", zorder=3)
    if axes.lines:
        _legend(axes, axes.lines, "upper left")
    _write(figure, path)


def learning_curve(
    methods: Mapping[str, Mapping[int, Sequence[float]]],
    path: str | os.PathLike[str],
    *,
    ylabel: str = "SRCC",
    title: str = "",
    caption: str = "",
) -> None:
    """Draw a metric against the number of labels: the median over draws, with the range from worst to best draw.

    Args:
        methods: name -> number of labels -> value in each draw. One with 0 labels only (zero-shot) is a level line;
            values at 0 labels of any other method are not drawn, for the axis is logarithmic.
        path: file to write; its folder is made.
        ylabel: what the values are.
        title: bold first line.
        caption: second line, such as the data set and the number of draws.

    Raises:
        GRMPError: no method, a method without values, NaN or infinity, or a suffix that matplotlib cannot write.
    """
    if not methods:
        raise GRMPError("learning_curve: expected at least one method, got none")
    figure, axes = _canvas(6.4, 4.4, title, caption)
    counts = sorted({shots for values in methods.values() for shots in values if shots > 0})
    handles: list[Any] = []
    shift = 1.03  # so that the ranges of several methods stand side by side on the logarithmic axis
    for index, (name, values) in enumerate(methods.items()):
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        draws = {shots: finite_array(values[shots], f"{name}, {shots} labels") for shots in sorted(values)}
        if not draws or not all(len(draw) for draw in draws.values()):
            raise GRMPError(f"learning_curve: expected values for {name!r}, got none; leave the method out")
        if set(draws) == {0}:
            level = float(np.median(draws[0]))
            handles.append(axes.axhline(level, color=colour, linewidth=1.5, linestyle=(0, (4, 3)), label=name))
            continue
        shots = np.array([s for s in draws if s > 0]) * shift ** (index - (len(methods) - 1) / 2)
        middle, low, high = (np.array([f(draws[s]) for s in draws if s > 0]) for f in (np.median, np.min, np.max))
        bars = axes.errorbar(
            *(shots, middle, [middle - low, high - middle]),
            color=colour, marker=marker, markersize=6, linewidth=1.8, elinewidth=1.2, capsize=3, label=name,
        )  # fmt: skip
        handles.append(bars)
    if counts:
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_ylabel(ylabel)
    _legend(axes, handles, "best")
    _write(figure, path)


def _canvas(width: float, height: float, title: str, caption: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, color=_FAINT, labelsize=9)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    lines = textwrap.wrap(caption, int(width * 12.5))
    axes.set_title(title, fontsize=11, fontweight="bold", color=_INK, loc="left", pad=8 + 12 * len(lines))
    axes.annotate(
        *("\n".join(lines), (0, 1)),
        xytext=(0, 6), xycoords="axes fraction", textcoords="offset points", va="bottom", fontsize=9, color=_INK,
    )  # fmt: skip
    return figure, axes


def _legend(axes: Axes, handles: Sequence[Any], place: Literal["upper left", "best"]) -> None:
    axes.legend(handles=handles, loc=place, fontsize=9, labelcolor=_INK, edgecolor="none", framealpha=0.85)


def _write(figure: Figure, path: str | os.PathLike[str]) -> None:
    target = Path(path)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix.lower().lstrip(".") not in known:
        raise GRMPError(
            f"{target}: expected the name of a picture to write, such as {target.stem or 'plot'}.png or .svg"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
