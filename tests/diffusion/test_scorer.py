from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.data.scales import RatingScale
from grmp_hf.diffusion.fitting import DiffusionRecipe, adapt_diffusion, squared_error
from grmp_hf.diffusion.scorer import SETTINGS, SIZE, WEIGHTS, DiffusionScorer, as_scorer, diffusion_processor
from grmp_hf.diffusion.sentences import sentence_bank
from grmp_hf.embedded import embedded_folder
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.templates import AXES, sentences
from grmp_hf.training.pictures import RatedPictures

LABELS = torch.rand(8, generator=torch.Generator().manual_seed(4))
NOISE = torch.rand(8, 1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
PIXELS = (255 * NOISE * LABELS.view(8, 1, 1, 1, 1)).to(torch.uint8)  # the brighter, the better
SMALL: dict[str, Any] = {"size": 64, "decoder": {"fused": 16, "narrowed": (8, 4), "hidden": 16}}


def rated(labels: torch.Tensor = LABELS) -> RatedPictures:
    return RatedPictures(PIXELS.__getitem__, labels, (0.0,) * 3, (1.0,) * 3)


@torch.no_grad()
def said(model: Any, pixels: torch.Tensor = PIXELS) -> Any:
    return model.eval()(normalize(pixels, (0.0,) * 3, (1.0,) * 3))


@torch.no_grad()
def test_quality_is_the_part_of_the_score_within_the_scale(make_diffusion: Callable[..., DiffusionScorer]) -> None:
    model = make_diffusion()
    model.decoder.score[4].bias.add_(1 - said(model).mean.mean())
    found = said(model)
    assert found.quality_map.shape == (8, 4, 8, 8)
    assert found.mean.max() > 1 > found.mean.min() and torch.equal(found.quality, found.mean.clamp(0, 1))
    again = model(normalize(PIXELS[:, 0], (0.0,) * 3, (1.0,) * 3), labels=LABELS[:, None])
    assert torch.equal(again.mean, found.mean)
    torch.testing.assert_close(again.loss, (found.mean - LABELS).square().mean())
    with pytest.raises(GRMPError, match="Expected one view of each picture, got 2"):
        model(torch.zeros(1, 2, 3, 64, 64))


@pytest.mark.parametrize("train", ["all", "decoder"])
def test_it_learns_and_the_vae_stays(
    train: Any, make_diffusion: Callable[..., DiffusionScorer], tmp_path: Path
) -> None:
    model = make_diffusion()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = DiffusionRecipe(train=train, epochs=15, batch_size=4, learning_rate=0.003, bf16=False)
    assert adapt_diffusion(model, rated(), recipe=recipe, output_dir=tmp_path) is model
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if name.startswith(("prior.vae.", "prior.bank"))]
    assert any(name.startswith("prior.unet.") for name in moved) == (train == "all")
    for part in ("prior.text_adapter.gamma", "prior.image_adapter.", "decoder.scales.", "decoder.score."):
        assert any(name.startswith(part) for name in moved), part
    error = (said(model).mean - LABELS).square().mean()
    assert error < {"all": 0.25, "decoder": 0.75}[train] * (LABELS - LABELS.mean()).square().mean()
    assert not any(tmp_path.iterdir()), "the state of the run is gone"


def test_training_repeats_itself(make_diffusion: Callable[..., DiffusionScorer], tmp_path: Path) -> None:
    recipe = DiffusionRecipe(epochs=1, batch_size=4, learning_rate=0.001, bf16=False)
    ends = [
        said(adapt_diffusion(make_diffusion(), rated(), recipe=recipe, seed=3, output_dir=tmp_path)) for _ in range(2)
    ]
    assert torch.equal(ends[0].mean, ends[1].mean)


def test_the_loss_is_that_of_the_open_axis(make_diffusion: Callable[..., DiffusionScorer]) -> None:
    model = make_diffusion()
    with torch.no_grad():
        model.decoder.score[4].bias.fill_(3.0)  # outside the scale, where the quality has no gradient
    batch = {"pixel_values": normalize(PIXELS, (0.0,) * 3, (1.0,) * 3), "labels": LABELS}
    term = squared_error(lambda inputs: model(**inputs), lambda inputs: None, batch)["quality"]
    torch.testing.assert_close(term.mean.detach(), (said(model).mean - LABELS).square().mean())
    term.mean.backward()  # type: ignore[no-untyped-call]
    assert model.decoder.score[4].bias.grad.abs() > 0 and term.weight == 8


_SAY = """
import sys, torch
from grmp_hf.diffusion.scorer import DiffusionScorer
model = DiffusionScorer.from_pretrained(sys.argv[1])
with torch.no_grad():
    torch.save(dict(model(torch.load(sys.argv[2]))), sys.argv[3])
"""


