"""Views of many pictures: decoded ahead in threads, in order, the large ones one after another."""

from __future__ import annotations

import collections
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from grmp_hf.data.columns import Row
from grmp_hf.data.images import MAX_PIXELS, ImageError
from grmp_hf.errors import GRMPError

__all__ = ["all_views", "as_image_error", "iter_views", "iter_warned", "large_alone"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# A picture of 100 megapixels takes 0.8 GB while it is decoded, and a thread keeps what it once needed for its next one:
# all pictures above 32 megapixels go through one thread.
_LARGE = 2**25


class _OneThread:
    """A thread through which large pictures go one after the other; each process has its own, a forked one too."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew: the thread of a parent process is not there after a fork, and its locks may be held for ever."""
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def run(self, function: Callable[[], _Result]) -> _Result:
        """What a function returns or raises."""
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(1)
        return self._pool.submit(function).result()


_one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread.forget)


def iter_views(
    items: Iterable[_Item], views: Callable[[_Item], Tensor], *, batch_size: int, workers: int | None = None
) -> Iterator[list[tuple[_Item, Tensor | ImageError]]]:
    """Decode pictures in threads, ahead of whoever uses them, and give them in order, ``batch_size`` at a time.

    At most three batches of views are held. A batch is always made of the same consecutive items, whether they can be
    decoded or not.

    Args:
        items: whatever ``views`` takes.
        views: gives uint8 ``(V, 3, S, S)``. Whatever it raises is handed on in the place of the views, as an
            ``ImageError``.
        batch_size: at least 1.
        workers: threads; the number of cores, at most 8, if None.
    """
    if batch_size < 1:
        raise GRMPError(f"Expected a batch size of at least 1, got {batch_size}.")

    def decode(item: _Item) -> tuple[_Item, Tensor | ImageError]:
        try:
            return item, views(item)
        except Exception as error:
            return item, as_image_error(error)

    return _chunks(_read_ahead(decode, items, batch_size, workers), batch_size)


def iter_warned(
    items: Iterable[_Item], views: Callable[..., Tensor], *, batch_size: int, workers: int | None = None
) -> Iterator[list[tuple[_Item, Tensor | ImageError, str]]]:
    """As :func:`iter_views`, and what was warned of each picture, "" of most.

    Args:
        items, batch_size, workers: as there.
        views: takes besides a function ``warn``, which it tells a warning.
    """
    warned: dict[int, str] = {}

    def look(item: tuple[int, _Item]) -> Tensor:
        return views(item[1], warn=functools.partial(warned.__setitem__, item[0]))

    for part in iter_views(enumerate(items), look, batch_size=batch_size, workers=workers):
        yield [(item, found, warned.pop(at, "")) for (at, item), found in part]


def all_views(
    items: Iterable[_Item], views: Callable[[_Item], Tensor], *, batch_size: int, numbered: bool = True
) -> Iterator[Tensor]:
    """As :func:`iter_views`, for whoever needs every picture: uint8 ``(B, V, 3, S, S)``, ``batch_size`` at a time.

    Args:
        items, views, batch_size: as there.
        numbered: whether a picture without a name goes by its place in messages.

    Raises:
        ImageError: of the first picture that cannot be used, with its name or its place.
    """
    place = itertools.count(1)
    for part in iter_views(items, views, batch_size=batch_size):
        for (item, found), number in zip(part, place, strict=False):
            if isinstance(found, ImageError) and isinstance(item, Row):
                where = ", ".join(filter(None, (item.dataset, item.name)))
                raise ImageError(f"{where}: {found}; all pictures are needed: mend or remove this one", found.code)
            if isinstance(found, ImageError) and numbered and not isinstance(item, str | os.PathLike):
                raise ImageError(f"picture {number}: {found}", found.code)
            if isinstance(found, ImageError):
                raise found
        yield torch.stack([found for _, found in part if isinstance(found, Tensor)])


def as_image_error(error: Exception) -> ImageError:
    """What is wrong with one picture, whatever was raised: it must not end a run over many."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, MemoryError):
        return ImageError("there is not enough memory for this picture; shrink it", "too_large")
    said = str(error) or type(error).__name__
    return ImageError(said if isinstance(error, GRMPError) else f"cannot be used ({said}); save it again", "unreadable")


def large_alone(decode: Callable[[int], _Result]) -> _Result:
    """Decode a picture; one above 32 megapixels waits until no other such picture is being decoded.

    Args:
        decode: takes the pixels that a picture may have; raises an ``ImageError`` where it has more.
    """
    try:
        return decode(_LARGE)
    except ImageError as error:
        if error.code != "too_large":
            raise
    return _one_thread.run(functools.partial(decode, MAX_PIXELS))


def _read_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], batch_size: int, workers: int | None
) -> Iterator[_Result]:
    """Results in order, computed in threads; two batches are under way beside what has been given."""
    together = max(1, min(4, batch_size // 4))  # threads that hand over every single picture wait for each other
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    pending: collections.deque[Future[list[_Result]]] = collections.deque()
    try:
        for part in _chunks(items, together):
            pending.append(pool.submit(lambda part: [function(item) for item in part], part))
            if len(pending) * together > 2 * batch_size:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    chunk: list[_Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
