"""Objectives without ratings, what ranks pictures, and the stages that learn from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from transformers import TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.contrastive import group_contrast, similarity_weights, version_contrast
from grmp_hf.modeling.linear_heads import Cosine, Projected
from grmp_hf.modeling.low_level import LowLevelEncoder
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.contrasts import group_contrasts, version_contrasts
from grmp_hf.training.expert_fitting import adapter_config
from grmp_hf.training.high_level import HighLevelRecipe, learn_high_level
from grmp_hf.training.low_level import Fragments, LowLevelRecipe, learn_low_level
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.trainer import GRMPTrainer

PIXELS = torch.randint(0, 256, (12, 1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
SMALL = LowLevelRecipe(
    versions=3, side=40, grid=2, piece=16, hidden=16, width=8, epochs=3, batch_size=2, save_steps=0, learning_rate=0.01
)
SHORT = HighLevelRecipe(epochs=4, batch_size=12, learning_rate=0.02, width=8, share=4, warmup_epochs=0.5, save_steps=0)


@dataclasses.dataclass
class Said:
    """What a model says, as an objective reads it."""

    quality: Tensor
    image_embeds: Tensor
    projected: Tensor | None = None


def said(seed: int, projected: bool = False) -> Said:
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(9, 6, generator=generator)
    return Said(torch.rand(9, generator=generator), embeds, embeds[:, :4].relu() if projected else None)


class Families:
    """Noise of several contrasts, which say how similar versions are."""

    content_hash = "noise"

    def __init__(self, count: int = 5, versions: int = 4) -> None:
        rng, contrasts = np.random.default_rng(0), np.linspace(1, 0.1, versions)
        noise = rng.uniform(-128, 128, (count, 1, 40, 44, 3)) * contrasts[:, None, None, None]
        self.pictures = (128 + noise).astype(np.uint8)
        self.similarity = (1 - np.abs(contrasts[:, None] - contrasts)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pictures[index], self.similarity


# Objectives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projected", [False, True])
def test_the_best_and_the_worst_of_each_group_are_contrasted(projected: bool) -> None:
    now, before, shown = said(1, projected), said(2), set[int]()
    features = now.projected if projected else now.image_embeds
    assert features is not None

    def student(inputs: Any) -> Any:
        at = inputs["pixel_values"].long()
        shown.update(at.tolist())
        return Said(*(None if value is None else value[at] for value in vars(now).values()))  # type: ignore[arg-type]

    batch = {"labels": said(3).quality, "groups": torch.tensor([0, 1, 0, 0, 1, 0, 0, 2, 0])}
    batch["pixel_values"] = torch.arange(9.0)
    for ranked_by, ranks in (("labels", batch["labels"]), ("teacher", before.quality), ("student", now.quality)):
        shown.clear()
        found = group_contrasts(share=3, ranked_by=ranked_by)(student, lambda _: before, batch)["contrast"]  # type: ignore[arg-type]
        at = torch.tensor([0, 2, 3, 5, 6, 8])
        order = at[ranks[at].argsort(descending=True)]
        assert found.weight == 1, "groups of two and of one have no two good and two bad ones"
        torch.testing.assert_close(found.mean, group_contrast(features[order[:2]], features[order[-2:]]))
        ends = {*order[:2].tolist(), *order[-2:].tolist()}
        assert shown == (set(range(9)) if ranked_by == "student" else ends), "no others are looked at"
    del batch["groups"]
    order = batch["labels"].argsort(descending=True)
    whole = group_contrasts(share=2)(student, lambda _: before, batch)["contrast"]
    torch.testing.assert_close(whole.mean, group_contrast(features[order[:4]], features[order[-4:]]))
    batch["groups"] = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    two = group_contrasts()(student, lambda _: before, batch)["contrast"]
    parts = [at[batch["labels"][at].argsort(descending=True)] for at in (torch.arange(4), torch.arange(4, 9))]
    losses = [group_contrast(features[order[:2]], features[order[-2:]]) for order in parts]
    assert two.weight == 2
    torch.testing.assert_close(two.mean, torch.stack(losses).mean())


def test_the_recipe_hands_its_settings_to_the_loss() -> None:
    now, before = said(1), said(2)
    batch = {"labels": said(3).quality, "pixel_values": torch.arange(9.0)}

    def student(inputs: Any) -> Any:
        at = inputs["pixel_values"].long()
        return Said(now.quality[at], now.image_embeds[at])

    found = []
    for settings in (
        *({"ranked_by": ranked_by} for ranked_by in ("labels", "teacher", "student")),
        *({"share": 2}, {"temperature": 0.1}),
    ):
        objectives = HighLevelRecipe(**settings).objective(), group_contrasts(**settings)  # type: ignore[arg-type]
        mine, expected = (asked(student, lambda _: before, batch)["contrast"].mean for asked in objectives)
        assert torch.equal(mine, expected), settings
        found.append(mine.item())
    assert len(set(found)) == 5, "each of them decides"


def test_of_128_pictures_four_are_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(
        "grmp_hf.training.contrasts.group_contrast", lambda top, *_: sizes.append(len(top)) or torch.zeros(())
    )
    for count in (128, 64, 32, 5):
        ranked = Said(torch.rand(count), torch.randn(count, 3))
        group_contrasts(ranked_by="student")(
            lambda _, ranked=ranked: ranked, lambda _: None, {"labels": ranked.quality}
        )
    assert sizes == [4, 2, 2, 2]


@pytest.mark.parametrize("ranked_by", ["labels", "teacher", "student"])
def test_a_batch_without_a_group_counts_nothing(ranked_by: Any) -> None:
    now = said(1)
    found = group_contrasts(ranked_by=ranked_by)(
        lambda _: now, lambda _: now, {"labels": now.quality, "groups": torch.arange(9)}
    )
    assert found["contrast"].weight == 0 and found["contrast"].mean.item() == 0


def test_versions_are_a_mean_over_families() -> None:
    features = torch.randn(3, 2, 4, 6)
    batch = {"pixel_values": torch.zeros(3), "similarity": torch.rand(3, 4, 4)}

    def student(inputs: Any) -> Any:
        assert inputs.keys() == {"pixel_values"}
        return dataclasses.make_dataclass("Output", ["projected"])(features)

    for outside in (False, True):
        found = version_contrasts(0.3, outside=outside)(student, student, batch)["contrast"]
        weights = similarity_weights(batch["similarity"])
        expected = version_contrast(features[:, 0], features[:, 1], weights, 0.3, outside=outside)
        assert found.weight == 3
        torch.testing.assert_close(found.mean, expected.mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_contrasts(share=1), "a share of at least 2"),
        (lambda: group_contrasts(ranked_by="users"), "ranked_by out of labels, teacher, student, got 32 and 'users'"),  # type: ignore[arg-type]
        (lambda: version_contrasts(0.0), r"a temperature above 0, got 0\.0"),
        (lambda: group_contrasts(temperature=float("inf")), "a temperature above 0, got inf"),
        (lambda: HighLevelRecipe(temperature=-1), "temperature of at least 0, got -1"),
        (lambda: HighLevelRecipe(batch_size=3), "batch_size of at least 4, got 3"),
        (lambda: HighLevelRecipe(adapter="bitfit"), "adapter out of layer_norm, prompts, lora"),  # type: ignore[arg-type]
        (lambda: LowLevelRecipe(side=31), "side of at least 32, got 31"),
        (lambda: LowLevelRecipe(network="vit"), "network out of small, resnet18, got 'vit'"),  # type: ignore[arg-type]
        (lambda: LowLevelRecipe(learning_rate=0.0), r"learning_rate above 0, got 0\.0"),
        (lambda: LowLevelRecipe(smallest_rate=0.1), r"at most the learning_rate, 0\.001, got 0\.1"),
        (lambda: HighLevelRecipe(temperature=0), "a temperature above 0, got 0"),
        (lambda: LowLevelRecipe(temperature=0), "a temperature above 0, got 0"),
        (lambda: LowLevelRecipe(width=0), "width of at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be(call: Callable[[], object], message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        call()


# The low-level stage -------------------------------------------------------------------------------------------------


def test_views_are_functions_of_seed_epoch_and_index() -> None:
    families, config = Families(), SMALL.config()

    def data(seed: int) -> Fragments:
        return Fragments(families, config, grid=2, piece=16, seed=seed)  # type: ignore[arg-type]

    row = data(0)[1, 2]
    assert row["pixel_values"].shape == (2, 4, 3, 32, 32)
    torch.testing.assert_close(row["similarity"], torch.from_numpy(families.similarity))
    assert torch.equal(row["pixel_values"], data(0)[1, 2]["pixel_values"])
    assert torch.equal(data(0)[2]["pixel_values"], data(0)[0, 2]["pixel_values"])
    for other in (data(1)[1, 2], data(0)[0, 2], data(0)[1, 3]):
        assert not torch.equal(row["pixel_values"], other["pixel_values"])
    assert not torch.equal(row["pixel_values"][0], row["pixel_values"][1])


def test_it_learns_repeats_itself_and_lowers_its_loss(tmp_path: Path) -> None:
    families, recipe = Families(), dataclasses.replace(SMALL, epochs=12)
    ends = [learn_low_level(families, recipe=recipe, output_dir=tmp_path / str(run)) for run in range(2)]
    still = dataclasses.replace(SMALL, epochs=1, learning_rate=1e-9, smallest_rate=0.0)
    begun = learn_low_level(families, recipe=still, output_dir=tmp_path / "still")
    assert not any(tmp_path.glob("*/*")), "the state of the run is gone"
    assert ends[0].fingerprint == ends[1].fingerprint != begun.fingerprint and not ends[0].training
    data = Fragments(families, begun.config, grid=2, piece=16)  # type: ignore[arg-type]

    def loss(encoder: Any) -> float:
        rows = [data[0, index] for index in range(5)]
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        with torch.no_grad():  # as it is trained: with the statistics of the batch
            term = version_contrasts()(lambda inputs: encoder.train()(**inputs), lambda _: None, batch)["contrast"]
        return float(term.mean)

    assert loss(ends[0]) < loss(begun) - 0.01


class Stop(TrainerCallback):
    """Ends a run as a kill would, after a step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["low", "high"])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    stage: str, make_scorer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rated = RatedPictures(PIXELS.__getitem__, torch.zeros(12), (0.5,) * 3, (0.2,) * 3)

    def learn(folder: str) -> Any:
        if stage == "low":
            recipe: Any = dataclasses.replace(SMALL, save_steps=2)
            return learn_low_level(Families(), recipe=recipe, output_dir=tmp_path / folder)
        recipe = dataclasses.replace(SHORT, epochs=4, batch_size=6, save_steps=2, warmup_epochs=1)
        return learn_high_level(make_scorer(), rated, recipe=recipe, output_dir=tmp_path / folder)

    whole = learn("whole")
    init = GRMPTrainer.__init__
    with monkeypatch.context() as patch:
        patch.setattr(GRMPTrainer, "__init__", lambda self, *a, **k: (init(self, *a, **k), self.add_callback(Stop))[0])
        with pytest.raises(KeyboardInterrupt):
            learn("parts")
    assert list(tmp_path.glob("parts/*/checkpoint-4"))
    found = learn("parts").state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, found[name]), name


