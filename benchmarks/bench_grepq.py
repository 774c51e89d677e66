"""Features learnt without ratings (after GRepQ) under ridge regression, beside the embedding and the default learner.

    python benchmarks/bench_grepq.py --data BIQ2021 --livec LIVEC [--draws 10] [--only train|describe|measure]

Both stages learn by their small recipes from the 1,200 photographs without ratings of BIQ2021's excerpt. Then 20 to 200
labels of BIQ2021's train part (its 800 test photographs are scored) and of a part of LIVE Challenge, on the draws of
`bench_worlds.py`: ridge on each pathway and on both, beside ridge on the embedding and `grmp-iqa adapt`. An encoder
that was never trained is measured too. Scores without labels: the base, and with the distance from pristine patches.
Whatever is done is kept in runs/, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_worlds import World, describe, ours
from measuring import CACHE, add_folder, keep_row, known_rows, make_parser, need_folder, write_result

import grmp_hf
from grmp_hf.benchmark.choosing import own_columns
from grmp_hf.benchmark.kernels import ridge_cv, svr
from grmp_hf.benchmark.pathways import grepq, grepq_zero_shot
from grmp_hf.contrasting import high_level, low_level
from grmp_hf.data.images import decode_image
from grmp_hf.data.listing import list_images
from grmp_hf.data.photographs import middle
from grmp_hf.evaluation.baselines import fit_ridge
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.families import make_families
from grmp_hf.features import FeatureStore, OwnColumns
from grmp_hf.modeling.contrastive import similarity_weights, version_contrast
from grmp_hf.modeling.low_level import LowLevelEncoder, load_encoder
from grmp_hf.training.high_level import HighLevelRecipe
from grmp_hf.training.low_level import Fragments, LowLevelRecipe

LABELS = (20, 50, 100, 200)
PRISTINE = 120  # photographs, those that the base likes best
FAMILIES = 60  # of photographs that have taught nothing
PLACE = CACHE / "grepq"
ROWS, COSTS = PLACE / "rows.jsonl", PLACE / "costs.json"

RIDGES: Mapping[str, tuple[str, ...]] = {
    "ridge_embedding": ("embeds",),
    "ridge_side": ("embeds", "side"),
    "ridge_low": ("low",),
    "ridge_embedding_low": ("embeds", "low"),
    "ridge_embedding_pooled": ("embeds", "low_pooled"),
    "ridge_embedding_untrained": ("embeds", "low_untrained"),
    "ridge_high": ("high",),
    "ridge_both": ("high", "low"),
}
"""Name of a method -> the features that it reads."""


def costs() -> dict[str, Any]:
    """Processor seconds and losses of what has been learnt."""
    return json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.is_file() else {}


def learn(base: Any, photographs: Path) -> None:
    """Learn both stages, each once, and keep an encoder that has learnt nothing."""

    def stage(name: str, work: Callable[[Callable[[str, float], None]], Any]) -> None:
        if (PLACE / name).exists():
            return
        start = time.process_time()
        found = work(tell)
        seconds = round(time.process_time() - start)
        part = PLACE / f"{name}-part"
        shutil.rmtree(part, ignore_errors=True)
        found.save_pretrained(part) if isinstance(found, LowLevelEncoder) else found.save(part)
        part.replace(PLACE / name)
        COSTS.write_text(json.dumps({**costs(), name: seconds}), encoding="utf-8")
        print(f"{name}: {seconds} s of a core", flush=True)

    recipe = LowLevelRecipe.named("default")
    torch.manual_seed(0)
    stage("untrained", lambda tell: LowLevelEncoder(recipe.config()))
    stage("low", lambda tell: low_level(photographs, PLACE / "low-run", recipe=recipe, tell=tell))
    stage("high", lambda tell: high_level(base, photographs, PLACE / "high-run", recipe="default", tell=tell))
    if not (PLACE / "pooled").exists():
        encoder = load_encoder(PLACE / "low")
        encoder.config.describes = "pooled"
        encoder.save_pretrained(PLACE / "pooled")


def choose_pristine(base: Any, photographs: Path) -> Path:
    """A folder of the photographs that the base likes best."""
    folder: Path = PLACE / "pristine"
    if not folder.exists():
        paths = list_images([photographs]).paths
        best = np.argsort(-base.score(paths).quality)[:PRISTINE]
        part = PLACE / "pristine-part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for at in best:
            shutil.copy(paths[at], part)
        part.replace(folder)
    return folder


def tell(text: str, share: float) -> None:
    """Say how far something is."""
    print(f"{text}: {share:.1%}", end="\r", flush=True)


def columns(base: Any) -> dict[str, tuple[str, OwnColumns]]:
    """Name of a pathway -> its column, and how it is computed."""
    found = {}
    for name, folder in (("low", "low"), ("low_pooled", "pooled"), ("low_untrained", "untrained")):
        own = own_columns([grepq(name, base, low_level=str(PLACE / folder))])
        found[name] = own.names[0], own
    own = own_columns([grepq("high", base, high_level=str(PLACE / "high"))])
    return {**found, "high": (own.names[0], own)}


def look(base: Any, data: Path, livec: Path) -> dict[str, World]:
    """Both worlds with the features of all pathways."""
    known, worlds = columns(base), {}
    own = OwnColumns()
    for _, more in known.values():
        own = own | more
    for name, folder, scale in (("biq2021", data, (0.0, 1.0)), ("livec", livec, (0.0, 100.0))):
        pictures, table = describe(base, folder, scale, name)
        store = FeatureStore(PLACE / "features", base, **own.known)
        store.describe(table.rows, tell, own.names)
        found = store.pictures(table.rows, own.names)
        named = {short: found[column] for short, (column, _) in known.items()}
        pictures = dataclasses.replace(pictures, columns={**pictures.columns, **named})
        quality = np.array([row.quality for row in table.rows])
        test = np.array([row.split == "test" for row in table.rows])
        parts = (np.flatnonzero(~test), np.flatnonzero(test)) if test.any() else (None, None)
        worlds[name] = World(name, pictures, quality, *parts)
    return worlds


def without_labels(base: Any, worlds: Mapping[str, World], data: Path) -> list[dict[str, Any]]:
    """SRCC of scores that need no label, on the pictures that are scored in BIQ2021 and on all of LIVE Challenge."""
    pristine = str(choose_pristine(base, data / "unlabelled"))
    methods = {
        "statistics": grepq_zero_shot("statistics", base, pristine),
        "encoder": grepq_zero_shot("encoder", base, pristine, str(PLACE / "low")),
    }
    rows = []
    for world in worlds.values():
        tests = np.arange(len(world.quality)) if world.tests is None else world.tests
        chosen = [world.pictures.rows[at] for at in tests]
        actual = world.quality[tests]
        row: dict[str, Any] = {"world": world.name, "zero_shot": score(world.pictures["zero_shot"][tests], actual)}
        for name, method in methods.items():
            store = FeatureStore(PLACE / "features", base, **own_columns([method]).known)
            store.describe(chosen, tell, method.columns)
            pictures = store.pictures(chosen, method.columns)
            seen = dataclasses.replace(
                pictures, columns={**pictures.columns, "embeds": world.pictures["embeds"][tests]}
            )
            row[name] = score(method.fit(seen, np.empty(0), seed=0).predict(seen), actual)
            row[f"{name}_distance"] = score(-pictures[method.columns[0]], actual)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def learnt(world: World) -> dict[str, dict[str, float]]:
    """The loss of encoders on photographs that have taught none of them, and how their cosines follow similarity.

    Of fragments, as in training but without the statistics of batches; rank correlations are means over families.
    """
    recipe, rows = LowLevelRecipe.named("default"), world.pictures.rows
    taught = [] if world.pool is None else [rows[at].image for at in world.pool[:FAMILIES]]
    wholes = [middle(decode_image(Path(str(path)).read_bytes()), recipe.side) for path in taught]
    families = make_families(wholes, PLACE / "other-families", versions=recipe.versions, seed=1)
    upper, found = np.triu_indices(recipe.versions + 1, 1), {}
    for name in ("untrained", "low"):
        encoder, losses, ranks = load_encoder(PLACE / name), [], []
        for row in map(Fragments(families, encoder.config, grid=recipe.grid).__getitem__, range(len(families))):
            with torch.inference_mode():
                first, second = torch.nn.functional.normalize(encoder(row["pixel_values"]).projected, dim=-1)
                weights = similarity_weights(row["similarity"])
                losses.append(float(version_contrast(first[None], second[None], weights[None], recipe.temperature)))
            ranks.append(srcc((first @ second.T).numpy()[upper], row["similarity"].numpy()[upper]))
        found[name] = {"loss": round(float(np.mean(losses)), 4), "rank": round(float(np.mean(ranks)), 4)}
    print(json.dumps(found), flush=True)
    return found


def score(values: Any, actual: Any) -> float:
    """SRCC, rounded."""
    return round(srcc(values, actual), 4)


def measure(base: Any, world: World, draws: int) -> None:
    """Add the rows of a world that are not known yet."""
    known = {(row["world"], row["draw"], row["labels"]) for row in known_rows(ROWS)}
    for draw, labels, shots, tests in world.draws(draws):
        if labels not in LABELS or (world.name, draw, labels) in known:
            continue
        quality, row = world.quality, {"world": world.name, "labels": labels, "draw": draw}
        for name, used in RIDGES.items():
            x = np.column_stack([np.asarray(world.pictures[column], np.float64) for column in used])
            row[name] = score(fit_ridge(x[shots], quality[shots]).predict(x[tests]), quality[tests])
        for name, regressor in (("ridge_cv_both", ridge_cv), ("svr_both", svr)):
            x = np.column_stack([np.asarray(world.pictures[column], np.float64) for column in RIDGES["ridge_both"]])
            predict, _ = regressor(x[shots], quality[shots], draw)
            row[name] = score(predict(x[tests]), quality[tests])
        row["default"] = score(ours(base, world, shots, draw)(world.pictures, tests).quality.numpy(), quality[tests])
        keep_row(ROWS, row)
        print(json.dumps(row), flush=True)


def main() -> None:
    """Do what is missing and write the result."""
    parser: argparse.ArgumentParser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021")
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--only", choices=("train", "describe"), help="end after learning, or after describing")
    args = parser.parse_args()
    data, livec = (need_folder(parser, getattr(args, name), f"--{name}") for name in ("data", "livec"))
    PLACE.mkdir(parents=True, exist_ok=True)
    base = grmp_hf.load()
    learn(base, data / "unlabelled")
    if args.only == "train":
        return
    worlds = look(base, data, livec)
    if args.only == "describe":
        return
    for world in worlds.values():
        measure(base, world, args.draws)
    rows = sorted(known_rows(ROWS), key=lambda row: (row["world"], row["labels"], row["draw"]))
    recipes: dict[str, Any] = {"low": LowLevelRecipe.named("default"), "high": HighLevelRecipe.named("default")}
    told = {f"{name}_recipe": dataclasses.asdict(recipe) for name, recipe in recipes.items()}
    found = {"photographs": len(list_images([data / "unlabelled"]).paths), "pristine": PRISTINE, "seconds": costs()}
    found |= {"others": learnt(worlds["biq2021"]), "no_labels": without_labels(base, worlds, data)}
    write_result("grepq", {**told, **found, "rows": rows})


if __name__ == "__main__":
    main()
