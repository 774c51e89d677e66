"""How long does opening a data set from its cache take, and what does our decoding cost beside bare Pillow?

    python benchmarks/bench_data.py [--rounds 9] [--data DIR] [--pictures 400]

First question: a set of KADID-10k's shape (81 references, 25 types, 5 levels: 10,125 small pictures, labels made up) is
built once by `load_iqa_dataset` and opened again; the fingerprint of the folder and the first row are part of opening.
Second question: photographs (DIR holds `images/`) through `iter_views` with two workers and CLIP's own preprocessing
(one view, shorter side to 224, centre crop), beside a loop of Pillow alone in one thread that decodes, converts to RGB
and resizes to the same size. They take turns. Pictures a second and core are counted twice: by processor time, and by
the clock with two workers as two cores, which says something on an idle machine only.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import datasets
import torch
from measuring import add_folder, make_parser, write_result
from PIL import Image

from grmp_hf import GRMPImageProcessor, load_iqa_dataset
from grmp_hf.data import decode_image
from grmp_hf.views import iter_views

WORKERS, SIZE = 2, 224
OPENING_BOUND, DECODING_BOUND = 1.0, 0.9


def write_kadid(folder: Path) -> int:
    """The official layout of KADID-10k with one small picture under every name; returns the number of rows."""
    images = folder / "images"
    images.mkdir(parents=True)
    picture = images / "I01.png"
    Image.effect_noise((64, 48), 50).convert("RGB").save(picture)
    content = picture.read_bytes()
    lines = ["dist_img,ref_img,dmos,var"]
    for reference in range(1, 82):
        (images / f"I{reference:02}.png").write_bytes(content)
        for kind, level in itertools.product(range(1, 26), range(1, 6)):
            name = f"I{reference:02}_{kind:02}_{level:02}.png"
            (images / name).write_bytes(content)
            lines.append(f"{name},I{reference:02}.png,{5.2 - 0.8 * level + kind % 3 / 10:.2f},0.25")
    (folder / "dmos.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines) - 1


def measure_opening(rounds: int) -> dict[str, Any]:
    """Seconds to build the set, and to open it from the cache with its first row."""
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kadid10k")
        rows = write_kadid(source)

        def load() -> float:
            start = perf_counter()
            data = load_iqa_dataset("kadid10k", str(source), split="train", cache_dir=str(Path(folder, "cache")))
            assert len(data) == rows and data[0]["name"] == "I01_01_01.png"
            return perf_counter() - start

        building = load()
        opening = [load() for _ in range(rounds)]
    return {
        "rows": rows,
        "rounds": rounds,
        "build_seconds": round(building, 3),
        "open_seconds": round(statistics.median(opening), 3),
        "slowest_open_seconds": round(max(opening), 3),
        "bound": OPENING_BOUND,
    }


def decode_ours(paths: Sequence[Path]) -> None:
    """Decode and preprocess with two workers."""
    processor = GRMPImageProcessor(SIZE, views=("whole",))
    for _ in iter_views(paths, lambda path: processor.pixels(decode_image(path)), batch_size=16, workers=WORKERS):
        pass


def decode_bare(paths: Sequence[Path]) -> None:
    """Decode and resize with Pillow alone."""
    for path in paths:
        with Image.open(path) as picture:
            shorter = min(picture.size)
            size = (picture.width * SIZE // shorter, picture.height * SIZE // shorter)
            picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def measure_decoding(paths: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Pictures a second and core of both, by the clock and by processor time, and their ratios."""
    calls: dict[str, tuple[Callable[[Sequence[Path]], None], int]] = {
        "ours": (decode_ours, WORKERS),
        "bare": (decode_bare, 1),
    }
    clock: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, (call, cores) in calls.items():
            start, started = perf_counter(), process_time()
            call(paths)
            clock[name].append(len(paths) / (perf_counter() - start) / cores)
            processor[name].append(len(paths) / (process_time() - started))
    figures: dict[str, Any] = {"pictures": len(paths), "rounds": rounds, "workers": WORKERS, "bound": DECODING_BOUND}
    for what, rates in (("clock", clock), ("processor_time", processor)):
        medians = {name: statistics.median(values[1:]) for name, values in rates.items()}  # the first round warms up
        figures[what] = {name: round(value, 1) for name, value in medians.items()}
        ratios = [ours / bare for ours, bare in zip(rates["ours"][1:], rates["bare"][1:], strict=True)]
        figures[what]["ratio"] = round(statistics.median(ratios), 3)
    figures["load_of_the_machine"] = [round(value, 1) for value in os.getloadavg()]
    return figures


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often everything is measured (default 9)")
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "photographs in images/")
    parser.add_argument("--pictures", type=int, default=400, help="photographs to decode (default 400)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"opening": measure_opening(arguments.rounds)}
    print(f"opening {figures['opening']['rows']} rows from the cache: {figures['opening']['open_seconds']} s")
    if arguments.data is not None:
        paths = sorted(Path(arguments.data, "images").iterdir())[: arguments.pictures]
        figures["decoding"] = measure_decoding(paths, arguments.rounds)
        for what in ("clock", "processor_time"):
            print(f"decoding, {what}: {figures['decoding'][what]}")
    write_result("data", figures)


if __name__ == "__main__":
    main()
