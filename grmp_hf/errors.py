"""The one base class of every error that a user can mend."""

from __future__ import annotations

__all__ = ["GRMPError"]


class GRMPError(ValueError):
    """A wrong input, file or setting. The message says what was expected, what came and what to do.

    The command line prints the message in one line and exits with 2; everything else that is raised is a bug of ours.
    """
