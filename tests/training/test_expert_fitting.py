"""One data set of a stream: what is trained in which part, the two ends of the strength, two processes as one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.pairwise import chance_better, pairs_within
from grmp_hf.training.expert_fitting import Held, begin, fisher, learn, trained_weights
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.shots import look
from grmp_hf.training.stream_recipe import StreamRecipe

QUICK = StreamRecipe(head_epochs=2, epochs=2, group=4)
HEAD = ".modules_to_save.default.directions."


def pictures(seed: int, n: int = 8) -> RatedPictures:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 3, 16, 16), dtype=torch.uint8, generator=random)
    return RatedPictures(pixels.__getitem__, torch.linspace(0.1, 0.9, n), (0.5,) * 3, (0.5,) * 3)


def state(model: PeftModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def first(base: Any, tmp_path: Path, recipe: StreamRecipe = QUICK, **given: Any) -> PeftModel:
    model = begin(base, recipe, 1, seed=0)
    return learn(model, pictures(0), torch.zeros(8), [0], recipe=recipe, seed=0, output_dir=tmp_path / "a", **given)


def second(base: Any, one: PeftModel, tmp_path: Path, recipe: StreamRecipe, **given: Any) -> PeftModel:
    model = begin(base, recipe, 2, seed=0, before=one)
    sets = torch.ones(8, dtype=torch.long)
    return learn(model, pictures(1), sets, [1], recipe=recipe, seed=0, output_dir=tmp_path / "b", **given)


def of(recipe: StreamRecipe, **changes: Any) -> StreamRecipe:
    return dataclasses.replace(recipe, **changes)


@pytest.mark.parametrize("adapter", ["layer_norm", "prompts", "lora"])
def test_it_begins_at_the_base_and_trains_what_the_recipe_names(adapter: Any, make_scorer: Any, tmp_path: Path) -> None:
    base, recipe = make_scorer(), of(QUICK, adapter=adapter, learning_rate=0.01)
    frozen = {name: weight.clone() for name, weight in base.state_dict().items()}
    model = begin(base, recipe, 1, seed=0)
    pixels = torch.randn(3, 3, 16, 16)
    if adapter != "prompts":  # whose visual prompts begin at random
        assert torch.equal(model(pixels).image_embeds, base(pixels).image_embeds)
    before = state(model)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    learn(model, pictures(0), torch.zeros(8), [0], recipe=recipe, seed=0, output_dir=tmp_path / "a")
    after = state(model)
    buffers = {name for name in after if name.endswith(("default.scale", "default.offset"))}
    assert {name for name in after if not torch.equal(after[name], before[name])} == trained | buffers
    assert all(torch.equal(weight, frozen[name]) for name, weight in base.state_dict().items())
    counts = {"layer_norm": 8 * 2 * 24, "lora": 3 * 2 * 2 * 24, "prompts": 3 * 4 * 24 + 2 * 24}
    assert trained_weights(model) == counts[adapter]
    if adapter == "prompts":
        more = begin(base, of(recipe, train_projection=True), 1, seed=0)
        assert trained_weights(more) == counts[adapter] + 24 * 24 + 24


def test_the_head_alone_is_trained_first(make_scorer: Any, tmp_path: Path) -> None:
    recipe = of(QUICK, epochs=0)
    model = begin(make_scorer(), recipe, 1, seed=0)
    before = state(model)
    learn(model, pictures(0), torch.zeros(8), [0], recipe=recipe, seed=0, output_dir=tmp_path / "a")
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition("default.")[2] for name in moved} == {"directions.0", "scale", "offset"}
    assert not (tmp_path / "a" / "head").exists()


def test_it_learns_and_says_it_on_the_scale_of_ratings(make_scorer: Any, tmp_path: Path) -> None:
    recipe = of(QUICK, head_epochs=60, epochs=20, learning_rate=0.01)
    said = list[str]()
    model = first(make_scorer(), tmp_path, recipe, progress=lambda what, share: said.append(what))
    shown = look(model, pictures(0), ["image_embeds", "means"])
    order = shown["means"][:, 0].argsort()
    assert order.tolist() == list(range(8)) and dict.fromkeys(said) == dict.fromkeys(
        ["embed", "learn head", "learn both"]
    )
    with torch.no_grad():
        quality = torch.cat([model(x["pixel_values"][None]).quality for x in map(pictures(0).__getitem__, range(8))])
    assert (quality - torch.linspace(0.1, 0.9, 8)).abs().mean() < 0.1


def test_it_is_a_function_of_its_arguments(make_scorer: Any, tmp_path: Path) -> None:
    found = [state(first(make_scorer(), tmp_path / str(seed))) for seed in range(2)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_second_data_set_goes_on_where_the_first_has_ended(make_scorer: Any, tmp_path: Path) -> None:
    base = make_scorer()
    one = first(base, tmp_path, of(QUICK, learning_rate=0.01))
    model = begin(base, QUICK, 2, seed=0, before=one)
    pixels = torch.randn(3, 3, 16, 16)
    assert torch.equal(model(pixels).means[:, 0], one(pixels).means[:, 0])
    assert torch.equal(model(pixels).image_embeds, one(pixels).image_embeds)
    kept, kept_before = state(model), state(one)
    learnt = second(base, one, tmp_path, of(QUICK, method="fine_tuning"))
    after = state(learnt)
    old = next(name for name in after if name.endswith(f"{HEAD}0"))
    assert torch.equal(after[old], kept[old]) and not torch.equal(learnt(pixels).means[:, 0], one(pixels).means[:, 0])
    assert all(torch.equal(value, kept_before[name]) for name, value in one.state_dict().items())


def old_pairs(model: Any) -> Tensor:
    """What the first axis says of the pairs of the second data set."""
    means = look(model, pictures(1), ["means"])["means"][:, 0]
    i, j = pairs_within(torch.zeros(8))
    return chance_better(means[i], means[j], 1.0, 1.0)


def test_strength_zero_is_fine_tuning_and_a_large_one_keeps_what_was_said(make_scorer: Any, tmp_path: Path) -> None:
    base = make_scorer()
    strong = of(QUICK, epochs=10, learning_rate=0.003)
    one = first(base, tmp_path, strong)
    tuned = second(base, one, tmp_path, of(strong, method="fine_tuning"))
    free = second(base, one, tmp_path, of(strong, method="distillation", strength=0.0), before=one)
    assert all(torch.equal(value, state(free)[name]) for name, value in state(tuned).items())
    held = second(base, one, tmp_path, of(strong, method="distillation", strength=1e4), before=one)
    then = old_pairs(one)
    assert (old_pairs(held) - then).abs().max() < 0.3 * (old_pairs(tuned) - then).abs().max()
    assert (old_pairs(held) - then).abs().max() < 0.02


def test_weights_that_mattered_are_held(make_scorer: Any, tmp_path: Path) -> None:
    base = make_scorer()
    strong = of(QUICK, epochs=10, learning_rate=0.003, method="ewc")
    one = first(base, tmp_path, strong)
    mattered = fisher(one, pictures(0), torch.zeros(8, dtype=torch.long), strong, 0)
    assert all(bool((weight >= 0).all()) for weight in mattered.values())
    assert sum(w.numel() for w in mattered.values()) == trained_weights(one)
    start = {name: weight.detach().clone() for name, weight in one.named_parameters() if name in mattered}
    tuned = second(base, one, tmp_path, of(strong, method="fine_tuning"))
    free = second(base, one, tmp_path, of(strong, strength=0.0), held=Held(start, mattered))
    assert all(torch.equal(value, state(free)[name]) for name, value in state(tuned).items())
    held = second(base, one, tmp_path, of(strong, strength=1e6), held=Held(start, mattered))

    def moved(model: PeftModel) -> Tensor:
        now = dict(model.named_parameters())
        return torch.stack([(mattered[name] * (now[name] - start[name]).square()).sum() for name in start]).sum()

    assert moved(held) < 0.1 * moved(tuned)


def test_pictures_of_earlier_data_sets_are_learnt_from_on_their_own_axis(make_scorer: Any, tmp_path: Path) -> None:
    base = make_scorer()
    one = first(base, tmp_path, QUICK)
    both, kept = pictures(1, 8), pictures(0, 4)
    joined = RatedPictures(
        lambda index: both.views(index) if index < 8 else kept.views(index - 8),
        torch.cat([both.columns["labels"], kept.columns["labels"]]),
        (0.5,) * 3,
        (0.5,) * 3,
    )
    sets = torch.tensor([1] * 8 + [0] * 4)
    model = begin(base, QUICK, 2, seed=0, before=one)
    learn(model, joined, sets, [1], recipe=QUICK, seed=0, output_dir=tmp_path / "c", before=one)
    plain = second(base, one, tmp_path, of(QUICK, method="distillation"), before=one)
    assert any(not torch.equal(value, state(plain)[name]) for name, value in state(model).items())


def test_ratings_that_teach_nothing_are_refused(make_scorer: Any, tmp_path: Path) -> None:
    model, same = begin(make_scorer(), QUICK, 1, seed=0), pictures(0)
    same.columns["labels"] = torch.full((8,), 0.5)
    with pytest.raises(GRMPError, match=r"data set 1, got 8 that are all alike\. Rate more"):
        learn(model, same, torch.zeros(8), [0], recipe=QUICK, seed=0, output_dir=tmp_path / "a")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "magic"}, "method out of experts, distillation"),
        ({"adapter": "glue"}, "adapter out of layer_norm, prompts, lora, got 'glue'"),
        ({"group": 1}, "group of at least 2, got 1"),
        ({"strength": -1.0}, "strength of at least 0"),
        ({"memory": 5}, "no memory with method='experts'"),
        ({"sigma": 0.0}, "sigma above 0, got 0"),
        ({"bf16": "maybe"}, "bf16 out of true, false, auto"),
    ],
)
def test_recipes_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(GRMPError, match=said):
        StreamRecipe(**wrong)


def test_adapters_share_the_weights_of_the_base(make_scorer: Any) -> None:
    base = make_scorer()
    model = begin(base, QUICK, 1, seed=0)
    places = {weight.data_ptr() for weight in copy_base(base).parameters()}
    assert sum(weight.data_ptr() in places for weight in model.parameters()) == len(places)
