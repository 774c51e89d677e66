"""From episodes to meta-gradients: the inner loop and the algorithms around it, over named tensors.

Letters in equations: theta the meta parameters, phi the adapted ones, alpha the inner learning rate, K the inner steps,
S the support and Q the query of an episode, L the quality loss.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.episodes import Episode
from grmp_hf.training.gradients import ChannelGradient, channel_gradients, named_gradients
from grmp_hf.training.objectives import Batch, Term

__all__ = [
    "ALGORITHMS",
    "INNER_OPTIMIZERS",
    "InnerLoop",
    "InnerState",
    "Judge",
    "LongRun",
    "LossOf",
    "Parameters",
    "adapt_to_support",
    "fomaml",
    "inner_loop",
    "maml",
    "mean_terms",
    "reptile",
]

Parameters = dict[str, Tensor]
LossOf = Callable[[Parameters, Batch], Tensor]
"""Mean loss of a batch under given parameters."""
Judge = Callable[[Parameters, Batch], Mapping[str, Term]]
"""Terms of a query batch by channel, the task first."""


@dataclass(frozen=True)
class InnerLoop:
    """How the inner loop steps.

    Attributes:
        steps: K.
        learning_rate: alpha.
        optimizer: ``"sgd"``, or ``"adam"`` with moments that begin at 0.
    """

    steps: int
    learning_rate: float
    optimizer: Literal["sgd", "adam"] = "sgd"


@dataclass(frozen=True)
class InnerState:
    """Where an inner loop is.

    Attributes:
        parameters: phi.
        first, second: Adam's running means of the gradient and of its square; empty before the first step.
        steps: taken since the means began.
    """

    parameters: Parameters
    first: Parameters = field(default_factory=dict)
    second: Parameters = field(default_factory=dict)
    steps: int = 0


def _sgd(state: InnerState, gradients: Parameters, rate: float) -> InnerState:
    return replace(state, parameters={name: p - rate * gradients[name] for name, p in state.parameters.items()})


def _adam(state: InnerState, gradients: Parameters, rate: float) -> InnerState:
    """One step of Adam with torch's constants, which can be differentiated."""
    steps, betas, epsilon = state.steps + 1, (0.9, 0.999), 1e-8
    parameters, first, second = {}, {}, {}
    for name, gradient in gradients.items():
        first[name] = (1 - betas[0]) * gradient + betas[0] * state.first.get(name, 0.0)
        second[name] = (1 - betas[1]) * gradient.square() + betas[1] * state.second.get(name, 0.0)
        # A root has no derivative at 0, where the step is 0 whatever stands below.
        moved = second[name] > 0
        root = torch.where(moved, second[name], 1.0).sqrt() * moved
        below = root / math.sqrt(1 - betas[1] ** steps) + epsilon
        parameters[name] = state.parameters[name] - rate / (1 - betas[0] ** steps) * first[name] / below
    return InnerState(parameters, first, second, steps)


INNER_OPTIMIZERS = {"sgd": _sgd, "adam": _adam}


def inner_loop(
    loss_of: LossOf,
    start: InnerState,
    batches: Iterable[Batch],
    inner: InnerLoop,
    *,
    differentiable: bool = False,
) -> InnerState:
    """Take one step on each batch; with plain descent ``phi <- phi - alpha grad L(phi; batch)``.

    Args:
        loss_of: the loss to descend.
        start: where to begin; it is not changed.
        batches: one for each step, whatever ``inner.steps`` says.
        inner: rate and optimizer.
        differentiable: keep the way back from the result to ``start.parameters``, which must require gradients.
    """
    state, step = start, INNER_OPTIMIZERS[inner.optimizer]
    for batch in batches:
        state = state if differentiable else replace(state, parameters=_leaves(state.parameters))
        gradients = named_gradients(loss_of(state.parameters, batch), state.parameters, create_graph=differentiable)
        with torch.set_grad_enabled(differentiable):
            state = step(state, gradients, inner.learning_rate)
    return state


