"""One training run in a folder of its own, which goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback

from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.checkpoints import claim_folder
from grmp_hf.training.trainer import GRMPTrainer

__all__ = ["Teller", "fitting", "kept_quietly"]


def kept_quietly(save_steps: int) -> dict[str, Any]:
    """Of ``GRMPTrainingArguments``: a checkpoint every so many steps, or none for 0, and nothing printed."""
    return {
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": max(save_steps, 1),
        "save_total_limit": 2,
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


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
    model: PeftModel, arguments: GRMPTrainingArguments, run: Mapping[str, Any], *, keep: bool, **given: Any
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
        Path(arguments.output_dir).parent.mkdir(parents=True, exist_ok=True)
        claimed = claim_folder(Path(arguments.output_dir), run)
    with claimed:
        trainer = GRMPTrainer(model, arguments, **given)
        trainer.remove_callback(PrinterCallback)
        yield trainer
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # from now on scores are those of fp32
        model.eval()
        if not keep:
            claimed.remove()
