"""Tables of `bench_grepq.py`: regressions on features learnt without ratings, and scores without labels."""

from __future__ import annotations

from statistics import mean
from typing import Any

from world_tables import PHOTOGRAPHS

__all__ = ["pathways", "without_labels"]

_METHODS = {
    "ridge_embedding": "ridge, embedding",
    "ridge_low": "ridge, low-level encoder",
    "ridge_embedding_low": "ridge, embedding and low-level encoder",
    "ridge_embedding_pooled": "ridge, embedding and that encoder before its projection",
    "ridge_embedding_untrained": "ridge, embedding and an encoder not trained",
    "ridge_high": "ridge, high-level adapter",
    "ridge_both": "ridge, high-level adapter and low-level encoder",
    "ridge_cv_both": "both, scikit-learn's ridge with the paper's strengths",
    "svr_both": "both, support vector regression",
    "ridge_side": "ridge, embedding and side network",
    "default": "adapted (`grmp-iqa adapt`)",
}
_SCORES = {
    "zero_shot": "zero-shot, the base",
    "statistics": "with the distance of hand-made statistics",
    "statistics_distance": "that distance alone",
    "encoder": "with the distance of the encoder",
    "encoder_distance": "that distance alone",
}


def pathways(result: dict[str, Any]) -> list[list[str]]:
    """Mean SRCC over draws, by world and number of labels."""
    cases = sorted({(row["world"], row["labels"]) for row in result["rows"]})
    rows = [["SRCC, mean of draws", *(f"{PHOTOGRAPHS[world]}, {labels}" for world, labels in cases)]]
    for name, title in _METHODS.items():
        found = [[row[name] for row in result["rows"] if (row["world"], row["labels"]) == case] for case in cases]
        rows.append([title, *(f"{mean(values):.3f}" for values in found)])
    return rows


def without_labels(result: dict[str, Any]) -> list[list[str]]:
    """SRCC of scores that need no label."""
    worlds = result["no_labels"]
    rows = [["SRCC, no label", *(PHOTOGRAPHS[row["world"]] for row in worlds)]]
    return rows + [[title, *(f"{row[name]:.3f}" for row in worlds)] for name, title in _SCORES.items()]
