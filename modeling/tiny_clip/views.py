"""First stage: distorted views of the photographs, written once as 8-bit arrays.

Three kinds of view: ``native`` keeps the photograph's own pixels (what scoring sees), ``middle`` is a large crop
shrunk, ``whole`` nearly the whole photograph shrunk to one model input (what content needs). Views of the first two
kinds are larger than the model's input; training takes a fresh window of each every time.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .captions import DISTORTIONS
from .distortions import DISTORTION_FUNCTIONS, SEVERITY, Picture
from .statistics import log_sharpness

PHOTO_SIDE = 512
SEED = 7


@dataclass(frozen=True)
class ViewKind:
    """``count`` views a photograph with sides of ``side`` pixels, cut from crops of ``crop`` (low, high) pixels."""

    name: str
    side: int
    count: int
    crop: tuple[int, int]


@dataclass(frozen=True)
class ViewTable:
    """One row a view, kinds one after the other as in ``kinds``; all arrays have the same length."""

    photo: NDArray[np.int64]
    kind: NDArray[np.int64]
    row: NDArray[np.int64]
    """Position inside the arrays of its kind."""
    distortion: NDArray[np.int64]
    """Index into ``DISTORTIONS`` of the stronger fault; 0 is none."""
    loss: NDArray[np.float64]
    """Sum of severity times level over the faults of the view."""


def default_kinds(scale: float = 1.0) -> tuple[ViewKind, ...]:
    """The kinds of the full recipe; ``scale`` multiplies the number of views a photograph."""
    return (
        ViewKind("native", 384, max(1, round(5 * scale)), (384, 384)),
        ViewKind("middle", 304, max(1, round(2 * scale)), (384, 512)),
        ViewKind("whole", 224, max(1, round(3 * scale)), (440, 512)),
    )


def find_photos(directory: Path) -> list[Path]:
    """The photographs the weights may see: every JPEG of ``unlabelled/`` and the ss03 train pictures of ``images/``.

    A folder without ``labels.csv`` is taken as it is: all its pictures. Ratings are never read here.
    """
    table = directory / "labels.csv"
    if not table.exists():
        return sorted(path for path in directory.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    with table.open(encoding="utf-8", newline="") as handle:
        allowed = [row["image"] for row in csv.DictReader(handle) if (row["split"], row["subset"]) == ("train", "ss03")]
    return sorted((directory / "unlabelled").glob("*.jpg")) + [directory / "images" / name for name in sorted(allowed)]


def load_photo(path: Path) -> Picture:
    """The photograph as ``(512, 512, 3)``; others than 512 x 512 are scaled and cut at the centre."""
    photo = Image.open(path).convert("RGB")
    if photo.size != (PHOTO_SIDE, PHOTO_SIDE):
        factor = PHOTO_SIDE / min(photo.size)
        photo = photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC)
        left, top = (photo.width - PHOTO_SIDE) // 2, (photo.height - PHOTO_SIDE) // 2
        photo = photo.crop((left, top, left + PHOTO_SIDE, top + PHOTO_SIDE))
    return np.asarray(photo)


def cut(photo: Picture, kind: ViewKind, rng: np.random.Generator) -> Picture:
    """A random square crop of the photograph, shrunk to the kind's side where it is larger."""
    size = int(rng.integers(kind.crop[0], kind.crop[1] + 1))
    top, left = (int(rng.integers(0, PHOTO_SIDE - size + 1)) for _ in range(2))
    crop = photo[top : top + size, left : left + size]
    if size == kind.side:
        return crop
    return np.asarray(Image.fromarray(crop).resize((kind.side, kind.side), Image.Resampling.BICUBIC))


def distort(picture: Picture, clean_share: float, rng: np.random.Generator) -> tuple[Picture, int, float]:
    """Add one fault, two in one case of five, none in ``clean_share`` of cases.

    Returns:
        The picture, the index of the stronger fault in ``DISTORTIONS``, and the loss of latent quality.
    """
    if rng.random() < clean_share:
        return picture, 0, 0.0
    names = rng.choice(DISTORTIONS[1:], size=2 if rng.random() < 0.2 else 1, replace=False)
    losses: dict[str, float] = {}
    for name in names:
        level = float(rng.uniform(0.03, 1.0))
        picture = DISTORTION_FUNCTIONS[name](picture, level, rng)
        losses[name] = SEVERITY[name] * level
    strongest = max(losses, key=lambda name: losses[name])
    return picture, DISTORTIONS.index(strongest), sum(losses.values())


def _photo_views(job: tuple[int, Path, tuple[ViewKind, ...], Path]) -> tuple[float, list[tuple[int, float]]]:
    """Write all views of one photograph; return its sharpness and, view by view, fault and loss."""
    index, path, kinds, work = job
    photo = load_photo(path)
    facts: list[tuple[int, float]] = []
    for number, kind in enumerate(kinds):
        views = np.lib.format.open_memmap(work / f"views_{kind.name}.npy", mode="r+")
        for copy in range(kind.count):
            rng = np.random.default_rng((SEED, index, number, copy))
            clean_share = 1.0 if copy == 0 else 0.22
            view, distortion, loss = distort(cut(photo, kind, rng), clean_share, rng)
            views[index * kind.count + copy] = view
            facts.append((distortion, loss))
        del views
    return log_sharpness(photo), facts


def build_views(photos: list[Path], kinds: tuple[ViewKind, ...], work: Path, processes: int = 2) -> None:
    """Write ``views_<kind>.npy`` ``(photos * count, side, side, 3) uint8`` and ``views.npz`` (facts) into ``work``."""
    for kind in kinds:
        shape = (len(photos) * kind.count, kind.side, kind.side, 3)
        np.lib.format.open_memmap(work / f"views_{kind.name}.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
    jobs = [(index, path, kinds, work) for index, path in enumerate(photos)]
    if processes == 1:
        results = [_photo_views(job) for job in jobs]
    else:
        with get_context("spawn").Pool(processes) as pool:
            results = pool.map(_photo_views, jobs, chunksize=8)
    facts = np.array([facts for _, facts in results])  # (photos, views of a photograph, 2)
    columns: list[NDArray[np.float64]] = []
    start = 0
    for number, kind in enumerate(kinds):
        block = facts[:, start : start + kind.count].reshape(-1, 2)
        photo = np.repeat(np.arange(len(photos)), kind.count)
        columns.append(np.column_stack([photo, np.full(len(photo), number), np.arange(len(photo)), block]))
        start += kind.count
    np.savez(work / "views.npz", table=np.concatenate(columns), sharpness=[sharpness for sharpness, _ in results])


def load_table(work: Path) -> tuple[ViewTable, NDArray[np.float64]]:
    """The table of views and the log sharpness of every photograph."""
    with np.load(work / "views.npz") as stored:
        photo, kind, row, distortion, loss = stored["table"].T
        sharpness = stored["sharpness"]
    photo, kind, row, distortion = (column.astype(np.int64) for column in (photo, kind, row, distortion))
    return ViewTable(photo, kind, row, distortion, loss), sharpness
