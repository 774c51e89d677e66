"""Numbers that are none, found before anything is made of them: losses, gradients, weights, batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.training.gradients import ChannelGradient, Gradients

__all__ = [
    "FiniteWeights",
    "about_half",
    "check_counted",
    "check_gradients",
    "check_loss",
    "check_pictures",
    "squared_length",
]

_MENDS = {
    "loss": "Look for pixel_values, image_embeds or weights of the base that are not finite; lower "
    "learning_rate, of episodes also inner_learning_rate; train in full precision (bf16=False).",
    "gradient": "Lower learning_rate, of episodes also inner_learning_rate; train in full precision (bf16=False).",
    "semantic gradient": "Look for teacher_logits that are not finite, or leave them out of the batch: the base gives "
    "them; raise semantic_temperature; train in full precision (bf16=False). The gradient rule would do nothing here.",
    "gradient after the rule": "Look at what the rule gives, or lower regularization_strength.",
}


def squared_length(tensors: Iterable[Tensor]) -> Tensor:
    """Sum of squares of all numbers, at least in single precision: not finite if one of them is not, or overflows."""
    return torch.stack([_square(tensor) for tensor in tensors]).sum()


def _square(tensor: Tensor) -> Tensor:
    flat = tensor.detach().flatten()
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    return flat.dot(flat)


def check_counted(means: Mapping[str, ChannelGradient], step: int) -> None:
    """Raise for a step with nothing to learn from.

    Args:
        means: of all processes, by channel.
        step: that would be taken, from 1.

    Raises:
        GRMPError: no term of the objective counts anything.
    """
    if not means:
        raise GRMPError(
            f"Expected at least one picture in step {step}, got none that a term of the objective counts. Give pairs "
            "and correlations, which are those of groups, plan=within(...) of grmp_hf.training.sampling; else look at "
            "what data_collator gives, and let a plan of your own leave such batches out."
        )


def check_gradients(means: Mapping[str, ChannelGradient], ruled: Gradients, step: int) -> None:
    """Raise rather than step into weights that are no numbers, or without the rule that was asked for.

    Args:
        means: of all processes, by channel, before the rule.
        ruled: what the rule made of them.
        step: that would be taken, from 1.

    Raises:
        GRMPError: names the first channel that is not finite, its tensors, and what to do.
    """
    task, (_, loss, _) = next(iter(means.items()))
    channels: dict[str, Gradients] = {f"{task} loss": {"": loss}}
    channels |= {f"{channel} gradient": mean.gradients for channel, mean in means.items()}
    channels["gradient after the rule"] = ruled
    tensors = [tensor for channel in channels.values() for tensor in channel.values()]
    if bool(squared_length(tensors).isfinite()):  # one number read a step
        return
    for name, channel in channels.items():
        bad = [key for key, tensor in channel.items() if not bool(_square(tensor).isfinite())]
        if bad:
            where = "" if bad == [""] else f" in {len(bad)} of {len(channel)} tensors, {bad[0]!r} the first"
            got = f"a {name} of {loss.item():g}" if bad == [""] else f"a {name} that is not{where}"
            mend = _MENDS.get(name) or _MENDS[name.rpartition(" ")[2]]
            raise GRMPError(
                f"Expected a finite loss and gradient, got {got}, in step {step}. {mend} The weights are those of the "
                "step before."
            )


def check_loss(metrics: Mapping[str, Any] | None, predictions: Any) -> None:
    """Raise if an evaluation gave a loss or predictions that are no numbers.

    Raises:
        GRMPError: names what is not finite.
    """
    losses = {name: value for name, value in (metrics or {}).items() if name.endswith("_loss")}
    if _all_finite([*losses.values(), predictions]):
        return
    said = ", ".join(f"{name} {value:g}" for name, value in losses.items()) or "predictions that are not"
    raise GRMPError(
        f"Expected finite numbers from an evaluation, got {said}. Look for pixel_values, image_embeds or weights that "
        "are not finite; of episodes, lower inner_learning_rate; evaluate in full precision."
    )


def _all_finite(values: Any) -> bool:
    if isinstance(values, tuple | list):
        return all(map(_all_finite, values))
    return values is None or bool(np.isfinite(values).all())


def check_pictures(batches: Mapping[str, Any]) -> None:
    """Raise for an episode without a picture to adapt to, or to be judged on.

    Raises:
        GRMPError: names the episode and the side that is empty.
    """
    for side in ("support", "query"):
        counts = [len(batch["labels"]) for batch in batches[side]]
        if not counts or not min(counts):
            raise GRMPError(
                f"Expected at least one picture in every batch of the {side} of episode {batches.get('task')!r}, got "
                f"{counts or 'no batch'}. Leave empty batches and tasks without pictures out."
            )


def about_half(model: nn.Module) -> str:
    """Why a model's trained weights cannot be in float16, and what to do; "" where none is.

    Half precision holds no epsilon of an optimizer: where a gradient is small, a step is of any size, and finite.
    """
    half = [name for name, p in model.named_parameters() if p.requires_grad and p.dtype == torch.float16]
    if not half:
        return ""
    return (
        f"Expected trained weights in float32 or bfloat16, got {len(half)} in float16, in which steps jump, "
        f"{half[0]!r} the first. Call model.float() before, or load the model in fp32; bf16=True makes it faster."
    )


class FiniteWeights(TrainerCallback):
    """Ends a training whose step led to weights that are no numbers, before they are saved or judged.

    It begins none in float16, which an evaluation with fp16_full_eval=True leaves a model in.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Raise where trained weights are in float16."""
        if reason := about_half(model):
            raise GRMPError(reason)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Raise where the weights after a step are not finite; the same in every process."""
        if not bool(squared_length([p for p in model.parameters() if p.requires_grad]).isfinite()):
            raise GRMPError(
                f"Expected finite weights after step {state.global_step}, got some that are not. Lower learning_rate "
                f"(now {args.learning_rate:g}), weight_decay or pull_to_start, and begin anew or at a checkpoint."
            )
