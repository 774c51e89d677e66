from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.fragments import cut, draw_places, mirrored


def coordinates(height: int, width: int) -> Tensor:
    """A picture whose channels say where each pixel is."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows])


@pytest.mark.parametrize(("height", "width"), [(320, 320), (231, 500), (224, 224), (60, 300), (32, 32)])
def test_pieces_are_native_and_each_from_its_cell(height: int, width: int) -> None:
    found = cut(coordinates(height, width), draw_places(height, width, np.random.default_rng(1)))
    assert found.shape == (3, 224, 224)
    for row in range(7):
        for column in range(7):
            piece = found[:2, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            top, left = piece[:, 0, 0].tolist()
            expected = coordinates(height, width)[:2, top : top + 32, left : left + 32]
            assert torch.equal(piece, expected)
            if height >= 7 * 32:
                assert row * height // 7 <= top and top + 32 <= (row + 1) * height // 7
            if width >= 7 * 32:
                assert column * width // 7 <= left and left + 32 <= (column + 1) * width // 7


def test_all_versions_are_cut_at_the_same_places_and_every_draw_at_others() -> None:
    picture = coordinates(320, 400)
    versions = torch.stack([picture, picture + 1000, picture - 1000])
    rng = np.random.default_rng(0)
    first, second = (cut(versions, draw_places(320, 400, rng)) for _ in range(2))
    for view in (first, second):
        assert torch.equal(view[1], view[0] + 1000) and torch.equal(view[2], view[0] - 1000)
    assert not torch.equal(first, second)


def test_a_view_is_mirrored_as_a_whole_or_not() -> None:
    versions, rng = torch.stack([coordinates(8, 9), coordinates(8, 9) + 50]), np.random.default_rng(0)
    seen = {}
    for _ in range(60):
        found = mirrored(versions, rng)
        assert torch.equal(found[1], found[0] + 50)
        seen[tuple(found[0, :2, 0, 0].tolist())] = seen.get(tuple(found[0, :2, 0, 0].tolist()), 0) + 1
    assert seen.keys() == {(0, 0), (0, 8), (7, 0), (7, 8)} and min(seen.values()) > 5


def test_pictures_smaller_than_a_piece_are_refused() -> None:
    with pytest.raises(
        GRMPError, match="Expected pictures of at least 32 x 32 pixels and a grid of at least 1, got 31"
    ):
        draw_places(31, 300, np.random.default_rng(0))
