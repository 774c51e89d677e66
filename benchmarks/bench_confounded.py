"""Does the gradient rule help where content and quality are confounded, the case that it is made for?

    python benchmarks/bench_confounded.py [--data DIR] [--draws 10]

DIR has labels.csv and images/. Everything happens on BIQ2021's train part. Of 50 shots all good ones are of one scene
and all bad ones of another (by the base's own scene anchors). Visual prompts are trained from the start inside the
package by the centre view, at lambda 0, 1 and 5, tensor by tensor; beside them the default recipe, and zero-shot. Other
photographs of both scenes, of all qualities, are scored, in each scene and together.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from bench_biq2021 import Pictures, adapted_by_default, describe, fresh_base
from bench_rule import against, rated, recipes
from measuring import add_folder, make_parser, need_folder, summary, write_result

import grmp_hf
from grmp_hf.data import read_ratings
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import first_views
from grmp_hf.scoring import Scorer
from grmp_hf.training.few_shot import adapt

SHOTS = 50
STRENGTHS = (0.0, 1.0, 5.0)


def confound(scenes: Any, quality: Any, seed: int) -> tuple[Any, Any]:
    """Good pictures of one scene and bad ones of another in turn, and which pictures are of the two scenes."""
    rng = np.random.default_rng(seed)
    common = [scene for scene in np.unique(scenes) if (scenes == scene).sum() >= 3 * SHOTS // 2]
    first, second = rng.choice(common, 2, replace=False)
    good, bad = (np.flatnonzero(scenes == scene) for scene in (first, second))
    good, bad = good[quality[good] > np.median(quality)], bad[quality[bad] < np.median(quality)]
    half = SHOTS // 2
    taught = np.concatenate([rng.permutation(good)[:half], rng.permutation(bad)[:half]])
    return taught, np.setdiff1d(np.flatnonzero(np.isin(scenes, (first, second))), taught)


def confounded(whole: Scorer, pictures: Pictures, draws: int) -> dict[str, Any]:
    """SRCC within scenes and together at each lambda, and each lambda against 0 over the same draws."""
    scorer, (recipe, start) = first_views(whole, 1), recipes()["visual prompts"]
    model: Any = scorer.model
    with torch.inference_mode():
        embeds = torch.from_numpy(pictures.embeds).float()
        scenes = model(image_embeds=embeds, output_semantic=True).semantic_logits.argmax(1).numpy()
    quality = pictures.quality.numpy()
    found: dict[str, dict[str, list[float]]] = {f"lambda {s:g}": {"within": [], "together": []} for s in STRENGTHS}
    found |= {name: {"within": [], "together": []} for name in ("zero-shot", "default recipe")}
    for seed in range(draws):
        taught, scored = confound(scenes, quality, seed)
        inside = [scored[scenes[scored] == scene] for scene in np.unique(scenes[scored])]

        def keep(name: str, said: dict[int, float], scored: Any = scored, inside: Any = inside) -> None:
            ranks = [srcc(np.array([said[at] for at in part]), pictures.mos[part]) for part in (*inside, scored)]
            found[name]["within"].append(float(np.mean(ranks[:-1])))
            found[name]["together"].append(ranks[-1])

        keep("zero-shot", {at: float(pictures.zero_shot[at]) for at in scored})
        for strength in STRENGTHS:
            with tempfile.TemporaryDirectory() as folder:
                learnt = adapt(
                    fresh_base(scorer),
                    rated(scorer, pictures, taught),
                    recipe=dataclasses.replace(recipe, regularization_strength=strength),
                    start=start,
                    seed=seed,
                    output_dir=folder,
                )
            adapted = dataclasses.replace(scorer, model=learnt)
            scores = adapted.score([pictures.rows[at] for at in scored]).quality.tolist()
            keep(f"lambda {strength:g}", dict(zip(scored.tolist(), scores, strict=True)))
        keep(
            "default recipe",
            dict(zip(scored.tolist(), adapted_by_default(whole, pictures, taught, scored, seed).tolist(), strict=True)),
        )
        print(f"\rconfounded draw {seed + 1} of {draws}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        name: {
            kind: {**summary(values), "minus_lambda_0": against(values, found["lambda 0"][kind])}
            for kind, values in kinds.items()
        }
        for name, kinds in found.items()
    }


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv")
    parser.add_argument(
        "--draws", type=int, default=10, help="draws of scenes and labels, seeds 0, 1, ... (default 10)"
    )
    arguments = parser.parse_args()
    data = need_folder(parser, arguments.data, "--data")
    scorer = grmp_hf.load("default")
    rows = tuple(row for row in read_ratings(data, scale=(0, 1)).rows if row.split == "train")
    figures = {
        "draws": arguments.draws,
        "labels": SHOTS,
        "methods": confounded(scorer, describe(scorer, rows), arguments.draws),
    }
    for name, found in figures["methods"].items():
        print(name, {kind: (value["median"], value["minus_lambda_0"]) for kind, value in found.items()})
    write_result("confounded", figures)


if __name__ == "__main__":
    main()
