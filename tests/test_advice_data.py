"""Advice in what official data sets and benchmarks refuse works: it is provoked, done as it says, and then succeeds."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from peft import get_peft_model
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

import grmp_hf
from grmp_hf import GRMPPromptConfig
from grmp_hf.benchmark.choosing import make_methods
from grmp_hf.benchmark.config import BenchmarkConfig
from grmp_hf.benchmark.store import ResultStore
from grmp_hf.benchmark.stream_config import StreamsConfig
from grmp_hf.benchmark.streams import plan_streams
from grmp_hf.benchmark.tables import read_tables
from grmp_hf.cli import publishing
from grmp_hf.cli.main import main
from grmp_hf.data import paper_splits, read_benchmark
from grmp_hf.data.builders import load_iqa_dataset
from grmp_hf.data.distortions import distort
from grmp_hf.data.gmsd import gmsd
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.splits import Split, draw_shots, official_split
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.low_level import SMALL, LowLevelConfig, LowLevelEncoder
from grmp_hf.scoring import Scorer
from tests.advised import Case, follow


class Place(NamedTuple):
    """A folder to work in: BIQ2021 in small as biq/, an archive of it, a table in rated/, and a base."""

    here: Path
    base: Scorer

    @property
    def biq(self) -> Path:
        return self.here / "biq"


Asked = Callable[[Place], Any]
NAMES = [f"ss0{number} (1).jpg" for number in range(1, 8)]


@pytest.fixture
def place(base: Scorer, clip_folder: Path, tmp_path: Path) -> Place:
    (tmp_path / "clip").symlink_to(clip_folder)
    for name in ("biq/Images", "rated"):
        (tmp_path / name).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        picture = Image.effect_noise((40, 40), 20.0 * number + 9).convert("RGB")
        picture.save(tmp_path / "biq" / "Images" / name)
        picture.save(tmp_path / "rated" / f"{number}.png")
    for part, names in (("Train", NAMES[:4]), ("Test", NAMES[4:])):
        rows = ["Image Name,MOS", *(f"{name},{0.1 * (1 + NAMES.index(name))}" for name in names)]
        (tmp_path / "biq" / f"{part} (Images and MOS).csv").write_text("\n".join(rows))
    rate(tmp_path, "image,mos")
    return Place(tmp_path, base)


def rate(here: Path, header: str, factor: float = 0.5) -> None:
    rows = [f"{number}.png,{1 + factor * number}" for number in range(7)]
    (here / "rated" / "labels.csv").write_text("\n".join([header, *rows]))


def command(text: str, answer: str = "") -> Asked:
    """A command, whose last line is raised where it refuses."""

    def run(place: Place) -> None:
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
            patch.setattr("sys.stdin", io.StringIO(answer))
            patch.setattr(publishing, "upload_set", lambda folder, repo, private: f"https://example.org/{repo}")
            with contextlib.redirect_stdout(io.StringIO()):
                code = main([word.format(here=place.here) for word in text.split()])
        if code:
            raise GRMPError(said.getvalue().splitlines()[-1])

    return run


def read(folder: str = "biq", name: str = "biq2021", **options: Any) -> Asked:
    return lambda place: read_benchmark(name, place.here / folder, cache_dir=place.here / "cache", **options)


def both(*steps: Asked) -> Asked:
    return lambda place: [step(place) for step in steps]


def write(name: str, text: str) -> Asked:
    return lambda place: (place.here / name).write_text(text)


def move(old: str, new: str) -> Asked:
    return lambda place: shutil.move(place.here / old, place.here / new)


def pack(place: Place) -> None:
    with zipfile.ZipFile(place.here / "biq.zip", "w") as opened:
        for path in sorted(place.biq.rglob("*")):
            opened.write(path, path.relative_to(place.here))


def cut(place: Place) -> None:
    pack(place)
    content = (place.here / "biq.zip").read_bytes()
    (place.here / "biq.zip").write_bytes(content[: len(content) // 2])


def nested(place: Place) -> None:
    (place.biq / "more.zip").write_bytes(b"PK")
    pack(place)
    (place.biq / "more.zip").unlink()


def benchmark(what: dict[str, Any], **keys: Any) -> Asked:
    """Read a configuration, its tables and its methods."""

    def run(place: Place) -> None:
        values = {"datasets": {"mine": {"path": "rated", **what}}, "methods": ["zero_shot"], "shots": [3], **keys}
        (place.here / "b.yaml").write_text(yaml.safe_dump(values))
        config = BenchmarkConfig.from_yaml(place.here / "b.yaml")
        read_tables(config)
        make_methods(config.methods, place.base, config.folder)

    return run


def configured(**keys: Any) -> Asked:
    return benchmark({}, **keys)


def methods(*entries: Any) -> Asked:
    return configured(methods=list(entries))


GREPQ, ZERO, MADE = {"method": "grepq"}, {"method": "grepq_zero_shot"}, {"low_level": "statistics"}


def on(base: Callable[..., Scorer], *entries: Any) -> Asked:
    """The same on another base."""

    def run(place: Place) -> None:
        scorer = base() if base is grmp_hf.load else base(place)
        methods(*entries)(place._replace(base=scorer))

    return run


def vote(header: str) -> Asked:
    """Write a table whose pictures have been rated twice: in two lines each, or in two columns."""
    votes = [(f"{number}.png", 1 + number % 4, 2 + number % 3) for number in range(7)]
    wide = [f"{name},{first},{second}" for name, first, second in votes]
    long = [f"{name},{rating},{who}" for name, *both in votes for who, rating in zip("ab", both, strict=True)]
    return write("rated/labels.csv", "\n".join([header, *(long if header.endswith("who") else wide)]))


def sided(place: Place) -> Path:
    """Folder of the base with a small ResNet beside it, as the advice has it saved."""
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes)).save_pretrained(place.here / "side")
    grmp_hf.load(place.here / "clip", side=str(place.here / "side")).save(place.here / "sided")
    return place.here / "sided"


def adapted(base: Scorer, place: Place) -> None:
    """Save an adapter of a base, not trained."""
    model: Any = get_peft_model(copy_base(base.model), GRMPPromptConfig(text_prompts=1, visual_prompts=1))
    dataclasses.replace(base, model=model.eval()).save(place.here / "high")


def encode(place: Place) -> None:
    LowLevelEncoder(LowLevelConfig({**SMALL, "hidden_sizes": [4, 6], "depths": [1, 1]}, 5, 3)).save_pretrained(
        place.here / "low"
    )


def streams(sets: str, *entries: Any, **keys: Any) -> Asked:
    """Read the configuration of streams of data sets, and plan them."""

    def run(place: Place) -> None:
        datasets = {name: {"path": "rated"} for name in sets.split()}
        values = {"model": "clip", "datasets": datasets, "streams": list(entries), **keys}
        (place.here / "c.yaml").write_text(yaml.safe_dump(values))
        config = StreamsConfig.from_yaml(place.here / "c.yaml")
        plan_streams(config, read_tables(config))

    return run


PHOTO = np.zeros((20, 20, 3), np.uint8)
LABELS = "biq/Test (Images and MOS).csv"
BENCH = "benchmark {here}/c.yaml --device cpu -q"
C_YAML = "model: clip\ndatasets: {mine: {path: rated}}\nmethods: [zero_shot]\nshots: [3]\ndraws: 1\n"
SETS = {
    "name": Case(command("data check biq202 {here}/biq"), 'did you mean "biq2021"', read()),
    "option": Case(command("data check koniq10k {here}/biq --option scores"), "see `grmp-iqa data list`",
                   command("data list")),
    "no option": Case(read(scores="1-5"), "leave it out", read()),
    "answer": Case(command("data push biq2021 {here}/biq me/biq", "n\n"), "add --yes",
                   command("data push biq2021 {here}/biq me/biq --yes")),
    "answer yes": Case(command("data push biq2021 {here}/biq me/biq", "\n"), "expected y",
                       command("data push biq2021 {here}/biq me/biq", "y\n")),
    "built": Case(both(*[command("data build biq2021 {here}/biq -o {here}/out")] * 2), "or add --overwrite",
                  command("data build biq2021 {here}/biq -o {here}/out --overwrite")),
    "another file": Case(read("biq/Images/ss01 (1).jpg"), "give its folder", read("biq")),
    "packed": Case(both(pack, move("biq", "kept"), lambda place: (place.here / "biq").mkdir(),
                        move("biq.zip", "biq/biq.zip"), read()), "unpack biq.zip first",
                   both(lambda place: zipfile.ZipFile(place.biq / "biq.zip").extractall(place.biq), read())),
    "archive, cut": Case(both(cut, read("biq.zip")), "fetch the archive again", both(pack, read("biq.zip"))),
    "archive, by hand": Case(both(nested, read("biq.zip")), "unpack it by hand and name the folder", read("biq")),
    "missing pictures": Case(both(move("biq/Images/ss01 (1).jpg", "kept"), read()), "get the whole of BIQ2021",
                             both(move("kept", "biq/Images/ss01 (1).jpg"), read())),
    "more pictures": Case(both(lambda place: Image.new("RGB", (9, 9)).save(place.biq / "Images" / "x.jpg"), read()),
                          "remove them, or get BIQ2021 again",
                          both(lambda place: (place.biq / "Images" / "x.jpg").unlink(), read())),
    "labels": Case(both(move(LABELS, "kept"), write(LABELS, "Image Name,MOS\nss05 (1).jpg,7"), read()),
                   "get the label file again", both(move("kept", LABELS), read())),
    "column": Case(both(move(LABELS, "kept"), write(LABELS, "a,b\n1,2"), read()), "is this the official label file?",
                   both(move("kept", LABELS), read())),
    "data_dir": Case(lambda place: load_iqa_dataset("biq2021", data_dir=None), "expected data_dir, the folder of",
                     lambda place: load_iqa_dataset("biq2021", data_dir=place.biq, cache_dir=place.here / "cache")),
    "distortion": Case(lambda place: distort(PHOTO, "blur", 1, seed=0), "choose from",
                       lambda place: distort(PHOTO, "gaussian_blur", 1, seed=0)),
    "level": Case(lambda place: distort(PHOTO, "jpeg", 6, seed=0), "choose one of these",
                  lambda place: distort(PHOTO, "jpeg", 5, seed=0)),
    "small": Case(lambda place: distort(PHOTO[:5], "jpeg", 1, seed=0), "convert or enlarge it",
                  lambda place: distort(PHOTO, "jpeg", 1, seed=0)),
    "shapes": Case(lambda place: gmsd(PHOTO, PHOTO[:10]), "compare a picture with what was made of it",
                   lambda place: gmsd(PHOTO, PHOTO)),
    "scale": Case(lambda place: RatingScale(5, 1), "keeps this order and sets higher_is_better=False",
                  lambda place: RatingScale(1, 5, higher_is_better=False)),
    "scale of a dict": Case(lambda place: RatingScale.from_dict({"low": 1}), "write it with RatingScale.to_dict",
                            lambda place: RatingScale.from_dict(RatingScale(1, 5).to_dict())),
    "shots of the paper": Case(lambda place: paper_splits(read()(place), 6), "ask for fewer",
                               lambda place: paper_splits(read()(place), 5)),
    "stratified": Case(lambda place: draw_shots(7, 3, seed=0, stratified=True), "give the quality",
                       lambda place: draw_shots(np.linspace(0, 1, 7), 3, seed=0, stratified=True)),
    "split file": Case(both(write("split.json", "{}"), lambda place: Split.load(place.here / "split.json")),
                       "make it again", lambda place: (official_split(read()(place)).save(place.here / "split.json"),
                                                       Split.load(place.here / "split.json"))),
}  # fmt: skip
COMPARED = {
    "place": Case(both(write("c.yaml", C_YAML.replace("rated", "null")),
                       command(BENCH + " -o {here}/results")), "give it with --data mine=DIR",
                  command(BENCH + " -o {here}/results --data mine={here}/rated --methods zero_shot")),
    "output": Case(both(write("c.yaml", C_YAML), command(BENCH)), "or --output DIR",
                   command(BENCH + " --output {here}/results")),
    "output, key": Case(both(write("c.yaml", C_YAML), command(BENCH)), "add the key output",
                        both(write("c.yaml", C_YAML + "output: results\n"), command(BENCH))),
    "pairs": Case(both(write("c.yaml", C_YAML), command(BENCH + " --data {here}/rated")), "NAME=PLACE",
                  command(BENCH + " --data mine={here}/rated -o {here}/results")),
    "line": Case(both(lambda place: (place.here / "results").mkdir(), write("results/results.jsonl", "{}\n"),
                      lambda place: ResultStore(place.here / "results")), "remove it",
                 both(write("results/results.jsonl", ""), lambda place: ResultStore(place.here / "results"))),
    "last line": Case(both(lambda place: (place.here / "results").mkdir(), write("results/results.jsonl", "mine"),
                           lambda place: ResultStore(place.here / "results")), "remove that line",
                      both(write("results/results.jsonl", ""), lambda place: ResultStore(place.here / "results"))),
    "protocol": Case(configured(protocols=["dirty"]), "some of clean, paper", configured(protocols=["paper"])),
    "names": Case(methods("ridge", "ridge"), "name them", methods("ridge", {"method": "ridge", "name": "again"})),
    "shots": Case(configured(shots=[1]), "at least 2", configured(shots=[2])),
    "seed": Case(configured(seed=-1), "expected 0 to", configured(seed=0)),
    "cross": Case(configured(cross=[{"train": "mine", "test": "yours"}]), "out of mine", configured(cross=[])),
    "compared": Case(configured(compare_to="ridge"), "a method out of zero_shot", configured(compare_to="zero_shot")),
    "method": Case(methods("rigde"), "some of zero_shot, ridge", methods("ridge")),
    "setting": Case(methods({"method": "ridge", "alpha": 1}), "expected no settings", methods({"method": "ridge"})),
    "recipe": Case(methods({"method": "grmp", "recipe": {"stepps": 1}}), "keys out of train, .*steps",
                   methods({"method": "grmp", "recipe": {"steps": 1}})),
    "start": Case(methods({"method": "grmp", "start": 3}), "package or none",
                  methods({"method": "grmp", "start": "none"})),
    "number": Case(methods({"method": "full_finetune", "epochs": "x"}), "epochs of type int",
                   methods({"method": "full_finetune", "epochs": 1})),
    "range of a set": Case(benchmark({"range": "1 5"}), r"range: expected \[low, high\]", benchmark({"range": [1, 5]})),
    "ratings above": Case(both(lambda place: rate(place.here, "image,mos", 77.0), configured()),
                          r"range: \[LOW, HIGH\]", benchmark({"range": [0, 500]})),
    "column of ratings": Case(both(lambda place: rate(place.here, "image,beauty"), configured()), "key rating_column",
                              benchmark({"rating_column": "beauty"})),
    "column of pictures": Case(both(lambda place: rate(place.here, "motif,mos"), configured()), "the key image_column",
                               benchmark({"image_column": "motif"})),
    "direction": Case(both(lambda place: rate(place.here, "image,dmos"), configured()),
                      "higher_is_better: true or higher_is_better: false", benchmark({"higher_is_better": False})),
    "pictures": Case(both(lambda place: shutil.copytree(place.here / "rated", place.here / "pictures"),
                          lambda place: [path.unlink() for path in (place.here / "rated").glob("*.png")], configured()),
                     "the key images", benchmark({"images": "pictures"})),
    "raters": Case(both(vote("image,mos,who"), configured()), "let raters: average do it",
                   benchmark({"raters": "average"})),
    "raters by a column": Case(both(vote("image,mos,who"), configured()), "or the key rater_column",
                               benchmark({"rater_column": "who"})),
    "raters by columns": Case(both(vote("image,anna,bert"), configured()), "with the key rating_columns",
                              benchmark({"rating_columns": ["anna", "bert"]})),
    "side": Case(methods("loda"), "take the default as the key model", on(grmp_hf.load, "loda")),
    "side of another base": Case(methods("loda"), r"that grmp_hf.load\(model, side=...\).save has written",
                                 on(lambda place: grmp_hf.load(sided(place)), "loda")),
    "features of the side": Case(methods("grepq"), "take 'statistics'", methods(GREPQ | MADE)),
    "features of an encoder": Case(methods("grepq"), "or the folder of a low-level encoder",
                                   both(encode, methods(GREPQ | {"low_level": "low"}))),
    "no encoder": Case(methods(GREPQ | {"low_level": "rated"}), "that training/grepq.py low has written",
                       both(encode, methods(GREPQ | {"low_level": "low"}))),
    "adapter of another base": Case(
        both(lambda place: adapted(grmp_hf.load(), place), methods(GREPQ | {"high_level": "high"} | MADE)),
        "learn it on this base",
        both(lambda place: adapted(place.base, place), methods(GREPQ | {"high_level": "high"} | MADE)),
    ),
    "pristine": Case(methods("grepq_zero_shot"), "name one", methods(ZERO | {"pristine": "rated"})),
    "patches": Case(methods(ZERO | {"pristine": "rated", "low_level": "side"}), "expected statistics or the folder",
                    methods(ZERO | {"pristine": "rated", "low_level": "statistics"})),
    "streams, a set": Case(streams("mine", "default"), "add one", streams("mine yours", "default")),
    "streams, names of sets": Case(streams("mine a+b", "default"), "or the key of a mapping",
                                   streams("mine a-b", "default")),
    "streams, twice": Case(streams("mine yours", "default", {"epochs": 1}), "give one a name",
                           streams("mine yours", "default", {"epochs": 1, "name": "short"})),
    "streams, a setting": Case(streams("mine yours", {"rate": 1}), "settings out of .*, learning_rate",
                               streams("mine yours", {"learning_rate": 0.1})),
    "streams, a number": Case(streams("mine yours", {"epochs": "x"}), "epochs of type int",
                              streams("mine yours", {"epochs": 1})),
    "streams, a recipe": Case(streams("mine yours", "quick"), "check the spelling", streams("mine yours", "default")),
    "streams, shots": Case(both(streams("mine yours", "default"), command(BENCH + " -o {here}/r --shots 2 3")),
                           "expected one number", streams("mine yours", "default", shots=2)),
}  # fmt: skip
ALL = {**SETS, **COMPARED}


@pytest.mark.parametrize("name", ALL)
def test_what_is_advised_works(name: str, place: Place) -> None:
    follow(ALL[name], place)
