"""Nothing of a user's is ever changed or deleted, whatever command runs with whatever options wherever."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from grmp_hf import claims, outputs
from grmp_hf.claims import WORK, WorkFolder
from grmp_hf.cli.main import main
from grmp_hf.errors import GRMPError
from grmp_hf.outputs import MANIFEST, OutputFolder
from grmp_hf.training.checkpoints import claim_folder

_USER = (
    *("notes.txt", "README.md", "metrics.json", "scores.csv", "scores.csv.json", "scores.csv.part", "split.json"),
    *("training/1.png", "training/recipe.yaml", "test/2.png", "adapter_config.json", "scatter.png", "table.md"),
    *("model.safetensors", "base/config.json", "data/train-00000-of-00001.parquet", ".hidden", "results.jsonl"),
)


def contents(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture
def tree(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders: rated pictures laid out as training and test, files with every name that the tool writes."""
    root = tmp_path / "home"
    generator = random.Random(0)
    for folder in ("rated", "photos", "repository", "repository/deep"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in generator.sample(_USER, 9):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                Image.new("RGB", (40, 36), (generator.randrange(256), 90, 30)).save(path)
            else:
                path.write_text(f"{folder} {name}")
    rows = ["image,mos"]
    for index in range(12):
        Image.effect_noise((48, 40), 10.0 * index).convert("RGB").save(root / "rated" / f"{index}.png")
        rows.append(f"{index}.png,{1 + index / 3:.2f}")
    (root / "rated" / "labels.csv").write_text("\n".join(rows))
    (root / "short.yaml").write_text("steps: 1\n")
    monkeypatch.chdir(root)
    return root


def commands(generator: random.Random, clip: Path, adapter: Path) -> Iterator[list[str]]:
    """Commands with random options, written to random places: the user's own, new ones, each other's."""
    places = [
        "rated",
        "photos",
        "repository",
        "repository/deep",
        "repository/training",
        "new",
        "new/deep",
        "other",
        ".",
    ]
    files = ["scores.csv", "notes.txt", "a.jsonl", "b.parquet", "README.md", "table.md", "metrics.json", "x.csv"]
    while True:
        place, other, name = generator.choice(places), generator.choice(places), generator.choice(files)
        output = f"{place}/{name}"
        scorer = generator.choice([["--adapter", str(adapter)], ["--model", str(clip)], ["--model", other]])
        adapt = ["adapt", "--data", "rated", "--output", place, "--model", str(clip), "--recipe", "short.yaml", "-q"]
        adapt += generator.choice([[], ["--shots", "6"], ["--shots", "6", "--report", other], ["--start", "none"]])
        made = generator.choice(
            [
                adapt,
                ["score", generator.choice(["photos", "rated", "rated/*.png"]), "--output", output, "-q", *scorer],
                ["score", "rated", "--format", generator.choice(["csv", "table", "jsonl"]), "-q", *scorer],
                ["evaluate", "rated", *scorer],
                ["evaluate", "rated", "--scores", output],
                ["bake", place, *scorer],
                ["convert", f"{other}/model.safetensors", place],
                ["data", "build", "biq2021", other, "--output", place],
            ]
        )
        yield [*made, *generator.choice([[], ["--overwrite"]])]


def walk(tree: Path, clip: Path, adapter: Path, steps: int, seed: int) -> int:
    """Commands that did something, of a random walk; what was there before it has to be there after each of them."""
    users, worked = contents(tree), 0
    for _, command in zip(range(steps), commands(random.Random(seed), clip, adapter), strict=False):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(command)
        assert code in (0, 1, 2), (command, said.getvalue())
        worked += code != 2
        now = contents(tree)
        lost = [name for name, digest in users.items() if now.get(name) != digest]
        assert not lost, (command, lost)
    return worked


def test_files_of_a_user_survive_a_random_walk(tree: Path, clip_folder: Path, adapter_folder: Path) -> None:
    assert walk(tree, clip_folder, adapter_folder, steps=30, seed=0) >= 5


@pytest.mark.slow
def test_files_of_a_user_survive_two_thousand_commands(tree: Path, clip_folder: Path, adapter_folder: Path) -> None:
    assert walk(tree, clip_folder, adapter_folder, steps=2000, seed=1) >= 200


def test_a_folder_of_the_users_own_training_pictures_is_left_alone(tree: Path, clip_folder: Path) -> None:
    (tree / "set" / "training").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tree / "set" / "training" / "a.png")
    before = contents(tree)
    command = ["adapt", "--data", "rated", "--output", "set", "--model", str(clip_folder), "--recipe", "short.yaml"]
    for options in ([], ["--overwrite"]):
        main([*command, *options])
        assert before.items() <= contents(tree).items()


