"""Gradients, the rule and whole training runs against numbers of the authors' own modules."""

from __future__ import annotations

import json
import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.conversion import to_authors_name, to_authors_state_dict
from grmp_hf.modeling.functional import semantic_cross_entropy
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.episodes import Episode, collate_episodes
from grmp_hf.training.gradients import Gradients, named_gradients
from grmp_hf.training.objectives import Batch
from grmp_hf.training.rules import alignment, turn_away
from grmp_hf.training.trainer import GRMPTrainer

GOLDEN = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "golden.py"))


@pytest.fixture
def gradients(make_golden_model: Callable[[], PeftModel], golden: dict[str, Tensor]) -> tuple[Gradients, Gradients]:
    """Quality and semantic gradient of every parameter, from one forward pass in training mode."""
    model, pixels = make_golden_model().train(), golden["in.pixel_values"]
    parameters = {name: parameter.requires_grad_() for name, parameter in model.named_parameters()}
    with teacher_mode(model):
        teacher = model(pixels, output_semantic=True).semantic_logits
    output = model(pixels, labels=golden["in.labels"], output_semantic=True)
    semantic = semantic_cross_entropy(output.semantic_logits, teacher)
    return (
        named_gradients(output.loss, parameters, retain_graph=True),
        named_gradients(semantic, parameters),
    )


def under_their_names(gradients: Gradients) -> Gradients:
    """Gradients under the reference's names, q, k and v packed as there."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, gradient in gradients.items():
        letter = next((letter for letter in "qkv" if f".{letter}_proj." in name), "")
        grouped.setdefault(to_authors_name(name), {})[letter] = gradient
    packed = {
        name: parts[""] if "" in parts else torch.cat([parts[k] for k in "qkv"]) for name, parts in grouped.items()
    }
    return packed | {"image_encoder.prompt_embeddings": packed["image_encoder.prompt_embeddings"][None]}


@pytest.mark.parametrize("kind", ["quality", "semantic", "regularized_l1", "regularized_l5"])
def test_gradients(gradients: tuple[Gradients, Gradients], golden: dict[str, Tensor], kind: str) -> None:
    task, semantic = gradients
    got = {"quality": task, "semantic": semantic}.get(kind) or turn_away(task, semantic, float(kind[-1]))
    ours = under_their_names(got)
    theirs = {name.split(".", 2)[2]: grad for name, grad in golden.items() if name.startswith(f"grad.{kind}.")}
    assert len(theirs) == 59
    for name, expected in theirs.items():
        assert (ours[name] - expected).norm() <= 5e-5 * expected.norm(), name


@pytest.mark.parametrize("trained", ["official", "all"])
def test_angle(
    gradients: tuple[Gradients, Gradients], golden: dict[str, Tensor], golden_folder: Path, trained: str
) -> None:
    with safe_open(golden_folder / "official_small.safetensors", "pt") as file:
        names = set(json.loads(file.metadata()[f"trainable_{trained}"]))
    task, semantic = ({n: g for n, g in grads.items() if to_authors_name(n) in names} for grads in gradients)
    pairs = {
        f"dot_{trained}": sum((task[name] * semantic[name]).sum() for name in task),
        f"quality_norm_sq_{trained}": sum(gradient.square().sum() for gradient in task.values()),
        f"semantic_norm_sq_{trained}": sum(gradient.square().sum() for gradient in semantic.values()),
    }
    for name, value in pairs.items():
        assert math.isclose(value, golden[f"out.{name}"], abs_tol=2e-5), name
    angle = math.degrees(math.acos(alignment(task, semantic)))
    assert math.isclose(angle, golden[f"out.angle_deg_{trained}"], abs_tol=1e-3)


def train(
    model: PeftModel, golden: dict[str, Tensor], folder: Path, *, steps: int, lr: float, **options: Any
) -> list[float]:
    """Run the Trainer itself with the authors' settings; the losses."""
    args = GOLDEN["arguments"](str(folder), steps, lr, logging_steps=1)
    trainer = GRMPTrainer(model, args, train_dataset=GOLDEN["OneBatch"](golden), **options)
    trainer.train()
    model.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("suffix", "count"), [("", 53), ("_all", 59)])
