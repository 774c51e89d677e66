"""``grmp-iqa benchmark``: data sets x protocols x shots x draws x methods -> rows, table, report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from grmp_hf.cli.options import device, positive, say, tell
from grmp_hf.cli.progress import Progress
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import OutputFolder
from grmp_hf.storing import writing

if TYPE_CHECKING:
    from grmp_hf.benchmark.config import BenchmarkConfig
    from grmp_hf.benchmark.stream_config import StreamsConfig
    from grmp_hf.scoring import Scorer

    Config = TypeVar("Config", BenchmarkConfig, StreamsConfig)

__all__ = ["add_parser", "run"]

_REPORTS = ("table.md", "report.html", "config.json")
_STREAM_REPORTS = ("table.md", "curves.svg", "config.json")
_EPILOG = """docs/benchmark.md has the keys of CONFIG.yaml. Under the protocol clean, ratings of test pictures are read
once, after the last step; under paper they choose the epoch, as in the published code. Finished cells are kept: the
same command started again goes on where it stopped."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "benchmark",
        help="compare methods on data sets",
        description="Run methods on data sets with few labels, many draws, and write rows, a table and a report.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="what is compared on what")
    parser.add_argument(
        "--data", action="append", default=[], metavar="NAME=PLACE", help="place of a data set of the configuration"
    )
    parser.add_argument("--output", "-o", type=Path, metavar="DIR", help="folder of the results (default: its key)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these of its methods")
    parser.add_argument("--shots", nargs="+", type=positive, metavar="N", help="instead of its numbers of shots")
    parser.add_argument("--draws", type=positive, metavar="N", help="instead of its number of draws")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="features of pictures (default: features in --output)"
    )
    parser.add_argument(
        "--thumbnails", action="store_true", help="show the worst cases in the report, as small pictures"
    )
    parser.add_argument("--device", type=device, help="such as cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--offline", action="store_true", help="never ask the Hub: folders and the local cache only")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON lines instead of the table")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress and no notes")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    from grmp_hf.benchmark.config import BenchmarkConfig
    from grmp_hf.benchmark.stream_config import StreamsConfig, is_streams

    start = time.monotonic()
    kind: Any = StreamsConfig if is_streams(args.config) else BenchmarkConfig
    config = _read_config(args, kind)
    if config.output is None:
        raise GRMPError(f"{args.config}: expected a folder for the results; add the key output, or --output DIR")
    reports, work = (_REPORTS, _run) if isinstance(config, BenchmarkConfig) else (_STREAM_REPORTS, _run_streams)
    with OutputFolder(config.output, ("results.jsonl", *reports), overwrite=True, shared=True) as output:
        return work(config, args, output, start)


def _run_streams(config: StreamsConfig, args: argparse.Namespace, output: OutputFolder, start: float) -> int:
    """Run streams, once it is clear where the results go."""
    from grmp_hf.benchmark.store import ResultStore
    from grmp_hf.benchmark.stream_reporting import write_streams
    from grmp_hf.benchmark.streams import StreamRunner, plan_streams
    from grmp_hf.benchmark.tables import read_tables

    base = _load_base(config, args)
    tables = read_tables(config)
    cells = plan_streams(config, tables)
    notes = dict.fromkeys(note for table in tables.values() for note in table.notes)
    say(args, *notes, f"{len(cells)} streams planned")
    output.begin()
    output.adopt("results.jsonl")
    store = ResultStore(output.folder)
    with writing(output.folder), Progress("benchmark", 0, quiet=args.quiet) as progress:
        rows = StreamRunner(base, store).run(cells, progress.tell)
    table = write_streams(config, store, rows, folder=output.new)
    output.publish(keep=True)
    _print(args, rows, table, f"{len(rows)} rows in {store.path}, curves in {output.folder / 'curves.svg'}", start)
    return 0


