from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import quality_cross_entropy
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.training import fitting
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.few_shot import FewShotRecipe, adapt, adapt_embeds, reference_modules
from grmp_hf.training.pictures import RatedPictures, random_crops

NORMALISATION = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
CALIBRATED = FewShotRecipe(anchor_residuals=True, calibrate=True, features=False, steps=200, learning_rate=0.05)
VISUAL = FewShotRecipe(visual_prompts=3, steps=6, batch_size=4, learning_rate=0.02, save_steps=2)


@pytest.fixture
def run(make_scorer, shots, tmp_path: Path) -> Callable[..., Any]:
    """Adapts a small random scorer to the nine pictures."""

    def go(**options: Any) -> Any:
        options = {"recipe": FewShotRecipe(steps=20), "output_dir": tmp_path / "run", **options}
        return adapt(make_scorer(), rated(shots[0], options.pop("quality", shots[1])), **options)

    return go


def rated(pixels: Tensor, quality: Tensor, **options: Any) -> RatedPictures:
    return RatedPictures(pixels.__getitem__, quality, **NORMALISATION, **options)


def learnt(model: Any) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if ".grmp_" in name}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_result_depends_on_the_arguments_alone(run) -> None:
    first = learnt(run())
    torch.manual_seed(99)
    torch.rand(5)
    assert equal(first, learnt(run()))
    visual = learnt(run(recipe=VISUAL))
    assert equal(visual, learnt(run(recipe=VISUAL)))
    assert not equal(visual, learnt(run(recipe=VISUAL, seed=1)))


def test_training_may_see_the_first_views_alone(run) -> None:
    both = learnt(run(recipe=VISUAL))
    assert equal(both, learnt(run(recipe=dataclasses.replace(VISUAL, views=2))))
    assert not equal(both, learnt(run(recipe=dataclasses.replace(VISUAL, views=1))))
    with pytest.raises(GRMPError, match="views of at least 0, got -1"):
        FewShotRecipe(views=-1)


def test_bfloat16_training_keeps_weights_in_full_precision(run) -> None:
    half, full = (learnt(run(recipe=dataclasses.replace(VISUAL, bf16=bf16))) for bf16 in (True, False))
    assert {weight.dtype for weight in half.values()} == {torch.float32}
    assert not equal(half, full)
    distance, size = (sum(float(w.square().sum()) for w in part) for part in (
        [half[name] - full[name] for name in full], full.values(),
    ))  # fmt: skip
    assert distance < 0.05 * size


def test_embeddings_computed_before_give_the_same(run, make_scorer, shots, tmp_path: Path) -> None:
    pixels, quality = shots
    base = make_scorer()
    with torch.no_grad():
        views = normalize(pixels, **NORMALISATION)
        embeds = torch.cat([base.get_image_embeds(part) for part in views.split(8)])  # in the batches of adapt
    # By plain gradient descent: Adam makes a whole step of the last digit where a gradient almost vanishes.
    recipe = FewShotRecipe(steps=20, optimizer="sgd", learning_rate=0.1, schedule="constant")
    model = adapt_embeds(base, embeds, quality, recipe=recipe, output_dir=tmp_path / "other")
    other = run(recipe=recipe)
    with torch.no_grad():
        bound = 100 * torch.finfo(torch.float32).eps  # 20 steps and a forward pass of some rounding each
        torch.testing.assert_close(model(views).quality, other(views).quality, atol=bound, rtol=0)
        assert (model(views).quality - base(views).quality).abs().max() > 0.01
    with pytest.raises(GRMPError, match="leaves the embeddings as they are"):
        adapt_embeds(make_scorer(), embeds, quality, recipe=VISUAL, output_dir=tmp_path / "other")


def test_a_recipe_is_for_anchors(make_scorer, shots, tmp_path: Path) -> None:
    base, (pixels, quality) = make_scorer(), shots
    base.head = torch.nn.Linear(12, 1)
    message = "Expected a model with the head AnchorHead for a recipe, .* GRMPTrainer, got 'Linear'"
    with pytest.raises(GRMPError, match=message):
        adapt(base, rated(pixels, quality), output_dir=tmp_path)
    with pytest.raises(GRMPError, match=message):
        adapt_embeds(base, torch.zeros(9, 12), quality, output_dir=tmp_path)


def test_it_learns_and_a_strong_pull_holds_it_back(run, make_scorer, shots) -> None:
    pixels, quality = shots
    views = normalize(pixels, **NORMALISATION)

    def loss(model: Any) -> float:
        with torch.no_grad():
            return float(model(views, labels=quality).loss)

    free = run(recipe=dataclasses.replace(CALIBRATED, pull=0.0))
    held = run(recipe=dataclasses.replace(CALIBRATED, pull=1e4))
    assert loss(free) < loss(held) < loss(make_scorer())
    residual = "base_model.model.readout.grmp_readout.default.residual"
    assert learnt(held)[residual].norm() < 0.02 * learnt(free)[residual].norm()


