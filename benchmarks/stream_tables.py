"""Tables of `bench_stream.py`: figures of each method, its matrix, and what other gates come to."""

from __future__ import annotations

from statistics import mean
from typing import Any

__all__ = ["STREAM"]

TITLES = {
    "layer_norm": "experts, LayerNorm",
    "lora": "experts, LoRA of rank 1",
    "prompts": "experts, prompts",
    "prompts_projection": "experts, prompts and projection",
    "fine_tuning": "one adapter, plain fine-tuning",
    "distillation": "one adapter, distillation (10)",
    "replay": "one adapter, 40 pictures kept",
    "ewc": "one adapter, EWC (10,000)",
    "joint": "all at once",
}
SETS = {"biq2021": "BIQ2021", "livec": "LIVE Challenge", "webpages": "web pages"}
GATES = {
    "softmin": "softmin (the gate)",
    "nearest": "nearest alone",
    "oracle": "oracle",
    "last": "latest",
    "mean": "all alike",
}
FIGURES = ("plasticity", "average", "stability", "mpsr")


def streams(result: dict[str, Any]) -> list[list[str]]:
    """Figures of each method, and SRCC on each data set at the end with its interval."""
    rows = [["", "trained weights", "plasticity", "average", "stability", "MPSR", *SETS.values()]]
    for row in result["rows"]:
        figures = [f"{row['figures'][name]:.3f}" for name in FIGURES] if row["figures"] else [""] * len(FIGURES)
        final = [row["final"][name] for name in SETS]
        cells = [f"{one['value']:.3f} [{one['low']:.2f}, {one['high']:.2f}]" for one in final]
        rows.append([TITLES[row["method"]], f"{row['trained_weights']:,}", *figures, *cells])
    return rows


def matrices(result: dict[str, Any]) -> list[list[str]]:
    """SRCC on each data set after each one was learnt."""
    rows = [["", "after", *SETS.values()]]
    for row in result["rows"]:
        if row["figures"] is None:
            continue
        for name, values in zip(row["sets"], row["matrix"], strict=True):
            cells = [values[row["sets"].index(other)] for other in SETS]
            shown = ["" if value is None else f"{value:.3f}" for value in cells]
            rows.append([TITLES[row["method"]], SETS[name], *shown])
    return rows


def gates(result: dict[str, Any]) -> list[list[str]]:
    """Mean over data sets of the SRCC at the end, under other gates."""
    rows = [["mean SRCC at the end", *GATES.values()]]
    for row in result["rows"]:
        found = {"softmin": row["matrix"], **{name: one["matrix"] for name, one in row["other_gates"].items()}}
        rows.append([TITLES[row["method"]], *(f"{mean(found[name][-1]):.3f}" for name in GATES)])
    shares = result["rows"][0]["gate_accuracy"]
    said = ", ".join(f"{SETS[name]} {share:.2f}" for name, share in shares.items())
    return [*rows, [f"pictures nearest to their own expert: {said}", *[""] * len(GATES)]]


STREAM = {"stream": streams, "stream_matrix": matrices, "stream_gates": gates}
"""Name of a table -> what makes its rows."""
