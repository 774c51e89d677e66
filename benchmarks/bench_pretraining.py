"""What does a step of meta-prompt pre-training cost, and does distorting photographs on the fly keep up with it?

    python benchmarks/bench_pretraining.py [--steps 3] [--photos DIR] [--episodes 40]

First question: a ViT-B/16 of CLIP with random weights and the paper's prompts (4 text tokens, 100 visual prompts in
each layer), random pixels, 2 tasks a step, 4 pictures of support and 4 of query, fp32, one process for each algorithm.
The first step warms up; memory is the most that the process has held, libraries and weights included. Second question:
with the embedded default, the default recipe and photographs (DIR, with all below it), episodes a second of one loading
process alone, beside episodes a second of the training step without loading.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from measuring import ROOT, add_folder, make_parser, write_result
from torch.utils.data import DataLoader
from transformers import TrainerCallback

import grmp_hf
from grmp_hf import GRMPConfig, GRMPForImageQualityAssessment
from grmp_hf.data.photographs import read_photographs
from grmp_hf.measuring import peak_memory_mib
from grmp_hf.tasks import HELD_OUT, from_photographs
from grmp_hf.training.episodes import EpisodeDataset, Episodes, collate_episodes, hold_out_tasks
from grmp_hf.training.pretraining import pretrain
from grmp_hf.training.recipes import PretrainRecipe

PAPER = ROOT / "grmp_hf" / "recipes" / "pretrain_paper.yaml"
ALGORITHMS = ("fomaml", "maml")
SIZES = {"support": 4, "query": 4, "held_out_support": 4, "held_out_query": 4, "held_out_visits": 1}
LOADER_BOUND = 1.5


class StepClock(TrainerCallback):
    """Seconds of each outer step, whose episodes have been loaded before."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begun = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.begun = perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds.append(perf_counter() - self.begun)


def step_seconds(
    model: GRMPForImageQualityAssessment, learning: Episodes, judging: Episodes, recipe: PretrainRecipe
) -> float:
    """Median seconds of an outer step after the first one."""
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        pretrain(model, learning, judging, recipe=recipe, output_dir=folder, callbacks=[clock])
    return statistics.median(clock.seconds[1:])


def noise_episodes(tasks: int, side: int, visits: int) -> Episodes:
    """Episodes of random pixels and labels."""

    def load(picture: int, seed: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed % 2**31)
        return {
            "pixel_values": torch.randn(3, side, side, generator=random),
            "labels": torch.rand((), generator=random),
        }

    names = {f"task {number}": list(range(16)) for number in range(tasks)}
    return EpisodeDataset(names, load, reference_of=lambda picture: picture, support=4, query=4, visits=visits)


def measure_step(algorithm: str, steps: int) -> dict[str, float]:
    """A step on ViT-B/16, in this process."""
    torch.manual_seed(0)
    model = GRMPForImageQualityAssessment(GRMPConfig())
    side = model.config.clip_config.vision_config.image_size
    paper = PretrainRecipe.from_yaml(PAPER)
    changes = {"meta_algorithm": algorithm, "steps": steps, "eval_steps": steps, "tasks_per_step": 2, **SIZES}
    recipe = PretrainRecipe(**{**dataclasses.asdict(paper), **changes})
    seconds = step_seconds(model, noise_episodes(2, side, steps), noise_episodes(1, side, 1), recipe)
    return {"inner_steps": recipe.inner_steps, "seconds": round(seconds, 2), "peak_memory_mib": peak_memory_mib()}


def measure_steps(steps: int) -> dict[str, Any]:
    """Each algorithm in a process of its own."""
    found = {}
    for algorithm in ALGORITHMS:
        command = [sys.executable, __file__, "--steps", str(steps), "--algorithm", algorithm]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found[algorithm] = json.loads(done.stdout.splitlines()[-1])
        print(f"ViT-B/16, {algorithm}: {found[algorithm]}")
    return {"steps": steps, "tasks": 2, "support": 4, "query": 4, "algorithms": found}


def measure_loader(photos: Path, count: int, steps: int) -> dict[str, Any]:
    """Episodes a second of a loading process, and of the training step, in turns."""
    scorer, recipe = grmp_hf.load("default"), PretrainRecipe()
    processor = scorer.processor
    photographs = read_photographs(photos, processor.size, processor.uncropped)
    source = from_photographs("photographs", photographs, processor, recipe.labels)
    learning, judging = hold_out_tasks(source.tasks, HELD_OUT, reference_of=source.reference_of)
    episodes = source.episodes(learning, **recipe.learning_episodes)
    loader: Any = DataLoader(episodes, batch_size=1, num_workers=1, collate_fn=collate_episodes)
    rounds: dict[str, list[float]] = {"loader": [], "training_step": []}
    for _ in range(2):
        rounds["loader"].append(count / load_seconds(loader, count))
        short = dataclasses.replace(recipe, steps=steps, eval_steps=steps, held_out_visits=1)
        judged = source.episodes({HELD_OUT[0]: judging[HELD_OUT[0]]}, **short.held_out_episodes)
        model = cast(GRMPForImageQualityAssessment, grmp_hf.load("default").model)
        rounds["training_step"].append(recipe.tasks_per_step / step_seconds(model, episodes, judged, short))
    rates = {name: round(statistics.median(values), 2) for name, values in rounds.items()}
    ratio = round(rates["loader"] / rates["training_step"], 2)
    load = [round(value, 1) for value in os.getloadavg()]
    return {
        "photographs": len(photographs),
        "episodes": count,
        "labels": recipe.labels,
        "episodes_per_second": rates,
        "ratio": ratio,
        "bound": LOADER_BOUND,
        "load_of_the_machine": load,
    }


def load_seconds(loader: Any, count: int) -> float:
    """Seconds for a number of episodes, after a first one that has started the process."""
    batches = iter(loader)
    next(batches)
    start = perf_counter()
    for _ in range(count):
        next(batches)
    return perf_counter() - start


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=3, help="outer steps of each run (default 3)")
    parser.add_argument("--episodes", type=int, default=40, help="episodes that the loader is timed on (default 40)")
    add_folder(parser, "--photos", "GRMP_HF_TEST_BIQ2021", "photographs, with all below it")
    parser.add_argument("--algorithm", choices=ALGORITHMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.algorithm:
        print(json.dumps(measure_step(arguments.algorithm, arguments.steps)))
        return
    figures: dict[str, Any] = {"vit_b_16": measure_steps(arguments.steps)}
    if arguments.photos is not None:
        figures["loader"] = measure_loader(arguments.photos, arguments.episodes, arguments.steps)
        print(f"episodes a second: {figures['loader']['episodes_per_second']}, ratio {figures['loader']['ratio']}")
    write_result("pretraining", figures)


if __name__ == "__main__":
    main()
