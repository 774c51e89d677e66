"""``grmp-iqa evaluate``: scores, or a scorer, against ratings -> metrics with intervals."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cli.figures import figures_table
from grmp_hf.cli.options import add_model_options, add_rating_options, load_scorer, read_table
from grmp_hf.cli.progress import Progress
from grmp_hf.cli.writing import describe_scorer
from grmp_hf.errors import GRMPError

if TYPE_CHECKING:
    from grmp_hf.data import RatedTable, Row

__all__ = ["add_parser", "run"]

_EPILOG = """A table with a test part (a column that says train or test) is evaluated on that part. Pictures from which
the adapter has learnt are left out where its folder holds the split.json that says which they were. Correlations are
positive where scorer and raters agree, also for ratings of which low is best."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="compare scores with ratings",
        description="SRCC, KRCC, PLCC raw and after a four-parameter logistic fit, RMSE; 95 % bootstrap intervals.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("ratings", metavar="RATINGS", help="table, folder or Hub data set with ratings")
    parser.add_argument(
        "--scores", type=Path, metavar="FILE", help="scores that exist (csv, jsonl, parquet); runs no model"
    )
    parser.add_argument("--part", choices=("test", "all"), help="which rows (default: test where the table marks it)")
    parser.add_argument("--json", action="store_true", help="print figures and identity as JSON")
    add_rating_options(parser)
    add_model_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; 1 if some of the pictures could not be scored."""
    from grmp_hf.evaluation.metrics import evaluate_scores

    if args.scores is not None:
        from grmp_hf.cli.joining import join_scores

        scores, ratings, about = join_scores(args)
    else:
        scores, ratings, about = _score_table(args)
    figures = evaluate_scores(scores, ratings)
    if args.json:
        print(json.dumps({**figures, **about}))
    else:
        print(figures_table({f"{figures['n']} pictures": figures}))
        print(f"scored by {about['scorer']}")
    for note in about["notes"]:
        print(f"note: {note}", file=sys.stderr)
    return 1 if about["failed"] else 0


def _score_table(args: argparse.Namespace) -> tuple[list[float], list[float], dict[str, Any]]:
    """Scores on the table's own scale, ratings, and what to say beside the figures."""
    from torch import Tensor, stack

    from grmp_hf.scoring import iter_views

    table = read_table(args.ratings, args)
    scorer = load_scorer(args)
    rows, notes = _choose_rows(table, args)
    scores: list[float] = []
    kept: list[Row] = []
    with Progress("evaluate", len(rows)) as progress:
        for part in iter_views(rows, scorer.views, batch_size=args.batch_size):
            good = [(row, found) for row, found in part if isinstance(found, Tensor)]
            notes += [f"left out: {found}" for _, found in part if not isinstance(found, Tensor)]
            if good:
                quality = scorer.quality(stack([found for _, found in good]))
                scores += table.scale.to_score(quality).tolist()
                kept += [row for row, _ in good]
            progress.advance(len(part))
    if len(kept) < 2:
        raise GRMPError(f"{table.name}: expected at least two rated pictures that can be read, got {len(kept)}")
    about = {
        "scorer": describe_scorer(scorer.identity),
        "identity": scorer.identity,
        "data_hash": table.content_hash,
        "rating_scale": table.scale.to_dict(),
        "failed": len(rows) - len(kept),
        "notes": [*table.notes, *notes],
    }
    return scores, [row.mos for row in kept], about


def _choose_rows(table: RatedTable, args: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """The rows to evaluate on, without those that the adapter has learnt from, and notes on the choice."""
    rows, notes = list(table.rows), []
    marked = [row for row in rows if row.split == "test"]
    if args.part == "test" and not marked:
        raise GRMPError(f"{table.name}: --part test: expected rows marked as test, found none; see --split-column")
    if marked and args.part != "all":
        rows = marked
        notes.append(f"the {len(rows)} rows of the test part are used; --part all takes every row")
    record = Path(args.adapter or "", "split.json")
    if args.adapter and record.is_file():
        from grmp_hf.data import Split

        taught = set(Split.load(record).train)
        left = [row for row in rows if row.name not in taught]
        if len(left) < len(rows):
            notes.append(f"{len(rows) - len(left)} pictures are left out: the adapter has learnt from them")
        rows = left
    if not rows:
        raise GRMPError(f"{table.name}: no picture is left that the adapter has not learnt from; give other ratings")
    return rows, notes
