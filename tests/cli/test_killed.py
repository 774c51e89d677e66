"""Commands that are killed at any moment and started again end as if nothing had happened."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MOMENTS = int(os.environ.get("GRMP_HF_TEST_KILLS", "6"))
"""How often each command is killed at a random time."""

BEFORE = int(os.environ.get("GRMP_HF_TEST_MOMENTS", "50"))
"""At how many file events a command is killed before it puts its results in their place; from there on, at all."""

CASES = [
    *("score csv", "score csv overwrite", "score parquet", "score parquet overwrite"),
    *("bake", "bake overwrite", "adapt", "adapt overwrite", "adapt report overwrite", "pretrain"),
    *("stream", "stream overwrite"),
]

TIMED = ("metrics.json", "stream.json")
"""What says how long something took."""

_SERVER = """
import gc, json, os, signal, sys
import datasets, matplotlib.pyplot, pyarrow.parquet, torch, transformers, peft, accelerate
import grmp_hf.learning, grmp_hf.comparing, grmp_hf.hub, grmp_hf.scoring, grmp_hf.streaming
import grmp_hf.cli.resuming, grmp_hf.cli.joining
from grmp_hf.cli.main import main

FILES = "open os.rename os.remove os.rmdir os.mkdir os.truncate os.chmod os.link shutil.rmtree shutil.move".split()

def run(argv, root, at, number, said):
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(out, 1), os.dup2(out, 2)
    os.chdir(root)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    events = []
    def watch(event, args):
        if event not in FILES:
            return
        within = event in ("os.remove", "os.rmdir") and args[-1] >= 0  # of a folder that is removed with all in it
        given = [os.fsdecode(arg) for arg in args[: 1 if event == "open" else 2] if isinstance(arg, (str, bytes))]
        if within or any(os.path.abspath(path).startswith(root) for path in given):
            events.append(" ".join([event, *given]))
            if len(events) == at:
                os.kill(os.getpid(), number)
    sys.addaudithook(watch)
    if isinstance(at, float):
        signal.setitimer(signal.ITIMER_REAL, at)  # which ends the process at once
    try:
        code = main(argv)
        sys.stdout.flush(), sys.stderr.flush()
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
        code = 99
    signal.setitimer(signal.ITIMER_REAL, 0)
    with open(f"{said}.events", "w") as file:
        json.dump(events, file)
    os._exit(code)

