from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import grmp_hf
from grmp_hf.benchmark.choosing import make_methods, own_columns
from grmp_hf.benchmark.config import MethodConfig
from grmp_hf.benchmark.methods import Method
from grmp_hf.cli.main import main
from grmp_hf.data import Row, decode_row, read_ratings
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.baselines import handmade_statistics
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.evaluation.pristine import distance, moments, patches, pristine_moments, zero_shot_score
from grmp_hf.features import FeatureStore, Pictures
from grmp_hf.modeling.low_level import LowLevelConfig, LowLevelEncoder, load_encoder
from grmp_hf.scoring import Scorer

TINY = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}


def make(kind: str, base: Any = None, folder: Path = Path(), *, name: str | None = None, **options: Any) -> Method:
    """One method from its name in a configuration."""
    (method,) = make_methods([MethodConfig(kind, name or kind, options)], base, folder)
    return method


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """Folder of a small low-level encoder, not trained."""
    torch.manual_seed(3)
    LowLevelEncoder(LowLevelConfig(TINY, 5, 3)).save_pretrained(tmp_path / "low")
    return tmp_path / "low"


@pytest.fixture
def adapter(base: Scorer, photos: list[Path], tmp_path: Path) -> Path:
    """Folder of a high-level adapter of the base of these tests."""
    from grmp_hf.contrasting import high_level
    from grmp_hf.training.high_level import HighLevelRecipe

    recipe = HighLevelRecipe(epochs=1, batch_size=6, learning_rate=0.1, width=16)
    high_level(base, photos[0].parent, tmp_path / "run", recipe=recipe).save(tmp_path / "high")
    return tmp_path / "high"


def linear(count: int, seed: int) -> tuple[Pictures, np.ndarray]:
    """Features of both pathways, of which the quality is a sum."""
    random = np.random.default_rng(seed)
    embeds, statistics = random.normal(size=(count, 5)), random.normal(size=(count, 4))
    rows = tuple(Row(image=b"", name=str(index), mos=np.nan, quality=np.nan) for index in range(count))
    quality = 0.5 + embeds @ [0.1, 0, -0.05, 0, 0] + statistics @ [0, 0.1, 0, 0.02]
    return Pictures(rows, {"embeds": embeds, "statistics": statistics}), quality


@pytest.mark.parametrize("regressor", ["ridge", "ridge_cv", "svr"])
def test_a_linear_target_of_both_pathways_is_recovered(regressor: str) -> None:
    shots, quality = linear(80, 0)
    test, truth = linear(200, 1)
    method = make("grepq", low_level="statistics", regressor=regressor)
    fitted = method.fit(shots, quality, seed=0)
    found = fitted.predict(test)
    assert srcc(found, truth) > (0.85 if regressor == "svr" else 0.99)
    if regressor != "svr":
        assert np.abs(found - truth).max() < 0.05
    embeds_alone = make("ridge").fit(shots, quality, seed=0).predict(test)
    assert srcc(embeds_alone, truth) < 0.85, "the low-level features are needed"
    again = method.fit(shots, quality, seed=0).predict(test)
    np.testing.assert_array_equal(found, again)
    assert json.dumps(method.settings()) and not method.columns


def test_the_papers_ridge_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    shots, quality = linear(40, 0)
    test, _ = linear(30, 1)
    fitted = make("grepq", low_level="statistics", regressor="ridge_cv").fit(shots, quality, seed=0)
    learnt = fitted.learnt()
    assert learnt["alpha"][0] in (0.1, 1.0, 10.0, 100.0)
    both, unseen = (np.concatenate([p["embeds"], p["statistics"]], axis=1) for p in (shots, test))
    expected = Ridge(alpha=float(learnt["alpha"][0])).fit(both, quality)
    np.testing.assert_allclose(fitted.predict(test), expected.predict(unseen))
    np.testing.assert_allclose(unseen @ learnt["weights"] + learnt["intercept"][0], fitted.predict(test))


def test_columns_of_encoder_and_adapter(
    base: Scorer, stars: Path, store: FeatureStore, encoder: Path, adapter: Path
) -> None:
    methods = [make("ridge"), make("grepq", base, low_level=str(encoder), high_level=str(adapter))]
    own = own_columns(methods)
    assert len(own.names) == 2
    table = read_ratings(stars, scale=(1, 5))
    described = FeatureStore(store.place, base, **own.known)
    columns = (*described.usual, *methods[1].columns)
    described.describe(table.rows[:6], lambda text, share: None, columns)
    pictures = described.pictures(table.rows[:6], columns)
    (high,), (low,) = own.of_views, own.of_pictures
    network = load_encoder(encoder)
    expected = [network.describe(np.asarray(decode_row(row))) for row in table.rows[:6]]
    np.testing.assert_allclose(pictures[low], expected, atol=1e-6)
    adapted = grmp_hf.load(adapter=adapter)
    views = torch.stack([base.views(row) for row in table.rows[:6]])
    np.testing.assert_allclose(pictures[high], adapted.outputs(views).image_embeds.numpy(), atol=1e-6)
    assert np.abs(pictures[high] - pictures["embeds"]).max() > 1e-3
    quality = table.quality[:6]
    fitted = methods[1].fit(pictures, quality, seed=0)
    assert np.isfinite(fitted.predict(pictures)).all() and fitted.learnt()["weights"].shape == (8 + 3,)


