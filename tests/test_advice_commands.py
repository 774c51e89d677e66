"""Advice in what commands refuse works: each is provoked, done as it says, and the command then succeeds."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from grmp_hf.cli.main import build_parser, main
from grmp_hf.record import Record

RECIPE = "steps: 2\nviews: 1\n"


class Place(NamedTuple):
    """A folder to work in with photos/, ratings.csv and quick.yaml, a base, and an adapter of it."""

    here: Path
    base: Path
    adapter: Path

    def copy(self, name: str, *, record: dict[str, Any] | None = None, **settings: Any) -> Path:
        """A copy of the adapter with other settings, or another record."""
        folder = self.here / name
        shutil.copytree(self.adapter, folder)
        config = folder / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
        dataclasses.replace(Record.load(folder), **(record or {})).save(folder)
        return folder


@pytest.fixture
def place(clip_folder: Path, adapter_folder: Path, photos: list[Path], tmp_path: Path) -> Place:
    rows = [f"photos/{path.name},{1 + at % 5}" for at, path in enumerate(photos)]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,mos", *rows]))
    (tmp_path / "quick.yaml").write_text(RECIPE)
    (tmp_path / "stream.yaml").write_text("head_epochs: 1\nepochs: 0\ngroup: 8\n")
    return Place(tmp_path, clip_folder, adapter_folder)


class Case(NamedTuple):
    """A command, what it advises, and a command or what is done before the same one is given again."""

    command: str
    advice: str
    followed: str | Callable[[Place], Any] = ""
    before: Callable[[Place], Any] = lambda place: None


def mend_size(place: Place) -> None:
    record = Record.load(place.here / "size")
    preprocessing = {**(record.preprocessing or {}), "size": 32}
    dataclasses.replace(record, preprocessing=preprocessing).save(place.here / "size")


def list_one(place: Place) -> None:
    write("l.txt", str(place.here / "photos" / "00.png"))(place)


def bake(place: Place) -> None:
    assert main(["bake", str(place.here / "baked"), "--model", str(place.adapter)]) == 0


def scored(place: Place) -> None:
    command = ["score", str(place.here / "photos"), "--model", str(place.base), "--output", str(place.here / "s.csv")]
    assert main(command) == 0


def adapted(place: Place) -> None:
    assert main(words(ADAPT, place)) == 0


def replace_in(name: str, old: str, new: str) -> Callable[[Place], Any]:
    return lambda place: (place.here / name).write_text((place.here / name).read_text().replace(old, new))


def write(name: str, text: str) -> Callable[[Place], Any]:
    return lambda place: (place.here / name).write_text(text)


def other(count: int, tests: int = 0) -> Callable[[Place], Any]:
    """Write a second table of so many ratings, the last of them marked as tests."""
    parts = ["train"] * (count - tests) + ["test"] * tests
    rows = [f"photos/{at:02}.png,{1 + at % 4}{f',{part}' * bool(tests)}" for at, part in enumerate(parts)]
    return write("other.csv", "\n".join(["image,mos" + ",split" * bool(tests), *rows]))


def as_folder(place: Place) -> None:
    """A folder with a table, which is called as the first set is."""
    (place.here / "more" / "a").mkdir(parents=True)
    rows = (place.here / "ratings.csv").read_text().replace("photos/", f"{place.here}/photos/")
    (place.here / "more" / "a" / "labels.csv").write_text(rows)


def elsewhere(place: Place) -> None:
    shutil.copy(place.here / "ratings.csv", place.here / "tables")


SCORE = "score {here}/photos/00.png --model {base}"
ADAPT = "adapt --data {here}/ratings.csv --shots 8 --model {base} --recipe {here}/quick.yaml --output {here}/mine"
EVALUATE = "evaluate {here}/ratings.csv --model {base}"
JOIN = "evaluate {here}/ratings.csv --scores {here}/s.csv"
SUGGEST = "suggest {here}/photos --count 3 --model {base}"
COMPARE = "compare --model {base} {here}/photos/00.png"
STREAM = (
    "stream a={here}/ratings.csv b={here}/other.csv --model {base} --recipe {here}/stream.yaml --output {here}/all -q"
)
COMBINE = (
    "combine {adapter} {here}/other --pictures stars={here}/photos --pictures other={here}/photos -o {here}/both -q"
)
PART = "image,mos,use\nphotos/00.png,1,train\n" + "".join(f"photos/0{n}.png,{n % 5},test\n" for n in range(1, 9))
BY_SCORES = "path,{}\n" + "".join(f"photos/0{n}.png,{n / 10}\n" for n in range(9))
SCORING = {
    "replace": Case(SCORE + " --output {here}/s.csv", "add --overwrite", "{same} --overwrite", scored),
    "another name": Case(
        SCORE + " --output {here}/a.csv", "exists; choose another name", SCORE + " -o {here}/b.csv", write("a.csv", "x")
    ),
    "a folder": Case(SCORE + " --output {here}", "is a folder; name a file", SCORE + " -o {here}/s.csv"),
    "suffix": Case(SCORE + " --output {here}/s.dat", "or --format", "{same} --format csv"),
    "ending": Case(SCORE + " --output {here}/s.dat", r"a name ending in \.csv", SCORE + " -o {here}/s.csv"),
    "parquet": Case(SCORE + " --format parquet", "--output FILE.parquet", "{same} --output {here}/s.parquet"),
    "not rows": Case(
        SCORE + " --output {here}/s.csv",
        "move it away",
        lambda place: (place.here / "s.csv.part").rename(place.here / "mine.part"),
        write("s.csv.part", "my part\n"),
    ),
    "list": Case("score --list {here}/l.txt --model {base}", "check the path", list_one),
    "nothing there": Case("score {here}/foto --model {base}", "check the spelling", "score {here}/photos"),
    "device": Case(SCORE + " --device mps", "such as cpu", SCORE + " --device cpu"),
    "file of a model": Case(
        "score {here}/photos --model {base}/config.json", "name its folder", "score {here}/photos --model {base}"
    ),
    "lost base": Case(
        "score {here}/photos --adapter {here}/lost",
        r"Name the base beside the adapter \(--model",
        "{same} --model {base}",
        lambda place: place.copy("lost", base_model_name_or_path=str(place.here / "gone")),
    ),
    "lost base, by --model": Case(
        "score {here}/photos --model {here}/lost",
        r"Name the base beside the adapter \(--model",
        "score {here}/photos --adapter {here}/lost --model {base}",
        lambda place: place.copy("lost", base_model_name_or_path=str(place.here / "gone")),
    ),
    "base of the Hub": Case(
        "score {here}/photos --adapter {here}/far",
        r"name a folder of it \(--model",
        "{same} --model {base}",
        lambda place: place.copy("far", base_model_name_or_path="owner/never-published"),
    ),
    "size": Case(
        "score {here}/photos --adapter {here}/size",
        "Correct size in .* the adapter's preprocessing",
        mend_size,
        lambda place: place.copy("size", record={"preprocessing": {"size": 64, "views": ["center"]}}),
    ),
    "baked, without": Case(
        "score {here}/photos --adapter {adapter} --model {here}/baked",
        "Leave the adapter out",
        "score {here}/photos --model {here}/baked",
        bake,
    ),
    "baked, its base": Case(
        "score {here}/photos --adapter {adapter} --model {here}/baked",
        "or name its base, '.*clip",
        "score {here}/photos --adapter {adapter} --model {base}",
        bake,
    ),
}
EVALUATING = {
    "part": Case(
        EVALUATE + " --part test", "see --split-column", "{same} --split-column use", write("ratings.csv", PART)
    ),
    "scores given as ratings": Case(
        "evaluate {here}/s.csv --model {base}", "--scores FILE` compares it with this one", JOIN, scored
    ),
    "no scores": Case(JOIN, "name the column of the scores score", write("s.csv", BY_SCORES.format("score")),
                      write("s.csv", BY_SCORES.format("sharpness"))),
    "several scorers": Case(
        JOIN,
        "keep the rows of one scorer",
        write("s.csv", BY_SCORES.format("score")),
        write("s.csv", BY_SCORES.format("score") + "photos/00.png,0.9\n"),
    ),
    "no file of scores": Case(JOIN, "check the path", scored),
    "range": Case(
        EVALUATE + " --range 5 1", "low end before the high one", EVALUATE + " --range 1 5 --lower-is-better"
    ),
    "another adapter": Case(JOIN + " --adapter {adapter}", "or leave --adapter out", JOIN, lambda place: main(words(
        "score {here}/photos --model {base} --adapter {here}/other -o {here}/s.csv", place
    )) if place.copy("other") and retouch(place.here / "other") else None),
}  # fmt: skip
ADAPTING = {
    "few": Case(
        ADAPT.replace("--shots 8", "--shots 4"), "expected at least 5", ADAPT.replace("--shots 8", "--shots 5")
    ),
    "seed": Case(ADAPT + " --seed -1", "expected 0 to", ADAPT + " --seed 0"),
    "a base": Case(ADAPT.replace("{base}", "{adapter}"), "Name its base, '.*clip.*--model", ADAPT),
    "recipe": Case(ADAPT.replace("{here}/quick.yaml", "quik"), "or one of authors, default", ADAPT),
    "key of a recipe": Case(
        ADAPT, "Expected keys out of", write("quick.yaml", RECIPE), write("quick.yaml", RECIPE + "stepps: 3\n")
    ),
    "number of a recipe": Case(
        ADAPT,
        "write 0.001",
        write("quick.yaml", RECIPE + "learning_rate: 0.001\n"),
        write("quick.yaml", RECIPE + "learning_rate: 1e-3\n"),
    ),
    "start": Case(ADAPT + " --start defalt", "package or none", ADAPT + " --start none"),
    "same folder": Case(
        ADAPT + " --start {here}/mine --overwrite",
        "write elsewhere",
        ADAPT.replace("{here}/mine", "{here}/next") + " --start {here}/mine",
        adapted,
    ),
    "finished": Case(ADAPT, "add --overwrite", "{same} --overwrite", adapted),
    "another folder": Case(ADAPT, "choose another folder", ADAPT.replace("{here}/mine", "{here}/next"), adapted),
    "not empty": Case(
        ADAPT,
        "add --overwrite",
        "{same} --overwrite",
        lambda place: ((place.here / "mine").mkdir(), write("mine/notes.txt", "")(place)),
    ),
    "of others": Case(
        ADAPT + " --overwrite",
        "move it away",
        lambda place: (place.here / "mine" / "README.md").rename(place.here / "README.md"),
        lambda place: ((place.here / "mine").mkdir(), write("mine/README.md", "my own")(place)),
    ),
    "unreadable": Case(
        ADAPT.replace("--shots 8 ", ""),
        "or remove it from the ratings",
        replace_in("ratings.csv", "photos/03.png,4\n", ""),
        write("photos/03.png", "no picture"),
    ),
    "baked already": Case(
        "bake {here}/again --model {here}/baked", "expected a base or an adapter",
        "bake {here}/again --model {adapter}",
        bake,
    ),
}  # fmt: skip
CHOOSING = {
    "suffix": Case(SUGGEST + " -o {here}/s.txt", r"a name ending in \.csv", SUGGEST + " -o {here}/s.csv"),
    "folder": Case(SUGGEST + " -o {here}/no/s.csv", "make it", lambda place: (place.here / "no").mkdir()),
    "another place": Case(SUGGEST + " -o {here}/no/s.csv", "or name another place", SUGGEST + " -o {here}/s.csv"),
    "exists": Case(SUGGEST + " -o {here}/s.csv", "or add --overwrite", "{same} --overwrite",
                   lambda place: run(SUGGEST + " -o {here}/s.csv", place)),
    "rated": Case(SUGGEST + " -o {here}/ratings.csv --overwrite", "name another file", SUGGEST + " -o {here}/s.csv"),
    "suggest of a baked one": Case(
        "suggest {here}/photos --count 3 -o {here}/s.csv --model {here}/baked",
        "the base and the adapter that it was baked from",
        SUGGEST + " -o {here}/s.csv --adapter {adapter}",
        bake,
    ),
    "one alone": Case(COMPARE, "name another one", COMPARE + " {here}/photos/01.png"),
    "path behind an option": Case(
        COMPARE + " --quiet {here}/photos/01.png", "before the options", COMPARE + " {here}/photos/01.png --quiet"
    ),
    "noise": Case(COMPARE + " {here}/photos/01.png --noise 0", "such as 0.2", COMPARE + " {here}/photos --noise 0.2"),
}  # fmt: skip
STREAMING = {
    "named twice": Case(
        STREAM.replace("b={here}/other.csv", "{here}/more/a"), "such as a_2=",
        STREAM.replace("b={here}/other.csv", "a_2={here}/more/a"), as_folder,
    ),
    "a name": Case(STREAM.replace("b=", "b+="), "Name each one yourself: NAME=PLACE", STREAM, other(12)),
    "few test": Case(STREAM, r"or let fewer teach \(--shots\)", STREAM + " --shots 3", other(5)),
    "few teach": Case(STREAM + " --shots 1", r"let more teach \(--shots\)", STREAM + " --shots 8", other(12)),
    "few marked": Case(STREAM + " --shots 3", "mark more of either part", other(12, tests=2), other(12, tests=1)),
    "memory": Case(STREAM + " --memory 4", "Leave it out", STREAM, other(12)),
}  # fmt: skip
COMBINING = {
    "pictures": Case(COMBINE.replace("--pictures other={here}/photos", ""), "Name them: --pictures NAME=PLACE",
                     COMBINE, lambda place: place.copy("other")),
    "names of pictures": Case(COMBINE.replace("other={here}/photos", "{here}/photos"), "are those of the adapters",
                              COMBINE, lambda place: place.copy("other")),
    "two of a name": Case(
        COMBINE.replace("{here}/other", "{here}/more/stars"), "another one, such as stars_2=",
        COMBINE.replace("{here}/other", "other={here}/more/stars"), lambda place: place.copy("more/stars"),
    ),
    "table without pictures": Case(
        COMBINE.replace("other={here}/photos", "other={here}/tables/ratings.csv"), "--images DIR",
        "{same} --images {here}", lambda place: (place.copy("other"), place.copy("tables"), elsewhere(place)),
    ),
    "range of a table": Case(
        COMBINE.replace("other={here}/photos", "other={here}/ratings.csv"), "--range LOW HIGH", "{same} --range 0 500",
        lambda place: (place.copy("other"), replace_in("ratings.csv", ",5", ",500")(place)),
    ),
    "temperature": Case(COMBINE + " --temperature -1", "at least 0", COMBINE + " --temperature 0",
                        lambda place: place.copy("other")),
    "experts of one name": Case(
        "combine one={here}/both two={here}/next -o {here}/all", "give them singly, NAME=FOLDER/experts/NAME",
        "combine {here}/both third={here}/next/experts/stars --pictures third={here}/photos -o {here}/all",
        lambda place: (place.copy("other"), [run(COMBINE.replace("both", name), place) for name in ("both", "next")]),
    ),
    "to its own place": Case(COMBINE.replace("{here}/both", "{here}/other"), "write elsewhere", COMBINE,
                             lambda place: place.copy("other")),
}  # fmt: skip
ALL = {**SCORING, **EVALUATING, **ADAPTING, **CHOOSING, **STREAMING, **COMBINING}


def retouch(folder: Path) -> bool:
    """Give an adapter other weights."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file({name: weight * 1.01 for name, weight in load_file(path).items()}, path, {"format": "pt"})
    return True


