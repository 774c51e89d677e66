"""Advice in what loading, saving, pushing and the model refuse works: it is provoked, done as it says, and succeeds."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LNTuningConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import CLIPTokenizer

import grmp_hf
from grmp_hf import GRMPConfig, GRMPForImageQualityAssessment, GRMPPromptConfig, Scorer
from grmp_hf.cards import write_card
from grmp_hf.cli.main import main
from grmp_hf.embedded import EMBEDDED
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base, unload
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.conversion import load_authors_file, to_authors_state_dict
from grmp_hf.modeling.heads import Features, GRMPOutput, Head, Text
from grmp_hf.pushing import push
from tests.advised import Case, follow


class Place(NamedTuple):
    """A folder to work in with photos/; a base and an adapter of it, in folders and loaded."""

    here: Path
    base: Path
    adapter: Path
    scorer: Scorer

    def copy(self, name: str = "mine", source: Path | None = None, **settings: Any) -> Path:
        """A copy of the adapter, with other settings."""
        folder = self.here / name
        shutil.copytree(source or self.adapter, folder, dirs_exist_ok=True)
        config = folder / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
        return folder

    def photo(self) -> Path:
        return self.here / "photos" / "00.png"


Asked = Callable[[Place], Any]


class Hub:
    """Takes the place of the Hub's client: a repository of that name is public."""

    def __init__(self, token: str | None = None) -> None:
        self.public = "known/to-all"

    def create_repo(self, repo_id: str, **_: Any) -> Any:
        return type("Url", (), {"repo_id": repo_id})

    def model_info(self, repo_id: str) -> Any:
        return type("Info", (), {"private": repo_id != self.public})

    def create_commit(self, repo_id: str, operations: list[Any], **_: Any) -> Any:
        return type("Commit", (), {"commit_url": f"https://example.org/{repo_id}"})


