"""A stream of six kinds of pictures: experts behind a gate, one adapter that goes on, and all at once.

    python benchmarks/bench_stream.py --data BIQ2021 --livec LIVEC --webpages WEBPAGES [--orders 3] [--only METHOD ...]

The sets are the three subsets of BIQ2021's train part, a part of LIVE Challenge, web pages, and photographs under 25
types of distortion. Each gives 70 labels and up to 80 held-out pictures, which teach nothing and choose nothing.
Settings are those of the recipe `default` of `grmp-iqa stream`, but for what a method names. Every method learns the
same draws in the same orders: as listed, backwards, shuffled. Rows are kept in runs/ as they are made, so that an
interrupted run goes on; processes that are given other methods may share them. Intervals are over the held-out pictures
(bootstrap), for the mean of the orders.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from bench_worlds import make_distorted, read_options
from measuring import CACHE, keep_row, write_result

import grmp_hf
from grmp_hf.benchmark.streams import in_order
from grmp_hf.data import RatedTable, draw_shots
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.evaluation.stream_summary import StreamRun, summarise_streams
from grmp_hf.modeling.gating import softmin
from grmp_hf.streaming import learn_stream
from grmp_hf.training.stream_recipe import StreamRecipe

LABELS, SPARED = 70, 80
PER_PICTURE = ("said", "distances", "by_expert", "ratings")
TEMPERATURES = (0, 1, 2, 4, 8, 16, 32, 64, 128)
SUBSETS = ("ss01", "ss02", "ss03")
ROWS = CACHE / "stream" / "rows.jsonl"
METHODS: dict[str, dict[str, Any]] = {
    "layer_norm": {},
    "lora": {"adapter": "lora"},
    "prompts": {"adapter": "prompts"},
    "fine_tuning": {"method": "fine_tuning"},
    "distillation": {"method": "distillation", "strength": 10.0},
    "replay": {"method": "fine_tuning", "memory": 40},
    "ewc": {"method": "ewc", "strength": 10000.0},
    "joint": {"method": "joint"},
}


def tables_of(folders: Sequence[Path]) -> dict[str, RatedTable]:
    """The sets by name, without pictures that their data set has set aside for tests."""
    data, livec, webpages = folders
    distorted = CACHE / "worlds" / "distorted"
    make_distorted(data / "unlabelled", distorted)
    photographs = grmp_hf.read_ratings(str(data / "labels.csv"), scale=(0, 1))
    found = {
        subset: dataclasses.replace(
            photographs, rows=tuple(row for row in photographs.rows if row.name.startswith(subset))
        )
        for subset in SUBSETS
    }
    others = {"livec": (livec, (0, 100)), "webpages": (webpages, (1, 9)), "distorted": (distorted, (0.5, 1))}
    return found | {
        name: grmp_hf.read_ratings(str(place / "labels.csv"), scale=s) for name, (place, s) in others.items()
    }


def part(table: RatedTable, seed: int) -> RatedTable:
    """70 pictures that teach and at most 80 others that test, drawn from what is no test part of the data set."""
    rows = [row for row in table.rows if row.split != "test"]
    order = draw_shots(len(rows), min(LABELS + SPARED, len(rows)), seed=seed)
    marked = [dataclasses.replace(rows[at], split="train" if n < LABELS else "test") for n, at in enumerate(order)]
    return dataclasses.replace(table, rows=tuple(marked))


def known_rows() -> list[dict[str, Any]]:
    """Rows that are there, the latest of each."""
    rows = measuring.known_rows(ROWS)
    return list({(row["method"], row["order"]): row for row in rows}.values())


def measure(base: Any, tables: dict[str, RatedTable], method: str, order: int) -> dict[str, Any]:
    """One stream, with what each step says of each picture."""
    start = time.perf_counter()
    found = learn_stream(base, tables, recipe=StreamRecipe(**METHODS[method]), seed=order)
    judged = found.judged
    said = {
        name: {
            str(step): judged.predicted("softmin", step, name).round(5).tolist() for step in judged.steps if step >= at
        }
        for at, name in enumerate(judged.names)
    }
    return {
        "method": method,
        "order": order,
        "seconds": round(time.perf_counter() - start, 1),
        "trained_weights": found.trained_weights,
        **judged.report(),
        "said": said,
        "distances": {name: values.round(5).tolist() for name, values in judged.distances.items()},
        "by_expert": {name: judged.quality[name][judged.steps[-1]].round(5).tolist() for name in judged.names},
        "ratings": {name: [round(float(value), 5) for value in judged.ratings[name]] for name in judged.names},
    }


def run_of(row: Mapping[str, Any]) -> StreamRun:
    """A row as the summary takes it."""
    at = {name: number for number, name in enumerate(row["sets"])}
    said = {(int(t), at[name]): np.array(v) for name, steps in row["said"].items() for t, v in steps.items()}
    return StreamRun(row["method"], (row["order"],), said, [np.array(row["ratings"][name]) for name in row["sets"]])


def by_temperature(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Mean SRCC at the end of experts under gates of other temperatures, a figure for each order; 0 is all alike."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for tau in TEMPERATURES:
            values = []
            for name in row["sets"]:
                weights = softmin(torch.tensor(row["distances"][name], dtype=torch.float64), tau).numpy()
                values.append(srcc((weights * np.array(row["by_expert"][name])).sum(1), np.array(row["ratings"][name])))
            found.setdefault(f"{tau:g}", []).append(round(float(np.mean(values)), 4))
    return found


def figures(found: Mapping[str, Any], prefix: str = "") -> dict[str, list[float]]:
    """Value and ends of each figure."""
    return {f"{prefix}{name}": [round(value, 4) for value in interval] for name, interval in found.items()}


def main() -> None:
    """Measure what is missing and write the result."""
    args, folders = read_options(__doc__, add)
    base, tables = grmp_hf.load(), tables_of(folders)
    for order in range(args.orders):
        streams = {name: part(tables[name], order) for name in in_order([*tables], order)}
        for method in args.only or METHODS:
            if (method, order) in {(row["method"], row["order"]) for row in known_rows()}:
                continue
            row = measure(base, streams, method, order)
            keep_row(ROWS, row)
            print(method, order, row["seconds"], run_of(row).figures(), flush=True)
    rows = sorted(known_rows(), key=lambda row: (list(METHODS).index(row["method"]), row["order"]))
    summary = summarise_streams([run_of(row) for row in rows], "layer_norm")
    methods = {
        name: {**figures(found["figures"]), **figures(found["minus_reference"], "minus_")}
        for name, found in summary.items()
    }
    temperatures = by_temperature([row for row in rows if row["method"] == "layer_norm" and "distances" in row])
    shown = [{name: value for name, value in row.items() if name not in PER_PICTURE} for row in rows]
    write_result(
        "stream", {"labels": LABELS, "spared": SPARED, "methods": methods, "temperatures": temperatures, "rows": shown}
    )


def add(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--orders", type=int, default=3)


if __name__ == "__main__":
    main()
