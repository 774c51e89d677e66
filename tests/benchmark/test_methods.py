from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from grmp_hf.benchmark import kernels
from grmp_hf.benchmark.choosing import make_methods
from grmp_hf.benchmark.config import MethodConfig
from grmp_hf.benchmark.methods import GRMP, Method
from grmp_hf.data import Row, read_ratings
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.features import BATCH, Pictures, first_views
from grmp_hf.hub import load
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig, GRMPPromptModel
from grmp_hf.scoring import Scorer
from grmp_hf.streaming import learn_stream, stream_split
from grmp_hf.training.few_shot import FewShotRecipe, adapt
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.shots import Columns
from grmp_hf.training.stream_recipe import StreamRecipe
from grmp_hf.training.two_stream import TwoStreamRecipe, adapt_streams
from grmp_hf.views import all_views

SHORT = {"steps": 4}
VISUAL = {"steps": 2, "visual_prompts": 2, "batch_size": 4}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("zero_shot", {}),
    ("ridge", {}),
    ("kernel_ridge", {}),
    ("svr", {}),
    ("statistics", {}),
    ("grmp", {"recipe": SHORT}),
    ("grmp", {"name": "visual", "recipe": VISUAL}),
    ("full_finetune", {"epochs": 1}),
    ("two_stream", {"recipe": {"steps": 4, "latent": 8}}),
    ("grepq", {"low_level": "statistics"}),
    ("expert", {"recipe": {"head_epochs": 2, "epochs": 1, "adapter": "lora"}}),
]


def make(kind: str, base: Any = None, folder: Path = Path(), *, name: str | None = None, **options: Any) -> Method:
    """One method from its name in a configuration."""
    (method,) = make_methods([MethodConfig(kind, name or kind, options)], base, folder)
    return method


def synthetic(count: int, seed: int) -> tuple[Pictures, np.ndarray]:
    """Features of which some say what the quality is, along a bent curve."""
    random = np.random.default_rng(seed)
    embeds, statistics = random.normal(size=(count, 6)), random.normal(size=(count, 14))
    quality = 0.5 + 0.3 * np.tanh(embeds[:, 0] + 0.5 * statistics[:, 3]) + 0.05 * random.normal(size=count)
    rows = tuple(Row(image=b"", name=str(index), mos=np.nan, quality=np.nan) for index in range(count))
    columns = {"embeds": embeds.astype(np.float32), "zero_shot": random.random(count), "statistics": statistics}
    return Pictures(rows, columns), quality.clip(0, 1)


@pytest.mark.parametrize("kind", ["ridge", "kernel_ridge", "svr", "statistics"])
def test_regressions_beat_chance_and_depend_on_their_arguments_alone(kind: str) -> None:
    shots, quality = synthetic(60, seed=0)
    test, truth = synthetic(200, seed=1)
    first, again = (make(kind).fit(shots, quality, seed=3) for _ in range(2))
    scores = first.predict(test)
    assert scores.shape == (200,) and srcc(scores, truth) > 0.25
    np.testing.assert_array_equal(scores, again.predict(test))
    learnt = first.learnt()
    assert learnt and all(isinstance(value, np.ndarray) for value in learnt.values())
    other = make(kind).fit(shots, quality[::-1], seed=3).learnt()
    assert any(not np.array_equal(learnt[name], other[name]) for name in learnt)


@pytest.mark.parametrize("kind", ["kernel_ridge", "svr"])
def test_kernels_follow_a_curve_that_a_line_cannot(kind: str) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (160, 1))
    y = np.cos(2 * x[:, 0])
    predict, _ = getattr(kernels, kind)(x[:80], y[:80], 0)
    assert np.corrcoef(predict(x[80:]), y[80:])[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["kernel_ridge", "svr"])
def test_what_kernels_have_learnt_is_all_that_they_predict_with(kind: str) -> None:
    shots, quality = synthetic(40, seed=0)
    test, _ = synthetic(30, seed=1)
    fitted = make(kind).fit(shots, quality, seed=0)
    learnt = fitted.learnt()
    z = ((test["embeds"] - learnt["features_mean"]) / learnt["features_scale"]).clip(-5, 5)
    distances = np.square(z[:, None] - learnt["support"][None]).sum(axis=2)
    kernel = np.exp(-learnt["gamma"] * distances) @ learnt["dual_coef"].ravel() + learnt.get("intercept", 0)
    np.testing.assert_allclose(fitted.predict(test), learnt["quality_mean"] + learnt["quality_scale"] * kernel)


