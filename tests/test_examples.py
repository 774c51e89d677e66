"""Every script in `examples/` runs, on a few made pictures and the embedded base; push.py in test_hub_clients.py."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grmp_hf.embedded import EMBEDDED_PROMPTS

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture
def rated(photos: list[Path]) -> Path:
    """The folder of the photos, with ratings."""
    with (photos[0].parent / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *((path.name, 1 + i % 5) for i, path in enumerate(photos))])
    return photos[0].parent


_SERVER = """
import gc, json, os, runpy, sys, traceback
import accelerate, datasets, matplotlib.pyplot, peft, torch, transformers.pipelines
from transformers import CLIPModel, Trainer

gc.freeze()  # a Trainer looks for garbage when it ends
for line in sys.stdin:
    script, *arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        for name, number in (("out.txt", 1), ("errors.txt", 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(script)
        code = 0
        try:
            runpy.run_path(script, run_name="__main__")
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`run(script, *arguments)` in a process of its own, in which other libraries are there but nothing of ours."""
    folder = tmp_path_factory.mktemp("examples")
    command = [sys.executable, "-c", _SERVER]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)

    def ask(*words: str) -> tuple[int, str, str]:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(words) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return code, (folder / "out.txt").read_text("utf-8"), (folder / "errors.txt").read_text("utf-8")

    yield ask
    server.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "push.py"])
def test_the_example_runs(script: str, rated: Path, photos: list[Path], tmp_path: Path, run: Run) -> None:
    prompts, output, picture = str(EMBEDDED_PROMPTS), str(tmp_path / "out"), str(photos[0])
    arguments = {
        "adapt.py": [str(rated), "6", output],
        "bake.py": [prompts, picture, output],
        "loda.py": [str(rated), output],
        "lpf.py": [str(rated), output],
        "pairs.py": [output, str(rated), str(rated / "labels.csv")],
        "pipeline.py": [prompts, picture, str(photos[1])],
        "save_and_load.py": [prompts, picture, output],
        "score.py": [picture, str(photos[1])],
        "trainer.py": [str(rated), output],
    }
    code, said, errors = run(str(ROOT / "examples" / script), *arguments[script])
    assert code == 0, errors[-2000:]
    if script in ("bake.py", "save_and_load.py"):  # the same score by every door
        numbers = [float(found) for found in re.findall(r"\[([\d.e-]+)\]", said)]
        assert len(numbers) >= 2 and numbers == pytest.approx([numbers[0]] * len(numbers), abs=1e-5)
    else:
        assert said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_an_adapter_with_a_side_network_scores_the_same_by_every_door(
    points_adapter: Path, photos: list[Path], tmp_path: Path, run: Run
) -> None:
    code, said, errors = run(
        str(ROOT / "examples" / "save_and_load.py"), str(points_adapter), str(photos[0]), str(tmp_path / "out")
    )
    assert code == 0, errors[-2000:]
    numbers = [float(found) for found in re.findall(r"\[([\d.e-]+)\]", said)]
    assert len(numbers) == 3 and numbers == pytest.approx([numbers[0]] * 3, abs=1e-5)


def test_examples_are_short_and_named_in_the_documents() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs" / "quickstart.md").read_text(
        encoding="utf-8"
    )
    for name in SCRIPTS:
        assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) <= 30
        assert f"examples/{name}" in text
