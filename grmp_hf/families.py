"""Families on disk: photographs with their distorted versions and similarities, made once and learnt from many times.

Letters in shapes: N pictures of a family, the photograph itself the first of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from grmp_hf.data.distortions import DISTORTIONS, Pixels
from grmp_hf.data.versions import Similarity, by_gmsd, make_versions, similarities
from grmp_hf.errors import GRMPError
from grmp_hf.storing import atomic_path, read_json, to_json, write_json, writing

__all__ = ["Families", "Family", "make_families", "read_families"]

_SCHEMA, _ABOUT = "grmp_hf.families/1", "families.json"


class Family(NamedTuple):
    """A photograph and its versions.

    Attributes:
        pictures: (N, H, W, 3) uint8.
        similarity: (N, N) in [0, 1].
    """

    pictures: Pixels
    similarity: NDArray[np.float32]


class Families(Sequence[Family]):
    """Families of a folder, each read when it is asked for.

    Args:
        folder: of :func:`make_families`.
        about: all that decides about them.

    Attributes:
        content_hash: SHA-256, in hexadecimal, of it.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.content_hash = hashlib.sha256(to_json(about).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.about["photographs"])

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        path = _file(self.folder, index)
        try:
            found = load_file(path)
            return Family(found["pictures"], found["similarity"])
        except (OSError, KeyError, SafetensorError) as error:
            raise GRMPError(f"{path}: expected a family of pictures, got ({error}); make the families again") from error


def make_families(
    photographs: Sequence[Pixels],
    folder: str | os.PathLike[str],
    *,
    versions: int = 8,
    kinds: Sequence[str] = tuple(DISTORTIONS),
    similarity: Similarity = by_gmsd,
    seed: int = 0,
    tell: Callable[[str, float], None] = lambda text, share: None,
) -> Families:
    """Distort photographs and compare all versions of each with one another, once, into a folder.

    A call that was interrupted goes on when it is repeated. A family of nine pictures of 320 x 320 pixels takes 2.8 MB.

    Args:
        photographs: (H, W, 3) uint8 each, sides of at least 32 pixels.
        folder: new, or of the same call.
        versions: distorted ones of each.
        kinds: of distortion, at least as many.
        similarity: of two pictures; its name, not its code, says whether a folder is of the same call.
        seed: of kinds, levels and distortions.
        tell: told what is done and which share of it.

    Raises:
        GRMPError: no photograph, a folder with other families, or whatever `make_versions` and `similarities` refuse.
    """
    if not len(photographs):
        raise GRMPError("Expected photographs to make families of, got none")
    about = {
        "versions": versions,
        "kinds": list(kinds),
        "similarity": getattr(similarity, "__qualname__", type(similarity).__qualname__),
        "seed": seed,
        "photographs": [hashlib.sha256(photograph.tobytes()).hexdigest() for photograph in photographs],
    }
    place = Path(folder)
    known = read_json(place / _ABOUT, _SCHEMA)
    if known is not None and known.get("about") != about:
        raise GRMPError(
            f"{place}: expected a new folder, or that of the same call, got other families; choose another, or "
            "remove it"
        )
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / _ABOUT, {"schema": _SCHEMA, "about": about})
    for index, photograph in enumerate(photographs):
        if not _file(place, index).is_file():
            pictures, _ = make_versions(photograph, versions, seed=seed + index, kinds=kinds)
            content = save({"pictures": pictures, "similarity": similarities(pictures, similarity)})
            with atomic_path(_file(place, index)) as temporary:
                temporary.write_bytes(content)
        tell("distort and compare", (index + 1) / len(photographs))
    return Families(place, about)


def read_families(folder: str | os.PathLike[str]) -> Families:
    """The families of a folder that :func:`make_families` has finished.

    Raises:
        GRMPError: there are none, or not all.
    """
    place = Path(folder)
    known = read_json(place / _ABOUT, _SCHEMA)
    if known is None:
        raise GRMPError(f"{place}: expected families of pictures, found no {_ABOUT}; make them with make_families")
    found = Families(place, known["about"])
    missing = sum(not _file(place, index).is_file() for index in range(len(found)))
    if missing:
        raise GRMPError(
            f"{place}: {missing} of {len(found)} families are missing; the call that made the others goes on"
        )
    return found


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:06}.safetensors"
