"""A head of two streams learnt from rated pictures: categories, partners, losses, and training from tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.two_stream import TwoStreamOutput
from grmp_hf.record import Record
from grmp_hf.training import parallel
from grmp_hf.training.parallel import NO_CATEGORY, categories, in_parallel, partners
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.shots import Columns
from grmp_hf.training.two_stream import TwoStreamRecipe, adapt_streams, tokens_of

LABELS = torch.rand(16, generator=torch.Generator().manual_seed(4))
PIXELS = torch.randint(0, 256, (16, 2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
SHORT: dict[str, Any] = {"latent": 8, "epochs": 3, "batch_size": 8, "learning_rate": 0.02}


def rated(labels: Tensor = LABELS) -> RatedPictures:
    return RatedPictures(PIXELS.__getitem__, labels, (0.5,) * 3, (0.2,) * 3)


def weights(model: PeftModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def silent(inputs: Any) -> Any:
    raise AssertionError("nobody should be asked")


# Categories ----------------------------------------------------------------------------------------------------------


def test_ratings_fall_into_bins_of_equally_many() -> None:
    quality = torch.rand(103, generator=torch.Generator().manual_seed(1))
    found, kinds = categories(quality)
    assert kinds == 5 and set(found.bincount().tolist()) <= {20, 21}
    assert all(quality[found == kind].max() < quality[found == kind + 1].min() for kind in range(4))


def test_equal_ratings_stay_together() -> None:
    stars = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.5, 0.7, 0.7])
    found, kinds = categories(stars)
    assert kinds == int(found.max()) + 1 == 2 and found.bincount().tolist() == [7, 2]
    two, kinds = categories(torch.tensor([0.1, 0.9]))
    assert kinds == 2 and two.tolist() == [0, 1]


def test_distortions_come_before_ratings_where_they_are_known() -> None:
    shown = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]]).float()
    found, kinds = categories(LABELS[:4], shown)
    assert found.tolist() == [1, NO_CATEGORY, 2, 0] and kinds == 3
    assert torch.equal(categories(LABELS, torch.zeros(16, 3))[0], categories(LABELS)[0]), "nobody says anything"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"distortion": torch.ones(16, 2)}, "Expected one distortion or none of each of 16 pictures"),
        ({"distortion": torch.eye(4)}, r"labels of shape \(4, 4\)"),
        ({"bins": 1}, "Expected at least 2 bins of ratings, got 1"),
    ],
)
def test_what_is_no_category_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        categories(LABELS, **given)


def test_everybody_has_a_partner_in_the_group() -> None:
    groups = torch.tensor([0, 0, 1, 0, 2, 2])
    first, second = partners(groups)
    assert sorted(first.tolist()) == sorted(second.tolist()) == [0, 1, 3, 4, 5]
    assert (first != second).all() and (groups[first] == groups[second]).all()
    assert [part.tolist() for part in partners(torch.arange(3))] == [[], []]


# The objective -------------------------------------------------------------------------------------------------------


def output(**changed: Any) -> TwoStreamOutput:
    generator = torch.Generator().manual_seed(3)
    said = {
        "quality": torch.rand(4, generator=generator),
        "category_logits": torch.randn(4, 3, generator=generator),
        "better_logits": torch.randn(4, 4, generator=generator),
    }
    return TwoStreamOutput(**{**said, **changed})


def batch(**more: Tensor) -> dict[str, Tensor]:
    known = {"labels": torch.tensor([0.1, 0.9, 0.4, 0.4]), "category": torch.tensor([0, 2, NO_CATEGORY, 1])}
    return {"tokens": torch.zeros(4, 1, 3, 2), **known, "groups": torch.tensor([0, 0, 1, 1]), **more}


def test_the_three_losses_are_what_they_say() -> None:
    said, asked = output(), []

    def student(inputs: Any) -> TwoStreamOutput:
        asked.append(set(inputs))
        return said

    found = in_parallel()(student, silent, batch())
    assert asked == [{"tokens"}] and list(found) == ["quality", "category", "comparison"]
    assert {name: term.weight for name, term in found.items()} == {"quality": 4, "category": 3, "comparison": 4}
    torch.testing.assert_close(found["quality"].mean, (said.quality - batch()["labels"]).abs().mean())
    kept = [0, 1, 3]
    expected = F.cross_entropy(said.category_logits[kept], batch()["category"][kept])  # type: ignore[index]
    torch.testing.assert_close(found["category"].mean, expected)
    pairs = torch.stack([said.better_logits[pair] for pair in ((0, 1), (1, 0), (2, 3), (3, 2))])  # type: ignore[index]
    better = torch.tensor([0.0, 1.0, 0.5, 0.5])
    torch.testing.assert_close(found["comparison"].mean, F.binary_cross_entropy(pairs.sigmoid(), better))


def test_surer_ratings_count_more_and_deviations_make_comparisons_soft() -> None:
    certainty, stds = torch.tensor([2.0, 1.0, 0.5, 0.5]), torch.tensor([0.3, 0.4, 0.1, torch.nan])
    said = output()
    found = in_parallel()(lambda inputs: said, silent, batch(certainty=certainty, mos_std=stds))
    torch.testing.assert_close(found["quality"].mean, ((said.quality - batch()["labels"]).abs() * certainty).mean())
    soft = float(torch.special.ndtr(torch.tensor(-0.8 / 0.5)))
    pairs = torch.stack([said.better_logits[pair] for pair in ((0, 1), (1, 0), (2, 3), (3, 2))])  # type: ignore[index]
    better = torch.tensor([soft, 1 - soft, 0.5, 0.5])
    torch.testing.assert_close(found["comparison"].mean, F.binary_cross_entropy(pairs.sigmoid(), better))


def test_what_nobody_knows_counts_nothing() -> None:
    alone = batch(groups=torch.arange(4), category=torch.full((4,), NO_CATEGORY))
    found = in_parallel()(lambda inputs: output(), silent, alone)
    assert [term.weight for term in found.values()] == [4, 0, 0]
    assert all(term.mean.isfinite() for term in found.values())
    assert list(in_parallel(category=False, comparison=False)(lambda inputs: output(), silent, batch())) == ["quality"]


@pytest.mark.parametrize(
    ("said", "given", "message"),
    [
        ({"category_logits": None}, {}, "Expected category_logits of a model in training, got none"),
        ({"better_logits": None}, {}, "Expected better_logits of a model in training, got none"),
        ({}, {"dataset": torch.tensor([1, 2, 1, 1])}, "pairs of pictures of one data set, got some of two"),
    ],
)
def test_what_cannot_be_learnt_is_refused(said: dict[str, Any], given: dict[str, Tensor], message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        in_parallel()(lambda inputs: output(**said), silent, batch(**given))


def test_a_batch_without_categories_is_refused() -> None:
    shown = {name: column for name, column in batch().items() if name != "category"}
    with pytest.raises(GRMPError, match="Expected a column category, got none"):
        in_parallel()(lambda inputs: output(), silent, shown)


# Training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_tokens_that_are_kept_teach_the_same_as_pictures(
    dropout: float, make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    base = make_scorer(view_weights=[0.7, 0.3])
    recipe = TwoStreamRecipe(**SHORT, dropout=dropout)
    ends = [
        weights(adapt_streams(base, rated(), recipe=recipe, cached=cached, output_dir=tmp_path))
        for cached in (True, False)
    ]
    known = Columns({"labels": LABELS, "tokens": tokens_of(base, rated())})
    ends.append(weights(adapt_streams(base, known, recipe=recipe, output_dir=tmp_path)))
    begun = adapt_streams(base, rated(), recipe=dataclasses.replace(recipe, learning_rate=0.0), output_dir=tmp_path)
    learnt = [name for name in ends[0] if ".modules_to_save." in name]
    assert max((ends[0][name] - weights(begun)[name]).abs().max() for name in learnt) > 0.01
    for other in ends[1:]:
        assert max((ends[0][name] - other[name]).abs().max() for name in ends[0]) <= 1e-6


def test_it_learns_repeats_itself_and_leaves_nothing_behind(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    base = make_scorer()
    before = weights(base)
    recipe = TwoStreamRecipe(**{**SHORT, "epochs": 40}, dropout=0.0, weight_decay=0.0)
    ends = [adapt_streams(base, rated(), recipe=recipe, output_dir=tmp_path / str(run)) for run in range(2)]
    assert all(torch.equal(value, weights(ends[1])[name]) for name, value in weights(ends[0]).items())
    assert all(torch.equal(weights(base)[name], value) for name, value in before.items())
    assert not any(tmp_path.glob("*/*")), "the state of the run is gone"
    with torch.no_grad():
        quality = ends[0](normalize(PIXELS, (0.5,) * 3, (0.2,) * 3)).quality
    assert srcc(quality.numpy(), LABELS.numpy()) > 0.9
    assert (quality - LABELS).abs().mean() < 0.1 < (LABELS.mean() - LABELS).abs().mean()


@pytest.mark.parametrize("off", [{}, {"category": 0.0}, {"comparison": 0.0}, {"category": 0.0, "comparison": 0.0}])
def test_auxiliary_heads_act_and_are_not_saved(
    off: dict[str, float], make_scorer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, asked = make_scorer(), []

    def watched(**wanted: bool) -> Any:
        asked.append(wanted)
        return parallel.in_parallel(**wanted)

    monkeypatch.setattr("grmp_hf.training.two_stream.in_parallel", watched)
    plain = TwoStreamRecipe(**SHORT)
    recipe = dataclasses.replace(plain, **off)
    model, other = (adapt_streams(base, rated(), recipe=r, output_dir=tmp_path / "run") for r in (recipe, plain))
    assert asked[0] == {name: name not in off for name in ("category", "comparison")}
    same = all(torch.equal(value, weights(other)[name]) for name, value in weights(model).items())
    assert same == (not off), "the streams learn from the other losses too"
    assert not [name for name in model.state_dict() if "auxiliary" in name]
    origin = Record.of(model.active_peft_config).provenance or {}
    assert origin["shots"] == len(rated().columns["labels"]) and origin["recipe"] == dataclasses.asdict(recipe)
    model.save_pretrained(str(tmp_path / "mine"), save_embedding_layers=False)
    stored = load_file(tmp_path / "mine" / "adapter_model.safetensors")
    assert sum(map(Tensor.numel, stored.values())) == 24 * 8 + 5 * 8 + 2
    again = PeftModel.from_pretrained(with_head_of(model, make_scorer()), str(tmp_path / "mine"))
    pixels = normalize(PIXELS, (0.5,) * 3, (0.2,) * 3)
    with torch.no_grad():
        assert torch.equal(again(pixels).quality, model(pixels).quality)


def with_head_of(model: PeftModel, base: Any) -> Any:
    """A base with a new head like that of a model."""
    head = model.get_base_model().head.modules_to_save["default"]
    base.head = type(head)(**head.settings())
    return base


def test_known_distortions_are_the_categories(
    make_scorer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = []
    found = parallel.categories

    def watched(*given: Any) -> Any:
        kinds.append(found(*given)[1])
        return found(*given)

    monkeypatch.setattr("grmp_hf.training.two_stream.categories", watched)
    shown = F.one_hot(torch.arange(16) % 7, 7).float()
    for distortion in (shown, None):
        adapt_streams(
            make_scorer(), rated(), distortion=distortion, recipe=TwoStreamRecipe(**SHORT), output_dir=tmp_path
        )
    assert kinds == [7, 5]


def test_a_recipe_goes_by_its_name(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match="expected a file, or one of default; check the spelling"):
        adapt_streams(make_scorer(), rated(), recipe="paper", output_dir=tmp_path)
    (tmp_path / "mine.yaml").write_text("steps: 1\nlatent: 3\n")
    model = adapt_streams(make_scorer(), rated(), recipe=tmp_path / "mine.yaml", output_dir=tmp_path / "run")
    head = model.get_base_model().head.modules_to_save["default"]
    assert head.score.in_features == 3


def test_recipes_that_cannot_be() -> None:
    for wrong, message in (
        ({"latent": 0}, "latent of at least 1, got 0"),
        ({"category": -1.0}, "category of at least 0, got -1.0"),
        ({"bins": 1}, "bins of at least 2"),
        ({"batch_size": 1}, "batch_size of at least 2"),
        ({"dropout": 1.0}, "dropout of at least 0 and below 1, got 1"),
        ({"weight": "relu"}, "weight out of softplus, sigmoid"),
    ):
        with pytest.raises(GRMPError, match=message):
            TwoStreamRecipe(**wrong)  # type: ignore[arg-type]


def test_pictures_that_teach_nothing_are_refused(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    base = make_scorer()
    with pytest.raises(GRMPError, match="Expected pictures with different ratings, got 16 that are all alike"):
        adapt_streams(base, rated(torch.full((16,), 0.5)), output_dir=tmp_path)
    with pytest.raises(GRMPError, match=r"Map ratings with RatingScale.to_quality"):
        adapt_streams(base, rated(LABELS * 5), output_dir=tmp_path)
    with pytest.raises(GRMPError, match="Expected the columns labels and tokens of pictures, got labels, image_embeds"):
        adapt_streams(base, Columns({"labels": LABELS, "image_embeds": torch.zeros(16, 12)}), output_dir=tmp_path)
    with pytest.raises(GRMPError, match=r"tokens of shape \(batch, views, tokens, 24\), got \(16, 1, 5, 8\)"):
        adapt_streams(base, Columns({"labels": LABELS, "tokens": torch.zeros(16, 1, 5, 8)}), output_dir=tmp_path)
