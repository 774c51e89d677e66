"""``grmp-iqa evaluate``: scores, or a scorer, against ratings -> metrics with intervals."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from grmp_hf.cli.figures import figures_table
from grmp_hf.cli.options import add_model_options, add_rating_options, load_scorer, read_table, tell
from grmp_hf.cli.progress import Progress
from grmp_hf.cli.taught import leave_out_taught, split_of_scorer, split_of_scores
from grmp_hf.cli.writing import describe_scorer
from grmp_hf.errors import GRMPError

if TYPE_CHECKING:
    from grmp_hf.cli.joining import ScoreTable
    from grmp_hf.cli.taught import Found
    from grmp_hf.data import RatedTable, RatingScale, Row

__all__ = ["add_parser", "run"]

_EPILOG = """A table with a test part (a column that says train or test) is evaluated on that part. Pictures from which
the adapter has learnt are left out, told by their content, where the split.json that says which they were is found.
Scores are joined with ratings by path, by content, and by name where no other picture has it; the pictures need not be
there. Correlations are positive where scorer and raters agree, also for ratings of which low is best."""


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

    scored = _scores_of_model(args) if args.scores is None else _scores_of_file(args)
    with Progress("evaluate", 0) as progress:
        figures = evaluate_scores(scored.scores, scored.ratings, tell=progress.tell)
    notes = [*scored.about["notes"], *_about_figures(figures, scored)]
    if args.json:
        print(json.dumps({**figures, **scored.about, "notes": notes}))
    else:
        print(figures_table({f"{figures['n']} pictures": figures}))
        tell(f"scored by {scored.about['scorer']}")
    tell(*(f"note: {note}" for note in notes), to=sys.stderr)
    return 1 if scored.about["failed"] else 0


class _Scored(NamedTuple):
    """Scores and ratings of the same pictures in the unit of the ratings, and what to say beside the figures."""

    scores: list[float]
    ratings: list[float]
    about: dict[str, Any]


def _scores_of_model(args: argparse.Namespace) -> _Scored:
    from torch import Tensor, stack

    from grmp_hf.views import iter_views

    table = read_table(args.ratings, args)
    scorer = load_scorer(args)
    table, notes = _in_direction(table, args, scorer.scale)
    rows = _choose_rows(table, args, notes)
    rows = _leave_out(rows, split_of_scorer(scorer), table, notes)
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
    _check_enough(len(kept), table.name, "no correlation of fewer means anything")
    return _Scored(scores, [row.mos for row in kept], {
        "scorer": describe_scorer(scorer.identity),
        "identity": scorer.identity,
        "data_hash": table.content_hash,
        "rating_scale": table.scale.to_dict(),
        "failed": len(rows) - len(kept),
        "notes": notes,
    })  # fmt: skip


def _scores_of_file(args: argparse.Namespace) -> _Scored:
    from grmp_hf.cli.joining import join, read_scores
    from grmp_hf.data import RatingScale
    from grmp_hf.data.cells import choose_ratings
    from grmp_hf.data.columns import shown
    from grmp_hf.data.sources import open_table

    same = Path(args.ratings).is_file() and args.scores.is_file() and os.path.samefile(args.ratings, args.scores)
    table = read_table(args.ratings, args, need_pictures=False)
    rated_in = choose_ratings(open_table(args.scores)[0], args.rating_column)[0] if same else None
    given = read_scores(args.scores, rated_in=rated_in)
    recorded = given.about.get("rating_scale")
    table, notes = _in_direction(table, args, RatingScale.from_dict(recorded) if recorded else None)
    rows = _choose_rows(table, args, notes)
    joined = join(rows, given)
    where = f"{args.ratings} joined with {args.scores}"
    names = f"ratings name {shown(rows[0].name)}, scores {shown(given.scores[0].path)}"
    _check_enough(len(joined.rows), where, names)
    found = split_of_scores(given.adapter, args.adapter, _places(given))
    kept = _leave_out(joined.rows, found, table, notes)
    _check_enough(len(kept), where, "give ratings of more pictures that have not taught")
    value_of = {row.name: value for row, value in zip(joined.rows, joined.values, strict=True)}
    ratings, values = [row.mos for row in kept], [value_of[row.name] for row in kept]
    if given.quality:
        scores = [table.scale.to_score(value) for value in values]
    else:
        scores = values if table.scale.higher_is_better else [-value for value in values]
    if scores == ratings:
        notes.append(f"scores and ratings are the same numbers: is the column {given.column!r} really one of scores?")
    return _Scored(scores, ratings, {
        "scorer": given.scorer,
        "scores": str(args.scores),
        "data_hash": table.content_hash,
        "rating_scale": table.scale.to_dict(),
        "failed": joined.failed,
        "notes": [*notes, *given.notes, *joined.notes],
    })  # fmt: skip


def _in_direction(
    table: RatedTable, args: argparse.Namespace, recorded: RatingScale | None
) -> tuple[RatedTable, list[str]]:
    """The ratings in the direction of the adapter's own scale where nothing else is said, and all notes."""
    notes = list(table.notes)
    if recorded is None or recorded.higher_is_better == (args.up is not False):
        return table, notes
    if args.up is None:
        options = argparse.Namespace(**{**vars(args), "up": False})
        table = read_table(args.ratings, options, need_pictures=args.scores is None)
        told = "low is taken for best, as the adapter's own scale has it; --higher-is-better changes this"
        return table, [*table.notes, told]
    option = "--higher-is-better" if args.up else "--lower-is-better"
    return table, [*notes, f"{option} is how these ratings are read; the adapter's own scale is {recorded}"]


