"""From the gradients of a whole batch, by channel, to the step: pure functions over named tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.gradients import Gradients

__all__ = [
    "UNITS",
    "Rule",
    "Unit",
    "alignment",
    "global_unit",
    "only",
    "pull",
    "regularize",
    "summed",
    "tensor_unit",
    "turn_away",
]

Rule = Callable[[dict[str, Gradients], Mapping[str, Tensor]], Gradients]
"""(channel -> gradients of a whole batch, the trained parameters) -> the gradients to step with, one for each.

A channel that nothing in the batch counted for is not among them.
"""
Unit = Callable[[str], str]
"""Maps a parameter's name to the name of its unit; the rule sees the tensors of a unit as one long vector."""

_QKV = re.compile(r"\.[qkv]_proj\.")


def tensor_unit(name: str) -> str:
    """Each tensor of the reference is a unit: q, k and v of an attention are packed into one there.

    >>> tensor_unit("layers.2.self_attn.k_proj.weight"), tensor_unit("layers.2.mlp.fc1.bias")
    ('layers.2.self_attn.qkv_proj.weight', 'layers.2.mlp.fc1.bias')
    """
    return _QKV.sub(".qkv_proj.", name)


def global_unit(name: str) -> str:
    """All tensors are one unit."""
    return "all"


UNITS: dict[str, Unit] = {"tensor": tensor_unit, "global": global_unit}


def only(gradients: dict[str, Gradients], parameters: Mapping[str, Tensor]) -> Gradients:
    """The rule of an objective with one channel: its gradient.

    Raises:
        GRMPError: there are several.
    """
    if len(gradients) > 1:
        raise GRMPError(
            f"Expected a rule that makes one gradient of the channels {', '.join(gradients)}, got none. Pass rule= to "
            "GRMPTrainer: a function (gradients by channel, parameters) -> gradients, such as rules.regularize(5.0)."
        )
    return next(iter(gradients.values()))


def summed(weights: Mapping[str, float] | None = None) -> Rule:
    """The rule of losses that add up: the sum of their gradients. A channel that nothing counted for adds nothing.

    Args:
        weights: channel -> factor; 1 where it is not named, and for all if None.
    """
    factors = dict(weights or {})

    def rule(gradients: dict[str, Gradients], parameters: Mapping[str, Tensor]) -> Gradients:
        parts = [(factors.get(channel, 1.0), part) for channel, part in gradients.items()]
        return {name: torch.stack([factor * part[name] for factor, part in parts]).sum(0) for name in parameters}

    return rule


def regularize(strength: float, unit: Unit = tensor_unit) -> Rule:
    """The quality-aware rule: :func:`turn_away` the gradient of ``"quality"`` from that of ``"semantic"``.

    It raises a GRMPError where these are not the channels.

    Args:
        strength: lambda, at least 0.
        unit: groups the names.
    """

    def rule(gradients: dict[str, Gradients], parameters: Mapping[str, Tensor]) -> Gradients:
        if gradients.keys() != {"quality", "semantic"}:
            raise GRMPError(
                f"Expected the channels quality and semantic for the gradient rule, got {', '.join(gradients)}. Pass a "
                "rule= for the channels of your objective."
            )
        return turn_away(gradients["quality"], gradients["semantic"], strength, unit)

    return rule


def pull(rule: Rule, strength: float, start: Mapping[str, Tensor]) -> Rule:
    """A rule, and after it the gradient of ``(strength / 2) |theta - theta_start|^2``.

    Args:
        rule: of the gradients alone.
        strength: at least 0.
        start: name -> value that it is pulled to; names that are missing are not pulled.
    """

    def pulled(gradients: dict[str, Gradients], parameters: Mapping[str, Tensor]) -> Gradients:
        step = rule(gradients, parameters)
        held = {name: strength * (parameters[name].detach() - value) for name, value in start.items()}
        return {name: part.to(held[name]) + held[name] if name in held else part for name, part in step.items()}

    return pulled


def turn_away(
    task_grad: Mapping[str, Tensor],
    semantic_grad: Mapping[str, Tensor],
    strength: float,
    unit: Unit = tensor_unit,
) -> Gradients:
    """Take the part of the quality gradient that points the way of the semantic gradient out of it.

    For each unit with quality gradient ``g`` and semantic gradient ``h``::

        g' = g                                  if <g, h> <= 0
        g' = g - lambda (<g, h> / |h|^2) h      otherwise

    Strength 1 makes ``g'`` orthogonal to ``h``; 5, the reference's default, turns that component round, four times as
    large. A tensor without semantic gradient counts as zero there; a semantic gradient of zero or with a value that is
    not finite changes nothing.

    Args:
        task_grad: name -> ``g`` of the whole batch. The rule is not linear: reduce over parts of a batch before it.
        semantic_grad: name -> ``h``; names may be missing.
        strength: lambda, at least 0.
        unit: groups the names.

    Returns:
        name -> ``g'``, in the types of ``task_grad``.

    Source: docs/method.md; the reference's ``ProGradLoss.prograd_update``.
    """
    dots, norms = _dots(task_grad, semantic_grad, unit), _dots(semantic_grad, semantic_grad, unit)
    result = {}
    for name, gradient in task_grad.items():
        key = unit(name)
        if name not in semantic_grad:
            result[name] = gradient
            continue
        acts = (dots[key] > 0) & (norms[key] > 0) & torch.isfinite(dots[key]) & torch.isfinite(norms[key])
        factor = torch.where(acts, strength * dots[key] / norms[key], 0.0)
        removed = (factor * semantic_grad[name].to(factor.dtype)).to(gradient.dtype)
        result[name] = torch.where(acts, gradient - removed, gradient)
    return result


def alignment(task_grad: Mapping[str, Tensor], semantic_grad: Mapping[str, Tensor]) -> Tensor:
    """Cosine between the two gradients seen as long vectors, 0 where one of them vanishes."""
    dot = _dots(task_grad, semantic_grad, global_unit).get("all", torch.zeros(()))
    squares = [
        _dots(gradients, gradients, global_unit).get("all", torch.zeros(())) for gradients in (task_grad, semantic_grad)
    ]
    norm = (squares[0] * squares[1]).sqrt()
    return torch.where(norm > 0, dot / norm, torch.zeros_like(norm))


def _dots(left: Mapping[str, Tensor], right: Mapping[str, Tensor], unit: Unit) -> dict[str, Tensor]:
    """Unit -> inner product over its tensors, in at least single precision."""
    dots: dict[str, Tensor] = {}
    for name in left.keys() & right.keys():
        dtype = torch.promote_types(left[name].dtype, torch.float32)
        dot = (left[name].to(dtype) * right[name].to(dtype)).sum()
        key = unit(name)
        dots[key] = dots[key] + dot if key in dots else dot
    return dots
