"""Advice in what a diffusion scorer refuses works: it is provoked, done as it says, and then succeeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

import grmp_hf
from grmp_hf import FewShotRecipe, Scorer
from grmp_hf.diffusion.decoder import MultiScaleDecoder
from grmp_hf.diffusion.prior import DiffusionPrior
from grmp_hf.diffusion.scorer import DiffusionScorer, as_scorer, diffusion_processor
from grmp_hf.diffusion.sentences import sentence_bank
from grmp_hf.embedded import embedded_folder
from tests.advised import Case, follow

NEW: dict[str, Any] = {"size": 64, "decoder": {"fused": 16, "narrowed": (4,), "hidden": 8}, "texts": ["good", "bad"]}
QUICK = FewShotRecipe(steps=1, features=False, bf16=False)
PICTURE = np.zeros((70, 80, 3), np.uint8)


class Place(NamedTuple):
    """A folder to work in, one like that of Stable Diffusion, a scorer on such a model, and a way to make parts."""

    here: Path
    folder: Path
    model: DiffusionScorer
    parts: Callable[..., Any]

    def without(self, *parts: str) -> Path:
        """A copy of the folder that lacks some of its parts."""
        return Path(shutil.copytree(self.folder, self.here / "sd", ignore=shutil.ignore_patterns(*parts)))

    @property
    def scorer(self) -> Scorer:
        return as_scorer(self.model, diffusion_processor(64))


@pytest.fixture
def place(
    make_parts: Callable[..., Any],
    make_diffusion: Callable[..., DiffusionScorer],
    diffusion_folder: Path,
    tmp_path: Path,
) -> Place:
    return Place(tmp_path, diffusion_folder, make_diffusion(), make_parts)


Asked = Callable[[Place], Any]


def new(*without: str, **settings: Any) -> Asked:
    return lambda place: DiffusionScorer.from_pretrained(
        place.without(*without) if without else place.folder, **{**NEW, **settings}
    )


def clip(place: Place) -> str:
    """Folder of a whole CLIP whose embeddings are as wide as the condition."""
    tokenizer = CLIPTokenizer.from_pretrained(embedded_folder())
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    words = {**tower, **ids, "vocab_size": len(tokenizer)}
    CLIPModel(CLIPConfig(text_config=words, vision_config=tower, projection_dim=32)).save_pretrained(place.here / "c")
    tokenizer.save_pretrained(place.here / "c")
    return str(place.here / "c")


def prior(width: int, channels: int = 4) -> Asked:
    def make(place: Place) -> DiffusionPrior:
        vae, unet = place.parts()
        vae.register_to_config(latent_channels=channels)
        return DiffusionPrior(vae, unet, torch.zeros(2, width))

    return make


def saved(place: Place, **settings: Any) -> DiffusionScorer:
    place.model.save_pretrained(place.here / "mine")
    return DiffusionScorer.from_pretrained(place.here / "mine", **settings)


def damaged(place: Place) -> DiffusionScorer:
    place.model.save_pretrained(place.here / "cut")
    (place.here / "cut" / "diffusion_scorer.safetensors").write_bytes(b"cut")
    return DiffusionScorer.from_pretrained(place.here / "cut")


def maps(count: int) -> Any:
    return MultiScaleDecoder((3,) * count, grid=2, fused=2, narrowed=(2,), hidden=2)([torch.zeros(1, 3, 4, 4)] * 2)


def decode(views: int) -> Asked:
    pixels = diffusion_processor(64)(PICTURE, return_tensors="pt")["pixel_values"]
    return lambda place: place.model(pixels.view(1, 1, 3, 64, 64).expand(-1, views, -1, -1, -1))


CASES = {
    "no folder": Case(lambda place: DiffusionScorer.from_pretrained(place.here, **NEW), "Name such a folder", new()),
    "no text encoder": Case(new("text_encoder"), "Name one: text=", lambda place: new(text=clip(place))(place)),
    "no words": Case(new("tokenizer"), "put tokenizer.json", lambda place: (
        shutil.copytree(place.folder / "tokenizer", place.here / "sd" / "tokenizer"),
        DiffusionScorer.from_pretrained(place.here / "sd", **NEW))),
    "long sentences": Case(new(texts=["good " * 99]), "Make them shorter: texts=", new(texts=["good"])),
    "bank": Case(prior(16), "the text encoder that belongs to the U-Net", lambda place: DiffusionPrior(
        *place.parts(), bank_of(place))),
    "latents": Case(prior(32, 9), "Load both from the folder of one model", new()),
    "sides": Case(lambda place: place.model.prior(torch.zeros(1, 3, 60, 60)), "Take views of such a size",
                  lambda place: place.model.prior(torch.zeros(1, 3, 64, 64))),
    "views": Case(decode(2), r"Use diffusion_processor\(\)", decode(1)),
    "maps": Case(lambda place: maps(3), "Make a decoder for as many", lambda place: maps(2)),
    "settings": Case(lambda place: saved(place, size=64), "leave them out", saved),
    "damaged": Case(damaged, "Copy the folder again", lambda place: (
        place.model.save_pretrained(place.here / "cut"), DiffusionScorer.from_pretrained(place.here / "cut"))),
    "saved as others are": Case(lambda place: place.scorer.save(place.here / "s"), r"model\.save_pretrained", saved),
    "adapted as others are": Case(lambda place: grmp_hf.adapt(place.scorer, rated(place), recipe=QUICK),
                                  r"Take what grmp_hf\.load gives",
                                  lambda place: grmp_hf.adapt(grmp_hf.load(), rated(place), recipe=QUICK)),
    "explained": Case(lambda place: place.scorer.score(PICTURE, explain=True), r"Take what grmp_hf\.load gives",
                      lambda place: grmp_hf.load().score(PICTURE, explain=True)),
}  # fmt: skip


def bank_of(place: Place) -> Any:
    encoder = CLIPTextModel.from_pretrained(place.folder / "text_encoder")
    return sentence_bank(encoder, CLIPTokenizer.from_pretrained(place.folder / "tokenizer"), ["good", "bad"])


def rated(place: Place) -> Any:
    lines = ["image,mos"]
    for at in range(6):
        Image.new("RGB", (64, 64), (40 * at, 9, 20)).save(place.here / f"{at}.png")
        lines.append(f"{at}.png,{1 + at % 5}")
    (place.here / "rated.csv").write_text("\n".join(lines))
    return grmp_hf.read_ratings(str(place.here / "rated.csv"))


@pytest.mark.parametrize("name", CASES)
def test_what_is_advised_works(name: str, place: Place) -> None:
    follow(CASES[name], place)
