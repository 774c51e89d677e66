"""The base inside the package: its name, which is the same on every machine, where it lies, and prompts for it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from grmp_hf.errors import GRMPError

__all__ = ["EMBEDDED", "EMBEDDED_PROMPTS", "embedded_folder", "find_start"]

EMBEDDED = "grmp_hf/tiny"
"""Taken wherever a model's name is; it is looked up in the package and never sent to a hub."""


EMBEDDED_PROMPTS = Path(str(files("grmp_hf") / "assets" / "tiny_prompts"))
"""Pre-trained prompts of that base; adaptation starts from them where it is told to."""


def embedded_folder() -> str:
    """The folder of the base: a plain CLIP with its tokenizer and preprocessing."""
    return str(files("grmp_hf") / "assets" / "tiny")


def find_start(start: str | Path | None, model: str | None) -> Path | None:
    """The folder of an adapter to start from.

    Args:
        start: a folder; "package" for the prompts inside the package, where they are the model's; "none" or None for no
            start.
        model: the base, as it was named.

    Raises:
        GRMPError: no such folder.
    """
    if start in (None, "none"):
        return None
    if start == "package":
        embedded = model in (None, "default", EMBEDDED)
        return EMBEDDED_PROMPTS if embedded and EMBEDDED_PROMPTS.is_dir() else None
    if not Path(start).is_dir():
        raise GRMPError(
            f"start: expected the folder of an adapter, package or none, got {str(start)!r}; check the spelling"
        )
    return Path(start)
