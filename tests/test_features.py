from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grmp_hf import features
from grmp_hf.data import MAX_PIXELS, ImageError, RatedTable, decode_row, read_ratings
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import handmade_statistics
from grmp_hf.features import OF_PICTURES, FeatureStore
from grmp_hf.scoring import Scorer
from grmp_hf.views import all_views


def silent(text: str, share: float) -> None:
    """Tell nobody."""


@pytest.fixture
def table(stars: Path, tmp_path: Path) -> RatedTable:
    return read_ratings(shutil.copytree(stars, tmp_path / "stars"), scale=(1, 5))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures in the order in which they are decoded."""
    names: list[str] = []

    def count(row: Any, **given: Any) -> Any:
        names.append(row.name)
        return decode_row(row, **given)

    monkeypatch.setattr(features, "decode_row", count)
    return names


def test_features_are_those_of_base_and_baselines(store: FeatureStore, base: Scorer, table: RatedTable) -> None:
    store.describe(table.rows, silent)
    pictures = store.pictures(table.rows[5:9])
    assert len(pictures) == 4 and pictures["embeds"].dtype == np.float32
    np.testing.assert_allclose(
        pictures["zero_shot"], base.score([row.image for row in table.rows[5:9]]).quality, atol=1e-6
    )
    expected = [handmade_statistics(np.asarray(decode_row(row))) for row in table.rows[5:9]]
    np.testing.assert_array_equal(pictures["statistics"], expected)
    read = base.model(image_embeds=torch.from_numpy(pictures["embeds"])).quality.detach().numpy()
    np.testing.assert_allclose(read, pictures["zero_shot"], atol=1e-6)


def test_a_store_that_knows_nothing_gives_no_pictures(store: FeatureStore) -> None:
    found = store.pictures([])
    assert len(found) == 0 and {found[name].shape for name in store.usual} == {(0, 0)}


def test_columns_are_computed_when_they_are_asked_for(
    store: FeatureStore, base: Scorer, table: RatedTable, decoded: list[str]
) -> None:
    own = dataclasses.replace(store, of_pictures={**OF_PICTURES, "brightness": lambda whole: np.array([whole.mean()])})
    own.describe(table.rows[:5], silent)
    own.describe(table.rows[:6], silent, columns=["tokens", "brightness", "embeds"])
    assert len(decoded) == 11  # the five once more, for the columns that they lacked
    own.describe(table.rows[:5], silent, columns=["brightness"])
    assert len(decoded) == 11
    found = FeatureStore(store.place, base).pictures(table.rows[:0], ["tokens", "brightness"])
    assert len(found) == 0 and found["tokens"].shape[1:] == own.pictures(table.rows[:5], ["tokens"])["tokens"].shape[1:]
    pictures = own.pictures(table.rows[:5], ["tokens", "brightness", "embeds"])
    views = torch.stack([base.views(row) for row in table.rows[:5]])
    vision = base.model.clip.vision_model
    with torch.no_grad():
        states = [vision(pixel_values=base.prepare(views)[:, at]).last_hidden_state for at in range(views.shape[1])]
        tokens = vision.post_layernorm(torch.stack(states, 1))
    np.testing.assert_allclose(pictures["tokens"], tokens.numpy(), atol=1e-5)
    assert pictures["brightness"][3, 0] == np.asarray(decode_row(table.rows[3])).mean()
    with pytest.raises(GRMPError, match="columns out of embeds, zero_shot, tokens, side, statistics, got colour"):
        store.describe(table.rows, silent, columns=["colour"])


def test_only_columns_that_are_asked_for_are_read(
    store: FeatureStore, base: Scorer, table: RatedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.describe(table.rows[:5], silent, columns=["tokens", "embeds"])
    read: list[str] = []
    opened = features.safe_open

    class Watched:
        def __init__(self, *given: Any) -> None:
            self.file = opened(*given)

        def __enter__(self) -> Watched:
            self.file.__enter__()
            return self

        def __exit__(self, *given: Any) -> None:
            self.file.__exit__(*given)

        def keys(self) -> list[str]:
            return self.file.keys()  # type: ignore[no-any-return]

        def get_tensor(self, name: str) -> Any:
            read.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr(features, "safe_open", Watched)
    again = FeatureStore(store.place, base)
    assert read == []
    again.describe(table.rows[:5], silent, columns=["embeds"])
    found = again.pictures(table.rows[:5], ["embeds"])
    assert read == ["digest", "embeds"]
    np.testing.assert_array_equal(found["embeds"], store.pictures(table.rows[:5], ["embeds"])["embeds"])
    again.pictures(table.rows[:2], ["tokens"])
    assert read == ["digest", "embeds", "digest", "tokens"]


def test_no_picture_is_decoded_twice(
    store: FeatureStore, base: Scorer, table: RatedTable, decoded: list[str], tmp_path: Path
) -> None:
    store.describe(table.rows[:20], silent)
    store.describe(table.rows, silent)
    assert sorted(decoded) == sorted(row.name for row in table.rows)
    copy = tmp_path / "again.png"
    shutil.copy(table.rows[0].image, copy)  # the same content under another name
    other = dataclasses.replace(table.rows[0], image=copy, name="again")
    again = FeatureStore(store.folder.parent, base)
    again.describe([*table.rows, other], silent)
    assert len(decoded) == len(table)
    for name in ("embeds", "zero_shot", "statistics"):
        before, after = store.pictures(table.rows), again.pictures([*table.rows, other])
        np.testing.assert_array_equal(before[name], after[name][:-1])
        np.testing.assert_array_equal(after[name][0], after[name][-1])


def test_a_changed_picture_or_another_preprocessing_is_described_anew(
    store: FeatureStore, base: Scorer, table: RatedTable, decoded: list[str]
) -> None:
    store.describe(table.rows[:5], silent)
    shutil.copy(table.rows[30].image, table.rows[0].image)
    FeatureStore(store.folder.parent, base).describe(table.rows[:5], silent)
    assert decoded[5:] == [table.rows[0].name]
    settings = {**base.identity["preprocessing"], "views": ["center"]}
    other = dataclasses.replace(base, identity={**base.identity, "preprocessing": settings})
    FeatureStore(store.folder.parent, other).describe(table.rows[:5], silent)
    assert len(decoded) == 11
    beside = dataclasses.replace(base, identity={**base.identity, "side_fingerprint": "another"})
    FeatureStore(store.folder.parent, beside).describe(table.rows[:5], silent)
    assert len(decoded) == 16


def test_a_run_that_was_killed_keeps_what_it_had(
    store: FeatureStore, base: Scorer, table: RatedTable, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 4)
    monkeypatch.setattr(features, "_PART", 8)

    def interrupt(text: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.describe(table.rows, interrupt)
    decoded.clear()
    FeatureStore(store.folder.parent, base).describe(table.rows, silent)
    assert sorted(decoded) == sorted(row.name for row in table.rows[16:])


def test_ratings_are_blank(store: FeatureStore, table: RatedTable) -> None:
    rows = [dataclasses.replace(row, mos_std=0.5, reference="r", split="test") for row in table.rows]
    store.describe(rows, silent)
    for row, blank in zip(rows, store.pictures(rows).rows, strict=True):
        assert (blank.image, blank.name, blank.dataset) == (row.image, row.name, row.dataset)
        values = dataclasses.asdict(blank)
        kept = {name for name, value in values.items() if value is not None and value == value}  # NaN is not itself
        assert kept == {"image", "name", "dataset"} and math.isnan(blank.mos) and math.isnan(blank.quality)


def test_a_very_large_picture_waits_for_its_turn(
    store: FeatureStore, table: RatedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def refuse_once(row: Any, *, max_pixels: int) -> Any:
        limits.append(max_pixels)
        if max_pixels < MAX_PIXELS:
            raise ImageError("large", "too_large")
        return decode_row(row, max_pixels=max_pixels)

    monkeypatch.setattr(features, "decode_row", refuse_once)
    store.describe(table.rows[:1], silent)
    assert len(limits) == 2 and limits[0] < limits[1] == MAX_PIXELS
    assert len(store.pictures(table.rows[:1])) == 1


def test_a_picture_that_cannot_be_read_ends_the_run(store: FeatureStore, base: Scorer, table: RatedTable) -> None:
    path = Path(str(table.rows[3].image))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(GRMPError, match=r"stars, 3\.png: .*; all pictures are needed"):
        store.describe(table.rows, silent)
    with pytest.raises(GRMPError, match=r"stars, 3\.png: .*; all pictures are needed"):
        list(all_views(table.rows, base.views, batch_size=4))
    path.unlink()
    with pytest.raises(GRMPError, match=r"stars, 3\.png: cannot be read"):
        FeatureStore(store.folder, base).describe(table.rows, silent)


def test_a_damaged_file_of_features_is_named(store: FeatureStore, base: Scorer, table: RatedTable) -> None:
    store.describe(table.rows, silent)
    (path,) = store.folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(GRMPError, match=r"expected features of pictures.*choose another --cache"):
        FeatureStore(store.folder.parent, base)


def test_what_a_killed_run_has_left_in_the_cache_goes(base: Scorer, table: RatedTable, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "cache", base, run="run")
    store.describe(table.rows[:4], silent)
    left = [store.folder / f".grmp-iqa-{run}" for run in ("run", "other")]
    for path in left:
        path.touch()
    FeatureStore(tmp_path / "cache", base, run="run").describe(table.rows[:4], silent)
    assert [path.exists() for path in left] == [False, True]  # the other may be at work