def calibration(make_scorer, pixels: Tensor, quality: Tensor, folder: Path) -> tuple[Tensor, Any]:
    """The base's logits, and the readout's prompts before training."""
    base = make_scorer()
    with torch.no_grad():
        logits = base(normalize(pixels, **NORMALISATION)).quality_logits
    recipe = dataclasses.replace(CALIBRATED, steps=1, learning_rate=1e-9)
    model = adapt(base, rated(pixels, quality), recipe=recipe, output_dir=folder)
    return logits, model.get_base_model().readout.grmp_readout["default"]


def test_calibration_is_the_best_one_for_the_base(make_scorer, shots, tmp_path: Path) -> None:
    logits, _ = calibration(make_scorer, *shots, tmp_path)
    quality = (0.5 * (logits[:, 0] - logits[:, 1] - (logits[:, 0] - logits[:, 1]).mean()) + 0.3).sigmoid()
    _, prompts = calibration(make_scorer, shots[0], quality, tmp_path)
    assert prompts.log_scale.exp().item() == pytest.approx(0.5, abs=0.03)
    best = quality_cross_entropy(prompts.calibrate(logits), quality, [1.0, 0.0])
    for scale, offset in ((0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)):
        moved = (prompts.log_scale + scale).exp() * logits + prompts.offset + torch.tensor([offset, 0.0])
        assert quality_cross_entropy(moved, quality, [1.0, 0.0]) > best


@pytest.mark.parametrize("slope", [-1.0, 0.0, 30.0])
def test_calibration_stays_within_a_factor_of_four(slope: float, make_scorer, shots, tmp_path: Path) -> None:
    logits, _ = calibration(make_scorer, *shots, tmp_path)
    gap = logits[:, 0] - logits[:, 1]
    quality = (slope * (gap - gap.mean()) + 0.2 * torch.arange(9)).sigmoid()
    _, prompts = calibration(make_scorer, shots[0], quality, tmp_path)
    assert 0.25 <= prompts.log_scale.exp().item() <= 4.0


