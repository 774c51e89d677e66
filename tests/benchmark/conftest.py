"""A way to run a benchmark on two small rated data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from grmp_hf.features import FeatureStore, Pictures


@pytest.fixture
def described(store: FeatureStore, stars: Path) -> tuple[Pictures, np.ndarray]:
    """The pictures rated in stars, and their quality."""
    from grmp_hf.data import read_ratings

    table = read_ratings(stars, scale=(1, 5))
    columns = (*store.usual, "tokens")
    store.describe(table.rows, lambda text, share: None, columns)
    return store.pictures(table.rows, columns), table.quality


@pytest.fixture
def configure(stars: Path, points: Path, clip_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """`configure(**keys)`: the file of a small benchmark, with some keys replaced."""
    import yaml

    def write(**keys: Any) -> Path:
        values: dict[str, Any] = {
            "name": "small",
            "model": str(clip_folder),
            "datasets": {
                "stars": {"path": str(stars), "range": [1, 5]},
                "points": {"path": str(points), "range": [0, 100], "unit": "points"},
            },
            "methods": ["zero_shot", "ridge", {"method": "grmp", "recipe": {"steps": 3}}],
            "shots": [6, 10],
            "draws": 2,
            "output": "results",
            **keys,
        }
        path = tmp_path / "config.yaml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in values.items() if value is not ...}, sort_keys=False)
        )
        return path

    return write