def adapt_to_support(
    loss_of: LossOf, parameters: Mapping[str, Tensor], support: Sequence[Batch], inner: InnerLoop
) -> Parameters:
    """Parameters after K steps over the batches of a support, again from the first one after the last.

    Args:
        loss_of: mean loss of a batch under parameters.
        parameters: name -> tensor, of any shapes; they stay as they are.
        support: batches of one task.
        inner: K, rate and optimizer.
    """
    return inner_loop(loss_of, InnerState(_leaves(parameters)), _cycled(support, inner.steps), inner).parameters


def maml(
    loss_of: LossOf,
    parameters: Mapping[str, Tensor],
    episode: Episode,
    inner: InnerLoop,
    judge: Judge | None = None,
) -> dict[str, ChannelGradient]:
    """Gradient of the query's loss after adaptation, through the inner loop::

        g = grad_theta L(phi_K(theta); Q)

    The gradients of other channels, where ``judge`` gives some, go through the inner loop as well.

    Args:
        loss_of: the loss of the inner loop. Its second derivatives are taken.
        parameters: theta.
        episode: its support is adapted to, its query judged on.
        inner: the inner loop; with K = 0 the result is the query's plain gradient.
        judge: the losses of a query batch; None for ``loss_of`` alone.

    Returns:
        The gradients of one episode: its count is 1, its loss that of the query after adaptation.

    Source: "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks" (ICML 2017); docs/method.md.
    """
    theta = _leaves(parameters)
    batches = _cycled(episode["support"], inner.steps)
    adapted = inner_loop(loss_of, InnerState(theta), batches, inner, differentiable=True).parameters
    return channel_gradients(_query_terms(judge or _only(loss_of), adapted, episode["query"]), theta)


def fomaml(
    loss_of: LossOf,
    parameters: Mapping[str, Tensor],
    episode: Episode,
    inner: InnerLoop,
    judge: Judge | None = None,
) -> dict[str, ChannelGradient]:
    """First-order MAML: the gradient at the adapted parameters stands for that at the meta parameters::

        g = grad_phi L(phi_K; Q)

    Arguments and result are those of :func:`maml`.

    Source: as :func:`maml`, section 5.2.
    """
    phi = _leaves(adapt_to_support(loss_of, parameters, episode["support"], inner))
    return channel_gradients(_query_terms(judge or _only(loss_of), phi, episode["query"]), phi)


def reptile(
    loss_of: LossOf,
    parameters: Mapping[str, Tensor],
    episode: Episode,
    inner: InnerLoop,
    judge: Judge | None = None,
) -> dict[str, ChannelGradient]:
    """The way that the inner loop went, in units of a gradient::

        g = (theta - phi_K) / (K alpha)

    Support and query are both learnt from, a batch of the one after a batch of the other. With plain inner descent,
    ``g`` is the mean of the K gradients. Other channels' gradients are those of the query at ``phi_K``.

    Arguments and result are those of :func:`maml`.

    Raises:
        GRMPError: K = 0, which goes no way.

    Source: "On First-Order Meta-Learning Algorithms" (arXiv 1803.02999).
    """
    if inner.steps < 1:
        raise GRMPError(f"Expected at least 1 inner step for reptile, got {inner.steps}.")
    batches = _cycled(_alternating(episode), inner.steps)
    adapted = inner_loop(loss_of, InnerState(_leaves(parameters)), batches, inner).parameters
    length = inner.steps * inner.learning_rate
    return _way(parameters, adapted, length, judge or _only(loss_of), episode["query"])


ALGORITHMS = {"fomaml": fomaml, "maml": maml, "reptile": reptile}


