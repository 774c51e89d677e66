"""Advice in what scorers with heads, side networks, experts and explanations refuse works: it is done, and succeeds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LNTuningConfig, get_peft_model
from torch import nn
from transformers import CLIPModel, ResNetConfig, ResNetForImageClassification

import grmp_hf
from grmp_hf import FewShotRecipe, Scorer
from grmp_hf.combining import combine
from grmp_hf.data import decode_image
from grmp_hf.embedded import embedded_folder
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.heads import Features, GRMPOutput, Head, Text
from grmp_hf.preferring import compare
from grmp_hf.suggesting import suggest
from tests.advised import Case, follow

TINY = Path(embedded_folder())
QUICK = FewShotRecipe(steps=1, text_prompts=1, bf16=False)


class Place(NamedTuple):
    """A folder to work in with photos and their ratings; a base, in a folder and loaded, and an adapter of it."""

    here: Path
    base: Path
    adapter: Path
    scorer: Scorer
    photos: list[Path]

    def copy(self, name: str, **preprocessing: Any) -> Path:
        """A copy of the adapter, which sees pictures otherwise."""
        folder = Path(shutil.copytree(self.adapter, self.here / name))
        record = json.loads((folder / "record.json").read_text())
        record["preprocessing"].update(preprocessing)
        (folder / "record.json").write_text(json.dumps(record))
        return folder

    def side(self, seed: int) -> str:
        """Folder of a small ResNet."""
        torch.manual_seed(seed)
        sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
        folder = self.here / f"side-{seed}"
        ResNetForImageClassification(ResNetConfig(**sizes)).save_pretrained(folder)
        return str(folder)


@pytest.fixture
def place(base: Scorer, clip_folder: Path, adapter_folder: Path, photos: list[Path], tmp_path: Path) -> Place:
    rows = [f"photos/{path.name},{1 + at % 5}" for at, path in enumerate(photos)]
    (tmp_path / "rated.csv").write_text("\n".join(["image,mos", *rows]))
    return Place(tmp_path, clip_folder, adapter_folder, base, photos)


Asked = Callable[[Place], Any]


class Own(Head):
    """A head of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.ones(8))

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        return GRMPOutput(quality=(features.embeds @ self.direction).mean(1).sigmoid())


def headed(place: Place) -> Scorer:
    model = copy_base(place.scorer.model)
    model.head = Own()
    config = LNTuningConfig(target_modules=["post_layernorm"], modules_to_save=["head"])
    return dataclasses.replace(place.scorer, model=get_peft_model(model, config).eval())


def together(place: Place, *folders: Path, **options: Any) -> Scorer:
    names = {folder.name: folder for folder in folders}
    return combine(place.scorer, names, pictures=dict.fromkeys(names, place.photos), **options)


def with_own(place: Place) -> Scorer:
    headed(place).save(place.here / "own")
    return together(place, place.adapter, place.here / "own")


def without_own(place: Place) -> None:
    together(place, place.adapter, place.copy("next"))
    grmp_hf.load(adapter=place.here / "own", model=place.base, head=Own()).score(place.photos)


def learn_beside(place: Place) -> None:
    """Learn from a base with a backbone beside it, and save that."""
    scorer = grmp_hf.load(place.base, side=place.side(1))
    table = grmp_hf.read_ratings(str(place.here / "rated.csv"))
    grmp_hf.adapt(scorer, table, recipe=QUICK).save(place.here / "mine")


def beside(place: Place) -> Any:
    learn_beside(place)
    return grmp_hf.load(adapter=place.here / "mine", side=place.side(2))


def look(tiles: bool) -> Asked:
    """The side network of the embedded base is asked about a picture that the processor has made views of."""

    def run(place: Place) -> Any:
        scorer = grmp_hf.load()
        processor = (scorer if tiles else scorer.without_tiles()).processor
        return scorer.model(**processor(decode_image(place.photos[0]), return_tensors="pt"), output_side=True)

    return run