def _run(config: BenchmarkConfig, args: argparse.Namespace, output: OutputFolder, start: float) -> int:
    """Run the benchmark, once it is clear where the results go."""
    from grmp_hf.benchmark.choosing import make_methods, own_columns
    from grmp_hf.benchmark.planning import needed_columns, needed_rows, plan_cells
    from grmp_hf.benchmark.reporting import write_results
    from grmp_hf.benchmark.runner import Runner
    from grmp_hf.benchmark.store import ResultStore
    from grmp_hf.benchmark.tables import read_tables
    from grmp_hf.features import FeatureStore

    base = _load_base(config, args)
    methods = make_methods(config.methods, base, config.folder)
    tables = read_tables(config)
    cells = plan_cells(config, tables, methods)
    notes = dict.fromkeys(note for table in tables.values() for note in table.notes)
    say(args, *notes, f"{len(cells)} fits planned")
    output.begin()
    output.adopt("results.jsonl")
    store = ResultStore(output.folder)
    with writing(args.cache or output.folder):
        place, known = args.cache or output.folder / "features", own_columns(methods).known
        features = FeatureStore(place, base, **known, run=output.work.run)
        with Progress("benchmark", 0, quiet=args.quiet) as progress:
            columns = (*features.usual, *needed_columns(cells))
            features.describe(needed_rows(cells), progress.tell, columns)
            rows = Runner(features, store).run(cells, progress.tell)
    given = {"command": _command(args), "cells": cells, "thumbnails": args.thumbnails}
    table = write_results(config, store, rows, folder=output.new, **given)
    output.publish(keep=True)
    _print(args, rows, table, f"{len(rows)} rows in {store.path}, report in {output.folder / 'report.html'}", start)
    return 0


def _print(args: argparse.Namespace, rows: list[dict[str, Any]], table: str, where: str, start: float) -> None:
    """Rows as JSON lines, or the table and where the rest is."""
    if args.json:
        print(*map(json.dumps, rows), sep="\n")
        return
    print(f"{table}\n")
    tell(where)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")


def _read_config(args: argparse.Namespace, kind: type[Config]) -> Config:
    """The configuration with what the command line says otherwise."""
    places = [given.partition("=") for given in args.data]
    wrong = [given for given, (name, _, place) in zip(args.data, places, strict=True) if not name or not place]
    if wrong:
        raise GRMPError(f"--data: expected NAME=PLACE, got {wrong[0]!r}")
    config = kind.from_yaml(args.config).with_places({name: place for name, _, place in places})
    if args.methods is not None:
        config = config.only_methods(args.methods)
    changed = {key: getattr(args, key) for key in ("output", "draws") if getattr(args, key) is not None}
    if args.shots is not None:
        several = tuple(dict.fromkeys(args.shots))
        changed["shots"] = several if isinstance(config.shots, tuple) else _one(several)
    return dataclasses.replace(config, **changed)


def _one(shots: tuple[int, ...]) -> int:
    if len(shots) > 1:
        raise GRMPError(f"--shots: expected one number for streams, got {', '.join(map(str, shots))}")
    return shots[0]


def _load_base(config: BenchmarkConfig | StreamsConfig, args: argparse.Namespace) -> Scorer:
    import transformers

    from grmp_hf.hub import load
    from grmp_hf.learning import check_bare

    transformers.utils.logging.disable_progress_bar()
    offline = True if args.offline else None
    base = load(config.model, revision=config.revision, device=args.device, local_files_only=offline)
    check_bare(base, "the key model")
    return base


def _command(args: argparse.Namespace) -> str:
    """What was typed, in one order."""
    words = ["grmp-iqa", "benchmark", str(args.config)]
    for place in args.data:
        words += ["--data", place]
    for option in ("output", "methods", "shots", "draws", "cache", "device"):
        value = getattr(args, option)
        if value is not None:
            words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words + [f"--{flag}" for flag in ("thumbnails", "offline") if getattr(args, flag)])
