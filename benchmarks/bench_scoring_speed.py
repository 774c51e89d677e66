"""What do prompts cost while scoring, and how many files a second does the command score?

    python benchmarks/bench_scoring_speed.py [--rounds 9] [--data DIR] [--pictures 400]

First question: a ViT-B/16 of CLIP with random weights and the paper's prompts (4 text tokens, 100 visual prompts in
each layer), and the standalone scorer baked from it, beside transformers' own CLIP vision tower on the same pixels:
batch 8, CPU, fp32, evaluation, caches warm, in turns. Second question: `grmp-iqa score` with the embedded default on
photographs (DIR holds `images/`), decoding included; no rating is read.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import ROOT, add_folder, interleaved, make_parser, write_result
from peft import get_peft_model
from transformers import CLIPVisionModel

from grmp_hf import GRMPConfig, GRMPForImageQualityAssessment, GRMPPromptConfig
from grmp_hf.modeling.baking import bake

BATCH = 8
BOUND = 1.10


def build() -> dict[str, Callable[[], object]]:
    """The three towers on the same pixels."""
    torch.manual_seed(0)
    base = GRMPForImageQualityAssessment(GRMPConfig())
    vision = base.config.clip_config.vision_config
    tower = CLIPVisionModel(vision).eval()
    prompted = get_peft_model(base, GRMPPromptConfig()).eval()
    baked = bake(prompted)
    pixels = torch.randn(BATCH, 3, vision.image_size, vision.image_size)
    return {
        "clip_vision_tower": lambda: tower(pixel_values=pixels),
        "prompted": lambda: prompted(pixel_values=pixels),
        "baked": lambda: baked(pixel_values=pixels),
    }


def measure_towers(rounds: int) -> dict[str, Any]:
    """Median seconds of a batch, and ratios to the plain tower."""
    calls = build()
    with torch.inference_mode():
        interleaved(calls, 2)
        seconds = interleaved(calls, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "batch": BATCH,
        "rounds": rounds,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "ratio": {name: round(medians[name] / medians["clip_vision_tower"], 3) for name in ("prompted", "baked")},
        "bound": BOUND,
    }


def measure_files(images: Path, count: int) -> dict[str, Any]:
    """Pictures a second of `grmp-iqa score`, as the command itself reports them."""
    paths = [str(path) for path in sorted(images.iterdir())[:count]]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "grmp_hf.cli.main", "score", "--quiet", "--json"]
        command += ["--output", str(Path(folder, "scores.csv")), *paths]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    about = json.loads(done.stdout)
    rate = round(about["pictures"] / about["seconds"], 1)
    return {"pictures": about["pictures"], "pictures_per_second": rate, "scorer": about["scorer"]}


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="turns of the three towers (default 9)")
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "photographs in images/")
    parser.add_argument("--pictures", type=int, default=400, help="photographs to score (default 400)")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"towers": measure_towers(arguments.rounds)}
    for name, seconds in figures["towers"]["seconds"].items():
        ratio = figures["towers"]["ratio"].get(name, 1.0)
        print(f"{name:<18} {seconds:8.3f} s a batch of {BATCH}   {ratio:.3f}")
    if arguments.data is not None:
        figures["files"] = measure_files(Path(arguments.data, "images"), arguments.pictures)
        print(f"grmp-iqa score     {figures['files']['pictures_per_second']:8.1f} pictures a second")
    write_result("scoring_speed", figures)


if __name__ == "__main__":
    main()