def words(command: str, place: Place) -> list[str]:
    return [
        word.format(**{name: path.as_posix() for name, path in place._asdict().items()}) for word in command.split()
    ]


@pytest.mark.parametrize("name", ALL)
def test_what_a_command_advises_works(name: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    case = ALL[name]
    case.before(place)
    capsys.readouterr()
    assert run(case.command, place) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(case.advice, said), said
    again = case.command
    if isinstance(case.followed, str):
        again = case.followed.replace("{same}", case.command)
    else:
        case.followed(place)
    assert run(again, place) == 0, capsys.readouterr().err


def run(command: str, place: Place) -> int:
    return main(words(command, place))


def test_what_is_meant_by_a_misspelt_name_works(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score {here}/photos --adapter {adapter}z", place) == 2
    (meant,) = re.findall(r"Did you mean '(.*)'\?", capsys.readouterr().err)
    assert main(["score", str(place.here / "photos"), "--adapter", meant]) == 0


def test_a_note_on_the_direction_turns_the_figures(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    write("s.csv", BY_SCORES.format("score"))(place)
    rows = [f"photos/0{n}.png,{5 - n / 2}" for n in range(9)]
    write("ratings.csv", "\n".join(["image,mos", *rows]))(place)
    assert run(JOIN + " --range 1 5 --json", place) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["srcc"] < -0.99 and "add --lower-is-better" in streams.err
    assert run(JOIN + " --range 1 5 --lower-is-better --json", place) == 0
    assert json.loads(capsys.readouterr().out)["srcc"] > 0.99


def test_pictures_to_test_on_are_left_by_fewer_shots(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ADAPT.replace("--shots 8", "--shots 12"), place) == 0
    assert "ask for fewer --shots" in capsys.readouterr().out
    assert run(ADAPT + " --overwrite", place) == 0
    assert "4 test pictures" in capsys.readouterr().out


def test_suggestions_are_filled_in_and_learnt_from_as_the_help_says(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place.here)
    assert run("suggest photos --count 10 --model {base} --output to_rate.csv", place) == 0
    lines = (place.here / "to_rate.csv").read_text().splitlines()
    rated = [line.replace(",,", f",{1 + at % 5},", 1) for at, line in enumerate(lines[1:])]
    (place.here / "to_rate.csv").write_text("\n".join([lines[0], *rated]))
    with pytest.raises(SystemExit):
        build_parser().parse_args(["suggest", "--help"])
    (told,) = re.findall(r"grmp-iqa (adapt .*?)\. With", " ".join(capsys.readouterr().out.split()))
    assert run(f"{told} --shots 6 --model {{base}} --recipe quick.yaml", place) == 0, capsys.readouterr().err
