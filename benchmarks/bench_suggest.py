"""Pictures that `grmp-iqa suggest` chooses against pictures at random, and whether the gain that is foretold comes.

    python benchmarks/bench_suggest.py --data BIQ2021 --livec LIVEC --webpages WEBPAGES [--draws 10] [--only WORLD ...]

On the five worlds of bench_worlds.py, with the closed form of the learner (`training/evidence.py`), which orders
pictures as the trained adapter does. In each draw some pictures are scored, and the labels come from up to 400 others:
at random, or as suggested, all at once or 30 more after 20 random ones. For random labels of every size the gain
that 20 more bring stands beside the one that was foretold. Rows are kept in runs/ as they are made, so that an
interrupted run goes on.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_worlds import World, read_options, split_groups, worlds
from measuring import CACHE, keep_row, known_rows, paired, write_result

import grmp_hf
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.training.designs import choose, features_after, features_alone
from grmp_hf.training.evidence import Belief, Prior, Standard, believe, standards_of
from grmp_hf.training.expecting import MORE, blend, slope_of_curve

ROWS = CACHE / "worlds" / "suggest_rows.jsonl"
BUDGETS = (20, 50)
CASES = {"20": ("suggested", "20"), "50": ("suggested", "50"), "20 random, then 30": ("after_random", "50")}
SHOTS = (10, 20, 30, 50, 80, 100, 150, 180)
CANDIDATES = 400

Array = np.ndarray[Any, Any]


class Prepared:
    """A world's features by group, and what is believed after some of its pictures are rated."""

    def __init__(self, base: Any, world: World) -> None:
        columns = {name: np.asarray(world.pictures[name], dtype=np.float64) for name in ("embeds", "side")}
        self.features = split_groups(base, columns)
        quality = world.pictures["zero_shot"]
        self.said = np.log(quality / (1 - quality))[:, None]
        self.quality = world.quality
        known = base.model.side.known()
        self.known = {name: tuple(value.double().numpy() for value in pair) for name, pair in known.items()}

    def learn(self, shots: Array) -> tuple[Belief, Callable[[Array], tuple[dict[str, Array], Array]]]:
        """What is believed after ratings of some pictures, and a function that standardises others for it."""
        known = {name: Standard(*pair) for name, pair in self.known.items()}
        standards, distance = standards_of({name: x[shots] for name, x in self.features.items()}, known)
        base = Standard.of(self.said[shots])

        def look(at: Array) -> tuple[dict[str, Array], Array]:
            return {name: standards[name](x[at]) for name, x in self.features.items()}, base(self.said[at])[:, 0]

        return believe(*look(shots), self.quality[shots], prior=Prior().at(distance)), look

    def srcc(self, shots: Array, tests: Array) -> float:
        """Of other pictures, after ratings of some."""
        belief, look = self.learn(shots)
        return float(srcc(belief.predict(*look(tests)), self.quality[tests]))

    def suggest(self, pool: Array, count: int) -> Array:
        """Pictures of a pool, before any is rated."""
        features = {name: x[pool] for name, x in {**self.features, "base": self.said}.items()}
        return pool[choose(features_alone(features, self.known), count, np.arange(len(pool)))]

    def suggest_more(self, pool: Array, rated: Array, count: int) -> Array:
        """Pictures of a pool that are not among its rated ones."""
        belief, look = self.learn(rated)
        groups, base = look(pool)
        phi = np.column_stack([*groups.values(), base]) * belief.scales
        covariance = features_after(phi, belief.factor, belief.drift, belief.centre_variance)
        return pool[choose(covariance, count, np.flatnonzero(~np.isin(pool, rated)))]


def split(world: World, draw: int) -> tuple[Array, Array]:
    """Candidates in random order, and pictures to score."""
    rng = np.random.default_rng([7, draw])
    order = rng.permutation(len(world.quality) if world.pool is None else world.pool)
    if world.tests is not None:
        return order[:CANDIDATES], world.tests
    scored = len(order) // 2 if len(order) >= 300 else 60
    return order[:-scored][:CANDIDATES], order[-scored:]


