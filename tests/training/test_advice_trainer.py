"""Advice in what the Trainer refuses works: each is provoked, done as it says, and a step can then be taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from transformers import CLIPImageProcessor, TrainingArguments

from grmp_hf import GRMPImageProcessor, GRMPTrainer, GRMPTrainingArguments
from grmp_hf.errors import GRMPError
from grmp_hf.training.episodes import EpisodeDataset
from grmp_hf.training.objectives import Term
from grmp_hf.training.rules import regularize

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of options that are refused

Make = Callable[[dict[str, Any]], GRMPTrainer]
PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Rows(Dataset[dict[str, Tensor]]):
    """Four pictures of noise with their quality."""

    def __init__(self, **columns: list[float]) -> None:
        self.columns = {"labels": [0.1, 0.9, 0.4, 0.6], **columns}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": PIXELS[index], **{name: torch.tensor(c[index]) for name, c in self.columns.items()}}


class Stream(IterableDataset[dict[str, Tensor]]):
    def __iter__(self) -> Any:
        return iter([Rows()[index] for index in range(4)])


class Mine(GRMPTrainer):
    def compute_loss(self, *_: Any, **__: Any) -> Any:
        return 0


def mean_error(student: Any, teacher: Any, batch: dict[str, Tensor]) -> dict[str, Term]:
    error = (student({"pixel_values": batch["pixel_values"]}).quality - batch["labels"]).square()
    return {"error": Term(error.mean(), len(error))}


def two_errors(student: Any, teacher: Any, batch: dict[str, Tensor]) -> dict[str, Term]:
    (term,) = mean_error(student, teacher, batch).values()
    return {"quality": term, "semantic": term}


def one_plan(epoch: int) -> list[list[Any]]:
    return [[((epoch, 0),), ((epoch, 1),)]]


def longer_plan(epoch: int) -> list[list[Any]]:
    return one_plan(epoch) * (1 + epoch)


def empty_rows(rows: list[Any]) -> dict[str, Tensor]:
    return {"pixel_values": PIXELS[:0], "labels": torch.zeros(0)}


def episodes(support: int, **options: Any) -> EpisodeDataset[int]:
    def load(index: int, seed: int) -> dict[str, Tensor]:
        return Rows()[index]

    given = {"reference_of": int, "query": 2, "support": support, **options}
    return EpisodeDataset({"noise": [0, 1, 2, 3]}, load, **given)


REENTRANT, NOT = ({"gradient_checkpointing_kwargs": {"use_reentrant": use}} for use in (True, False))
CHECKPOINTS = {"gradient_checkpointing": True}
MAML = {"meta_algorithm": "maml", "inner_steps": 1}
# name -> what is refused, its advice, what is done; {"cls", "model"} and what the trainer takes beside its arguments
GIVEN = {"objective", "rule", "plan", "train_dataset", "compute_loss_func", "model_init", "processing_class"}
GIVEN |= {"data_collator", "args", "cls", "model"}
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "arguments": ({"args": TrainingArguments("x")}, "It takes the same fields", {"max_steps": 1}),
    "model_init": ({"model_init": lambda: None}, "Give the model itself", {}),
    "fp16": ({"fp16": True}, "or full precision", {}),
    "fp16, in bf16": ({"fp16": True}, "Use bf16=True", {"bf16": True}),
    "checkpointing": (CHECKPOINTS | REENTRANT, "{'use_reentrant': False}", CHECKPOINTS | NOT),
    "lomo": ({"optim": "lomo"}, "Take adamw_torch or sgd", {"optim": "sgd"}),
    "batch size": ({"auto_find_batch_size": True}, "Set per_device_train_batch_size, and gradient_accumulation_steps",
                   {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
    "frozen": ({"model": "frozen"}, "Load the adapter with is_trainable=True", {"max_steps": 1}),
    "processor": ({"processing_class": CLIPImageProcessor()}, "GRMPImageProcessor.from_pretrained of the base",
                  {"processing_class": GRMPImageProcessor(16, shortest_edge_limit=16)}),
    "processor, none": ({"processing_class": CLIPImageProcessor()}, "or none", {}),
    "loss function": ({"compute_loss_func": len}, "a loss of your own as objective=", {"objective": mean_error}),
    "smoothing": ({"label_smoothing_factor": 0.1}, "Leave both out", {}),
    "compute_loss": ({"cls": Mine}, "Pass it as objective=", {"objective": mean_error}),
    "compute_loss, ruled": ({"cls": Mine}, "and a rule= if it has several channels",
                            {"objective": two_errors, "rule": regularize(1.0)}),
    "label names": ({"label_names": ["mos"]}, "Rename the column, and leave label_names out", {}),
    "beside a plan": ({"plan": one_plan, "joint_batch_size": 2}, "says all of it. Leave them out", {"plan": one_plan}),
    "plan of a stream": ({"plan": one_plan, "train_dataset": Stream()}, "Use a data set with a length",
                         {"plan": one_plan}),
    "joint batch of a stream": ({"joint_batch_size": 2, "train_dataset": Stream()}, "Set per_device_train_batch_size",
                                {"train_dataset": Stream(), "per_device_train_batch_size": 2}),
    "compiled": ({"torch_compile": True}, "Set torch_compile=False", {"torch_compile": False}),
    "noise": ({"neftune_noise_alpha": 5.0}, "Leave them out", {}),
    "use_cache": ({"use_cache": True}, "Leave them out", {}),
    "empty cache": ({"torch_empty_cache_steps": 1}, "Leave it out", {}),
    "by length": ({"train_sampling_strategy": "group_by_length"}, "Take random or sequential",
                  {"train_sampling_strategy": "sequential"}),
    "length": ({"length_column_name": "size"}, "leave the column out", {}),
    "columns": ({"remove_unused_columns": True}, "Set it to False", {"remove_unused_columns": False}),
    "order": ({"dataloader_in_order": False}, "Leave it out", {}),
    "accelerator": ({"accelerator_config": {"split_batches": True}}, "and set joint_batch_size",
                    {"joint_batch_size": 2}),
    "buckets": ({"ddp_bucket_cap_mb": 5}, "Leave them out", {}),
    "inner steps": ({"inner_steps": 0}, "train on batches of pictures instead of episodes", {}),
    "strength": ({"regularization_strength": -1.0}, "of at least 0", {"regularization_strength": 0.0}),
    "temperature": ({"semantic_temperature": 0.0}, "above 0", {"semantic_temperature": 0.5}),
    "unit": ({"projection_unit": "all"}, "'tensor' or 'global'", {"projection_unit": "global"}),
    "second derivatives": (MAML | {"train_dataset": episodes(2), "model": "flex_attention"}, "'sdpa' or 'eager'",
                           MAML | {"train_dataset": episodes(2), "model": "eager"}),
    "another algorithm": (MAML | {"train_dataset": episodes(2), "model": "flex_attention"},
                          "or take another algorithm", {"train_dataset": episodes(2), "inner_steps": 1}),
    "checkpointed episodes": (CHECKPOINTS | NOT | {"train_dataset": episodes(2), "model": "blocks"},
                              "Set gradient_checkpointing=False", {"train_dataset": episodes(2), "model": "blocks"}),
    "prompts alone": (CHECKPOINTS | NOT | {"train_dataset": episodes(2), "model": "blocks"}, "or train prompts alone",
                      CHECKPOINTS | NOT | {"train_dataset": episodes(2)}),
    "channels": ({"objective": two_errors}, "such as rules.regularize(5.0)",
                 {"objective": two_errors, "rule": regularize(5.0)}),
    "other channels": ({"objective": mean_error, "rule": regularize(5.0)}, "Pass a rule= for the channels",
                       {"objective": mean_error, "rule": lambda found, parameters: found["error"]}),
    "growing plan": ({"plan": longer_plan, "max_steps": 2}, "in every epoch, as in the first",
                     {"plan": one_plan, "max_steps": 2}),
    "nothing counted": ({"data_collator": empty_rows}, "look at what data_collator gives", {}),
    "ratings": ({"train_dataset": Rows(labels=[1.0, 5.0, 3.0, 4.0])}, "Map ratings with RatingScale.to_quality", {}),
    "half precision": ({"model": "half"}, "load the model in fp32; bf16=True", {"bf16": True}),
    "not finite": ({"learning_rate": 1e38, "optim": "sgd", "max_steps": 3}, "Lower learning_rate",
                   {"learning_rate": 1e-3, "optim": "sgd", "max_steps": 3}),
}  # fmt: skip


class Asked(NamedTuple):
    given: dict[str, Any]
    options: dict[str, Any]


@pytest.fixture
def run(make_adapted: Callable[..., PeftModel], make_scorer: Callable[..., Any], tmp_path: Path) -> Callable[..., None]:
    """Trains for a step with some arguments."""

    def model_of(kind: str) -> Any:
        if kind == "blocks":
            return make_adapted(modules_to_save=["layers.2"])
        base = make_scorer()
        if kind in ("eager", "flex_attention"):
            base.set_attn_implementation(kind) if kind == "eager" else mark(base, kind)
        model = make_adapted(base)
        model = model.half() if kind == "half" else model
        return model.requires_grad_(False) if kind == "frozen" else model

    def train(asked: dict[str, Any]) -> None:
        given = {name: value for name, value in asked.items() if name in GIVEN}
        quiet = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "max_steps": 1}
        options = {**quiet, **{name: value for name, value in asked.items() if name not in GIVEN}}
        args = given.pop("args", None) or GRMPTrainingArguments(str(tmp_path), **options)
        kind, model = given.pop("cls", GRMPTrainer), model_of(given.pop("model", ""))
        kind(model, args, **{"train_dataset": Rows(), **given}).train()

    return train


def mark(model: Any, kernels: str) -> None:
    """Say that attention is of a kind that this machine may not have."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = kernels


@pytest.mark.parametrize("name", CASES)
def test_what_the_trainer_advises_works(name: str, run: Callable[..., None]) -> None:
    refused, advice, followed = CASES[name]
    with pytest.raises(GRMPError, match=re.escape(advice)):
        run(refused)
    if followed:  # none of it is what other cases begin with
        run(followed)


EPISODES: dict[str, tuple[Callable[[], Any], str, Callable[[], Any]]] = {
    "sizes": (lambda: episodes(0), "sizes and visits of at least 1", lambda: episodes(1)),
    "too few": (lambda: episodes(9), "ask for a smaller support or query", lambda: episodes(2)),
    "alike": (lambda: episodes(2, quality_of=lambda _: 0.5), "add pictures of other quality",
              lambda: episodes(2, quality_of=lambda index: index / 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", EPISODES)
def test_what_episodes_advise_works(name: str) -> None:
    provoked, advice, followed = EPISODES[name]
    with pytest.raises(GRMPError, match=advice):
        provoked()[0]
    followed()[0]
