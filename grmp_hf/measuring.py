"""What a run costs."""

from __future__ import annotations

import resource
import sys

__all__ = ["peak_memory_mib"]


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
