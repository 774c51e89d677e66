"""Where does the time of `grmp-iqa score` go, and what would other ways of computing save?

    python benchmarks/bench_scoring_profile.py --data DIR [--pictures 32] [--rounds 2]

The embedded default on photographs (DIR holds `images/`), step by step in one thread of control: decoding, views,
normalisation, the model's pass. Then ways of passing, in turns on the same views: as shipped, without fused attention,
with a channels-last tower, in smaller and larger parts, traced and frozen. No rating is read. To measure a processor
without bfloat16 on one that has it: ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2.
"""

from __future__ import annotations

import copy
import itertools
import os
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measuring import add_folder, interleaved, make_parser, need_folder, write_result
from torch import Tensor, nn

import grmp_hf
from grmp_hf.data.images import decode_image
from grmp_hf.scoring import Scorer

_SHIPPED = 4  # pictures of one pass on a processor, see `grmp_hf.scoring`
_SETTINGS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def measure_steps(scorer: Scorer, paths: list[Path]) -> tuple[dict[str, float], Tensor]:
    """Milliseconds a picture of each step, and the views ``(B, V, 3, S, S)``."""
    marks = [perf_counter()]
    pictures = [decode_image(path) for path in paths]
    marks.append(perf_counter())
    pixels = torch.stack([scorer.processor.pixels(picture) for picture in pictures])
    marks.append(perf_counter())
    for part in torch.split(pixels, 16):
        scorer.prepare(part)
    marks.append(perf_counter())
    for part in torch.split(pixels, 16):
        scorer.quality(part)
    marks.append(perf_counter())
    spent = [1000 * (after - before) / len(paths) for before, after in itertools.pairwise(marks)]
    steps = dict(zip(("decode", "views", "normalise", "model"), spent, strict=True))
    steps["model"] -= steps["normalise"]  # of which it is a part
    return {name: round(value, 2) for name, value in steps.items()}, pixels


def passes(scorer: Scorer, pixels: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Ways to the quality ``(B,)`` of the same views."""
    values = scorer.prepare(pixels)
    models: tuple[Any, Any] = (copy.deepcopy(scorer.model), copy.deepcopy(scorer.model))
    eager, last = models[0], models[1].to(memory_format=torch.channels_last)
    eager.set_attn_implementation("eager")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: shapes are fixed here
        jit: Any = torch.jit
        frozen = jit.freeze(jit.trace(_Quality(scorer.model).eval(), values[:_SHIPPED], check_trace=False))

    def by(model: Any, size: int) -> Callable[[], Tensor]:
        return lambda: torch.cat([model(part) for part in torch.split(values, size)])

    shipped = _Quality(scorer.model)
    ways: dict[str, Callable[[], Tensor]] = {"as_shipped": by(shipped, _SHIPPED)}
    ways |= {f"parts_of_{size}": by(shipped, size) for size in (1, 2, 8, 16, 32)}
    return ways | {
        "eager_attention": by(_Quality(eager), _SHIPPED),
        "channels_last": by(_Quality(last), _SHIPPED),
        "traced_and_frozen": by(frozen, _SHIPPED),
    }


class _Quality(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Tensor) -> Tensor:
        return self.model(pixel_values=values).quality  # type: ignore[no-any-return]


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "photographs in images/")
    parser.add_argument("--pictures", type=int, default=32, help="photographs, a multiple of 32 (default 32)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of the ways of passing (default 2)")
    arguments = parser.parse_args()
    folder = need_folder(parser, arguments.data, "--data")
    scorer = grmp_hf.load()
    paths = sorted((folder / "images").iterdir())[: arguments.pictures]
    steps, pixels = measure_steps(scorer, paths)
    print(steps, flush=True)
    ways = passes(scorer, pixels)
    with torch.inference_mode():
        found = {name: way() for name, way in ways.items()}
        seconds = interleaved(ways, arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    figures: dict[str, Any] = {
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "pictures": len(paths),
        "milliseconds_a_picture": steps,
        "passes": {
            name: {
                "milliseconds_a_picture": round(1000 * value / len(paths), 2),
                "ratio": round(value / medians["as_shipped"], 3),
                "largest_change_of_a_score": float((found[name] - found["as_shipped"]).abs().max()),
            }
            for name, value in medians.items()
        },
    }
    print(*figures["passes"].items(), sep="\n")
    variant = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "")
    write_result(f"scoring_profile_{variant}_{torch.get_num_threads()}", figures)


if __name__ == "__main__":
    main()
