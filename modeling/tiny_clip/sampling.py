"""Batches for training: fresh windows of the stored views with the targets cut out to match."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .captions import SCENES
from .latent import LATENT_OF_ORDINARY, LATENT_PENALTY, NATURAL_VARIATION, Ridge, natural_quality
from .statistics import CELL
from .student import GRID, PATCH
from .teacher import scene_probabilities
from .views import ViewKind, load_table

KIND_SHARES = {"native": 0.6, "middle": 0.15, "whole": 0.25}
CLIP_TARGETS = 5.0
HELD_OUT_EVERY = 10
"""One photograph in so many is kept out of training."""

LATENT_WINDOWS = 6400
"""Windows on which the regressions behind latent quality are fitted."""


@dataclass(frozen=True)
class Batch:
    """Pictures and targets; B pictures, K kept patches, D values a cell."""

    patches: Tensor  # (B, K, 768) uint8
    positions: Tensor  # (B, K)
    cells: Tensor  # (B, K, D) standardised
    window: Tensor  # (B, 2 D) standardised means and deviations over the window's cells
    head: Tensor  # (B, 1280) standardised
    latent: Tensor  # (B,) latent quality
    distortion: Tensor  # (B,) index into DISTORTIONS
    scene: Tensor  # (B, 9) probabilities
    scene_weight: Tensor  # (B,)
    category: Tensor  # (B,) the photograph's ImageNet class


@dataclass(frozen=True)
class Scale:
    """Mean and deviation by which a target is standardised."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Scale:
        """Measure ``values`` ``(N, D)``."""
        return cls(values.mean(0), values.std(0) + 1e-4)

    def apply(self, values: NDArray[np.float32]) -> Tensor:
        """Standardise and clip."""
        return torch.from_numpy(np.clip((values - self.mean) / self.std, -CLIP_TARGETS, CLIP_TARGETS))


