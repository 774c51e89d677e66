"""Tables of `bench_stream.py`: figures of each method, the gate, and what other gates come to."""

from __future__ import annotations

from statistics import mean
from typing import Any

__all__ = ["STREAM"]

TITLES = {
    "layer_norm": "experts, LayerNorm",
    "lora": "experts, LoRA of rank 1",
    "prompts": "experts, prompts",
    "fine_tuning": "one adapter, plain fine-tuning",
    "distillation": "one adapter, distillation (10)",
    "replay": "one adapter, 40 pictures kept",
    "ewc": "one adapter, EWC (10,000)",
    "joint": "all at once",
}
GATES = {
    "softmin": "softmin (the gate)",
    "nearest": "nearest alone",
    "oracle": "oracle",
    "last": "latest",
    "mean": "all alike",
}
FIGURES = {
    "final": "mean SRCC at the end",
    "plasticity": "plasticity",
    "average": "average",
    "stability": "stability",
    "mpsr": "MPSR",
}


def streams(result: dict[str, Any]) -> list[list[str]]:
    """Means over orders of each method, with intervals."""
    rows = [["", "orders", "trained weights", *FIGURES.values()]]
    for name, found in result["methods"].items():
        own = [row for row in result["rows"] if row["method"] == name]
        rows.append(
            [
                TITLES[name],
                f"{len(own)}",
                f"{own[0]['trained_weights']:,}",
                *(_cell(found.get(figure)) for figure in FIGURES),
            ]
        )
    return rows


def differences(result: dict[str, Any]) -> list[list[str]]:
    """The same less the figures of LayerNorm experts, paired."""
    rows = [["less LayerNorm experts", *FIGURES.values()]]
    for name, found in result["methods"].items():
        if name != "layer_norm":
            rows.append([TITLES[name], *(_cell(found.get(f"minus_{figure}"), "+.3f") for figure in FIGURES)])
    return rows


def gates(result: dict[str, Any]) -> list[list[str]]:
    """Mean over data sets and orders of the SRCC at the end, under other gates."""
    rows = [["mean SRCC at the end", *GATES.values()]]
    for name in result["methods"]:
        own = [row for row in result["rows"] if row["method"] == name]
        cells = []
        for gate in GATES:
            matrices = [row["matrix"] if gate == "softmin" else row["other_gates"][gate]["matrix"] for row in own]
            cells.append(f"{mean(mean(matrix[-1]) for matrix in matrices):.3f}")
        rows.append([TITLES[name], *cells])
    return rows


def temperatures(result: dict[str, Any]) -> list[list[str]]:
    """Mean SRCC at the end under gates of other temperatures, by order."""
    found = result["temperatures"]
    orders = len(next(iter(found.values()), []))
    rows = [["LayerNorm experts, temperature of the gate", *found]]
    return rows + [[f"order {at + 1}", *(f"{values[at]:.3f}" for values in found.values())] for at in range(orders)]


def shares(result: dict[str, Any]) -> list[list[str]]:
    """How many pictures the gate takes for those of their own data set, and the SRCC of LayerNorm experts on it."""
    own = [row for row in result["rows"] if row["method"] == "layer_norm"]
    rows = [["data set", "nearest to its own expert", "SRCC at the end, the gate", "SRCC at the end, oracle"]]
    for name in own[0]["sets"]:
        at = [row["sets"].index(name) for row in own]
        accuracy = mean(row["gate_accuracy"][name] for row in own)
        gate = mean(row["matrix"][-1][place] for row, place in zip(own, at, strict=True))
        oracle = mean(row["other_gates"]["oracle"]["matrix"][-1][place] for row, place in zip(own, at, strict=True))
        rows.append([name, f"{accuracy:.2f}", f"{gate:.3f}", f"{oracle:.3f}"])
    return rows


def _cell(found: list[float] | None, form: str = ".3f") -> str:
    return "" if found is None else f"{found[0]:{form}} [{found[1]:{form}}, {found[2]:{form}}]"


STREAM = {
    "stream": streams,
    "stream_minus": differences,
    "stream_gates": gates,
    "stream_shares": shares,
    "stream_temperatures": temperatures,
}
"""Name of a table -> what makes its rows."""
