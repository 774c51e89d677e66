"""What a Python user does: adapt, save, load and score, in three lines."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import grmp_hf
from grmp_hf.claims import WorkFolder
from grmp_hf.comparing import score_tests
from grmp_hf.data import RatedTable, read_pairs
from grmp_hf.errors import GRMPError
from grmp_hf.recipe_files import recipe_names
from grmp_hf.scoring import Scorer
from grmp_hf.teaching import compare_rows
from grmp_hf.training import few_shot
from grmp_hf.training.recipes import FewShotRecipe

RECIPES = [f"{name}" for name in recipe_names("adapt")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures whose ratings from 1 to 5 fall with their noise."""
    folder = tmp_path_factory.mktemp("photos")
    lines = ["image,mos"]
    for index in range(16):
        noise = np.random.default_rng(index).normal(0, 8 * index, (40, 48, 3))
        pixels = np.clip(128 + 40 * np.sin(np.arange(48) / 5)[None, :, None] + noise, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{5 - index / 4}")
    (folder / "ratings.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def table(photos: Path) -> RatedTable:
    return grmp_hf.read_ratings(photos)


@pytest.fixture
def base(clip_folder: Path) -> Scorer:
    return grmp_hf.load(clip_folder)


def short(name: str = "default") -> FewShotRecipe:
    return dataclasses.replace(FewShotRecipe.named(name), steps=3, blocks=1, batch_size=4)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_returned_scores_as_what_is_loaded_in_another_process(
    name: str, base: Scorer, table: RatedTable, photos: Path, tmp_path: Path, elsewhere: Callable[..., Any]
) -> None:
    files = [str(photos / f"{index}.png") for index in range(16)]
    zero_shot = base.score(files).quality
    scorer = grmp_hf.adapt(base, table, shots=10, recipe=short(name))
    scorer.save(tmp_path / "mine")
    here = scorer.score(files).score
    code = "import grmp_hf, sys; print(grmp_hf.load(sys.argv[1]).score(sys.argv[2:]).score.tolist())"
    assert here.tolist() == eval(elsewhere(code, tmp_path / "mine", *files).out)
    np.testing.assert_array_equal(base.score(files).quality, zero_shot)  # the base stays what it is
    assert not np.array_equal(scorer.score(files).quality, zero_shot)


def test_it_knows_what_has_taught_it_and_keeps_that(base: Scorer, table: RatedTable, tmp_path: Path) -> None:
    scorer = grmp_hf.adapt(base, table, shots=10, recipe=short(), seed=3)
    assert scorer.taught is not None and len(scorer.taught.train) == 10 and len(scorer.taught.contents) == 10
    scorer.save(tmp_path / "mine")
    again = grmp_hf.load(tmp_path / "mine")
    assert again.taught == scorer.taught and again.scale == table.scale
    assert again.identity["adapter_sha256"] == scorer.identity["adapter_sha256"]
    assert again.origin["seed"] == 3 and again.origin["data_hash"] == table.content_hash
    again.save(tmp_path / "copy")
    assert grmp_hf.load(tmp_path / "copy").taught == scorer.taught


def test_surer_ratings_count_more(base: Scorer, table: RatedTable) -> None:
    def weights(**columns: list[float]) -> dict[str, torch.Tensor]:
        cells = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        rows = [dataclasses.replace(row, **cell) for row, cell in zip(table.rows, cells or 16 * [{}], strict=True)]
        given = dataclasses.replace(table, rows=tuple(rows))
        return dict(grmp_hf.adapt(base, given, shots=10, recipe=short()).model.state_dict())

    plain = weights()
    for alike in ({"mos_std": 16 * [0.7]}, {"mos_std": 16 * [0.7], "votes": 16 * [3.0]}):
        assert all(torch.equal(plain[name], weight) for name, weight in weights(**alike).items())
    differing = weights(votes=[1.0, 20.0] * 8)
    assert any(not torch.equal(plain[name], weight) for name, weight in differing.items())


@pytest.mark.parametrize("recipe", ["default", "fidelity"])
def test_choices_teach_without_any_score(recipe: str, base: Scorer, photos: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    lines = [f"{at}.png,{at + step}.png" for step in (1, 4) for at in range(16 - step)]
    pairs.write_text("better,worse\n" + "\n".join(lines))
    scorer = grmp_hf.adapt(base, read_pairs(pairs, images=photos), recipe=short(recipe))
    found = scorer.score([str(photos / "0.png"), str(photos / "15.png")])
    assert scorer.taught is not None and len(scorer.taught.train) == 16
    assert 0 < found.score[1] < found.score[0] < 1


def test_what_compares_pictures_follows_from_the_table(table: RatedTable, photos: Path, tmp_path: Path) -> None:
    scale, rows = table.scale, [*table.rows[:4]]
    rows[1] = dataclasses.replace(rows[1], mos_std=(scale.high - scale.low) / 4, dataset="other")
    rows[3] = dataclasses.replace(rows[3], dataset="other")
    rated = compare_rows(table, rows)
    assert rated.wins is None and rated.sets == [rows[0].dataset, "other"] * 2
    assert rated.stds is not None and rated.stds[1] == 0.25 and rated.stds[[0, 2, 3]].isnan().all()
    assert compare_rows(table, table.rows).stds is None
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("a,b,choice\n0.png,1.png,a\n0.png,1.png,tie\n2.png,0.png,b\n2.png,3.png,a\n4.png,3.png,a\n")
    chosen = read_pairs(pairs, images=photos)
    named = {row.name: row for row in chosen.rows}
    wins = compare_rows(chosen, [named[f"{at}.png"] for at in (1, 0, 2)]).wins
    assert wins is not None and wins.tolist() == [[0, 0.5, 0], [1.5, 0, 1], [0, 0, 0]]
    with pytest.raises(GRMPError, match="Expected choices between pictures that teach, got none"):
        compare_rows(chosen, [named["1.png"], named["4.png"]])


def test_a_data_set_of_one_picture_cannot_be_compared(base: Scorer, table: RatedTable) -> None:
    alone = dataclasses.replace(table, rows=(*table.rows[:-1], dataclasses.replace(table.rows[-1], dataset="other")))
    with pytest.raises(GRMPError, match=r"at least 2 pictures of each data set, .* got 1 of other"):
        grmp_hf.adapt(base, alone, recipe=short("fidelity"))


def test_two_tastes_on_one_base_do_not_touch_each_other(base: Scorer, table: RatedTable) -> None:
    first = grmp_hf.adapt(base, table, shots=10, recipe=short(), seed=1)
    weights = {name: weight.clone() for name, weight in first.model.state_dict().items()}
    grmp_hf.adapt(base, table, shots=10, recipe=short(), seed=2)
    assert all(torch.equal(weights[name], weight) for name, weight in first.model.state_dict().items())


def test_a_run_that_was_interrupted_goes_on(
    base: Scorer, table: RatedTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = grmp_hf.adapt(base, table, shots=10, recipe=short())
    with WorkFolder(tmp_path / "work") as work:
        again = grmp_hf.adapt(base, table, shots=10, recipe=short(), work=work)
    monkeypatch.setattr(few_shot, "adapt", None)  # what has been learnt is not learnt again
    with WorkFolder(tmp_path / "work") as work:
        kept = grmp_hf.adapt(base, table, shots=10, recipe=short(), work=work)
        with pytest.raises(GRMPError, match=r"unfinished run with other settings \(split_hash, seed"):
            grmp_hf.adapt(base, table, shots=10, recipe=short(), work=work, seed=1)
        lower = dataclasses.replace(table, scale=dataclasses.replace(table.scale, higher_is_better=False))
        with pytest.raises(GRMPError, match=r"unfinished run with other settings \(scale"):
            grmp_hf.adapt(base, lower, shots=10, recipe=short(), work=work)
        half = dataclasses.replace(base, identity={**base.identity, "dtype": "bfloat16"})
        with pytest.raises(GRMPError, match=r"unfinished run with other settings \(dtype"):
            grmp_hf.adapt(half, table, shots=10, recipe=short(), work=work)
    hashes = {scorer.identity["adapter_sha256"] for scorer in (whole, again, kept)}
    assert len(hashes) == 1


def test_what_cannot_teach_is_refused(base: Scorer, table: RatedTable, photos: Path, tmp_path: Path) -> None:
    scorer = grmp_hf.adapt(base, table, shots=10, recipe=short())
    with pytest.raises(GRMPError, match="Expected a base to learn on, got photos"):
        grmp_hf.adapt(scorer, table)
    with pytest.raises(GRMPError, match="recipe none: expected a file, or one of"):
        grmp_hf.adapt(base, table, recipe="none")
    with pytest.raises(GRMPError, match="start: expected the folder of an adapter"):
        grmp_hf.adapt(base, table, start=tmp_path / "none")
    shutil.copytree(photos, tmp_path / "damaged")
    (tmp_path / "damaged" / "3.png").write_bytes(b"nothing")
    with pytest.raises(GRMPError, match=r"3\.png, drawn to learn from"):
        grmp_hf.adapt(base, grmp_hf.read_ratings(tmp_path / "damaged"), recipe=short())


def test_tests_are_scored_beside_the_baselines(base: Scorer, table: RatedTable, photos: Path) -> None:
    scorer = grmp_hf.adapt(base, table, shots=10, recipe=short())
    tested = score_tests(scorer, table, batch_size=4)
    assert scorer.taught is not None
    files = [photos / name for name in scorer.taught.test]
    assert [row["path"] for row in tested.rows] == list(scorer.taught.test)
    np.testing.assert_allclose(tested.score, scorer.score(files).score, atol=1e-5)
    np.testing.assert_allclose(tested.zero_shot, 1 + 4 * base.score(files).quality, atol=1e-5)
    figures = tested.figures()
    assert figures["n_test"] == 6 and figures["failed"] == 0
    assert figures["srcc"] == grmp_hf.srcc(tested.score, tested.rating)
    assert set(figures["baselines"]) == {"zero_shot", "ridge"}
    with pytest.raises(GRMPError, match="does not say what has taught it"):
        score_tests(base, table)


def test_lost_data_of_a_picture_that_tests_are_told(base: Scorer, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "set")
    table = grmp_hf.read_ratings(tmp_path / "set")
    scorer = grmp_hf.adapt(base, table, shots=10, recipe=short())
    assert scorer.taught is not None
    name = scorer.taught.test[2]
    stream = io.BytesIO()
    Image.open(tmp_path / "set" / name).convert("RGB").resize((160, 120)).save(stream, "JPEG", quality=90)
    sound = stream.getvalue()
    (tmp_path / "set" / name).write_bytes(sound[: len(sound) * 2 // 3] + b"\xff\xd9")
    rows = score_tests(scorer, table, batch_size=4).rows
    assert {row["path"]: row["warning"] for row in rows if row["warning"]} == {name: "damaged"}
    assert [row.warning for part in scorer.iter_scores([tmp_path / "set" / name]) for row in part] == ["damaged"]
