"""``grmp-iqa convert``: a checkpoint of the method's authors -> a base and an adapter."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from grmp_hf.cli.options import positive, tell
from grmp_hf.outputs import OutputFolder
from grmp_hf.record import ADAPTER_FILES, Record
from grmp_hf.storing import writing

__all__ = ["add_parser", "run"]

_BASE = "base"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "convert",
        help="convert a checkpoint of the method's authors",
        description="Convert a checkpoint of the method's authors into an adapter (OUT) and its base (OUT/base).",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, metavar="FILE.pt", help="state dict; read without running code from it")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--vision-heads", type=positive, metavar="N", help="attention heads (default: width / 64)")
    parser.add_argument("--text-heads", type=positive, metavar="N", help="attention heads (default: width / 64)")
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT holds")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command."""
    base = ("config.json", "model*.safetensors*", "preprocessor_config.json", "tokenizer*", "README.md")
    names = (*ADAPTER_FILES, *(f"{_BASE}/{name}" for name in base))
    with OutputFolder(args.output, names, overwrite=args.overwrite) as output:
        return _convert(args, output)


def _convert(args: argparse.Namespace, output: OutputFolder) -> int:
    from grmp_hf.cards import write_card
    from grmp_hf.modeling.conversion import from_authors_state_dict, load_authors_file
    from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
    from grmp_hf.saving import adapter_sha256, package_versions

    model = from_authors_state_dict(
        load_authors_file(args.file), vision_heads=args.vision_heads, text_heads=args.text_heads
    )
    processor = GRMPImageProcessor.authors(model.get_base_model().config.clip_config.vision_config.image_size)
    record = Record.of(model.active_peft_config)
    provenance = {"base": f"{args.file.name}, converted", "versions": package_versions()}
    seen = processor.settings()
    dataclasses.replace(record, base=_BASE, preprocessing=seen, provenance=provenance).attach(model.active_peft_config)
    output.begin()
    with writing(args.output):
        model.save_pretrained(str(output.new), save_embedding_layers=False)
        base = model.unload()
        base.save_pretrained(str(output.new / _BASE))
        processor.save_pretrained(str(output.new / _BASE))
        write_card(output.new)
    output.publish()
    done = {
        "adapter": str(args.output),
        "base": str(args.output / _BASE),
        "adapter_sha256": adapter_sha256(args.output),
    }
    tell(json.dumps(done) if args.json else f"adapter in {args.output}, its base in {args.output / _BASE}")
    return 0