def test_five_steps(golden: dict[str, Tensor], tmp_path: Path, suffix: str, count: int) -> None:
    model = GOLDEN["start"](golden, freeze_visual_prompts=not suffix)
    losses = train(model, golden, tmp_path, steps=5, lr=1e-3)
    after = to_authors_state_dict(model)
    theirs = {name.split(".", 1)[1]: w for name, w in golden.items() if name.startswith(f"after5{suffix}.")}
    assert len(theirs) == count
    for name, weight in theirs.items():
        change, expected = after[name] - golden[f"state.{name}"], weight - golden[f"state.{name}"]
        assert (change - expected).norm() <= 2e-3 * expected.norm(), name
    assert all(torch.equal(w, golden[f"state.{name}"]) for name, w in after.items() if name not in theirs)
    with torch.no_grad():
        output = model(golden["in.pixel_values"])
    torch.testing.assert_close(output.quality, golden[f"out.score_after5{suffix}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.quality_logits, golden[f"out.logits_after5{suffix}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(losses), golden[f"out.xe_losses_5{suffix}"], atol=2e-5, rtol=0)


def test_thirty_steps(golden: dict[str, Tensor], tmp_path: Path) -> None:
    model = GOLDEN["start"](golden, freeze_visual_prompts=True)
    losses = train(model, golden, tmp_path, steps=30, lr=3e-2)
    with torch.no_grad():
        quality = model(golden["in.pixel_values"]).quality
    torch.testing.assert_close(quality, golden["out.score_after30_lr3e-2"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(losses), golden["out.xe_losses_30_lr3e-2"], atol=1e-4, rtol=0)


def test_angle_at_the_fifth_step(golden: dict[str, Tensor], tmp_path: Path) -> None:
    angles: list[float] = []

    def rule(gradients: dict[str, Gradients], _parameters: Any) -> Gradients:
        task, semantic = gradients["quality"], gradients["semantic"]
        angles.append(math.degrees(math.acos(alignment(task, semantic))))
        return turn_away(task, semantic, 5.0)

    model = GOLDEN["start"](golden, freeze_visual_prompts=True)
    train(model, golden, tmp_path, steps=5, lr=1e-3, rule=rule)
    assert math.isclose(angles[4], golden["out.angle_deg_epoch4"], abs_tol=1e-3)


class Visits(Dataset[Episode]):
    """The tasks of the golden file in the order in which the authors' loop came to them."""

    def __init__(self, meta: dict[str, Tensor]) -> None:
        self.meta = meta
        order = zip(meta["order.dataset"].tolist(), meta["order.task"].tolist(), strict=True)
        self.order = [(("tid2013", "kadid10k")[dataset], task) for dataset, task in order]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Episode:
        name, task = self.order[index]
        support, query = (self._batches(f"in.{name}.task{task}.{side}") for side in ("support", "query"))
        return {"task": name, "support": support, "query": query, "fresh_optimizer": name == "kadid10k"}

    def _batches(self, prefix: str) -> list[Batch]:
        pairs = [(self.meta[f"{prefix}{j}.pixel_values"], self.meta[f"{prefix}{j}.labels"]) for j in (0, 1)]
        return [{"pixel_values": pixels.float(), "labels": labels.flatten()} for pixels, labels in pairs]


def test_two_epochs_of_the_authors_pre_training(
    make_golden_model: Callable[[], PeftModel], golden_folder: Path, tmp_path: Path
) -> None:
    meta = load_file(golden_folder / "official_meta_small.safetensors")
    model, visits = make_golden_model(), Visits(meta)
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(".grmp_" in parameter_name)
    args = GRMPTrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=2,
        train_sampling_strategy="sequential",
        learning_rate=1e-2,
        optim="sgd",
        lr_scheduler_type="constant",
        meta_algorithm="authors",
        inner_learning_rate=1e-4,
        inner_optimizer="adam",
        regularization_strength=0.0,
        use_cpu=True,
        save_steps=2,
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = GRMPTrainer(model, args, train_dataset=visits, data_collator=collate_episodes)
    trainer.train()
    for epoch in (1, 2):
        checkpoint = tmp_path / f"checkpoint-{2 * epoch}"
        outer = load_file(checkpoint / "adapter_model.safetensors")
        run = load_file(checkpoint / "inner_run.safetensors")
        inner = {name.split("/")[1]: value for name, value in run.items() if name.startswith("parameters/")}
        for kind, ours in (("meta", outer), ("temp", inner)):
            named = under_their_names(
                {re.sub(r"(grmp_\w+)\.(?!default)", r"\1.default.", n): w for n, w in ours.items()}
            )
            theirs = {name.split(".", 1)[1]: w for name, w in meta.items() if name.startswith(f"{kind}_after{epoch}.")}
            assert len(theirs) == 7
            for name, weight in theirs.items():
                assert (named[name] - weight).abs().max() <= 1e-5, (kind, epoch, name)
