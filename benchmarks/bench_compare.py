"""Which of two pictures is better: are the probabilities of `grmp-iqa compare` right, and what do pairs teach?

    python benchmarks/bench_compare.py --data BIQ2021 --livec LIVEC [--draws 10]

On photographs of BIQ2021 (labels from its train part, 500 of its test part compared) and a part of LIVE Challenge (a
half teaches, a half is compared): every pair of pictures, by their published ratings. Four ways to learn from 50
pictures stand beside the base alone: `adapt` from their ratings, and from 150 choices among them, each as it is and
with `--recipe fidelity`. A choice follows two ratings, each with a noise of .1 of the scale. Gap: mean difference, over
ten bins of what was said, between the probability and the share of pairs that it held for.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import CACHE, add_folder, make_parser, need_folder, write_result

import grmp_hf
from grmp_hf.data.pairs import fit_choices
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import FeatureStore, Pictures
from grmp_hf.modeling.heads import GRMPOutput
from grmp_hf.preferring import NOISE, chances
from grmp_hf.training.few_shot import adapt_embeds
from grmp_hf.training.pairing import Compared
from grmp_hf.training.recipes import FewShotRecipe

LABELS, CHOICES, UNSURE = 50, 150, 0.1
FIDELITY = FewShotRecipe.named("fidelity")

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class World:
    """Photographs with their features: which may teach, and which are compared; no picture is both."""

    name: str
    pictures: Pictures
    quality: Array
    stds: Array
    pool: Array
    tests: Array | None

    def draw(self, number: int) -> tuple[Array, Array]:
        """Pictures that teach, and pictures that are compared."""
        order = np.random.default_rng([7, number]).permutation(self.pool)
        return order[:LABELS], order[len(order) // 2 :] if self.tests is None else self.tests


def read(base: Any, name: str, folder: Path, scale: tuple[float, float], test: int | None) -> World:
    """Photographs of a folder; of one with a test part, 300 that may teach and some of that part."""
    table = grmp_hf.read_ratings(str(folder / "labels.csv"), scale=scale)
    rows = list(table.rows)
    if test is not None:
        rows = [row for row in rows if row.split == "train"][:300] + [row for row in rows if row.split == "test"][:test]
    store = FeatureStore(CACHE / "worlds" / "features", base)
    store.describe(rows, lambda text, share: print(f"{name}: {share:.0%}", end="\r", flush=True))
    quality = np.array([row.quality for row in rows])
    stds = np.array([np.nan if row.mos_std is None else row.mos_std / (scale[1] - scale[0]) for row in rows])
    places = np.arange(len(rows))
    tests = None if test is None else places[300:]
    return World(name, store.pictures(rows), quality, stds, places if test is None else places[:300], tests)


def choose(quality: Array, seed: int) -> tuple[Array, Array, Array]:
    """Choices between random pairs of pictures: first, second, and whether the first was chosen."""
    rng, count = np.random.default_rng([8, seed]), len(quality)
    first = rng.integers(0, count, CHOICES)
    second = (first + rng.integers(1, count, CHOICES)) % count
    seen = quality[first] - quality[second] + rng.normal(0, UNSURE * 2**0.5, CHOICES)
    return first, second, (seen > 0).astype(float)


def learn(base: Any, world: World, shots: Array, seed: int) -> dict[str, Any]:
    """Method -> (ratings or values, what compares them, recipe)."""
    first, second, share = choose(world.quality[shots], seed)
    values, _ = fit_choices(first, second, share, len(shots))
    wins = np.zeros((len(shots), len(shots)), dtype=np.float32)
    np.add.at(wins, (first, second), share)
    np.add.at(wins, (second, first), 1 - share)
    stds = torch.tensor(world.stds[shots], dtype=torch.float32)
    rated = torch.tensor(world.quality[shots], dtype=torch.float32)
    valued = torch.tensor(1 / (1 + np.exp(-values)), dtype=torch.float32)
    return {
        "ratings": (rated, None, None),
        "ratings_fidelity": (rated, Compared(stds=stds if bool(stds.isfinite().any()) else None), FIDELITY),
        "choices": (valued, None, None),
        "choices_fidelity": (valued, Compared(wins=torch.from_numpy(wins)), FIDELITY),
    }


def judge(output: Any, quality: Array) -> dict[str, Any]:
    """Figures of all pairs of pictures whose ratings differ."""
    chance = chances(output, NOISE)[0].numpy()
    first, second = np.triu_indices(len(quality), 1)
    differ = quality[first] != quality[second]
    first, second = first[differ], second[differ]
    better = np.where(quality[first] > quality[second], chance[first, second], chance[second, first])
    said = np.maximum(better, 1 - better)
    held = np.where(better == 0.5, 0.5, better > 0.5)
    bins = np.minimum((20 * (said - 0.5)).astype(int), 9)
    sums = [
        [float(part.sum()) for part in (np.ones(at.sum()), said[at], held[at])] for at in (bins == b for b in range(10))
    ]
    gap = sum(abs(told - right) for _, told, right in sums) / len(said)
    return {
        "srcc": round(srcc(output.quality.numpy(), quality), 4),
        "accuracy": round(float(held.mean()), 4),
        "said": round(float(said.mean()), 4),
        "gap": round(gap, 4),
        "log_loss": round(float(-np.log(np.maximum(better, 1e-12)).mean()), 4),
        "bins": [[round(value, 1) for value in row] for row in sums],
    }


def measure(base: Any, world: World, draw: int) -> list[dict[str, Any]]:
    """A row for each method."""
    shots, tests = world.draw(draw)
    embeds, side = (torch.from_numpy(np.ascontiguousarray(world.pictures[name])) for name in ("embeds", "side"))
    zero_shot = torch.from_numpy(np.ascontiguousarray(world.pictures["zero_shot"][tests]))
    found = {"zero_shot": GRMPOutput(quality=zero_shot)}
    for name, (labels, compared, recipe) in learn(base, world, shots, draw).items():
        with tempfile.TemporaryDirectory() as folder:
            given = {"compared": compared, "recipe": recipe, "seed": draw, "output_dir": folder}
            model = adapt_embeds(base.model, embeds[shots], labels, side=side[shots], **given)
        with torch.inference_mode():
            found[name] = model(image_embeds=embeds[tests], side=side[tests])
    rows = []
    for name, output in found.items():
        rows.append({"world": world.name, "draw": draw, "method": name, **judge(output, world.quality[tests])})
        print({key: value for key, value in rows[-1].items() if key != "bins"}, flush=True)
    return rows


def main() -> None:
    """Measure all and write the result."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021")
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    parser.add_argument("--draws", type=int, default=10)
    args = parser.parse_args()
    data, livec = (need_folder(parser, getattr(args, name), f"--{name}") for name in ("data", "livec"))
    base = grmp_hf.load()
    worlds = [read(base, "biq2021", data, (0, 1), 500), read(base, "livec", livec, (0, 100), None)]
    rows = [row for world in worlds for draw in range(args.draws) for row in measure(base, world, draw)]
    pictures = {world.name: len(world.pictures.rows) for world in worlds}
    write_result("compare", {"labels": LABELS, "choices": CHOICES, "noise": NOISE, "pictures": pictures, "rows": rows})


if __name__ == "__main__":
    main()