def window_values(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(B, 14, 14, D)`` -> ``(B, 2 D)``: mean and deviation over the cells."""
    return np.concatenate([cells.mean((1, 2)), cells.std((1, 2))], 1)


class ViewSampler:
    """Random access to stored views and targets; everything random comes from the caller's generator."""

    def __init__(self, kinds: tuple[ViewKind, ...], work: Path) -> None:
        self.kinds = kinds
        self.table, sharpness = load_table(work)
        self.pictures = [np.load(work / f"views_{kind.name}.npy") for kind in kinds]
        self.cells = [np.load(work / f"cells_{kind.name}.npy") for kind in kinds]
        stored = [np.load(work / f"head_{kind.name}.npz") for kind in kinds]
        self.heads = [arrays["head"] for arrays in stored]
        classes = self._clean_classes([arrays["classes"] for arrays in stored])
        self.category = classes.argmax(1)
        self.scenes = scene_probabilities(classes, self._clean_luminance())
        share = self.scenes.mean(0)
        self.scene_balance = (share.max() / share) ** 0.5
        held_out = self.table.photo % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        self.train_rows, self.held_out_rows = self._by_kind(~held_out), self._by_kind(held_out)
        self._measure_scales()
        self._measure_latent(sharpness)

    def _by_kind(self, mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        return [np.flatnonzero(mask & (self.table.kind == number)) for number in range(len(self.kinds))]

    def _clean(self, number: int) -> NDArray[np.int64]:
        """Table rows of the undistorted first copy of every photograph."""
        mine = np.flatnonzero(self.table.kind == number)
        rows: NDArray[np.int64] = mine[:: self.kinds[number].count]
        return rows

    def _clean_classes(self, classes: list[NDArray[np.float16]]) -> NDArray[np.float32]:
        """``(P, 1000)`` class probabilities of photographs: mean over one clean view of each kind but the native."""
        parts = [
            classes[number][self.table.row[self._clean(number)]].astype(np.float32)
            for number, kind in enumerate(self.kinds)
            if kind.name != "native"
        ]
        mean: NDArray[np.float32] = np.mean(parts, axis=0)
        return mean

    def _clean_luminance(self) -> NDArray[np.float32]:
        """``(P,)`` mean luminance in [0, 1] of the clean whole view."""
        number = len(self.kinds) - 1
        pictures = self.pictures[number][self.table.row[self._clean(number)]]
        mean: NDArray[np.float32] = (pictures.mean((1, 2)) @ np.array([0.299, 0.587, 0.114]) / 255).astype(np.float32)
        return mean

    def _measure_scales(self, batches: int = 40) -> None:
        """Standardisation of all targets, from random windows."""
        rng = np.random.default_rng(0)
        windows = []
        for _ in range(batches):
            windows += [self._window(row, rng)[1] for row in self.draw(self.train_rows, 32, rng)]
        cells = np.stack(windows).astype(np.float32)
        self.cell_scale = Scale.of(cells.reshape(-1, cells.shape[-1]))
        self.window_scale = Scale.of(window_values(cells))
        self.head_scale = Scale.of(np.concatenate(self.heads).astype(np.float32))

    def _features(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Standardised values ``(N, 2 D)`` of one random window a row."""
        values = [window_values(self._window(int(row), rng)[1][None].astype(np.float32)) for row in rows]
        return self.window_scale.apply(np.concatenate(values)).double().numpy()

    def _measure_latent(self, sharpness: NDArray[np.float64]) -> None:
        """Latent quality of every view, and the regression that judges single windows."""
        rng = np.random.default_rng(1)
        rows = self.draw(self.train_rows, LATENT_WINDOWS, rng)
        features = self._features(rows, rng)
        native = features[self.table.kind[rows] == 0]
        clean = np.mean([self._features(self._clean(0), rng) for _ in range(2)], axis=0)
        loss = self.table.loss[rows[self.table.kind[rows] == 0]]
        natural = natural_quality(native, loss, clean, sharpness)
        self.latent = LATENT_OF_ORDINARY + NATURAL_VARIATION * natural[self.table.photo] - self.table.loss
        self.judge = Ridge(features, self.latent[rows], LATENT_PENALTY)

    def draw(self, rows: list[NDArray[np.int64]], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """``count`` rows, kinds in their shares."""
        shares = np.array([KIND_SHARES[kind.name] for kind in self.kinds])
        chosen = rng.choice(len(self.kinds), size=count, p=shares / shares.sum())
        return np.array([rng.choice(rows[number]) for number in chosen])

    def _window(self, row: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
        """A window of one view ``(224, 224, 3)`` and its cells ``(14, 14, D)``, mirrored half of the time."""
        number, place = self.table.kind[row], self.table.row[row]
        free = self.kinds[number].side // CELL - GRID
        top, left = (int(rng.integers(free + 1)) for _ in range(2))
        cells = self.cells[number][place, top : top + GRID, left : left + GRID]
        y, x = top * PATCH, left * PATCH
        pixels = self.pictures[number][place, y : y + GRID * PATCH, x : x + GRID * PATCH]
        if rng.random() < 0.5:
            return pixels[:, ::-1], cells[:, ::-1]
        return pixels, cells

    def batch(self, rows: NDArray[np.int64], keep: int, rng: np.random.Generator) -> Batch:
        """Fresh windows of ``rows`` with ``keep`` random patches of each."""
        patches, positions, kept_cells, windows = [], [], [], []
        for row in rows:
            pixels, cells = self._window(int(row), rng)
            places = np.sort(rng.permutation(GRID * GRID)[:keep])
            grid = pixels.reshape(GRID, PATCH, GRID, PATCH, 3).transpose(0, 2, 4, 1, 3)
            patches.append(grid[places // GRID, places % GRID].reshape(keep, -1))
            windows.append(cells)
            kept_cells.append(cells.reshape(GRID * GRID, -1)[places])
            positions.append(places)
        kinds, photos = self.table.kind[rows], self.table.photo[rows]
        heads = np.stack([self.heads[kind][row] for kind, row in zip(kinds, self.table.row[rows], strict=True)])
        scene = self.scenes[photos]
        window = self.window_scale.apply(window_values(np.stack(windows).astype(np.float32)))
        latent = (self.latent[rows] + self.judge.predict(window.double().numpy())) / 2
        content = np.array([1.0 if kind.name == "whole" else 0.5 for kind in self.kinds])[kinds]
        return Batch(
            patches=torch.from_numpy(np.stack(patches)),
            positions=torch.from_numpy(np.stack(positions)),
            cells=self.cell_scale.apply(np.stack(kept_cells).astype(np.float32)),
            window=window,
            head=self.head_scale.apply(heads.astype(np.float32)),
            latent=torch.from_numpy(latent).float(),
            distortion=torch.from_numpy(self.table.distortion[rows]),
            scene=torch.from_numpy(scene),
            scene_weight=torch.from_numpy(content * self.scene_balance[scene.argmax(1)]).float(),
            category=torch.from_numpy(self.category[photos]),
        )

    def scene_counts(self) -> dict[str, int]:
        """Photographs by most probable scene."""
        counts = np.bincount(self.scenes.argmax(1), minlength=len(SCENES))
        return dict(zip(SCENES, counts.tolist(), strict=True))