@pytest.fixture
def place(
    base: Scorer, clip_folder: Path, adapter_folder: Path, photos: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    return Place(tmp_path, clip_folder, adapter_folder, base)


class Cosine(Head):
    """A head of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = torch.nn.Parameter(torch.ones(8))

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        return GRMPOutput(quality=(features.embeds @ self.direction).mean(1).sigmoid())


def headed(place: Place, *, kept: bool = True) -> Scorer:
    """A scorer with that head, which the adapter holds."""
    model = copy_base(place.scorer.model)
    model.head = Cosine()
    more = {"modules_to_save": ["head"]} if kept else {}
    adapted = get_peft_model(model, LNTuningConfig(target_modules=["post_layernorm"], **more))
    return grmp_hf.Scorer(adapted.eval(), place.scorer.processor, None, place.scorer.identity)


def two_adapters(place: Place) -> PeftModel:
    model = get_peft_model(copy_base(place.scorer.model), GRMPPromptConfig(text_prompts=1, visual_prompts=1))
    model.add_adapter("other", GRMPPromptConfig(text_prompts=1, visual_prompts=1))
    return model.eval()


def forward(model: Any, views: int = 1, **options: Any) -> Any:
    return model(pixel_values=torch.zeros(1, views, 3, 32, 32), **options)


def both_active(place: Place) -> Any:
    model = two_adapters(place)
    model.base_model.set_adapter(["default", "other"])
    return forward(model)


def set_one(place: Place) -> Any:
    model = two_adapters(place)
    model.set_adapter("other")
    return forward(model)


def prompts(**options: Any) -> Asked:
    return lambda place: get_peft_model(copy_base(place.scorer.model), GRMPPromptConfig(**options))


def merged(place: Place) -> PeftModel:
    return get_peft_model(copy_base(place.scorer.model), GRMPPromptConfig())


def converted(*options: str) -> Asked:
    def run(place: Place) -> None:
        said = io.StringIO()
        model = get_peft_model(copy_base(place.scorer.model), GRMPPromptConfig(text_prompts=4, visual_prompts=3))
        torch.save(to_authors_state_dict(model), place.here / "a.pt")
        with contextlib.redirect_stderr(said):
            code = main(["convert", str(place.here / "a.pt"), str(place.here / "out"), *options])
        if code:
            raise GRMPError(said.getvalue())

    return run


def drop(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def tiny_without_tokenizer(place: Place) -> Path:
    (place.here / "tiny").mkdir()
    for path in TINY.glob("*config.json"):
        shutil.copy(path, place.here / "tiny")
    return place.here / "tiny"


def configured(**options: Any) -> Asked:
    return lambda place: GRMPConfig.from_pretrained(place.base, **options)


def load(**options: Any) -> Asked:
    return lambda place: grmp_hf.load(**{"model": place.base, **options})


TINY = Path(grmp_hf.__file__).parent / "assets" / "tiny"
GOOD_BAD = {"quality_anchors": ["X good", "X bad"]}
LOADING = {
    "dtype": Case(load(dtype="fp8"), "out of fp32, bf16, fp16", load(dtype="bf16")),
    "device": Case(load(device="mps"), "such as cpu", load(device="cpu")),
    "no adapter": Case(lambda place: grmp_hf.load(adapter=place.base.parent), "Expected an adapter",
                       lambda place: grmp_hf.load(adapter=place.adapter)),
    "a base": Case(lambda place: grmp_hf.load(adapter=place.base), "name it with --model, or model=",
                   lambda place: grmp_hf.load(place.base)),
    "misspelt": Case(lambda place: grmp_hf.load(f"{place.adapter}z"), "Did you mean '.*stars'",
                     lambda place: grmp_hf.load(place.adapter)),
    "of Hub": Case(lambda place: grmp_hf.load("owner/none", local_files_only=True), r"name a folder of it \(--mod",
                       lambda place: grmp_hf.load(place.base, local_files_only=True)),
    "a file": Case(lambda place: grmp_hf.load(place.base / "config.json"), "name its folder",
                   lambda place: grmp_hf.load(place.base)),
    "lost base": Case(lambda place: grmp_hf.load(place.copy(base_model_name_or_path="/gone")), "or model=",
                      lambda place: grmp_hf.load(model=place.base, adapter=place.copy())),
    "another base": Case(lambda place: grmp_hf.load(EMBEDDED, adapter=place.adapter), "Load it with that base",
                         lambda place: grmp_hf.load(place.base, adapter=place.adapter)),
    "not safetensors": Case(lambda place: grmp_hf.load(drop(place.copy(), "adapter_model.safetensors")),
                            "Save it again as safetensors", lambda place: grmp_hf.load(place.copy())),
    "another method": Case(lambda place: grmp_hf.load(place.copy(peft_type="IA3")), "out of GRMP",
                           lambda place: grmp_hf.load(place.copy(peft_type="GRMP"))),
    "settings": Case(lambda place: ((place.copy() / "adapter_config.json").write_text("{"),
                                    grmp_hf.load(adapter=place.here / "mine")), "Copy it again",
                     lambda place: (shutil.rmtree(place.here / "mine"), grmp_hf.load(place.copy()))),
    "weights": Case(lambda place: ((place.copy() / "adapter_model.safetensors").write_bytes(b"cut"),
                                   grmp_hf.load(adapter=place.here / "mine")), "Copy it again",
                    lambda place: grmp_hf.load(place.copy())),
    "record": Case(lambda place: (headed(place).save(place.here / "h"),
                                  (place.here / "h" / "record.json").write_text("{"),
                                  grmp_hf.load(place.base, adapter=place.here / "h", head=Cosine())), "Copy it again",
                   lambda place: (headed(place).save(place.here / "h"),
                                  grmp_hf.load(place.base, adapter=place.here / "h", head=Cosine()))),
    "half a model": Case(lambda place: (shutil.copytree(place.base, place.here / "half"),
                                        grmp_hf.load(drop(place.here / "half", "model.safetensors"))),
                         "Copy the folder again", lambda place: (
                             shutil.copytree(place.base, place.here / "half", dirs_exist_ok=True),
                             grmp_hf.load(place.here / "half"))),
    "a head": Case(lambda place: (headed(place).save(place.here / "h"),
                                  grmp_hf.load(place.base, adapter=place.here / "h")),
                   r"in Python: grmp_hf.load\(..., head=...\)",
                   lambda place: grmp_hf.load(place.base, adapter=place.here / "h", head=Cosine())),
    "another head": Case(lambda place: (headed(place).save(place.here / "h"),
                                        grmp_hf.load(place.base, adapter=place.here / "h", head=torch.nn.Linear(8, 1))),
                         "the head 'Cosine' that is recorded, .* Give that",
                         lambda place: grmp_hf.load(place.base, adapter=place.here / "h", head=Cosine())),
    "a head that nobody keeps": Case(lambda place: headed(place, kept=False).save(place.here / "h"),
                                     r"modules_to_save=\['head'\]", lambda place: headed(place).save(place.here / "h")),
    "no card": Case(lambda place: write_card(place.here), "Save it before its card",
                    lambda place: write_card(place.copy())),
    "nothing to push": Case(lambda place: push(place.here, "me/mine"), "Save there first",
                            lambda place: (place.scorer.save(place.here / "m"), push(place.here / "m", "me/m"))),
    "repository": Case(lambda place: push(place.copy(base_model_name_or_path=EMBEDDED), "my adapter"),
                       "Use letters, digits", lambda place: push(place.here / "mine", "my-adapter_2.0")),
    "base to push": Case(lambda place: push(place.copy(), "me/mine"), "Push the base first and write its id",
                         lambda place: (place.scorer.save(place.here / "b"), push(place.here / "b", "me/base"),
                                        push(place.copy(base_model_name_or_path="me/base"), "me/mine"))),
    "public": Case(lambda place: push(place.copy(base_model_name_or_path=EMBEDDED), "known/to-all"),
                   "Choose another name", lambda place: push(place.here / "mine", "known/to-few")),
    "public, allowed": Case(lambda place: push(place.copy(base_model_name_or_path=EMBEDDED), "known/to-all"),
                            "private=False", lambda place: push(place.here / "mine", "known/to-all", private=False)),
    "heads of a checkpoint": Case(converted(), "--vision-heads",
                                  converted("--vision-heads", "2", "--text-heads", "2")),
    "pickle": Case(lambda place: ((place.here / "a.pt").write_bytes(b"no"), load_authors_file(place.here / "a.pt")),
                   r"torch.save\(model.state_dict\(\)",
                   lambda place: (torch.save(place.scorer.model.state_dict(), place.here / "a.pt"),
                                  load_authors_file(place.here / "a.pt"))),
}  # fmt: skip
MODELS = {
    "two adapters": Case(both_active, r"use set_adapter\(name\)", set_one),
    "merge": Case(lambda place: merged(place).merge_and_unload(), r"Use unload\(\)",
                  lambda place: merged(place).unload()),
    "merge, baked": Case(lambda place: merged(place).merge_and_unload(), r"baking.bake\(\)",
                         lambda place: bake(merged(place).eval())),
    "twice": Case(lambda place: copy_base(merged(place)), r"take it back with grmp_hf.modeling.adapters.unload\(",
                  lambda place: copy_base(unload(merged(place)))),
    "plain model": Case(lambda place: get_peft_model(torch.nn.Linear(2, 2), GRMPPromptConfig()),
                        "GRMPForImageQualityAssessment.from_pretrained first", lambda place: get_peft_model(
                            GRMPForImageQualityAssessment.from_pretrained(place.base), GRMPPromptConfig())),
    "nothing to train": Case(prompts(text_prompts=0, visual_prompts=0), "Set one of them", prompts(visual_prompts=0)),
    "dropout": Case(prompts(prompt_dropout=1.0), r"in \[0, 1\)", prompts(prompt_dropout=0.9)),
    "layers": Case(prompts(visual_layers=3), "at most 2 visual_layers", prompts(visual_layers=2)),
    "too many prompts": Case(prompts(text_prompts=999), "at most 77 tokens", prompts(text_prompts=9)),
    "views of a model": Case(lambda place: forward(place.scorer.model, 4), "Use the image processor saved with",
                             lambda place: place.scorer.score(place.photo())),
    "shape": Case(lambda place: place.scorer.model(pixel_values=torch.zeros(3, 32, 32)),
                  "Use the model's GRMPImageProcessor", lambda place: place.scorer.model(
                      **place.scorer.processor(Image.new("RGB", (40, 40)), return_tensors="pt"))),
    "labels": Case(lambda place: forward(place.scorer.model, labels=torch.tensor([4.0])), "RatingScale.to_quality",
                   lambda place: forward(place.scorer.model, labels=grmp_hf.data.RatingScale(1, 5).to_quality(
                       torch.tensor([4.0])))),
    "levels": Case(configured(quality_levels=[0.2, 0.8]), r"from 0 \(worst\) to 1 \(best\)",
                   configured(quality_levels=[0.0, 1.0])),
    "anchors": Case(lambda place: GRMPConfig(quality_anchors=["X a", "X b"]), "Use GRMPConfig.from_clip",
                    lambda place: GRMPConfig.from_clip(GRMPConfig.from_pretrained(TINY).clip_config,
                                                       CLIPTokenizer.from_pretrained(TINY), **GOOD_BAD)),
    "tokenizer": Case(lambda place: GRMPConfig.from_pretrained(tiny_without_tokenizer(place), **GOOD_BAD),
                      "tokenizer.json", lambda place: (
                          shutil.copy(TINY / "tokenizer.json", place.here / "tiny"),
                          GRMPConfig.from_pretrained(place.here / "tiny", **GOOD_BAD))),
}  # fmt: skip
ALL = {**LOADING, **MODELS}


@pytest.mark.parametrize("name", ALL)
def test_what_is_advised_works(name: str, place: Place) -> None:
    follow(ALL[name], place)
