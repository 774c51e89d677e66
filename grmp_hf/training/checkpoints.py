"""Checkpoints of runs that may have been killed while they wrote one, and whose they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from grmp_hf.claims import WorkFolder
from grmp_hf.errors import GRMPError

__all__ = ["claim_folder", "digest", "last_complete_checkpoint"]


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint that a run finished writing, or None.

    The Trainer writes ``trainer_state.json`` last: a folder where it is missing or cut off belongs to a run that was
    killed while saving.
    """
    folders = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    numbered = sorted((int(f.name.rsplit("-", 1)[1]), f) for f in folders if f.name.rsplit("-", 1)[1].isdigit())
    return next((folder for _, folder in reversed(numbered) if _is_complete(folder)), None)


def claim_folder(folder: Path, run: Mapping[str, Any]) -> WorkFolder:
    """Take a folder for the checkpoints of a run, or go on with those that the same run has left.

    Args:
        folder: new, empty, or of an unfinished run.
        run: all that decides about the checkpoints, as JSON values.

    Returns:
        The folder, locked until it is closed.

    Raises:
        GRMPError: it holds checkpoints of another run, or something else, or another run is at work in it.
    """
    claimed = WorkFolder(folder, overwrite=True)
    if not claimed.is_of(run) and last_complete_checkpoint(folder) is not None:
        claimed.close()
        raise GRMPError(
            f"Expected an empty folder, or one of a run with the same recipe, seed and pictures, got {str(folder)!r}, "
            "which holds checkpoints of another. Choose another folder, or remove it."
        )
    claimed.begin(run)
    return claimed


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256, in hexadecimal, of the numbers in some tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _is_complete(folder: Path) -> bool:
    return _content(folder / "trainer_state.json") is not None


def _content(path: Path) -> Any:
    """Of a JSON file; None where it is missing or cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
