"""Two small rated data sets, a base, and a way to run a benchmark on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from grmp_hf.benchmark.features import FeatureStore, Pictures
    from grmp_hf.scoring import Scorer


def write_pictures(folder: Path, count: int, *, seed: int, low: float, high: float, test: int = 0) -> Path:
    """Pictures whose ratings fall with their noise; the last `test` of them are marked as test."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,mos" + (",split" if test else "")]
    order = np.random.default_rng(seed).permutation(count)
    for index, rank in enumerate(order):
        random = np.random.default_rng([seed, index])
        base = 128 + 60 * np.sin(np.arange(48) / random.uniform(3, 9))[None, :, None]
        pixels = np.clip(base + random.normal(0, 4 * rank, (40, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        part = "" if not test else ",test" if index >= count - test else ",train"
        lines.append(f"{index}.png,{high - (high - low) * rank / (count - 1):.4f}{part}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six pictures rated from 1 to 5, twelve of them marked as test."""
    return write_pictures(tmp_path_factory.mktemp("sets") / "stars", 36, seed=1, low=1, high=5, test=12)


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures rated from 0 to 100, none marked."""
    return write_pictures(tmp_path_factory.mktemp("sets") / "points", 30, seed=2, low=0, high=100)


@pytest.fixture(scope="session")
def base(clip_folder: Path) -> Scorer:
    """The scorer of the small random CLIP."""
    import grmp_hf

    return grmp_hf.load(clip_folder)


@pytest.fixture
def store(base: Scorer, tmp_path: Path) -> FeatureStore:
    """An empty store of features."""
    from grmp_hf.benchmark.features import FeatureStore

    return FeatureStore(tmp_path / "features", base)


@pytest.fixture
def described(store: FeatureStore, stars: Path) -> tuple[Pictures, np.ndarray]:
    """The pictures rated in stars, and their quality."""
    from grmp_hf.data import read_ratings

    table = read_ratings(stars, scale=(1, 5))
    store.describe(table.rows, lambda text, share: None)
    return store.pictures(table.rows), table.quality


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
