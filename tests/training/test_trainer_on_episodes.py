from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.func import functional_call

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.functional import semantic_cross_entropy
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.episodes import EpisodeDataset
from grmp_hf.training.meta_learning import InnerLoop, adapt_to_support, fomaml
from grmp_hf.training.objectives import Batch, Term
from grmp_hf.training.rules import turn_away
from grmp_hf.training.trainer import GRMPTrainer

MakeAdapted = Callable[..., PeftModel]
FORWARD = 100 * torch.finfo(torch.float32).eps
"""What two inner steps and a forward pass may differ by: a hundred roundings in one direction."""

SGD = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant"}
INNER = {"inner_steps": 2, "inner_learning_rate": 0.1}
BLOCKS = ["layers.2", "final_layer_norm", "post_layernorm"]


def episodes(tasks: int = 2, dtype: torch.dtype = torch.float32, **options: Any) -> EpisodeDataset[int]:
    """Tasks of eight pictures of noise from four references."""
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(8 * tasks, 3, 16, 16, generator=generator).to(dtype)
    labels = torch.rand(8 * tasks, generator=generator).to(dtype)

    def load(item: int, seed: int) -> dict[str, Tensor]:
        return {"pixel_values": pixels[item], "labels": labels[item]}

    items = {f"task {task}": range(8 * task, 8 * task + 8) for task in range(tasks)}
    sizes = {"support": 3, "query": 2, **options}
    return EpisodeDataset(items, load, reference_of=lambda item: item // 2, **sizes)


def make(model: PeftModel, folder: Path, data: EpisodeDataset[int] | None = None, **options: Any) -> GRMPTrainer:
    quiet = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    given = {**quiet, **INNER, "per_device_train_batch_size": 2, **options}
    evaluated = given.pop("eval_dataset", None)
    args = GRMPTrainingArguments(output_dir=str(folder), **given)
    return GRMPTrainer(model, args, train_dataset=data or episodes(), eval_dataset=evaluated)


def trained(model: PeftModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def train(model: PeftModel, folder: Path, data: EpisodeDataset[int] | None = None, **options: Any) -> dict[str, Tensor]:
    make(model, folder, data, **options).train()
    return trained(model)


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left if left[name].numel())


def loss_under(model: PeftModel, parameters: Any, batch: Batch) -> Tensor:
    return functional_call(model, dict(parameters), (), dict(batch)).loss  # type: ignore[no-any-return]


@pytest.mark.parametrize("strength", [0.0, 5.0])
def test_a_step_takes_the_rule_of_the_mean_over_tasks(
    make_adapted: MakeAdapted, tmp_path: Path, strength: float, rounding: Callable[..., float]
) -> None:
    """The rule acts where both losses reach a tensor, so the step differs from the one without it."""
    data, model = episodes(), make_adapted()
    start = trained(model)

    def judge(parameters: Any, batch: Batch) -> dict[str, Term]:
        output = functional_call(model, dict(parameters), (), {**batch, "output_semantic": True})
        with teacher_mode(model):
            teacher = model(batch["pixel_values"], output_semantic=True).semantic_logits
        semantic = semantic_cross_entropy(output.semantic_logits, teacher)
        return {"quality": Term(output.loss, len(teacher)), "semantic": Term(semantic, len(teacher))}

    loss_of = functools.partial(loss_under, model)
    parts = [fomaml(loss_of, start, data[0, index], InnerLoop(2, 0.1), judge) for index in range(2)]
    task, semantic = (
        {name: (parts[0][kind].gradients[name] + parts[1][kind].gradients[name]) / 2 for name in start}
        for kind in ("quality", "semantic")
    )
    plain = {name: start[name] - 0.1 * task[name] for name in start}
    ruled = {name: start[name] - 0.1 * grad for name, grad in turn_away(task, semantic, 5.0).items()}
    assert distance(plain, ruled) > 1e-4
    trainer = make(model, tmp_path, data, max_steps=1, regularization_strength=strength, **SGD)
    loss = trainer.train().training_loss
    assert distance(trained(model), ruled if strength else plain) <= rounding(plain, 3)
    assert loss == pytest.approx(float(parts[0]["quality"].loss + parts[1]["quality"].loss) / 2, rel=FORWARD)


@pytest.mark.parametrize("algorithm", ["fomaml", "maml", "reptile", "authors"])
def test_exactly_the_trained_tensors_move(make_adapted: MakeAdapted, tmp_path: Path, algorithm: str) -> None:
    model = make_adapted(freeze_visual_prompts=True)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = {"meta_algorithm": algorithm, "regularization_strength": 0.0, "max_steps": 2, "learning_rate": 1e-2}
    names = set(train(model, tmp_path, **settings))
    assert [name.split(".grmp_")[1] for name in names] == ["text.default.context"]
    assert all(torch.equal(weight, before[n]) == (n not in names) for n, weight in model.state_dict().items())


def kernels() -> tuple[bool, ...]:
    return (
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
    )


def test_maml_switches_attention_and_back(
    make_adapted: MakeAdapted, make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    before, settings = kernels(), {"meta_algorithm": "maml", "regularization_strength": 0.0, "max_steps": 2, **SGD}
    fast = train(make_adapted().double(), tmp_path, episodes(dtype=torch.float64), **settings)
    assert kernels() == before
    scorer = make_scorer()
    scorer.set_attn_implementation("eager")
    eager = train(make_adapted(scorer).double(), tmp_path, episodes(dtype=torch.float64), **settings)
    # In double precision all but one step: transformers' eager attention takes its softmax in single precision.
    assert distance(fast, eager) <= torch.finfo(torch.float32).eps
    first = {**settings, "meta_algorithm": "fomaml"}
    assert distance(fast, train(make_adapted().double(), tmp_path, episodes(dtype=torch.float64), **first)) > 1e-6


def test_evaluation_judges_after_adaptation(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    data, model = episodes(3, query=4, query_batch_size=3), make_adapted()
    before = trained(model)
    trainer = make(model, tmp_path, eval_dataset=data, per_device_eval_batch_size=2)
    found = trainer.predict(data)  # type: ignore[arg-type]
    loss_of = functools.partial(loss_under, model)
    losses = []
    for index in range(3):
        phi = adapt_to_support(loss_of, before, data[index]["support"], InnerLoop(2, 0.1))
        query = {name: torch.cat([batch[name] for batch in data[index]["query"]]) for name in data[index]["query"][0]}
        with torch.no_grad():
            output = functional_call(model, phi, (), query)
        losses.append(output.loss.item())
        torch.testing.assert_close(torch.tensor(found.predictions[index]), output.quality, atol=0, rtol=FORWARD)
        assert found.label_ids[index].tolist() == query["labels"].tolist()
    assert found.metrics["test_loss"] == pytest.approx(sum(losses) / 3, rel=FORWARD)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(losses) / 3, rel=FORWARD)
    assert distance(trained(model), before) == 0


AUTHORS = {"meta_algorithm": "authors", "inner_optimizer": "adam", "inner_learning_rate": 1e-2, "max_steps": 6}
AUTHORS |= {"per_device_train_batch_size": 1, "regularization_strength": 0.0, "optim": "sgd", "learning_rate": 0.1}


def test_the_long_run_goes_on_from_any_checkpoint(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    saving = {**AUTHORS, "save_strategy": "steps", "save_steps": 1}
    expected = train(make_adapted(prompt_dropout=0.1), tmp_path, **saving)
    for step in (1, 4):
        model = make_adapted(prompt_dropout=0.1)
        make(model, tmp_path, **saving).train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert distance(trained(model), expected) == 0, step
    (tmp_path / "checkpoint-4" / "inner_run.safetensors").unlink()
    model = make_adapted(prompt_dropout=0.1)
    make(model, tmp_path, **saving).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert distance(trained(model), expected) > 0, "without the inner run it is another training"


def test_training_again_begins_the_long_run_anew(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    model = make_adapted()
    trainer, start = make(model, tmp_path, **AUTHORS), trained(model)
    trainer.train()
    first = trained(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(start.get(name, parameter))
    trainer.train()
    assert distance(trained(model), first) == 0


def test_gradient_checkpointing_learns_prompts_alike(
    make_adapted: MakeAdapted, tmp_path: Path, rounding: Callable[..., float]
) -> None:
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    plain, saved = (train(make_adapted(), tmp_path, max_steps=2, **more, **SGD) for more in ({}, options))
    assert distance(plain, saved) <= rounding(plain, 2 * 3)  # each of two inner steps and its own


# What is refused -----------------------------------------------------------------------------------------------------


def two_processes(patch: pytest.MonkeyPatch, model: PeftModel) -> None:
    patch.setattr(GRMPTrainingArguments, "world_size", property(lambda self: 2))


def flash_attention(patch: pytest.MonkeyPatch, model: PeftModel) -> None:
    vision = model.get_base_model().config.clip_config.vision_config
    patch.setattr(vision, "_attn_implementation_internal", "flash_attention_2")


def nothing(patch: pytest.MonkeyPatch, model: PeftModel) -> None:
    """Leave everything as it is."""


REFUSED: dict[str, tuple[Callable[..., None], dict[str, Any], dict[str, Any], str]] = {
    "authors in two processes": (two_processes, {}, {"meta_algorithm": "authors"}, "is one long inner run"),
    "second order, attention": (
        flash_attention,
        {},
        {"meta_algorithm": "maml"},
        "attention by flash_attention_2, sdpa does not have",
    ),
    "checkpointing of trained layers": (
        nothing,
        {"modules_to_save": BLOCKS},
        {"gradient_checkpointing": True},
        "with the meta parameters instead of the adapted",
    ),
}


@pytest.mark.parametrize(("patch", "trains", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused(
    make_adapted: MakeAdapted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patch: Callable[..., None],
    trains: dict[str, Any],
    options: dict[str, Any],
    message: str,
) -> None:
    model = make_adapted(**trains)
    patch(monkeypatch, model)
    with pytest.raises(GRMPError, match=re.escape(message)):
        make(model, tmp_path, **options)


def test_what_only_second_order_cannot_do_is_left_to_the_others(
    make_adapted: MakeAdapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_adapted()
    flash_attention(monkeypatch, model)
    make(model, tmp_path, meta_algorithm="fomaml")
    model = make_adapted(modules_to_save=BLOCKS)
    args = GRMPTrainingArguments(output_dir=str(tmp_path), use_cpu=True, gradient_checkpointing=True)
    GRMPTrainer(model, args, train_dataset=[{"labels": 0.5}])
