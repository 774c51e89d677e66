"""The library that this part needs and the rest of the package does not."""

from __future__ import annotations

from typing import Any

from grmp_hf.errors import GRMPError

__all__ = ["diffusers"]


def diffusers() -> Any:
    """The library `diffusers`.

    Raises:
        GRMPError: it is not installed.
    """
    try:
        import diffusers as library
    except ImportError as error:
        raise GRMPError(
            "Expected the library diffusers for a diffusion prior, found none. Install it: pip install "
            "'grmp_hf[diffusion]'"
        ) from error
    return library
