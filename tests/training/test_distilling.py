"""A student learns the score and the map of a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.nn import functional as F

from grmp_hf.data import Row
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.map_head import MapHead, MapOutput
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.scoring import Scorer
from grmp_hf.teaching import rated_pictures
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.distilling import StudentRecipe, adapt_student, as_taught
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.rules import summed
from grmp_hf.training.sampling import shuffled
from grmp_hf.training.trainer import GRMPTrainer

NAN = float("nan")
LABELS = torch.rand(12, generator=torch.Generator().manual_seed(4))
NOISE = torch.rand(12, 1, 3, 16, 16, generator=torch.Generator().manual_seed(6))
PIXELS = (255 * NOISE * torch.linspace(0.2, 1, 12).view(12, 1, 1, 1, 1)).to(torch.uint8)
SHORT = {"epochs": 30, "batch_size": 6, "learning_rate": 0.01}


def rated(labels: Tensor = LABELS) -> RatedPictures:
    return RatedPictures(PIXELS.__getitem__, labels, (0.5,) * 3, (0.2,) * 3)


def teacher(grid: int = 8) -> dict[str, Tensor]:
    """A teacher that sees which places of a picture are brighter than others, and how bright it is."""
    bright = PIXELS[:, 0].float().mean(1, keepdim=True) / 255
    places = F.adaptive_avg_pool2d(bright, 4) / bright.mean((2, 3), keepdim=True) / 2
    maps = F.interpolate(places, size=(grid, grid), mode="bilinear")
    return {"quality": 1.8 * bright.mean((1, 2, 3)), "quality_map": torch.cat([maps, 1 - maps], dim=1)}


def output(views: int = 1, channels: int = 2) -> MapOutput:
    generator = torch.Generator().manual_seed(3)
    return MapOutput(
        quality=torch.rand(4, generator=generator),
        quality_map=torch.rand(4, views, channels, 3, 3, generator=generator),
    )


def batch(**changed: Any) -> dict[str, Tensor]:
    known = {"labels": torch.tensor([0.1, NAN, 0.4, NAN]), "pixel_values": torch.zeros(4, 1, 3, 2, 2)}
    taught = {"taught_quality": torch.tensor([0.3, 0.2, 0.9, 1.1]), "taught_map": torch.rand(4, 2, 5, 5)}
    return {name: value for name, value in {**known, **taught, **changed}.items() if value is not None}


def silent(inputs: Any) -> Any:
    raise AssertionError("what the teacher says has been kept")


def test_the_three_losses_are_what_they_say() -> None:
    said, given, asked = output(), batch(), []

    def student(inputs: Any) -> MapOutput:
        asked.append(set(inputs))
        return said

    found = as_taught(student, silent, given)
    assert asked == [{"pixel_values"}] and {name: term.weight for name, term in found.items()} == {
        "rated": 2,
        "score": 4,
        "map": 4,
    }
    kept = [0, 2]
    torch.testing.assert_close(found["rated"].mean, F.mse_loss(said.quality[kept], given["labels"][kept]))  # type: ignore[index]
    torch.testing.assert_close(found["score"].mean, F.mse_loss(said.quality, given["taught_quality"]))
    drawn = F.interpolate(said.quality_map[:, 0], size=(5, 5), mode="bilinear")  # type: ignore[index]
    torch.testing.assert_close(found["map"].mean, F.mse_loss(drawn, given["taught_map"]))
    nobody = as_taught(student, silent, batch(labels=torch.full((4,), NAN)))
    assert nobody["rated"].weight == 0 and nobody["rated"].mean.isfinite()


@pytest.mark.parametrize(
    ("said", "given", "message"),
    [
        (output(), {"taught_map": None}, "Expected the columns taught_quality and taught_map, got none"),
        (MapOutput(quality=torch.zeros(4)), {}, "Expected a head with a map of quality, got one without"),
        (output(views=2), {}, r"map of one view with 2 channels, .* got \(2, 2, 3, 3\)"),
        (output(channels=3), {}, r"got \(1, 3, 3, 3\) .* MapHead with channels=2"),
    ],
)
def test_what_cannot_be_learnt_is_refused(said: MapOutput, given: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        as_taught(lambda inputs: said, silent, batch(**given))


def losses(model: PeftModel) -> dict[str, float]:
    taught = teacher()
    known = {"taught_quality": taught["quality"], "taught_map": taught["quality_map"], "labels": LABELS}
    pixels = normalize(PIXELS, (0.5,) * 3, (0.2,) * 3)
    with torch.no_grad():
        found = as_taught(lambda inputs: model(**inputs), silent, {**known, "pixel_values": pixels})
    return {name: float(term.mean) for name, term in found.items()}


@pytest.mark.parametrize("adapter", ["head", "loda"])
def test_the_losses_fall_and_the_base_stays(adapter: Any, make_sided: Callable[..., Any], tmp_path: Path) -> None:
    base = make_sided()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    recipe = StudentRecipe(adapter=adapter, rated=0.0, **SHORT)  # type: ignore[arg-type]
    begun, learnt, again = (
        adapt_student(base, rated(), teacher(), recipe=r, seed=1, output_dir=tmp_path)
        for r in (dataclasses.replace(recipe, learning_rate=0.0), recipe, recipe)
    )
    first, last = losses(begun), losses(learnt)
    assert last["map"] < 0.2 * first["map"] and last["score"] < 0.5 * first["score"]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in learnt.state_dict().items())
    assert all(torch.equal(base.state_dict()[name], value) for name, value in before.items())
    assert not any(tmp_path.iterdir()), "the state of the run is gone"


def test_accumulation_is_one_batch(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    """Where parts hold different numbers of ratings."""
    taught = teacher()
    few = torch.where(torch.arange(12) % 5 > 0, LABELS, NAN)
    rows = rated(few).taught(taught_quality=taught["quality"], taught_map=taught["quality_map"])
    ends = []
    for size, parts in ((12, 1), (4, 3)):
        base = make_scorer()
        torch.manual_seed(0)
        base.head = MapHead(24, 4, channels=2, hidden=5)
        prompts = {"text_prompts": 0, "visual_prompts": 2, "prompt_dropout": 0.0}
        model = get_peft_model(base, GRMPPromptConfig(**prompts, modules_to_save=["head"]))
        settings = {"optim": "sgd", "learning_rate": 0.5, "max_steps": 3, "gradient_accumulation_steps": parts}
        quiet = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        arguments = GRMPTrainingArguments(str(tmp_path / str(parts)), **settings, **quiet)
        given = {"objective": as_taught, "rule": summed({"map": 2.0}), "plan": shuffled(12, size)}
        GRMPTrainer(model, arguments, train_dataset=rows, **given).train()
        ends.append({name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad})
    assert max((ends[0][name] - ends[1][name]).abs().max() for name in ends[0]) <= 1e-6
    assert ends[0].keys() == ends[1].keys() and any("grmp_visual" in name for name in ends[0])


def test_each_loss_is_weighed(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    ends = {}
    for name in ("rated", "score", "map"):
        alone = {other: float(other == name) for other in ("rated", "score", "map")}
        recipe = StudentRecipe(**alone, **SHORT)  # type: ignore[arg-type]
        ends[name] = losses(adapt_student(make_scorer(), rated(), teacher(), recipe=recipe, output_dir=tmp_path))
    for name in ends:
        assert min(ends, key=lambda other: ends[other][name]) == name, "what was learnt alone is learnt best"


def test_pictures_without_a_rating_teach_too(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    few = torch.where(torch.arange(12) < 2, LABELS, NAN)
    recipe = StudentRecipe(**SHORT)  # type: ignore[arg-type]
    model = adapt_student(make_scorer(), rated(few), teacher(), recipe=recipe, output_dir=tmp_path)
    assert losses(model)["map"] < 0.02


@pytest.mark.parametrize(
    ("labels", "taught", "message"),
    [
        (LABELS, {}, "of the teacher, got nothing. Ask it of the same pictures"),
        (
            LABELS,
            {"quality": torch.zeros(3), "quality_map": torch.zeros(3, 2, 4, 4)},
            r"got quality \(3,\), quality_map",
        ),
        (LABELS * 5, None, r"Expected labels in \[0, 1\], or NaN, got .* Map ratings"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    labels: Tensor, taught: Any, message: str, make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(GRMPError, match=message):
        adapt_student(make_scorer(), rated(labels), teacher() if taught is None else taught, output_dir=tmp_path)


def test_recipes_that_cannot_be() -> None:
    for wrong, message in (
        ({"hidden": 0}, "hidden of at least 1, got 0"),
        ({"map": -1.0}, "map of at least 0, got -1.0"),
        ({"adapter": "lora"}, "adapter out of head, loda, got 'lora'"),
    ):
        with pytest.raises(GRMPError, match=message):
            StudentRecipe(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("adapter", ["head", "loda"])
def test_a_saved_student_scores_the_same_in_a_new_process(
    adapter: Any, sided_base: Scorer, scores_elsewhere: Callable[..., list[float]], photos: list[Path], tmp_path: Path
) -> None:
    rows = [Row(image=path, name=path.name, mos=at / 12, quality=at / 12) for at, path in enumerate(photos)]
    recipe = StudentRecipe(adapter=adapter, epochs=2, batch_size=6, learning_rate=0.01)
    given = (sided_base.model, rated_pictures(sided_base, rows), teacher())
    scorer = dataclasses.replace(sided_base, model=adapt_student(*given, recipe=recipe, output_dir=tmp_path / "run"))
    scorer.save(tmp_path / "mine")
    said = scorer.score(photos).quality
    assert abs(said - sided_base.score(photos).quality).max() > 1e-3
    assert scores_elsewhere(tmp_path / "mine", photos) == said.tolist()
