"""``grmp-iqa bake``: an adapter and its base -> one standalone model without a text tower."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from grmp_hf.cli.options import add_model_options, load_scorer, tell
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import OutputFolder, keep_apart
from grmp_hf.record import SPLIT_FILE
from grmp_hf.storing import writing

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
    keep_apart(args.output, "--model", args.model)
    keep_apart(args.output, "--adapter", args.adapter)
    names = ("config.json", "model*.safetensors*", "preprocessor_config.json", "README.md", SPLIT_FILE)
    with OutputFolder(args.output, names, overwrite=args.overwrite) as output:
        return _bake(args, output)


def _bake(args: argparse.Namespace, output: OutputFolder) -> int:
    from grmp_hf.cards import write_card
    from grmp_hf.modeling.baked import Baked
    from grmp_hf.modeling.baking import bake

    scorer = load_scorer(args)
    if isinstance(scorer.model, Baked):
        raise GRMPError(f"--model {args.model}: expected a base or an adapter, got a scorer that is baked already")
    baked = bake(scorer.model)
    baked.config.preprocessing = scorer.processor.settings()
    baked.config.provenance = {**(baked.config.provenance or {}), "baked_from": scorer.identity}
    output.begin()
    with writing(args.output):
        baked.save_pretrained(output.new)
        scorer.processor.save_pretrained(output.new)
        write_card(output.new)
        if scorer.taught is not None:  # what has taught the adapter has taught the baked scorer: `evaluate` asks for it
            scorer.taught.save(output.new / SPLIT_FILE)
    output.publish()
    size = sum(file.stat().st_size for file in args.output.glob("*.safetensors")) / 1e6
    done = {"scorer": str(args.output), "megabytes": round(size, 1)}
    tell(json.dumps(done) if args.json else f"standalone scorer of {size:.1f} MB in {args.output}")
    return 0
