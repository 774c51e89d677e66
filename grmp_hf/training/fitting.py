"""One training run in a folder of its own, which goes on where it was interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from grmp_hf.record import Record
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.checkpoints import claim_folder
from grmp_hf.training.trainer import GRMPTrainer

__all__ = ["Teller", "fitting", "kept_quietly", "plain_arguments", "say_taught"]


def kept_quietly(save_steps: int) -> dict[str, Any]:
    """Of ``GRMPTrainingArguments``: a checkpoint every so many steps, or none for 0, and nothing printed."""
    return {
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": max(save_steps, 1),
        "save_total_limit": 2,
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def plain_arguments(recipe: Any, output: Path, seed: int, *, use_cpu: bool) -> GRMPTrainingArguments:
    """Arguments of a run in the folder ``fit`` that begins and ends within one call, without the gradient rule.

    Args:
        recipe: with ``epochs``, or ``steps`` where these are 0, ``learning_rate``, which falls to 0 by a cosine,
            ``weight_decay`` and ``bf16``.
        output: in which the folder is.
        seed: of what the Trainer draws.
        use_cpu: even where there is something faster.
    """
    return GRMPTrainingArguments(
        output_dir=str(output / "fit"),
        num_train_epochs=recipe.epochs,
        max_steps=-1 if recipe.epochs else recipe.steps,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="cosine",
        regularization_strength=0.0,
        seed=seed,
        bf16=bool(recipe.bf16),
        use_cpu=use_cpu,
        **kept_quietly(0),
    )


class Teller(TrainerCallback):
    """Hands the Trainer's progress on.

    Args:
        tell: told ``what`` is being done and which share of it is done; None for nobody.
    """

    def __init__(self, tell: Callable[[str, float], None] | None, what: str) -> None:
        self.tell, self.what = tell, what

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.tell is not None:
            self.tell(self.what, state.global_step / state.max_steps)


@contextmanager
def fitting(
    model: nn.Module, arguments: GRMPTrainingArguments, run: Mapping[str, Any], *, keep: bool, **given: Any
) -> Iterator[GRMPTrainer]:
    """A trainer, its folder claimed for as long as it is at work, and the model as it scores afterwards.

    Args:
        model: in training; in evaluation mode and full precision afterwards.
        arguments: their ``output_dir`` is the folder.
        run: all that decides about the checkpoints, as JSON values.
        keep: leave the checkpoints of a finished run.
        given: to :class:`GRMPTrainer`.

    Raises:
        GRMPError: the folder holds checkpoints of another run; see :func:`~grmp_hf.training.checkpoints.claim_folder`.
    """
    with arguments.main_process_first(local=False):
        claimed = claim_folder(Path(arguments.output_dir), run)
    with claimed:
        trainer = GRMPTrainer(model, arguments, **given)
        trainer.remove_callback(PrinterCallback)
        yield trainer
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # from now on scores are those of fp32
        model.eval()
        if not keep:
            claimed.remove()


def say_taught(model: PeftModel, run: Mapping[str, Any], **counts: int) -> PeftModel:
    """Let the record of an adapter say what has taught it.

    Args:
        model: with the adapter active; returned.
        run: recipe, seed and what labels or pictures there were.
        counts: ``shots``, if all pictures were rated, else ``pictures``.
    """
    config: Any = model.active_peft_config
    record = Record.of(config)
    known = {name: value for name, value in run.items() if name != "base"}  # which the record has of itself
    dataclasses.replace(record, provenance={**(record.provenance or {}), **counts, **known}).attach(config)
    return model
