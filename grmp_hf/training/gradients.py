"""Gradients of whole batches: summed over micro-batches and processes before anything that is not linear sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grmp_hf.training.regularization import Gradients

__all__ = ["BatchGradients", "GradientAccumulator", "named_gradients"]


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


@dataclass
class BatchGradients:
    """What one micro-batch contributes, of pictures or of episodes.

    Attributes:
        task: gradient of its mean quality loss, or mean meta-gradient.
        semantic: gradient of its mean semantic loss; empty where the rule does not ask for it.
        loss: its mean quality loss, detached.
        count: number of pictures, or of episodes.
    """

    task: Gradients
    semantic: Gradients
    loss: Tensor
    count: int


@dataclass
class GradientAccumulator:
    """Sums of gradients over pictures or episodes, until :meth:`reduce` makes them means over all processes."""

    sums: list[Gradients] = field(default_factory=list)
    loss: Tensor | float = 0.0
    count: int = 0

    def add(self, batch: BatchGradients) -> None:
        """Add a micro-batch, weighted by its count; sums are kept in at least single precision."""
        parts = [batch.task, batch.semantic]
        if not self.sums:
            self.sums = [{name: _wide(grad) * batch.count for name, grad in part.items()} for part in parts]
        else:
            for total, part in zip(self.sums, parts, strict=True):
                for name, grad in part.items():
                    total[name].add_(grad, alpha=batch.count)
        self.loss = self.loss + _wide(batch.loss) * batch.count
        self.count += batch.count

    def reduce(self, names: Sequence[Mapping[str, Tensor]], all_sum: Callable[[Tensor], Tensor]) -> BatchGradients:
        """Mean gradients over what all processes added; afterwards nothing is left here.

        Args:
            names: the parameters of the task and of the semantic gradient, needed where this process added nothing.
            all_sum: adds a tensor up over processes; the identity for one process.
        """
        sums = self.sums or [{n: torch.zeros_like(_wide(p)) for n, p in part.items()} for part in names]
        tensors = [gradient for part in sums for gradient in part.values()]
        # In the widest type: half precision would make 300 of 299 pictures.
        head = torch.stack([tensors[0].new_tensor(float(self.count)), tensors[0].new_tensor(float(self.loss))])
        flat = all_sum(torch.cat([head, *(tensor.flatten() for tensor in tensors)]))
        total, loss = flat[0], flat[1]
        pieces = iter(torch.split(flat[2:] / total, [tensor.numel() for tensor in tensors]))
        means = [{name: next(pieces).view_as(grad) for name, grad in part.items()} for part in sums]
        self.sums, self.loss, self.count = [], 0.0, 0
        return BatchGradients(means[0], means[1], loss / total, round(total.item()))
