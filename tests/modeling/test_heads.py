from __future__ import annotations

import re

import pytest
import torch

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.heads import pool_pictures


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 16, 16), "got (3, 16, 16)"), ((2, 4, 3, 16, 16), "at most 2 views of each picture"), ((2, 8), "got (2, 8)")],
)
def test_pictures_of_another_shape(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        pool_pictures(torch.zeros(shape), [0.5, 0.5], lambda pixels: pixels.flatten(1))
