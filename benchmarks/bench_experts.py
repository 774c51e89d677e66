"""What does a scorer of six experts behind a gate cost beside one of them?

    python benchmarks/bench_experts.py [--rounds 15] [--pictures 16]

The embedded default on its own views of random pixels, one thread of control: the base alone, one expert (an adapter of
norms with its head, as `grmp-iqa stream` makes it, moved at random), six of them with a gate of 70 centres each, and
the same six baked into one model; in turns. The gate looks at what the untouched base says, a pass that experts without
changed embeddings share.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from measuring import interleaved, make_parser, write_result

import grmp_hf
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.gating import KMeansGate
from grmp_hf.training.expert_fitting import begin
from grmp_hf.training.stream_recipe import StreamRecipe

EXPERTS, CENTERS = 6, 70


def expert(base: Any, seed: int) -> Any:
    """An adapter whose norms are not those of the base."""
    model = begin(base, StreamRecipe(), 1, seed=seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(0.01 * torch.randn_like(weight))
    return model.eval()


def build(pictures: int) -> dict[str, Callable[[], object]]:
    """The scorers, each on the same pixels."""
    base: Any = grmp_hf.load()
    experts = {f"e{at}": expert(base.model, at) for at in range(EXPERTS)}
    width = base.model.config.clip_config.projection_dim
    generator = torch.Generator().manual_seed(0)
    centers = {n: torch.nn.functional.normalize(torch.randn(CENTERS, width, generator=generator)) for n in experts}
    gathered = Experts(base.model, experts, KMeansGate(centers)).eval()
    size = (pictures, base.processor.count, 3, base.processor.size, base.processor.size)
    pixels = base.prepare(torch.randint(0, 256, size, dtype=torch.uint8, generator=generator))
    models = {"base": base.model, "one expert": experts["e0"], "six experts": gathered, "six, baked": bake(gathered)}
    return {name: lambda model=model: model(pixel_values=pixels) for name, model in models.items()}  # type: ignore[misc]


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="turns (default 15)")
    parser.add_argument("--pictures", type=int, default=16, help="of a pass (default 16)")
    args = parser.parse_args()
    calls = build(args.pictures)
    with torch.inference_mode():
        interleaved(calls, 1)
        seconds = interleaved(calls, args.rounds)
    medians = {name: statistics.median(values) / args.pictures for name, values in seconds.items()}
    rows = [
        {"scorer": name, "milliseconds": round(1e3 * value, 2), "ratio": round(value / medians["one expert"], 2)}
        for name, value in medians.items()
    ]
    for row in rows:
        print(f"{row['scorer']:<12} {row['milliseconds']:8.2f} ms a picture   {row['ratio']:.2f}")
    write_result("experts", {"rounds": args.rounds, "pictures": args.pictures, "rows": rows})


if __name__ == "__main__":
    main()