def test_another_process_says_the_same(
    make_diffusion: Callable[..., DiffusionScorer], tmp_path: Path, elsewhere: Callable[..., Any]
) -> None:
    recipe = DiffusionRecipe(epochs=1, batch_size=4, learning_rate=0.001, bf16=False)
    model = adapt_diffusion(
        make_diffusion(gamma=0.01, time_step=3), rated(), recipe=recipe, output_dir=tmp_path / "run"
    )
    expected = said(model)
    model.save_pretrained(tmp_path / "mine")
    torch.save(normalize(PIXELS, (0.0,) * 3, (1.0,) * 3), tmp_path / "pixels.pt")
    elsewhere(_SAY, *(tmp_path / name for name in ("mine", "pixels.pt", "said.pt")))
    found = torch.load(tmp_path / "said.pt")
    assert found.keys() == {"quality", "mean", "quality_map"}
    assert all(torch.equal(found[name], expected[name]) for name in found)
    loaded = DiffusionScorer.from_pretrained(tmp_path / "mine")
    assert loaded.prior.settings() == model.prior.settings() and loaded.prior.time_step == 3
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_folder_of_stable_diffusion_becomes_a_new_scorer(diffusion_folder: Path) -> None:
    torch.manual_seed(0)
    model = DiffusionScorer.from_pretrained(diffusion_folder, **SMALL, image_adapter=False)
    assert model.prior.bank.shape == (495, 32) and model.prior.bank.std(0).min() > 0
    assert not model.training and said(model).quality_map.shape == (8, 4, 8, 8)
    torch.manual_seed(0)
    few = DiffusionScorer.from_pretrained(diffusion_folder, **SMALL, texts=["a photo", "a blurred photo"])
    assert few.prior.bank.shape == (2, 32) and few.prior.image_adapter is not None