def test_the_strength_is_chosen_inside_the_shots(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.kernel_ridge import KernelRidge

    sizes: set[int] = set()
    fit = KernelRidge.fit
    monkeypatch.setattr(KernelRidge, "fit", lambda self, x, y: sizes.add(len(x)) or fit(self, x, y))
    shots, quality = synthetic(20, seed=0)
    make("kernel_ridge").fit(shots, quality, seed=0)
    assert sizes == {16, 20}  # four of five folds, and all of them at the end


def test_kernels_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    shots, quality = synthetic(20, seed=0)
    with pytest.raises(GRMPError, match=r"pip install 'grmp_hf\[benchmark\]'"):
        make("svr").fit(shots, quality, seed=0)


def test_zero_shot_learns_nothing() -> None:
    shots, quality = synthetic(5, seed=0)
    method = make("zero_shot")
    fitted = method.fit(shots, quality, seed=0)
    assert not method.needs_shots and fitted.learnt() == {}
    np.testing.assert_array_equal(fitted.predict(shots), shots["zero_shot"])


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[options.get("name", kind) for kind, options in KINDS])
def test_every_method_learns_from_pictures_and_leaves_the_base_alone(
    kind: str, options: dict[str, Any], base: Scorer, described: tuple[Pictures, np.ndarray]
) -> None:
    pictures, quality = described
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    method = make(kind, base, **options)
    torch.manual_seed(9)
    fitted = method.fit(pictures, quality, seed=1)
    scores = fitted.predict(pictures)
    assert scores.shape == (36,) and np.isfinite(scores).all() and np.ptp(scores) > 0
    torch.manual_seed(10)
    again = method.fit(pictures, quality, seed=1)
    np.testing.assert_array_equal(scores, again.predict(pictures))
    first, second = fitted.learnt(), again.learnt()
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
    after = base.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert __import__("json").dumps(method.settings())


def test_the_adapter_is_all_that_grmp_learns(base: Scorer, described: tuple[Pictures, np.ndarray]) -> None:
    pictures, quality = described
    learnt = make("grmp", base, recipe=SHORT).fit(pictures, quality, seed=1).learnt()
    assert learnt and all("grmp_" in name for name in learnt)
    assert not any(name.startswith(GRMPPromptModel.prefix) and "default" in name for name in learnt)


