"""Why does the gradient rule change so little? What it sees, and what content is worth to the readout.

    python benchmarks/bench_rule.py [--data DIR] [--draws 10] [--shots 20 50 200]

DIR has labels.csv and images/. Everything happens on BIQ2021's train part; the test part is not read.

First, quality and semantic gradient of every step are watched while 50 labels adapt the embedded base without a
rule, by the centre view: visual prompts from the start inside the package (as in biq2021_lambda.yaml), and the last
four blocks of both towers (as in the authors' fine-tuning). Recorded are the angle between the two over the vision
tower's tensors, and which share of the quality gradient's squared length lambda 1 would take out, tensor by tensor.

Second, the shift of the anchors that a readout of residuals learns, without features, is divided into its part along
the scene anchors and the rest; what the first part is worth is the SRCC with it, without it, and with it turned round,
as a large lambda does.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from typing import Any

import numpy as np
import torch
import yaml
from bench_biq2021 import Pictures, describe, draw, fresh_base
from measuring import ROOT, add_folder, make_parser, need_folder, paired, summary, write_result
from torch import Tensor

import grmp_hf
from grmp_hf.data import read_ratings
from grmp_hf.embedded import EMBEDDED_PROMPTS
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import first_views
from grmp_hf.scoring import Scorer
from grmp_hf.training.few_shot import FewShotRecipe, adapt, adapt_embeds
from grmp_hf.training.gradients import Gradients
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.rules import alignment, turn_away

WATCHED = 50
READOUT = FewShotRecipe(anchor_residuals=True, calibrate=True, features=False, learning_rate=0.05, steps=200)
KEPT = {"without it": 0.0, "turned round": -1.0}
"""What becomes of the part along the scene anchors -> its factor."""


def squared(gradients: Gradients) -> float:
    """Squared length of all tensors as one vector."""
    return sum(gradient.double().square().sum().item() for gradient in gradients.values())


class Watch:
    """A rule that changes nothing and keeps what it sees of the vision tower, step by step."""

    def __init__(self) -> None:
        self.cosine: list[float] = []
        self.removed: list[float] = []
        self.length: list[float] = []

    def __call__(self, gradients: dict[str, Gradients], parameters: Any) -> Gradients:
        seen, content = (
            {n: g for n, g in gradients[name].items() if "vision" in n} for name in ("quality", "semantic")
        )
        self.cosine.append(alignment(seen, content).item())
        self.removed.append(1 - squared(turn_away(seen, content, 1.0)) / squared(seen))
        self.length.append(math.sqrt(squared(content) / squared(seen)))
        return gradients["quality"]


def recipes() -> dict[str, tuple[FewShotRecipe, Any]]:
    """What is trained -> recipe and start."""
    text = (ROOT / "benchmarks" / "biq2021_lambda.yaml").read_text(encoding="utf-8")
    prompts = FewShotRecipe(**yaml.safe_load(text)["methods"][0]["recipe"])
    blocks = dataclasses.replace(prompts, train="authors", visual_prompts=0, learning_rate=1e-4, steps=20, pull=0.0)
    return {"visual prompts": (prompts, EMBEDDED_PROMPTS), "last blocks": (blocks, None)}


def rated(scorer: Scorer, pictures: Pictures, taught: Any) -> RatedPictures:
    """Some of the pictures, as training asks for them."""
    processor = scorer.processor
    return RatedPictures(
        lambda at: scorer.views(pictures.rows[taught[at]]),
        pictures.quality[taught],
        processor.image_mean,
        processor.image_std,
    )


def watch(scorer: Scorer, pictures: Pictures, recipe: FewShotRecipe, start: Any, draws: int) -> dict[str, Any]:
    """Cosine, share taken out and relative length of the semantic gradient: first step, mean and last, over draws."""
    traces = []
    for seed in range(draws):
        taught, trace = draw(pictures, "train", seed)[0][:WATCHED], Watch()
        with tempfile.TemporaryDirectory() as folder:
            adapt(
                fresh_base(scorer),
                rated(scorer, pictures, taught),
                recipe=recipe,
                start=start,
                seed=seed,
                output_dir=folder,
                rule=trace,
            )
        traces.append(trace)
        print(f"\rwatched draw {seed + 1} of {draws}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "cosine_first": summary([trace.cosine[0] for trace in traces]),
        "cosine_mean": summary([float(np.mean(trace.cosine)) for trace in traces]),
        "removed_mean": summary([float(np.mean(trace.removed)) for trace in traces]),
        "length_first": summary([trace.length[0] for trace in traces]),
        "length_last": summary([trace.length[-1] for trace in traces]),
    }


def scene_directions(scorer: Scorer) -> Tensor:
    """Orthonormal `(S - 1, D)`: the differences between the anchors of the S scenes."""
    model: Any = scorer.model
    with torch.inference_mode():
        unit = torch.eye(model.config.clip_config.projection_dim)
        anchors = model(image_embeds=unit, output_semantic=True).semantic_logits.T.double()
    directions: Tensor = torch.linalg.svd(anchors - anchors.mean(0), full_matrices=False).Vh[: len(anchors) - 1]
    return directions.float()


def content(scorer: Scorer, pictures: Pictures, shots: int, draws: int) -> dict[str, Any]:
    """Share of the learnt shift along the scene anchors, and what becomes of the SRCC without it."""
    along, embeds = scene_directions(scorer), torch.from_numpy(pictures.embeds).float()
    shares: list[float] = []
    found: dict[str, list[float]] = {"as learnt": [], **{name: [] for name in KEPT}}
    for seed in range(draws):
        pool, scored = draw(pictures, "train", seed)
        with tempfile.TemporaryDirectory() as folder:
            model = adapt_embeds(
                fresh_base(scorer),
                embeds[pool[:shots]],
                pictures.quality[pool[:shots]],
                recipe=READOUT,
                seed=seed,
                output_dir=folder,
            )
        readout: Any = model.get_base_model().readout
        residual = readout.grmp_readout["default"].residual
        learnt = residual.detach().clone()
        part = learnt @ along.T @ along
        shares.append((part.square().sum() / learnt.square().sum()).item())
        with torch.inference_mode():
            for name in found:
                residual.copy_(learnt - (1 - KEPT.get(name, 1.0)) * part)
                scores = model(image_embeds=embeds[scored]).quality.double().numpy()
                found[name].append(srcc(scores, pictures.mos[scored]))
    return {
        "share": summary(shares),
        "share_by_chance": round(len(along) / along.shape[1], 3),
        "srcc": {name: summary(values) for name, values in found.items()},
        "minus_as_learnt": {name: paired(found[name], found["as learnt"]) for name in KEPT},
    }


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv")
    parser.add_argument("--draws", type=int, default=10, help="draws of labels, seeds 0, 1, ... (default 10)")
    parser.add_argument("--shots", type=int, nargs="+", default=[20, 50, 200], help="labels (default 20 50 200)")
    arguments = parser.parse_args()
    data = need_folder(parser, arguments.data, "--data")
    scorer = grmp_hf.load("default")
    rows = tuple(row for row in read_ratings(data, scale=(0, 1)).rows if row.split == "train")
    pictures, centre = describe(scorer, rows), first_views(scorer, 1)
    figures = {
        "draws": arguments.draws,
        "watched_labels": WATCHED,
        "gradients": {
            name: {"steps": recipe.steps, **watch(centre, pictures, recipe, start, arguments.draws)}
            for name, (recipe, start) in recipes().items()
        },
        "content": {str(shots): content(scorer, pictures, shots, arguments.draws) for shots in arguments.shots},
    }
    for name, found in figures["gradients"].items():
        print(name, {key: value["median"] for key, value in found.items() if key != "steps"})
    for shots, found in figures["content"].items():
        print(shots, "labels: share along scenes", found["share"]["median"], found["minus_as_learnt"])
    write_result("rule", figures)


if __name__ == "__main__":
    main()
