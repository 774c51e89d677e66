"""Heads that adapters bring along, and the base's own that is left where they are disabled or unloaded."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn

__all__ = ["bring_head", "keep_head"]


class _BroughtHead(ModulesToSaveWrapper):
    """PEFT's shell around a head that an adapter has brought: what is left without the adapter is the base's own."""

    original_module: nn.Module
    brought: tuple[nn.Module, ...]

    def update(self, adapter_name: str, **options: Any) -> None:
        """Give another adapter a head of the kind that the first has brought, as it was before training."""
        own, self.original_module = self.original_module, self.brought[0]
        try:
            super().update(adapter_name, **options)
        finally:
            self.original_module = own


def bring_head(base: Any, head: nn.Module, config: PeftConfig) -> PeftModel:
    """An adapter around a base, with a head of its own that goes with it.

    Args:
        base: without an adapter.
        head: in the place of the base's, to be trained; on the base's device from then on.
        config: whose ``modules_to_save`` name the head, if it has weights.
    """
    own, base.head = base.head, head.to(base.device)
    return keep_head(get_peft_model(base, config), own)


def keep_head(model: PeftModel, own: nn.Module) -> PeftModel:
    """Let ``own`` be the head that is left where the adapter, which has brought another, is disabled or unloaded."""
    shell = model.get_base_model().head
    if isinstance(shell, ModulesToSaveWrapper) and shell.original_module is not own:
        shell.brought = (shell.original_module,)  # a tuple, so that it is no weight of the model
        shell.original_module = own
        shell.__class__ = _BroughtHead
    return model
