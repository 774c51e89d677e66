"""Every argument of transformers' Trainer and TrainingArguments acts, or is refused by name where it would not."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from transformers import CLIPImageProcessor, Trainer, TrainerCallback, TrainingArguments

from grmp_hf.errors import GRMPError
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.trainer import GRMPTrainer

MakeAdapted = Callable[..., PeftModel]

# Of the installed transformers: a name that is new there is in no group, and the first test says so.
TRAINER = {
    "act": "model args data_collator train_dataset eval_dataset processing_class compute_metrics callbacks optimizers "
    "optimizer_cls_and_kwargs preprocess_logits_for_metrics",
    "refused": "model_init compute_loss_func",
}
ARGUMENTS = {
    "act in training": "per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type "
    "lr_scheduler_kwargs warmup_steps optim optim_args optim_target_modules weight_decay adam_beta1 adam_beta2 "
    "adam_epsilon gradient_accumulation_steps max_grad_norm bf16 tf32 activation_checkpointing "
    "activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs full_determinism seed "
    "data_seed use_cpu dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
    "dataloader_prefetch_factor dataloader_multiprocessing_context ddp_backend ddp_timeout ignore_data_skip",
    "act in evaluation": "per_device_eval_batch_size eval_strategy eval_steps eval_delay prediction_loss_only "
    "eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics "
    "batch_eval_metrics bf16_full_eval fp16_full_eval load_best_model_at_end metric_for_best_model greater_is_better",
    "act in saving and logging": "output_dir save_only_model save_strategy save_steps save_on_each_node "
    "save_total_limit enable_jit_checkpoint restore_callback_states_from_checkpoint push_to_hub hub_token "
    "hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision logging_strategy logging_steps "
    "logging_first_step log_on_each_node log_level log_level_replica disable_tqdm report_to run_name project "
    "trackio_space_id trackio_bucket_id trackio_static_space_id debug skip_memory_metrics",
    "of whoever writes a script": "do_train do_eval do_predict resume_from_checkpoint local_rank",
    # Losses are means over all pictures of all processes; one that is not finite ends the training.
    "always so": "average_tokens_across_devices logging_nan_inf_filter",
    "refused": "fp16 label_smoothing_factor torch_compile torch_compile_backend torch_compile_mode use_liger_kernel "
    "liger_kernel_config use_cache neftune_noise_alpha torch_empty_cache_steps auto_find_batch_size "
    "include_num_input_tokens_seen accelerator_config parallelism_config dataloader_in_order remove_unused_columns "
    "label_names train_sampling_strategy length_column_name ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers ddp_static_graph fsdp fsdp_config deepspeed",
}


class Pictures(Dataset[dict[str, Tensor]]):
    """Noise with random labels."""

    def __init__(self) -> None:
        self.rows = [{"pixel_values": torch.randn(3, 16, 16), "labels": torch.rand(())} for _ in range(4)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.rows[index]


class Stream(IterableDataset[dict[str, Tensor]]):
    """The same without a length."""

    def __iter__(self) -> Any:
        yield from Pictures().rows


def make(model: PeftModel, folder: Path, options: dict[str, Any], **given: Any) -> GRMPTrainer:
    quiet = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    args = GRMPTrainingArguments(output_dir=str(folder), **{**quiet, **options})
    return GRMPTrainer(model, args, **{"train_dataset": Pictures(), "eval_dataset": Pictures(), **given})


def test_every_argument_of_the_installed_transformers_is_decided_about() -> None:
    known = [set(inspect.signature(Trainer.__init__).parameters) - {"self"}]
    known.append({field.name for field in dataclasses.fields(TrainingArguments)})
    for groups, names in zip((TRAINER, ARGUMENTS), known, strict=True):
        listed = " ".join(groups.values()).split()
        assert len(listed) == len(set(listed)) and set(listed) == names, set(listed) ^ names


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "fp16": ({"fp16": True}, {}, "fp16 scales the loss"),
    "label_smoothing_factor": ({"label_smoothing_factor": 0.1}, {}, "label smoothing would be passed over"),
    "torch_compile": ({"torch_compile": True}, {}, "compiled model"),
    "torch_compile_backend": ({"torch_compile_backend": "eager"}, {}, "compiled model"),
    "torch_compile_mode": ({"torch_compile_mode": "default"}, {}, "compiled model"),
    "liger_kernel_config": ({"liger_kernel_config": {"rope": True}}, {}, "use_liger_kernel are for language models"),
    "use_cache": ({"use_cache": True}, {}, "pictures have no tokens"),
    "neftune_noise_alpha": ({"neftune_noise_alpha": 5.0}, {}, "neftune_noise_alpha"),
    "torch_empty_cache_steps": ({"torch_empty_cache_steps": 1}, {}, "torch_empty_cache_steps"),
    "auto_find_batch_size": ({"auto_find_batch_size": True}, {}, "auto_find_batch_size changes the batch"),
    "include_num_input_tokens_seen": ({"include_num_input_tokens_seen": "all"}, {}, "pictures have no tokens"),
    "accelerator_config": ({"accelerator_config": {"non_blocking": True}}, {}, "non_blocking of accelerator_config"),
    "dataloader_in_order": ({"dataloader_in_order": False}, {}, "dataloader_in_order=False"),
    "remove_unused_columns": ({"remove_unused_columns": True}, {}, "remove_unused_columns=True"),
    "label_names": ({"label_names": ["mos"]}, {}, "label_names=['mos'] would be passed over"),
    "train_sampling_strategy": ({"train_sampling_strategy": "group_by_length"}, {}, "pictures have no length"),
    "length_column_name": ({"length_column_name": "size"}, {}, "length_column_name='size'"),
    "ddp_find_unused_parameters": ({"ddp_find_unused_parameters": True}, {}, "ddp_find_unused_parameters would be"),
    "ddp_bucket_cap_mb": ({"ddp_bucket_cap_mb": 5}, {}, "ddp_bucket_cap_mb would be"),
    "ddp_broadcast_buffers": ({"ddp_broadcast_buffers": True}, {}, "ddp_broadcast_buffers would be"),
    "ddp_static_graph": ({"ddp_static_graph": True}, {}, "ddp_static_graph would be"),
    "model_init": ({}, {"model_init": lambda: None}, "model_init makes a new model"),
    "compute_loss_func": ({}, {"compute_loss_func": lambda *_: 0}, "compute_loss_func"),
    "processing_class": ({}, {"processing_class": CLIPImageProcessor()}, "of the type CLIPImageProc"),
    "joint_batch_size": ({"joint_batch_size": 2, "max_steps": 1}, {"train_dataset": Stream()}, "joint_batch_size"),
}
# Set on arguments as they are made by transformers: what they need is not installed, or not on this machine.
ELSEWHERE = {
    "use_liger_kernel": (True, "use_liger_kernel"),
    "parallelism_config": (object(), "parallelism_config divides"),
    "fsdp": (True, "FSDP shards"),
    "deepspeed": ("zero.json", "DeepSpeed owns"),
}


def test_what_is_listed_as_refused_is_tried() -> None:
    listed = set(f"{TRAINER['refused']} {ARGUMENTS['refused']} processing_class joint_batch_size".split())
    assert {*REFUSED, *ELSEWHERE, "fsdp_config"} == listed  # fsdp_config does nothing without fsdp


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("options", "given", "message"), REFUSED.values(), ids=REFUSED)
def test_an_argument_without_effect_is_refused(
    make_adapted: MakeAdapted, tmp_path: Path, options: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        make(make_adapted(), tmp_path, options, **given)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_argument_for_other_machines_is_refused(
    name: str, make_adapted: MakeAdapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grmp_hf.training.refusals import refuse_settings

    trainer = make(make_adapted(), tmp_path, {})
    value, message = ELSEWHERE[name]
    monkeypatch.setattr(trainer.args, name, value)
    with pytest.raises(GRMPError, match=message):
        refuse_settings(trainer)


def test_what_is_given_beside_the_model_acts(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    called: list[str] = []

    class Watcher(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            called.append("callback")

    class Optimizer(torch.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            called.append("optimizer")
            return super().step(*args, **kwargs)

    def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        called.append("collator")
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def shorten(logits: Any, labels: Any) -> Any:
        called.append("preprocess")
        return logits * 2

    def judge(found: Any) -> dict[str, float]:
        assert found.predictions.shape == (4,)
        return {"mean": float(found.predictions.mean())}

    model = make_adapted()
    optimizer = Optimizer([p for p in model.parameters() if p.requires_grad], 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    given = {"data_collator": collate, "callbacks": [Watcher()], "optimizers": (optimizer, schedule)}
    trainer = make(
        model, tmp_path, {"max_steps": 1}, compute_metrics=judge, preprocess_logits_for_metrics=shorten, **given
    )
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_mean"] <= 2
    assert set(called) == {"callback", "optimizer", "collator", "preprocess"}
    made = make(make_adapted(), tmp_path, {"max_steps": 1}, optimizer_cls_and_kwargs=(Optimizer, {"lr": 0.1}))
    called.clear()
    made.train()
    assert called == ["optimizer"]
