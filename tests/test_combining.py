"""Adapters that exist already, of several kinds, behind one gate: saved, loaded, scored with, pushed, refused."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import LNTuningConfig, LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

import grmp_hf
from grmp_hf import adapter_files
from grmp_hf.cli.main import main
from grmp_hf.combining import combine
from grmp_hf.data import RatingScale
from grmp_hf.data.identity import content_id
from grmp_hf.data.splits import Split
from grmp_hf.errors import GRMPError
from grmp_hf.hub import push
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.baked_experts import GRMPBakedExperts
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.gating import KMeansGate, nearest_alone, oracle
from grmp_hf.modeling.linear_heads import Cosines
from grmp_hf.record import EXPERTS, EXPERTS_FILE
from grmp_hf.scoring import Scorer

STARS = RatingScale(1, 5, unit="stars")
KINDS = {
    "norms": lambda: LNTuningConfig(target_modules=r".*vision_model.*layer_norm\d", modules_to_save=["head"]),
    "lora": lambda: LoraConfig(target_modules=r".*vision_model.*q_proj", r=2, init_lora_weights=False),
    "text": lambda: grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=0, anchor_residuals=True, features=None),
}


def learnt(base: Scorer, config: PeftConfig, seed: int) -> Scorer:
    """A scorer whose adapter differs from its start everywhere."""
    model = copy_base(base.model)
    torch.manual_seed(seed)
    if config.modules_to_save:
        model.head = Cosines(model.config.clip_config.projection_dim)
    adapted: Any = get_peft_model(model, config)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn_like(weight))
    return dataclasses.replace(base, model=adapted.eval(), scale=STARS)


@pytest.fixture
def folders(base: Scorer, tmp_path: Path) -> dict[str, Path]:
    """Name -> folder of an adapter of each kind."""
    for seed, (name, config) in enumerate(KINDS.items()):
        learnt(base, config(), seed).save(tmp_path / "adapters" / name)
    return {name: tmp_path / "adapters" / name for name in KINDS}


@pytest.fixture
def pictures(photos: list[Path]) -> dict[str, list[Path]]:
    return {"norms": photos[:4], "lora": photos[4:8], "text": photos[8:]}


def test_every_picture_is_judged_by_all_and_weighed_by_the_gate(
    base: Scorer, folders: dict[str, Path], pictures: dict[str, list[Path]], photos: list[Path]
) -> None:
    found = combine(base, folders, pictures=pictures)
    scores = found.score(photos)
    assert scores.experts is not None and scores.experts.shape == (12, 3)
    np.testing.assert_allclose(scores.experts.sum(1), 1, atol=1e-6)
    assert (scores.experts.argmax(1) == np.repeat([0, 1, 2], 4)).all()  # its own pictures are centres
    alone = np.stack([grmp_hf.load(folder).score(photos).quality for folder in folders.values()], 1)
    np.testing.assert_allclose(scores.quality, (scores.experts * alone).sum(1), atol=1e-6)
    np.testing.assert_allclose(scores.score, 1 + 4 * scores.quality, atol=1e-6)
    assert 0 < found.compare(photos[0], photos[5]) < 1
    single = found.score(photos[5])
    np.testing.assert_allclose(single.experts, scores.experts[5:6], atol=1e-6)
    np.testing.assert_allclose(single.quality, scores.quality[5:6], atol=1e-6)


def test_what_one_learns_changes_no_other_bit_for_bit(
    base: Scorer, folders: dict[str, Path], pictures: dict[str, list[Path]], photos: list[Path]
) -> None:
    found = combine(base, folders, pictures=pictures)
    model: Any = found.model
    pixels = torch.stack([found.views(photo) for photo in photos])
    before, plain = found.outputs(pixels), base.outputs(pixels).quality
    with torch.no_grad():
        for name, weight in model.experts["norms"].named_parameters():
            if ("norm" in name and "ln_tuning" in name) or "modules_to_save" in name:
                weight.add_(torch.randn_like(weight))
    after = found.outputs(pixels)
    assert not torch.equal(after.judged[:, 0], before.judged[:, 0])
    assert torch.equal(after.judged[:, 1:], before.judged[:, 1:]) and torch.equal(after.weights, before.weights)
    assert torch.equal(base.outputs(pixels).quality, plain)


def test_frozen_weights_are_held_once(base: Scorer, folders: dict[str, Path], pictures: Any) -> None:
    model: Any = combine(base, folders, pictures=pictures).model
    places = {weight.data_ptr() for weight in model.base.parameters()}
    for expert in model.adapted:
        own = [w for w in expert.parameters() if w.data_ptr() not in places]
        assert 0 < sum(w.numel() for w in own) < 2000 < sum(w.numel() for w in model.base.parameters())


def test_the_other_gates(base: Scorer, folders: dict[str, Path], pictures: Any, photos: list[Path]) -> None:
    model: Any = combine(base, folders, pictures=pictures).model
    pixels = base.prepare(torch.stack([base.views(photo) for photo in photos]))
    with torch.inference_mode():
        judged = model(pixels).judged
        for gate, expected in (
            (lambda features: oracle(1, 3, len(features.embeds)), judged[:, 1]),
            (lambda features: nearest_alone(torch.tensor([[0.3, 0.2, 0.1]] * 12)), judged[:, 2]),
        ):
            model.gate = gate
            assert torch.equal(model(pixels).quality, expected)


def test_saved_and_loaded_it_scores_the_same(
    base: Scorer, folders: dict[str, Path], pictures: Any, photos: list[Path], tmp_path: Path
) -> None:
    found = combine(base, folders, pictures=pictures, name="all")
    expected = found.score(photos)
    found.save(tmp_path / "all")
    assert {path.name for path in (tmp_path / "all" / EXPERTS).iterdir()} == set(KINDS)
    for again in (grmp_hf.load(tmp_path / "all"), grmp_hf.load(adapter=tmp_path / "all")):
        assert np.array_equal(again.score(photos).score, expected.score)
        assert np.array_equal(again.score(photos).experts, expected.experts)
        assert again.unit == STARS and again.origin["stage"] == "combined"
        assert {**again.identity, "versions": 0} == {**found.identity, "versions": 0}
    again.save(tmp_path / "copy")
    assert np.array_equal(grmp_hf.load(tmp_path / "copy").score(photos).score, expected.score)
    card = (tmp_path / "all" / "README.md").read_text()
    assert "3 adapters" in card and "1 (worst) to 5 (best) stars" in card and "norms, lora, text" in card


def test_baked_they_score_the_same_and_hold_what_they_share_once(
    base: Scorer, folders: dict[str, Path], pictures: Any, photos: list[Path], tmp_path: Path
) -> None:
    found = combine(base, folders, pictures=pictures)
    expected = found.score(photos)
    found.save(tmp_path / "all")
    baked = bake(found.model)
    baked.config.preprocessing = found.processor.settings()
    baked.save_pretrained(tmp_path / "baked")
    weights = load_file(tmp_path / "baked" / "model.safetensors")
    assert not any(name.startswith("experts.2.vision_model") for name in weights)  # that of the text prompts
    assert sum("layer_norm" in name for name in weights if name.startswith("experts.0.vision_model")) == sum(
        name.startswith("experts.0.vision_model") for name in weights
    )
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "baked")
    assert isinstance(again, GRMPBakedExperts) and again.names == found.model.names
    for scorer in (dataclasses.replace(found, model=baked), grmp_hf.load(tmp_path / "baked")):
        scores = scorer.score(photos)
        np.testing.assert_allclose(scores.quality, expected.quality, atol=1e-6)
        np.testing.assert_allclose(scores.experts, expected.experts, atol=1e-5)
        assert scorer.unit == STARS
    said = pipeline("image-quality-assessment", model=str(tmp_path / "baked"))([str(photo) for photo in photos])
    np.testing.assert_allclose([one["score"] for one in said], expected.score, atol=1e-5)
    assert [*said[0]["experts"]] == [*folders]
    np.testing.assert_allclose([*said[3]["experts"].values()], expected.experts[3], atol=1e-5)
    with pytest.raises(GRMPError, match="grmp-iqa bake OUT --adapter DIR"):
        pipeline("image-quality-assessment", model=found.model)


def test_experts_can_be_added_to_experts(
    base: Scorer, folders: dict[str, Path], pictures: Any, photos: list[Path], tmp_path: Path
) -> None:
    first = {name: folders[name] for name in ("norms", "lora")}
    combine(base, first, pictures={name: pictures[name] for name in first}).save(tmp_path / "two")
    more = {"whatever": tmp_path / "two", "text": folders["text"]}
    found = combine(base, more, pictures={"text": pictures["text"]})
    together = combine(base, folders, pictures=pictures)
    assert np.array_equal(found.score(photos).score, together.score(photos).score)


def test_scales_that_differ_meet_in_quality(
    base: Scorer, folders: dict[str, Path], pictures: Any, photos: list[Path]
) -> None:
    other = grmp_hf.load(folders["lora"])
    dataclasses.replace(other, scale=RatingScale(0, 100)).save(folders["lora"])
    found = combine(base, folders, pictures=pictures)
    assert str(found.unit) == "0 (worst) to 1 (best)"
    scores = found.score(photos)
    assert np.array_equal(scores.score, scores.quality)


def test_what_does_not_belong_together_is_refused(
    base: Scorer, folders: dict[str, Path], pictures: Any, make_tiny_clip: Any, tmp_path: Path
) -> None:
    with pytest.raises(GRMPError, match=r"taught norms, lora, text.*--pictures NAME=PLACE"):
        combine(base, folders)
    with pytest.raises(GRMPError, match=r"got those of norms, lora, text, bee; experts are norms, lora, text"):
        combine(base, folders, pictures={**pictures, "bee": pictures["text"]})
    with pytest.raises(GRMPError, match=r"at least two experts, got text\. One alone"):
        combine(base, {"text": folders["text"]}, pictures={"text": pictures["text"]})
    with pytest.raises(GRMPError, match=r"letters, digits, - \. _, got a/b\."):
        combine(base, {"a/b": folders["text"], "lora": folders["lora"]}, pictures=pictures)
    two = {name: folders[name] for name in ("norms", "lora")}
    combine(base, two, pictures={name: pictures[name] for name in two}).save(tmp_path / "two")
    with pytest.raises(GRMPError, match=r"got lora twice\. Name each one yourself"):
        combine(base, {"all": tmp_path / "two", "lora": folders["lora"]}, pictures={"lora": pictures["lora"]})
    with pytest.raises(GRMPError, match=r"base to learn on, got .*, which has learnt already"):
        combine(grmp_hf.load(tmp_path / "two"), folders, pictures=pictures)
    make_tiny_clip(5).save_pretrained(tmp_path / "other")
    other = grmp_hf.load(tmp_path / "other")
    learnt(other, LoraConfig(target_modules=["q_proj"], init_lora_weights=False), 0).save(tmp_path / "stranger")
    three, shown = {**two, "stranger": tmp_path / "stranger"}, {**pictures, "stranger": pictures["text"]}
    with pytest.raises(GRMPError, match=r"Adapter 'stranger': .*other base_fingerprint"):
        combine(base, three, pictures={name: shown[name] for name in three})
    odd = grmp_hf.load(folders["text"])
    processor = grmp_hf.GRMPImageProcessor(32, ("center",), None, shortest_edge_limit=48)
    dataclasses.replace(odd, processor=processor).save(tmp_path / "odd")
    with pytest.raises(GRMPError, match="see pictures alike, got different preprocessing in norms, odd"):
        combine(base, {"norms": folders["norms"], "odd": tmp_path / "odd"}, pictures={"norms": [1], "odd": [1]})


def test_a_gate_of_others_is_refused(base: Scorer, folders: dict[str, Path], pictures: Any) -> None:
    model: Any = combine(base, folders, pictures=pictures).model
    with pytest.raises(GRMPError, match="a gate of the same, got norms, lora, text and a gate of a, b"):
        Experts(model.base, model.experts, KMeansGate({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}))


def test_the_commands(
    base: Scorer, folders: dict[str, Path], photos: list[Path], tmp_path: Path, capsys: Any, clip_folder: Path
) -> None:
    for at, name in enumerate(folders):
        (tmp_path / name).mkdir()
        for photo in photos[4 * at : 4 * at + 4]:
            (tmp_path / name / photo.name).write_bytes(photo.read_bytes())
    shown = [f"--pictures={name}={tmp_path / name}" for name in folders]
    places = [str(folders["norms"]), str(folders["lora"]), f"text={folders['text']}"]
    command = ["combine", *places, "--model", str(clip_folder), "--output", str(tmp_path / "all"), "--quiet"]
    assert main([*command, *shown]) == 0
    assert "3 experts" in capsys.readouterr().out
    assert main([*command, *shown]) == 2
    assert "finished results" in capsys.readouterr().err
    expected = combine(base, folders, pictures={n: sorted((tmp_path / n).iterdir()) for n in folders}).score(photos)
    for form in ("csv", "jsonl", "parquet"):
        table = tmp_path / f"scores.{form}"
        scored = ["score", *map(str, photos), "--adapter", str(tmp_path / "all"), "--output", str(table), "--quiet"]
        assert main(scored) == 0
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected.score, atol=2e-6)
    weights = np.array([[json.loads(row["experts"])[name] for name in folders] for row in rows])
    np.testing.assert_allclose(weights, expected.experts, atol=2e-6)
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [line["experts"] for line in lines] == [json.loads(row["experts"]) for row in rows]
    capsys.readouterr()
    assert main(["score", str(photos[0]), "--adapter", str(tmp_path / "all"), "--json", "--quiet"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["experts"] == [*folders] and said["rows"][0]["experts"] == lines[0]["experts"]
    assert main(["score", str(photos[0]), "--adapter", str(tmp_path / "all")]) == 0
    assert f"norms {weights[0, 0]:.2f}" in capsys.readouterr().out
    assert main(["bake", "--adapter", str(tmp_path / "all"), str(tmp_path / "baked")]) == 0
    np.testing.assert_allclose(grmp_hf.load(tmp_path / "baked").score(photos).score, expected.score, atol=1e-5)
    assert "norms, lora, text" in (tmp_path / "baked" / "README.md").read_text()


@pytest.mark.parametrize("value", ["-1", "inf", "nan"])
def test_a_temperature_that_cannot_be_is_refused_first(value: str, tmp_path: Path, capsys: Any) -> None:
    command = ["combine", "a=A", "b=B", "--output", str(tmp_path / "all"), "--temperature", value]
    assert main(command) == 2
    assert f"--temperature: expected a finite number of at least 0, got {value}" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "asked"), [([], "c0ffee"), (["--revision", "main"], "main")])
def test_the_base_is_asked_for_at_the_commit_that_the_adapter_records(
    given: list[str], asked: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folders["text"] / "adapter_config.json"
    recorded = {"base_model_name_or_path": "owner/clip", "revision": "c0ffee"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **recorded}))
    seen: list[Any] = []

    def load(name: str, *, revision: str | None, **_: Any) -> Any:
        seen.append((name, revision))
        raise GRMPError("Enough is known.")

    monkeypatch.setattr("grmp_hf.hub.load", load)
    assert main(["combine", str(folders["text"]), "b=B", "--output", str(tmp_path / "all"), *given]) == 2
    assert seen == [("owner/clip", asked)]


def test_of_a_folder_the_pictures_that_taught_are_taken(
    base: Scorer, folders: dict[str, Path], photos: list[Path], tmp_path: Path, capsys: Any, clip_folder: Path
) -> None:
    contents = {photo.name: str(content_id(photo)) for photo in photos[:3]}
    Split(tuple(contents), (), "made here", 0, contents).save(folders["norms"] / "split.json")
    (tmp_path / "all").mkdir()
    for photo in photos:
        (tmp_path / "all" / photo.name).write_bytes(photo.read_bytes())
    command = ["combine", str(folders["norms"]), str(folders["lora"]), "--model", str(clip_folder)]
    shown = [f"--pictures={name}={tmp_path / 'all'}" for name in ("norms", "lora")]
    assert main([*command, "--output", str(tmp_path / "two"), *shown]) == 0
    said = capsys.readouterr()
    assert f"norms: 3 of {len(photos)} have taught it" in said.out + said.err
    two = {name: folders[name] for name in ("norms", "lora")}
    expected = combine(base, two, pictures={"norms": photos[:3], "lora": photos}).score(photos)
    np.testing.assert_allclose(grmp_hf.load(clip_folder, adapter=tmp_path / "two").score(photos).score, expected.score)


def test_they_are_pushed_with_all_their_files(
    base: Scorer, folders: dict[str, Path], pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    combine(base, folders, pictures=pictures).save(tmp_path / "all")
    with pytest.raises(GRMPError, match="a base that others can load"):
        push(tmp_path / "all", "me/all")
    for name in KINDS:
        config = tmp_path / "all" / EXPERTS / name / "adapter_config.json"
        settings = json.loads(config.read_text())
        config.write_text(json.dumps({**settings, "base_model_name_or_path": "openai/clip"}))
    sent: list[str] = []

    class Api:
        def __init__(self, token: str | None) -> None: ...

        def create_repo(self, name: str, **_: Any) -> Any:
            return type("Repo", (), {"repo_id": name})

        def model_info(self, name: str) -> Any:
            return type("Info", (), {"private": True})

        def create_commit(self, name: str, operations: Any, **_: Any) -> Any:
            sent.extend(operation.path_in_repo for operation in operations)
            return type("Done", (), {"commit_url": "there"})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert push(tmp_path / "all", "me/all") == "there"
    files = ("adapter_config.json", "adapter_model.safetensors", "record.json")
    nested = {f"{EXPERTS}/{name}/{file}" for name in KINDS for file in files}
    assert set(sent) == {"README.md", EXPERTS_FILE, "gate.safetensors", *nested}


def test_they_are_fetched_from_the_hub(
    base: Scorer,
    folders: dict[str, Path],
    pictures: Any,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = combine(base, folders, pictures=pictures)
    found.save(tmp_path / "c0ffee")
    asked: list[str] = []

    def download(name: str, file: str, *, revision: str | None, local_files_only: bool) -> str:
        asked.append(file)
        if not (tmp_path / "c0ffee" / file).is_file():
            raise LocalEntryNotFoundError("not there")
        return str(tmp_path / "c0ffee" / file)

    monkeypatch.setattr(adapter_files, "hf_hub_download", download)
    monkeypatch.setattr(adapter_files, "cached_only", lambda *_, offline: offline)
    again = grmp_hf.load(adapter="owner/all")
    assert np.array_equal(again.score(photos).score, found.score(photos).score)
    assert (again.identity["adapter"], again.identity["adapter_revision"]) == ("owner/all", "c0ffee")
    files = ("adapter_config.json", "adapter_model.safetensors", "record.json")
    assert {f"{EXPERTS}/{name}/{file}" for name in KINDS for file in files} <= set(asked)
    (tmp_path / "c0ffee" / EXPERTS / "text" / "adapter_model.safetensors").unlink()
    with pytest.raises(GRMPError, match=r"Expected an adapter .* at 'owner/all', found none"):
        grmp_hf.load(adapter="owner/all")


EMPTY: dict[str, Any] = {"experts": ["a", "b"], "schema": "grmp_hf.experts/1"}


@pytest.mark.parametrize(
    "content",
    [
        '{"experts": ["../x"], "schema": "grmp_hf.experts/1"}',
        '{"experts": "a"}',
        "{",
        "[1]",
        json.dumps({**EMPTY, "scale": [1, 5]}),
        json.dumps({**EMPTY, "provenance": "x"}),
    ],
)
def test_a_damaged_list_of_experts_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / EXPERTS_FILE).write_text(content)
    with pytest.raises(GRMPError, match="Copy it again"):
        grmp_hf.load(tmp_path)
