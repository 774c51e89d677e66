"""A stream of three kinds of pictures: experts behind a gate, one adapter that goes on, and all at once.

    python benchmarks/bench_stream.py --data BIQ2021 --livec LIVEC --webpages WEBPAGES [--seeds 1] [--only METHOD ...]

Each of BIQ2021's train part, a part of LIVE Challenge and web pages gives 100 labels and up to 80 held-out pictures,
which teach nothing and choose nothing. Settings are those of the recipe `default` of `grmp-iqa stream`, but for what a
method names; every second seed has the opposite order. Rows are kept in runs/ as they are made, so that an
interrupted run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from bench_worlds import read_options
from measuring import CACHE, write_result

import grmp_hf
from grmp_hf.data import RatedTable, draw_shots
from grmp_hf.streaming import learn_stream
from grmp_hf.training.stream_recipe import StreamRecipe

LABELS, SPARED = 100, 80
ROWS = CACHE / "stream" / "rows.jsonl"
METHODS: dict[str, dict[str, Any]] = {
    "layer_norm": {},
    "lora": {"adapter": "lora"},
    "prompts": {"adapter": "prompts"},
    "prompts_projection": {"adapter": "prompts", "train_projection": True},
    "fine_tuning": {"method": "fine_tuning"},
    "distillation": {"method": "distillation", "strength": 10.0},
    "replay": {"method": "fine_tuning", "memory": 40},
    "ewc": {"method": "ewc", "strength": 10000.0},
    "joint": {"method": "joint"},
}


def part(folder: Path, scale: tuple[float, float], seed: int) -> RatedTable:
    """100 pictures that teach and at most 80 others that test, drawn from what is no test part of the data set."""
    table = grmp_hf.read_ratings(str(folder / "labels.csv"), scale=scale)
    rows = [row for row in table.rows if row.split != "test"]
    order = draw_shots(len(rows), min(LABELS + SPARED, len(rows)), seed=seed)
    marked = [dataclasses.replace(rows[at], split="train" if n < LABELS else "test") for n, at in enumerate(order)]
    return dataclasses.replace(table, rows=tuple(marked))


def known_rows() -> list[dict[str, Any]]:
    """Rows that are there, the latest of each."""
    if not ROWS.is_file():
        return []
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    return list({(row["method"], row["seed"]): row for row in rows}.values())


def measure(base: Any, folders: list[Path], method: str, seed: int) -> dict[str, Any]:
    """One stream."""
    scales = {"biq2021": (0, 1), "livec": (0, 100), "webpages": (1, 9)}
    pairs = list(zip(scales.items(), folders, strict=True))
    tables = {name: part(folder, scale, seed) for (name, scale), folder in (pairs if seed % 2 == 0 else pairs[::-1])}
    start = time.perf_counter()
    found = learn_stream(base, tables, recipe=StreamRecipe(**METHODS[method]), seed=seed)
    seconds = round(time.perf_counter() - start, 1)
    report = found.judged.report()
    return {"method": method, "seed": seed, "seconds": seconds, "trained_weights": found.trained_weights, **report}


def main() -> None:
    """Measure what is missing and write the result."""
    args, folders = read_options(__doc__, add)
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    base = grmp_hf.load()
    done = {(row["method"], row["seed"]) for row in known_rows()}
    for seed in range(args.seeds):
        for method in args.only or METHODS:
            if (method, seed) in done:
                continue
            row = measure(base, folders, method, seed)
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(
                method,
                seed,
                row["seconds"],
                row["figures"],
                {n: round(f["value"], 3) for n, f in row["final"].items()},
                flush=True,
            )
    if args.rows:
        order = list(METHODS)
        rows = sorted(known_rows(), key=lambda row: (order.index(row["method"]), row["seed"]))
        write_result("stream", {"labels": LABELS, "rows": rows})


def add(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=1)


if __name__ == "__main__":
    main()
