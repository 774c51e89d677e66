"""Injected local features under every way of training: a correlation, the gradient rule, episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor

from grmp_hf.data import Row
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import plcc as correlation
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.linear_heads import Cosine
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.record import Record
from grmp_hf.scoring import Scorer
from grmp_hf.teaching import rated_pictures
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.episodes import EpisodeDataset
from grmp_hf.training.local_features import LoDaRecipe, adapt_locally
from grmp_hf.training.objectives import plcc
from grmp_hf.training.pictures import RatedPictures, random_crops
from grmp_hf.training.sampling import repeated, within
from grmp_hf.training.trainer import GRMPTrainer

QUIET: dict[str, Any] = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
PIXELS = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.rand(16, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def make_injected(make_sided: Callable[..., Any]) -> Callable[..., PeftModel]:
    """`make_injected(head, **options)`: a new adapter on a small base with a small ResNet."""

    def make(head: bool = False, **options: Any) -> PeftModel:
        base = make_sided()
        if head:
            base.head = Cosine(24, token=True)
            options["modules_to_save"] = ["head"]
        return get_peft_model(base, LoDaConfig(**{"latent": 8, "heads": 2, "grid": 2, **options}))

    return make


def weights(model: PeftModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def check_moved(model: PeftModel, before: dict[str, Tensor]) -> None:
    """Exactly the trained tensors have moved."""
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    after = weights(model)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == trained


def test_it_overfits_sixteen_pictures(make_injected: Callable[..., PeftModel], tmp_path: Path) -> None:
    """Random ratings of noise, which the head alone, on the frozen tower, does not reach."""
    found = {}
    for name in ("head alone", "all"):
        model = make_injected(head=True)
        before = weights(model)
        for key, weight in model.named_parameters():
            weight.requires_grad_(weight.requires_grad and (name == "all" or ".head." in key))
        rows = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(PIXELS, LABELS, strict=True)]
        arguments = GRMPTrainingArguments(str(tmp_path / name), max_steps=80, learning_rate=0.02, **QUIET)
        plan = within(["one"] * 16, 16)
        GRMPTrainer(model, arguments, objective=plcc, plan=plan, train_dataset=rows).train()
        check_moved(model, before)
        with torch.no_grad():
            found[name] = correlation(model.eval()(PIXELS).quality.numpy(), LABELS.numpy())
    assert found["all"] > 0.99 > found["head alone"] + 0.01, found


def test_crops_differ_in_every_pass_and_are_the_same_in_every_run(
    make_injected: Callable[..., PeftModel], tmp_path: Path
) -> None:
    pictures = torch.randint(0, 256, (4, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
    rated = RatedPictures(pictures.__getitem__, LABELS[:4], (0.5,) * 3, (0.2,) * 3, crop=random_crops(16), seed=3)
    plan = repeated(within(["one"] * 4, 4), 3)
    shown = {key for epoch in (0, 1) for batch in plan(epoch) for group in batch for key in group}
    assert len(shown) == 24
    assert len({rated[key]["pixel_values"].numpy().tobytes() for key in shown}) > 16
    ends = []
    for run in ("one", "two"):
        torch.manual_seed(0)
        model = make_injected(start="random")
        arguments = GRMPTrainingArguments(str(tmp_path / run), num_train_epochs=2, learning_rate=0.01, **QUIET)
        trainer = GRMPTrainer(model, arguments, objective=plcc, plan=plan, train_dataset=rated)
        assert trainer.train().global_step == 6
        ends.append(weights(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_gradient_rule_acts_on_it(make_injected: Callable[..., PeftModel], tmp_path: Path) -> None:
    rows = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(PIXELS[:6], LABELS[:6], strict=True)]
    ends = []
    for strength in (0.0, 5.0):
        torch.manual_seed(0)
        model = make_injected(start="random")
        before = weights(model)
        settings = {"max_steps": 2, "learning_rate": 0.05, "regularization_strength": strength}
        arguments = GRMPTrainingArguments(str(tmp_path / str(strength)), **settings, **QUIET)
        GRMPTrainer(model, arguments, train_dataset=rows).train()
        check_moved(model, before)
        ends.append(weights(model))
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("algorithm", ["fomaml", "maml", "reptile"])
@pytest.mark.parametrize("objective", [None, plcc], ids=["quality", "plcc"])
def test_it_learns_from_episodes(
    algorithm: str, objective: Any, make_injected: Callable[..., PeftModel], tmp_path: Path
) -> None:
    def load(item: int, seed: int) -> dict[str, Tensor]:
        return {"pixel_values": PIXELS[item], "labels": LABELS[item]}

    items = {f"task {task}": range(8 * task, 8 * task + 8) for task in range(2)}
    episodes = EpisodeDataset(items, load, reference_of=lambda item: item // 2, support=3, query=2)
    torch.manual_seed(0)
    model = make_injected(start="random")
    before = weights(model)
    settings = {"meta_algorithm": algorithm, "inner_steps": 2, "inner_learning_rate": 0.1, "max_steps": 2}
    arguments = GRMPTrainingArguments(
        str(tmp_path), learning_rate=0.01, regularization_strength=0.0 if objective else 5.0, **settings, **QUIET
    )
    GRMPTrainer(model, arguments, objective=objective, train_dataset=episodes).train()
    check_moved(model, before)


def test_statistics_of_batches_are_refused_for_several_processes(
    make_injected: Callable[..., PeftModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(PIXELS, LABELS, strict=True)]
    arguments = GRMPTrainingArguments(str(tmp_path), max_steps=1, per_device_train_batch_size=16, **QUIET)
    model = make_injected(batch_statistics=True)
    GRMPTrainer(model, arguments, train_dataset=rows).train()
    tracked = [value for name, value in model.named_buffers() if ".statistics." in name and name.endswith("tracked")]
    assert tracked and all(int(value) == 1 for value in tracked), "the teacher has added none"
    monkeypatch.setattr(GRMPTrainingArguments, "world_size", 2)
    with pytest.raises(GRMPError, match=r"batch_statistics=True, .* uses those of each process's own"):
        GRMPTrainer(model, arguments, train_dataset=rows)


@pytest.mark.parametrize("name", ["default", "paper"])
def test_a_recipe_learns_places_and_repeats_itself(name: str, make_sided: Callable[..., Any], tmp_path: Path) -> None:
    base = make_sided()
    before = weights(base)
    short = {"epochs": 2, "learning_rate": 0.02, "batch_size": 8, "crops": 2}
    recipe = dataclasses.replace(LoDaRecipe.named(name), **short)
    pixels = torch.randint(0, 256, (16, 1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
    labels = 0.3 + 0.1 * LABELS
    rated = RatedPictures(pixels.__getitem__, labels, (0.5,) * 3, (0.2,) * 3)
    ends = [adapt_locally(base, rated, recipe=recipe, output_dir=tmp_path / str(run)) for run in range(2)]
    assert not any(tmp_path.glob("*/*")), "the state of the run is gone"
    after = weights(ends[0])
    again = weights(ends[1])
    assert all(torch.equal(after[key], again[key]) for key in after)
    assert all(torch.equal(weights(base)[key], value) for key, value in before.items())
    with torch.no_grad():
        quality = ends[0](normalize(pixels, (0.5,) * 3, (0.2,) * 3)).quality
    assert abs(quality.mean() - labels.mean()) < 0.01, "on the scale of the ratings, from 0.3 to 0.4"
    assert correlation(quality.numpy(), labels.numpy()) > 0.3
    (tmp_path / "mine").mkdir()
    ends[0].save_pretrained(str(tmp_path / "mine"), save_embedding_layers=False)
    assert (Record.load(tmp_path / "mine").head or {})["settings"]["placed"] is True


def test_the_default_begins_with_the_order_of_the_base(make_sided: Callable[..., Any], tmp_path: Path) -> None:
    base = make_sided()
    pixels = torch.randint(0, 256, (16, 1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
    rated = RatedPictures(pixels.__getitem__, LABELS, (0.5,) * 3, (0.2,) * 3)
    still = LoDaRecipe(steps=1, learning_rate=0.0)
    model = adapt_locally(base, rated, recipe=still, output_dir=tmp_path)
    with torch.no_grad():
        found, zero_shot = (m(normalize(pixels, (0.5,) * 3, (0.2,) * 3)).quality for m in (model, base))
    assert torch.equal(found.argsort(), zero_shot.argsort())


def test_recipes_that_cannot_be(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    for wrong, message in (
        ({"crops": 0}, "crops of at least 1, got 0"),
        ({"batch_size": 1}, "batch_size of at least 2"),
        ({"head": "mean"}, "head out of anchors, token, got 'mean'"),
        ({"up": "wide"}, "up out of mlp, linear"),
    ):
        with pytest.raises(GRMPError, match=message):
            LoDaRecipe(**wrong)  # type: ignore[arg-type]
    with pytest.raises(GRMPError, match="heads that divide latent, got 8, 3 and 7"):
        LoDaRecipe(latent=8, heads=3)
    rated = RatedPictures(PIXELS.__getitem__, LABELS, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(GRMPError, match="a base with a side network"):
        adapt_locally(make_scorer(), rated, output_dir=tmp_path)


@pytest.fixture
def noise() -> RatedPictures:
    pixels = torch.randint(0, 256, (8, 1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
    return RatedPictures(pixels.__getitem__, LABELS[:8], (0.5,) * 3, (0.2,) * 3)


SETTINGS: list[dict[str, Any]] = [
    *({"latent": 8}, {"heads": 2}, {"grid": 2}, {"up": "mlp"}, {"start": "random"}, {"batch_statistics": True}),
    *({"head": "token"}, {"dropout": 0.5}, {"crops": 2}, {"epochs": 2}, {"batch_size": 4}, {"learning_rate": 0.02}),
    *({"weight_decay": 1.0}, {"bf16": True}, {"epochs": 0, "steps": 3}),
]


def test_every_setting_of_the_recipe_decides(
    noise: RatedPictures, make_sided: Callable[..., Any], tmp_path: Path
) -> None:
    """No setting is read and passed over: each leads to other weights than the same recipe without it."""
    base, recipe = make_sided(), LoDaRecipe(epochs=1, learning_rate=0.01)

    def learnt(**settings: Any) -> dict[str, Tensor]:
        given = dataclasses.replace(recipe, **settings)
        return weights(adapt_locally(base, noise, recipe=given, output_dir=tmp_path / "run"))

    expected = learnt()
    assert {key for settings in SETTINGS for key in settings} == {field.name for field in dataclasses.fields(recipe)}
    for settings in SETTINGS:
        found = learnt(**settings)
        same = [found[name].equal(value) for name, value in expected.items() if name in found]
        assert found.keys() != expected.keys() or not all(same), settings
    still, dropped = learnt(head="token"), learnt(head="token", dropout=0.5)
    assert any(not still[name].equal(dropped[name]) for name in still), "of either head"
    assert not (tmp_path / "run").exists(), "nor does an empty folder stay"


def test_a_recipe_goes_by_its_name(noise: RatedPictures, make_sided: Callable[..., Any], tmp_path: Path) -> None:
    base = make_sided()
    with pytest.raises(GRMPError, match="expected a file, or one of default, paper; check the spelling"):
        adapt_locally(base, noise, recipe="papier", output_dir=tmp_path)
    (tmp_path / "mine.yaml").write_text("steps: 1\nlatent: 8\n")
    model = adapt_locally(base, noise, recipe=tmp_path / "mine.yaml", output_dir=tmp_path / "run")
    config: Any = model.active_peft_config
    assert (config.latent, config.up) == (8, "linear")


def test_other_views_than_pictures_are_refused_before_training(
    noise: RatedPictures, make_sided: Callable[..., Any], tmp_path: Path
) -> None:
    few = RatedPictures(PIXELS.__getitem__, LABELS[:5], (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(GRMPError, match=r"views of the same 8 pictures, got 5\. Take the same rows"):
        adapt_locally(make_sided(), noise, views=few, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["default", "paper"])
def test_what_is_saved_scores_the_same_in_a_new_process(
    name: str, sided_base: Scorer, scores_elsewhere: Callable[..., list[float]], photos: list[Path], tmp_path: Path
) -> None:
    rows = [Row(image=path, name=path.name, mos=at / 12, quality=at / 12) for at, path in enumerate(photos)]
    recipe = dataclasses.replace(LoDaRecipe.named(name), epochs=2, batch_size=6, learning_rate=0.05, bf16=False)
    pictures = rated_pictures(sided_base, rows)
    model = adapt_locally(sided_base.model, pictures, recipe=recipe, output_dir=tmp_path / "run")
    scorer = dataclasses.replace(sided_base, model=model)
    scorer.save(tmp_path / "mine")
    said = scorer.score(photos).quality
    assert abs(said - sided_base.score(photos).quality).max() > 1e-3
    assert scores_elsewhere(tmp_path / "mine", photos) == said.tolist()
