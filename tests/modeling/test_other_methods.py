"""Prompts, LoDa, PEFT's own LayerNorm and LoRA: each learns, is saved, loaded, switched, and baked or refused."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LNTuningConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.data import RatingScale
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import changes_embedding, copy_base, teacher_mode, unload
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.bases import base_fingerprint
from grmp_hf.modeling.heads import Features, GRMPOutput, Head, Text
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.record import CONFIG_FILE, RECORD, WEIGHTS_FILE, Record
from tests.modeling.test_side import put_side

PIXELS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0.1, 0.5, 0.9])


class Linear(Head):
    """A head of one's own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.last = torch.nn.Linear(width, 1)

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        return GRMPOutput(quality=self.last(features.pooled()).sigmoid().flatten())


EVERY = ["q_proj", "fc1", "visual_projection", "text_projection"]
METHODS: dict[str, Callable[[], PeftConfig]] = {
    "prompts": lambda: grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=3, prompt_dropout=0.0),
    "layer norm": lambda: LNTuningConfig(target_modules=["layer_norm1", "post_layernorm", "final_layer_norm"]),
    "lora": lambda: LoraConfig(target_modules=EVERY, r=2, init_lora_weights=False),
    "loda": lambda: LoDaConfig(latent=8, heads=2, grid=2),
}
BAKED = ("prompts", "layer norm", "lora")
TEXT = r".*text_model.*layer_norm1|.*final_layer_norm"


@pytest.fixture
def make_scorer(make_sided: Callable[..., Any]) -> Callable[..., Any]:
    """With a side network, which one of the methods needs."""
    return make_sided


