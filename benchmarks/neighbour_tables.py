"""Tables and figure of `bench_neighbours.py`: methods side by side by number of labels, seconds and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from world_tables import PHOTOGRAPHS

from grmp_hf.evaluation.plots import GRID, INK

__all__ = ["draw", "every_label", "side_by_side"]

_TITLES = {
    "zero_shot": "zero-shot, no label",
    "ridge": "ridge on the embedding",
    "statistics": "hand-made statistics, ridge",
    "grmp": "adapted (`grmp-iqa adapt`)",
    "visual prompts": "adapted, recipe `visual`",
    "grepq": "GRepQ's ridge, embedding and side",
    "two_stream": "after LPF, two streams",
    "layer norm": "expert, LayerNorm",
    "lora": "expert, LoRA",
    "loda": "LoDa, small",
    "loda of the paper's size": "LoDa, way back as in the paper",
    "loda, three epochs": "LoDa, small, three epochs",
    "full_finetune": "full fine-tuning",
}
_DRAWN = ("grmp", "ridge", "grepq", "visual prompts", "loda", "lora", "two_stream", "full_finetune")
Result = dict[str, Any]


def _counts(result: Result, dataset: str) -> list[int]:
    return sorted({row["shots"] for row in result["methods"] if row["dataset"] == dataset and row["shots"]})


def side_by_side(result: Result, dataset: str) -> list[list[str]]:
    """SRCC by number of labels and below it what each method differs from ours, paired over draws; then its costs."""
    counts = _counts(result, dataset)
    head = [f"SRCC, {PHOTOGRAPHS[dataset]}", *(f"{count} labels" for count in counts)]
    rows = [[*head, "seconds a fit, 50 labels", "weights trained", "kB saved"]]
    for name, title in _TITLES.items():
        found = {row["shots"]: row for row in result["methods"] if (row["dataset"], row["method"]) == (dataset, name)}
        pairs = {
            row["shots"]: row for row in result["minus_grmp"] if (row["dataset"], row["method"]) == (dataset, name)
        }
        cells = [_cell(found.get(count, found.get(0)), pairs.get(count)) for count in counts]
        costs = ["", "", ""]
        if 50 in found:
            costs = [f"{found[50]['fit_seconds_median']:.1f}", f"{found[50]['weights_trained']:,}"]
            costs.append(f"{found[50]['learnt_bytes'] / 1000:,.0f}")
        rows.append([title, *cells, *costs])
    return rows


def _cell(row: Result | None, pair: Result | None) -> str:
    if row is None:
        return ""
    apart = "" if pair is None else "<br>{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**pair)
    return f"{row['srcc_median']:.3f}{apart}"


def every_label(result: Result) -> list[list[str]]:
    """LoDa against ridge on the same base with all labels, over pictures and draws."""
    rows = [["all labels", "SRCC", "SRCC of ridge on the embedding", "difference [95 % interval]", "draws"]]
    for row in result["every_label"]:
        apart = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**row)
        name = f"{_TITLES[row['method']]}, {PHOTOGRAPHS[row['dataset']]}, {row['shots']} labels"
        rows.append([name, f"{row['srcc']:.3f}", f"{row['ridge']:.3f}", apart, str(row["draws"])])
    return rows


def draw(result: Result, path: Path) -> None:
    """SRCC by number of labels in each data set, and by seconds a fit with 50 labels."""
    figure = Figure(figsize=(11, 4.2), dpi=160, layout="constrained")
    panels = figure.subplots(1, len(PHOTOGRAPHS) + 1)
    colours = {name: f"C{at}" for at, name in enumerate(_DRAWN)}
    for axes, (dataset, title) in zip(panels, PHOTOGRAPHS.items(), strict=False):
        counts = _counts(result, dataset)
        known = {(row["method"], row["shots"]): row for row in result["methods"] if row["dataset"] == dataset}
        for name in _DRAWN:
            there = [count for count in counts if (name, count) in known]
            values = [known[name, count]["srcc_median"] for count in there]
            label = _TITLES[name].replace("`", "")
            axes.plot(there, values, marker="o", markersize=4, linewidth=1.4, color=colours[name], label=label)
        if ("zero_shot", 0) in known:
            style = {"color": INK, "linewidth": 1, "linestyle": "--", "label": _TITLES["zero_shot"]}
            axes.axhline(known["zero_shot", 0]["srcc_median"], **style)
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("labels")
        axes.set_ylabel("SRCC, median of draws")
        axes.set_title(title, fontsize=10, loc="left", color=INK)
    for dataset, marker in zip(PHOTOGRAPHS, "os", strict=True):
        for row in result["methods"]:
            if (row["dataset"], row["shots"]) == (dataset, 50) and row["method"] in colours:
                seconds = max(row["fit_seconds_median"], 0.01)
                panels[-1].plot(seconds, row["srcc_median"], marker, markersize=6, color=colours[row["method"]])
    panels[-1].set_xscale("log")
    panels[-1].set_xlabel("seconds a fit, one core (.01: less)")
    panels[-1].set_ylabel("SRCC, median of draws")
    panels[-1].set_title("50 labels (squares: LIVE Challenge)", fontsize=10, loc="left", color=INK)
    for axes in panels:
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GRID, linewidth=0.8)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})