def test_the_score_without_labels(base: Scorer, stars: Path, store: FeatureStore, encoder: Path) -> None:
    table, photographs = read_ratings(stars, scale=(1, 5)), stars / "images"
    plain = make("grepq_zero_shot", base, pristine=str(photographs))
    learnt = make("grepq_zero_shot", base, name="encoder", pristine=str(photographs), low_level=str(encoder))
    own = own_columns([plain, learnt])
    described = FeatureStore(store.place, base, **own.known)
    columns = (*described.usual, *own.names)
    described.describe(table.rows[:8], lambda text, share: None, columns)
    pictures = described.pictures(table.rows[:8], columns)
    anchors = base.model.get_anchor_embeds("quality").detach().numpy()
    lead = pictures["embeds"] @ (anchors[0] - anchors[1])
    wholes = [np.asarray(decode_row(row)) for row in table.rows]
    by_hand = lambda cut: np.stack([handmade_statistics(patch) for patch in cut])  # noqa: E731
    for method, describe in ((plain, by_hand), (learnt, load_encoder(encoder).describe_patches)):
        pristine = pristine_moments(wholes, describe)
        apart = [distance(pristine, moments(describe(patches(whole)))) for whole in wholes[:8]]
        fitted = method.fit(pictures, np.empty(0), seed=0)
        np.testing.assert_allclose(fitted.predict(pictures), zero_shot_score(lead, apart) / 1.5, atol=1e-5)
        assert not method.needs_shots and fitted.learnt() == {} and json.dumps(method.settings())
    assert len(set(own.names)) == 2


def test_the_command_compares_them(
    configure: Callable[..., Path],
    encoder: Path,
    adapter: Path,
    photos: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = {"method": "grepq", "name": "both", "low_level": encoder.name, "high_level": adapter.name}
    path = configure(
        methods=[
            "ridge",
            {"method": "grepq", "low_level": "statistics", "regressor": "ridge_cv"},
            {**both, "regressor": "svr"},
            {"method": "grepq_zero_shot", "pristine": photos[0].parent.name, "low_level": encoder.name},
        ],
        draws=1,
        shots=[8],
        compare_to="ridge",
    )
    assert main(["benchmark", str(path), "--quiet", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["method"], row["dataset"]) for row in rows} == {
        (name, data) for name in ("ridge", "grepq", "both", "grepq_zero_shot") for data in ("stars", "points")
    }
    assert all(np.isfinite(row["srcc"]) for row in rows)
    recipes = {row["method"]: row["recipe"] for row in rows}
    assert recipes["both"]["low_level"] == load_encoder(encoder).fingerprint
    assert recipes["both"]["regressor"] == "svr" and recipes["grepq"]["alpha"] == [0.1, 1.0, 10.0, 100.0]
    assert str(tmp_path) not in json.dumps(recipes)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("grepq", {}, "a base with a side network for 'side', got one without; take 'statistics'"),
    ("grepq", {"low_level": "nowhere"}, r"a low-level encoder in '.*nowhere', got: no config\.json there"),
    ("grepq", {"low_level": 3}, "low_level: expected a folder, got 3"),
    ("grepq", {"low_level": "statistics", "regressor": "forest"}, "regressor: expected one of ridge, ridge_cv, svr"),
    ("grepq", {"low_level": "statistics", "alpha": 3}, "settings out of low_level, high_level, regressor, got alpha"),
    ("grepq", {"low_level": "statistics", "high_level": "nowhere"}, "nowhere"),
    ("grepq_zero_shot", {}, "pristine: expected a folder of good photographs, got none"),
    ("grepq_zero_shot", {"pristine": "empty"}, 'empty" holds no picture that can be read'),
    ("grepq_zero_shot", {"pristine": "empty", "low_level": "side"}, "which describe patches of 96 pixels, got 'side'"),
]


@pytest.mark.parametrize(("kind", "options", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
def test_wrong_settings_are_named(
    kind: str, options: dict[str, Any], message: str, base: Scorer, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(GRMPError, match=message):
        make(kind, base, tmp_path, **options)


def test_an_adapter_of_another_base_is_refused(
    base: Scorer, make_adapted: Callable[..., Any], make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    make_scorer().save_pretrained(tmp_path / "other")
    other = grmp_hf.load(tmp_path / "other")
    dataclasses.replace(other, model=make_adapted(other.model)).save(tmp_path / "high")
    with pytest.raises(
        GRMPError, match=r"high_level: expected an adapter of the base .*, got another base_fingerprint"
    ):
        make("grepq", base, tmp_path, low_level="statistics", high_level="high")
