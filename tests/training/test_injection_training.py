"""Injected local features under every way of training: a correlation, the gradient rule, episodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import ResNetConfig

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import plcc as correlation
from grmp_hf.modeling.linear_heads import Cosine
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.modeling.side import make_side
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.episodes import EpisodeDataset
from grmp_hf.training.objectives import plcc
from grmp_hf.training.pictures import RatedPictures, random_crops
from grmp_hf.training.sampling import repeated, within
from grmp_hf.training.trainer import GRMPTrainer

RESNET = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], out_features=["stage1", "stage2"])
SETTINGS: dict[str, Any] = {
    "name": "backbone",
    "config": json.loads(RESNET.to_json_string(False)),
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
QUIET: dict[str, Any] = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
PIXELS = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.rand(16, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def make_injected(make_scorer: Callable[..., Any]) -> Callable[..., PeftModel]:
    """`make_injected(head, **options)`: a new adapter on a small base with a small ResNet."""

    def make(head: bool = False, **options: Any) -> PeftModel:
        base = make_scorer()
        torch.manual_seed(5)
        base.put_beside(SETTINGS, make_side(SETTINGS))
        if head:
            base.head = Cosine(24, token=True)
            options["modules_to_save"] = ["head"]
        return get_peft_model(base, LoDaConfig(**{"latent": 8, "heads": 2, "grid": 2, **options}))

    return make


def weights(model: PeftModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def check_moved(model: PeftModel, before: dict[str, Tensor]) -> None:
    """Exactly the trained tensors have moved."""
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    after = weights(model)
    moved = {name for name in after if not torch.equal(after[name].nan_to_num(), before[name].nan_to_num())}
    assert moved == trained


def test_it_overfits_sixteen_pictures(make_injected: Callable[..., PeftModel], tmp_path: Path) -> None:
    """Random ratings of noise, which the head alone, on the frozen tower, does not reach."""
    found = {}
    for name in ("head alone", "all"):
        model = make_injected(head=True)
        before = weights(model)
        for key, weight in model.named_parameters():
            weight.requires_grad_(weight.requires_grad and (name == "all" or ".head." in key))
        rows = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(PIXELS, LABELS, strict=True)]
        arguments = GRMPTrainingArguments(str(tmp_path / name), max_steps=80, learning_rate=0.02, **QUIET)
        plan = within(["one"] * 16, 16)
        GRMPTrainer(model, arguments, objective=plcc, plan=plan, train_dataset=rows).train()
        check_moved(model, before)
        with torch.no_grad():
            found[name] = correlation(model.eval()(PIXELS).quality.numpy(), LABELS.numpy())
    assert found["all"] > 0.99 > found["head alone"] + 0.01, found


def test_crops_differ_in_every_pass_and_are_the_same_in_every_run(
    make_injected: Callable[..., PeftModel], tmp_path: Path
) -> None:
    pictures = torch.randint(0, 256, (4, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
    rated = RatedPictures(pictures.__getitem__, LABELS[:4], (0.5,) * 3, (0.2,) * 3, crop=random_crops(16), seed=3)
    plan = repeated(within(["one"] * 4, 4), 3)
    shown = {key for epoch in (0, 1) for batch in plan(epoch) for group in batch for key in group}
    assert len(shown) == 24
    assert len({rated[key]["pixel_values"].numpy().tobytes() for key in shown}) > 16
    ends = []
    for run in ("one", "two"):
        torch.manual_seed(0)
        model = make_injected(start="random")
        arguments = GRMPTrainingArguments(str(tmp_path / run), num_train_epochs=2, learning_rate=0.01, **QUIET)
        trainer = GRMPTrainer(model, arguments, objective=plcc, plan=plan, train_dataset=rated)
        assert trainer.train().global_step == 6
        ends.append(weights(model))
    assert all(np.array_equal(ends[0][name], ends[1][name], equal_nan=True) for name in ends[0])


def test_the_gradient_rule_acts_on_it(make_injected: Callable[..., PeftModel], tmp_path: Path) -> None:
    rows = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(PIXELS[:6], LABELS[:6], strict=True)]
    ends = []
    for strength in (0.0, 5.0):
        torch.manual_seed(0)
        model = make_injected(start="random")
        before = weights(model)
        settings = {"max_steps": 2, "learning_rate": 0.05, "regularization_strength": strength}
        arguments = GRMPTrainingArguments(str(tmp_path / str(strength)), **settings, **QUIET)
        GRMPTrainer(model, arguments, train_dataset=rows).train()
        check_moved(model, before)
        ends.append(weights(model))
    assert any(not torch.equal(ends[0][name].nan_to_num(), ends[1][name].nan_to_num()) for name in ends[0])


@pytest.mark.parametrize("algorithm", ["fomaml", "maml", "reptile"])
@pytest.mark.parametrize("objective", [None, plcc], ids=["quality", "plcc"])
def test_it_learns_from_episodes(
    algorithm: str, objective: Any, make_injected: Callable[..., PeftModel], tmp_path: Path
) -> None:
    def load(item: int, seed: int) -> dict[str, Tensor]:
        return {"pixel_values": PIXELS[item], "labels": LABELS[item]}

    items = {f"task {task}": range(8 * task, 8 * task + 8) for task in range(2)}
    episodes = EpisodeDataset(items, load, reference_of=lambda item: item // 2, support=3, query=2)
    torch.manual_seed(0)
    model = make_injected(start="random")
    before = weights(model)
    settings = {"meta_algorithm": algorithm, "inner_steps": 2, "inner_learning_rate": 0.1, "max_steps": 2}
    arguments = GRMPTrainingArguments(
        str(tmp_path), learning_rate=0.01, regularization_strength=0.0 if objective else 5.0, **settings, **QUIET
    )
    GRMPTrainer(model, arguments, objective=objective, train_dataset=episodes).train()
    check_moved(model, before)


def test_statistics_of_batches_are_refused_for_several_processes(
    make_injected: Callable[..., PeftModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(PIXELS, LABELS, strict=True)]
    arguments = GRMPTrainingArguments(str(tmp_path), max_steps=1, per_device_train_batch_size=16, **QUIET)
    model = make_injected(batch_statistics=True)
    GRMPTrainer(model, arguments, train_dataset=rows).train()
    tracked = [value for name, value in model.named_buffers() if ".statistics." in name and name.endswith("tracked")]
    assert tracked and all(int(value) == 1 for value in tracked), "the teacher has added none"
    monkeypatch.setattr(GRMPTrainingArguments, "world_size", 2)
    with pytest.raises(GRMPError, match="batch_statistics=True uses the statistics of each process's own part"):
        GRMPTrainer(model, arguments, train_dataset=rows)
