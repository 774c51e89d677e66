"""What do prompts cost while scoring, how many files a second does the command score, and how long does adapting take?

    python benchmarks/bench_scoring_speed.py [--rounds 9] [--data DIR] [--pictures 300] [--before CHECKOUT]

First question: a ViT-B/16 of CLIP with random weights and the paper's prompts (4 text tokens, 100 visual prompts in
each layer), and the standalone scorer baked from it, beside transformers' own CLIP vision tower on the same pixels:
batch 8, CPU, fp32, evaluation, caches warm, in turns. Second question: `grmp-iqa score` on photographs (DIR holds
`labels.csv`, qualities from 0 to 1, and `images/`), decoding included, with the embedded default alone and with an
adapter of 50 of its ratings; in turns with another checkout of the package, such as the last one without a side
network, whose default looked at five views (`git worktree add --detach DIR 101ae7c^`). Third: seconds of
`grmp_hf.adapt` with 50 ratings, and how many of them are not spent on looking at the pictures.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import ROOT, add_folder, interleaved, make_parser, summary, write_result
from peft import get_peft_model
from transformers import CLIPVisionModel

from grmp_hf import GRMPConfig, GRMPForImageQualityAssessment, GRMPPromptConfig
from grmp_hf.modeling.baking import bake

BATCH = 8
BOUND = 1.10
_TURNS = 3
_COMMAND = "import sys; from grmp_hf.cli.main import main; sys.exit(main())"
_ADAPT = """
import json, sys, time
import grmp_hf
base, table = grmp_hf.load(), grmp_hf.read_ratings(sys.argv[1], scale=(0, 1))
seen = {}
start = time.perf_counter()
tell = lambda what, share: seen.setdefault((what, share), time.perf_counter())
scorer = grmp_hf.adapt(base, table, shots=50, tell=tell)
seconds = time.perf_counter() - start
scorer.save(sys.argv[2])
looks = [(share, at) for (what, share), at in seen.items() if what == "embed"]
(first, began), (_, ended) = looks[0], looks[-1]
looking = (ended - began) / (1 - first)  # the first part of the pictures takes its share too
print(json.dumps({"ratings": 50, "seconds": round(seconds, 2), "beyond_looking": round(seconds - looking, 2)}))
"""


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


def measure_files(data: Path, count: int, before: Path | None) -> dict[str, Any]:
    """Pictures a second of `grmp-iqa score`, as the command itself reports them, and seconds of adapting."""
    checkouts = {"today": ROOT} | ({"before": before.resolve()} if before else {})
    paths = [str(path) for path in sorted(Path(data, "images").iterdir())[:count]]
    with tempfile.TemporaryDirectory() as folder:
        adapting = {name: _python(place, _ADAPT, data, Path(folder, name)) for name, place in checkouts.items()}
        rates: dict[str, dict[str, list[float]]] = {name: {"base": [], "adapter": []} for name in checkouts}
        for turn in range(_TURNS):
            for name, place in checkouts.items():
                for way, more in {"base": [], "adapter": ["--adapter", str(Path(folder, name))]}.items():
                    table = str(Path(folder, f"{name}-{way}-{turn}.csv"))
                    about = _python(place, _COMMAND, "score", "--quiet", "--json", "--output", table, *more, *paths)
                    rates[name][way].append(about["pictures"] / about["seconds"])
    return {
        "pictures": len(paths),
        "pictures_per_second": {name: {k: summary(v) for k, v in ways.items()} for name, ways in rates.items()},
        "adapt": adapting["today"],
    }


def _python(checkout: Path, code: str, *arguments: object) -> Any:
    """What a program says as JSON that imports the package from a checkout."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="turns of the three towers (default 9)")
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "photographs in images/, with labels.csv")
    parser.add_argument("--pictures", type=int, default=300, help="photographs to score (default 300)")
    parser.add_argument("--before", type=Path, metavar="DIR", help="checkout of an earlier version, to take turns with")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"towers": measure_towers(arguments.rounds)}
    for name, seconds in figures["towers"]["seconds"].items():
        ratio = figures["towers"]["ratio"].get(name, 1.0)
        print(f"{name:<18} {seconds:8.3f} s a batch of {BATCH}   {ratio:.3f}")
    if arguments.data is not None:
        figures["files"] = measure_files(arguments.data.resolve(), arguments.pictures, arguments.before)
        for name, ways in figures["files"]["pictures_per_second"].items():
            for way, found in ways.items():
                print(f"grmp-iqa score, {name:<7} {way:<8} {found['median']:8.1f} pictures a second")
        print(f"grmp_hf.adapt, {figures['files']['adapt']}")
    write_result("scoring_speed", figures)


if __name__ == "__main__":
    main()
