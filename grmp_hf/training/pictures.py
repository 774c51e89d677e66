"""Rated pictures as training asks for them: looked at one by one, kept as long as there is room."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.training.sampling import EpochDataset

__all__ = ["MEMORY", "Crop", "RatedPictures", "random_crops"]

MEMORY = 2**28
"""Bytes of pictures that are kept, unless told otherwise."""

Crop = Callable[[Tensor, np.random.Generator], Tensor]
"""(what was loaded, random numbers) -> views ``(V, 3, S, S)``."""


class RatedPictures(EpochDataset[dict[str, Tensor]]):
    """Rated pictures, asked for by (epoch, index); a bare index means epoch 0.

    A row holds ``pixel_values`` ``(V, 3, S, S)``, normalised, and a row of each column.

    Args:
        load: index -> the picture, uint8: its views ``(V, 3, S, S)``, or whatever ``crop`` makes them of.
        quality: ``(n,)`` in [0, 1].
        mean, std: with which views are normalised.
        crop: makes the views anew in every epoch, from random numbers that are a function of (seed, epoch, index); None
            for the same views in all of them.
        seed: of ``crop``.
        memory: bytes of loaded pictures that are kept; the others are loaded each time. 0 where ``load`` only looks
            into memory.

    Attributes:
        columns: name -> ``(n, ...)``: ``labels``, and what is known of each picture beside it.
    """

    def __init__(
        self,
        load: Callable[[int], Tensor],
        quality: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        crop: Crop | None = None,
        seed: int = 0,
        memory: int = MEMORY,
    ) -> None:
        self.columns = {"labels": quality}
        self.mean, self.std = mean, std
        self.crop, self.seed = crop, seed
        self._load = _Keeping(load, memory)
        self._views: int | None = None

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        row = {name: column[index] for name, column in self.columns.items()}
        return {**row, "pixel_values": normalize(self.views(index, epoch)[: self._views], self.mean, self.std)}

    def views(self, index: int, epoch: int = 0) -> Tensor:
        """All views of a picture in an epoch, uint8 ``(V, 3, S, S)``."""
        loaded = self._load(index)
        if self.crop is None:
            return loaded
        return self.crop(loaded, np.random.default_rng([self.seed, epoch, index]))

    def batches(self, size: int) -> Iterator[Tensor]:
        """The views of all pictures in epoch 0, ``size`` pictures at a time, loaded in threads."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for at in range(0, len(self), size):
                yield torch.stack(list(pool.map(self.views, range(at, min(at + size, len(self))))))

    def taught(self, *, views: int = 0, **columns: Tensor) -> RatedPictures:
        """The same pictures, and what is kept of them, by their first views alone (0: all), with more columns."""
        other = copy.copy(self)
        other.columns, other._views = {**self.columns, **columns}, views or None
        return other


class _Keeping:
    """A loader that keeps what it has loaded as long as there is room."""

    def __init__(self, load: Callable[[int], Tensor], room: int) -> None:
        self.load, self.room = load, room
        self.kept: dict[int, Tensor] = {}
        self.lock = threading.Lock()

    def __call__(self, index: int) -> Tensor:
        found = self.kept.get(index)
        if found is None:
            found = self.load(index)
            with self.lock:
                if index not in self.kept and found.nbytes <= self.room:
                    self.kept[index] = found
                    self.room -= found.nbytes
        return found

    def __getstate__(self) -> dict[str, object]:
        """For a loading process that is not forked: nothing is kept, and nothing will be."""
        return {"load": self.load, "room": 0, "kept": {}}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, lock=threading.Lock())


def random_crops(size: int, count: int = 1) -> Crop:
    """A :data:`Crop` of whole pictures ``(3, H, W)``: ``count`` native squares of a side, each anywhere in the picture.

    Raises:
        GRMPError: when it is called with a picture that is smaller.
    """

    def crop(picture: Tensor, random: np.random.Generator) -> Tensor:
        free = [side - size + 1 for side in picture.shape[-2:]]
        if min(free) < 1:
            raise GRMPError(
                f"Expected pictures of at least {size} x {size} pixels to take crops of, got {tuple(picture.shape)}. "
                "Leave smaller ones out, or take smaller crops."
            )
        corners = [random.integers(free).tolist() for _ in range(count)]
        return torch.stack([picture[:, top : top + size, left : left + size] for top, left in corners])

    return crop
