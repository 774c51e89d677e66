"""Advice in what learners, heads and objectives refuse works: it is provoked, done as it says, and then succeeds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import Tensor

from grmp_hf import FewShotRecipe
from grmp_hf.data import Row
from grmp_hf.data.axis_labels import axis_labels
from grmp_hf.families import make_families
from grmp_hf.modeling.configuration_grmp import axis_sizes
from grmp_hf.modeling.contrastive import group_contrast
from grmp_hf.modeling.fragments import draw_places
from grmp_hf.modeling.functional import axis_logits
from grmp_hf.modeling.gating import KMeansGate, fit_centers
from grmp_hf.modeling.low_level import RESNET18, SMALL, LowLevelConfig, LowLevelEncoder, load_encoder
from grmp_hf.modeling.map_head import MapHead, MapOutput
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.modeling.side import make_side
from grmp_hf.modeling.templates import template_anchors
from grmp_hf.modeling.two_stream import TwoStreamHead, TwoStreamOutput
from grmp_hf.training.distilling import StudentRecipe, adapt_student, as_taught
from grmp_hf.training.few_shot import adapt_embeds
from grmp_hf.training.high_level import HighLevelRecipe, learn_high_level
from grmp_hf.training.local_features import LoDaRecipe, adapt_locally
from grmp_hf.training.low_level import LowLevelRecipe, learn_low_level
from grmp_hf.training.multitask import multitask
from grmp_hf.training.objectives import pairwise
from grmp_hf.training.pairing import Compared
from grmp_hf.training.parallel import categories, in_parallel
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.sampling import within
from grmp_hf.training.shots import Columns, check_quality, look
from grmp_hf.training.two_stream import TwoStreamRecipe, adapt_streams, tokens_of
from tests.advised import Case, follow

LABELS = torch.linspace(0, 1, 6)
PIXELS = torch.randint(0, 256, (6, 1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
TOGETHER, SETS = torch.zeros(6), torch.tensor([0, 0, 0, 1, 1, 1])
EMBEDS = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
TAUGHT = {"quality": LABELS, "quality_map": torch.rand(6, 2, 4, 4)}
AXES = {"level": ["bad", "good"], "distortion": ["jpeg", "blur", "noise"]}
ROWS = [Row(image=b"", name=str(at), mos=1, quality=0, distortion="jpeg" if at % 2 else "blur") for at in range(6)]


class Place(NamedTuple):
    """A folder to work in, a base, and one with a small ResNet beside it."""

    here: Path
    base: Any
    sided: Any


@pytest.fixture
def place(make_scorer: Callable[..., Any], make_sided: Callable[..., Any], tmp_path: Path) -> Place:
    return Place(tmp_path, make_scorer(), make_sided())


Asked = Callable[[Place], Any]


def rated(labels: Tensor = LABELS, count: int = 6) -> RatedPictures:
    return RatedPictures(PIXELS.__getitem__, labels[:count], (0.5,) * 3, (0.2,) * 3)


def student(taught: dict[str, Tensor] = TAUGHT, labels: Tensor = LABELS, of: str = "base", **recipe: Any) -> Asked:
    given = StudentRecipe(epochs=1, **recipe)
    return lambda place: adapt_student(
        getattr(place, of), rated(labels), taught, recipe=given, output_dir=place.here / "run"
    )


def told(pictures: RatedPictures, **said: Any) -> Any:
    """What a student is told of pictures, of which it has itself drawn a map."""
    drawn = MapOutput(**{"quality": LABELS, "quality_map": torch.rand(6, 1, 2, 3, 3), **said})
    rows = [pictures[at] for at in range(6)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return as_taught(lambda inputs: drawn, lambda inputs: None, batch)


def teach(place: Place) -> RatedPictures:
    """Pictures with what a teacher says of them, which draws a map of its own."""

    def teacher(pixels: Tensor) -> dict[str, Tensor]:
        return {"quality": pixels.mean((1, 2, 3, 4)), "quality_map": pixels[:, 0, :2]}

    teacher.device = torch.device("cpu")  # type: ignore[attr-defined]
    found = look(teacher, rated(), ["quality", "quality_map"])
    return rated().taught(taught_quality=found["quality"], taught_map=found["quality_map"])


MAPPED = rated().taught(taught_quality=LABELS, taught_map=TAUGHT["quality_map"])
DISTILLING = {
    "no teacher": Case(lambda place: told(rated()), r"Ask the teacher first, found = .*pictures\.taught\(",
                       lambda place: told(teach(place))),
    "no map": Case(lambda place: told(MAPPED, quality_map=None), "Take MapHead", lambda place: told(MAPPED)),
    "two views": Case(lambda place: told(MAPPED, quality_map=torch.rand(6, 2, 2, 3, 3)), "Show the student one view",
                      lambda place: told(MAPPED, quality_map=torch.rand(6, 1, 2, 3, 3))),
    "channels": Case(lambda place: told(MAPPED, quality_map=torch.rand(6, 1, 5, 3, 3)), "MapHead with channels=2",
                     lambda place: told(MAPPED, quality_map=torch.rand(6, 1, 2, 3, 3))),
    "other pictures": Case(student({name: value[:5] for name, value in TAUGHT.items()}), "Ask it of the same pictures",
                           student()),
    "ratings": Case(student(labels=5 * LABELS), "Map ratings with RatingScale.to_quality", student()),
    "student without side": Case(student(adapter="loda"), r"grmp_hf.load\(model, side=",
                                 student(of="sided", adapter="loda")),
}  # fmt: skip


def streams(columns: dict[str, Tensor] | Asked) -> Asked:
    def run(place: Place) -> None:
        given = columns(place) if callable(columns) else columns
        recipe = TwoStreamRecipe(latent=4, epochs=1)
        adapt_streams(place.base, Columns({"labels": LABELS, **given}), recipe=recipe, output_dir=place.here / "run")

    return run


def tokens(place: Place) -> dict[str, Tensor]:
    return {"tokens": tokens_of(place.base, rated())}


def own_tokens(place: Place) -> dict[str, Tensor]:
    return {"tokens": place.base.get_features(PIXELS.float(), tokens=True).tokens.detach()}


def in_training(place: Place, beside: bool) -> Any:
    """What a head of two streams says in training, of which both channels are made."""
    head = TwoStreamHead(24, latent=4).train()
    place.base.head = head
    said = [place.base.train()(PIXELS.float()) for _ in range(not beside)]
    with head.beside(categories=2, comparison=True):
        said = said or [place.base.train()(PIXELS.float())]
    return compared(said[0], category=categories(LABELS, bins=2)[0])


SAID = TwoStreamOutput(quality=LABELS, category_logits=torch.zeros(6, 2), better_logits=torch.zeros(6, 6))


def compared(said: Any, groups: Tensor = TOGETHER, *, objective: Any = None, **columns: Tensor) -> Any:
    batch = {"labels": LABELS, "pixel_values": PIXELS, "groups": groups, **columns}
    return (objective or in_parallel())(lambda inputs: said, lambda inputs: said, batch)


def of_plan(said: Any, **given: Any) -> Any:
    """The same in the groups that the plan makes, a joint batch of all of them."""
    (joint,) = within(SETS.tolist(), 3, 2)(0)
    groups = torch.empty(6)
    for number, group in enumerate(joint):
        groups[[index for _, index in group]] = number
    return compared(said, groups, dataset=SETS, **given)


ALONE = in_parallel(category=False)
LEVELS = [0.0, 1.0]
STREAMS = {
    "embeddings": Case(streams({"image_embeds": EMBEDS}), "or from tokens_of, and leave image_embeds out",
                       streams(tokens)),
    "tokens": Case(streams({"tokens": torch.zeros(6, 1, 5, 8)}), r"get_features\(pixel_values, tokens=True\)",
                   streams(own_tokens)),
    "bins": Case(lambda place: categories(LABELS, bins=1), "Ask for more", lambda place: categories(LABELS, bins=2)),
    "distortions": Case(
        lambda place: categories(LABELS, torch.ones(6, 3)), "Make them with grmp_hf.data.axis_labels.axis_labels",
        lambda place: categories(LABELS, torch.from_numpy(axis_labels(ROWS, AXES)["distortion"])),
    ),
    "no category": Case(lambda place: compared(SAID), "Make it with grmp_hf.training.parallel.categories",
                        lambda place: compared(SAID, category=categories(LABELS, bins=2)[0])),
    "category left out": Case(lambda place: compared(SAID), r"or take in_parallel\(category=False\)",
                              lambda place: compared(SAID, objective=ALONE)),
    "auxiliary heads": Case(lambda place: in_training(place, False), r"within its context beside\(...\)",
                            lambda place: in_training(place, True)),
    "two data sets": Case(lambda place: compared(SAID, dataset=SETS, objective=ALONE), r"plan sampling\.within\.$",
                          lambda place: of_plan(SAID, objective=ALONE)),
    "width": Case(lambda place: headed(place, TwoStreamHead(8)), "the hidden_size of the base's vision tower",
                  lambda place: headed(place, TwoStreamHead(place.base.config.clip_config.vision_config.hidden_size))),
    "map": Case(lambda place: headed(place, MapHead(8, 2)), "with width=24 and grid=4",
                lambda place: headed(place, MapHead(width=24, grid=4))),
}  # fmt: skip


def headed(place: Place, head: Any) -> Any:
    place.base.head = head
    return place.base(PIXELS.float())


def several(**columns: Tensor) -> Any:
    logits = torch.zeros(6, 6)
    said = MapOutput(quality=LABELS, axis_logits=axis_logits(logits, {"level": 2, "distortion": 3}))
    return compared(said, objective=multitask({"level": 2, "distortion": 3}), **columns)


OBJECTIVES = {
    "axes": Case(lambda place: multitask({"level": 2}), "Make it with grmp_hf.modeling.templates.template_anchors",
                 lambda place: multitask(axis_sizes(SimpleNamespace(**template_anchors(AXES))))),
    "labels": Case(lambda place: several(distortion=torch.ones(6, 5)), "with grmp_hf.data.axis_labels.axis_labels",
                   lambda place: several(distortion=torch.from_numpy(axis_labels(ROWS, AXES)["distortion"]))),
    "pairs across": Case(lambda place: compared(SAID, dataset=SETS, objective=pairwise(LEVELS)),
                         "plan sampling.within, or across", lambda place: of_plan(SAID, objective=pairwise(LEVELS))),
    "pairs across, allowed": Case(
        lambda place: compared(SAID, dataset=SETS, objective=pairwise(LEVELS)), "or across=True",
        lambda place: compared(SAID, dataset=SETS, objective=pairwise(LEVELS, across=True)),
    ),
    "no sigma": Case(lambda place: compared(SAID, objective=pairwise(LEVELS, sigma="joint")), "Take sigma='fixed'",
                     lambda place: compared(SAID, objective=pairwise(LEVELS, sigma="fixed"))),
    "one alone": Case(lambda place: within(["a", "a", "b"], 2), "Leave it out", lambda place: within(["a", "a"], 2)),
    "one alone, across": Case(lambda place: within(["a", "a", "b"], 2), "in a plan of your own, take across=True",
                              lambda place: within(["a", "a", "b"], 2, across=True)),
    "no choice": Case(lambda place: Compared(wins=torch.zeros(2, 2)), "Let more pictures teach",
                      lambda place: Compared(wins=torch.eye(3).roll(1, 0))),
    "alike": Case(lambda place: check_quality(LABELS[[3, 3]], 2), "or let more of them teach",
                  lambda place: check_quality(LABELS[[3, 3, 4]], 3)),
    "groups": Case(lambda place: group_contrast(EMBEDS[:1], EMBEDS[1:2]), "Take larger batches",
                   lambda place: group_contrast(EMBEDS[:3], EMBEDS[3:])),
    "pairs that move embeddings": Case(
        lambda place: FewShotRecipe(objective="fidelity", visual_prompts=2), "without visual_prompts",
        lambda place: FewShotRecipe(objective="fidelity"),
    ),
    "pairs from a start": Case(
        lambda place: begun(FewShotRecipe(objective="fidelity", train_visual=True)), "and train_visual",
        lambda place: begun(FewShotRecipe(objective="fidelity")),
    ),
    "calibrated twice": Case(lambda place: FewShotRecipe(calibrate=True), "Leave calibrate out",
                             lambda place: FewShotRecipe()),
    "side beside embeddings": Case(lambda place: embedded(place), "says of the pictures, side=",
                                   lambda place: embedded(place, side=torch.randn(6, place.sided.side.mean.numel()))),
    "features": Case(lambda place: fit_centers(EMBEDS / torch.tensor([[0.0]] + [[1.0]] * 5)), "Look for pictures",
                     lambda place: fit_centers(EMBEDS)),
    "gate": Case(lambda place: KMeansGate({"a": EMBEDS, "b": EMBEDS[:, :5]}), "of one base",
                 lambda place: KMeansGate({"a": EMBEDS, "b": EMBEDS[:2]})),
}  # fmt: skip


def begun(recipe: FewShotRecipe) -> FewShotRecipe:
    start: Any = SimpleNamespace(text_prompts=2, visual_prompts=3)
    return recipe.begun_from(start)


def embedded(place: Place, **given: Any) -> Any:
    recipe = FewShotRecipe(steps=1, text_prompts=2, bf16=False)
    return adapt_embeds(place.sided, EMBEDS, LABELS, recipe=recipe, output_dir=place.here / "run", **given)


def injected(place: Place, of: str = "sided", **options: Any) -> Any:
    return get_peft_model(copy.deepcopy(getattr(place, of)), LoDaConfig(latent=8, heads=2, grid=2, **options)).eval()


def locally(of: str) -> Asked:
    return lambda place: adapt_locally(
        getattr(place, of), rated(), recipe=LoDaRecipe(epochs=1), output_dir=place.here / "run"
    )


def folded(place: Place, **options: Any) -> Any:
    """LoDa on a base whose side network has no batch normalisation."""
    settings = {"name": "efficientnet_lite0"}
    place.base.put_beside(settings, make_side(settings))
    return injected(place, "base", **options)


def encoder() -> LowLevelEncoder:
    return LowLevelEncoder(LowLevelConfig({**SMALL, "hidden_sizes": [4, 6], "depths": [1, 1]}, 5, 3))


def high(count: int) -> Asked:
    recipe = HighLevelRecipe(epochs=1, batch_size=4, width=0, save_steps=0)
    return lambda place: learn_high_level(place.base, rated(count=count), recipe=recipe, output_dir=place.here / "run")


def low(piece: int, side: int) -> Asked:
    photographs = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    recipe = LowLevelRecipe(
        versions=1, side=max(piece, side), grid=1, piece=piece, epochs=1, hidden=4, width=4, save_steps=0
    )

    def run(place: Place) -> None:
        families = make_families(photographs, place.here / f"families{side}", versions=1)
        learn_low_level(families, recipe=recipe, output_dir=place.here)

    return run


def described(training: bool) -> Any:
    return encoder().train(training).describe(np.zeros((20, 20, 3), np.uint8))


NO_MAPS = {"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
NETWORKS = {
    "local features": Case(locally("base"), r"Load it with grmp_hf.load\(model, side=...\)", locally("sided")),
    "maps": Case(lambda place: injected(place).get_base_model().clip.vision_model(PIXELS[:, 0].float()),
                 r"Ask the whole model \(forward, get_features\)",
                 lambda place: (injected(place)(PIXELS.float()), injected(place).get_features(PIXELS.float()))),
    "batch statistics": Case(lambda place: folded(place, batch_statistics=True), "Leave it out", folded),
    "backbone": Case(lambda place: LowLevelEncoder(LowLevelConfig(NO_MAPS, 5, 3)), "Take such as",
                     lambda place: LowLevelEncoder(LowLevelConfig(RESNET18, 5, 3))),
    "encoder in training": Case(lambda place: described(True), r"Call its eval\(\)", lambda place: described(False)),
    "no encoder": Case(lambda place: load_encoder(place.here), "that training/grepq.py low has written",
                       lambda place: (encoder().save_pretrained(place.here / "low"), load_encoder(place.here / "low"))),
    "photographs": Case(high(3), "Add some", high(4)),
    "small photographs": Case(low(32, 20), "or take smaller pieces", low(16, 20)),
    "small photographs, left out": Case(lambda place: draw_places(20, 40, np.random.default_rng(0)),
                                        "Leave smaller ones out",
                                        lambda place: draw_places(40, 40, np.random.default_rng(0))),
}  # fmt: skip
ALL = {**DISTILLING, **STREAMS, **OBJECTIVES, **NETWORKS}


@pytest.mark.parametrize("name", ALL)
def test_what_is_advised_works(name: str, place: Place) -> None:
    follow(ALL[name], place)
