"""Gradients of whole batches: summed over micro-batches and processes before anything that is not linear sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from grmp_hf.training.objectives import Term

__all__ = ["ChannelGradient", "GradientAccumulator", "Gradients", "channel_gradients", "named_gradients"]

Gradients = dict[str, Tensor]
"""Name of a trained tensor -> gradient by it."""


def named_gradients(
    loss: Tensor, parameters: Mapping[str, Tensor], *, retain_graph: bool | None = None, create_graph: bool = False
) -> Gradients:
    """Gradient of a loss by name; a parameter that the loss does not reach gets zeros.

    Args:
        loss: scalar.
        parameters: name -> what to differentiate by.
        retain_graph: keep the graph of the loss for another gradient.
        create_graph: let the gradients themselves be differentiated.
    """
    if not loss.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), retain_graph=retain_graph, create_graph=create_graph, allow_unused=True
    )
    pairs = zip(parameters.items(), gradients, strict=True)
    return {name: torch.zeros_like(parameter) if grad is None else grad for (name, parameter), grad in pairs}


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class ChannelGradient(NamedTuple):
    """What a micro-batch, of pictures or of episodes, contributes to one channel.

    Attributes:
        gradients: of the mean loss, one for each trained tensor; or a mean meta-gradient.
        loss: the mean loss, detached.
        weight: of the mean; see :class:`~grmp_hf.training.objectives.Term`.
    """

    gradients: Gradients
    loss: Tensor
    weight: float


def channel_gradients(terms: Mapping[str, Term], parameters: Mapping[str, Tensor]) -> dict[str, ChannelGradient]:
    """Gradient of each term, from one forward pass of all.

    Args:
        terms: channel -> term; those of weight 0 are left out.
        parameters: name -> what to differentiate by.
    """
    counted = {channel: term for channel, term in terms.items() if term.weight}
    found = {}
    for left, (channel, (mean, weight)) in reversed(list(enumerate(counted.items()))):  # the graph is kept to the last
        gradients = named_gradients(mean, parameters, retain_graph=left > 0)
        found[channel] = ChannelGradient(gradients, mean.detach(), weight)
    return {channel: found[channel] for channel in counted}


@dataclass
class GradientAccumulator:
    """Sums of gradients by channel, until :meth:`reduce` makes them means over all processes."""

    sums: dict[str, ChannelGradient] = field(default_factory=dict)

    def add(self, batch: Mapping[str, ChannelGradient]) -> None:
        """Add a micro-batch by its weights; sums are kept in at least single precision."""
        for channel, (gradients, loss, weight) in batch.items():
            if channel not in self.sums:
                sums = {name: _wide(gradient) * weight for name, gradient in gradients.items()}
                self.sums[channel] = ChannelGradient(sums, _wide(loss) * weight, weight)
                continue
            total = self.sums[channel]
            for name, gradient in gradients.items():
                total.gradients[name].add_(gradient, alpha=weight)
            self.sums[channel] = ChannelGradient(
                total.gradients, total.loss + _wide(loss) * weight, total.weight + weight
            )

    def reduce(
        self,
        parameters: Mapping[str, Tensor],
        channels: Iterable[str] | None = None,
        all_sum: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> dict[str, ChannelGradient]:
        """Means over what all processes added; afterwards nothing is left here.

        Args:
            parameters: name -> trained tensor.
            channels: of all processes, in the same order for each: this one may have added nothing to some. None for
                its own.
            all_sum: adds a tensor up over processes; the identity for one process.

        Returns:
            channel -> means, with the sum of all weights.
        """
        sums, self.sums = self.sums, {}
        if channels is not None:
            sums = {channel: sums.get(channel) or _nothing(parameters) for channel in channels}
        if not sums:
            return {}
        # In the widest type: half precision would make 300 of 299 pictures.
        tensors = [gradient for total in sums.values() for gradient in total.gradients.values()]
        heads = [tensors[0].new_tensor([float(total.weight), float(total.loss)]) for total in sums.values()]
        flat = all_sum(torch.cat([*heads, *(tensor.flatten() for tensor in tensors)]))
        pieces = iter(torch.split(flat, [2] * len(sums) + [tensor.numel() for tensor in tensors]))
        heads, means = [next(pieces) for _ in sums], {}
        for (channel, total), (weight, loss) in zip(sums.items(), heads, strict=True):
            gradients = {name: next(pieces).view_as(part) / weight for name, part in total.gradients.items()}
            means[channel] = ChannelGradient(gradients, loss / weight, weight.item())
        return means


def _nothing(parameters: Mapping[str, Tensor]) -> ChannelGradient:
    zeros = {name: torch.zeros_like(_wide(parameter)) for name, parameter in parameters.items()}
    return ChannelGradient(zeros, torch.zeros(()), 0.0)
