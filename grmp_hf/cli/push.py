"""``grmp-iqa push``: the folder of an adapter or model -> the Hub."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "push",
        help="upload an adapter or model to the Hub",
        description="Upload the weights, settings, card and figures of a folder to the Hub; never tables of pictures.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="what adapt, pretrain, stream, combine, convert or bake wrote"
    )
    parser.add_argument(
        "repo", metavar="OWNER/NAME", help="repository; made if it does not exist; NAME alone is one of your own"
    )
    parser.add_argument("--public", action="store_true", help="for everybody to see (default: private)")
    parser.add_argument("--revision", metavar="REV", help="branch to commit to")
    parser.add_argument("--json", action="store_true", help="print the address as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    from grmp_hf.pushing import push

    address = push(args.folder, args.repo, private=not args.public, revision=args.revision)
    print(json.dumps({"url": address}) if args.json else address)
    return 0