def fill(folder: Path, content: str, *, overwrite: bool = False) -> None:
    with OutputFolder(folder, ["a.txt", "b/*.txt"], overwrite=overwrite) as output:
        output.begin()
        (output.new / "b").mkdir()
        (output.new / "a.txt").write_text(content)
        (output.new / "b" / "c.txt").write_text(content)
        output.publish()


def test_results_replace_those_of_an_earlier_run_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    fill(folder, "one")
    assert contents(folder).keys() == {"a.txt", "b/c.txt", MANIFEST}
    with pytest.raises(GRMPError, match="holds finished results"):
        fill(folder, "two")
    (folder / "notes.md").write_text("mine")
    fill(folder, "two", overwrite=True)
    assert (folder / "a.txt").read_text() == "two" and (folder / "notes.md").read_text() == "mine"
    (folder / "a.txt").write_text("edited")
    with pytest.raises(GRMPError, match=r"a\.txt, which would be replaced.*changed since"):
        fill(folder, "three", overwrite=True)
    assert (folder / "a.txt").read_text() == "edited" and (folder / "b" / "c.txt").read_text() == "two"


@pytest.mark.skipif(os.name != "posix", reason="files have no modes here")
def test_files_have_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        fill(tmp_path / "out", "one")
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "a.txt").stat().st_mode & 0o777 == 0o640


