"""``grmp-iqa pretrain``: photographs, or ratings of distorted ones -> prompts that few ratings are enough to adapt."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cli.options import (
    add_model_options,
    add_rating_options,
    check_recipe,
    check_seed,
    join_processes,
    leave_processes,
    load_scorer,
    read_table,
    say,
    settle,
    tell,
)
from grmp_hf.cli.progress import Progress
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import OutputFolder, keep_apart
from grmp_hf.recipe_files import recipe_names
from grmp_hf.record import ADAPTER_FILES
from grmp_hf.storing import is_first_process, write_json, writing

if TYPE_CHECKING:
    from grmp_hf.data import RatedTable
    from grmp_hf.learning import Pretrained
    from grmp_hf.scoring import Scorer
    from grmp_hf.tasks import Source

__all__ = ["add_parser", "run"]

_NAMES = (*ADAPTER_FILES, "metrics.json")
_EPILOG = """Photographs are distorted on the fly: 25 types, each a task. Ratings are divided into tasks by their column
"distortion". Tasks that are held out, on photographs of their own, choose the checkpoint. An interrupted run goes on
when the same command is started again."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "pretrain",
        help="learn a start for adapt from photographs without ratings",
        description="Learn, from many tasks, prompts that a few rated pictures are enough to adapt.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--photos", type=Path, metavar="DIR", help="folder of photographs, with all below it")
    source.add_argument(
        "--data",
        nargs="+",
        metavar="X",
        help="tables of ratings, folders with one, Hub data sets (owner/name), or NAME=DIR for an official data set",
    )
    parser.add_argument("--output", "-o", required=True, type=Path, metavar="DIR", help="folder of the adapter")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"what is learnt and how: {', '.join(recipe_names('pretrain'))}, or a file of YAML (default: default)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of episodes and training (default 0)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that load pictures (default 1)")
    parser.add_argument(
        "--held-out", nargs="+", metavar="NAME", help="tasks that choose the checkpoint (default: four types)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what --output holds")
    parser.add_argument("--json", action="store_true", help="print metrics.json instead of a summary")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress and no notes")
    add_rating_options(parser)
    add_model_options(parser, adapter=False, batches=False)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    start = time.monotonic()
    if args.workers < 0:
        raise GRMPError(f"--workers: expected at least 0, got {args.workers}")
    check_seed(args)
    args.recipe = check_recipe("pretrain", args.recipe)
    keep_apart(args.output, "--model", args.model)
    with OutputFolder(args.output, _NAMES, overwrite=args.overwrite) as output:
        code = _run(args, output, start)
    leave_processes()
    return code


def _run(args: argparse.Namespace, output: OutputFolder, start: float) -> int:
    """Learn, once it is clear where the adapter goes."""
    from grmp_hf.learning import check_bare, pretrain
    from grmp_hf.training.recipes import PretrainRecipe

    recipe = PretrainRecipe.named(args.recipe)
    join_processes(args)
    base = load_scorer(args)
    check_bare(base)
    recipe = settle(recipe, base, args)
    sources = _read_tables(args, base) if args.photos is None else [_read_photographs(args, base, recipe.labels)]
    with Progress("pretrain", 0, quiet=args.quiet) as progress:
        learnt = pretrain(
            base,
            sources,
            held_out=args.held_out,
            seed=args.seed,
            recipe=recipe,
            name=args.output.resolve().name,
            work=output.work,
            workers=args.workers,
            tell=progress.tell,
            say=lambda line: say(args, line),
        )
    if is_first_process():
        metrics = _metrics(learnt, start)
        _write(learnt.scorer, metrics, output)
        _print(args, metrics)
    return 0


def _metrics(learnt: Pretrained, start: float) -> dict[str, Any]:
    """The content of ``metrics.json``."""
    from grmp_hf.measuring import peak_memory_mib
    from grmp_hf.saving import package_versions

    scorer, identity = learnt.scorer, learnt.scorer.identity
    about = ("base_fingerprint", "preprocessing")
    return {
        "model": identity["model"],
        "revision": identity["revision"],
        **scorer.origin,
        **{name: identity[name] for name in about},
        "held_out_before": learnt.judgements[0],
        "held_out_after": learnt.chosen,
        "judgements": learnt.judgements,
        "adapter_sha256": identity["adapter_sha256"],
        "identity": identity,
        "versions": package_versions(),
        "device": str(scorer.device),
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory_mib": peak_memory_mib(),
    }


def _write(scorer: Scorer, metrics: dict[str, Any], output: OutputFolder) -> None:
    """Write adapter, card and ``metrics.json``, and put them in their place; remove the checkpoints."""
    from grmp_hf.cards import write_card

    scorer.save(output.new)
    with writing(output.folder):
        write_card(output.new, metrics)
        write_json(output.new / "metrics.json", metrics)
    output.publish()


def _read_photographs(args: argparse.Namespace, base: Scorer, labels: str) -> Source:
    from grmp_hf.data.photographs import read_photographs
    from grmp_hf.tasks import from_photographs

    processor = base.processor
    with Progress("photographs", 0, quiet=args.quiet) as progress:
        found = read_photographs(
            args.photos, processor.size, processor.uncropped, tell=lambda share: progress.tell("read", share)
        )
    say(args, *(f"left out: {note}" for note in found.notes))
    return from_photographs(args.photos.resolve().name, found, processor, labels)


def _read_tables(args: argparse.Namespace, base: Scorer) -> list[Source]:
    from grmp_hf.tasks import from_table

    tables = [_read(place, args) for place in args.data]
    say(args, *(note for table in tables for note in table.notes))
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise GRMPError(
            f"--data: expected tables of different names, got {', '.join(names)}; name each once, and rename "
            "what is called alike"
        )
    for table in tables:
        testing = sum(row.split == "test" for row in table.rows)
        if testing:
            say(args, f"{table.name}: left out {testing} rows of its test part")
    return [from_table(table, base.processor) for table in tables]


def _read(place: str, args: argparse.Namespace) -> RatedTable:
    from grmp_hf.data import BENCHMARKS, read_benchmark

    name, _, folder = place.partition("=")
    return read_benchmark(name, folder) if folder and name in BENCHMARKS else read_table(place, args)


def _print(args: argparse.Namespace, metrics: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(metrics))
        return
    before, after = metrics["held_out_before"], metrics["held_out_after"]
    print(f"held-out tasks after adaptation, before and after {after['step']} of {metrics['recipe']['steps']} steps:")
    print(f"loss {before['loss']:.4f} -> {after['loss']:.4f}, SRCC {before['srcc']:.3f} -> {after['srcc']:.3f}")
    size = (args.output / "adapter_model.safetensors").stat().st_size / 1e3
    tell(f"adapter of {size:.0f} kB in {args.output}, for {metrics['model']}@{metrics['revision']}")
    print(f"{metrics['seconds']:.0f} s, {metrics['peak_memory_mib']:.0f} MiB")