def test_several_processes_are_refused_where_batches_normalise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRMPTrainingArguments, "world_size", 2)
    data = Fragments(Families(), SMALL.config(), grid=2, piece=16)  # type: ignore[arg-type]
    arguments = GRMPTrainingArguments(str(tmp_path), use_cpu=True)
    with pytest.raises(GRMPError, match="the low-level encoder"):
        GRMPTrainer(LowLevelEncoder(SMALL.config()), arguments, objective=version_contrasts(), train_dataset=data)


def test_there_must_be_something_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match="photographs with their versions to learn from, got none"):
        learn_low_level(Families(0), recipe=SMALL, output_dir=tmp_path)
    with pytest.raises(GRMPError, match="pictures of at least 64 x 64 pixels"):
        learn_low_level(Families(), recipe=dataclasses.replace(SMALL, piece=64, side=64), output_dir=tmp_path)


# The high-level stage ------------------------------------------------------------------------------------------------


def contrast(model: Any, base: Any, share: int = 4) -> float:
    """The loss of all pictures as one group."""
    from grmp_hf.modeling.image_processing_grmp import normalize

    values = normalize(PIXELS, (0.5,) * 3, (0.2,) * 3)
    with torch.no_grad():
        found = model(values)
        order = base(values).quality.argsort(descending=True)
    count = len(order) // share
    return float(group_contrast(found.image_embeds[order[:count]], found.image_embeds[order[-count:]]))


