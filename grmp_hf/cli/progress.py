"""A line on stderr that says how far a long run is, how fast, and how long it will still take."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from grmp_hf.errors import printable

__all__ = ["Progress"]

_TERMINAL, _FILE = 0.2, 15.0
_FIRST = 2.0  # seconds after which something is said for the first time


class Progress:
    """Counts pictures; on a terminal one line is rewritten, elsewhere a line is written after two
    seconds and every quarter of a minute.

    Args:
        label: what is done.
        total: pictures in all.
        done: of these, done in an earlier run; they do not count for the speed.
        quiet: write nothing.
    """

    def __init__(self, label: str, total: int, *, done: int = 0, quiet: bool = False) -> None:
        self.label, self.total, self.done, self.quiet = label, total, done, quiet
        self._before, self._start = done, time.monotonic()
        self._live = sys.stderr.isatty()
        self._next = self._start + (_TERMINAL if self._live else _FIRST)

    def __enter__(self) -> Progress:
        return self

    def advance(self, count: int) -> None:
        """Note that ``count`` more pictures are done."""
        self.done += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (_TERMINAL if self._live else _FILE)
            self._write(f"{self}, {_duration((self.total - self.done) / max(self.rate, 1e-9))} left")

    def tell(self, text: str, share: float) -> None:
        """Say of another kind of work how far it is, ``share`` in [0, 1]."""
        now = time.monotonic()
        if now >= self._next or share >= 1:
            self._next = now + (_TERMINAL if self._live else _FILE)
            self._write(f"{self.label}: {text}, {share:.0%}")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Pictures per second of this run."""
        return (self.done - self._before) / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        return f"{self.label}: {self.done} of {self.total} pictures, {self.rate:.1f} pictures/s"

    def _write(self, line: str) -> None:
        if not self.quiet:
            line = printable(line)
            print(
                f"\r\x1b[K{line}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and not self.quiet:
            print("\r\x1b[K", end="", file=sys.stderr)
        if kind is None and not self.quiet and self.total:
            print(f"{self} in {_duration(self.seconds)}", file=sys.stderr)


def _duration(seconds: float) -> str:
    """A time in words.

    >>> _duration(3.21), _duration(200), _duration(10000)
    ('3.2 s', '3 min 20 s', '2 h 46 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
