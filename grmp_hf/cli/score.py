"""``grmp-iqa score``: files, folders and patterns -> one row a picture."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cli.options import add_model_options, add_paths, listed, load_scorer, need_paths, say
from grmp_hf.cli.progress import Progress
from grmp_hf.cli.writing import (
    COLUMNS,
    EXPLAINED,
    FORMATS,
    choose_format,
    describe_scorer,
    write_table,
)
from grmp_hf.errors import GRMPError

if TYPE_CHECKING:
    from grmp_hf.cli.resuming import PartialRows
    from grmp_hf.scoring import ScoredPicture, Scorer

__all__ = ["add_parser", "run"]

_EPILOG = """A picture that cannot be read is a row with a code in its status and no score; the exit code is then 1.
With --output, rows are kept in OUTPUT.part while the run lasts: started again after a crash, the same command goes on
and ends with the same table. OUTPUT.json says what exactly scored."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "score", help="score pictures", description="Score pictures: one row each.", epilog=_EPILOG, allow_abbrev=False
    )
    add_paths(parser)
    parser.add_argument("--output", "-o", type=_place, metavar="FILE", help="table to write (default, and -: print it)")
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of --output, else table")
    parser.add_argument("--overwrite", action="store_true", help="replace an --output that exists")
    parser.add_argument("--json", action="store_true", help="print a summary (and the rows, without --output) as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    parser.add_argument(
        "--interval", type=float, default=0.9, metavar="SHARE", help="of new ratings between low and high (default: .9)"
    )
    parser.add_argument("--explain", action="store_true", help="say which distortion and scene each picture shows")
    add_model_options(parser)
    return parser


def _place(name: str) -> Path | None:
    return None if name == "-" else Path(name)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; 0 if every picture was scored, else 1."""
    need_paths(args)
    if not 0 < args.interval < 1:
        raise GRMPError(f"--interval: expected a share between 0 and 1, such as 0.9, got {args.interval:g}")
    if args.output is not None:
        _check_output(args.output, args.overwrite)
    kind = choose_format(args.format, args.output)
    if args.output is None:
        return _score(args, kind, None)
    from grmp_hf.cli.resuming import PartialRows

    with PartialRows(args.output) as partial:
        return _score(args, kind, partial)


def _check_output(output: Path, overwrite: bool) -> None:
    """Raise where the table cannot go: a folder, or a file that is there and is not to be replaced."""
    if output.is_dir():
        raise GRMPError(f"--output {output}: is a folder; name a file")
    if output.exists() and not overwrite:
        from grmp_hf.cli.resuming import remove_ended, why_not_ours

        remove_ended(output)
        more = " or add --overwrite" if why_not_ours(output) is None else ""  # others are not overwritten
        raise GRMPError(f"--output {output}: exists; choose another name{more}")


def _pictures_folder(output: Path) -> str:
    """The current folder, from where evaluate finds the pictures, as the table's folder names it."""
    try:
        return os.path.relpath(os.getcwd(), os.path.realpath(output.parent))
    except ValueError:  # another drive
        return os.getcwd()