_HOLD = """
import sys, time
from pathlib import Path
from grmp_hf.outputs import OutputFolder
with OutputFolder(Path(sys.argv[1]), ["a.txt"], overwrite=False) as output:
    output.begin({"run": 1})
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a process that is at work in the folder `out`."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _HOLD, str(tmp_path / "out")]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None and started[-1].stdout.readline() == "there\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_second_run_is_refused_while_the_first_is_at_work(
    held: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = held()
    for overwrite in (False, True):
        with pytest.raises(GRMPError, match=rf"{process.pid}"):
            OutputFolder(tmp_path / "out", ["a.txt"], overwrite=overwrite)
    process.kill()
    process.wait()
    with OutputFolder(tmp_path / "out", ["a.txt"], overwrite=False) as output:  # of a dead process
        output.begin({"run": 1})


def test_an_unfinished_folder_says_so(
    held: Callable[[], subprocess.Popen[str]], adapter_folder: Path, tmp_path: Path
) -> None:
    import grmp_hf

    held().kill()
    for path in adapter_folder.iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    assert (tmp_path / "out" / WORK).is_dir()
    with pytest.raises(GRMPError, match="out: "):
        grmp_hf.load(tmp_path / "out")


def test_a_table_that_this_tool_did_not_write_is_never_replaced(
    tree: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", "rated", "--model", str(clip_folder), "--output", "own.csv", "-q"]
    (tree / "own.csv").write_text("mine")
    assert main([*command, "--overwrite"]) == 2
    assert "own.csv: would be replaced, and is none of this command's" in capsys.readouterr().err
    (tree / "own.csv").unlink()
    assert main(command) == 0 and main(command) == 2 and main([*command, "--overwrite"]) == 0
    assert json.loads((tree / "own.csv.json").read_text())["pictures"] >= 12


def test_what_a_killed_run_was_building_is_not_taken_for_results(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with OutputFolder(folder, ["*.txt"], overwrite=False) as output:
        output.begin({"run": 1})
        (output.new / "half.txt").write_text("half")
    with OutputFolder(folder, ["*.txt"], overwrite=False) as output:
        output.work.begin({"run": 1})
        output.new.mkdir(parents=True, exist_ok=True)
        (output.new / "whole.txt").write_text("whole")
        output.publish()
    assert contents(folder).keys() == {"whole.txt", MANIFEST}


def test_a_run_whose_state_is_half_removed_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with WorkFolder(tmp_path / "run") as work:
        work.begin({"seed": 1})
        (work.folder / "training").mkdir()
        (work.folder / "training" / "state").touch()
    with WorkFolder(tmp_path / "run", overwrite=True) as work, monkeypatch.context() as patch:
        patch.setattr(claims, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            work.begin({"seed": 2})
    with WorkFolder(tmp_path / "run") as work:
        assert not work.is_of({"seed": 1})
        work.begin({"seed": 1})
        assert not (work.folder / "training").exists()


def test_what_is_left_beside_finished_results_goes(tmp_path: Path) -> None:
    fill(tmp_path / "out", "one")
    with WorkFolder(tmp_path / "out" / WORK):  # as it is when a run is killed in its last moments
        left = contents(tmp_path / "out" / WORK)
    for name in left:
        (tmp_path / "out" / WORK).mkdir(exist_ok=True)
        (tmp_path / "out" / WORK / name).touch()
    (tmp_path / "out" / WORK / "run.json").unlink()
    (tmp_path / "out" / WORK / ".grmp-iqa-0123456789ab").touch()
    with pytest.raises(GRMPError, match="holds finished results"):
        fill(tmp_path / "out", "two")
    assert contents(tmp_path / "out").keys() == {"a.txt", "b/c.txt", MANIFEST}
    assert not (tmp_path / "out" / WORK).exists()


def test_a_folder_without_state_is_nobodys(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "run") as work:
        work.begin({"seed": 1})
        (work.folder / "training").mkdir()
    assert not (tmp_path / "run").exists()
    with WorkFolder(tmp_path / "run") as work:
        work.begin({"seed": 1})
        (work.folder / "checkpoint-1").mkdir()
        (work.folder / "checkpoint-1" / "trainer_state.json").write_text("{}")
        work._write(None)  # as a run that has ended does before it removes the rest
    claim_folder(tmp_path / "run", {"seed": 1}).close()
    assert not (tmp_path / "run").exists()


def test_what_comes_into_the_way_of_finished_results_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with OutputFolder(folder, ["a.txt"], overwrite=False) as output:
        output.begin({"seed": 1})
        (output.new / "a.txt").write_text("new")
        (folder / "a.txt").write_text("mine")
        with pytest.raises(
            GRMPError, match=r"a\.txt, which no run .* wrote; move it away and start .* again"
        ) as refused:
            output.publish()
    assert (folder / "a.txt").read_text() == "mine"
    made = Path(str(refused.value).rpartition("What was made is in ")[2])
    assert [path.read_text() for path in made.rglob("a.txt")] == ["new"]
    (folder / "a.txt").rename(tmp_path / "a.txt")
    with OutputFolder(folder, ["a.txt"], overwrite=False) as output:
        output.begin({"seed": 1})
        (output.new / "a.txt").write_text("new")
        output.publish()
    assert (folder / "a.txt").read_text() == "new"


def test_a_folder_that_may_not_be_read_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "config.json").write_text("{}")
    outputs.check_source(tmp_path)
    monkeypatch.setattr(outputs, "open", refuse, raising=False)
    with pytest.raises(GRMPError, match=r"config\.json: no permission to read it; ask its owner .*, or read a copy"):
        outputs.check_source(tmp_path)
