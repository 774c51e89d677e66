from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import grmp_hf
from grmp_hf import comparing
from grmp_hf.claims import WORK
from grmp_hf.cli.main import main
from grmp_hf.data import Split
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.outputs import MANIFEST
from grmp_hf.record import ADAPTER_FILES, CONFIG_FILE, RECORD, Record, origin_of
from grmp_hf.training import few_shot
from grmp_hf.training.pictures import RatedPictures

TRAINING = few_shot.adapt
ROUNDING = 100 * float(np.finfo(np.float64).eps)  # of a correlation of twenty ranks: four sums of twenty


def fake_training(model: Any, pictures: RatedPictures, *, output_dir: Path, **given: Any) -> Any:
    """In the place of training: prompts from the seed, and a look at what training is given."""
    from peft import get_peft_model

    quality = pictures.columns["labels"]
    assert all(part.dtype == torch.uint8 and part.shape[1:] == (3, 3, 32, 32) for part in pictures.batches(4))
    assert quality.shape == (len(pictures),) and 0 <= float(quality.min()) <= float(quality.max()) <= 1
    assert len(pictures.mean) == len(pictures.std) == 3
    (output_dir / "checkpoint-1").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given["seed"])
    given["progress"]("epoch 1 of 1", 1.0)
    return get_peft_model(copy_base(model), grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=3))


