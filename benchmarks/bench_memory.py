"""How much memory does training on many photographs take?

    python benchmarks/bench_memory.py [--pictures 10000]

Generated photographs of 512 x 512 pixels as JPEG, five native views of 224 pixels of each, a small random CLIP whose
visual prompts are trained (so that pictures are asked for in every step), one process. All pictures are looked at once
to begin with, and a pass over all of them is trained. Memory is the most that the process has held, libraries
included, beside what all views would take.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from measuring import make_parser, write_result

VIEWS = ("center", "top_left", "top_right", "bottom_left", "bottom_right")
SIDE, VIEW, BATCH = 512, 224, 250


def make_pictures(folder: Path, count: int) -> None:
    """Smooth noise of different content, rated from 1 to 5."""
    from PIL import Image

    lines = ["image,mos"]
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        picture.save(folder / f"{number}.jpg", quality=90)
        lines.append(f"{number}.jpg,{1 + 4 * number / max(count - 1, 1):.4f}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_model(folder: Path) -> None:
    """A CLIP for views of that side whose pass takes less than decoding a picture."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    torch.manual_seed(0)
    vision = {**tower, "image_size": VIEW, "patch_size": VIEW // 2}
    CLIPModel(CLIPConfig(text_config=tower, vision_config=vision, projection_dim=8)).save_pretrained(folder)


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--pictures", type=int, default=10_000, help="photographs (default 10000)")
    count = parser.parse_args().pictures
    import dataclasses

    import grmp_hf
    from grmp_hf.measuring import peak_memory_mib
    from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
    from grmp_hf.training.recipes import FewShotRecipe

    recipe = FewShotRecipe(visual_prompts=2, batch_size=BATCH, steps=-(-count // BATCH), save_steps=0)
    with tempfile.TemporaryDirectory() as temporary:
        folder, model = Path(temporary) / "pictures", Path(temporary) / "clip"
        folder.mkdir()
        make_pictures(folder, count)
        make_model(model)
        scorer = grmp_hf.load(model)
        scorer = dataclasses.replace(scorer, processor=GRMPImageProcessor(VIEW, VIEWS, shortest_edge_limit=SIDE))
        before, start = peak_memory_mib(), perf_counter()
        grmp_hf.adapt(
            scorer, grmp_hf.read_ratings(folder), shots=count - 1, recipe=recipe, start=None,
            tell=lambda stage, share: print(f"\r{stage} {share:.0%}   ", end="", file=sys.stderr),
        )  # fmt: skip
    figures = {
        "pictures": count,
        "side": SIDE,
        "views": len(VIEWS),
        "view_side": VIEW,
        "steps": recipe.steps,
        "batch_size": BATCH,
        "all_views_mib": round(count * len(VIEWS) * 3 * VIEW**2 / 2**20),
        "before_mib": before,
        "peak_memory_mib": peak_memory_mib(),
        "seconds": round(perf_counter() - start, 1),
    }
    print(figures)
    write_result("memory", figures)


if __name__ == "__main__":
    main()
