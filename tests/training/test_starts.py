from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.record import Record
from grmp_hf.training.few_shot import FewShotRecipe, adapt, adapt_embeds
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.starts import read_start

NORMALISATION = {"mean": (0.5,) * 3, "std": (0.5,) * 3}

RESIDUALS = FewShotRecipe(anchor_residuals=True, features=False, steps=200, learning_rate=0.05)


@pytest.fixture
def start(make_adapted: Callable[..., Any], tmp_path: Path) -> Path:
    """Adapter of the small random scorer: 3 text and 5 visual prompts in its first two layers."""
    model = make_adapted(text_prompts=3, visual_layers=2, prompt_dropout=0.2)
    model.save_pretrained(str(tmp_path / "start"), save_embedding_layers=False)
    return tmp_path / "start"


@pytest.fixture
def run(make_scorer: Callable[..., Any], shots: tuple[Tensor, Tensor], start: Path, tmp_path: Path) -> Any:
    def go(recipe: FewShotRecipe, **options: Any) -> Any:
        given = {"start": start, "output_dir": tmp_path / "run", **options}
        pictures = RatedPictures(shots[0].__getitem__, shots[1], **NORMALISATION)
        return adapt(given.pop("model", None) or make_scorer(), pictures, recipe=recipe, **given)

    return go


def learnt(model: Any) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items() if ".grmp_" in name}


def moved(model: Any, began: dict[str, Tensor]) -> set[str]:
    """Last words of the names of what has moved away from a start."""
    return {
        name.split(".default.")[1] for name, weight in learnt(model).items() if not torch.equal(weight, began[name])
    }


@pytest.fixture
def began(run: Any) -> dict[str, Tensor]:
    """Where adaptation begins: nothing moves at a rate of zero."""
    return learnt(run(dataclasses.replace(RESIDUALS, steps=1, learning_rate=0.0)))


def test_it_begins_at_the_start_with_what_the_recipe_adds_at_zero(
    began: dict[str, Tensor], make_adapted: Callable[..., Any], run: Any
) -> None:
    prompts = learnt(make_adapted(text_prompts=3, visual_layers=2, prompt_dropout=0.2))
    assert {name for name in began if name not in prompts} == {"base_model.model.readout.grmp_readout.default.residual"}
    assert all(torch.equal(began[name], weight) for name, weight in prompts.items())
    assert not began["base_model.model.readout.grmp_readout.default.residual"].any()
    config = run(FewShotRecipe(steps=1, text_prompts=7, visual_prompts=9)).peft_config["default"]
    sizes = (config.text_prompts, config.visual_prompts, config.visual_layers, config.prompt_dropout)
    assert sizes == (3, 5, 2, 0.2), "the numbers are those of the start"


def test_visual_prompts_stay_unless_the_recipe_trains_them(run: Any, began: dict[str, Tensor]) -> None:
    recipe = dataclasses.replace(RESIDUALS, steps=2)
    assert moved(run(recipe), began) == {"context", "residual"}
    trained = moved(run(dataclasses.replace(recipe, train_visual=True, batch_size=4)), began)
    assert trained == {
        *("context", "residual", "first", "deep"),
        *("projection.weight", "projection.bias", "norm.weight", "norm.bias"),
    }


def test_kept_visual_prompts_are_part_of_the_embedding(
    run: Any, make_scorer: Any, make_adapted: Any, shots: tuple[Tensor, Tensor], start: Path, tmp_path: Path
) -> None:
    """Training on the embeddings of the prompted tower is training on the pictures, and scores as it was trained."""
    pixels, quality = shots
    views = normalize(pixels, **NORMALISATION)
    prompted = make_adapted(text_prompts=3, visual_layers=2, prompt_dropout=0.2)
    with torch.no_grad():
        embeds = torch.cat([prompted.get_image_embeds(part) for part in views.split(8)])
        assert (embeds - make_scorer().get_image_embeds(views)).abs().max() > 0.1
    # By plain gradient descent: Adam makes a whole step of the last digit where a gradient almost vanishes.
    recipe = FewShotRecipe(steps=20, optimizer="sgd", learning_rate=0.1, schedule="constant")
    by_embeds = adapt_embeds(make_scorer(), embeds, quality, recipe=recipe, start=start, output_dir=tmp_path / "other")
    by_pictures = run(recipe)
    with torch.no_grad():
        expected = by_embeds(image_embeds=embeds).quality
        bound = 100 * torch.finfo(torch.float32).eps  # 20 steps and a forward pass of some rounding each
        torch.testing.assert_close(by_pictures(views).quality, expected, atol=bound, rtol=0)
        torch.testing.assert_close(by_embeds(views).quality, expected, atol=1e-6, rtol=0)
    with pytest.raises(GRMPError, match="leaves the embeddings as they are, got train='prompts' with 5 visual prompts"):
        adapt_embeds(
            make_scorer(), embeds, quality, recipe=FewShotRecipe(train_visual=True), start=start, output_dir=tmp_path
        )


def test_the_pull_holds_to_the_start(run: Any, began: dict[str, Tensor]) -> None:
    def way(pull: float) -> float:
        after = learnt(run(dataclasses.replace(RESIDUALS, pull=pull)))
        return float(sum((after[name] - began[name]).square().sum() for name in began))

    assert way(1e4) < 1e-3 * way(0.0)


def test_calibration_is_fitted_to_what_the_start_says(run: Any, shots: tuple[Tensor, Tensor], start: Path) -> None:
    """The start's own calibration is replaced: twice adapted at a rate of zero is once adapted."""
    recipe = dataclasses.replace(RESIDUALS, calibrate=True, steps=1, learning_rate=0.0)
    once = run(recipe)
    folder = start.parent / "once"
    once.save_pretrained(str(folder), save_embedding_layers=False)
    assert learnt(once)["base_model.model.readout.grmp_readout.default.offset"].any()
    again = learnt(run(recipe, start=folder))
    assert all(torch.equal(again[name], weight) for name, weight in learnt(once).items())


def test_training_from_a_start_is_resumed(run: Any, tmp_path: Path) -> None:
    recipe = FewShotRecipe(train_visual=True, steps=6, batch_size=4, learning_rate=0.02, save_steps=2)
    whole = learnt(run(recipe, output_dir=tmp_path / "whole"))

    def interrupt(stage: str, share: float) -> None:
        if stage == "train" and share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, progress=interrupt)
    again = learnt(run(recipe))
    assert all(torch.equal(whole[name], weight) for name, weight in again.items())


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "to start from in '.*', found none"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"no"), "Expected the weights of an"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "Expected settings of an adapter in"),
        (lambda folder: edit(folder, modules_to_save=["layers.2"]), r"trained blocks \['layers.2'\]"),
        (lambda folder: edit(folder, peft_type="LORA"), "the method LORA"),
        (lambda folder: Record(fingerprint="0" * 16).save(folder), "one with other base_fingerprint"),
        (lambda folder: edit(folder, visual_prompts=6), r"first \(5, 24\) instead of \(6, 24\)"),
    ],
)
def test_what_is_no_start_says_why(spoil: Callable[[Path], Any], message: str, run: Any, start: Path) -> None:
    spoil(start)
    with pytest.raises(GRMPError, match=message):
        run(FewShotRecipe(steps=1))


def test_settings_of_a_start_are_read(start: Path) -> None:
    config = read_start(start)
    assert isinstance(config, GRMPPromptConfig) and config.text_prompts == 3
    with pytest.raises(GRMPError, match=re.escape(repr(str(start / "none")))):
        read_start(start / "none")
