"""Watching a model while a Trainer trains it: what the paper protocol does and the clean one never."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import TrainerCallback

from grmp_hf.features import Pictures

__all__ = ["Fitted", "Observer", "Watcher", "adapter_tensors", "as_arrays", "fitted_adapter"]


class Fitted(NamedTuple):
    """What a method has made of the shots.

    Attributes:
        predict: pictures -> (n,) quality, 1 = best; not clipped to [0, 1].
        learnt: copies all numbers that were learnt, by name.
        weights: how many of them an optimizer may have moved; None for all.
    """

    predict: Callable[[Pictures], NDArray[np.float64]]
    learnt: Callable[[], dict[str, NDArray[Any]]]
    weights: int | None = None


def fitted_adapter(model: nn.Module, predict: Callable[[Pictures], NDArray[np.float64]]) -> Fitted:
    """A base with an adapter, which predicts, as what a method has made of the shots."""
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return Fitted(predict, lambda: adapter_tensors(cast(PeftModel, model)), weights)


def as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Copies of tensors, in float32."""
    return {name: tensor.detach().cpu().float().numpy().copy() for name, tensor in tensors.items()}


def adapter_tensors(model: PeftModel) -> dict[str, NDArray[Any]]:
    """A copy of an adapter's tensors, under the names by which it is saved."""
    return as_arrays(get_peft_model_state_dict(model, save_embedding_layers=False))


Observer: TypeAlias = Callable[[int, Fitted, float], float]
"""(epochs done, the model as it is now, learning rate) -> factor on the learning rate; 0 ends the training."""


class Watcher(TrainerCallback):
    """Shows an observer the model before training and after each epoch, and does to the learning rate what it says.

    Args:
        observer: see `Observer`.
        describe: the Trainer's model as `Fitted`.
    """

    def __init__(self, observer: Observer, describe: Callable[[nn.Module], Fitted]) -> None:
        self.observer, self.describe = observer, describe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the untrained model."""
        self._show(0, control, **kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the model."""
        self._show(round(state.epoch), control, **kwargs)

    def _show(self, epoch: int, control: Any, *, model: Any, optimizer: Any, lr_scheduler: Any, **kwargs: Any) -> None:
        factor = self.observer(epoch, self.describe(model), optimizer.param_groups[0]["lr"])
        if factor == 0:
            control.should_training_stop = True
            return
        for group in optimizer.param_groups:
            group["lr"] *= factor
        schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)  # accelerate may have put its own around it
        schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]
