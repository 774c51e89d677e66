"""What a run costs."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["peak_memory_mib"]


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    if importlib.util.find_spec("resource") is not None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
    import psutil  # comes with accelerate

    held = psutil.Process().memory_info()  # on Windows it has the peak too
    return float(round(getattr(held, "peak_wset", held.rss) / 2**20, 1))
