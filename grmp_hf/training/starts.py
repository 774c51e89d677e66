"""Adapters to start from: pre-trained prompts that adaptation goes on with."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.record import CONFIG_FILE, WEIGHTS_FILE

__all__ = ["load_start", "read_start"]


def read_start(folder: str | Path) -> GRMPPromptConfig:
    """The settings of an adapter to start from.

    Raises:
        GRMPError: no adapter of ours in the folder, or one that changes the base's own blocks.
    """
    if not all((Path(folder) / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE)):
        raise GRMPError(
            f"Expected an adapter ({CONFIG_FILE}, {WEIGHTS_FILE}) to start from in {str(folder)!r}, found none. Name "
            "the folder that grmp-iqa pretrain has written."
        )
    try:
        config = GRMPPromptConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise GRMPError(f"Expected settings of an adapter in {str(folder)!r}, got {error}.") from error
    if config.peft_type.value != "GRMP" or config.modules_to_save:
        raise GRMPError(
            f"Expected prompts to start from in {str(folder)!r}, got an adapter of the method {config.peft_type.value} "
            f"with trained blocks {config.modules_to_save or 'none'}. Start from what grmp-iqa pretrain has written."
        )
    return config  # type: ignore[no-any-return]


def load_start(model: PeftModel, folder: str | Path) -> None:
    """Put the tensors of an adapter into a new one of its sizes; what the new one has beside them stays as it is.

    Raises:
        GRMPError: tensors that the new adapter does not have, or has in other sizes.
    """
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    try:
        start = load_file(Path(folder) / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise GRMPError(f"Expected the weights of an adapter in {str(folder)!r}, got: {error}.") from error
    set_peft_model_state_dict(model, {**own, **start})