def write(folder: Path, rows: list[tuple[Any, ...]], header: str = "image,mos") -> Path:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    """Folder of thirty pictures with ratings from 1 to 5 that fall with their noise."""
    folder = tmp_path / "rated"
    folder.mkdir()
    rows = []
    for index in range(30):
        noise = np.random.default_rng(index).normal(0, 4 * index, (40, 48, 3))
        pixels = np.clip(128 + 40 * np.sin(np.arange(48) / 5)[None, :, None] + noise, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        rows.append((f"{index}.png", 5 - 4 * index / 29))
    return write(folder, rows)


@pytest.fixture
def adapt(rated: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command, without training, on the thirty pictures."""
    monkeypatch.setattr(few_shot, "adapt", fake_training)

    def run(*options: Any, data: Path = rated) -> int:
        where = ["--data", data, "--output", tmp_path / "mine", "--model", clip_folder]
        return main([str(part) for part in ("adapt", *where, *options)])

    return run


def test_everything_is_written_and_the_adapter_scores_as_reported(
    adapt: Callable[..., int], rated: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt("--shots", 10, "--seed", 3) == 0
    output = tmp_path / "mine"
    streams = capsys.readouterr()
    for word in ("20 test pictures", "adapted", "zero-shot", "ridge on embedding", "SRCC", "1 (worst) to 5 (best)"):
        assert word in streams.out
    assert "10 pictures teach, 20 test" in streams.err and "taken as 1 (worst) to 5 (best)" in streams.err
    assert {path.name for path in output.iterdir()} == {
        *ADAPTER_FILES,
        "metrics.json",
        *("scatter.png", "scores.csv", "scores.csv.json", "split.json", MANIFEST),
    }
    metrics = json.loads((output / "metrics.json").read_text())
    with open(output / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == metrics["n_test"] == 20
    scorer = grmp_hf.load(adapter=output)
    scores = scorer.score([rated / row["path"] for row in rows]).score
    np.testing.assert_allclose(scores, [float(row["score"]) for row in rows], atol=1e-5)
    ratings = [float(row["rating"]) for row in rows]
    ranked = [grmp_hf.srcc([float(row[name]) for row in rows], ratings) for name in ("score", "zero_shot")]
    assert metrics["srcc"] == pytest.approx(ranked[0], abs=ROUNDING)
    zero_shot = grmp_hf.load(clip_folder).score([rated / row["path"] for row in rows]).quality
    np.testing.assert_allclose(1 + 4 * zero_shot, [float(row["zero_shot"]) for row in rows], atol=1e-5)
    assert metrics["baselines"]["zero_shot"]["srcc"] == pytest.approx(ranked[1], abs=ROUNDING)
    assert metrics["adapter_sha256"] == scorer.identity["adapter_sha256"]
    assert str(scorer.scale) == "1 (worst) to 5 (best)"


def test_real_training_gives_the_same_adapter_twice(
    adapt: Callable[..., int], rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*arguments: Any, recipe: few_shot.FewShotRecipe, **given: Any) -> Any:
        return TRAINING(*arguments, recipe=replace(recipe, steps=3), **given)

    monkeypatch.setattr(few_shot, "adapt", short)
    found = []
    for _ in range(2):
        assert adapt("--shots", 15, "--overwrite") == 0
        found.append(json.loads((tmp_path / "mine" / "metrics.json").read_text()))
    assert found[0]["adapter_sha256"] == found[1]["adapter_sha256"]
    assert found[0]["srcc"] == found[1]["srcc"]
    rows = list(csv.DictReader((tmp_path / "mine" / "scores.csv").read_text().splitlines()))
    scores = grmp_hf.load(tmp_path / "mine").score([rated / row["path"] for row in rows]).score
    np.testing.assert_allclose(scores, [float(row["score"]) for row in rows], atol=1e-5)


def test_metrics_say_all_that_a_figure_needs(adapt: Callable[..., int], tmp_path: Path) -> None:
    assert adapt("--shots", 10) == 0
    metrics = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    keys = "model shots seed n_test srcc srcc_interval krcc plcc plcc_logistic rmse baselines revision adapter_sha256"
    keys += " data data_hash split_hash protocol preprocessing recipe versions seconds peak_memory_mib rating_scale"
    assert not set(keys.split()) - set(metrics)
    assert set(metrics["baselines"]) == {"zero_shot", "ridge"}
    assert metrics["shots"] == 10 and metrics["seed"] == 0
    split = Split.load(tmp_path / "mine" / "split.json")
    assert split.hash == metrics["split_hash"] and not set(split.train) & set(split.test)
    provenance = origin_of(tmp_path / "mine")
    for key in ("data_hash", "split_hash", "shots", "seed", "recipe", "revision", "versions"):
        assert provenance[key] == metrics[key]


def test_the_card_has_the_real_figures(adapt: Callable[..., int], tmp_path: Path) -> None:
    assert adapt("--shots", 10) == 0
    metrics = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    card = (tmp_path / "mine" / "README.md").read_text()
    for figures in (metrics, *metrics["baselines"].values()):
        low, high = figures["srcc_interval"]
        assert f"{figures['srcc']:.3f} [{low:.3f}, {high:.3f}]" in card
    assert metrics["data_hash"] in card and "learnt from 10 rated pictures" in card
    assert "base_model:" not in card  # a folder of this machine says nothing to others
    assert str(tmp_path) not in card


def test_the_embedded_base_is_recorded_under_its_stable_name(
    rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training(model: Any, pictures: RatedPictures, **_: Any) -> Any:
        from peft import get_peft_model

        return get_peft_model(copy_base(model), grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=2))

    monkeypatch.setattr(few_shot, "adapt", training)
    write(rated, [(f"{i}.png", 1 + i % 5) for i in range(8)])
    assert main(["adapt", "--data", str(rated), "--shots", "6", "--output", str(tmp_path / "mine"), "-q"]) == 0
    text, record = ((tmp_path / "mine" / name).read_text() for name in (CONFIG_FILE, RECORD))
    assert json.loads(text)["base_model_name_or_path"] == "grmp_hf/tiny"
    assert str(tmp_path) not in text + record and str(Path(grmp_hf.__file__).parent) not in text + record
    assert grmp_hf.load(tmp_path / "mine").identity["model"] == "grmp_hf/tiny"


def test_the_report_can_go_elsewhere_and_json_is_printed(
    adapt: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt("--shots", 10, "--report", tmp_path / "report", "--json", "--quiet") == 0
    streams = capsys.readouterr()
    assert not streams.err
    assert json.loads(streams.out) == json.loads((tmp_path / "report" / "metrics.json").read_text())
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"metrics.json", "scores.csv", "scores.csv.json", "scatter.png", MANIFEST}


@pytest.mark.parametrize(
    ("damaged", "shots", "said"),
    [
        ([], 29, "1 rated picture was left to test on, and figures take two: ask"),
        ([5], 29, "1 rated picture was left to test on, of which 1 cannot be read, and figures take two: ask"),
        ([5, 7, 9], 27, "3 rated pictures were left to test on, of which 3 cannot be read, and figures take two: ask"),
    ],
)
def test_too_few_pictures_to_test_on_are_not_called_none(
    damaged: list[int], shots: int, said: str, adapt: Any, rated: Path, tmp_path: Path, capsys: Any
) -> None:
    table = (rated / "labels.csv").read_text().splitlines()
    tests = damaged or [5]
    parts = ["split", *("test" if at in tests else "train" for at in range(30))]
    (rated / "labels.csv").write_text("\n".join(f"{line},{part}" for line, part in zip(table, parts, strict=True)))
    for at in damaged:
        (rated / table[1 + at].split(",")[0]).write_bytes(b"none")
    assert adapt("--shots", shots) in (0, 1)
    assert said in capsys.readouterr().out
    assert "No figures were recorded with this folder" in (tmp_path / "mine" / "README.md").read_text()


def test_all_pictures_teach_without_shots(
    adapt: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt() == 0
    metrics = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    assert metrics["shots"] == 30 and metrics["n_test"] == 0 and metrics["srcc"] is None
    assert "no rated pictures were left to test on" in capsys.readouterr().out
    assert "No figures were recorded" in (tmp_path / "mine" / "README.md").read_text()


def test_choices_are_learnt_from(adapt: Callable[..., int], rated: Path, clip_folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = [(f"{at}.png", f"{at + step}.png") for step in (1, 5) for at in range(30 - step)]
    pairs.write_text("better,worse\n" + "\n".join(",".join(row) for row in rows))
    where = ["--images", rated, "--output", tmp_path / "mine", "--model", clip_folder, "--shots", "12", "--quiet"]
    assert main([str(part) for part in ("adapt", "--pairs", pairs, *where)]) == 0
    metrics = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    assert (metrics["shots"], metrics["n_test"], metrics["data"]) == (12, 18, "pairs.csv")
    assert metrics["scale"] == "0 (worst) to 1 (best)"


def test_a_marked_test_part_is_the_test_part(adapt: Callable[..., int], rated: Path, tmp_path: Path) -> None:
    rows = [(f"{i}.png", 1 + i % 5, "test" if i < 8 else "train") for i in range(30)]
    assert adapt("--shots", 10, data=write(rated, rows, "image,mos,split")) == 0
    split = Split.load(tmp_path / "mine" / "split.json")
    assert set(split.test) == {f"{i}.png" for i in range(8)}


def test_a_bad_test_picture_is_a_row(
    adapt: Callable[..., int], rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"{i}.png", 1 + i % 5, "test" if i < 8 else "train") for i in range(30)]
    write(rated, rows, "image,mos,split")
    (rated / "3.png").write_bytes((rated / "3.png").read_bytes()[:100])
    assert adapt("--shots", 10) == 1
    with open(tmp_path / "mine" / "scores.csv", newline="") as file:
        bad = [row for row in csv.DictReader(file) if row["status"] != "ok"]
    assert [(row["path"], row["status"], row["score"], row["ridge"]) for row in bad] == [("3.png", "truncated", "", "")]
    assert "left out" in capsys.readouterr().err
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["n_test"] == 7


def test_an_interrupted_run_goes_on_and_another_one_is_refused(
    adapt: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []

    def interrupted(*arguments: Any, output_dir: Path, **given: Any) -> Any:
        seen.append((output_dir / "checkpoint-1").is_dir())
        (output_dir / "checkpoint-1").mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(few_shot, "adapt", interrupted)
    assert adapt("--shots", 10) == 130
    assert adapt("--shots", 10) == 130
    assert adapt("--shots", 12) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "holds an unfinished run with other settings (split_hash, contents)" in said and "--overwrite" in said
    assert adapt("--shots", 12, "--overwrite") == 130
    assert seen == [False, True, False]
    monkeypatch.setattr(few_shot, "adapt", fake_training)
    assert adapt("--shots", 12) == 0
    assert not (tmp_path / "mine" / WORK).exists()


def test_a_run_that_ends_while_it_scores_keeps_what_it_has_learnt(
    adapt: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(*arguments: Any, **given: Any) -> Any:
        calls.append(given["seed"])
        return fake_training(*arguments, **given)

    def stopped(*arguments: Any, **given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(few_shot, "adapt", counted)
    whole, score_tests = tmp_path / "mine" / "adapter_model.safetensors", comparing.score_tests
    monkeypatch.setattr(comparing, "score_tests", stopped)
    assert adapt("--shots", 10, "--seed", 3) == 130
    learnt = (tmp_path / "mine" / WORK / "trained" / whole.name).read_bytes()
    monkeypatch.setattr(comparing, "score_tests", score_tests)
    assert adapt("--shots", 10, "--seed", 3) == 0
    assert calls == [3] and whole.read_bytes() == learnt
    metrics = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    assert metrics["adapter_sha256"] == grmp_hf.hub.adapter_sha256(tmp_path / "mine") and metrics["n_test"] == 20
    assert not (tmp_path / "mine" / WORK).exists()


def test_finished_output_is_kept(adapt: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert adapt("--shots", 10) == 0
    before = (tmp_path / "mine" / "metrics.json").read_bytes()
    assert adapt("--shots", 11) == 2
    assert "holds finished results" in capsys.readouterr().err
    assert (tmp_path / "mine" / "metrics.json").read_bytes() == before
    assert adapt("--shots", 11, "--overwrite") == 0
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["shots"] == 11


def break_picture(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")


BAD: list[tuple[Callable[[Path], Any], list[Any], str]] = [
    (lambda folder: None, ["--shots", 4], "--shots: expected at least 5, got 4"),
    (lambda folder: None, ["--shots", 31], "expected between 1 and 30 shots"),
    (lambda folder: None, ["--seed", -1], "--seed: expected 0 to"),
    (lambda folder: None, ["--range", 2, 5], "expected ratings from 2 (worst) to 5 (best), got"),
    (lambda folder: None, ["--range", 5, 1], "--range: expected the low end before the high one"),
    (lambda folder: None, ["--rating-column", "stars"], "stars"),
    (lambda folder: None, ["--images", "nowhere"], "nowhere: expected the folder of the pictures"),
    (lambda folder: None, ["--model", "no/where"], "'no/where' is no folder here"),
    (lambda folder: (folder / "labels.csv").unlink(), [], "expected one of metadata.csv"),
    (lambda folder: write(folder, [("0.png", 1)], "file,note"), [], "expected a rating column"),
    (lambda folder: write(folder, [(f"{i}.png", i) for i in range(4)]), [], "at least 5 rated pictures, got 4"),
    (lambda folder: write(folder, [(f"{i}.png", 3) for i in range(9)]), [], "expected ratings that differ, got 3"),
    (lambda folder: write(folder, [(f"{i}.png", "nan") for i in range(9)]), [], "NaN or infinite"),
    (lambda folder: write(folder, [(f"{i}.png", "good") for i in range(9)]), [], "that are no number"),
    (lambda folder: write(folder, [(f"{i}.jpg", i) for i in range(9)]), [], "9 of 9 pictures not found"),
    (break_picture, [], "drawn to learn from:"),
]


@pytest.mark.parametrize(("spoil", "options", "message"), BAD, ids=[message[:30] for _, _, message in BAD])
def test_what_cannot_be_used_says_why_and_writes_nothing(
    spoil: Callable[[Path], Any],
    options: list[Any],
    message: str,
    adapt: Callable[..., int],
    rated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(rated)
    assert adapt(*options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.touch(), "expected a folder, got a file"),
        (lambda path: (path.mkdir(), (path / "mine.txt").touch()), "the folder is not empty"),
    ],
)
def test_an_output_that_is_something_else(
    make: Callable[[Path], Any],
    message: str,
    adapt: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "mine")
    assert adapt("--shots", 10) == 2
    assert message in capsys.readouterr().err


def test_an_adapter_is_no_base(
    adapt: Callable[..., int], adapter_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt("--shots", 10, "--model", adapter_folder) == 2
    assert "Expected a base to learn on, got stars, which has learnt already" in capsys.readouterr().err


@pytest.fixture
def start(clip_folder: Path, tmp_path: Path) -> Path:
    """Prompts for the base of these tests that make a difference to every embedding."""
    from peft import get_peft_model

    base = grmp_hf.GRMPForImageQualityAssessment.from_pretrained(clip_folder)
    torch.manual_seed(7)
    model = get_peft_model(base, grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=3))
    model.save_pretrained(str(tmp_path / "pre-trained"), save_embedding_layers=False)
    return tmp_path / "pre-trained"


def short_training(*arguments: Any, recipe: few_shot.FewShotRecipe, **given: Any) -> Any:
    return TRAINING(*arguments, recipe=replace(recipe, steps=3), **given)


def test_a_start_is_gone_on_with_and_recorded(
    adapt: Callable[..., int],
    start: Path,
    rated: Path,
    clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr(few_shot, "adapt", short_training)
    assert adapt("--shots", 15, "--start", start) == 0
    assert f"starts from the prompts in {start}" in capsys.readouterr().err
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (start, tmp_path / "mine"))
    visual = [name for name in before if "grmp_visual" in name]
    assert visual and all(torch.equal(before[name], after[name]) for name in visual)
    metrics = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    hashes = {"name": "pre-trained", "adapter_sha256": grmp_hf.load(adapter=start).identity["adapter_sha256"]}
    assert metrics["start"] == hashes
    assert origin_of(tmp_path / "mine")["start"] == hashes
    rows = list(csv.DictReader((tmp_path / "mine" / "scores.csv").read_text().splitlines()))
    files = [rated / row["path"] for row in rows]
    scores = grmp_hf.load(tmp_path / "mine").score(files).score
    np.testing.assert_allclose(scores, [float(row["score"]) for row in rows], atol=1e-5)
    zero_shot = grmp_hf.load(clip_folder).score(files).quality
    np.testing.assert_allclose(1 + 4 * zero_shot, [float(row["zero_shot"]) for row in rows], atol=1e-5)
    assert adapt("--shots", 15, "--overwrite", "--start", "none") == 0
    other = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    assert other["start"] is None
    assert other["baselines"]["ridge"]["srcc"] == metrics["baselines"]["ridge"]["srcc"]


def test_the_start_of_the_package_is_that_of_its_base(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grmp_hf import embedded
    from grmp_hf.embedded import find_start

    monkeypatch.setattr(embedded, "EMBEDDED_PROMPTS", tmp_path / "none")
    assert find_start("package", "default") is None
    monkeypatch.setattr(embedded, "EMBEDDED_PROMPTS", start)
    assert find_start("package", "default") == find_start("package", "grmp_hf/tiny") == start
    assert find_start("package", "some/clip") is None
    assert find_start("none", "default") is None
    assert find_start(str(tmp_path), "default") == tmp_path


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "--start: expected the folder of an adapter, package or none, got 'nowhere'"),
        ("rated", "to start from in"),
        ("mine", "--start: expected another folder than the one to write to, got 'mine'"),
        ("other", "Expected the base that this adapter was made for"),
    ],
)
def test_what_is_no_start_says_why_and_writes_nothing(
    place: str,
    message: str,
    adapt: Callable[..., int],
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if place == "mine":
        (tmp_path / "mine").mkdir()
    Record(fingerprint="0" * 16).save(start)
    assert adapt("--shots", 10, "--start", start if place == "other" else place) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "mine" / WORK).exists()


def test_copies_and_links_of_a_picture_are_on_one_side(
    adapt: Callable[..., int], rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"{index}.png", 5 - 4 * index / 29) for index in range(30)]
    for index in range(0, 30, 2):
        copy = rated / f"copy of {index}.png"
        (shutil.copy if index % 4 else os.link)(rated / f"{index}.png", copy)
        rows.append((copy.name, rows[index][1]))
    write(rated, rows)
    assert adapt("--shots", 12) == 0
    split = Split.load(tmp_path / "mine" / "split.json")
    train, test = ({(rated / name).read_bytes() for name in part} for part in (split.train, split.test))
    assert len(train) == len(split.train) == 12 and not train & test
    assert "15 copies of pictures under other names are never on the other side" in capsys.readouterr().err
    assert set(split.contents) == set(split.train)


def test_a_picture_in_both_parts_under_two_names_is_refused(
    adapt: Callable[..., int], rated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(rated / "3.png", rated / "again.png")
    rows: list[tuple[Any, ...]] = [(f"{at}.png", 5 - at / 8, "test" if at > 20 else "train") for at in range(30)]
    write(rated, [*rows, ("again.png", 4.6, "test")], "image,mos,split")
    assert adapt() == 2
    assert '1 in the test part that teach as well, under another name: "again.png" (the same as "3.png"); remove' in (
        capsys.readouterr().err
    )


def test_constant_test_ratings_are_told(
    adapt: Callable[..., int], rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"{at}.png", 3 if at > 20 else 5 - at / 6, "test" if at > 20 else "train") for at in range(30)]
    write(rated, rows, "image,mos,split")
    assert adapt() == 0
    streams = capsys.readouterr()
    assert "note: all 9 ratings are 3: they order nothing" in streams.err and "[0.000" not in streams.out
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["srcc_interval"] is None
    assert "Note: all 9 ratings are 3" in (tmp_path / "mine" / "README.md").read_text()
