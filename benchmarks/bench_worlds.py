"""The few-shot learner on pictures of five kinds, beside what is simple: no setting is chosen on one kind alone.

    python benchmarks/bench_worlds.py --data BIQ2021 --livec LIVEC --webpages WEBPAGES [--draws 10] [--only WORLD ...]

Five worlds: BIQ2021 (labels from its train part, its 800 test photographs scored), a part of LIVE Challenge, the
demo's own pictures, photographs under the 25 types of distortion (labelled by GMSD), and web pages rated for appeal. In
each, `grmp-iqa adapt` with 10 to 200 labels stands beside zero-shot, ridge on the embedding, ridge on embedding and
statistics, ridge on all features, and the plain Gaussian average on the same features. Rows are kept in runs/ as they
are made, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from measuring import CACHE, ROOT, add_folder, keep_row, make_parser, need_folder, write_result
from PIL import Image, ImageDraw

import grmp_hf
from grmp_hf.data.distortions import DISTORTIONS, distort
from grmp_hf.data.gmsd import gmsd
from grmp_hf.evaluation.baselines import fit_ridge
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import FeatureStore, Pictures
from grmp_hf.modeling.feature_map import quality_interval
from grmp_hf.training.evidence import Prior, Standard, believe
from grmp_hf.training.few_shot import adapt_embeds
from grmp_hf.training.recipes import FewShotRecipe

LABELS = (10, 20, 50, 100, 200)
SPARED = 60  # pictures of a small world that are never labels
FLAT = Prior(agreement=0.0, modesty=0.0)
ROWS = CACHE / "worlds" / "rows.jsonl"


@dataclass(frozen=True)
class World:
    """Pictures of one kind: features, quality in [0, 1], and which may be labels and which are scored."""

    name: str
    pictures: Pictures
    quality: np.ndarray[Any, Any]
    pool: np.ndarray[Any, Any] | None = None
    tests: np.ndarray[Any, Any] | None = None

    def draws(self, count: int) -> Iterator[tuple[int, int, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """(draw, labels, labelled, scored) for every number of labels that leaves pictures to score."""
        rng = np.random.default_rng(7)
        for draw in range(count):
            order = rng.permutation(len(self.quality) if self.pool is None else self.pool)
            spared = len(order) // 2 if len(order) >= 300 else len(order) - SPARED
            for labels in LABELS:
                if self.tests is not None:
                    yield draw, labels, order[:labels], self.tests
                elif len(order) - labels >= SPARED - 10:
                    yield draw, labels, order[:labels], order[max(labels, spared) :]


def describe(base: Any, folder: Path, scale: tuple[float, float], name: str) -> tuple[Pictures, Any]:
    """Features and ratings of the pictures of a folder."""
    table = grmp_hf.read_ratings(str(folder / "labels.csv"), scale=scale)
    store = FeatureStore(CACHE / "worlds" / "features", base)
    store.describe(table.rows, lambda text, share: print(f"{name}: {share:.0%}", end="\r", flush=True))
    return store.pictures(table.rows), table


def make_demo(folder: Path) -> None:
    """The pictures that `make demo` makes."""
    if not (folder / "labels.csv").is_file():
        subprocess.run([sys.executable, str(ROOT / "training" / "make_demo_pictures.py"), str(folder)], check=True)


def make_distorted(photos: Path, folder: Path, count: int = 400) -> None:
    """Photographs under a type of distortion each, at a level drawn at random; the rating is 1 - GMSD."""
    if (folder / "labels.csv").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng, files, kinds = np.random.default_rng(0), sorted(photos.iterdir()), list(DISTORTIONS)
    lines: list[list[Any]] = [["image", "mos"]]
    for number, at in enumerate(rng.permutation(len(files))[:count]):
        picture = np.asarray(Image.open(files[at]).convert("RGB"))
        spoiled = distort(picture, kinds[number % len(kinds)], int(rng.integers(1, 6)), seed=number)
        Image.fromarray(spoiled).save(folder / f"{number}.png")
        lines.append([f"{number}.png", f"{1 - float(gmsd(picture, spoiled)):.5f}"])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def make_odd(folder: Path, count: int = 40) -> None:
    """Noise, single colours and drawings: no photographs."""
    if (folder / "labels.csv").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng, names = np.random.default_rng(1), []
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (400, 500, 3), dtype=np.uint8))
        flat = Image.new("RGB", (500, 400), tuple(int(v) for v in rng.integers(0, 256, 3)))
        drawing = Image.new("RGB", (500, 400), "white")
        pen = ImageDraw.Draw(drawing)
        for _ in range(30):
            colour = tuple(int(v) for v in rng.integers(0, 200, 3))
            pen.line(rng.integers(0, 500, 4).tolist(), fill=colour, width=int(rng.integers(1, 5)))
        for kind, picture in (("noise", noise), ("flat", flat), ("drawing", drawing)):
            names.append(f"{kind}_{number}.png")
            picture.save(folder / names[-1])
    rows = "\n".join(f"{name},{at % 2}" for at, name in enumerate(names))
    (folder / "labels.csv").write_text(f"image,mos\n{rows}\n", encoding="utf-8")


def worlds(base: Any, data: Path, livec: Path, webpages: Path) -> dict[str, Callable[[], World]]:
    """Each world by name, made when it is asked for."""
    demo, distorted = CACHE / "worlds" / "demo", CACHE / "worlds" / "distorted"

    def plain(name: str, folder: Path, scale: tuple[float, float]) -> World:
        pictures, table = describe(base, folder, scale, name)
        return World(name, pictures, np.array([row.quality for row in table.rows]))

    def biq2021() -> World:
        pictures, table = describe(base, data, (0, 1), "biq2021")
        test = np.array([row.split == "test" for row in table.rows])
        quality = np.array([row.quality for row in table.rows])
        return World("biq2021", pictures, quality, np.flatnonzero(~test), np.flatnonzero(test))

    def made(name: str, make: Callable[[], None], folder: Path, scale: tuple[float, float]) -> World:
        make()
        return plain(name, folder, scale)

    return {
        "livec": lambda: plain("livec", livec, (0, 100)),
        "webpages": lambda: plain("webpages", webpages, (1, 9)),
        "demo": lambda: made("demo", lambda: make_demo(demo), demo, (1, 5)),
        "distorted": lambda: made(
            "distorted", lambda: make_distorted(data / "unlabelled", distorted), distorted, (0.5, 1)
        ),
        "biq2021": biq2021,
    }


def simple(base: Any, world: World, shots: Any, tests: Any) -> dict[str, Any]:
    """Predictions of the simple methods."""
    columns = {name: np.asarray(world.pictures[name], dtype=np.float64) for name in ("embeds", "statistics", "side")}
    found = {"zero_shot": world.pictures["zero_shot"][tests]}
    for name, used in (
        ("ridge", ["embeds"]),
        ("ridge_statistics", ["embeds", "statistics"]),
        ("ridge_side", ["embeds", "side"]),
    ):
        x = np.column_stack([columns[column] for column in used])
        found[name] = fit_ridge(x[shots], world.quality[shots]).predict(x[tests])
    groups = split_groups(base, columns)
    said = np.log(world.pictures["zero_shot"] / (1 - world.pictures["zero_shot"]))[:, None]
    standards = {name: Standard.of(x[shots]) for name, x in groups.items()}
    standard = Standard.of(said[shots])
    belief = believe(
        {name: standards[name](x[shots]) for name, x in groups.items()},
        standard(said[shots])[:, 0],
        world.quality[shots],
        prior=FLAT,
    )
    found["gaussian"] = belief.predict(
        {name: standards[name](x[tests]) for name, x in groups.items()}, standard(said[tests])[:, 0]
    )
    return found


def split_groups(base: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """Embedding and the groups of the side network."""
    sizes = base.model.side.groups
    parts = np.split(columns["side"], np.cumsum(list(sizes.values()))[:-1], axis=1)
    return {"embeds": columns["embeds"], **dict(zip(sizes, parts, strict=True))}


def ours(base: Any, world: World, shots: Any, seed: int, recipe: str | None = None) -> Any:
    """The adapter that `grmp-iqa adapt` learns by a recipe, as a function from pictures to the model's output."""
    embeds, side = (torch.from_numpy(np.ascontiguousarray(world.pictures[name])) for name in ("embeds", "side"))
    quality = torch.tensor(world.quality[shots], dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {"side": side[shots], "recipe": FewShotRecipe.named(recipe), "seed": seed}
        model = adapt_embeds(base.model, embeds[shots], quality, output_dir=folder, **given)

    def look(pictures: Pictures, rows: Any) -> Any:
        with torch.inference_mode():
            return model(
                image_embeds=torch.from_numpy(pictures["embeds"][rows]), side=torch.from_numpy(pictures["side"][rows])
            )

    return look


def measure(base: Any, world: World, others: dict[str, Pictures], draws: int, known: set[tuple[str, int, int]]) -> None:
    """Add the rows of a world that are not known yet."""
    for draw, labels, shots, tests in world.draws(draws):
        if (world.name, draw, labels) in known:
            continue
        start = time.perf_counter()
        look = ours(base, world, shots, draw)
        seconds = time.perf_counter() - start
        found, actual = look(world.pictures, tests), world.quality[tests]
        low, high = (bound.numpy() for bound in quality_interval(found.quality, found.deviation, found.degrees, 0.9))
        row: dict[str, Any] = {"world": world.name, "labels": labels, "draw": draw, "seconds": round(seconds, 2)}
        row["ours"] = round(srcc(found.quality.numpy(), actual), 4)
        row |= {name: round(srcc(values, actual), 4) for name, values in simple(base, world, shots, tests).items()}
        row["covered"] = round(float(np.mean((actual >= low) & (actual <= high))), 4)
        row["width"] = round(float(np.mean(high - low)), 4)
        row["unlike"] = {world.name: round(float((found.novelty > 0).float().mean()), 4)}
        for name, pictures in others.items():
            if name != world.name:
                novel = look(pictures, np.arange(len(pictures))).novelty > 0
                row["unlike"][name] = round(float(novel.float().mean()), 4)
        keep_row(ROWS, row)
        print(json.dumps(row), flush=True)


def some(pictures: Pictures, at: Any) -> Pictures:
    """Those at some places."""
    columns = {name: column[at] for name, column in pictures.columns.items()}
    return Pictures(tuple(pictures.rows[index] for index in at), columns)


def kinds_of_odd(pictures: Pictures) -> dict[str, Pictures]:
    """Noise, single colours and drawings apart."""
    names = np.array([row.name for row in pictures.rows])
    return {
        kind: some(pictures, np.flatnonzero(np.char.startswith(names, kind))) for kind in ("noise", "flat", "drawing")
    }


def known_rows() -> list[dict[str, Any]]:
    """Rows that are there."""
    rows = measuring.known_rows(ROWS)
    return list({(row["world"], row["draw"], row["labels"]): row for row in rows}.values())  # the latest of each


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row without mappings in it, so that it is one line."""
    shares = {f"unlike_{name}": share for name, share in row.get("unlike", {}).items()}
    return {**{name: value for name, value in row.items() if name != "unlike"}, **shares}


def read_options(
    description: str | None, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> tuple[argparse.Namespace, list[Path]]:
    """Options of a benchmark over the worlds, and the folders of those that are not made here."""
    parser = make_parser(description)
    if add is not None:
        add(parser)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021")
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    add_folder(parser, "--webpages", "GRMP_HF_TEST_WEBPAGES", "the web pages")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--only", nargs="+", metavar="WORLD", help="worlds to measure (default: all)")
    parser.add_argument("--rows", action=argparse.BooleanOptionalAction, default=True, help="write the result")
    args = parser.parse_args()
    return args, [need_folder(parser, getattr(args, name), f"--{name}") for name in ("data", "livec", "webpages")]


def main() -> None:
    """Measure what is missing and write the result."""
    args, folders = read_options(__doc__)
    base = grmp_hf.load()
    makers = worlds(base, *folders)
    chosen = args.only or list(makers)
    known = {(row["world"], row["draw"], row["labels"]) for row in known_rows() if "covered" in row}
    odd = CACHE / "worlds" / "odd"
    make_odd(odd)
    others = kinds_of_odd(describe(base, odd, (0, 1), "odd")[0])
    others |= {name: makers[name]().pictures for name in ("livec", "webpages", "demo")}
    for name in chosen:
        measure(base, makers[name](), others, args.draws, known)
    if args.rows:
        rows = sorted(known_rows(), key=lambda row: (row["world"], row["labels"], row["draw"]))
        write_result("worlds", {"rows": [flat(row) for row in rows]})


if __name__ == "__main__":
    main()
