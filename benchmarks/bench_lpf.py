"""What a head of two streams on cached tokens learns from few labels, beside ridge regression and the default learner.

    python benchmarks/bench_lpf.py --biq2021 BIQ2021 --livec LIVEC [--draws 5]

Embedded base. BIQ2021: labels drawn from its train part, its test part scored; LIVE Challenge: the 60 others of a draw.
Tokens and embeddings are computed once, kept in runs/, and no part of the seconds. The head is learnt by
`lpf_default.yaml`, with and without its auxiliary losses; it is after LPF, no reproduction. Rows are kept in runs/ as
they are made, so that an interrupted run goes on.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import CACHE, add_folder, keep_row, known_rows, make_parser, need_folder, write_result

import grmp_hf
from grmp_hf.benchmark.choosing import make_methods
from grmp_hf.benchmark.config import MethodConfig
from grmp_hf.data import RatedTable
from grmp_hf.evaluation.metrics import plcc, srcc
from grmp_hf.features import FeatureStore
from grmp_hf.training.two_stream import TwoStreamRecipe

LABELS, SPARED = {"biq2021": (20, 50, 100, 200), "livec": (20, 50, 100, 170)}, 60
SCALES = {"biq2021": (0, 1), "livec": (0, 100)}
METHODS = {
    "zero_shot": MethodConfig("zero_shot", "zero_shot", {}),
    "ridge": MethodConfig("ridge", "ridge", {}),
    "default": MethodConfig("grmp", "default", {}),
    "two_stream": MethodConfig("two_stream", "two_stream", {}),
    "quality_alone": MethodConfig("two_stream", "quality_alone", {"recipe": {"category": 0, "comparison": 0}}),
}
ROWS = CACHE / "lpf" / "rows.jsonl"


def draws_of(table: RatedTable, world: str, labels: int, draws: int) -> list[tuple[Any, Any]]:
    """Rows that teach and rows that test, of each draw."""
    found = []
    for draw in range(draws):
        rng = np.random.default_rng([7, draw])
        if world == "biq2021":
            train, test = ([row for row in table.rows if row.split == part] for part in ("train", "test"))
        else:
            order = rng.permutation(len(table.rows))
            train, test = ([table.rows[at] for at in part] for part in (order[:-SPARED], order[-SPARED:]))
        found.append(([train[at] for at in rng.permutation(len(train))[:labels]], test))
    return found


def measure(base: Any, store: FeatureStore, table: RatedTable, world: str, draws: int) -> None:
    """Add the rows of a world that are not known yet."""
    columns = (*store.usual, "tokens")
    store.describe(table.rows, lambda text, share: print(f"{world}: {share:.0%}", end="\r", flush=True), columns)
    methods = dict(zip(METHODS, make_methods([*METHODS.values()], base, Path()), strict=True))
    known = {(row["world"], row["labels"], row["draw"], row["method"]) for row in known_rows(ROWS)}
    for labels in LABELS[world]:
        for draw, (taught, test) in enumerate(draws_of(table, world, labels, draws)):
            quality, truth = (np.array([row.quality for row in rows]) for rows in (taught, test))
            shots, tests = store.pictures(taught, columns), store.pictures(test, columns)
            for name, method in methods.items():
                if (world, labels, draw, name) in known:
                    continue
                start = time.process_time()
                fitted = method.fit(shots, quality, seed=draw)
                seconds = time.process_time() - start
                said = fitted.predict(tests)
                row = {"world": world, "labels": labels, "draw": draw, "method": name}
                row |= {"srcc": round(srcc(said, truth), 4), "plcc": round(plcc(said, truth), 4)}
                row |= {"seconds": round(seconds, 2), "tested": len(test)}
                keep_row(ROWS, row)
                print(json.dumps(row), flush=True)


def main() -> None:
    """Measure what is missing and write the result."""
    parser = make_parser(__doc__)
    add_folder(parser, "--biq2021", "GRMP_HF_TEST_BIQ2021", "the part of BIQ2021")
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    folders = {name: need_folder(parser, getattr(args, name), f"--{name}") for name in SCALES}
    base = grmp_hf.load()
    store = FeatureStore(CACHE / "lpf" / "features", base)
    for world, folder in folders.items():
        measure(base, store, grmp_hf.read_ratings(folder, scale=SCALES[world]), world, args.draws)
    order = {name: at for at, name in enumerate(METHODS)}
    rows = sorted(known_rows(ROWS), key=lambda row: (row["world"], row["labels"], row["draw"], order[row["method"]]))
    write_result("lpf", {"recipe": dataclasses.asdict(TwoStreamRecipe.named("default")), "rows": rows})


if __name__ == "__main__":
    main()