def _choose_rows(table: RatedTable, args: argparse.Namespace, notes: list[str]) -> list[Row]:
    """The rows of the test part, where the table marks one and nothing else is asked for."""
    marked = [row for row in table.rows if row.split == "test"]
    if args.part == "test" and not marked:
        raise GRMPError(f"{table.name}: --part test: expected rows marked as test, found none; see --split-column")
    if not marked or args.part == "all":
        return list(table.rows)
    notes.append(f"the {len(marked)} rows of the test part are used; --part all takes every row")
    return marked


def _leave_out(rows: list[Row], found: Found, table: RatedTable, notes: list[str]) -> list[Row]:
    split, told = found
    notes += told
    if split is None:
        return rows
    rows, told = leave_out_taught(rows, split, table.name)
    notes += told
    return rows


def _places(given: ScoreTable) -> list[Path]:
    """Where the adapter that has given a table of scores may lie."""
    name, told = (given.adapter or {}).get("adapter", ""), given.about.get("adapter_folder")
    beside = [Path(name), given.file.parent, given.file.parent / name, given.file.parent.parent / name]
    return [Path(told), *beside] if told else beside


def _check_enough(count: int, where: str, remedy: str) -> None:
    from grmp_hf.data.numbers import MIN_RATINGS

    if count < MIN_RATINGS:
        raise GRMPError(f"{where}: expected at least {MIN_RATINGS} rated pictures with a score, got {count}; {remedy}")


def _about_figures(figures: dict[str, Any], scored: _Scored) -> list[str]:
    """What a reader must know before trusting the figures."""
    from grmp_hf.evaluation.metrics import caveats

    notes, scale = caveats(scored.scores, scored.ratings), scored.about["rating_scale"]
    if figures["srcc"] < 0 and figures["srcc_interval"] and figures["srcc_interval"][1] < 0:
        other = "--lower-is-better" if scale["higher_is_better"] else "--higher-is-better"
        end = "low" if scale["higher_is_better"] else "high"
        notes += [
            f"SRCC is negative: the scorer orders these pictures the other way round than the ratings, of which "
            f"{'high' if end == 'low' else 'low'} is read as best; if {end} is best, add {other}"
        ]
    return notes