@pytest.fixture(scope="session")
def clip_folder(clip_folder: Path, side_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a side network, which one of the methods needs."""
    return put_side(clip_folder, side_settings, tmp_path_factory.mktemp("bases") / "beside")


@pytest.fixture(params=METHODS.values(), ids=METHODS)
def method(request: pytest.FixtureRequest) -> Any:
    return request.param


def adapted(base: Any, config: PeftConfig, seed: int = 1) -> PeftModel:
    """A model whose adapter differs from its start everywhere."""
    torch.manual_seed(seed)
    return shift(get_peft_model(base, config)).eval()


@torch.no_grad()
def shift(model: PeftModel) -> PeftModel:
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(0.1 * torch.randn_like(weight))
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found = model(PIXELS, output_semantic=True)
    return torch.cat([found.quality_logits, found.semantic_logits], dim=1)


def test_without_the_adapter_it_is_the_base_bit_for_bit(method: Any, make_scorer: Any) -> None:
    expected, fingerprint = logits(make_scorer()), base_fingerprint(make_scorer())
    model = adapted(make_scorer(), method())
    moved = logits(model)
    assert (moved - expected).abs().max() > 1e-3
    assert base_fingerprint(model) == base_fingerprint(model.get_base_model()) == fingerprint
    assert changes_embedding(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected) and not changes_embedding(model)
    with teacher_mode(model):
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), moved)


def test_unloaded_it_is_the_base_bit_for_bit_with_a_head_that_was_trained_too(method: Any, make_scorer: Any) -> None:
    base, config = make_scorer(), method()
    base.head, config.modules_to_save = Linear(12), ["head"]
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    expected = base(PIXELS).quality
    model = adapted(base, config)
    with model.disable_adapter():
        assert torch.equal(model(PIXELS).quality, expected)
    with teacher_mode(model):
        assert torch.equal(model(PIXELS).quality, expected)
    assert not torch.equal(model(PIXELS).quality, expected)
    plain = unload(model)
    assert torch.equal(plain(PIXELS).quality, expected)
    after = plain.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], weight) for name, weight in before.items())
    copy_base(plain)


def test_what_was_merged_is_taken_out_again(make_scorer: Any) -> None:
    model = adapted(make_scorer(), METHODS["lora"]())
    model.merge_adapter()
    torch.testing.assert_close(logits(unload(model)), logits(make_scorer()))


def test_anchors_follow_every_change(method: Any, make_scorer: Any) -> None:
    model = adapted(make_scorer(), method())
    before = logits(model)

    def step(model: PeftModel) -> None:
        model(PIXELS, labels=LABELS).loss.backward()
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01, fused=True).step()

    for change in (shift, step):
        change(model)
        kept = logits(model)
        for cache in model.get_base_model()._anchors.values():
            cache.clear()
        assert torch.equal(kept, logits(model)) and not torch.equal(kept, before)


def test_several_are_switched_between(method: Any, make_scorer: Any) -> None:
    alone = [logits(adapted(make_scorer(), method(), seed)) for seed in (1, 2)]
    model = adapted(make_scorer(), method(), 1)
    torch.manual_seed(2)
    model.add_adapter("other", method())
    assert torch.equal(logits(model), alone[0])
    model.set_adapter("other")
    assert torch.equal(logits(shift(model)), alone[1])
    for name, expected in (("default", alone[0]), ("other", alone[1]), ("default", alone[0])):
        model.set_adapter(name)
        assert torch.equal(logits(model), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", BAKED)
def test_baked_it_scores_the_same(name: str, make_scorer: Any) -> None:
    model = adapted(make_scorer(), METHODS[name]())
    before = logits(model)
    baked = bake(model)
    torch.testing.assert_close(logits(baked), before, rtol=1e-5, atol=2e-5)
    assert torch.equal(logits(model), before)
    with model.disable_adapter():
        torch.testing.assert_close(logits(bake(model)), logits(make_scorer()), rtol=1e-5, atol=2e-5)


def test_injections_are_not_baked_and_say_what_to_do(make_scorer: Any) -> None:
    model = adapted(make_scorer(), METHODS["loda"]())
    with pytest.raises(GRMPError, match=r"no injected local features. Score with the adapter itself"):
        bake(model)
    with pytest.raises(GRMPError, match=r"cannot be merged into the base.*or score with the adapter itself"):
        model.merge_and_unload()
    with model.disable_adapter():
        torch.testing.assert_close(logits(bake(model)), logits(make_scorer()), rtol=1e-5, atol=2e-5)


def test_what_changes_the_texts_alone_leaves_embeddings(make_scorer: Any) -> None:
    for config in (LNTuningConfig(target_modules=TEXT), LoraConfig(target_modules=["text_projection"])):
        assert not changes_embedding(get_peft_model(make_scorer(), config))
    text = grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=0, anchor_residuals=True)
    assert not changes_embedding(get_peft_model(make_scorer(), text))
    blocks = grmp_hf.GRMPPromptConfig(visual_prompts=0, modules_to_save=["post_layernorm"])
    assert changes_embedding(get_peft_model(make_scorer(), blocks))


def own(clip_folder: Path, method: Any) -> Any:
    """A scorer with an adapter, on a scale of its own."""
    base = grmp_hf.load(clip_folder)
    processor = grmp_hf.GRMPImageProcessor(32, ("center",), None, shortest_edge_limit=48)
    scale = RatingScale(1, 5, higher_is_better=False, unit="stars")
    model = adapted(copy_base(base.model), method())
    return dataclasses.replace(base, model=model, scale=scale, processor=processor)


def test_saved_and_loaded_it_scores_the_same(
    method: Any, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    scorer = own(clip_folder, method)
    expected = scorer.score(photos).score
    scorer.save(tmp_path / "mine")
    for again in (grmp_hf.load(adapter=tmp_path / "mine"), grmp_hf.load(tmp_path / "mine")):
        assert np.array_equal(again.score(photos).score, expected)
        assert (again.scale, again.processor.settings()) == (scorer.scale, scorer.processor.settings())
        assert again.origin["base"] == clip_folder.name
    record = Record.load(tmp_path / "mine")
    assert record.fingerprint == scorer.identity["base_fingerprint"] and record.base == str(clip_folder)
    settings = json.loads((tmp_path / "mine" / CONFIG_FILE).read_text())
    assert (tmp_path / "mine" / RECORD).is_file() and not set(settings) & {"preprocessing", "rating_scale", "anchors"}
    assert "1 (best) to 5 (worst) stars" in (tmp_path / "mine" / "README.md").read_text()
    again.save(tmp_path / "copy")
    assert np.array_equal(grmp_hf.load(tmp_path / "copy").score(photos).score, expected)


def test_a_merged_layer_norm_is_saved_as_it_was_learnt(clip_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    scorer = own(clip_folder, METHODS["layer norm"])
    expected = scorer.score(photos).score
    scorer.model.merge_adapter()
    scorer.save(tmp_path / "mine")
    assert scorer.model.get_base_model().clip.vision_model.post_layernorm.merged  # as it was left
    assert np.array_equal(scorer.score(photos).score, expected)
    assert np.array_equal(grmp_hf.load(tmp_path / "mine").score(photos).score, expected)


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time:UserWarning")
@pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
def test_an_adapter_around_another_is_not_saved_alone(
    method: Any, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    scorer = own(clip_folder, method)
    nested = get_peft_model(scorer.model, LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
    with pytest.raises(GRMPError, match=r"only the outer one would be saved. Learn it anew on the base alone"):
        dataclasses.replace(scorer, model=nested.eval()).save(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    nested.save_pretrained(tmp_path / "peft")  # which does not ask
    with pytest.raises(GRMPError, match=r"are missing \(base_model.*learn it again on the base"):
        grmp_hf.load(clip_folder, adapter=tmp_path / "peft")


def test_two_loras_that_act_together_are_not_saved_as_one(clip_folder: Path, tmp_path: Path) -> None:
    scorer = own(clip_folder, METHODS["lora"])
    scorer.model.add_adapter("other", METHODS["lora"]())
    scorer.model.base_model.set_adapter(["default", "other"])
    both = dataclasses.replace(scorer, model=copy.deepcopy(scorer.model))
    with pytest.raises(GRMPError, match=r"got 2 \(default, other\). Let one of them act: model.set_adapter"):
        both.save(tmp_path / "mine")
    both.model.set_adapter("other")
    dataclasses.replace(both, model=copy.deepcopy(both.model)).save(tmp_path / "mine")


@pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
def test_an_adapter_that_lacks_a_tensor_is_refused(
    method: Any, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    own(clip_folder, method).save(tmp_path / "mine")
    file = tmp_path / "mine" / WEIGHTS_FILE
    tensors = load_file(file)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, file)
    with pytest.raises(GRMPError, match=r"Adapter 'mine'.* (missing|lacks)"):
        grmp_hf.load(clip_folder, adapter=tmp_path / "mine")


def test_the_ways_of_transformers_load_it_too(
    method: Any, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    from transformers import pipeline

    scorer = own(clip_folder, method)
    expected = scorer.score(photos).score
    scorer.save(tmp_path / "mine")
    model = grmp_hf.GRMPForImageQualityAssessment.from_pretrained(tmp_path / "mine").eval()
    for place in (str(tmp_path / "mine"), scorer.model, model):
        scores = pipeline("image-quality-assessment", model=place)([str(photo) for photo in photos])
        np.testing.assert_allclose([row["score"] for row in scores], expected, atol=1e-5)


def test_another_base_is_refused(method: Any, clip_folder: Path, tmp_path: Path) -> None:
    own(clip_folder, method).save(tmp_path / "mine")
    other = grmp_hf.GRMPForImageQualityAssessment.from_pretrained(clip_folder)
    with torch.no_grad():
        other.clip.visual_projection.weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(GRMPError, match="other base_fingerprint"):
        grmp_hf.load(tmp_path / "other", adapter=tmp_path / "mine")
    with pytest.raises(GRMPError, match="other base_fingerprint"):
        other.load_adapter(str(tmp_path / "mine"))


@pytest.mark.parametrize("strength", [0.0, 5.0])
def test_the_trainer_trains_it(method: Any, strength: float, clip_folder: Path, tmp_path: Path) -> None:
    base = grmp_hf.load(clip_folder)
    model = get_peft_model(copy_base(base.model), method())
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": label} for label in LABELS]
    arguments = grmp_hf.GRMPTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        learning_rate=0.1,
        regularization_strength=strength,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="steps",
        save_steps=2,
    )
    trainer = grmp_hf.GRMPTrainer(model, arguments, train_dataset=rows, processing_class=base.processor)
    trainer.train()
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) != weight.requires_grad, name
    loaded = grmp_hf.load(clip_folder, adapter=tmp_path / "checkpoint-2")
    pixels = torch.stack([row["pixel_values"] for row in rows])
    with torch.no_grad():
        assert torch.equal(loaded.model(pixels).quality, model.eval()(pixels).quality)
    assert loaded.processor.settings() == base.processor.settings()


@pytest.mark.parametrize("kind", ["dora", "merged", "merged and unloaded"])
def test_trained_saved_and_loaded_lora_scores_the_same(
    kind: str, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    base = grmp_hf.load(clip_folder)
    model = get_peft_model(copy_base(base.model), LoraConfig(target_modules=EVERY, r=2, use_dora=kind == "dora"))
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": label} for label in LABELS]
    arguments = grmp_hf.GRMPTrainingArguments(str(tmp_path / "run"), max_steps=2, learning_rate=0.1, use_cpu=True)
    grmp_hf.GRMPTrainer(model, arguments, train_dataset=rows).train()
    scorer = dataclasses.replace(base, model=model.eval())
    expected = scorer.score(photos).quality
    assert np.abs(expected - base.score(photos).quality).max() > 1e-3
    if kind == "merged":
        model.merge_adapter()
        np.testing.assert_allclose(scorer.score(photos).quality, expected, atol=1e-5)
    elif kind == "merged and unloaded":
        scorer = dataclasses.replace(scorer, model=model.merge_and_unload())
        expected = scorer.score(photos).quality
    scorer.save(tmp_path / "mine")
    loaded = grmp_hf.load(tmp_path / "mine")
    assert np.array_equal(loaded.score(photos).quality, expected)


@pytest.mark.parametrize("name", ["layer norm", "lora"])
def test_a_head_of_ones_own_is_loaded_with_it(name: str, clip_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    base = grmp_hf.load(clip_folder)
    base.model.head = Linear()
    config = METHODS[name]()
    config.modules_to_save = ["head"]
    scorer = dataclasses.replace(base, model=adapted(base.model, config))
    expected = scorer.score(photos).quality
    scorer.save(tmp_path / "mine")
    assert np.array_equal(grmp_hf.load(tmp_path / "mine", head=Linear()).score(photos).quality, expected)
    with pytest.raises(GRMPError, match=r"'Linear', which is none of this package.*hand it in"):
        grmp_hf.load(tmp_path / "mine")


def test_the_commands_take_it(method: Any, clip_folder: Path, photos: list[Path], tmp_path: Path, capsys: Any) -> None:
    scorer = own(clip_folder, method)
    expected = scorer.score(photos).score
    scorer.save(tmp_path / "mine")
    ways = [("--adapter", "mine"), ("--model", "baked")] if method is not METHODS["loda"] else [("--adapter", "mine")]
    baked = main(["bake", "--adapter", str(tmp_path / "mine"), str(tmp_path / "baked")])
    assert baked == (0 if len(ways) == 2 else 2)
    for option, place in ways:
        table = tmp_path / f"{place}.csv"
        files = [str(photo) for photo in photos]
        assert main(["score", *files, option, str(tmp_path / place), "--output", str(table)]) == 0
        with table.open(newline="") as file:
            found = [float(row["score"]) for row in csv.DictReader(file)]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    ratings = photos[0].parent / "ratings.csv"
    rows = [f"{photo.name},{1 + 4 * index / 11:.3f}" for index, photo in enumerate(photos)]
    ratings.write_text("image,mos\n" + "\n".join(rows) + "\n")
    capsys.readouterr()
    options = ["--range", "1", "5", "--lower-is-better", "--json"]
    assert main(["evaluate", str(ratings), "--adapter", str(tmp_path / "mine"), *options]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 12
