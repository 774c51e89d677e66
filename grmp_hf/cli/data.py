"""``grmp-iqa data``: list, check, build and push the official data sets of the field."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cli.options import say, tell
from grmp_hf.errors import GRMPError, printable
from grmp_hf.outputs import OutputFolder
from grmp_hf.scratch import scratch_folder
from grmp_hf.storing import writing

if TYPE_CHECKING:
    from grmp_hf.data import BenchmarkSpec, RatedTable

__all__ = ["add_parser", "run"]

_EPILOG = """examples:
  grmp-iqa data list
  grmp-iqa data check koniq10k downloads/koniq10k
  grmp-iqa data check koniq10k downloads/koniq10k --option scores=1-5
  grmp-iqa data push kadid10k kadid10k.zip me/kadid10k

Nothing is downloaded: get the official archive from the data set's home page first."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command with its actions."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "data",
        help="check, build or push an official data set",
        description="Official data sets of the field: what there is, whether a folder is right, Parquet, the Hub.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _add_action(actions, "list", "print the data sets that can be read", _list)
    check = _add_action(actions, "check", "say whether a folder or archive is the whole data set", _check)
    build = _add_action(actions, "build", "write Parquet files with the pictures inside, and a card", _build)
    push = _add_action(actions, "push", "upload the data set to the Hub, as Parquet", _push)
    for action in (check, build, push):
        action.add_argument("name", metavar="NAME", help="short name, see `grmp-iqa data list`")
        action.add_argument(
            "folder", type=Path, metavar="DIR", help="folder or archive file, as its authors publish it"
        )
        action.add_argument(
            "--option", action="append", default=[], metavar="NAME=VALUE", help="choice of a data set; may be repeated"
        )
    build.add_argument("--output", "-o", type=Path, required=True, metavar="DIR", help="folder to write")
    build.add_argument("--overwrite", action="store_true", help="replace what --output holds")
    push.add_argument("repo", metavar="OWNER/NAME", help="repository; made if it does not exist")
    push.add_argument("--public", action="store_true", help="for everybody to see (default: private)")
    push.add_argument("--yes", action="store_true", help="do not ask whether the terms allow it")
    for action in (listing, check, build, push):
        action.add_argument("--json", action="store_true", help="print for a machine")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return int(args.act(args))


def _add_action(actions: Any, name: str, help: str, act: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(act=act, parser=parser)
    return parser


def _list(args: argparse.Namespace) -> int:
    from grmp_hf.data import BENCHMARKS

    if args.json:
        fields = ("id", "title", "home", "terms", "citation", "layout", "rows", "references", "options")
        print(json.dumps([{field: getattr(spec, field) for field in fields} for spec in BENCHMARKS.values()]))
        return 0
    for spec in BENCHMARKS.values():
        print(f"{spec.id:<10} {spec.rows:>6} pictures  {spec.title}\n{'':<10} {spec.home}\n{'':<10} {spec.layout}")
        for name, values in spec.options.items():
            print(f"{'':<10} --option {name}={' or '.join(_option_text(value) for value in values)}")
    return 0


def _check(args: argparse.Namespace) -> int:
    spec, table = _read(args)
    about = _describe(spec, table)
    if args.json:
        print(json.dumps(about))
    else:
        for name, value in about.items():
            print(f"{name:<11} {_shown(value)}")
    if not spec.is_whole(len(table)):
        raise GRMPError(
            f"{args.folder}: expected the {spec.rows} rows of {spec.title}, found {len(table)}; get the rest from "
            f"{spec.home}"
        )
    return 0


def _build(args: argparse.Namespace) -> int:
    from grmp_hf.cli.publishing import describe_terms, write_set

    with OutputFolder(args.output, ("data/*.parquet", "README.md"), overwrite=args.overwrite) as output:
        spec, table = _read(args)
        output.begin()
        with writing(args.output):
            names = [path.relative_to(output.new) for path in write_set(table, spec, output.new)]
        output.publish()
    files = [str(args.output / name) for name in names]
    if args.json:
        print(json.dumps({"files": files}))
    else:
        print(describe_terms(spec))
        tell(f"{len(files)} files in {args.output}")
    return 0


def _push(args: argparse.Namespace) -> int:
    from grmp_hf.cli.publishing import describe_terms, size_of, upload_set, write_set

    spec, table = _read(args)
    print(describe_terms(spec), file=sys.stderr)
    say(args, *(f"note: {note}" for note in table.notes))
    whom = "for EVERYBODY to see" if args.public else "private"
    what = f"{len(table)} pictures, {size_of(table.rows) / 1e6:.1f} MB, to {args.repo}, {whom}"
    if not args.yes:
        _confirm(what)
    with scratch_folder() as folder:
        write_set(table, spec, folder)
        address = upload_set(folder, args.repo, private=not args.public)
    print(json.dumps({"url": address}) if args.json else address)
    return 0


def _confirm(what: str) -> None:
    print(f"Do these terms allow you to upload {what}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise GRMPError("nothing was uploaded: expected y, got another answer; add --yes to upload without a question")


def _read(args: argparse.Namespace) -> tuple[BenchmarkSpec, RatedTable]:
    from grmp_hf.data import read_benchmark
    from grmp_hf.data.benchmarks import find_benchmark

    spec = find_benchmark(args.name)
    options: dict[str, Any] = {}
    for text in args.option:
        name, equals, value = text.partition("=")
        if not equals:
            raise GRMPError(f'--option: expected NAME=VALUE, got "{text}"; see `grmp-iqa data list`')
        options[name] = {"true": True, "false": False}.get(value.casefold(), value)
    return spec, read_benchmark(args.name, args.folder, **options)


def _describe(spec: BenchmarkSpec, table: RatedTable) -> dict[str, Any]:
    from grmp_hf.cli.publishing import split_parts

    mos = [row.mos for row in table.rows]
    contents = {getattr(row, table.content) for row in table.rows} - {None}
    marked = table.has("split")
    return {
        "data set": spec.title,
        "rows": len(table),
        "references": len(contents) if spec.content else None,
        "scores": {"lowest": min(mos), "highest": max(mos), "mean": sum(mos) / len(mos)},
        "scale": str(table.scale),
        "parts": {part: len(rows) for part, rows in split_parts(table).items()} if marked else None,
        "first row": {"name": table.rows[0].name, "mos": mos[0]},
        "last row": {"name": table.rows[-1].name, "mos": mos[-1]},
        "hash": table.content_hash,
        "notes": list(table.notes),
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return f"\n{'':<11} ".join(map(printable, value))
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def _option_text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
