"""Features without ratings (after GRepQ): a low-level encoder, or a high-level adapter, from a folder of photographs.

python training/grepq.py low --photos photos --output my-low [--recipe paper]
python training/grepq.py high --photos photos --output my-high [--model openai/clip-vit-base-patch16]

Both take minutes on two cores with the recipe `default`. An interrupted run goes on when it is started again. What is
written is for `grmp-iqa benchmark`: {method: grepq, low_level: my-low, high_level: my-high}.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import transformers

import grmp_hf
from grmp_hf.cli.progress import Progress
from grmp_hf.contrasting import high_level, low_level
from grmp_hf.errors import GRMPError


def read_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("low", "high"), help="which of the two")
    parser.add_argument("--photos", required=True, type=Path, metavar="DIR", help="folder of photographs")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of what is learnt")
    parser.add_argument("--recipe", default="default", metavar="NAME", help="default, paper, or a file of YAML")
    parser.add_argument("--model", default="default", metavar="M", help="base of the adapter (high)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default 0)")
    parser.add_argument("--device", metavar="DEVICE", help="such as cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder of unfinished work (default: OUTPUT-run, removed at the end)"
    )
    return parser.parse_args()


def main() -> int:
    """Learn and save; 2 for what a user can mend, as of the commands."""
    args = read_options()
    work = args.work or args.output.with_name(f"{args.output.name}-run")
    if args.output.exists():
        return _refuse(f"{args.output}: expected a new folder, got one that exists; choose another")
    transformers.utils.logging.disable_progress_bar()
    given = {"recipe": args.recipe, "seed": args.seed}
    try:
        scorer = grmp_hf.load(args.model, device=args.device)
        with Progress(args.stage, 0) as progress:
            if args.stage == "low":
                device = str(scorer.device)
                encoder = low_level(args.photos, work, device=device, tell=progress.tell, **given)
                encoder.save_pretrained(args.output)
            else:
                high_level(scorer, args.photos, work, tell=progress.tell, **given).save(args.output)
    except GRMPError as error:
        return _refuse(str(error))
    if args.work is None:
        shutil.rmtree(work, ignore_errors=True)
    print(f"written: {args.output}")
    return 0


def _refuse(message: str) -> int:
    print(f"grepq.py: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
