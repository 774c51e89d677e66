"""The base inside the package: its name, which is the same on every machine, and where it lies."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["EMBEDDED", "embedded_folder"]

EMBEDDED = "grmp_hf/tiny"
"""Taken wherever a model's name is; it is looked up in the package and never sent to a hub."""


def embedded_folder() -> str:
    """The folder of the base: a plain CLIP with its tokenizer and preprocessing."""
    return str(files("grmp_hf") / "assets" / "tiny")
