"""``GRMPTrainer``: transformers' Trainer with gradients of whole batches under a rule."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import semantic_cross_entropy
from grmp_hf.modeling.peft_prompts import teacher_mode
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.gradients import BatchGradients, GradientAccumulator, named_gradients
from grmp_hf.training.regularization import UNITS, Gradients, regularize
from grmp_hf.training.sampling import EpochDataLoader, JointBatchSampler

__all__ = ["GRMPTrainer", "GradientRule", "last_complete_checkpoint"]

GradientRule = Callable[[Gradients, Gradients], Gradients]
"""(quality gradients, semantic gradients) of a whole batch -> the gradients to step with."""


class GRMPTrainer(Trainer):
    """Adapts a model to rated pictures; the quality gradient is regularised by the semantic gradient.

    A step: each micro-batch gives its quality gradient and, from the same forward pass, its semantic gradient (the
    teacher is the same model without adapter); both are summed over micro-batches and processes; the rule is applied
    once to the means over all pictures; the Trainer clips and steps. One process therefore equals several, and
    accumulation equals one large batch.

    Batches hold ``pixel_values`` and ``labels`` (quality in [0, 1]), and may hold ``teacher_logits`` ``(B, S)`` to save
    the teacher's forward pass.

    Args:
        model: a ``PeftModel`` around a ``GRMPForImageQualityAssessment``, or that model itself.
        args: a :class:`GRMPTrainingArguments`.
        gradient_rule: replaces the rule that ``args`` describe.
        kwargs: as for ``Trainer``.

    Raises:
        GRMPError: a setting under which the gradients would be wrong, with the way out.
    """

    args: GRMPTrainingArguments

    def __init__(
        self,
        model: nn.Module,
        args: GRMPTrainingArguments | None = None,
        *,
        gradient_rule: GradientRule | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, args=args or GRMPTrainingArguments(), **kwargs)
        self._refuse_what_would_be_wrong()
        strength, unit = self.args.regularization_strength, UNITS[self.args.projection_unit]
        self._rule = gradient_rule
        if gradient_rule is None and strength > 0:
            self._rule = functools.partial(regularize, strength=strength, unit=unit)
        self._accumulator = GradientAccumulator()
        exempt = tuple(self.args.pull_exempt)
        pulled = {name: p for name, p in self._trained().items() if not name.endswith(exempt)}
        self._start = {n: p.detach().clone() for n, p in pulled.items()} if self.args.pull_to_start > 0 else {}

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def _refuse_what_would_be_wrong(self) -> None:
        args = self.args
        kind = self.accelerator.distributed_type
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
            "the model. Leave both out.": self.compute_loss_func is not None or self.label_smoother is not None,
            "Processes cannot share an iterable data set without repeating pictures. Use a data set with a length.": (
                isinstance(self.train_dataset, IterableDataset) and args.world_size > 1
            ),
        }
        reasons = [reason for reason, applies in refused.items() if applies]
        if not self._trained():
            reasons.append("Nothing is trained: every parameter is frozen. Load the adapter with is_trainable=True.")
        if reasons:
            raise GRMPError(" ".join(reasons))

    def get_train_dataloader(self) -> Any:
        """Batches of this process; see :class:`~grmp_hf.training.sampling.JointBatchSampler`."""
        if self.train_dataset is None or isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        args = self.args
        sampler = JointBatchSampler(
            len(self.train_dataset),
            self._train_batch_size,
            processes=args.world_size,
            rank=args.process_index,
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=args.train_sampling_strategy != "sequential",
            drop_last=args.dataloader_drop_last,
        )
        return EpochDataLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=functools.partial(_collate, self.data_collator),
            num_workers=args.dataloader_num_workers,
            persistent_workers=args.dataloader_persistent_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
        )

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Add a micro-batch's gradients; on the last one of a step, reduce, apply the rule and write ``.grad``.

        Returns:
            The mean loss over all pictures of the step on its last micro-batch, else 0.
        """
        model.train()
        if inputs:  # a process may have no part in the last batch of an epoch
            self._accumulator.add(self.batch_gradients(self._prepare_inputs(inputs)))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        parameters = self._trained()
        names = [parameters, parameters if self._rule is not None else {}]
        means = self._accumulator.reduce(names, functools.partial(self.accelerator.reduce, reduction="sum"))
        gradients = means.task if self._rule is None else self._rule(means.task, means.semantic)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
            if name in self._start:
                parameter.grad = parameter.grad + self.args.pull_to_start * (parameter.detach() - self._start[name])
        return means.loss.to(self.args.device)

    def batch_gradients(self, inputs: dict[str, Any]) -> BatchGradients:
        """Gradients of one micro-batch of rated pictures, both from one forward pass."""
        # The model without its DDP shell: gradients are taken and reduced here, not by DDP's hooks. Autocast stays,
        # since accelerate put it into this model's own forward.
        inputs, ruled = dict(inputs), self._rule is not None
        teacher = inputs.pop("teacher_logits", None)
        if ruled and teacher is None:
            teacher = self._teacher_logits(inputs["pixel_values"])
        parameters = self._trained()
        output = self.model(**inputs, output_semantic=ruled)
        semantic_grad: Gradients = {}
        if ruled:
            semantic = semantic_cross_entropy(output.semantic_logits, teacher, self.args.semantic_temperature)
            semantic_grad = named_gradients(semantic, parameters, retain_graph=True)
        task_grad = named_gradients(output.loss, parameters)
        return BatchGradients(task_grad, semantic_grad, output.loss.detach(), len(inputs["labels"]))

    def _teacher_logits(self, pixel_values: Tensor) -> Tensor:
        with teacher_mode(self.model):
            return self.model(pixel_values=pixel_values, output_semantic=True).semantic_logits  # type: ignore[no-any-return]

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Every trained tensor, norms and biases too: ``weight_decay`` acts as in the reference's SGD."""
        return [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; ``resume_from_checkpoint=True`` goes on from the last checkpoint that was written completely."""
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(self.args.output_dir)
            resume_from_checkpoint = None if found is None else str(found)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)


def _collate(collator: Callable[[list[Any]], dict[str, Any]], rows: list[Any]) -> dict[str, Any]:
    return collator(rows) if rows else {}


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint that a run finished writing, or None.

    The Trainer writes ``trainer_state.json`` last: a folder where it is missing or cut off belongs to a run that was
    killed while saving.
    """
    folders = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    numbered = sorted((int(f.name.rsplit("-", 1)[1]), f) for f in folders if f.name.rsplit("-", 1)[1].isdigit())
    return next((folder for _, folder in reversed(numbered) if _is_complete(folder)), None)


def _is_complete(folder: Path) -> bool:
    try:
        json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
