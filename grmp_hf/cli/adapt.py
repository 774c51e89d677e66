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
    find_recipe,
    find_start,
    join_processes,
    load_scorer,
    read_table,
    recipe_names,
    say,
    settle,
    tell,
)
from grmp_hf.cli.progress import Progress
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import OutputFolder, keep_apart

if TYPE_CHECKING:
    from grmp_hf.data import Row
    from grmp_hf.scoring import Scorer

__all__ = ["add_parser", "run"]

_FEWEST = 5
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "README.md", "split.json")
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
    parser.add_argument(
        "--data", required=True, metavar="X", help="table of ratings, folder with one, or Hub data set (owner/name)"
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
        default="default",
        metavar="DIR",
        help="adapter to start from, such as pretrain writes; none; or default: the prompts in the package, if any",
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
    if not 0 <= args.seed < 2**32:
        raise GRMPError(f"--seed: expected 0 to {2**32 - 1}, got {args.seed}")
    args.recipe = find_recipe("adapt", args.recipe)
    begun = find_start(args.start, args.model)
    keep_apart(args.output, "--start", begun)
    keep_apart(args.output, "--model", args.model)
    with _claim(args) as (output, report):
        return _run(args, begun, output, report, start)


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


def _run(args: argparse.Namespace, begun: Path | None, output: OutputFolder, report: OutputFolder, start: float) -> int:
    """Learn and measure, once it is clear where the results go."""
    from grmp_hf.cli import adapting
    from grmp_hf.data import split_rows
    from grmp_hf.training.few_shot import FewShotRecipe

    join_processes(args)
    recipe = FewShotRecipe() if args.recipe is None else FewShotRecipe.from_yaml(args.recipe)
    table = read_table(args.data, args)
    split = split_rows(table, shots=args.shots, seed=args.seed, stratified=args.stratified)
    train, test = split.select(table)
    split = split.with_contents(train)
    say(args, *table.notes, f"{len(train)} pictures teach, {len(test)} test: {split.rule}")
    base = load_scorer(args)
    if base.identity["adapter"]:
        raise GRMPError(f"--model: expected a base, got an adapter in {args.model!r}; name the base that it is for")
    recipe = settle(recipe, base, args)
    if begun is not None:
        adapting.check_start(begun, base)
        say(args, f"training starts from the prompts in {begun}")
    pixels = _shots(base, train, args)
    with Progress("train", 0, quiet=args.quiet) as progress:
        task = adapting.Task(table, split, base, args.model, args.seed, output, recipe, begun)
        scorer = adapting.train(task, pixels, progress.tell)
    if scorer is None:  # one of the other processes of accelerate launch
        return 0
    ridge = adapting.fit_baseline(scorer, pixels, train, args.batch_size)
    with Progress("test", len(test), quiet=args.quiet) as progress:
        results = adapting.score_both(scorer, test, ridge, args.batch_size, progress.advance)
    metrics = adapting.finish(task, scorer, results, report, start)
    _print(args, metrics, results.notes)
    return 1 if metrics["failed"] else 0


def _shots(base: Scorer, train: list[Row], args: argparse.Namespace) -> Any:
    """Views of the pictures that teach, uint8 ``(n, V, 3, S, S)``; a bad one is an error, before any work is done."""
    import torch

    from grmp_hf.scoring import iter_views

    views: list[torch.Tensor] = []
    for part in iter_views(train, base.views, batch_size=args.batch_size):
        for row, found in part:
            if not isinstance(found, torch.Tensor):
                raise GRMPError(f"{row.name}, drawn to learn from: {found}; or remove it from the ratings")
            views.append(found)
    return torch.stack(views)


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
        print("no rated pictures were left to test on: ask for fewer --shots to see how good it is")
    size = (args.output / "adapter_model.safetensors").stat().st_size / 1e3
    tell(f"adapter of {size:.0f} kB in {args.output}, for {metrics['model']}@{metrics['revision']}")
    tell(f"scores run from {metrics['scale']}; {metrics['seconds']:.0f} s, {metrics['peak_memory_mib']:.0f} MiB")
