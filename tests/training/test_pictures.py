from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.training.pictures import RatedPictures, random_crops

PIXELS = torch.randint(0, 256, (6, 2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
HALF = (0.5,) * 3


class Loads:
    """Counts what is loaded."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, index: int) -> Tensor:
        self.asked.append(index)
        return PIXELS[index]


def rated(load: Any, **options: Any) -> RatedPictures:
    return RatedPictures(load, torch.linspace(0, 1, 6), HALF, HALF, **options)


def test_a_row_holds_the_views_normalised_and_its_part_of_every_column() -> None:
    pictures = rated(PIXELS.__getitem__).taught(views=1, teacher_logits=torch.arange(12.0).view(6, 2))
    row = pictures[5, 2]
    assert torch.equal(row["pixel_values"], normalize(PIXELS[2, :1], HALF, HALF))
    assert row["labels"] == pytest.approx(0.4) and row["teacher_logits"].tolist() == [4, 5]
    assert torch.equal(pictures[2]["pixel_values"], row["pixel_values"]), "a bare index means epoch 0"
    assert len(pictures) == 6 and torch.equal(pictures.views(2), PIXELS[2])


@pytest.mark.parametrize(("memory", "again"), [(0, 6), (PIXELS[0].nbytes * 4, 2), (2**20, 0)])
def test_pictures_are_kept_as_long_as_there_is_room(memory: int, again: int) -> None:
    load = Loads()
    pictures = rated(load, memory=memory)
    assert torch.equal(torch.cat(list(pictures.batches(4))), PIXELS)
    load.asked.clear()
    other = pictures.taught(views=1)
    assert all(torch.equal(other[3, i]["pixel_values"], normalize(PIXELS[i, :1], HALF, HALF)) for i in range(6))
    assert len(load.asked) == again
    sent = pickle.loads(pickle.dumps(pictures._load))  # to a loading process
    assert not sent.kept and torch.equal(sent(1), PIXELS[1]) and not sent.kept


def whole(index: int) -> Tensor:
    """A picture of 12 x 20 pixels, each with a value of its own."""
    return torch.arange(240, dtype=torch.uint8).view(1, 12, 20).expand(3, 12, 20)


def test_crops_are_a_function_of_seed_epoch_and_index() -> None:
    def found(seed: int, memory: int = 0) -> dict[tuple[int, int], list[int]]:
        pictures = rated(whole, crop=random_crops(8, 2), seed=seed, memory=memory)
        return {(e, i): pictures.views(i, e)[:, 0, 0, 0].tolist() for e in range(3) for i in range(6)}

    assert found(0) == found(0, memory=2**20) != found(1)
    corners = [tuple(value) for value in found(0).values()]
    assert len(set(corners)) > 12, "each picture and epoch has crops of its own"


def test_a_crop_is_a_native_part_of_the_picture() -> None:
    crops = random_crops(8, 50)(whole(0), np.random.default_rng(0))
    assert crops.shape == (50, 3, 8, 8)
    for crop in crops:
        top, left = divmod(int(crop[0, 0, 0]), 20)
        assert torch.equal(crop, whole(0)[:, top : top + 8, left : left + 8])
    assert {divmod(int(crop[0, 0, 0]), 20)[0] for crop in crops} == set(range(5)), "up to the last row"
    assert torch.equal(random_crops(12)(whole(0)[:, :, :12], np.random.default_rng(0))[0], whole(0)[:, :, :12])
    with pytest.raises(GRMPError, match=r"at least 16 x 16 pixels to take crops of, got \(3, 12, 20\)"):
        random_crops(16)(whole(0), np.random.default_rng(0))
