"""Settings under which gradients would be wrong, each with the way out."""

from __future__ import annotations

import re
from typing import Any

from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.models.clip.modeling_clip import CLIPAttention

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.finite import about_half

__all__ = ["refuse_arguments", "refuse_episodes", "refuse_settings"]

_OF_OURS = re.compile(r"\.(grmp|loda)_")  # outside the layers that are computed again
_LAYERWISE = ("lomo", "adalomo", "layerwise")
_OF_DDP = ("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph")


def refuse_arguments(args: Any, kwargs: dict[str, Any]) -> None:
    """Raise for what a trainer is given that it could not use, before anything is set up.

    Raises:
        GRMPError: names every such argument.
    """
    refused = {
        f"Expected args of the type GRMPTrainingArguments, got {type(args).__name__}. It takes the same fields, and "
        "those of the gradient rule and of episodes.": not isinstance(args, GRMPTrainingArguments),
        "model_init makes a new model for every run, but the pull holds to the start of this one. Give the model "
        "itself, and make a new trainer for each run.": kwargs.get("model_init") is not None,
    }
    _raise_for(refused)


def refuse_settings(trainer: Any) -> None:
    """Raise if a trainer's settings would make any gradient wrong, or would be passed over without a word.

    Raises:
        GRMPError: names every such setting.
    """
    _raise_for({**_wrong_gradients(trainer), **_passed_over(trainer), **_without_effect(trainer.args)})


def _wrong_gradients(trainer: Any) -> dict[str, bool]:
    args, half = trainer.args, about_half(trainer.model)
    kind = trainer.accelerator.distributed_type
    checkpointing = args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant")
    return {
        "FSDP shards the gradients that the rule needs whole. Use plain data parallelism (accelerate launch "
        "without FSDP); the trained part is small.": bool(kind == DistributedType.FSDP or args.fsdp),
        "DeepSpeed owns the backward pass that the rule needs twice. Use plain data parallelism (accelerate launch "
        "without DeepSpeed); the trained part is small.": bool(kind == DistributedType.DEEPSPEED or args.deepspeed),
        "parallelism_config divides the model or its inputs, and the rule needs whole gradients. Use plain data "
        "parallelism; the trained part is small.": args.parallelism_config is not None,
        "Several GPUs in one process (DataParallel) replicate the model. Start one process for each GPU with "
        "accelerate launch, or show this process one GPU (CUDA_VISIBLE_DEVICES=0).": args.n_gpu > 1,
        "fp16 scales the loss, and gradients taken by hand would not be unscaled. Use bf16=True or full "
        "precision.": args.fp16,
        half: bool(half),
        "Reentrant checkpointing cannot give two gradients of one forward pass. Set "
        "gradient_checkpointing_kwargs={'use_reentrant': False}.": bool(checkpointing),
        f"optim={args.optim!r} steps while it goes backward, before the gradients of the whole batch are there. Take "
        "adamw_torch or sgd.": any(word in str(args.optim).lower() for word in _LAYERWISE),
        "auto_find_batch_size changes the batch, whose gradient the rule is applied to. Set "
        "per_device_train_batch_size, and gradient_accumulation_steps for the rest.": args.auto_find_batch_size,
        "Processes cannot share an iterable data set without repeating pictures. Use a data set with a length.": (
            isinstance(trainer.train_dataset, IterableDataset) and args.world_size > 1
        ),
        "What normalises by batches (batch_statistics=True, the low-level encoder) uses those of each process's own "
        "part, so that several processes would not be one. Start one process, or leave it out.": (
            args.world_size > 1
            and any(getattr(module, "learns_statistics", False) for module in trainer.model.modules())
        ),
        "Nothing is trained: every parameter is frozen. Load the adapter with is_trainable=True.": not any(
            parameter.requires_grad for parameter in trainer.model.parameters()
        ),
    }


