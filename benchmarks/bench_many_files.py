"""How long until the first row of many files, and does memory grow?

    python benchmarks/bench_many_files.py [--files 20000]

`grmp-iqa score FOLDER --format csv` on small pictures and a small random CLIP, as a process of its own. The first row
is timed against the same command with one file: what is left is what the number of files costs. Memory is what it
holds after a tenth of the rows and at the last one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from measuring import ROOT, make_parser, write_result


def make_files(folder: Path, count: int) -> None:
    """Small JPEGs of different content, a thousand a folder."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels).resize((64, 64)) for pixels in noise]
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures[number % len(pictures)].save(path)


def make_model(folder: Path) -> None:
    """A CLIP whose pass takes less than decoding a picture."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    tower = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    torch.manual_seed(0)
    vision = {**tower, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=tower, vision_config=vision, projection_dim=8)).save_pretrained(folder)


def held(process: subprocess.Popen[str]) -> float:
    """MiB that a process holds."""
    import psutil

    return float(psutil.Process(process.pid).memory_info().rss / 2**20)


def score(model: Path, pictures: Path, count: int) -> dict[str, float]:
    """Seconds to the first and the last row, and MiB after a tenth of the rows and at the last."""
    command = [sys.executable, "-m", "grmp_hf.cli.main", "score", str(pictures), "--model", str(model)]
    start = perf_counter()
    process = subprocess.Popen(
        [*command, "--format", "csv", "--quiet"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    found: dict[str, float] = {}
    assert process.stdout is not None
    for number, _ in enumerate(process.stdout):  # the header is number 0
        if number == 1:
            found["first_row"] = perf_counter() - start
        if number == max(1, count // 10):
            found["early_mib"] = held(process)
        if number == count:
            found |= {"last_row": perf_counter() - start, "late_mib": held(process)}
    process.wait()
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="pictures (default 20000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model, many, one = (Path(place, name) for name in ("model", "many", "one"))
        make_model(model)
        make_files(many, arguments.files)
        make_files(one, 1)
        alone, all_of_them = score(model, one, 1), score(model, many, arguments.files)
    figures = {
        "files": arguments.files,
        "one_file": alone,
        "many_files": all_of_them,
        "first_row_later_seconds": round(all_of_them["first_row"] - alone["first_row"], 2),
        "growth_mib": round(all_of_them["late_mib"] - all_of_them["early_mib"], 1),
    }
    print(f"first row {figures['first_row_later_seconds']} s later than that of one file ({alone['first_row']} s)")
    print(f"memory grows by {figures['growth_mib']} MiB from the first tenth to the last row")
    print(write_result("many_files", figures))


if __name__ == "__main__":
    main()
