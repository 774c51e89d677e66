"""``grmp-iqa compare``: two or more pictures -> which is better, and how likely that is."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from grmp_hf.cli.options import add_model_options, add_paths, listed, load_scorer, need_paths, say, tell
from grmp_hf.cli.writing import UNLIKE, describe_scorer
from grmp_hf.errors import GRMPError

if TYPE_CHECKING:
    from grmp_hf.data.scales import RatingScale
    from grmp_hf.preferring import Comparison

__all__ = ["add_parser", "run"]

_EPILOG = """Two pictures give one probability, more of them a ranking: each with the probability that it is better than
the next. With --json, the probabilities of all pairs. An adapter knows how sure it is from its ratings; any other
scorer is taken to be off by --noise."""
_KNOWN_BY = {
    "ratings": "probabilities of new ratings, by what the adapter's own ratings say",
    "sigma": "probabilities by the sigmas of the head",
    "assumed": "probabilities for an assumed noise of {noise:g} in quality: this scorer does not know how sure it is",
}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="say which picture is better, and how likely",
        description="Say which of two pictures is better, and how likely that is; rank more of them.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    add_paths(parser)
    parser.add_argument(
        "--noise",
        type=float,
        default=0.2,
        metavar="X",
        help="deviation of the quality of a picture, from 0 to 1, where the scorer does not know it (default .2)",
    )
    parser.add_argument("--json", action="store_true", help="print all pairs as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="no notes")
    add_model_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    need_paths(args)
    if not 0 < args.noise < float("inf"):
        raise GRMPError(f"--noise: expected a deviation above 0, such as 0.2, got {args.noise:g}")
    from grmp_hf.data.listing import list_images

    listing = list_images(args.paths, listed(args.list))
    paths, note = listing.paths, listing.note()
    if len(paths) < 2:
        raise GRMPError(f"expected at least two different pictures to compare, got {len(paths)}; name another one")
    if note is not None:
        say(args, note)
    from grmp_hf.preferring import compare

    scorer = load_scorer(args)
    found = compare(scorer, paths, noise=args.noise, batch_size=args.batch_size)
    about = {"scale": str(scorer.unit), "scorer": describe_scorer(scorer.identity), "known_by": found.known_by}
    if args.json:
        assumed = {"noise": args.noise} if found.known_by == "assumed" else {}
        print(json.dumps({**about, **assumed, **_all(found, paths, scorer.unit)}))
        return 0
    tell(*(_pair if len(paths) == 2 else _ranking)(found, paths, scorer.unit))
    say(args, f"scale {about['scale']}; scored by {about['scorer']}")
    say(args, _KNOWN_BY[found.known_by].format(noise=args.noise))
    return 0


def _pair(found: Comparison, paths: list[str], unit: RatingScale) -> list[str]:
    better, worse = found.order
    chance = found.chance[better, worse]
    return [
        f"{paths[better]} is better with probability {chance:.2f}",
        *(f"  {_score(found, at, unit)}  {paths[at]}{_unlike(found, at)}" for at in (better, worse)),
    ]


def _ranking(found: Comparison, paths: list[str], unit: RatingScale) -> list[str]:
    order, lines = found.order, ["rank  score     better than the next  path"]
    for place, at in enumerate(order):
        ahead = f"{found.chance[at, order[place + 1]]:.2f}" if place + 1 < len(order) else "-"
        lines.append(f"{place + 1:<4}  {_score(found, at, unit):<8}  {ahead:<20}  {paths[at]}{_unlike(found, at)}")
    return lines


def _score(found: Comparison, at: int, unit: RatingScale) -> str:
    """In the unit of the scorer: four digits, or as many as tell a ten-thousandth of its scale."""
    score = f"{found.scores.score[at]:.4g}"
    near = abs(float(score) - found.scores.score[at]) <= 1e-3 * (unit.high - unit.low)
    return score if near else f"{found.scores.score[at]:.{unit.places - 2}f}"


def _unlike(found: Comparison, at: int) -> str:
    return f"  ({UNLIKE})" if found.scores.unlike is not None and found.scores.unlike[at] else ""


def _all(found: Comparison, paths: list[str], unit: RatingScale) -> dict[str, Any]:
    """Pictures as they were given, their order, and the probability of each pair."""
    scores = found.scores
    rows = [
        {
            "path": path,
            "score": round(float(scores.score[at]), unit.places),
            "quality": round(float(scores.quality[at]), 6),
            "unlike": None if scores.unlike is None else bool(scores.unlike[at]),
        }
        for at, path in enumerate(paths)
    ]
    chance = [[round(float(p), 6) for p in row] for row in found.chance]
    return {"pictures": rows, "order": [paths[at] for at in found.order], "chance": chance}