def test_the_sentences_may_be_those_of_a_whole_clip(diffusion_folder: Path, tmp_path: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(embedded_folder())
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    words = {**tower, **ids, "vocab_size": len(tokenizer)}
    torch.manual_seed(5)
    clip = CLIPModel(CLIPConfig(text_config=words, vision_config={**tower, "image_size": 8}, projection_dim=32)).eval()
    clip.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    model = DiffusionScorer.from_pretrained(
        diffusion_folder, **SMALL, text=tmp_path / "clip", texts=["a photo", "a blur"]
    )
    assert torch.equal(model.prior.bank, sentence_bank(clip, tokenizer, ["a photo", "a blur"]))
    own = DiffusionScorer.from_pretrained(diffusion_folder, **SMALL, texts=["a photo", "a blur"])
    assert not torch.equal(own.prior.bank, model.prior.bank)


def test_sentences_are_embedded_one_by_one() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(embedded_folder())
    clip = CLIPModel.from_pretrained(embedded_folder(), dtype=torch.float32)
    texts = sentences({"distortion": AXES["distortion"][2:9]})
    bank = sentence_bank(clip, tokenizer, texts)
    assert bank.shape == (7, clip.config.projection_dim)
    with torch.no_grad():
        ids = tokenizer(texts[3:4], return_tensors="pt")
        alone = clip.text_projection(clip.text_model(**ids).pooler_output)[0]
    torch.testing.assert_close(bank[3], alone, atol=1e-5, rtol=0)
    with pytest.raises(GRMPError, match="sentences of at most 16 tokens, got one of 2"):
        sentence_bank(clip, tokenizer)


def test_it_scores_files_on_the_users_scale(
    make_diffusion: Callable[..., DiffusionScorer], photos: list[Path], tmp_path: Path
) -> None:
    scorer = as_scorer(make_diffusion(), diffusion_processor(64), RatingScale(1, 5, unit="stars"))
    found = scorer.score(photos[:3])
    assert np.ptp(found.quality) > 0 and np.array_equal(found.score, 1 + 4 * found.quality)
    pixels = torch.stack([scorer.views(photo) for photo in photos[:3]])
    np.testing.assert_array_equal(said(scorer.model, pixels).quality.numpy(), found.quality)
    with pytest.raises(GRMPError, match=r"DiffusionScorer, which saves itself: model\.save_pretrained"):
        scorer.save(tmp_path / "mine")


def test_a_saved_scorer_keeps_its_preprocessing_and_scale(
    make_diffusion: Callable[..., DiffusionScorer], diffusion_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    given = (diffusion_processor(64, "stretched", signed=True), RatingScale(1, 5, higher_is_better=False, unit="marks"))
    scorer = as_scorer(make_diffusion(), *given)
    scorer.model.save_pretrained(tmp_path / "mine")
    again = as_scorer(DiffusionScorer.from_pretrained(tmp_path / "mine"))
    assert (again.processor.settings(), again.scale) == (given[0].settings(), given[1])
    np.testing.assert_array_equal(again.score(photos[:2]).score, scorer.score(photos[:2]).score)
    other = as_scorer(again.model, diffusion_processor(32), RatingScale(0, 100))
    assert other.processor.size == 32 and other.scale == RatingScale(0, 100)
    assert as_scorer(DiffusionScorer.from_pretrained(diffusion_folder, **SMALL)).processor.size == SMALL["size"]
    settings = json.loads((tmp_path / "mine" / SETTINGS).read_text())
    earlier = {name: settings[name] for name in ("prior", "decoder")}
    (tmp_path / "mine" / SETTINGS).write_text(json.dumps(earlier))
    assert as_scorer(DiffusionScorer.from_pretrained(tmp_path / "mine")).processor.size == SIZE


def test_settings_that_nothing_knows_are_named_before_anything_is_loaded() -> None:
    with pytest.raises(GRMPError, match="settings out of gamma, time_step, sampled, image_adapter, got gama"):
        DiffusionScorer.from_pretrained("nowhere", gama=3)
    with pytest.raises(GRMPError, match="sizes of the decoder out of grid, fused, narrowed, hidden, got width"):
        DiffusionScorer.from_pretrained("nowhere", decoder={"width": 3})


def test_nothing_else_loads_a_saved_scorer(
    make_diffusion: Callable[..., DiffusionScorer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_diffusion().save_pretrained(tmp_path / "teach")
    with pytest.raises(GRMPError, match=r"model: .*teach' holds a diffusion scorer; score with .*from_pretrained"):
        grmp_hf.load(str(tmp_path / "teach"))
    assert main(["score", "--model", str(tmp_path / "teach"), str(tmp_path)]) == 2
    assert "DiffusionScorer.from_pretrained" in capsys.readouterr().err


def test_pixels_lie_where_they_are_wanted() -> None:
    white = torch.full((1, 1, 3, 8, 8), 255, dtype=torch.uint8)
    for signed, ends in ((False, (0.0, 1.0)), (True, (-1.0, 1.0))):
        processor = diffusion_processor(8, signed=signed)
        for pixels, end in zip((0 * white, white), ends, strict=True):
            assert normalize(pixels, processor.image_mean, processor.image_std).unique().tolist() == [end]


def test_folders_that_hold_something_else_are_named(
    diffusion_folder: Path, make_diffusion: Callable[..., DiffusionScorer], tmp_path: Path
) -> None:
    with pytest.raises(GRMPError, match="Expected the folders vae and unet of a Stable Diffusion in"):
        DiffusionScorer.from_pretrained(tmp_path, local_files_only=True)
    without = shutil.copytree(diffusion_folder, tmp_path / "without")
    shutil.rmtree(without / "text_encoder")
    with pytest.raises(GRMPError, match=r"Expected a CLIP for the sentences in .*Name one: text="):
        DiffusionScorer.from_pretrained(without, **SMALL, local_files_only=True)
    make_diffusion().save_pretrained(tmp_path / "mine")
    with pytest.raises(GRMPError, match="Expected no settings for a scorer that was saved, got size, gamma"):
        DiffusionScorer.from_pretrained(tmp_path / "mine", size=64, gamma=0.0)
    settings = json.loads((tmp_path / "mine" / SETTINGS).read_text())
    settings["decoder"]["hidden"] = 17
    (tmp_path / "mine" / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(GRMPError, match=r"Expected exactly the weights of .*decoder.score"):
        DiffusionScorer.from_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / WEIGHTS).write_bytes(b"")
    with pytest.raises(GRMPError, match="Expected a diffusion scorer in"):
        DiffusionScorer.from_pretrained(tmp_path / "mine")


def test_recipes_that_cannot_be(make_diffusion: Callable[..., DiffusionScorer], tmp_path: Path) -> None:
    for wrong, message in (
        ({"epochs": -1}, "epochs of at least 0"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"train": "unet"}, "train out of all, decoder, got 'unet'"),
    ):
        with pytest.raises(GRMPError, match=message):
            DiffusionRecipe(**wrong)  # type: ignore[arg-type]
    with pytest.raises(GRMPError, match="pictures with different ratings"):
        adapt_diffusion(make_diffusion(), rated(torch.full((8,), 0.5)), output_dir=tmp_path)
    assert dataclasses.asdict(DiffusionRecipe())["learning_rate"] == 1e-5
