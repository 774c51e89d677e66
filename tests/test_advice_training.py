"""Advice in what adapt and pretrain refuse works: each is provoked, done as it says, and it then succeeds."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import grmp_hf
from grmp_hf import FewShotRecipe, Scorer
from grmp_hf.cli.main import main
from grmp_hf.comparing import score_tests
from grmp_hf.data import RatedTable, RatingScale, Split, split_rows
from grmp_hf.errors import GRMPError
from grmp_hf.training import few_shot
from grmp_hf.training.checkpoints import claim_folder
from grmp_hf.training.episodes import hold_out_tasks
from grmp_hf.training.pictures import RatedPictures, random_crops

RECIPE = """
text_prompts: 1
visual_prompts: 2
steps: 1
eval_steps: 1
tasks_per_step: 2
inner_steps: 1
support: 1
query: 1
held_out_support: 1
held_out_query: 2
held_out_visits: 1
held_out_share: 0.4
judge_photographs: false
bf16: false
labels: level
"""
QUICK = FewShotRecipe(steps=1, visual_prompts=0, bf16=False)
EMBEDDED = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
QUALITY = torch.linspace(0, 1, 6)


class Place(NamedTuple):
    """A folder to work in with photos/, rated.csv, distorted.csv and quick.yaml; a base, an adapter of it."""

    here: Path
    base: Path
    adapter: Path
    scorer: Scorer
    table: RatedTable

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.adapter, self.here / name))


@pytest.fixture
def place(base: Scorer, clip_folder: Path, adapter_folder: Path, photos: list[Path], tmp_path: Path) -> Place:
    rows = [f"photos/{path.name},{1 + at % 5}" for at, path in enumerate(photos)]
    kinds = ["image,mos,distortion", *(f"{row},{'ab'[at % 2]}" for at, row in enumerate(rows))]
    (tmp_path / "distorted.csv").write_text("\n".join(kinds))
    (tmp_path / "rated.csv").write_text("\n".join(["image,mos", *rows]))
    (tmp_path / "quick.yaml").write_text(RECIPE)
    return Place(tmp_path, clip_folder, adapter_folder, base, grmp_hf.read_ratings(str(tmp_path / "rated.csv")))


Asked = Callable[[Place], Any]


class Case(NamedTuple):
    provoked: Asked
    advice: str
    followed: Asked
    before: Asked = lambda place: None


TABLE = "--data {here}/distorted.csv --held-out a"
PHOTOS = "--photos {here}/photos"


def pretrain(options: str = TABLE, output: str = "start") -> Asked:
    """The command, whose last line is raised where it refuses."""

    def run(place: Place) -> None:
        named = {name: str(value) for name, value in zip(("here", "base", "adapter"), place[:3], strict=True)}
        model = "" if "--model" in options else "--model {base} "
        given = f"pretrain {model}-q --workers 0 {options} --output {{here}}/{output}"
        given += "" if "--recipe" in options else " --recipe {here}/quick.yaml"
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main([word.format(**named) for word in given.split()])
        if code:
            raise GRMPError(said.getvalue().splitlines()[-1])

    return run


GOOD = pretrain()


def adapt(**given: Any) -> Asked:
    return lambda place: grmp_hf.adapt(place.scorer, place.table, **{"recipe": QUICK, "shots": 8, **given})


def recipe(text: str) -> Asked:
    return lambda place: (place.here / "quick.yaml").write_text(RECIPE + text)


def write(name: str, text: str) -> Asked:
    return lambda place: (place.here / name).write_text(text)


def both(*steps: Asked) -> Asked:
    return lambda place: [step(place) for step in steps]


def fit(**given: Any) -> Asked:
    """Adapt to embeddings."""
    given = {"recipe": QUICK, "quality": QUALITY, **given}
    embeds, quality = given.pop("embeds", EMBEDDED), given.pop("quality")
    return lambda place: few_shot.adapt_embeds(
        place.scorer.model, embeds, quality, output_dir=place.here / "run", **given
    )


def cropped(crop: Any, recipe: FewShotRecipe = QUICK, side: int = 32) -> Asked:
    def run(place: Place) -> None:
        noise = torch.randint(256, (6, 3, side, side), dtype=torch.uint8)
        mean, std = place.scorer.processor.image_mean, place.scorer.processor.image_std
        one = (lambda index: noise[index]) if crop else (lambda index: noise[index][None])
        pictures = RatedPictures(one, QUALITY, mean, std, crop=crop)
        few_shot.adapt(place.scorer.model, pictures, recipe=recipe, output_dir=place.here / "run")

    return run


def saved(place: Place) -> None:
    adapt()(place).save(place.here / "mine")


def judged(folder: str, *, taught: bool = True) -> Asked:
    def run(place: Place) -> None:
        scorer = grmp_hf.load(adapter=place.here / folder)
        score_tests(scorer, place.table)

    return run


def hold_out(names: list[str], share: float = 0.5) -> Asked:
    tasks = {"a": [1, 2], "b": [1, 2]}
    return lambda place: hold_out_tasks(tasks, names, reference_of=int, share=share)


def claim(folder: str, steps: int) -> Asked:
    return lambda place: claim_folder(place.here / folder, {"steps": steps}).close()


def checkpoint(place: Place) -> None:
    claim("run", 1)(place)
    folder = place.here / "run" / "checkpoint-1"
    with claim_folder(place.here / "run", {"steps": 1}):
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")


def broken(place: Place) -> list[tuple[Path, Path]]:
    """Where pictures are kept meanwhile, and where they belong."""
    paths = [place.here / "photos" / f"{number:02}.png" for number in range(2, 12)]
    return [(path.with_suffix(".kept"), path) for path in paths]


MOVING = FewShotRecipe(steps=1, visual_prompts=2, train_visual=True, bf16=False)
TESTS = "image,mos,split\n" + "".join(f"photos/0{n}.png,{1 + n % 5},test\n" for n in range(9))
PRETRAINING = {
    "workers": Case(pretrain(TABLE + " --workers -1"), "at least 0", GOOD),
    "photographs": Case(pretrain("--photos {here}/photo"), "Did you mean '.*photos'", pretrain(PHOTOS)),
    "a base": Case(pretrain(TABLE + " --model {adapter}"), "Name its base, '.*clip", GOOD),
    "recipe": Case(pretrain(TABLE + " --recipe quik"), "or one of authors, default", GOOD),
    "held out": Case(pretrain(PHOTOS + " --held-out sepia"), "expected tasks out of .*, jpeg,",
                     pretrain(PHOTOS + " --held-out jpeg")),
    "one task": Case(pretrain("--data {here}/rated.csv"), "Add pictures of other distortions", GOOD),
    "none held out": Case(pretrain("--data {here}/distorted.csv"), r"or name others to hold out \(--held-out\)",
                          GOOD),
    "twice": Case(pretrain("--data {here}/distorted.csv {here}/distorted.csv"), "name each once", GOOD),
    "few": Case(both(recipe("support: 9\n"), pretrain()), "ask for a smaller support", both(recipe(""), pretrain())),
    "unreadable": Case(pretrain(), "the same command then goes on",
                       both(lambda place: [shutil.copyfile(good, at) for good, at in broken(place)], pretrain()),
                       lambda place: [at.rename(good) and at.write_text("") for good, at in broken(place)]),
    "for testing": Case(pretrain("--data {here}/tests.csv"), "that are all for testing", GOOD,
                        write("tests.csv", TESTS)),
    "key": Case(both(recipe("stepps: 3\n"), pretrain()), "Expected keys out of", both(recipe(""), pretrain())),
    "choice": Case(both(recipe("labels: mos\n"), pretrain()), "labels out of gmsd, level",
                   both(recipe("labels: gmsd\n"), pretrain())),
    "finished": Case(pretrain(), "or add --overwrite", pretrain(TABLE + " --overwrite"), pretrain()),
    "another folder": Case(pretrain(), "choose another folder", pretrain(output="next"), pretrain()),
    "crops": Case(cropped(random_crops(40), MOVING), "or take smaller crops", cropped(random_crops(32), MOVING)),
}  # fmt: skip
ADAPTING = {
    "a base": Case(lambda place: grmp_hf.adapt(grmp_hf.load(place.adapter), place.table), "grmp_hf.load of it",
                   lambda place: grmp_hf.adapt(grmp_hf.load(place.base), place.table, recipe=QUICK)),
    "shots": Case(adapt(shots=13), "ask for fewer shots", adapt(shots=12)),
    "recipe": Case(adapt(recipe={"steps": 3}), "Expected a FewShotRecipe, a name or a file", adapt(recipe=QUICK)),
    "start": Case(adapt(start="defalt"), "package or none", adapt(start="package")),
    "start, none": Case(adapt(start="defalt"), "package or none", adapt(start="none")),
    "no start": Case(lambda place: adapt(start=place.here)(place), "Name the folder that grmp-iqa pretrain has written",
                     lambda place: (pretrain()(place), adapt(start=place.here / "start")(place))),
    "embeddings": Case(fit(recipe=MOVING), "Use adapt, which takes the pictures", cropped(None, MOVING)),
    "quality": Case(fit(quality=torch.linspace(1, 5, 6)), "Map ratings with RatingScale.to_quality",
                    fit(quality=RatingScale(1, 5).to_quality(torch.linspace(1, 5, 6)))),
    "alike": Case(fit(quality=torch.full((6,), 0.5)), "Rate more", fit()),
    "crops": Case(cropped(random_crops(32)), "Take crop=None", cropped(None)),
    "crops, moving": Case(cropped(random_crops(32)), "or a recipe that trains", cropped(random_crops(32), MOVING)),
    "another run": Case(claim("run", 2), "Choose another folder", claim("other", 2), checkpoint),
    "removed": Case(claim("run", 2), "or remove it", lambda place: (shutil.rmtree(place.here / "run"), claim("run", 2)),
                    checkpoint),
    "held out": Case(hold_out(["a", "b"]), "some but not all of the tasks", hold_out(["a"])),
    "share": Case(hold_out(["a"], 0.1), "a share that leaves references on both sides", hold_out(["a"], 0.5)),
    "not finite": Case(fit(embeds=EMBEDDED * float("nan")), "Look for pixel_values, image_embeds", fit()),
    "taught by nobody knows": Case(judged("pushed"), "load the folder that was adapted", judged("mine"), both(
        saved, lambda place: shutil.copytree(place.here / "mine", place.here / "pushed"),
        lambda place: (place.here / "pushed" / "split.json").unlink(),
    )),
    "taught by none": Case(lambda place: score_tests(place.scorer, place.table), "what adapt returns",
                           lambda place: score_tests(adapt()(place), place.table)),
    "split of another table": Case(
        lambda place: adapt(shots=Split(("a.png",), ("b.png",), "", 0))(place), "made from",
        lambda place: adapt(shots=split_rows(place.table, shots=8, seed=0))(place),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [*(f"pretrain {name}" for name in PRETRAINING), *(f"adapt {name}" for name in ADAPTING)]
)
def test_what_is_advised_works(name: str, place: Place) -> None:
    command, _, kind = name.partition(" ")
    case = (PRETRAINING if command == "pretrain" else ADAPTING)[kind]
    case.before(place)
    with pytest.raises(GRMPError, match=case.advice):
        case.provoked(place)
    if case.followed is not GOOD:  # which succeeds before other cases
        case.followed(place)