def test_recipes_come_from_files_or_stand_in_place(base: Scorer, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("steps: 7\n")
    from_file = make("grmp", base, tmp_path, recipe="mine.yaml")
    assert isinstance(from_file, GRMP) and from_file.recipe == FewShotRecipe(steps=7)
    assert make("grmp", base, recipe={"steps": 7}).settings() == from_file.settings()
    assert make("grmp", base).settings() == {"method": "grmp", **dataclasses.asdict(FewShotRecipe())}


def test_two_streams_score_as_their_adapter_does(base: Scorer, described: tuple[Pictures, np.ndarray]) -> None:
    pictures, quality = described
    method = make("two_stream", base, recipe={"steps": 4})
    shots, test = (part(pictures, at) for at in (slice(12), slice(12, 36)))
    found = method.fit(shots, quality[:12], seed=1)
    assert found.predict(part(pictures, slice(0))).shape == (0,)
    labels, tokens = torch.tensor(quality[:12], dtype=torch.float32), torch.from_numpy(shots["tokens"])
    with tempfile.TemporaryDirectory() as folder:
        recipe = TwoStreamRecipe(steps=4)
        model = adapt_streams(
            base.model, Columns({"labels": labels, "tokens": tokens}), recipe=recipe, seed=1, output_dir=folder
        )
    expected = np.concatenate(
        [dataclasses.replace(base, model=model).quality(p) for p in all_views(test.rows, base.views, batch_size=BATCH)]
    )
    np.testing.assert_allclose(found.predict(test), expected, atol=1e-6)


def test_an_expert_is_that_of_a_stream(base: Scorer, stars: Path, described: tuple[Pictures, np.ndarray]) -> None:
    """The method learns from the same pictures what the first step of a stream learns."""
    pictures, _ = described
    table = dataclasses.replace(read_ratings(stars, scale=(1, 5)), name="stars")
    recipe = StreamRecipe(head_epochs=3, epochs=1, group=8)
    found = learn_stream(base, {"stars": table, "again": table}, recipe=recipe, shots=10, seed=2)
    split = stream_split(table, 10, 2)
    taught = [[row.name for row in pictures.rows].index(name) for name in split.train]
    method = make("expert", base, recipe={"head_epochs": 3, "epochs": 1, "group": 8})
    quality = np.array([table.rows[at].quality for at in taught])
    learnt = method.fit(part(pictures, taught), quality, seed=2)
    tests = [row for row in table.rows if row.name in split.test]
    rows = [[row.name for row in pictures.rows].index(row.name) for row in tests]
    expected = found.judged.quality["stars"][0][:, 0]
    np.testing.assert_allclose(learnt.predict(part(pictures, rows)), expected, atol=1e-6)


def test_loda_learns_on_a_base_with_a_side_network_alone(
    base: Scorer, described: tuple[Pictures, np.ndarray], tmp_path: Path
) -> None:
    pictures, quality = described
    shots = part(pictures, slice(8))
    with pytest.raises(GRMPError, match=r"expected a base with a side network, .* take the default"):
        make("loda", base).fit(shots, quality[:8], seed=0)
    method = make("loda", load(), recipe={"steps": 1})
    found = method.fit(shots, quality[:8], seed=0)
    scores = found.predict(shots)
    assert scores.shape == (8,) and np.ptp(scores) > 0
    assert {name.split(".")[-1] for name in found.learnt()} >= {"direction", "scale", "offset"}
    np.testing.assert_array_equal(scores, method.fit(shots, quality[:8], seed=0).predict(shots))


def test_loda_learns_from_crops_of_the_draw_and_is_placed_by_views(
    described: tuple[Pictures, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, quality = described
    shots, taught = part(pictures, slice(4)), []

    def keep(model: Any, crops: RatedPictures, *, views: RatedPictures, seed: int, **_: Any) -> Any:
        taught.append((crops, views, seed))
        return PeftModel(copy_base(model), LoDaConfig())

    monkeypatch.setattr("grmp_hf.benchmark.towers.adapt_locally", keep)
    method = make("loda", load())
    for seed in (1, 1, 2):
        method.fit(shots, quality[:4], seed=seed)
    (crops, views, seed), (again, _, _), (other, _, _) = taught
    assert seed == 1
    of_epochs = [crops.views(0, epoch) for epoch in range(6)]
    assert {found.numpy().tobytes() for found in of_epochs} > {of_epochs[0].numpy().tobytes()}, "crops differ"
    assert all(torch.equal(again.views(0, epoch), of_epochs[epoch]) for epoch in range(6))
    assert any(not torch.equal(other.views(0, epoch), of_epochs[epoch]) for epoch in range(6)), "by the draw's seed"
    seen = load().without_tiles()
    assert all(torch.equal(views.views(at, 3), seen.views(shots.rows[at])) for at in range(4))
    for asked in (crops, views):
        np.testing.assert_allclose(asked.columns["labels"], quality[:4], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("full_finetune", {"epochs": 1}),
        ("expert", {"recipe": {"head_epochs": 2, "epochs": 1, "group": 4}}),
        ("grmp", {"recipe": {**VISUAL, "features": False}}),
    ],
    ids=["full", "expert", "visual"],
)
def test_what_learns_in_the_tower_sees_no_views_of_the_side_network(
    kind: str, options: dict[str, Any], described: tuple[Pictures, np.ndarray]
) -> None:
    pictures, quality = described
    shots, base = part(pictures, slice(6)), load()
    assert base.processor.has_tiles
    scores = [
        make(kind, seen, **options).fit(shots, quality[:6], seed=0).predict(shots)
        for seen in (base, base.without_tiles())
    ]
    assert np.ptp(scores[0]) > 0
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("recipe", [{"steps": 2}, {"steps": 2, "visual_prompts": 2}], ids=["texts", "visual"])
def test_grmp_may_see_the_first_views_alone(
    recipe: dict[str, Any], base: Scorer, described: tuple[Pictures, np.ndarray]
) -> None:
    pictures, quality = described
    one = make("grmp", base, recipe=recipe, views=1)
    every = make("grmp", base, recipe=recipe, views=len(base.processor.views))
    scores = [method.fit(pictures, quality, seed=1).predict(pictures) for method in (one, every)]
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    narrow = make("grmp", first_views(base, 1), recipe={**recipe, "bf16": False}, views=1)
    np.testing.assert_array_equal(scores[0], narrow.fit(pictures, quality, seed=1).predict(pictures))
    assert one.settings() != every.settings()


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("forest", {}, "methods: expected some of zero_shot, ridge, .*, got 'forest'"),
    ("ridge", {"alpha": 3}, "methods: ridge: expected no settings, got alpha"),
    ("grmp", {"steps": 3}, "methods: grmp: expected settings out of recipe, start, views, got steps"),
    ("grmp", {"recipe": {"stepz": 3}}, "grmp: Expected keys out of train, .*, got stepz"),
    ("grmp", {"recipe": 3}, "recipe: expected a name, a file, or a mapping of settings, got 3"),
    ("grmp", {"recipe": {"steps": "many"}}, "grmp: Expected steps of type int, got 'many'"),
    ("grmp", {"recipe": "none.yaml"}, "expected a file, or one of authors, default, .*; check the spelling"),
    ("grmp", {"views": 0}, "expected 1 to 3 views, as many as the base has, got 0"),
    ("full_finetune", {"views": 4}, "expected 1 to 3 views, as many as the base has, got 4"),
    ("full_finetune", {"epochs": 0}, "Expected epochs of at least 1, got 0"),
    ("full_finetune", {"epochs": "many"}, "full_finetune: Expected epochs of type int, got 'many'"),
    ("two_stream", {"views": 1}, "methods: two_stream: expected settings out of recipe, got views"),
    ("two_stream", {"recipe": {"pull": 1}}, "Expected keys out of latent, dropout, .*, got pull"),
    ("two_stream", {"recipe": {"steps": 0}}, "Expected steps of at least 1, got 0"),
    (
        "loda",
        {"recipe": "papier"},
        "loda: recipe .*papier: expected a file, or one of default, paper; check the spelling",
    ),
]


@pytest.mark.parametrize(("kind", "options", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
def test_wrong_settings_are_named(kind: str, options: dict[str, Any], message: str, base: Scorer) -> None:
    with pytest.raises(GRMPError, match=message):
        make(kind, base, **options)


@pytest.fixture
def start(clip_folder: Path, tmp_path: Path) -> Path:
    """Prompts of the base of these tests that move every embedding."""
    from peft import get_peft_model

    model = GRMPForImageQualityAssessment.from_pretrained(clip_folder)
    torch.manual_seed(7)
    adapter = get_peft_model(model, GRMPPromptConfig(text_prompts=2, visual_prompts=3))
    adapter.save_pretrained(str(tmp_path / "starts" / "mine"), save_embedding_layers=False)
    return tmp_path / "starts" / "mine"


@pytest.mark.parametrize("train_visual", [False, True])
def test_prompts_go_on_from_a_start_and_score_as_their_adapter_does(
    train_visual: bool, described: tuple[Pictures, np.ndarray], base: Scorer, start: Path
) -> None:
    pictures, quality = described
    recipe = {"steps": 2, "batch_size": 4, "train_visual": train_visual}
    method = make("grmp", base, start.parent, recipe=recipe, start="mine")
    assert isinstance(method, GRMP) and method.start == start
    shots, test = (part(pictures, at) for at in (slice(8), slice(8, 20)))
    fitted = method.fit(shots, quality[:8], seed=1)
    model = few_shot_model(method, shots, quality[:8])
    expected = np.concatenate(
        [dataclasses.replace(base, model=model).quality(p) for p in all_views(test.rows, base.views, batch_size=BATCH)]
    )
    np.testing.assert_allclose(fitted.predict(test), expected, atol=1e-5)
    without = make("grmp", base, recipe=recipe).fit(shots, quality[:8], seed=1)
    assert np.abs(without.predict(test) - expected).max() > 1e-3
    np.testing.assert_array_equal(method.fit(shots, quality[:8], seed=1).predict(test), fitted.predict(test))


def few_shot_model(method: GRMP, shots: Pictures, quality: np.ndarray) -> Any:
    """What `grmp-iqa adapt` would give."""
    import copy

    processor = method.base.processor
    with tempfile.TemporaryDirectory() as folder:
        return adapt(
            copy.deepcopy(method.base.model),
            RatedPictures(
                torch.cat(list(all_views(shots.rows, method.base.views, batch_size=BATCH))).__getitem__,
                torch.tensor(quality, dtype=torch.float32),
                processor.image_mean,
                processor.image_std,
            ),
            recipe=method.recipe,
            start=method.start,
            seed=1,
            output_dir=folder,
        )


def part(pictures: Pictures, at: slice | list[int]) -> Pictures:
    rows = pictures.rows[at] if isinstance(at, slice) else tuple(pictures.rows[place] for place in at)
    return Pictures(rows, {name: column[at] for name, column in pictures.columns.items()})


def test_the_start_is_one_of_the_settings(base: Scorer, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make("grmp", base, start=str(start)).settings()
    assert settings["start"] == load(adapter=start).identity["adapter_sha256"]
    assert "start" not in make("grmp", base, start="none").settings() and "start" not in make("grmp", base).settings()
    assert make("grmp", base, start="package").settings() == make("grmp", base).settings(), "not the package's base"


@pytest.mark.parametrize(
    ("value", "message"), [("nowhere", "to start from in '.*nowhere', found none"), (3, "start: expected .* got 3")]
)
def test_what_is_no_start_is_named(value: Any, message: str, base: Scorer) -> None:
    with pytest.raises(GRMPError, match=message):
        make("grmp", base, start=value)