gc.freeze()  # a Trainer looks for garbage when it ends
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(*json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Ended(NamedTuple):
    """How a command ended: exit code (negative: the signal), what it said, file events below its folder."""

    code: int
    said: str
    events: list[str]


Start = Callable[..., Ended]
Choose = Callable[[list[str], float], Sequence[float]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Runs a command in a folder and in a process of its own, which gets a signal before its n-th file event there.

    With a number of seconds in the place of an event it is killed when they have passed.
    """
    if not hasattr(os, "fork"):
        pytest.skip("processes are not forked here")
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said = tmp_path_factory.mktemp("said") / "said"
    events = said.with_name("said.events")

    def run(argv: list[object], root: Path, at: float = 0, number: int = signal.SIGKILL) -> Ended:
        assert server.stdin is not None and server.stdout is not None
        events.write_text("[]")
        server.stdin.write(json.dumps([[*map(str, argv)], str(root), at, int(number), str(said)]) + "\n")
        server.stdin.flush()
        return Ended(int(server.stdout.readline()), said.read_text(encoding="utf-8"), json.loads(events.read_text()))

    yield run
    server.communicate()


def contents(root: Path) -> dict[str, object]:
    """All that lies below a folder; what says how long something took, or when, is left out."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name, content = path.relative_to(root).as_posix(), None if path.is_dir() else path.read_bytes()
        found[name] = None if content is None else hashlib.sha256(content).hexdigest()
        if content is not None and path.name in (*TIMED, ".grmp-iqa.json"):
            told: dict[str, Any] = json.loads(content)
            files = {file: None if file in TIMED else digest for file, digest in told.get("files", {}).items()}
            found[name] = {**told, "files": files, "seconds": None, "peak_memory_mib": None, "run": None}
    return found


_SHORT = "steps: 3\nsave_steps: 1\n"
_STREAM = "method: distillation\nmemory: 4\nhead_epochs: 2\nepochs: 2\ngroup: 4\nsave_steps: 2\n"
_EPISODES = """steps: 2
eval_steps: 1
tasks_per_step: 2
inner_steps: 1
support: 4
query: 4
held_out_support: 4
held_out_query: 4
held_out_visits: 1
held_out_share: 0.25
"""


class Case(NamedTuple):
    """A command that fills a folder, and the one that filled it before, if any."""

    words: list[object]
    before: list[object] | None = None


def case(kind: str, clip: Path, adapter: Path, photos: Path) -> Case:
    """Commands whose outputs are relative to the folder that they are started in."""
    name, _, option = kind.partition(" ")
    model, overwrite = ["--model", clip], ["--overwrite"]
    if name == "score":
        words = ["score", photos, *model, "--output", f"mine/t.{option.split()[0]}", "--batch-size", 4, "-q"]
        before = ["score", photos, "--adapter", adapter, *words[4:]]
    elif name == "bake":
        words, before = ["bake", "mine", "--adapter", adapter], ["bake", "mine", *model]
    elif name == "pretrain":
        words = ["pretrain", "--photos", photos, *model, "--recipe", photos / "episodes.yaml", "--output", "mine"]
        words, before = [*words, "--workers", 0, "-q"], [*words, "--workers", 0, "-q", "--seed", 1]
    elif name == "stream":
        sets = [f"a={photos / 'labels.csv'}", f"b={photos / 'others.csv'}"]
        words = ["stream", *sets, *model, "--recipe", photos / "stream.yaml", "--output", "mine", "-q"]
        before = [*words, "--seed", 1]
    elif name == "adapt":
        words = ["adapt", "--data", photos, *model, "--recipe", photos / "short.yaml", "--output", "mine", "-q"]
        words, before = [*words, "--shots", 6], [*words, "--shots", 5]
        if "report" in option:
            words, before = [*words, "--report", "report"], [*before, "--report", "report"]
    else:
        return Case(["evaluate", photos, "--adapter", adapter])
    return Case([*words, *overwrite], before) if "overwrite" in option else Case(words)


@pytest.fixture
def wanted(request: pytest.FixtureRequest, clip_folder: Path, adapter_folder: Path, photos: list[Path]) -> Case:
    """The case of that name."""
    folder = photos[0].parent
    rows = [f"{photo.name},{1 + index / 3:.2f}" for index, photo in enumerate(photos)]
    (folder / "labels.csv").write_text("\n".join(["image,mos", *rows]))
    (folder / "others.csv").write_text("\n".join(["image,mos", *(f"{row}1" for row in rows[::-1])]))
    (folder / "short.yaml").write_text(_SHORT)
    (folder / "stream.yaml").write_text(_STREAM)
    (folder / "episodes.yaml").write_text(_EPISODES)
    return case(request.param, clip_folder, adapter_folder, folder)


def kill_everywhere(start: Start, wanted: Case, choose: Choose, root: Path) -> int:
    """Kill a command at some moments, and start it again each time; how often it was killed.

    Args:
        choose: moments, given the events of an uninterrupted run and its seconds.
    """

    def begin(name: str) -> Path:
        home = root / name
        if wanted.before is None:
            home.mkdir()
        else:
            shutil.copytree(root / "before", home)
        return home

    if wanted.before is not None:
        (root / "before").mkdir()
        assert start(wanted.before, root / "before").code == 0
    whole, began = begin("whole"), time.monotonic()
    ended = start(wanted.words, whole)
    assert ended.code == 0, ended.said
    expected, killed = contents(whole), 0
    for moment in choose(ended.events, time.monotonic() - began):
        home = begin(str(moment))
        first = start(wanted.words, home, at=moment)
        assert first.code in (-signal.SIGKILL, -signal.SIGALRM, 0), first.said  # a run may have some events less
        check_descriptions(home)
        again = start(wanted.words, home)
        where = (moment, ended.events[moment - 1] if isinstance(moment, int) else "", again.said)
        assert again.code == 0 or (again.code == 2 and again.said.count("\n") == 1), where
        assert contents(home) == expected, where
        shutil.rmtree(home)
        killed += first.code != 0
    return killed


def check_descriptions(home: Path) -> None:
    """What lies beside a table is of that table, at any moment, unless its folder says that it is unfinished."""
    if any(home.rglob(".grmp-iqa-run")):
        return
    for path in home.rglob("*.csv"):
        with open(path, encoding="utf-8", newline="") as file:
            scorer = next(csv.DictReader(file))["scorer"]
        assert json.loads(path.with_name(f"{path.name}.json").read_text())["scorer"] == scorer


def swap_of(events: list[str]) -> int:
    """The first event of putting results in their place, from 1."""
    found = [at for at, event in enumerate(events, start=1) if event.startswith("os.rename")]
    planned = [at for at in found if events[at - 1].endswith("swap.json")]
    return min([*planned, *found[-2:]], default=len(events))


def spread(events: list[str], before: int, after: int) -> list[int]:
    """That many moments before results are put in their place, and from there on; all, where there are less."""
    last = swap_of(events)
    step, late = max(last // before, 1), max((len(events) - last + 1) // after, 1)
    return [*range(1, last, step), *range(last, len(events) + 1, late)]


@pytest.mark.parametrize("wanted", ["score csv overwrite", "bake overwrite", "stream"], indirect=True)
def test_a_command_killed_at_some_moments_ends_as_if_nothing_had_happened(
    wanted: Case, start: Start, tmp_path: Path
) -> None:
    few = {"score": (4, 4), "bake": (1, 3), "stream": (3, 1)}[str(wanted.words[0])]
    assert kill_everywhere(start, wanted, lambda events, _: spread(events, *few), tmp_path) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("wanted", CASES, indirect=True)
def test_a_command_killed_at_any_moment_ends_as_if_nothing_had_happened(
    wanted: Case, start: Start, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    killed = kill_everywhere(start, wanted, lambda events, _: spread(events, BEFORE, len(events)), tmp_path)
    record_property("killed", killed)
    assert killed >= 10


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["score csv", "adapt", "bake overwrite", "evaluate", "stream"], indirect=True)
def test_a_command_killed_at_random_ends_as_if_nothing_had_happened(
    wanted: Case, start: Start, photos: list[Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    generator, given = random.Random(0), contents(photos[0].parent)

    def choose(_: list[str], seconds: float) -> list[float]:
        return [generator.uniform(0.02, 0.9) * seconds for _ in range(MOMENTS)]

    (tmp_path / "first").mkdir()
    assert start(wanted.words, tmp_path / "first").code == 0  # which takes longer than any after it
    record_property("killed", kill_everywhere(start, wanted, choose, tmp_path))
    assert contents(photos[0].parent) == given


@pytest.mark.parametrize("wanted", ["score csv"], indirect=True)
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_is_one_line_and_the_same_command_goes_on(
    number: int, code: int, said: str, wanted: Case, start: Start, tmp_path: Path
) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = start(wanted.words, tmp_path / "whole")
    cut = start(wanted.words, tmp_path / "cut", at=swap_of(whole.events), number=number)
    assert (cut.code, cut.said) == (code, f"grmp-iqa: {said}; the same command goes on from here\n")
    assert {path.name for path in (tmp_path / "cut" / "mine").iterdir()} == {"t.csv.part"}
    assert start(wanted.words, tmp_path / "cut").code == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