class LongRun:
    """The reference's pre-training: one inner run over all tasks that is never set back to the meta parameters.

    Each call takes the run through one episode: a step on each support batch, each followed by a step on the next query
    batch. What it returns as gradient is ``theta - phi``, undivided, so that an outer step of plain descent at rate
    0.01 makes theta a slow average of phi. The run's state outlives the call, so episodes must come in one sequence.

    Source: the reference's ``train_model``; docs/method.md.
    """

    def __init__(self) -> None:
        self.state: InnerState | None = None

    def __call__(
        self,
        loss_of: LossOf,
        parameters: Mapping[str, Tensor],
        episode: Episode,
        inner: InnerLoop,
        judge: Judge | None = None,
    ) -> dict[str, ChannelGradient]:
        """Go through one episode; arguments and result are those of :func:`maml`, K is the reference's."""
        state = self.state or InnerState(_leaves(parameters))
        if episode.get("fresh_optimizer"):
            state = InnerState(state.parameters)
        self.state = inner_loop(loss_of, state, _alternating(episode), inner)
        return _way(parameters, self.state.parameters, 1.0, judge or _only(loss_of), episode["query"])

    def state_dict(self) -> dict[str, Tensor]:
        """All of the run as flat tensors; empty before the first episode."""
        if self.state is None:
            return {}
        kinds = {"parameters": self.state.parameters, "first": self.state.first, "second": self.state.second}
        flat = {f"{kind}/{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}
        return {"steps": torch.tensor(self.state.steps), **flat}

    def load_state_dict(self, flat: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        kinds: dict[str, Parameters] = {"parameters": {}, "first": {}, "second": {}}
        for key, tensor in flat.items():
            kind, _, name = key.partition("/")
            if name:
                kinds[kind][name] = tensor
        self.state = InnerState(**kinds, steps=int(flat["steps"])) if flat else None


def mean_terms(judge: Judge, parameters: Parameters, batches: Sequence[Batch]) -> dict[str, Term]:
    """Terms of all batches together, each channel's mean over everything that its weights count."""
    found = [judge(parameters, batch) for batch in batches]
    means = {}
    for channel in dict.fromkeys(channel for terms in found for channel in terms):
        parts = [terms[channel] for terms in found if channel in terms]
        counted, total = [part for part in parts if part.weight], sum(part.weight for part in parts)
        shares = [weight / total * mean for mean, weight in counted]
        means[channel] = Term(torch.stack(shares).sum(), total) if counted else parts[0]
    return means


def _query_terms(judge: Judge, parameters: Parameters, query: Sequence[Batch]) -> dict[str, Term]:
    """Terms of a whole query, each with the weight of one task."""
    found = mean_terms(judge, parameters, query)
    return {channel: Term(mean, 1 if weight else 0) for channel, (mean, weight) in found.items()}


def _way(
    parameters: Mapping[str, Tensor], adapted: Parameters, length: float, judge: Judge, query: Sequence[Batch]
) -> dict[str, ChannelGradient]:
    """``(theta - phi) / length`` as gradient of the task, and the query's gradients of the other channels."""
    phi = _leaves(adapted)
    (task, term), *others = _query_terms(judge, phi, query).items()
    way = {name: (parameter.detach() - adapted[name]) / length for name, parameter in parameters.items()}
    return {task: ChannelGradient(way, term.mean.detach(), 1), **channel_gradients(dict(others), phi)}


def _only(loss_of: LossOf) -> Judge:
    return lambda parameters, batch: {"task": Term(loss_of(parameters, batch), len(next(iter(batch.values()))))}


def _leaves(parameters: Mapping[str, Tensor]) -> Parameters:
    return {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}


def _cycled(batches: Iterable[Batch], count: int) -> Iterable[Batch]:
    return itertools.islice(itertools.cycle(batches), count)


def _alternating(episode: Episode) -> list[Batch]:
    """Each support batch, followed by the next query batch, again from the first one after the last."""
    pairs = zip(episode["support"], itertools.cycle(episode["query"]), strict=False)
    return [batch for pair in pairs for batch in pair]
