"""Ratings or pairs: what is learnt from soft labels of pictures, and what from which of two is better.

    python benchmarks/bench_pairs.py --data BIQ2021 --livec LIVEC --webpages WEBPAGES [--draws 10] [--only WORLD ...]

On the five worlds of bench_worlds.py, with its draws of 20, 50 and 200 labels: the default recipe, whose loss is the
cross-entropy with each picture's soft label, beside the recipe `fidelity`, whose loss is that of all pairs of the same
pictures; all else is equal. Rows are kept in runs/ as they are made, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
from typing import Any

import measuring
import numpy as np
from bench_worlds import World, ours, read_options, worlds
from measuring import CACHE, keep_row, paired, write_result

import grmp_hf
from grmp_hf.evaluation.metrics import srcc

ROWS = CACHE / "worlds" / "pairs_rows.jsonl"
LABELS = (20, 50, 200)
RECIPES = ("default", "fidelity")


def learn(base: Any, world: World, shots: Any, tests: Any, recipe: str, seed: int) -> float:
    """SRCC on other pictures, after ratings of some."""
    found = ours(base, world, shots, seed, recipe)(world.pictures, tests).quality
    return round(srcc(found.numpy(), world.quality[tests]), 4)


def measure(base: Any, world: World, draws: int, known: set[tuple[str, int, int]]) -> None:
    """Add the rows of a world that are not known yet."""
    for draw, labels, shots, tests in world.draws(draws):
        if labels in LABELS and (world.name, labels, draw) not in known:
            row: dict[str, Any] = {"world": world.name, "labels": labels, "draw": draw}
            row |= {recipe: learn(base, world, shots, tests, recipe, draw) for recipe in RECIPES}
            keep_row(ROWS, row)
            print(json.dumps(row), flush=True)


def known_rows() -> list[dict[str, Any]]:
    """Rows that are there."""
    rows = measuring.known_rows(ROWS)
    return sorted(rows, key=lambda row: (row["world"], row["labels"], row["draw"]))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By world and number of labels: both means, and the paired difference with its interval."""
    found = []
    for world, labels in dict.fromkeys((row["world"], row["labels"]) for row in rows):
        part = [row for row in rows if (row["world"], row["labels"]) == (world, labels)]
        pairs, soft = ([row[name] for row in part] for name in ("fidelity", "default"))
        means = {name: round(float(np.mean(those)), 4) for name, those in (("default", soft), ("fidelity", pairs))}
        found.append({"world": world, "labels": labels, **means, **paired(pairs, soft)})
    return found


def main() -> None:
    """Measure what is missing and write the result."""
    args, folders = read_options(__doc__)
    base = grmp_hf.load()
    makers = worlds(base, *folders)
    known = {(row["world"], row["labels"], row["draw"]) for row in known_rows()}
    for name in args.only or list(makers):
        measure(base, makers[name](), args.draws, known)
    if args.rows:
        write_result("pairs", {"draws": args.draws, "summary": summary(known_rows()), "rows": known_rows()})


if __name__ == "__main__":
    main()
