"""Settings under which gradients would be wrong, each with the way out."""

from __future__ import annotations

from typing import Any

from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.models.clip.modeling_clip import CLIPAttention

from grmp_hf.errors import GRMPError
from grmp_hf.training.arguments import GRMPTrainingArguments

__all__ = ["refuse_arguments", "refuse_episodes", "refuse_settings"]

_LAYERWISE = ("lomo", "adalomo", "layerwise")


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
    """Raise if a trainer's settings would make any gradient wrong.

    Raises:
        GRMPError: names every such setting.
    """
    args = trainer.args
    kind = trainer.accelerator.distributed_type
    checkpointing = args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant")
    refused = {
        "FSDP shards the gradients that the rule needs whole. Use plain data parallelism (accelerate launch "
        "without FSDP); the trained part is small.": kind == DistributedType.FSDP,
        "DeepSpeed owns the backward pass that the rule needs twice. Use plain data parallelism (accelerate launch "
        "without DeepSpeed); the trained part is small.": kind == DistributedType.DEEPSPEED,
        "Several GPUs in one process (DataParallel) replicate the model. Start one process for each GPU with "
        "accelerate launch, or show this process one GPU (CUDA_VISIBLE_DEVICES=0).": args.n_gpu > 1,
        "fp16 scales the loss, and gradients taken by hand would not be unscaled. Use bf16=True or full "
        "precision.": args.fp16,
        "Reentrant checkpointing cannot give two gradients of one forward pass. Set "
        "gradient_checkpointing_kwargs={'use_reentrant': False}.": bool(checkpointing),
        "A compute_loss_func and label smoothing would be passed over: the loss is the soft-label cross-entropy of "
        "the model. Leave both out.": trainer.compute_loss_func is not None or trainer.label_smoother is not None,
        f"compute_loss of {type(trainer).__name__} would never be called: training takes the gradients of the model's "
        "own loss. Override batch_gradients, or give a gradient_rule.": (
            type(trainer).compute_loss is not Trainer.compute_loss
        ),
        "A compiled model would be passed over: gradients are taken of the model itself. Set torch_compile=False.": (
            args.torch_compile
        ),
        "neftune_noise_alpha and use_liger_kernel are for language models, and would do nothing here. Leave them "
        "out.": args.neftune_noise_alpha is not None or args.use_liger_kernel,
        f"optim={args.optim!r} steps while it goes backward, before the gradients of the whole batch are there. Take "
        "adamw_torch or sgd.": any(word in str(args.optim).lower() for word in _LAYERWISE),
        f"train_sampling_strategy={args.train_sampling_strategy!r} would be passed over: pictures have no length. "
        "Take random or sequential.": args.train_sampling_strategy not in ("random", "sequential"),
        "Processes cannot share an iterable data set without repeating pictures. Use a data set with a length.": (
            isinstance(trainer.train_dataset, IterableDataset) and args.world_size > 1
        ),
        "Nothing is trained: every parameter is frozen. Load the adapter with is_trainable=True.": not any(
            parameter.requires_grad for parameter in trainer.model.parameters()
        ),
    }
    _raise_for(refused)


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
            args.gradient_checkpointing and any(".grmp_" not in name for name in trainer._trained())
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
