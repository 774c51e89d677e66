"""``grmp-iqa combine``: adapters that exist already -> experts, of which the gate chooses for every picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from grmp_hf.cli.options import (
    add_model_options,
    add_rating_options,
    check_seed,
    load_scorer,
    positive,
    read_table,
    say,
    tell,
)
from grmp_hf.cli.progress import Progress
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import OutputFolder, keep_apart
from grmp_hf.record import ADAPTER_FILES, EXPERTS, EXPERTS_FILE, SPLIT_FILE
from grmp_hf.storing import writing

__all__ = ["NAMES", "add_parser", "named", "run"]

NAMES = (EXPERTS_FILE, "gate.safetensors", "README.md", SPLIT_FILE)
"""What lies beside the folders of experts; see `expert_files` for those."""

_EPILOG = """The gate knows an adapter by the pictures that have taught it. Of a folder or table named with --pictures,
those count that the adapter's split.json names, or all where it knows none of them. An adapter that is a folder of
experts already, such as stream or combine writes, brings its own."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "combine",
        help="let several adapters judge together",
        description="Put adapters of one base behind a gate: each judges most where pictures are like its own.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("adapters", nargs="+", metavar="[NAME=]DIR", help="adapter; its folder's name if none is given")
    parser.add_argument("--output", "-o", required=True, type=Path, metavar="DIR", help="folder of the experts")
    parser.add_argument(
        "--pictures",
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="folder or table of the pictures that have taught an adapter; may be repeated",
    )
    parser.add_argument("--clusters", type=positive, default=128, metavar="K", help="centres of each (default 128)")
    parser.add_argument(
        "--temperature", type=float, default=32.0, metavar="T", help="how sharply distances decide (default 32)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the centres (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace what --output holds")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress and no notes")
    add_rating_options(parser)
    add_model_options(parser, adapter=False, batches=False)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    adapters = named(args.adapters, "adapter")
    pictures = named(args.pictures, "--pictures", bare=False)
    check_seed(args)
    if not 0 <= args.temperature < float("inf"):
        raise GRMPError(f"--temperature: expected a finite number of at least 0, got {args.temperature:g}")
    for place in [*adapters.values(), args.model]:
        keep_apart(args.output, "an adapter", place)
    with OutputFolder(args.output, expert_files(), overwrite=args.overwrite) as output:
        return _run(args, adapters, pictures, output)


def _run(args: argparse.Namespace, adapters: dict[str, str], pictures: dict[str, str], output: OutputFolder) -> int:
    from grmp_hf.combining import combine

    if args.model == "default":
        args.model, recorded = _base_of(next(iter(adapters.values())))
        args.revision = args.revision or recorded
    base = load_scorer(args)
    taught = {name: _pictures(args, name, adapters.get(name), place) for name, place in pictures.items()}
    settings = {"clusters": args.clusters, "temperature": args.temperature, "seed": args.seed}
    with Progress("combine", 0, quiet=args.quiet) as progress:
        name = args.output.resolve().name
        found = combine(base, adapters, pictures=taught, name=name, tell=progress.tell, **settings)
    output.begin()
    with writing(args.output):
        found.save(output.new)
    output.publish()
    names = list(found.model.names)  # type: ignore[arg-type]
    done = {"experts": names, "scale": str(found.unit), "output": str(args.output)}
    what = f"{len(names)} experts in {args.output}: {', '.join(names)}; scores from {found.unit}"
    tell(json.dumps(done) if args.json else what)
    return 0


def named(places: list[str], what: str, *, bare: bool = True) -> dict[str, str]:
    """Places by the names before their equals signs, or, if ``bare``, those of their folders.

    Raises:
        GRMPError: a place without a name where one is needed, or two of one name.
    """
    found: dict[str, str] = {}
    for place in places:
        name, equals, rest = place.partition("=")
        if not equals and not bare:
            raise GRMPError(f"{what} {place}: expected NAME=PLACE, got no name; names are those of the adapters")
        name, rest = (name, rest) if equals else (Path(place).resolve().name, place)
        name = name if equals or not Path(rest).is_file() else Path(rest).stem
        if name in found:
            raise GRMPError(
                f"{what} {place}: expected a name that is not taken, got {name!r} twice; give another one, such as "
                f"{name}_2={rest}"
            )
        found[name] = rest
    return found


def expert_files() -> tuple[str, ...]:
    """Names, as patterns, of all that a folder of experts holds."""
    return (*NAMES, *(f"{EXPERTS}/*/{file}" for file in (*ADAPTER_FILES, SPLIT_FILE)))


def _base_of(place: str) -> tuple[str, str | None]:
    """The base that an adapter, or the first of several experts, records, and its commit."""
    from grmp_hf.adapter_files import adapter_config, choose_adapter, recorded_base

    files = choose_adapter("default", place, None, False)
    assert files is not None
    first = next(iter(files.experts.values()), files)
    config = adapter_config(first)
    return recorded_base(first, config), config.revision


def _pictures(args: argparse.Namespace, name: str, adapter: str | None, place: str) -> list[Any]:
    """The pictures in a place that have taught an adapter, as far as it says which."""
    from grmp_hf.data.identity import KnownPictures
    from grmp_hf.data.listing import list_images
    from grmp_hf.data.splits import Split

    if Path(place).is_file():
        found: list[Any] = [row.image for row in read_table(place, args).rows]
    else:
        found = [Path(path) for path in list_images([place]).paths]
    split = Split.load_own(adapter) if adapter else None
    known = KnownPictures(split.contents.values()) if split is not None else None
    own = [picture for picture in found if known is not None and known.holds(picture)]
    what = (
        f"{len(own)} of {len(found)} have taught it" if own else f"all {len(found)}, which its {SPLIT_FILE} leaves open"
    )
    say(args, f"{name}: {what}")
    return own or found
