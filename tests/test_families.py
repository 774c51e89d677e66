from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grmp_hf import families as module
from grmp_hf.data.versions import by_gmsd, make_versions, similarities
from grmp_hf.errors import GRMPError
from grmp_hf.families import make_families, read_families


@pytest.fixture
def photographs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (5, 6 + at, 3)), np.ones((8, 8, 1))).astype(np.uint8) for at in range(3)]


def test_families_are_made_once_and_read_again(
    photographs: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    made = make_families(photographs, tmp_path, versions=2, seed=5, tell=lambda text, share: told.append(share))
    assert told == pytest.approx([1 / 3, 2 / 3, 1])
    again = read_families(tmp_path)
    assert len(made) == len(again) == 3 and made.content_hash == again.content_hash
    for index, photograph in enumerate(photographs):
        pictures, _ = make_versions(photograph, 2, seed=5 + index)
        np.testing.assert_array_equal(again[index].pictures, pictures)
        np.testing.assert_array_equal(again[index].similarity, similarities(pictures))
    assert [len(family.pictures) for family in again] == [3, 3, 3]
    (tmp_path / "000001.safetensors").unlink()
    with pytest.raises(GRMPError, match="1 of 3 families are missing; the call that made the others goes on"):
        read_families(tmp_path)
    compared = []
    monkeypatch.setattr(module, "similarities", lambda *given: compared.append(1) or similarities(*given))
    make_families(photographs, tmp_path, versions=2, seed=5)
    assert len(compared) == 1, "the one that was missing"
    np.testing.assert_array_equal(read_families(tmp_path)[1].pictures, make_versions(photographs[1], 2, seed=6)[0])


def test_a_folder_is_that_of_one_call(photographs: list[np.ndarray], tmp_path: Path) -> None:
    def brightness(first: np.ndarray, second: np.ndarray) -> float:
        return float(1 - abs(first.mean() - second.mean()) / 255)

    first = make_families(photographs, tmp_path / "a", versions=2)
    hashes = {first.content_hash}
    for name, change in (("seed", {"seed": 1}), ("versions", {"versions": 1}), ("like", {"similarity": brightness})):
        with pytest.raises(GRMPError, match="expected a new folder, or that of the same call, got other families"):
            make_families(photographs, tmp_path / "a", **{"versions": 2, **change})
        hashes.add(make_families(photographs, tmp_path / name, **{"versions": 2, **change}).content_hash)
    with pytest.raises(GRMPError, match="got other families"):
        make_families(photographs[:2], tmp_path / "a", versions=2)
    assert len(hashes) == 4
    assert first.about["similarity"] == by_gmsd.__qualname__


def test_what_is_no_family_is_refused(photographs: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match="Expected photographs to make families of, got none"):
        make_families([], tmp_path)
    with pytest.raises(GRMPError, match=r"found no families\.json"):
        read_families(tmp_path)
    made = make_families(photographs, tmp_path, versions=1)
    (tmp_path / "000002.safetensors").write_bytes(b"damaged")
    with pytest.raises(GRMPError, match="expected a family of pictures, got"):
        made[2]
