"""``GRMPTrainer``: transformers' Trainer with gradients of whole batches under a rule."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from grmp_hf.modeling.functional import semantic_cross_entropy
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.modeling.peft_prompts import teacher_mode
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.checkpoints import last_complete_checkpoint
from grmp_hf.training.episodes import Batch, Episode, Episodes, collate_episodes
from grmp_hf.training.finite import FiniteWeights, check_gradients, check_loss, check_pictures
from grmp_hf.training.gradients import BatchGradients, GradientAccumulator, named_gradients
from grmp_hf.training.meta_learning import ALGORITHMS, InnerLoop, LongRun, adapt_to_support
from grmp_hf.training.refusals import refuse_arguments, refuse_episodes, refuse_settings
from grmp_hf.training.regularization import UNITS, Gradients, regularize
from grmp_hf.training.sampling import EpochDataLoader, JointBatchSampler, JointEpisodeSampler

__all__ = ["GRMPTrainer", "GradientRule", "last_complete_checkpoint"]

GradientRule = Callable[[Gradients, Gradients], Gradients]
"""(quality gradients, semantic gradients) of a whole batch -> the gradients to step with."""

_LONG_RUN = "inner_run.safetensors"


class GRMPTrainer(Trainer):
    """Adapts a model to rated pictures, or learns from episodes how to adapt; gradients of whole batches under a rule.

    A step: each micro-batch gives its quality gradient and, from the same forward pass, its semantic gradient (the
    teacher is the same model without adapter); both are summed over micro-batches and processes; the rule is applied
    once to the means over all pictures; the Trainer clips and steps. One process therefore equals several, and
    accumulation equals one large batch. A batch of episodes gives the mean meta-gradient of ``args.meta_algorithm`` and
    the semantic gradient of the query under the adapted parameters; from there on the path is the same, with tasks in
    the place of pictures.

    Batches hold ``pixel_values`` and ``labels`` (quality in [0, 1]), and may hold ``teacher_logits`` ``(B, S)`` to save
    the teacher's forward pass. Episodes come from an :class:`~grmp_hf.training.episodes.Episodes`, or from any data set
    of them with ``data_collator=collate_episodes``. In evaluation, each is adapted to by ``args.inner_steps`` steps of
    first order, and the loss is that of its query.

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
        model: nn.Module | None = None,
        args: GRMPTrainingArguments | None = None,
        *,
        gradient_rule: GradientRule | None = None,
        **kwargs: Any,
    ) -> None:
        if any(isinstance(kwargs.get(name), Episodes) for name in ("train_dataset", "eval_dataset")):
            kwargs.setdefault("data_collator", collate_episodes)
        args = args or GRMPTrainingArguments()
        refuse_arguments(args, kwargs)
        super().__init__(model=model, args=args, **kwargs)
        refuse_settings(self)
        if self.data_collator is collate_episodes:
            refuse_episodes(self)
        self.add_callback(FiniteWeights)
        self._inner = InnerLoop(self.args.inner_steps, self.args.inner_learning_rate, self.args.inner_optimizer)
        self._long_run = LongRun()
        strength, unit = self.args.regularization_strength, UNITS[self.args.projection_unit]
        self._rule = gradient_rule
        if gradient_rule is None and strength > 0:
            self._rule = functools.partial(regularize, strength=strength, unit=unit)
        self._accumulator = GradientAccumulator()
        self._error: Exception | None = None
        exempt = tuple(self.args.pull_exempt)
        pulled = {name: p for name, p in self._trained().items() if not name.endswith(exempt)}
        self._start = {n: p.detach().clone() for n, p in pulled.items()} if self.args.pull_to_start > 0 else {}

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def get_train_dataloader(self) -> Any:
        """Batches of this process; see :class:`~grmp_hf.training.sampling.JointBatchSampler`."""
        if self.train_dataset is None or isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        args = self.args
        episodic = isinstance(self.train_dataset, Episodes)
        sampler = (JointEpisodeSampler if episodic else JointBatchSampler)(
            len(self.train_dataset),
            args.joint_batch_size or self._train_batch_size * args.world_size,
            processes=args.world_size,
            rank=args.process_index,
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=not episodic and args.train_sampling_strategy != "sequential",
            drop_last=args.dataloader_drop_last,
        )
        return EpochDataLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=functools.partial(_collate, self.data_collator),
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            persistent_workers=args.dataloader_persistent_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
        )

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Add a micro-batch's gradients; on the last one of a step, reduce, apply the rule and write ``.grad``.

        Returns:
            The mean loss over all pictures, or queries, of the step on its last micro-batch, else 0.

        Raises:
            GRMPError: a loss or a gradient, of either channel, that is not finite.
        """
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # of the schedule-free ones
            self.optimizer.train()
        if any(len(part) for part in inputs.values()):  # a process may have no part in the last batch of an epoch
            self._add(inputs)
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        parameters = self._trained()
        names = [parameters, parameters if self._rule is not None else {}]
        means = self._accumulator.reduce(names, functools.partial(self.accelerator.reduce, reduction="sum"))
        error, self._error = self._error, None
        if error is not None:
            raise error
        gradients = means.task if self._rule is None else self._rule(means.task, means.semantic)
        check_gradients(means, gradients, self.state.global_step + 1)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].to(parameter.dtype)
            if name in self._start:
                parameter.grad = parameter.grad + self.args.pull_to_start * (parameter.detach() - self._start[name])
        return means.loss.to(self.args.device)

    def _add(self, inputs: dict[str, Any]) -> None:
        """Add a micro-batch's gradients; of several processes, one that fails says so when all of them meet."""
        try:
            self._accumulator.add(self.batch_gradients(self._prepare_inputs(inputs)))
        except Exception as error:
            if self.args.world_size == 1:
                raise
            self._error = error
            self._accumulator.loss = math.nan  # ends the step in every process, so that none waits for this one

    def batch_gradients(self, inputs: dict[str, Any]) -> BatchGradients:
        """Gradients of one micro-batch: of rated pictures, both from one forward pass, or of episodes."""
        if "episodes" in inputs:
            return self._episode_gradients(inputs["episodes"])
        parameters = self._trained()
        quality, semantic = self._losses({}, inputs, ruled=self._rule is not None)
        semantic_grad = {} if semantic is None else named_gradients(semantic, parameters, retain_graph=True)
        return BatchGradients(
            named_gradients(quality, parameters), semantic_grad, quality.detach(), len(inputs["labels"])
        )

    def _episode_gradients(self, episodes: Sequence[Episode]) -> BatchGradients:
        """Mean meta-gradient over episodes."""
        name, parameters = self.args.meta_algorithm, self._trained()
        algorithm = self._long_run if name == "authors" else ALGORITHMS[name]
        judge = functools.partial(self._losses, ruled=self._rule is not None)
        total = GradientAccumulator()
        # Of torch's attention kernels, this one alone has second derivatives.
        with sdpa_kernel(SDPBackend.MATH) if name == "maml" else contextlib.nullcontext():
            for episode in episodes:
                check_pictures(episode)
                total.add(algorithm(self._quality_loss, parameters, episode, self._inner, judge))
        return total.reduce([], lambda local: local)

    def _losses(self, parameters: Mapping[str, Tensor], batch: Batch, *, ruled: bool) -> tuple[Tensor, Tensor | None]:
        """Quality and, under a rule, semantic loss of pictures, with ``parameters`` in the place of the model's own."""
        batch = dict(batch)
        teacher = batch.pop("teacher_logits", None)
        output = self._forward(parameters, {**batch, "output_semantic": ruled})
        if not ruled:
            return output.loss, None
        if teacher is None:
            teacher = self._teacher_logits(batch["pixel_values"])
        semantic = semantic_cross_entropy(output.semantic_logits, teacher, self.args.semantic_temperature)
        return output.loss, semantic

    def _quality_loss(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return self._losses(parameters, batch, ruled=False)[0]

    def _forward(self, parameters: Mapping[str, Tensor], inputs: dict[str, Any]) -> Any:
        # The model without its DDP shell: gradients are taken and reduced here, not by DDP's hooks. Autocast stays,
        # since accelerate put it into this model's own forward.
        return functional_call(self.model, dict(parameters), (), inputs)

    def _teacher_logits(self, pixel_values: Tensor) -> Tensor:
        with teacher_mode(self.model):
            return self.model(pixel_values=pixel_values, output_semantic=True).semantic_logits  # type: ignore[no-any-return]

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """As in ``Trainer``; of episodes, the query's mean loss, quality ``(E, Q)`` and labels after adaptation."""
        if "episodes" not in inputs:
            inputs = {name: column for name, column in inputs.items() if name != "teacher_logits"}
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        judged = [self._after_adaptation(episode) for episode in self._prepare_inputs(inputs)["episodes"]]
        losses, quality, labels = zip(*judged, strict=True)
        loss = torch.stack(losses).mean()
        return (loss, None, None) if prediction_loss_only else (loss, torch.stack(quality), torch.stack(labels))

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As in ``Trainer``; raises for a loss or predictions that are not finite."""
        found = super().evaluation_loop(*args, **kwargs)
        check_loss(found.metrics, found.predictions)
        return found

    def _after_adaptation(self, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, quality and labels of a query after first-order adaptation to its support."""
        check_pictures(episode)
        with torch.enable_grad():
            adapted = adapt_to_support(self._quality_loss, self._trained(), episode["support"], self._inner)
        outputs, labels = [], [batch["labels"].flatten() for batch in episode["query"]]
        with torch.no_grad():
            for batch in episode["query"]:
                inputs = {name: column for name, column in batch.items() if name != "teacher_logits"}
                outputs.append(self._forward(adapted, inputs))
        sums = [output.loss * len(part) for output, part in zip(outputs, labels, strict=True)]
        every = torch.cat(labels)
        return torch.stack(sums).sum() / len(every), torch.cat([output.quality for output in outputs]), every

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not isinstance(self.model, PeftModel):
            super()._save(output_dir, state_dict)
            return
        # The Trainer's own has PEFT look up the base on the Hub, to see whether its vocabulary has grown.
        folder = Path(output_dir or self.args.output_dir)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(str(folder))
        if isinstance(self.processing_class, GRMPImageProcessor):  # with which the adapter has to be loaded
            for config in self.model.peft_config.values():
                config.preprocessing = self.processing_class.settings()
        self.model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)
        torch.save(self.args, folder / "training_args.bin")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._long_run.state is not None:
            save_file(self._long_run.state_dict(), Path(output_dir) / _LONG_RUN)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (Path(checkpoint) / _LONG_RUN).is_file():
            self._long_run.load_state_dict(load_file(Path(checkpoint) / _LONG_RUN, device=str(self.args.device)))

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Every trained tensor, norms and biases too: ``weight_decay`` acts as in the reference's SGD."""
        return [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; ``resume_from_checkpoint=True`` goes on from the last checkpoint that was written completely."""
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(self.args.output_dir)
            if found is not None:
                state = TrainerState.load_from_json(str(found / TRAINER_STATE_NAME))
                if 0 < self.args.max_steps <= state.global_step:
                    return self._finish_again(found, state)
            resume_from_checkpoint = None if found is None else str(found)
        self._long_run = LongRun()
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _finish_again(self, checkpoint: Path, state: TrainerState) -> TrainOutput:
        """End a run that had taken all its steps; transformers would take one more if they end within an epoch."""
        self.state = state
        best = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self._load_from_checkpoint(str(checkpoint if best is None else checkpoint.with_name(Path(best).name)))
        self.callback_handler.on_train_end(self.args, self.state, self.control)
        return TrainOutput(state.global_step, 0.0, {})


def _collate(collator: Callable[[list[Any]], dict[str, Any]], rows: list[Any]) -> dict[str, Any]:
    return collator(rows) if rows else {}
