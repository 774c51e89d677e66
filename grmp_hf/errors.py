"""The one base class of every error that a user can mend, and how text reaches a terminal."""

from __future__ import annotations

__all__ = ["GRMPError", "printable"]


class GRMPError(ValueError):
    """A wrong input, file or setting. The message says what was expected, what came and what to do.

    The command line prints the message in one line and exits with 2; everything else that is raised is a bug of ours.
    """


def printable(text: str) -> str:
    """Text on one line, with escapes for signs that move a cursor, colour a terminal or cannot be encoded.

    >>> print(printable("a\\nb"), printable("ü"))
    a\\nb ü
    """
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
