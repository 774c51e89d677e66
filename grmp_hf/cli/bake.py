"""``grmp-iqa bake``: an adapter and its base -> one standalone model without a text tower."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from grmp_hf.cli.options import add_model_options, check_new_folder, load_scorer
from grmp_hf.cli.taught import SPLIT_FILE, split_of_model
from grmp_hf.errors import GRMPError

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bake",
        help="fold an adapter into a standalone scorer",
        description="Fold adapter and anchors into one model for scoring alone: no text tower, constant prompts.",
        allow_abbrev=False,
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT holds")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    add_model_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    check_new_folder(args.output, overwrite=args.overwrite)

    from grmp_hf.modeling.baking import GRMPBakedScorer, bake

    scorer = load_scorer(args)
    if isinstance(scorer.model, GRMPBakedScorer):
        raise GRMPError(f"--model {args.model}: expected a base or an adapter, got a scorer that is baked already")
    baked = bake(scorer.model)
    baked.config.preprocessing = scorer.processor.settings()
    baked.config.provenance = {**(baked.config.provenance or {}), "baked_from": scorer.identity}
    baked.save_pretrained(args.output)
    scorer.processor.save_pretrained(args.output)
    _keep_split(args, scorer.identity)
    size = sum(file.stat().st_size for file in args.output.glob("*.safetensors")) / 1e6
    done = {"scorer": str(args.output), "megabytes": round(size, 1)}
    print(json.dumps(done) if args.json else f"standalone scorer of {size:.1f} MB in {args.output}")
    return 0


def _keep_split(args: argparse.Namespace, identity: dict[str, Any]) -> None:
    """What has taught the adapter has taught the baked scorer: `evaluate` asks for it."""
    place, commit = args.adapter or args.model, identity["adapter_revision"]
    split, _ = split_of_model(place, identity["adapter"], commit, offline=args.offline)
    if split is not None:
        split.save(args.output / SPLIT_FILE)