def measure(base: Any, world: World, draws: int, known: set[tuple[str, int]]) -> None:
    """Add the rows of the draws that are not known yet."""
    prepared = Prepared(base, world)
    for draw in range(draws):
        if (world.name, draw) in known:
            continue
        pool, tests = split(world, draw)
        at_random: dict[int, float] = {}
        row: dict[str, Any] = {"world": world.name, "draw": draw, "candidates": len(pool), "scored": len(tests)}
        for shots in sorted({*SHOTS, *(n + MORE for n in SHOTS)}):
            if shots <= len(pool):
                at_random[shots] = round(prepared.srcc(pool[:shots], tests), 4)
        row["random"] = at_random
        row["suggested"] = {n: round(prepared.srcc(prepared.suggest(pool, n), tests), 4) for n in BUDGETS}
        first = pool[: BUDGETS[0]]
        more = prepared.suggest_more(pool, first, BUDGETS[1] - BUDGETS[0])
        row["after_random"] = {BUDGETS[1]: round(prepared.srcc(np.concatenate([first, more]), tests), 4)}
        row["slopes"] = {}
        for shots in (n for n in SHOTS if n + MORE in at_random):
            belief, look = prepared.learn(pool[:shots])
            slope = slope_of_curve(*look(pool[:shots]), prepared.quality[pool[:shots]], belief)
            row["slopes"][shots] = round(slope, 4)
        keep_row(ROWS, row)
        print(json.dumps(row), flush=True)


def by_world(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by their world."""
    return {world: [row for row in rows if row["world"] == world] for world in sorted({row["world"] for row in rows})}


def chosen_figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Suggested against random pictures, by the kind of choice and by world."""
    found: dict[str, Any] = {}
    for title, (what, labels) in CASES.items():
        found[title] = {}
        for world, part in by_world(rows).items():
            chosen, plain = ([row[name][labels] for row in part] for name in (what, "random"))
            figures = {"random": round(statistics.mean(plain), 4), **paired(chosen, plain)}
            found[title][world] = {**figures, **equal_labels(part, chosen)}
    return found


def equal_labels(rows: list[dict[str, Any]], chosen: list[float]) -> dict[str, int]:
    """How many random labels order pictures as well, by the mean curve, and bounds of it over resampled draws."""
    rng, found = np.random.default_rng(0), []
    sizes = sorted(set.intersection(*({int(size) for size in row["random"]} for row in rows)))
    curves = np.array([[row["random"][str(size)] for size in sizes] for row in rows])
    for at in [np.arange(len(rows)), *rng.integers(0, len(rows), (1000, len(rows)))]:
        rising = np.maximum.accumulate(curves[at].mean(0))
        found.append(np.interp(np.array(chosen)[at].mean(), rising, sizes))
    values = (found[0], *np.quantile(found[1:], (0.025, 0.975)))
    return {name: round(float(value)) for name, value in zip(("equal", "equal_low", "equal_high"), values, strict=True)}


def foretold(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every world, draw and number of labels the gain that was foretold, its bounds, and the one that came."""
    found = []
    for row in rows:
        for shots, slope in row["slopes"].items():
            came = row["random"][str(int(shots) + MORE)] - row["random"][shots]
            numbers = {**blend(slope, int(shots))._asdict(), "came": came}
            found.append({"world": row["world"], "labels": int(shots), **numbers})
    return found


def foretold_figures(gains: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of :func:`foretold` by number of labels and by world, and the share that came within the bounds."""
    sizes = sorted({gain["labels"] for gain in gains})
    parts = {f"{labels} labels": [gain for gain in gains if gain["labels"] == labels] for labels in sizes}
    found = {}
    for title, part in {**parts, **by_world(gains), "all": gains}.items():
        means = {name: round(statistics.mean(g[name] for g in part), 4) for name in ("gain", "came", "low", "high")}
        within = statistics.mean(gain["low"] <= gain["came"] <= gain["high"] for gain in part)
        found[title] = {**means, "within": round(within, 3), "cases": len(part)}
    return found


def left_out(gains: list[dict[str, Any]], world: str) -> float:
    """Share of a world's gains within bounds, times the labels, that hold nine of ten gains of the other worlds."""
    missed = [(gain["world"], (gain["came"] - gain["gain"]) * gain["labels"]) for gain in gains]
    low, high = np.quantile([value for name, value in missed if name != world], (0.05, 0.95))
    return round(statistics.mean(bool(low <= value <= high) for name, value in missed if name == world), 3)


def main() -> None:
    """Measure what is missing and write the result."""
    args, folders = read_options(__doc__)
    base = grmp_hf.load()
    makers = worlds(base, *folders)
    known = {(row["world"], row["draw"]) for row in known_rows(ROWS)}
    for name in args.only or list(makers):
        measure(base, makers[name](), args.draws, known)
    if args.rows:
        rows = sorted(known_rows(ROWS), key=lambda row: (row["world"], row["draw"]))
        gains = foretold(rows)
        figures = {"draws": args.draws, "chosen": chosen_figures(rows), "foretold": foretold_figures(gains)}
        figures["within_bounds_of_others"] = {world: left_out(gains, world) for world in by_world(gains)}
        write_result("suggest", {**figures, "rows": rows})


if __name__ == "__main__":
    main()
