"""Options that several sub-commands share, and what they stand for."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from grmp_hf.errors import GRMPError, printable
from grmp_hf.places import check_data, check_place, spelling
from grmp_hf.recipe_files import find_recipe, read_yaml

if TYPE_CHECKING:
    from grmp_hf.data import RatedTable
    from grmp_hf.scoring import Scorer
    from grmp_hf.training.recipes import FewShotRecipe, PretrainRecipe
    from grmp_hf.training.stream_recipe import StreamRecipe

    Recipe = TypeVar("Recipe", FewShotRecipe, PretrainRecipe, StreamRecipe)

__all__ = [
    "add_model_options",
    "add_paths",
    "add_rating_options",
    "check_choices",
    "check_names",
    "check_recipe",
    "check_seed",
    "device",
    "join_processes",
    "leave_processes",
    "listed",
    "load_scorer",
    "need_paths",
    "positive",
    "read_choices",
    "read_table",
    "say",
    "settle",
    "tell",
]


def positive(text: str) -> int:
    """Whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def device(text: str) -> str:
    """Name of a device, for argparse; whether this machine has it is found where torch is loaded."""
    if not re.fullmatch(r"(cpu|cuda|mps|xpu|hpu|npu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected a device such as cpu, cuda or cuda:1, got {text!r}")
    return text


def check_seed(args: argparse.Namespace) -> None:
    """Raise for a ``--seed`` that not every generator takes."""
    if not 0 <= args.seed < 2**32:
        raise GRMPError(f"--seed: expected 0 to {2**32 - 1}, got {args.seed}")


def check_names(args: argparse.Namespace) -> None:
    """Refuse names and places that lead nowhere, before anything heavy is loaded.

    Raises:
        GRMPError: such a name, with its option.
    """
    for option in ("model", "adapter", "side"):
        name = getattr(args, option, None)
        if name is not None:
            check_place(name, f"--{option}")
    data = getattr(args, "data", None) or getattr(args, "ratings", None) or []
    if isinstance(data, str):
        check_data(data)
    for place in data if args.command == "pretrain" else []:
        check_data(place.partition("=")[2] or place)
    start, photos = getattr(args, "start", None), getattr(args, "photos", None)
    if start is not None:
        _check_start(start)
    if photos is not None and not photos.is_dir():
        raise GRMPError(f"--photos {photos}: expected a folder of photographs; {spelling(str(photos))}")


def _check_start(start: str) -> None:
    if start not in ("none", "package") and not Path(start).is_dir():
        raise GRMPError(
            f"--start: expected the folder of an adapter, package or none, got {start!r}; check the spelling"
        )


def join_processes(args: argparse.Namespace) -> None:
    """Take part in ``accelerate launch``: each process gets its device, and only the first one speaks."""
    import torch
    from accelerate import PartialState

    processes = PartialState(cpu=args.device == "cpu" or (args.device is None and not torch.cuda.is_available()))
    args.quiet = args.quiet or not processes.is_main_process


def leave_processes() -> None:
    """Let go of the other processes when all is done: torch's threads may abort an interpreter that ends before."""
    from accelerate import PartialState

    PartialState().destroy_process_group()


def add_model_options(parser: argparse.ArgumentParser, *, adapter: bool = True, batches: bool = True) -> None:
    """Which scorer, and where it runs."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default="default", metavar="M",
        help='"default" (the embedded one), a folder, or a Hub id such as openai/clip-vit-base-patch16',
    )  # fmt: skip
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of --model")
    if adapter:
        group.add_argument("--adapter", metavar="DIR", help="folder or Hub id of an adapter; it knows its base")
        group.add_argument("--adapter-revision", metavar="REV", help="branch, tag or commit of --adapter")
    group.add_argument(
        "--side", metavar="M", help="folder or Hub id of a backbone to put beside --model (docs/reference.md)"
    )
    group.add_argument("--device", type=device, help="such as cpu or cuda (default: cuda where there is one)")
    group.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="default fp32, the only exact one")
    if batches:
        group.add_argument("--batch-size", type=positive, default=16, metavar="N", help="pictures at once (default 16)")
    group.add_argument("--offline", action="store_true", help="never ask the Hub: folders and the local cache only")


def load_scorer(args: argparse.Namespace) -> Scorer:
    """The scorer that the options of ``add_model_options`` name."""
    import transformers

    from grmp_hf.hub import load

    transformers.utils.logging.disable_progress_bar()
    return load(
        args.model,
        adapter=getattr(args, "adapter", None),
        revision=args.revision,
        adapter_revision=getattr(args, "adapter_revision", None),
        device=args.device,
        dtype=args.dtype,
        local_files_only=True if args.offline else None,
        side=getattr(args, "side", None),
    )


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Which pictures, as words of the command line or lines of a file; see :func:`need_paths` and :func:`listed`."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="picture, folder (with all below it) or quoted pattern"
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="text file with a path in each line (or between NULs), beside PATH; - for standard input",
    )


def need_paths(args: argparse.Namespace) -> None:
    """End with the usage where no picture is named."""
    if not args.paths and args.list is None:
        args.parser.error("the following arguments are required: PATH, or --list FILE")


def listed(file: Path | None) -> list[str]:
    """Paths in the lines of a file, or of standard input for "-"; where it holds NUL, between these.

    Their bytes are those of the names; a file in UTF-16, or with a mark, is read as tables are.

    Raises:
        GRMPError: it cannot be read.
    """
    if file is None:
        return []
    from grmp_hf.data.text import encoding_of

    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise GRMPError(f"--list {file}: cannot be read ({error.strerror}); check the path") from error
    encoding = encoding_of(content)
    try:
        text = os.fsdecode(content) if encoding.startswith("utf-8") else content.decode(encoding)
    except UnicodeDecodeError as error:
        raise GRMPError(f"--list {file}: expected {encoding.upper()} text, got ({error}); save it as UTF-8") from error
    lines = re.split("\0" if "\0" in text else "\r\n|\r|\n", text.removeprefix("\ufeff"))
    return [line for line in lines if line.strip()]


def check_recipe(stage: str, wanted: str | None) -> Path | None:
    """The file of a recipe of a stage, "adapt", "pretrain" or "stream"; None for the defaults.

    Raises:
        GRMPError: no recipe of that name, no such file, or no YAML in it.
    """
    if wanted is None:
        return None
    try:
        path = find_recipe(stage, wanted)
        read_yaml(path, "a recipe")
    except GRMPError as error:
        raise GRMPError(f"--{error}" if str(error).startswith("recipe") else f"--recipe {error}") from error
    return path


def settle(recipe: Recipe, base: Scorer, args: argparse.Namespace) -> Recipe:
    """The recipe with the precision of its passes settled for the base's device, which is said where it was open."""
    if recipe.bf16 != "auto":
        return recipe
    recipe = recipe.settled(base.device)
    say(args, f"training passes in {'bfloat16' if recipe.bf16 else 'full precision'}: what this processor is fast at")
    return recipe


