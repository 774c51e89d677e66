"""``GRMPTrainer``: transformers' Trainer with gradients of whole batches under a rule."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.bases import check_base
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.balancing import Watching
from grmp_hf.training.checkpoints import last_complete_checkpoint
from grmp_hf.training.episodes import Episode, Episodes, collate_episodes
from grmp_hf.training.finite import FiniteWeights, check_counted, check_gradients, check_loss, check_pictures
from grmp_hf.training.gradients import ChannelGradient, GradientAccumulator, channel_gradients
from grmp_hf.training.meta_learning import ALGORITHMS, InnerLoop, LongRun, adapt_to_support
from grmp_hf.training.objectives import Batch, Objective, Term, naming, quality, quality_and_semantic, shown
from grmp_hf.training.refusals import refuse_arguments, refuse_episodes, refuse_settings
from grmp_hf.training.rules import UNITS, Rule, only, pull, regularize
from grmp_hf.training.sampling import EpochLoader, Grouped, Plan, PlanSampler, collate_groups, in_order, shuffled

__all__ = ["GRMPTrainer", "last_complete_checkpoint"]

_LONG_RUN, _RULE = "inner_run.safetensors", "rule.json"


class GRMPTrainer(Trainer):
    """Adapts a model to rated pictures, or learns from episodes how to adapt; gradients of whole batches under a rule.

    A step: the objective turns each micro-batch into terms by channel, such as quality and, from the same forward pass,
    semantics (the teacher is the same model without adapter). Each term's gradient is taken, and summed by its weight
    over micro-batches and processes; the rule is applied once to the means; the Trainer clips and steps. One process
    therefore equals several, and accumulation equals one large batch. A batch of episodes gives the mean meta-gradient
    of ``args.meta_algorithm`` as the first channel and the query's gradients of the others under the adapted
    parameters; from there on the path is the same, with tasks in the place of pictures.

    Batches hold what the objective reads: ``pixel_values`` and ``labels`` (quality in [0, 1]), and maybe
    ``teacher_logits`` ``(B, S)`` to save the teacher's forward pass. Episodes come from an
    :class:`~grmp_hf.training.episodes.Episodes`, or from any data set of them with ``data_collator=collate_episodes``.
    In evaluation, each is adapted to by ``args.inner_steps`` steps of first order. The loss of an evaluation is the
    model's own.

    Args:
        model: a ``PeftModel`` around a ``GRMPForImageQualityAssessment``, or that model itself; with an objective of
            its own, any other, such as a :class:`~grmp_hf.modeling.low_level.LowLevelEncoder`.
        args: a :class:`GRMPTrainingArguments`.
        objective: what a batch teaches, an :data:`~grmp_hf.training.objectives.Objective`; None for soft labels, and
            the semantic loss where a rule asks for it.
        rule: from gradients by channel to the step, a :data:`~grmp_hf.training.rules.Rule`, after which the pull of
            ``args`` is added; None for the one that ``args`` describe, or, with an objective of one's own, for the
            gradient of its only channel. One that depends on the losses so far is a
            :class:`~grmp_hf.training.balancing.Watching`.
        plan: which rows a step learns from, a :data:`~grmp_hf.training.sampling.Plan`; None for the one that ``args``
            describe: shuffled joint batches, or episodes in their order. Batches hold the number of each row's group
            as ``groups`` ``(B,)``.
        pulls: beside that of ``args``, pairs of a strength and what it pulls to; see
            :func:`~grmp_hf.training.rules.pull`.
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
        objective: Objective | None = None,
        rule: Rule | None = None,
        plan: Plan | None = None,
        pulls: Sequence[tuple[float, Mapping[str, Tensor]]] = (),
        **kwargs: Any,
    ) -> None:
        if any(isinstance(kwargs.get(name), Episodes) for name in ("train_dataset", "eval_dataset")):
            kwargs.setdefault("data_collator", collate_episodes)
        args = args or GRMPTrainingArguments()
        refuse_arguments(args, kwargs)
        super().__init__(model=model, args=args, **kwargs)
        self._plan = plan
        refuse_settings(self)
        if self.data_collator is collate_episodes:
            refuse_episodes(self)
        self.add_callback(FiniteWeights)
        self._inner = InnerLoop(self.args.inner_steps, self.args.inner_learning_rate, self.args.inner_optimizer)
        self._long_run = LongRun()
        self._accumulator = GradientAccumulator()
        self._error: Exception | None = None
        self._rule: Rule = only
        self._set_axes(objective, rule)
        for strength, target in pulls:
            self._rule = pull(self._rule, strength, target)

    def _set_axes(self, objective: Objective | None, rule: Rule | None) -> None:
        """Objective, inner objective and rule, as they are given or as the arguments describe them."""
        args, strength = self.args, self.args.regularization_strength
        if objective is None:
            levels: Any = self.model.config.quality_levels
            ruled = rule is not None or strength > 0
            self._inner_objective = quality(levels)
            self._objective = quality_and_semantic(levels, args.semantic_temperature) if ruled else quality(levels)
            rule = rule or (regularize(strength, UNITS[args.projection_unit]) if ruled else only)
        else:
            self._objective = self._inner_objective = objective
        self._rule = rule or only
        self._watching = rule if isinstance(rule, Watching) else None
        if args.pull_to_start > 0:
            exempt = tuple(args.pull_exempt)
            pulled = {name: p for name, p in self._trained().items() if not name.endswith(exempt)}
            start = {name: parameter.detach().clone() for name, parameter in pulled.items()}
            self._rule = pull(self._rule, args.pull_to_start, start)

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def get_train_dataloader(self) -> Any:
        """Batches of this process; see :class:`~grmp_hf.training.sampling.PlanSampler`."""
        if self.train_dataset is None or isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        args = self.args
        return EpochLoader(
            Grouped(self.train_dataset),
            batch_sampler=PlanSampler(
                self._plan or self._described_plan(), processes=args.world_size, rank=args.process_index
            ),
            collate_fn=functools.partial(collate_groups, self.data_collator),
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            persistent_workers=args.dataloader_persistent_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
        )

    def _described_plan(self) -> Plan:
        """The plan that the arguments describe; episodes have an order of their own."""
        args, length = self.args, len(self.train_dataset)
        joint = args.joint_batch_size or self._train_batch_size * args.world_size
        if isinstance(self.train_dataset, Episodes) or args.train_sampling_strategy == "sequential":
            return in_order(length, joint, drop_last=args.dataloader_drop_last)
        seed = args.seed if args.data_seed is None else args.data_seed
        return shuffled(length, joint, seed=seed, drop_last=args.dataloader_drop_last)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Add a micro-batch's gradients; on the last one of a step, reduce, apply the rule and write ``.grad``.

        Returns:
            The first channel's mean loss over all of the step on its last micro-batch, else 0.

        Raises:
            GRMPError: a loss or a gradient, of any channel, that is not finite, or nothing to learn from.
        """
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # of the schedule-free ones
            self.optimizer.train()
        if any(
            len(part) for name, part in inputs.items() if name != "groups"
        ):  # a process may have no part in the last batch of an epoch
            try:
                self._accumulator.add(self.batch_gradients(self._prepare_inputs(inputs)))
            except Exception as error:
                if self.args.world_size == 1:
                    raise
                self._error = error  # all processes are told when they meet, so that none waits for this one
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        parameters = self._trained()
        means = self._accumulator.reduce(
            parameters, self._meet(), functools.partial(self.accelerator.reduce, reduction="sum")
        )
        check_counted(means, self.state.global_step + 1)
        if self._watching is not None:
            losses = {channel: mean.loss.item() for channel, mean in means.items()}
            self._watching.watch(losses, int(self.state.epoch or 0))
        gradients = self._rule({channel: mean.gradients for channel, mean in means.items()}, parameters)
        check_gradients(means, gradients, self.state.global_step + 1)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].to(parameter.dtype)
        return next(iter(means.values())).loss.to(self.args.device)

    def _meet(self) -> list[str]:
        """Channels that any process has added to, in one order for all; what ended one of them ends them all."""
        own, error = list(self._accumulator.sums), self._error
        self._error = None
        if self.args.world_size == 1:
            return own
        met = gather_object([(own, None if error is None else f"{error}")])
        if error is not None:
            raise error
        for _, failure in met:
            if failure is not None:
                raise GRMPError(f"Expected every process to learn from its part, but one was told: {failure}")
        return list(dict.fromkeys(channel for channels, _ in met for channel in channels))

    def batch_gradients(self, inputs: dict[str, Any]) -> Mapping[str, ChannelGradient]:
        """Gradients of one micro-batch by channel: of rated pictures, or of episodes."""
        if "episodes" in inputs:
            return self._episode_gradients(inputs["episodes"])
        with naming(inputs):
            terms = self._objective(functools.partial(self._forward, {}), self._teach, inputs)
        return channel_gradients(terms, self._trained())

    def _episode_gradients(self, episodes: Sequence[Episode]) -> Mapping[str, ChannelGradient]:
        """Mean meta-gradient over episodes."""
        name, parameters = self.args.meta_algorithm, self._trained()
        algorithm = self._long_run if name == "authors" else ALGORITHMS[name]
        total = GradientAccumulator()
        # Of torch's attention kernels, this one alone has second derivatives.
        with sdpa_kernel(SDPBackend.MATH) if name == "maml" else contextlib.nullcontext():
            for episode in episodes:
                check_pictures(episode)
                total.add(algorithm(self._inner_loss, parameters, episode, self._inner, self._judge))
        return total.reduce(parameters)

    def _judge(self, parameters: Mapping[str, Tensor], batch: Batch) -> Mapping[str, Term]:
        """Terms of a batch with ``parameters`` in the place of the model's own."""
        with naming(batch):
            return self._objective(functools.partial(self._forward, parameters), self._teach, batch)

    def _inner_loss(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The first term of a batch, with ``parameters`` in the place of the model's own."""
        with naming(batch):
            terms = self._inner_objective(functools.partial(self._forward, parameters), self._teach, batch)
        return next(iter(terms.values())).mean

    def _forward(self, parameters: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> Any:
        # The model without its DDP shell: gradients are taken and reduced here, not by DDP's hooks. Autocast stays,
        # since accelerate put it into this model's own forward.
        return functional_call(self.model, dict(parameters), (), dict(inputs))

    def _teach(self, inputs: Mapping[str, Any]) -> Any:
        with teacher_mode(self.model):
            return self.model(**inputs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """As in ``Trainer``; of episodes, the query's mean loss, quality ``(E, Q)`` and labels after adaptation."""
        if "episodes" not in inputs:
            return super().prediction_step(model, shown(inputs, labels=True), prediction_loss_only, ignore_keys)
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
            adapted = adapt_to_support(self._inner_loss, self._trained(), episode["support"], self._inner)
        outputs, labels = [], [batch["labels"].flatten() for batch in episode["query"]]
        with torch.no_grad():
            for batch in episode["query"]:
                outputs.append(self._forward(adapted, shown(batch, labels=True)))
        sums = [output.loss * len(part) for output, part in zip(outputs, labels, strict=True)]
        every = torch.cat(labels)
        return torch.stack(sums).sum() / len(every), torch.cat([output.quality for output in outputs]), every

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not isinstance(self.model, PeftModel):
            super()._save(output_dir, state_dict)
        if not (isinstance(self.model, PeftModel) and self.args.should_save):  # which every process is asked
            return
        # The Trainer's own has PEFT look up the base on the Hub, to see whether its vocabulary has grown.
        folder = Path(output_dir or self.args.output_dir)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(str(folder))
        own: Any = self.processing_class  # with which the adapter has to be loaded
        seen: dict[str, Any] = {"preprocessing": own.settings()} if isinstance(own, GRMPImageProcessor) else {}
        self.model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)
        for name, config in self.model.peft_config.items():
            record = dataclasses.replace(check_base(config, self.model.get_base_model()), **seen)
            record.attach(config)
            record.save(folder if name == "default" else folder / name, named=True)
        torch.save(self.args, folder / "training_args.bin")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._long_run.state is not None:
            save_file(self._long_run.state_dict(), Path(output_dir) / _LONG_RUN)
        if self._watching is not None and self.args.should_save:
            (Path(output_dir) / _RULE).write_text(json.dumps(self._watching.state_dict()), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (Path(checkpoint) / _LONG_RUN).is_file():
            self._long_run.load_state_dict(load_file(Path(checkpoint) / _LONG_RUN, device=str(self.args.device)))
        if checkpoint is not None and self._watching is not None and (Path(checkpoint) / _RULE).is_file():
            self._watching.load_state_dict(json.loads((Path(checkpoint) / _RULE).read_text(encoding="utf-8")))

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Every trained tensor, norms and biases too: ``weight_decay`` acts as in the reference's SGD."""
        return [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; ``resume_from_checkpoint=True`` goes on from the last checkpoint that was written completely.

        Raises:
            GRMPError: called under ``torch.inference_mode``, which knows no gradients.
        """
        if torch.is_inference_mode_enabled():
            raise GRMPError(
                "Expected training to be called outside torch.inference_mode, got it inside. Leave it first."
            )
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(self.args.output_dir)
            if found is not None:
                state = TrainerState.load_from_json(str(found / TRAINER_STATE_NAME))
                if 0 < self.args.max_steps <= state.global_step:
                    return self._finish_again(found, state)
            resume_from_checkpoint = None if found is None else str(found)
        self._long_run, self._accumulator, self._error = LongRun(), GradientAccumulator(), None
        if self._watching is not None:
            self._watching.load_state_dict({})
        with torch.enable_grad():  # whatever surrounds the call: without gradients nothing would be learnt in silence
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _finish_again(self, checkpoint: Path, state: TrainerState) -> TrainOutput:
        """End a run that had taken all its steps; transformers would take one more if they end within an epoch."""
        self.state = state
        best = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self._load_from_checkpoint(str(checkpoint if best is None else checkpoint.with_name(Path(best).name)))
        self.callback_handler.on_train_end(self.args, self.state, self.control)
        return TrainOutput(state.global_step, 0.0, {})
