"""Whether training passes run in bfloat16: only where the processor computes it natively."""

from __future__ import annotations

import platform
from typing import Literal, TypeAlias

import torch

__all__ = ["BF16", "native_bf16", "settle_bf16"]

BF16: TypeAlias = bool | Literal["auto"]
"""Under bfloat16 autocast, in full precision, or "auto": whichever is native to the device."""


def native_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself. Elsewhere torch imitates it, many times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def settle_bf16(wanted: BF16, device: torch.device) -> bool:
    """What a recipe's ``bf16`` comes to on a device.

    >>> settle_bf16(False, torch.device("cpu")), settle_bf16(True, torch.device("cpu"))
    (False, True)
    """
    return native_bf16(device) if wanted == "auto" else bool(wanted)
