"""``grmp-iqa adapt``: ratings -> adapter, card, figures beside the baselines, plot."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cli.figures import figures_table
from grmp_hf.cli.options import (
    add_model_options,
    add_rating_options,
    check_choices,
    check_recipe,
    check_seed,
    join_processes,
    leave_processes,
    load_scorer,
    read_choices,
    read_table,
    say,
    settle,
    tell,
)
from grmp_hf.cli.progress import Progress
from grmp_hf.cli.writing import COLUMNS, describe_scorer, write_table
from grmp_hf.embedded import find_start
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import OutputFolder, keep_apart
from grmp_hf.recipe_files import recipe_names
from grmp_hf.record import ADAPTER_FILES, SPLIT_FILE
from grmp_hf.storing import is_first_process, write_json, writing

if TYPE_CHECKING:
    from grmp_hf.comparing import Tested
    from grmp_hf.data import RatedTable, RatingScale
    from grmp_hf.scoring import Scorer

__all__ = ["add_parser", "run"]

_FEWEST = 5
_ADAPTER = (*ADAPTER_FILES, SPLIT_FILE)
_COLUMNS = (*COLUMNS[:8], "rating", "zero_shot", "ridge", *COLUMNS[8:])
_SCATTER = "scatter.png"
_REPORT = ("metrics.json", "scatter.png", "scores.csv", "scores.csv.json")
_TITLES = {"adapted": "adapted", "zero_shot": "zero-shot", "ridge": "ridge on embedding"}
_EPILOG = """The shots are drawn from the rows marked as train where the table marks a test part, else from all rows,
and what is left tests. Test ratings choose nothing: they are looked at once, at the end. An interrupted run goes on
when the same command is started again."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "adapt",
        help="learn a scale from rated pictures",
        description="Learn a scorer from a few rated pictures and measure it on the others, beside the baselines.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--data", metavar="X", help="table of ratings, folder with one, or Hub data set (owner/name)")
    given.add_argument(
        "--pairs", metavar="FILE", help="instead: table of choices between pictures, better,worse or a,b,choice"
    )
    parser.add_argument("--output", "-o", required=True, type=Path, metavar="DIR", help="folder of the adapter")
    parser.add_argument("--shots", type=int, metavar="N", help="pictures to learn from (default: all that may teach)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw and of training (default 0)")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"what is trained and how: {', '.join(recipe_names('adapt'))}, or a file of YAML (default: default)",
    )
    parser.add_argument(
        "--start",
        default="none",
        metavar="DIR",
        help="adapter to start from, such as pretrain writes; none (default); or package: the prompts inside it",
    )
    parser.add_argument("--stratified", action="store_true", help="draw the shots spread over the range of quality")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="folder of metrics, plot and scores (default: --output)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what --output holds")
    parser.add_argument("--json", action="store_true", help="print metrics.json instead of a table")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress and no notes")
    add_rating_options(parser)
    add_model_options(parser, adapter=False)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; 1 if some of the test pictures could not be scored."""
    start = time.monotonic()
    if args.shots is not None and args.shots < _FEWEST:
        raise GRMPError(f"--shots: expected at least {_FEWEST}, got {args.shots}; fewer say nothing about a taste")
    check_seed(args)
    check_choices(args)
    args.recipe = check_recipe("adapt", args.recipe)
    args.start = find_start(args.start, args.model)
    keep_apart(args.output, "--start", args.start)
    keep_apart(args.output, "--model", args.model)
    with _claim(args) as (output, report):
        code = _run(args, output, report, start)
    leave_processes()
    return code


@contextmanager
def _claim(args: argparse.Namespace) -> Iterator[tuple[OutputFolder, OutputFolder]]:
    """The folders of adapter and report, or one that is both."""
    together = args.report is None or args.report.resolve() == args.output.resolve()
    names = _ADAPTER + (_REPORT if together else ())
    with OutputFolder(args.output, names, overwrite=args.overwrite) as output:
        if together:
            yield output, output
            return
        run = output.work.run
        with OutputFolder(args.report, _REPORT, overwrite=args.overwrite, shared=True, run=run) as report:
            yield output, report


def _run(args: argparse.Namespace, output: OutputFolder, report: OutputFolder, start: float) -> int:
    """Learn and measure, once it is clear where the results go."""
    from grmp_hf.comparing import score_tests
    from grmp_hf.data import split_rows
    from grmp_hf.learning import adapt, check_bare
    from grmp_hf.training.recipes import FewShotRecipe

    join_processes(args)
    recipe = FewShotRecipe.named(args.recipe)
    table = read_table(args.data, args) if args.pairs is None else read_choices(args.pairs, args)
    split = split_rows(table, shots=args.shots, seed=args.seed, stratified=args.stratified)
    say(args, *table.notes, f"{len(split.train)} pictures teach, {len(split.test)} test: {split.rule}")
    base = load_scorer(args)
    check_bare(base)
    recipe = settle(recipe, base, args)
    if args.start is not None:
        say(args, f"training starts from the prompts in {args.start}")
    options = {"recipe": recipe, "start": args.start, "seed": args.seed}
    with Progress("train", 0, quiet=args.quiet) as progress:
        name = args.output.resolve().name
        scorer = adapt(base, table, shots=split, name=name, work=output.work, tell=progress.tell, **options)
    if not is_first_process():
        return 0
    decided = scorer.origin.get("evidence")
    say(args, *([] if decided is None else [decided["decision"], decided["more"]]))
    with Progress("test", len(split.test), quiet=args.quiet) as progress:
        tested = score_tests(scorer, table, batch_size=args.batch_size, advance=progress.advance)
    metrics = _metrics(scorer, table, tested, start)
    _write(scorer, table, tested, metrics, output, report)
    _print(args, metrics, tested.notes)
    return 1 if metrics["failed"] else 0


def _metrics(scorer: Scorer, table: RatedTable, tested: Tested, start: float) -> dict[str, Any]:
    """The content of ``metrics.json``."""
    from grmp_hf.measuring import peak_memory_mib
    from grmp_hf.saving import package_versions

    identity, origin = scorer.identity, scorer.origin
    return {
        "model": identity["model"],
        "revision": identity["revision"],
        "shots": origin["shots"],
        "seed": origin["seed"],
        **tested.figures(),
        "protocol": f"Split: {origin['split_rule']}; seed {origin['seed']}. Ratings of test pictures chose nothing.",
        "data": table.name,
        "data_hash": origin["data_hash"],
        "split_hash": origin["split_hash"],
        "adapter_sha256": identity["adapter_sha256"],
        "recipe": origin["recipe"],
        "evidence": origin.get("evidence"),
        "start": origin["start"],
        "preprocessing": identity["preprocessing"],
        "scale": str(scorer.unit),
        "rating_scale": scorer.unit.to_dict(),
        "scorer": describe_scorer(identity),
        "identity": identity,
        "versions": package_versions(),
        "device": str(scorer.device),
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory_mib": peak_memory_mib(),
    }


def _write(
    scorer: Scorer,
    table: RatedTable,
    tested: Tested,
    metrics: dict[str, Any],
    output: OutputFolder,
    report: OutputFolder,
) -> None:
    """Write everything, and put it in its place."""
    from grmp_hf.cards import write_card

    measured = metrics["srcc"] is not None
    scorer.save(output.new)
    with writing(output.folder):
        write_card(output.new, metrics, picture=_SCATTER if measured and report is output else None)
    if report is not output:
        report.begin()
    with writing(report.folder):
        about = {key: metrics[key] for key in ("scale", "rating_scale", "scorer", "identity", "failed")}
        rows = ({**row, "scale": metrics["scale"], "scorer": metrics["scorer"]} for row in tested.rows)
        write_table(rows, "csv", report.new / "scores.csv", about, _COLUMNS)
        if measured:
            _plot(table, tested, metrics, report.new / _SCATTER)
        write_json(report.new / "metrics.json", metrics)
    if report is not output:
        report.publish()
    output.publish()


def _plot(table: RatedTable, tested: Tested, metrics: dict[str, Any], path: Path) -> None:
    from grmp_hf.evaluation.logistic import ENOUGH, fit_logistic
    from grmp_hf.evaluation.plots import scatter
    from grmp_hf.evaluation.report import format_figure

    figure = f"SRCC {format_figure(metrics['srcc'], metrics['srcc_interval'])}"
    enough = len(tested.rating) >= ENOUGH
    few = "" if enough else f"; too few for a fitted curve ({ENOUGH} are needed)"
    scatter(
        tested.score,
        tested.rating,
        path,
        scale=_axis(table.scale),
        title=f"{metrics['model']}, {metrics['shots']} ratings",
        caption=f"{figure}, {metrics['n_test']} test pictures of {table.name}{few}",
        curve=fit_logistic(tested.score, tested.rating) if enough else None,
    )


def _axis(scale: RatingScale) -> str:
    best = scale.high if scale.higher_is_better else scale.low
    return f"{scale.low:.15g} to {scale.high:.15g}{scale.unit and ' ' + scale.unit}, {best:.15g} = best"


def _untested(metrics: dict[str, Any]) -> str:
    """Why there are no figures."""
    left = metrics["n_test"] + metrics["failed"]
    if not left:
        return "no rated pictures were left to test on"
    read = f", of which {metrics['failed']} cannot be read" if metrics["failed"] else ""
    return f"{left} rated picture{'s were' if left > 1 else ' was'} left to test on{read}, and figures take two"


def _print(args: argparse.Namespace, metrics: dict[str, Any], notes: list[str]) -> None:
    say(args, *(f"left out: {note}" for note in notes), *(f"note: {caveat}" for caveat in metrics["caveats"]))
    if args.json:
        print(json.dumps(metrics))
        return
    if metrics["srcc"] is not None:
        methods = {"adapted": metrics, **metrics["baselines"]}
        print(f"{metrics['n_test']} test pictures, 95 % bootstrap intervals")
        print(figures_table({_TITLES[name]: figures for name, figures in methods.items()}))
    else:
        print(f"{_untested(metrics)}: ask for fewer --shots to see how good it is")
    size = (args.output / "adapter_model.safetensors").stat().st_size / 1e3
    tell(f"adapter of {size:.0f} kB in {args.output}, for {metrics['model']}@{metrics['revision']}")
    tell(f"scores run from {metrics['scale']}; {metrics['seconds']:.0f} s, {metrics['peak_memory_mib']:.0f} MiB")