def _passed_over(trainer: Any) -> dict[str, bool]:
    args, processor = trainer.args, trainer.processing_class
    return {
        f"processing_class of the type {type(processor).__name__} would be saved but never used: pictures go to the "
        "model by a GRMPImageProcessor. Give that one (grmp_hf.load(...).processor, or "
        "GRMPImageProcessor.from_pretrained of the base, which reads that of a plain CLIP too), or none.": (
            not isinstance(processor, GRMPImageProcessor | None)
        ),
        "A compute_loss_func and label smoothing would be passed over: gradients are taken of the objective. Leave "
        "both out, and pass a loss of your own as objective=.": trainer.compute_loss_func is not None
        or trainer.label_smoother is not None,
        f"compute_loss of {type(trainer).__name__} would never be called: training takes the gradients of the "
        "objective, a function (student, teacher, batch) -> terms by channel. Pass it as objective=, and a rule= if it "
        "has several channels.": (type(trainer).compute_loss is not Trainer.compute_loss),
        f"label_names={args.label_names} would be passed over: the model takes quality as 'labels'. Rename the column, "
        "and leave label_names out.": args.label_names not in (None, ["labels"]),
        "joint_batch_size, dataloader_drop_last and train_sampling_strategy would be passed over beside a plan, which "
        "says all of it. Leave them out.": trainer._plan is not None
        and (
            args.joint_batch_size is not None or args.dataloader_drop_last or args.train_sampling_strategy != "random"
        ),
        "A plan asks for rows by index, which an iterable data set does not have. Use a data set with a length.": (
            trainer._plan is not None and isinstance(trainer.train_dataset, IterableDataset)
        ),
        "joint_batch_size has no meaning for an iterable data set, which has no order to cut. Set "
        "per_device_train_batch_size.": (
            isinstance(trainer.train_dataset, IterableDataset) and args.joint_batch_size is not None
        ),
    }


def _without_effect(args: GRMPTrainingArguments) -> dict[str, bool]:
    ours: Any = args.accelerator_config
    given = [name for name in _OF_DDP if getattr(args, name) is not None]
    return {
        "A compiled model would be passed over: gradients are taken of the model itself. Set torch_compile=False.": (
            args.torch_compile
        ),
        "neftune_noise_alpha and use_liger_kernel are for language models, and would do nothing here. Leave them "
        "out.": args.neftune_noise_alpha is not None or args.use_liger_kernel or args.liger_kernel_config is not None,
        "use_cache and include_num_input_tokens_seen are for language models, and pictures have no tokens. Leave them "
        "out.": args.use_cache or args.include_num_input_tokens_seen != "no",
        "torch_empty_cache_steps would be passed over: no graph outlives a micro-batch. Leave it out.": (
            args.torch_empty_cache_steps is not None
        ),
        f"train_sampling_strategy={args.train_sampling_strategy!r} and length_column_name={args.length_column_name!r} "
        "would be passed over: pictures have no length. Take random or sequential, and leave the column out.": (
            args.train_sampling_strategy not in ("random", "sequential") or args.length_column_name != "length"
        ),
        "remove_unused_columns=True would take teacher_logits from batches in evaluation and nothing in training. Set "
        "it to False, and leave columns that the model does not take out of the data set.": bool(
            args.remove_unused_columns
        ),
        "dataloader_in_order=False would let the order of pictures depend on time, and a run that is taken up again "
        "would not be the same. Leave it out.": not args.dataloader_in_order,
        "split_batches, dispatch_batches and non_blocking of accelerator_config would be passed over: every process "
        "loads its own part of a joint batch. Leave them out, and set joint_batch_size.": bool(
            ours.split_batches or ours.dispatch_batches or ours.non_blocking
        ),
        f"{', '.join(given)} would be passed over: gradients are reduced once a step, not by DDP. Leave them out.": (
            bool(given)
        ),
    }


def refuse_episodes(trainer: Any) -> None:
    """Raise if a trainer's settings would make the gradient of an episode wrong.

    Raises:
        GRMPError: names every such setting.
    """
    args = trainer.args
    second_order = args.meta_algorithm == "maml"
    kernels = _attention_kernels(trainer.model)
    refused = {
        "meta_algorithm='authors' is one long inner run, which several processes cannot share. Start one process, or "
        "take another algorithm.": args.meta_algorithm == "authors" and args.world_size > 1,
        f"meta_algorithm='maml' needs second derivatives, which attention by {', '.join(sorted(kernels))} does not "
        "have. Load the model with attn_implementation='sdpa' or 'eager', or take another algorithm.": (
            second_order and not kernels <= {"sdpa", "eager"}
        ),
        "Gradient checkpointing would compute trained layers again with the meta parameters instead of the adapted "
        "ones. Set gradient_checkpointing=False, or train prompts alone.": (
            args.gradient_checkpointing and any(not _OF_OURS.search(name) for name in trainer._trained())
        ),
    }
    _raise_for(refused)


def _raise_for(refused: dict[str, bool]) -> None:
    reasons = [reason for reason, applies in refused.items() if applies]
    if reasons:
        raise GRMPError(" ".join(reasons))


def _attention_kernels(model: nn.Module) -> set[str]:
    attentions: Any = (module for module in model.modules() if isinstance(module, CLIPAttention))
    return {attention.config._attn_implementation for attention in attentions}