def explained(scorer: Scorer, place: Place) -> None:
    assert scorer.score(place.photos[0], explain=True).explained is not None


def words(folder: Path) -> Path:
    """Put the embedded base's tokenizer into a folder."""
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / file, folder)
    return folder


def wordless(place: Place) -> None:
    """Save a random CLIP that takes sentences: as a model with ids of its anchors, and no tokenizer."""
    config = CLIPModel.from_pretrained(TINY).config
    config.text_config.max_position_embeddings = 30
    CLIPModel(config).save_pretrained(place.here / "clip")
    grmp_hf.load(words(place.here / "clip")).save(place.here / "saved")
    explained(grmp_hf.load(place.here / "saved"), place)


def short(place: Place) -> None:
    """Texts of the embedded base are too short for sentences, which a backbone beside it asks for."""
    explained(grmp_hf.load(side=place.side(1)), place)


def baked(place: Place) -> Scorer:
    scorer = grmp_hf.load(place.adapter)
    return dataclasses.replace(scorer, model=bake(scorer.model))


def broken(place: Place, dtype: str) -> Any:
    """The row of a picture of which a base in some precision says no number."""
    scorer = grmp_hf.load(place.base, dtype=dtype)
    with torch.no_grad():
        scorer.model.clip.visual_projection.weight.fill_(float("nan"))  # type: ignore[union-attr,operator]
    ((row,),) = scorer.iter_scores(place.photos[:1])
    return row


CASES = {
    "baked head": Case(lambda place: bake(headed(place).model), "Score with the model itself",  # type: ignore[arg-type]
                       lambda place: headed(place).score(place.photos)),
    "head of an expert": Case(with_own, "leave it out, and score with it alone", without_own),
    "seen differently": Case(lambda place: together(place, place.adapter, place.copy("wide", views=["whole"])),
                             "on one base with the same views",
                             lambda place: together(place, place.adapter, place.copy("alike"))),
    "clusters": Case(lambda place: together(place, place.adapter, place.copy("next"), clusters=0), "at least one clus",
                     lambda place: together(place, place.adapter, place.here / "next", clusters=1)),
    "another side network": Case(beside, "and without another --side",
                                 lambda place: grmp_hf.load(adapter=place.here / "mine").score(place.photos)),
    "no picture for the side network": Case(look(False), "processor of the scorer that grmp_hf.load gives", look(True)),
    "no text and no side network": Case(
        lambda place: explained(dataclasses.replace(grmp_hf.load(), model=bake(grmp_hf.load().model)), place),
        "Score with the base and the adapter that it was baked from", lambda place: explained(grmp_hf.load(), place),
    ),
    "no words": Case(wordless, "Put tokenizer.json, .* beside the CLIP",
                     lambda place: explained(grmp_hf.load(words(place.here / "saved")), place)),
    "short texts": Case(short, "or the embedded base with its own side network",
                        lambda place: explained(grmp_hf.load(), place)),
    "suggestions of a baked one": Case(
        lambda place: suggest(baked(place), place.photos, 2), "the adapter that it was baked from",
        lambda place: suggest(grmp_hf.load(adapter=place.adapter), place.photos, 2),
    ),
    "one picture": Case(lambda place: compare(place.scorer, place.photos[:1]), "Give as many",
                        lambda place: compare(place.scorer, place.photos[:2])),
    "side beside a baked one": Case(lambda place: (baked(place).model.save_pretrained(place.here / "baked"),  # type: ignore[operator]
                                                   grmp_hf.load(place.here / "baked", side=place.side(1))),
                                    "Name its base", lambda place: grmp_hf.load(place.base, side=place.side(1))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_advised_works(name: str, place: Place) -> None:
    follow(CASES[name], place)


def test_full_precision_is_advised_where_there_is_less(place: Place) -> None:
    assert broken(place, "bf16").message == "the model gave no number; use fp32 (--dtype, dtype=)"
    assert broken(place, "fp32").message == "the model gave no number; look for weights that are not finite"