@pytest.mark.parametrize("adapter", ["layer_norm", "lora", "prompts"])
def test_groups_come_apart_under_any_adapter(adapter: Any, make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    base = make_scorer()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    rated = RatedPictures(PIXELS.__getitem__, torch.full((12,), torch.nan), (0.5,) * 3, (0.2,) * 3)
    recipe = dataclasses.replace(SHORT, adapter=adapter, epochs=20, width=0)
    ends = [learn_high_level(base, rated, recipe=recipe, output_dir=tmp_path / str(run)) for run in range(2)]
    assert all(torch.equal(value, ends[1].state_dict()[name]) for name, value in ends[0].state_dict().items())
    assert all(torch.equal(base.state_dict()[name], value) for name, value in before.items())
    assert contrast(ends[0], base) < contrast(base, base) - 0.01


@pytest.mark.parametrize("trained", [True, False])
def test_the_projection_is_learnt_where_it_is_asked_for(
    trained: bool, make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    rated = RatedPictures(PIXELS.__getitem__, torch.zeros(12), (0.5,) * 3, (0.2,) * 3)
    recipe = dataclasses.replace(SHORT, train_projection=trained)
    rates = (0.02, 0.0)
    ends = [
        learn_high_level(
            make_scorer(),
            rated,
            recipe=dataclasses.replace(recipe, learning_rate=rate),
            output_dir=tmp_path / str(rate),
        )
        for rate in rates
    ]
    heads = [end.get_base_model().head.modules_to_save["default"] for end in ends]
    assert torch.equal(heads[0].weight, heads[1].weight) != trained
    assert isinstance(heads[0].weight, torch.nn.Parameter) == trained
    norms = [dict(end.named_parameters()) for end in ends]
    name = next(name for name in norms[0] if ".ln_tuning_layers." in name)
    assert not torch.equal(norms[0][name], norms[1][name])


@pytest.mark.parametrize("ranked_by", ["labels", "teacher", "student"])
def test_every_way_of_ranking_learns(ranked_by: Any, make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    rated = RatedPictures(PIXELS.__getitem__, torch.zeros(12), (0.5,) * 3, (0.2,) * 3)
    recipe = dataclasses.replace(SHORT, ranked_by=ranked_by, epochs=10, width=0)
    base = make_scorer()
    assert contrast(learn_high_level(base, rated, recipe=recipe, output_dir=tmp_path), base) < contrast(base, base)


def test_pictures_that_cannot_teach(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    few = RatedPictures(PIXELS[:3].__getitem__, torch.zeros(3), (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(GRMPError, match="at least four photographs, two good and two bad ones, got 3"):
        learn_high_level(make_scorer(), few, output_dir=tmp_path)
    rated, base = RatedPictures(PIXELS.__getitem__, torch.zeros(12), (0.5,) * 3, (0.2,) * 3), make_scorer()
    base.head = Cosine(12)
    with pytest.raises(GRMPError, match="the head AnchorHead to tell good photographs from bad ones, got 'Cosine'"):
        learn_high_level(base, rated, output_dir=tmp_path)


def test_a_projection_beside_anchors_changes_no_score(make_scorer: Callable[..., Any]) -> None:
    base, values = make_scorer(), torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected = base(values)
        base.head = Projected(12, 5)
        found = get_peft_model(base, adapter_config("layer_norm", 1, 1))(values)
    assert torch.equal(found.quality, expected.quality) and found.projected.shape == (3, 5)
    projected = (expected.image_embeds @ base.head.original_module.weight.T + base.head.original_module.bias).relu()
    torch.testing.assert_close(found.projected, projected)
