"""Which pictures to rate: never those that have been, never two of one content, the same every time."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LNTuningConfig, get_peft_model
from PIL import Image

import grmp_hf
from grmp_hf import suggesting
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.scoring import Scorer
from grmp_hf.suggesting import suggest
from grmp_hf.training.recipes import FewShotRecipe


@pytest.fixture(scope="module")
def adapted(base: Scorer, points: Path) -> Scorer:
    """Adapted to twelve of thirty pictures."""
    recipe = dataclasses.replace(FewShotRecipe.named("default"), steps=2)
    return grmp_hf.adapt(base, grmp_hf.read_ratings(points, scale=(0, 100)), shots=12, recipe=recipe)


def test_different_pictures_come_first_and_copies_once(base: Scorer, photos: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(photo, tmp_path / f"copy-{photo.name}")) for photo in photos[:3]]
    said: list[str] = []
    found = suggest(base, [*photos, *copies], 99, say=said.append)
    assert sorted(path for path, _ in found) == photos
    assert said == ["copies of other pictures, left out: 3"]
    assert found == suggest(base, [*photos, *copies], 99)
    assert found[:4] == [(path, why) for path, why in found if path in [known for known, _ in found[:4]]]
    assert all("the closest choice for" in why for _, why in found)


def test_what_cannot_be_read_is_counted(base: Scorer, photos: list[Path]) -> None:
    photos[4].write_bytes(b"")
    photos[5].write_bytes(photos[5].read_bytes()[:60])
    said: list[str] = []
    found = suggest(base, [*map(str, photos), "gone.png"], 20, say=said.append)
    assert len(found) == 10 and isinstance(found[0][0], str)
    assert said == ["pictures that cannot be read, left out: 1 empty, 1 not_found, 1 truncated"]


def test_pictures_without_a_path_are_named_by_their_place(base: Scorer, photos: list[Path]) -> None:
    pictures = [Image.open(photo) for photo in photos]
    names = {path: at for at, path in enumerate(photos)}
    assert [at for at, _ in suggest(base, pictures, 5)] == [names[path] for path, _ in suggest(base, photos, 5)]
    contents = [photo.read_bytes() for photo in photos]
    assert len(suggest(base, [*contents, contents[0]], 99)) == 12


def test_rated_pictures_are_never_suggested(adapted: Scorer, points: Path, tmp_path: Path) -> None:
    elsewhere = sorted(shutil.copytree(points / "images", tmp_path / "elsewhere").iterdir())
    assert adapted.taught is not None
    taught = {Path(name).name for name in adapted.taught.train}
    said: list[str] = []
    found = suggest(adapted, elsewhere, 99, say=said.append)
    assert {path.name for path, _ in found} == {path.name for path in elsewhere} - taught
    assert said == ["pictures that have been rated already, left out: 12"]
    with pytest.raises(GRMPError, match="have not been rated, got none among 12"):
        suggest(adapted, [path for path in elsewhere if path.name in taught])


def test_an_adapter_asks_for_what_it_is_least_sure_of(adapted: Scorer, points: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (40, 40, 3), dtype=np.uint8) * 255).save(odd)
    pictures = [*sorted((points / "images").iterdir()), odd]
    with torch.no_grad():
        found_map = suggesting._map_of(adapted)
        assert found_map is not None and bool(found_map.strength.any())
    reasons = dict(suggest(adapted, pictures, 99))
    assert any("least sure of" in why for why in reasons.values())
    unlike = adapted.score([odd]).unlike
    assert unlike is not None and ("unlike the rated pictures" in reasons[odd]) == bool(unlike[0])


def test_the_variance_is_the_one_that_scores_have(adapted: Scorer, points: Path) -> None:
    pictures = sorted((points / "images").iterdir())[:8]
    seen = suggesting._look(adapted, pictures, range(8), suggesting._silent, suggesting._silent)
    covariance, unlike = suggesting._covariance(adapted, seen, suggesting._map_of(adapted))
    found = adapted.outputs(torch.stack([adapted.views(picture) for picture in pictures]))
    map_of = suggesting._map_of(adapted)
    assert map_of is not None
    variance = (found.deviation / map_of.noise).square().numpy() - 1
    np.testing.assert_allclose(covariance.diagonal(), variance, rtol=1e-3, atol=1e-4)
    assert unlike.tolist() == (found.novelty > 0).tolist()


def test_other_adapters_know_their_pictures_too(base: Scorer, adapted: Scorer, points: Path) -> None:
    model = get_peft_model(copy_base(base.model), LNTuningConfig(target_modules=["layer_norm1"])).eval()
    other = dataclasses.replace(base, model=model, taught=adapted.taught)
    found = suggest(other, sorted((points / "images").iterdir()), 99)
    assert len(found) == 18 and all("sure" not in why for _, why in found)


def test_many_pictures_are_thinned(base: Scorer, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggesting, "LARGEST", 5)
    said: list[str] = []
    found = suggest(base, photos, 20, say=said.append)
    assert {path for path, _ in found} == {photos[at] for at in (0, 3, 6, 8, 11)}
    assert said == ["5 of 12 pictures are looked at, evenly spaced"]


def test_wrong_use(base: Scorer, photos: list[Path]) -> None:
    with pytest.raises(GRMPError, match="at least one picture, got a count of 0"):
        suggest(base, photos, 0)
    with pytest.raises(GRMPError, match="none among 0"):
        suggest(base, [])
    baked = dataclasses.replace(base, model=torch.nn.Linear(1, 1))
    with pytest.raises(GRMPError, match="which shows no features"):
        suggest(baked, photos)