def say(args: argparse.Namespace, *notes: str) -> None:
    """Print notes to stderr, one a line, unless ``--quiet``."""
    if not getattr(args, "quiet", False):
        tell(*notes, to=sys.stderr)


def tell(*lines: str, to: TextIO | None = None) -> None:
    """Print each text on one line of its own, whatever the names in it hold; to stdout unless told otherwise."""
    for line in lines:
        print(printable(line), file=to)


def add_rating_options(parser: argparse.ArgumentParser) -> None:
    """How a table of ratings is to be read where its own words do not say it."""
    group = parser.add_argument_group("ratings")
    group.add_argument("--images", metavar="DIR", help="folder of the pictures, where they do not lie beside the table")
    group.add_argument("--image-column", metavar="NAME", help="column of the pictures")
    group.add_argument("--rating-column", metavar="NAME", help="column of the ratings")
    group.add_argument(
        "--raters", choices=("average",), help="bring several ratings of a picture together (default: refuse them)"
    )
    group.add_argument(
        "--rater-column", metavar="NAME", help="column that says who has rated; the same, rater by rater"
    )
    group.add_argument(
        "--rating-columns", nargs="+", default=(), metavar="NAME", help="columns of one rater each, names or patterns"
    )
    group.add_argument("--split-column", metavar="NAME", help="column that says train or test")
    group.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="nominal ends of the scale (default: guessed, and said)",
    )
    direction = group.add_mutually_exclusive_group()
    direction.add_argument(
        "--higher-is-better", action="store_const", const=True, dest="up", help="high ratings are good"
    )
    direction.add_argument(
        "--lower-is-better", action="store_const", const=False, dest="up", help="low ratings are good"
    )
    group.add_argument("--unit", default="", metavar="WORD", help='unit of the scale, such as "stars"')
    group.add_argument("--data-revision", metavar="REV", help="branch, tag or commit of a Hub data set")


def read_table(source: str, args: argparse.Namespace, *, need_pictures: bool = True) -> RatedTable:
    """Read the ratings that the options of ``add_rating_options`` describe."""
    from grmp_hf.data import read_ratings

    if args.range is not None and args.range[0] >= args.range[1]:
        raise GRMPError(
            f"--range: expected the low end before the high one, got {args.range[0]:g} {args.range[1]:g}; "
            "where low is best keep this order and add --lower-is-better"
        )
    return read_ratings(
        source,
        images=args.images,
        image_column=args.image_column,
        rating_column=args.rating_column,
        split_column=args.split_column,
        raters=args.raters,
        rater_column=args.rater_column,
        rating_columns=args.rating_columns,
        scale=None if args.range is None else (args.range[0], args.range[1]),
        higher_is_better=args.up,
        unit=args.unit,
        revision=args.data_revision,
        need_pictures=need_pictures,
        local_files_only=getattr(args, "offline", False),
    )


def check_choices(args: argparse.Namespace) -> None:
    """Refuse options of ratings beside ``--pairs``, which holds none, and a table of choices that is not there."""
    if args.pairs is None:
        return
    given = {
        "--image-column": args.image_column,
        "--rating-column": args.rating_column,
        "--raters": args.raters,
        "--rater-column": args.rater_column,
        "--rating-columns": args.rating_columns,
        "--split-column": args.split_column,
        "--range": args.range,
        "--higher-is-better or --lower-is-better": args.up,
        "--unit": args.unit,
        "--data-revision": args.data_revision,
    }
    if wrong := [option for option, value in given.items() if value not in (None, "", ())]:
        raise GRMPError(f"--pairs: expected choices without ratings, got {', '.join(wrong)} beside them; leave it out")
    if not Path(args.pairs).is_file():
        raise GRMPError(f"--pairs {args.pairs}: expected a table of choices, found none. {spelling(args.pairs)}")


def read_choices(source: str, args: argparse.Namespace) -> RatedTable:
    """Read the choices of ``--pairs``."""
    from grmp_hf.data import read_pairs

    return read_pairs(source, images=args.images)
