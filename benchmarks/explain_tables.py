"""Tables of `bench_explain.py`: which distortions are named rightly, and what is taken for what."""

from __future__ import annotations

from typing import Any

from world_tables import PHOTOGRAPHS

__all__ = ["confused", "named"]

METHODS = {
    "explain": "`--explain`",
    "sentences, published words": "sentences, zero-shot, published words",
    "sentences, words it was taught": "sentences, zero-shot, words of its training",
    "regression here, embedding": "regression on the embedding, these photographs",
    "regression here, side network": "regression on the side network, these photographs",
}


def named(result: dict[str, Any]) -> list[list[str]]:
    """Share of pictures of each type that are called so, mean over the types, in all levels and in each."""
    levels = [f"level {level}" for level in range(1, 6)]
    rows = [["mean recall of 11 types", *PHOTOGRAPHS.values(), *(f"{at}, BIQ2021" for at in levels)]]
    for name, title in METHODS.items():
        cells = [f"{result['worlds'][world]['recall'][name]['mean']:.2f}" for world in PHOTOGRAPHS]
        by_level = result["worlds"]["biq2021"]["by_level"]
        rows.append([title, *cells, *(f"{by_level[at][name]:.2f}" if name in by_level[at] else "" for at in levels)])
    return [*rows, ["chance", *[f"{result['chance']:.2f}"] * 7]]


def confused(result: dict[str, Any]) -> list[list[str]]:
    """Of the pictures of each type, what share is called what, "none" included; BIQ2021, all levels."""
    found = result["worlds"]["biq2021"]["confusion"]
    rows = [["is / is called", *found]]
    return rows + [[name, *(f"{share:.2f}" if share else "" for share in row.values())] for name, row in found.items()]