def _score(args: argparse.Namespace, kind: str, partial: PartialRows | None) -> int:
    """Score what was asked for, to stdout where there is no file for the rows."""
    from grmp_hf.data.listing import list_images

    listing = list_images(args.paths, listed(args.list))
    paths, note = listing.paths, listing.note()
    if note is not None:
        say(args, note)
    scorer = load_scorer(args)
    about: dict[str, Any] = {
        "scale": str(scorer.unit),
        "rating_scale": scorer.unit.to_dict(),
        "scorer": describe_scorer(scorer.identity),
        "identity": scorer.identity,
        "pictures": len(paths),
    }
    if args.output is not None:
        about["folder"] = _pictures_folder(args.output)
    if args.explain:
        about["explained"] = dict(scorer.explainer.sources)
    names = getattr(scorer.model, "names", None)
    if names is not None:
        about["experts"] = list(names)
    if os.path.isdir(args.adapter or args.model):  # where evaluate finds which pictures taught
        about["adapter_folder"] = os.path.abspath(args.adapter or args.model)
    quiet = args.quiet or (args.output is None and not args.json and sys.stdout.isatty())
    if partial is not None:
        failed, seconds = _to_file(partial, scorer, paths, kind, about, args, quiet)
    else:
        failed, seconds = _to_stdout(scorer, paths, kind, about, args, quiet)
    say(args, f"scale {about['scale']}; scored by {about['scorer']}")
    if args.explain:
        say(args, "explained: " + "; ".join(f"{name} by {source}" for name, source in about["explained"].items()))
    if failed:
        say(args, f"{failed} of {len(paths)} pictures could not be scored: see their status")
    if args.json and args.output is not None:
        print(json.dumps({**about, "failed": failed, "seconds": seconds, "output": str(args.output)}))
    return 1 if failed else 0


def _to_file(
    partial: PartialRows,
    scorer: Scorer,
    paths: list[str],
    kind: str,
    about: dict[str, Any],
    args: argparse.Namespace,
    quiet: bool,
) -> tuple[int, float]:
    """Score what an earlier run has not, then turn all rows into the table; pictures that failed, and seconds."""
    from grmp_hf.cli.resuming import check_unchanged, run_key

    decided = {**scorer.identity, "scale": about["rating_scale"], "interval": args.interval}
    run = run_key(paths, {**decided, **({"explained": True} if args.explain else {})}, args.batch_size)
    partial.begin(run, args.batch_size)
    failed = partial.failed
    if partial.damaged:
        say(args, f"{partial.path}: damaged after {partial.done} rows; the rest is scored again")
    with Progress("score", len(paths), done=partial.done, quiet=quiet) as progress:
        for rows in scorer.iter_scores(paths[partial.done :], **_options(args)):
            partial.add(rows)
            failed += sum(row.status != "ok" for row in rows)
            progress.advance(len(rows))
    about["failed"] = failed
    whole = (_row(row, about) for row in partial.read())
    check = functools.partial(check_unchanged, args.output, args.overwrite)
    write_table(whole, kind, args.output, about, _columns(about), via=partial.table, run=run, check=check)
    partial.remove()
    return failed, progress.seconds


def _to_stdout(
    scorer: Scorer, paths: list[str], kind: str, about: dict[str, Any], args: argparse.Namespace, quiet: bool
) -> tuple[int, float]:
    """Print rows as they come; pictures that failed, and seconds."""
    failed = 0
    with Progress("score", len(paths), quiet=quiet) as progress:

        def stream() -> Iterator[dict[str, Any]]:
            nonlocal failed
            for rows in scorer.iter_scores(paths, **_options(args)):
                failed += sum(row.status != "ok" for row in rows)
                progress.advance(len(rows))
                yield from (_row(row, about) for row in rows)

        if args.json:
            rows = list(stream())
            print(json.dumps({**about, "failed": failed, "seconds": progress.seconds, "rows": rows}))
        else:
            write_table(stream(), kind, None, about, _columns(about))
    return failed, progress.seconds


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {"batch_size": args.batch_size, "interval": args.interval, "explain": args.explain}


def _columns(about: dict[str, Any]) -> tuple[str, ...]:
    """Those of a table; before the last two, how much experts have counted, and what explains the scores if asked."""
    more = (*(("experts",) if "experts" in about else ()), *(EXPLAINED if "explained" in about else ()))
    return (*COLUMNS[:-2], *more, *COLUMNS[-2:])


def _row(row: ScoredPicture, about: dict[str, Any]) -> dict[str, Any]:
    known = {**row._asdict(), "scale": about["scale"], "scorer": about["scorer"]}
    return {name: known[name] for name in _columns(about)}
