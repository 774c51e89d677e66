"""``grmp-iqa``: reads the arguments, runs one sub-command, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import difflib
import functools
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from grmp_hf.cli import (
    adapt,
    bake,
    benchmark,
    combine,
    compare,
    convert,
    data,
    evaluate,
    pretrain,
    push,
    score,
    stream,
    suggest,
)
from grmp_hf.cli.options import check_names, tell
from grmp_hf.errors import GRMPError
from grmp_hf.places import asking_nobody

__all__ = ["build_parser", "main"]

_COMMANDS = {
    "adapt": adapt,
    "score": score,
    "compare": compare,
    "suggest": suggest,
    "evaluate": evaluate,
    "pretrain": pretrain,
    "benchmark": benchmark,
    "data": data,
    "stream": stream,
    "combine": combine,
    "convert": convert,
    "bake": bake,
    "push": push,
}
_LONG = ("adapt", "pretrain", "stream", "benchmark")  # what they have done is kept
_OTHERWISE = {"scale": "range"}  # as Python names it
_INTERRUPTED, _TERMINATED = 130, 143  # as shells count: 128 and the number of the signal
_BROKEN_PIPE = 141
_EPILOG = """examples:
  grmp-iqa suggest photos/ --count 50 --output to_rate.csv
  grmp-iqa adapt --data ratings.csv --shots 50 --seed 0 --output my-adapter
  grmp-iqa score photos/ --adapter my-adapter --output scores.csv
  grmp-iqa evaluate ratings.csv --adapter my-adapter

exit codes: 0 all done, 1 some pictures could not be scored, 2 wrong use or input, 130 interrupted"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands; each leaves its ``run`` and its own parser in the namespace."""
    parser = argparse.ArgumentParser(
        prog="grmp-iqa",
        description="Score photographs on your own scale after a few ratings.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in _COMMANDS.items():
        own = module.add_parser(commands)
        own.set_defaults(run=module.run, parser=own, command=name)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; those of the process if None.

    Returns:
        Exit code: 0 done, 1 some pictures could not be scored, 2 wrong use or input, 130 interrupted, 141 nobody reads
        what is printed, 143 terminated.
    """
    _open_streams()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has seen enough, as in `grmp-iqa score ... | head`
        _silence_streams()
        return _BROKEN_PIPE
    except OSError as error:  # such as a full disk behind stdout
        _silence_streams()
        return _fail(_describe(error))


def _run(argv: list[str]) -> int:
    goes_on = False
    try:
        args = _parse(argv)
        goes_on = args.command in _LONG or (args.command == "score" and args.output is not None)
        _check_here()
        check_names(args)
        with warnings.catch_warnings():  # of one library about another: nothing that the reader could change
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch)\.")
            warnings.filterwarnings("ignore", message="Unsupported layer type", module=r"peft\.")  # that is LayerNorm
            warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
            with asking_nobody(getattr(args, "offline", False)), _terminable():
                return int(args.run(args))
    except SystemExit as leaving:  # argparse, after --help or a wrong option
        return leaving.code if isinstance(leaving.code, int) else 2
    except GRMPError as error:
        return _fail(str(error).rpartition("GRMPError: ")[2])  # without the traceback that a loading process adds
    except KeyboardInterrupt as error:
        said, code = ("terminated", _TERMINATED) if isinstance(error, _Terminated) else ("interrupted", _INTERRUPTED)
        print(f"grmp-iqa: {said}{'; the same command goes on from here' if goes_on else ''}", file=sys.stderr)
        return code


def _check_here() -> None:
    """Raise where the folder in which the command was started has been deleted since."""
    try:
        os.getcwd()
    except OSError as error:
        raise GRMPError(
            "expected to be started in a folder that is there, got one that was deleted or replaced since; change into "
            "one, such as with cd ~"
        ) from error


class _Terminated(KeyboardInterrupt):
    """SIGTERM, after which all is left as it is after Ctrl-C."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C is taken, where nobody else has a use for it.

    Several processes of one run are ended as they always are: one that waits for another would not hear of it.
    """
    alone = threading.current_thread() is threading.main_thread() and os.environ.get("WORLD_SIZE", "1") == "1"
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    own = os.getpid()

    def leave(number: int, frame: object) -> None:
        if os.getpid() != own:  # a worker, which has nothing to clear away
            os._exit(_TERMINATED)
        raise _Terminated

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(said: str) -> int:
    one_line = re.sub(r"\s*[\r\n]+\s*", " ", said.strip())
    tell(f"grmp-iqa: error: {one_line}", to=sys.stderr)
    return 2


def _describe(error: OSError) -> str:
    """What the system says, with the file that it says it of."""
    where = "the output: " if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{where}{error.strerror or error}; check the place, its permissions and the space on the disk"


def _open_streams() -> None:
    """Streams that take any name, whatever the locale; ones that lead nowhere where a process has none."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            found = os.open(os.devnull, os.O_WRONLY)
            if found != number:
                os.dup2(found, number)
                os.close(found)
            setattr(sys, name, open(number, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _silence_streams() -> None:
    """Send what could not be printed nowhere, so that the interpreter does not complain when it ends."""
    for output in (sys.stdout, sys.stderr):
        try:
            output.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def _show_warning(usual: Any, message: Any, category: type[Warning], *place: Any) -> None:
    """One line for what is said of a picture; all else as Python does."""
    if category.__name__ == "ImageWarning":
        tell(f"note: {message}", to=sys.stderr)
    else:
        usual(message, category, *place)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = build_parser()
    if argv and not argv[0].startswith("-") and argv[0] not in _COMMANDS:
        parser.error(f"unknown command {argv[0]!r}{_suggestion(argv[0], _COMMANDS)}; known are {', '.join(_COMMANDS)}")
    args, unknown = parser.parse_known_args(argv)
    if args.version:
        import grmp_hf

        print(f"grmp-iqa {grmp_hf.__version__}")
        raise SystemExit(0)
    own: argparse.ArgumentParser = getattr(args, "parser", parser)
    if unknown:
        options = [option for action in own._actions for option in action.option_strings]
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            several = any(not action.option_strings and action.nargs in ("*", "+") for action in own._actions)
            together = "name it beside the others, before the options" if several else f"see {own.prog} --help"
            own.error(f"did not expect {unknown[0]!r} here; {together}")
        own.error(f"unknown option {word!r}{_suggestion(word, options)}; see {own.prog} --help")
    if args.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return args


def _suggestion(word: str, known: Iterable[str]) -> str:
    plain = word.lstrip("-")
    wanted = word.replace(plain, _OTHERWISE.get(plain, plain))
    close = difflib.get_close_matches(wanted, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


if __name__ == "__main__":
    sys.exit(main())
