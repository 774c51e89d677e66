"""``grmp-iqa suggest``: photographs -> a table of those to rate next, with an empty column for the ratings."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grmp_hf.cli.options import add_model_options, add_paths, listed, load_scorer, need_paths, positive, say, tell
from grmp_hf.cli.progress import Progress
from grmp_hf.cli.writing import describe_scorer
from grmp_hf.errors import GRMPError
from grmp_hf.storing import atomic_path, writing

__all__ = ["COLUMNS", "add_parser", "run"]

COLUMNS = ("image", "mos", "reason")
"""Of the table: the picture, seen from the table's folder, an empty cell for its rating, and why it was chosen."""

_EPILOG = """Write a rating into each cell of the column mos (lines without one have to go), then:
grmp-iqa adapt --data to_rate.csv --output my-adapter. With --adapter, what its ratings have told is taken off, and
pictures that have taught it are not suggested again."""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "suggest",
        help="say which pictures to rate next",
        description="Say which pictures to rate: those whose ratings would tell most about all the others.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    add_paths(parser)
    parser.add_argument("--count", type=positive, default=20, metavar="N", help="pictures to rate (default 20)")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE", help="table to fill in, .csv")
    parser.add_argument("--overwrite", action="store_true", help="replace an --output that exists and holds no rating")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress and no notes")
    add_model_options(parser, batches=False)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    need_paths(args)
    _check_output(args.output, args.overwrite)
    from grmp_hf.data.listing import list_images

    listing = list_images(args.paths, listed(args.list))
    notes = [note for note in [listing.note()] if note is not None]
    from grmp_hf.suggesting import suggest

    scorer = load_scorer(args)
    with Progress("suggest", 0, quiet=args.quiet) as progress:
        found = suggest(scorer, listing.paths, args.count, tell=progress.tell, say=notes.append)
    say(args, *notes)
    with writing(args.output):
        _write(found, args.output, args.overwrite)
    about = {"scorer": describe_scorer(scorer.identity), "pictures": len(listing.paths), "suggested": len(found)}
    if args.json:
        print(json.dumps({**about, "notes": notes, "output": str(args.output)}))
    else:
        tell(f"{len(found)} of {len(listing.paths)} pictures to rate in {args.output}: fill in the column mos")
    return 0


def _check_output(output: Path, overwrite: bool) -> None:
    """Raise where the table cannot go: a folder, another suffix, or a file that is not ours or holds ratings."""
    if output.suffix.lower() != ".csv":
        raise GRMPError(f"--output {output}: expected a name ending in .csv, which can be filled in anywhere")
    if output.is_dir():
        raise GRMPError(f"--output {output}: is a folder; name a file")
    if not output.parent.is_dir():
        raise GRMPError(f"--output {output}: there is no folder {output.parent}; make it, or name another place")
    if not output.exists():
        return
    if not _is_unrated(output):
        raise GRMPError(f"--output {output}: exists, and is no table of suggestions without ratings; name another file")
    if not overwrite:
        raise GRMPError(f"--output {output}: exists; choose another name or add --overwrite")


def _is_unrated(path: Path) -> bool:
    """Whether a file is a table of ours into which nobody has written a rating."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
            return bool(rows) and tuple(rows[0]) == COLUMNS and not any((row["mos"] or "").strip() for row in rows)
    except (OSError, csv.Error):
        return False


def _write(found: Sequence[tuple[str, str]], output: Path, overwrite: bool) -> None:
    """Write the table, whole or not at all, unless one has come to stand there or was filled in meanwhile."""
    folder = os.path.realpath(output.parent)
    with (
        atomic_path(output) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_as_named_in(folder, path), "", why] for path, why in found)
        _check_output(output, overwrite)


def _as_named_in(folder: str, path: str) -> str:
    """A path as a table in a folder names it: absolute where it was given so, or lies on another drive."""
    if os.path.isabs(path):
        return path
    found = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
    try:
        return os.path.relpath(found, folder)
    except ValueError:
        return found
