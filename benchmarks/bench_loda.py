"""What LoDa learns from few labels with the embedded base, beside the default learner and zero-shot.

    python benchmarks/bench_loda.py --livec LIVEC [--draws 3]

Photographs of LIVE Challenge: 50 and 170 labels, the 60 others of a draw scored. LoDa learns by its small recipe
(`loda_default.yaml`) from one random crop of each picture at a time, and scores the centre crop. Rows are kept in
runs/ as they are made, so that an interrupted run goes on.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import CACHE, add_folder, keep_row, known_rows, make_parser, need_folder, write_result
from peft import PeftModel

import grmp_hf
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import FeatureStore
from grmp_hf.teaching import cropped_pictures, rated_pictures
from grmp_hf.training.few_shot import adapt_embeds
from grmp_hf.training.local_features import LoDaRecipe, adapt_locally

LABELS, SPARED = (50, 170), 60
ROWS = CACHE / "loda" / "rows.jsonl"


def trained(model: PeftModel) -> int:
    """Weights that an adapter has learnt, its head's among them."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def by_default(base: Any, pictures: Any, quality: Any, shots: Any, tests: Any, seed: int) -> dict[str, Any]:
    """The default learner on features that are known: fitting alone takes time."""
    embeds, side = (torch.from_numpy(np.ascontiguousarray(pictures[name])) for name in ("embeds", "side"))
    labels = torch.tensor(quality[shots], dtype=torch.float32)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = adapt_embeds(base.model, embeds[shots], labels, side=side[shots], seed=seed, output_dir=folder)
    seconds = time.process_time() - start
    with torch.inference_mode():
        found = model(image_embeds=embeds[tests], side=side[tests]).quality.numpy()
    return {"srcc": round(srcc(found, quality[tests]), 4), "seconds": round(seconds, 1), "weights": trained(model)}


def by_loda(scorer: Any, rows: Any, quality: Any, shots: Any, tests: Any, seed: int) -> dict[str, Any]:
    """LoDa, which looks at pictures as it learns."""
    taught = [rows[at] for at in shots]
    start = time.process_time()
    crops, views = cropped_pictures(scorer, taught, seed=seed), rated_pictures(scorer, taught)
    with tempfile.TemporaryDirectory() as folder:
        model = adapt_locally(
            scorer.model, crops, views=views, recipe=LoDaRecipe.named("default"), seed=seed, output_dir=folder
        )
    seconds = time.process_time() - start
    found = dataclasses.replace(scorer, model=model).score([rows[at].image for at in tests]).quality
    return {"srcc": round(srcc(found, quality[tests]), 4), "seconds": round(seconds, 1), "weights": trained(model)}


def measure(base: Any, folder: Path, draws: int) -> None:
    """Add the rows that are not known yet."""
    table = grmp_hf.read_ratings(str(folder / "labels.csv"), scale=(0, 100))
    store = FeatureStore(CACHE / "worlds" / "features", base)
    store.describe(table.rows, lambda text, share: print(f"livec: {share:.0%}", end="\r", flush=True))
    pictures, quality = store.pictures(table.rows), np.array([row.quality for row in table.rows])
    scorer, rng = base.without_tiles(), np.random.default_rng(7)
    known = {(row["draw"], row["labels"]) for row in known_rows(ROWS)}
    for draw in range(draws):
        order = rng.permutation(len(quality))
        for labels in LABELS:
            if (draw, labels) in known:
                continue
            shots, tests = order[:labels], order[-SPARED:]
            row: dict[str, Any] = {"draw": draw, "labels": labels}
            row["zero_shot"] = round(srcc(pictures["zero_shot"][tests], quality[tests]), 4)
            for name, found in (
                ("default", by_default(base, pictures, quality, shots, tests, draw)),
                ("loda", by_loda(scorer, table.rows, quality, shots, tests, draw)),
            ):
                row |= {f"{name}_{key}": value for key, value in found.items()}
            keep_row(ROWS, row)
            print(json.dumps(row), flush=True)


def main() -> None:
    """Measure what is missing and write the result."""
    parser = make_parser(__doc__)
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    folder = need_folder(parser, args.livec, "--livec")
    measure(grmp_hf.load(), folder, args.draws)
    rows = sorted(known_rows(ROWS), key=lambda row: (row["labels"], row["draw"]))
    write_result("loda", {"recipe": dataclasses.asdict(LoDaRecipe.named("default")), "rows": rows})


if __name__ == "__main__":
    main()
