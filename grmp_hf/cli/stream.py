"""``grmp-iqa stream``: one data set after the other -> experts, and what is learnt and kept of each."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cli.combine import expert_files, named
from grmp_hf.cli.options import (
    add_model_options,
    add_rating_options,
    check_recipe,
    check_seed,
    join_processes,
    leave_processes,
    load_scorer,
    positive,
    read_table,
    say,
    settle,
    tell,
)
from grmp_hf.cli.progress import Progress
from grmp_hf.outputs import OutputFolder, keep_apart
from grmp_hf.places import check_data
from grmp_hf.recipe_files import recipe_names
from grmp_hf.storing import is_first_process, write_json, writing

if TYPE_CHECKING:
    from grmp_hf.data import RatedTable
    from grmp_hf.streaming import Stream
    from grmp_hf.training.stream_recipe import StreamRecipe

__all__ = ["add_parser", "run"]

_FIGURES = "stream.json"
_METHODS = ("experts", "distillation", "ewc", "fine_tuning", "joint")
_EPILOG = """Pictures that a table marks as test are scored and teach nothing; of a table that marks none, one in five.
Pairs teach, each within its own data set, so that scales may differ. An interrupted run goes on when the same command
is started again."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "stream",
        help="learn one data set after the other",
        description="Learn data sets one after the other: an adapter for each, behind a gate, or one that goes on.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument(
        "sets",
        nargs="+",
        metavar="[NAME=]SET",
        help="table of ratings, folder with one, Hub data set, or NAME=DIR for an official data set; in their order",
    )
    parser.add_argument("--output", "-o", required=True, type=Path, metavar="DIR", help="folder of the experts")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"what is trained and how: {', '.join(recipe_names('stream'))}, or a file of YAML (default: default)",
    )
    parser.add_argument("--method", choices=_METHODS, help="instead of the recipe's")
    parser.add_argument("--strength", type=float, metavar="L", help="of distillation or ewc, instead of the recipe's")
    parser.add_argument("--memory", type=int, metavar="N", help="pictures of earlier sets that are learnt from again")
    parser.add_argument(
        "--shots",
        type=positive,
        metavar="N",
        help="pictures of each set that teach (default: its train part, or four of five)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of draws and of training (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace what --output holds")
    parser.add_argument("--json", action="store_true", help=f"print {_FIGURES} instead of a table")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress and no notes")
    add_rating_options(parser)
    add_model_options(parser, adapter=False, batches=False)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    start = time.monotonic()
    check_seed(args)
    places = named(args.sets, "set")
    for place in places.values():
        check_data(place)
    args.recipe = check_recipe("stream", args.recipe)
    keep_apart(args.output, "--model", args.model)
    with OutputFolder(args.output, (*expert_files(), _FIGURES), overwrite=args.overwrite) as output:
        code = _run(args, places, output, start)
    leave_processes()
    return code


def _run(args: argparse.Namespace, places: dict[str, str], output: OutputFolder, start: float) -> int:
    """Learn, once it is clear where the experts go."""
    from grmp_hf.combining import check_names
    from grmp_hf.learning import check_bare
    from grmp_hf.streaming import learn_stream, shared_tests

    check_names([*places])
    recipe = _recipe(args)
    join_processes(args)
    tables = {name: _read(name, place, args) for name, place in places.items()}
    say(args, *(f"{name}: {note}" for name, table in tables.items() for note in table.notes))
    base = load_scorer(args)
    check_bare(base)
    recipe = settle(recipe, base, args)
    shared = shared_tests(tables, shots=args.shots, seed=args.seed)
    say(args, *(_flattered(name, count) for name, count in shared.items() if count))
    with Progress("stream", 0, quiet=args.quiet) as progress:
        found = learn_stream(
            base,
            tables,
            recipe=recipe,
            shots=args.shots,
            seed=args.seed,
            name=args.output.resolve().name,
            work=output.work,
            tell=progress.tell,
        )
    if is_first_process():
        figures = {**_figures(found, recipe, start), "shared_pictures": shared}
        found.scorer.save(output.new)
        with writing(output.folder):
            write_json(output.new / _FIGURES, figures)
        output.publish()
        _print(args, figures)
    return 0


def _recipe(args: argparse.Namespace) -> StreamRecipe:
    """The recipe, with what the options change of it."""
    from grmp_hf.training.stream_recipe import StreamRecipe

    given = {name: getattr(args, name) for name in ("method", "strength", "memory")}
    return dataclasses.replace(
        StreamRecipe.named(args.recipe), **{name: value for name, value in given.items() if value is not None}
    )


def _flattered(name: str, count: int) -> str:
    whose = "1 test picture teaches" if count == 1 else f"{count} test pictures teach"
    return f"{name}: {whose} another data set, which may flatter its figures; to avoid that, leave it out of one table"


def _read(name: str, place: str, args: argparse.Namespace) -> RatedTable:
    from grmp_hf.data import BENCHMARKS, read_benchmark

    official = name in BENCHMARKS and f"{name}={place}" in args.sets
    return read_benchmark(name, place) if official else read_table(place, args)


def _figures(found: Stream, recipe: StreamRecipe, start: float) -> dict[str, Any]:
    """The content of ``stream.json``."""
    from grmp_hf.measuring import peak_memory_mib
    from grmp_hf.saving import package_versions

    scorer = found.scorer
    return {
        "model": scorer.identity["model"],
        "revision": scorer.identity["revision"],
        **found.judged.report(),
        "trained_weights": found.trained_weights,
        "recipe": dataclasses.asdict(recipe),
        "origin": scorer.origin,
        "identity": scorer.identity,
        "versions": package_versions(),
        "device": str(scorer.device),
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory_mib": peak_memory_mib(),
    }


def _print(args: argparse.Namespace, figures: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(figures))
        return
    names = figures["sets"]
    width = max(9, *(len(name) for name in names))
    tell("SRCC on the test pictures of each set (columns), after each was learnt (rows):")
    tell(" ".join(f"{name:>{width}}" for name in ["after", *names]))
    for name, row in zip(names, figures["matrix"], strict=True):
        tell(" ".join([f"{name:>{width}}", *(f"{'' if r is None else f'{r:.3f}':>{width}}" for r in row)]))
    if figures["figures"] is not None:
        tell(", ".join(f"{name} {value:.3f}" for name, value in figures["figures"].items()))
    shares = ", ".join(f"{name} {share:.2f}" for name, share in figures["gate_accuracy"].items())
    tell(f"test pictures that are nearest to their own expert: {shares}")
    weights = figures["trained_weights"]
    tell(f"{len(names)} experts in {args.output}, {weights} trained weights of an adapter; {figures['seconds']:.0f} s")
