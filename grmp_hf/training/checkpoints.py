"""Checkpoints of runs that may have been killed while they wrote one."""

from __future__ import annotations

import json
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["last_complete_checkpoint"]


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint that a run finished writing, or None.

    The Trainer writes ``trainer_state.json`` last: a folder where it is missing or cut off belongs to a run that was
    killed while saving.
    """
    folders = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    numbered = sorted((int(f.name.rsplit("-", 1)[1]), f) for f in folders if f.name.rsplit("-", 1)[1].isdigit())
    return next((folder for _, folder in reversed(numbered) if _is_complete(folder)), None)


def _is_complete(folder: Path) -> bool:
    try:
        json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