def test_an_interrupted_run_goes_on_to_the_same_weights(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = learnt(run(recipe=VISUAL, output_dir=tmp_path / "whole"))

    class Interruption(Exception):
        pass

    def interrupt(stage: str, share: float) -> None:
        if stage == "train" and share > 0.6:
            raise Interruption

    with pytest.raises(Interruption):
        run(recipe=VISUAL, progress=interrupt)
    assert list((tmp_path / "run" / "fit").glob("checkpoint-*"))
    told: list[float] = []
    again = run(recipe=VISUAL, progress=lambda stage, share: told.append(share) if stage == "train" else None)
    assert equal(whole, learnt(again))
    assert len(told) < VISUAL.steps, "it must not begin from the start"


def test_pull_falls_with_the_number_of_shots() -> None:
    recipe = FewShotRecipe(pull=10.0)
    assert recipe.pull_to_start(50) == pytest.approx(2 * 10 / 50)
    assert recipe.pull_to_start(200) == pytest.approx(2 * 10 / 200)


def test_ratings_that_are_all_alike_are_refused(run) -> None:
    with pytest.raises(GRMPError, match="9 that are all alike"):
        run(quality=torch.full((9,), 0.5))


def test_the_authors_choice_of_modules(make_scorer) -> None:
    texts, pictures = "text_model.encoder.layers.", "vision_model.encoder.base_layer.layers."
    norms = ["final_layer_norm", "post_layernorm"]
    assert reference_modules(make_scorer(), 2) == [f"{texts}1", f"{texts}2", f"{pictures}1", f"{pictures}2", *norms]
    shallow = make_scorer(text={"num_hidden_layers": 1})
    assert reference_modules(shallow, 2) == [f"{texts}0", f"{pictures}1", f"{pictures}2", *norms]


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_the_authors_choice_trains_the_last_blocks_of_towers_of_any_depths(
    make_scorer, shots, tmp_path: Path, depth: int
) -> None:
    """And the adapter brings them along."""
    recipe = FewShotRecipe(train="authors", blocks=2, steps=2, batch_size=4, learning_rate=0.01, save_steps=0)
    base, fresh = (make_scorer(text={"num_hidden_layers": depth}) for _ in range(2))
    model = adapt(base, rated(*shots), recipe=recipe, output_dir=tmp_path / "run")
    start = fresh.clip.state_dict()
    blocks = set()
    for name, value in model.state_dict().items():
        if ".modules_to_save." in name:
            plain = re.sub(r"^base_model\.model\.clip\.|\.base_layer|\.modules_to_save\.default", "", name)
            assert not torch.equal(value, start[plain]), name
            blocks |= set(re.findall(r"(text|vision)_model\.encoder\.layers\.(\d)", plain))
    texts = {("text", str(layer)) for layer in range(max(depth - 2, 0), depth)}
    assert blocks == {("vision", "1"), ("vision", "2"), *texts}
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    again = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()
    pixels = torch.randn(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(again(pixels).quality, model(pixels).quality)


def test_a_rule_of_ones_own(run) -> None:
    """It sees both gradients of every step where the embeddings move, and is not asked elsewhere."""
    seen = []

    def keep(gradients: dict[str, dict[str, Tensor]], parameters: Any) -> dict[str, Tensor]:
        seen.append(any(bool(grad.any()) for name, grad in gradients["semantic"].items() if "visual" in name))
        return gradients["quality"]

    plain = learnt(run(recipe=dataclasses.replace(VISUAL, regularization_strength=0.0)))
    assert equal(plain, learnt(run(recipe=VISUAL, rule=keep)))
    assert seen == [True] * VISUAL.steps
    run(rule=keep)
    assert len(seen) == VISUAL.steps


@pytest.mark.parametrize(
    "quality",
    [torch.linspace(1, 5, 9), torch.tensor([0.5] * 8 + [float("nan")]), torch.linspace(0, 1, 8), torch.empty(0)],
    ids=["ratings", "nan", "one too few", "none"],
)
def test_what_is_no_quality_is_refused(run, make_scorer, shots, tmp_path: Path, quality: Tensor) -> None:
    if len(quality) != 8:  # without one, the pictures are eight
        with pytest.raises(GRMPError, match=r"Expected a quality in \[0, 1\] for each of \d pictures"):
            run(quality=quality)
    with pytest.raises(GRMPError, match=r"Expected a quality in \[0, 1\] for each of 9 pictures"):
        adapt_embeds(make_scorer(), torch.randn(9, 12), quality, output_dir=tmp_path)


def test_checkpoints_of_another_run_are_not_taken_up(run, shots, tmp_path: Path) -> None:
    def stop(stage: str, share: float) -> None:
        if stage == "train" and share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe=VISUAL, progress=stop)
    for other in ({"quality": 1 - shots[1]}, {"seed": 1}, {"recipe": dataclasses.replace(VISUAL, learning_rate=0.01)}):
        with pytest.raises(GRMPError, match="holds checkpoints of another"):
            run(**{"recipe": VISUAL, **other})
    whole = learnt(run(recipe=VISUAL, output_dir=tmp_path / "whole"))
    assert equal(whole, learnt(run(recipe=VISUAL)))
    assert not equal(whole, learnt(run(recipe=VISUAL, seed=1))), "nothing is left of a finished run"


def test_several_processes_share_a_batch(run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        pass

    def look(model: Any, arguments: Any, **given: Any) -> Any:
        raise Seen(arguments.per_device_train_batch_size)

    monkeypatch.setattr(fitting, "GRMPTrainer", look)
    for processes, expected in ((1, 4), (2, 2), (3, 2)):
        monkeypatch.setattr(GRMPTrainingArguments, "world_size", property(lambda self, count=processes: count))
        monkeypatch.setattr(
            GRMPTrainingArguments, "main_process_first", lambda self, **options: contextlib.nullcontext()
        )
        with pytest.raises(Seen, match=str(expected)):
            run(recipe=VISUAL)


@pytest.mark.parametrize("wrong", [{"train": "all"}, {"steps": 0}, {"batch_size": 0}, {"pull": -1.0}, {"blocks": -1}])
def test_a_recipe_is_checked_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(GRMPError, match="Expected"):
        dataclasses.replace(FewShotRecipe(), **wrong)


RECIPES = {
    "default": FewShotRecipe(steps=4),
    "visual": dataclasses.replace(VISUAL, bf16=True),
    "authors": FewShotRecipe(train="authors", calibrate=False, anchor_residuals=False, visual_prompts=2, steps=2),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_adaptations_on_one_base_are_independent_of_each_other(
    recipe: FewShotRecipe, make_scorer, shots, tmp_path: Path
) -> None:
    pixels, quality = shots
    views = torch.randn(2, 2, 3, 16, 16)

    def adapted(base: Any, quality: Tensor, name: str) -> PeftModel:
        return adapt(base, rated(pixels, quality), recipe=recipe, output_dir=tmp_path / name)

    def quality_of(model: Any) -> Tensor:
        with torch.inference_mode():
            return model(views).quality

    base = make_scorer()
    before = quality_of(base)
    first, second = adapted(base, quality, "a"), adapted(base, 1 - quality, "b")
    assert torch.equal(quality_of(base), before)
    assert torch.equal(quality_of(first), quality_of(adapted(make_scorer(), quality, "c")))
    assert torch.equal(quality_of(second), quality_of(adapted(make_scorer(), 1 - quality, "d")))
    assert not torch.equal(quality_of(first), quality_of(second))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_returned_model_scores_as_the_saved_adapter_does(
    recipe: FewShotRecipe, make_scorer, shots, tmp_path: Path
) -> None:
    pixels, quality = shots
    model = adapt(make_scorer(), rated(pixels, quality), recipe=recipe, output_dir=tmp_path / "run")
    model.save_pretrained(str(tmp_path / "saved"), save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(make_scorer(), str(tmp_path / "saved")).eval()
    views = torch.randn(3, 2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model(views).quality, loaded(views).quality)


def whole(pixels: Tensor) -> Callable[[int], Tensor]:
    """Pictures of 20 x 24 pixels to take crops of."""
    large = pixels[:, 0].repeat(1, 1, 2, 2)[:, :, :20, :24]
    return large.__getitem__


def test_pictures_may_be_cropped_anew_in_every_epoch(make_scorer, shots, tmp_path: Path) -> None:
    """The result is a function of the arguments, whatever is kept in memory, also after an interruption."""

    def cropped(name: str, **options: Any) -> dict[str, Tensor]:
        given = {"crop": random_crops(16, 2), "seed": 1, **options}
        progress = given.pop("progress", None)
        pictures = RatedPictures(whole(shots[0]), shots[1], **NORMALISATION, **given)
        return learnt(adapt(make_scorer(), pictures, recipe=VISUAL, output_dir=tmp_path / name, progress=progress))

    class Interruption(Exception):
        pass

    def interrupt(stage: str, share: float) -> None:
        if stage == "train" and share > 0.6:
            raise Interruption

    first = cropped("a")
    assert equal(first, cropped("b", memory=0))
    assert not equal(first, cropped("c", seed=2))
    with pytest.raises(Interruption):
        cropped("d", progress=interrupt)
    assert equal(first, cropped("d"))
    with pytest.raises(GRMPError, match="the same views in every epoch for a recipe that embeds each picture once"):
        pictures = RatedPictures(whole(shots[0]), shots[1], **NORMALISATION, crop=random_crops(16))
        adapt(make_scorer(), pictures, output_dir=tmp_path / "e")


def test_what_is_kept_in_memory_changes_nothing(make_scorer, shots, tmp_path: Path) -> None:
    for number, recipe in enumerate((VISUAL, FewShotRecipe(steps=4))):
        lazy, kept = (
            learnt(adapt(make_scorer(), rated(*shots, memory=memory), recipe=recipe, output_dir=tmp_path / name))
            for memory, name in ((0, f"lazy{number}"), (2**30, f"kept{number}"))
        )
        assert equal(lazy, kept)


@pytest.mark.parametrize("recipe", [FewShotRecipe(steps=4), VISUAL, CALIBRATED], ids=["map", "visual", "no map"])
def test_surer_ratings_count_more_where_features_are_mapped(recipe: FewShotRecipe, run) -> None:
    recipe = dataclasses.replace(recipe, steps=4)
    alike = learnt(run(recipe=recipe))
    assert equal(alike, learnt(run(recipe=recipe, noise=torch.full((9,), 0.3))))
    differing = learnt(run(recipe=recipe, noise=torch.tensor([9.0] + 8 * [1.0])))
    assert equal(alike, differing) != recipe.features


def test_embeddings_take_noise_as_pictures_do(make_scorer, shots, tmp_path: Path) -> None:
    model, recipe, noise = make_scorer(), FewShotRecipe(steps=4), torch.linspace(1, 5, 9)
    pixels = (shots[0].float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        embeds = torch.cat([model.get_image_embeds(picture[None]) for picture in pixels])
    first = adapt_embeds(model, embeds, shots[1], noise=noise, recipe=recipe, output_dir=tmp_path / "a")
    second = adapt(model, rated(*shots), noise=noise, recipe=recipe, output_dir=tmp_path / "b")
    for name, value in learnt(first).items():
        torch.testing.assert_close(value, learnt(second)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("noise", [[0.0] + 8 * [1.0], [float("nan")] + 8 * [1.0], 8 * [1.0]])
def test_noise_that_is_none_is_refused(noise: list[float], run) -> None:
    with pytest.raises(GRMPError, match="a noise above 0 for each of 9 pictures"):
        run(noise=torch.tensor(noise))
