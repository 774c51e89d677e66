"""What do the method's two modules gain: the meta-learnt start, and the gradient rule?

    python benchmarks/bench_modules.py --data BIQ2021 --livec LIVEC --webpages WEBPAGES [--draws 10] [--only WORLD ...]

On the five worlds of bench_worlds.py. The start: the default recipe from the start inside the package, less the same
without, at 20, 50 and 200 labels. The rule: the recipe `visual` under lambda 5, less the same under lambda 0, at 50.
And the rule where content and quality are confounded among the labels, the case that it is made for: all good pictures
are of one scene and all bad ones of another (by the base's own scene anchors), ten of each; other pictures of both are
scored. Rows are kept in runs/ as they are made, so that an interrupted run goes on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import measuring
import numpy as np
import torch
from bench_worlds import World, read_options, some, worlds
from measuring import CACHE, keep_row, paired, write_result

import grmp_hf
from grmp_hf.benchmark.methods import GRMP
from grmp_hf.embedded import EMBEDDED_PROMPTS
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.training.recipes import FewShotRecipe

ROWS = CACHE / "worlds" / "modules_rows.jsonl"
EACH = 10
"""Labels of either scene; it has as many good and bad pictures."""

SIZES = {"start": (20, 50, 200), "rule": (50,), "confounded": (2 * EACH,)}
"""Question -> numbers of labels."""

Drawn = tuple[int, int, Any, Any]
"""Draw, number of labels, which pictures are labelled, and which are scored."""


def methods(base: Any) -> dict[str, tuple[GRMP, GRMP]]:
    """Question -> the learner without the module, and with it."""
    visual = FewShotRecipe.named("visual")
    without = dataclasses.replace(visual, regularization_strength=0.0)
    rule = GRMP("without the rule", base, without, views=1), GRMP("with the rule", base, visual, views=1)
    plain, begun = (GRMP(name, base, FewShotRecipe.named(None)) for name in ("without a start", "with the start"))
    return {"start": (plain, dataclasses.replace(begun, start=EMBEDDED_PROMPTS)), "rule": rule, "confounded": rule}


def confounded(base: Any, world: World, draws: int) -> Iterator[Drawn]:
    """Draws of which all good labels are of one scene and all bad ones of another; none where scenes are too small."""
    with torch.inference_mode():
        seen = base.model(image_embeds=torch.from_numpy(world.pictures["embeds"]), output_semantic=True)
    scenes, middle = seen.semantic_logits.argmax(1).numpy(), np.median(world.quality)
    sides = {
        scene: [np.flatnonzero((scenes == scene) & good) for good in (world.quality > middle, world.quality < middle)]
        for scene in np.unique(scenes)
    }
    fit = [scene for scene, parts in sides.items() if min(map(len, parts)) >= EACH]
    for draw in range(draws if len(fit) > 1 else 0):
        rng = np.random.default_rng(draw)
        first, second = rng.choice(fit, 2, replace=False)
        shots = np.concatenate([rng.choice(part, EACH, replace=False) for part in (sides[first][0], sides[second][1])])
        yield draw, 2 * EACH, shots, np.setdiff1d(np.flatnonzero(np.isin(scenes, (first, second))), shots)


def measure(base: Any, world: World, draws: int, known: set[tuple[str, str, int, int]]) -> None:
    """Add the rows of a world that are not known yet."""
    for question, pair in methods(base).items():
        drawn = confounded(base, world, draws) if question == "confounded" else world.draws(draws)
        for draw, labels, shots, tests in drawn:
            if labels not in SIZES[question] or (question, world.name, labels, draw) in known:
                continue
            row: dict[str, Any] = {"question": question, "world": world.name, "labels": labels, "draw": draw}
            for name, method in zip(("without", "with"), pair, strict=True):
                fitted = method.fit(some(world.pictures, shots), world.quality[shots], seed=draw)
                row[name] = round(srcc(fitted.predict(some(world.pictures, tests)), world.quality[tests]), 4)
            row["zero_shot"] = round(srcc(world.pictures["zero_shot"][tests], world.quality[tests]), 4)
            keep_row(ROWS, row)
            print(json.dumps(row), flush=True)


def known_rows() -> list[dict[str, Any]]:
    """Rows that are there."""
    rows = measuring.known_rows(ROWS)
    return sorted(rows, key=lambda row: (row["question"], row["world"], row["labels"], row["draw"]))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By question, world and number of labels: means, and the paired difference with its interval."""
    found = []
    names = ("question", "world", "labels")
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        part = [row for row in rows if tuple(row[name] for name in names) == key]
        values = {name: [row[name] for row in part] for name in ("with", "without", "zero_shot")}
        means = {name: round(float(np.mean(those)), 4) for name, those in values.items()}
        difference = paired(values["with"], values["without"])
        found.append({**dict(zip(names, key, strict=True)), "draws": len(part), **means, **difference})
    return found


def main() -> None:
    """Measure what is missing and write the result."""
    args, folders = read_options(__doc__)
    base = grmp_hf.load()
    makers = worlds(base, *folders)
    known = {(row["question"], row["world"], row["labels"], row["draw"]) for row in known_rows()}
    for name in args.only or list(makers):
        measure(base, makers[name](), args.draws, known)
    if args.rows:
        write_result("modules", {"draws": args.draws, "summary": summary(known_rows()), "rows": known_rows()})


if __name__ == "__main__":
    main()
