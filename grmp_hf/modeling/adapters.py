"""What every kind of adapter shares: a base that several adapters can be put around."""

from __future__ import annotations

import copy
from typing import TypeVar

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from grmp_hf.errors import GRMPError

__all__ = ["copy_base"]

Model = TypeVar("Model", bound=nn.Module)


def copy_base(model: Model) -> Model:
    """A copy of a base whose modules and flags are its own and whose weights lie in the same memory.

    PEFT puts layers into the model that it is given and freezes its weights. Put into such a copy, they leave the base
    what it was, and any number of adapters can be learnt on one base without a second copy of its weights. What an
    adapter trains is its own: prompts, or the copies of modules that PEFT makes.

    Args:
        model: without an adapter.

    Raises:
        GRMPError: it carries an adapter, with which it is no base.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise GRMPError(
            "Expected a base without an adapter, got a model that carries one. Load the base again, or take it back "
            "with unload()."
        )
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})
