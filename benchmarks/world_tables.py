"""Tables of `bench_worlds.py`: the learner beside what is simple, how sure it is, and what it calls unlike."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

__all__ = ["at_fifty", "beside_simple", "compared", "modules", "pairs", "reliable", "sure", "unlike"]

Rows = list[dict[str, Any]]

WORLDS = {
    "biq2021": "BIQ2021",
    "livec": "LIVE Challenge",
    "demo": "demo's pictures",
    "distorted": "25 distortions",
    "webpages": "web pages",
}
PHOTOGRAPHS = {name: WORLDS[name] for name in ("biq2021", "livec")}
"""Those that are rated photographs, which other benchmarks use too."""

METHODS = {
    "ours": "adapted (`grmp-iqa adapt`)",
    "gaussian": "Gaussian average, same features",
    "ridge_side": "ridge, same features",
    "ridge_statistics": "ridge, embedding and statistics",
    "ridge": "ridge on the embedding",
    "zero_shot": "zero-shot, no label",
}


def _of(result: dict[str, Any], world: str, labels: int) -> Rows:
    return [row for row in result["rows"] if row["world"] == world and row["labels"] == labels]


def _sizes(result: dict[str, Any], world: str) -> list[int]:
    return sorted({row["labels"] for row in result["rows"] if row["world"] == world})


def at_fifty(result: dict[str, Any]) -> list[list[str]]:
    """Median SRCC of every method in every world with 50 labels."""
    rows = [["SRCC, 50 labels, median of ten draws", *WORLDS.values()]]
    for name, title in METHODS.items():
        rows.append([title, *(f"{median(row[name] for row in _of(result, world, 50)):.3f}" for world in WORLDS)])
    return rows


def beside_simple(result: dict[str, Any]) -> list[list[str]]:
    """Of every world and number of labels: median SRCC of each method, and the worst draw against zero-shot."""
    rows = [["world", "labels", "adapted", *list(METHODS.values())[1:], "worst draw - zero-shot"]]
    for world, title in WORLDS.items():
        for labels in _sizes(result, world):
            found = _of(result, world, labels)
            worst = min(row["ours"] - row["zero_shot"] for row in found)
            medians = [f"{median(row[name] for row in found):.3f}" for name in METHODS]
            rows.append([title, str(labels), *medians, f"{worst:+.3f}"])
    return rows


def sure(result: dict[str, Any]) -> list[list[str]]:
    """Share of new ratings within the 90 % interval, and its width as a share of the scale."""
    sizes = sorted({row["labels"] for row in result["rows"]})
    rows = [["within the interval (its width)", *(f"{labels} labels" for labels in sizes)]]
    for world, title in WORLDS.items():
        cells = []
        for labels in sizes:
            found = [row for row in _of(result, world, labels) if "covered" in row]
            covered, width = (mean(row[name] for row in found) for name in ("covered", "width")) if found else (0, 0)
            cells.append(f"{covered:.3f} ({width:.2f})" if found else "")
        rows.append([title, *cells])
    return rows


def unlike(result: dict[str, Any], labels: int = 50) -> list[list[str]]:
    """Share of pictures that an adapter calls unlike those that have taught it."""
    kinds = ["livec", "webpages", "demo", "noise", "flat", "drawing"]
    rows = [[f"taught by {labels} of", "the same, held out", *(WORLDS.get(kind, kind) for kind in kinds)]]
    for world, title in WORLDS.items():
        found = [row for row in _of(result, world, labels) if f"unlike_{world}" in row]
        others = ["" if kind == world else f"{mean(row[f'unlike_{kind}'] for row in found):.2f}" for kind in kinds]
        rows.append([title, f"{mean(row[f'unlike_{world}'] for row in found):.3f}", *others])
    return rows


COMPARED = {
    "zero_shot": "the base alone, noise .2 assumed",
    "ratings": "50 ratings",
    "ratings_fidelity": "50 ratings, `--recipe fidelity`",
    "choices": "150 choices",
    "choices_fidelity": "150 choices, `--recipe fidelity`",
}


def compared(result: dict[str, Any]) -> list[list[str]]:
    """Means over draws of `bench_compare.py`, for each world and way to learn."""
    figures = {"srcc": "SRCC", "accuracy": "pairs right", "said": "said", "gap": "gap", "log_loss": "log loss"}
    rows = [["photographs", "learnt from", *figures.values()]]
    for world in sorted({row["world"] for row in result["rows"]}):
        for method, title in COMPARED.items():
            found = [row for row in result["rows"] if (row["world"], row["method"]) == (world, method)]
            rows.append([WORLDS[world], title, *(f"{mean(row[name] for row in found):.3f}" for name in figures)])
    return rows


QUESTIONS = {
    "start": "the start in the package, default recipe",
    "rule": "lambda 5, recipe `visual`",
    "confounded": "the same, content and quality confounded",
}


def modules(result: dict[str, Any]) -> list[list[str]]:
    """Mean SRCC without and with a module over draws of `bench_modules.py`, and what it gains, with its interval."""
    rows = [["module", "world", "labels", "zero-shot", "without", "with", "gain [95 % interval]"]]
    for question, title in QUESTIONS.items():
        for world, called in WORLDS.items():
            for row in result["summary"]:
                if (row["question"], row["world"]) == (question, world):
                    gain = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
                    means = (f"{row[name]:.3f}" for name in ("zero_shot", "without", "with"))
                    rows.append([title, called, str(row["labels"]), *means, gain])
    return rows


def pairs(result: dict[str, Any]) -> list[list[str]]:
    """Ratings or pairs: mean SRCC over draws of `bench_pairs.py`, and the paired difference with its interval."""
    rows = [["world", "labels", "ratings (default)", "pairs (`fidelity`)", "pairs - ratings [95 % interval]"]]
    for row in result["summary"]:
        difference = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        means = (f"{row[name]:.3f}" for name in ("default", "fidelity"))
        rows.append([WORLDS[row["world"]], str(row["labels"]), *means, difference])
    return rows


def reliable(result: dict[str, Any]) -> list[list[str]]:
    """Of pairs by the probability that was said: their share, and how many of them it was right for."""
    ends = [(0.5 + step / 10, 0.6 + step / 10) for step in range(5)]
    rows = [["pairs right (share of all pairs) where it says", *(f"{low:.1f} to {high:.1f}" for low, high in ends)]]
    for world in sorted({row["world"] for row in result["rows"]}):
        for method in ("zero_shot", "ratings", "ratings_fidelity"):
            bins = [row["bins"] for row in result["rows"] if (row["world"], row["method"]) == (world, method)]
            total = sum(part[0] for row in bins for part in row)
            cells = []
            for at in range(5):
                parts = [part for row in bins for part in row[2 * at : 2 * at + 2]]
                count = sum(part[0] for part in parts)
                cells.append(f"{sum(part[2] for part in parts) / count:.2f} ({count / total:.2f})" if count else "")
            rows.append([f"{WORLDS[world]}: {COMPARED[method]}", *cells])
    return rows
