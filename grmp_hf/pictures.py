"""Pictures however they come: files, addresses, contents, arrays, tensors, rows of data sets, and many of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from grmp_hf.data.embedded import DatasetPicture, pictures_of, without_format
from grmp_hf.data.image_errors import at_its_end
from grmp_hf.data.images import MAX_PIXELS, ImageError, ImageErrorCode, decode_image, to_rgb
from grmp_hf.data.opened import decode_opened
from grmp_hf.errors import GRMPError

__all__ = [
    "Picture",
    "as_path",
    "content_of",
    "each_picture",
    "is_data_set",
    "is_picture",
    "no_pictures",
    "read_picture",
]

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any] | torch.Tensor | Mapping[str, Any]
"""What can be scored: a file or http(s) address, a file's content or a binary file that is open, a PIL image of any
mode, an array or tensor ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` of 1, 3 or 4 channels (uint8, or floats in [0, 1]),
or ``{"bytes", "path"}`` as `datasets` gives an undecoded picture."""

_TIMEOUT = 20.0
_MAX_BYTES = 2**28
_CHANNELS = (1, 3, 4)


def is_picture(given: Any) -> bool:
    """Whether something is one picture, not many."""
    if isinstance(given, np.ndarray | torch.Tensor):
        return given.ndim <= 3 and not _holds_things(given)
    if isinstance(given, Mapping):
        return bool({"bytes", "path"} & set(given))
    return isinstance(given, str | os.PathLike | bytes | Image.Image | _Decoded) or hasattr(given, "read")


def _holds_things(given: Any) -> bool:
    """Whether an array is one of texts or objects, such as paths."""
    return isinstance(given, np.ndarray) and given.ndim > 0 and given.dtype.kind in "OSTU"


def is_data_set(given: Any) -> bool:
    """Whether something is a `datasets.Dataset` or a streamed one: rows of columns."""
    return hasattr(given, "column_names") and hasattr(given, "features")


def each_picture(given: Any) -> Iterator[Any]:
    """Pictures one after the other.

    What a list holds is given as it is. What is made one after the other is independent of what is made next: a
    generator may use one array for all of its pictures, or close each file behind it.

    Args:
        given: one :data:`Picture`, or any iterable of them: a list, a generator, a batch as array, an array of paths, a
            column of a `datasets.Dataset`, or such a data set with one column of pictures.

    Raises:
        GRMPError: it is neither, or a data set with a transform.
    """
    if is_picture(given):
        yield given
    elif isinstance(given, Mapping | bytearray | memoryview):
        raise _unknown(given)
    elif is_data_set(given):
        yield from _of_data_set(given, _picture_column(given))
    elif _holds_things(given):
        yield from given.ravel().tolist()
    elif isinstance(given, list | tuple | np.ndarray | torch.Tensor):
        yield from given
    elif isinstance(given, Iterable):
        yield from _of_column(given)
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        yield from (_own(given[index]) for index in range(len(given)))
    else:
        raise _unknown(given)


def read_picture(
    picture: Any, *, max_pixels: int = MAX_PIXELS, warn: Callable[[str], None] | None = None
) -> Image.Image:
    """Decode one picture to RGB, upright.

    Args:
        picture: see :data:`Picture`.
        max_pixels, warn: of a file; see :func:`~grmp_hf.data.images.decode_image`.

    Raises:
        ImageError: it cannot be read or fetched.
        GRMPError: it is of no kind that can be read.
    """
    if isinstance(picture, _Decoded):
        return picture.tell(warn)
    if isinstance(picture, Image.Image):
        return decode_opened(picture, max_pixels=max_pixels, warn=warn)
    if isinstance(picture, np.ndarray | torch.Tensor):
        return to_rgb(_from_array(picture))
    if isinstance(picture, Mapping) and is_picture(picture):
        content = picture.get("bytes")
        picture = picture.get("path") if content is None else content
    if isinstance(picture, str) and picture.lower().startswith(("http://", "https://")):
        return decode_image(_fetch(picture), max_pixels=max_pixels, warn=warn)
    picture = content_of(picture)
    if not isinstance(picture, str | os.PathLike | bytes):
        raise _unknown(picture)
    return decode_image(picture, max_pixels=max_pixels, warn=warn)


def as_path(given: Any) -> Any:
    """One of many paths.

    Raises:
        ImageError: it is none.
    """
    if isinstance(given, str | os.PathLike):
        return given
    raise ImageError(
        f"Expected paths of files, got {type(given).__name__} among them. Score pictures in memory with score().",
        "unreadable",
    )


def content_of(picture: Any) -> Any:
    """What a file that is open holds from its position on, where it stays if it can; anything else as it is.

    Raises:
        ImageError: it is open as text, or cannot be read.
    """
    if not hasattr(picture, "read") or isinstance(picture, str | os.PathLike):
        return picture
    try:
        place = picture.tell() if picture.seekable() else None
        content = picture.read()
        if place is not None:
            picture.seek(place)
        if content == b"" and place:
            raise at_its_end(place)
    except (AttributeError, OSError, ValueError) as error:
        raise ImageError(f"an open file cannot be read ({error}); give its path or its bytes", "unreadable") from error
    if not isinstance(content, bytes):
        raise ImageError(
            f"Expected a file that is open in binary mode, got {type(content).__name__} from it. Open it with "
            "open(path, 'rb').",
            "unreadable",
        )
    return content


@dataclass(frozen=True)
class _Decoded:
    """What a picture of Pillow's has shown, or what was wrong with it, at the time when it was given."""

    found: Image.Image | ImageError
    warned: list[str] = field(default_factory=list)

    def tell(self, warn: Callable[[str], None] | None) -> Image.Image:
        """The picture, as if it were decoded now."""
        if isinstance(self.found, ImageError):
            raise self.found
        if warn is not None:
            for code in self.warned:
                warn(code)
        return self.found


def _own(picture: Any) -> Any:
    """A picture that nobody changes or closes any more."""
    if isinstance(picture, np.ndarray):
        return picture.copy()
    if isinstance(picture, torch.Tensor):
        return picture.detach().clone()
    try:
        if not isinstance(picture, Image.Image):
            return content_of(picture)
        warned: list[str] = []
        found = decode_opened(picture, warn=warned.append)
        return _Decoded(found.copy() if found is picture else found, warned)
    except ImageError as error:
        return _Decoded(error)


def no_pictures() -> GRMPError:
    """What is said where many pictures are none."""
    return GRMPError("Expected at least one picture to score, got none. Give some.")


def _unknown(given: Any) -> GRMPError:
    return GRMPError(
        "Expected a picture (file, http address, bytes, open file, PIL image, array or tensor) or an iterable of "
        f"pictures, got {type(given).__name__}. Pass one of these."
    )


def _picture_column(dataset: Any) -> str:
    """The column of a `datasets.Dataset` that holds pictures, where there is one."""
    names = [name for name, kind in (dataset.features or {}).items() if type(kind).__name__ == "Image"]
    if len(names) != 1:
        raise GRMPError(
            f"Expected a data set with one column of pictures, got {len(names)} in {type(dataset).__name__} with the "
            f"columns {dataset.column_names}. Pass the column: dataset['image'], or a generator."
        )
    return str(names[0])


def _of_data_set(dataset: Any, name: str) -> Iterator[Any]:
    """The pictures of a column: as files or bytes where Pillow would have decoded them."""
    import datasets

    if isinstance(dataset, datasets.Dataset):
        return map(_encoded, pictures_of(dataset, name))
    return map(_own, (row[name] for row in without_format(dataset)))


def _encoded(picture: DatasetPicture) -> Any:
    try:
        return picture.entry() if picture.mode is None else picture.read()
    except ImageError as error:
        return _Decoded(error)


def _of_column(given: Any) -> Iterator[Any]:
    """What an iterable holds, which may be a column of a data set."""
    source: Any = getattr(given, "source", None)
    name = getattr(given, "column_name", None)
    if is_data_set(source) and isinstance(name, str):
        if type((source.features or {}).get(name)).__name__ == "Image":
            return _of_data_set(source, name)
        without_format(source)
    return (_own(cell.as_py() if hasattr(cell, "as_py") else cell) for cell in given)  # which Arrow has


def _fetch(address: str) -> bytes:
    """The content at an http(s) address, of at most 256 MiB."""
    try:
        with urlopen(address, timeout=_TIMEOUT) as answer:
            content: bytes = answer.read(_MAX_BYTES + 1)
    except (OSError, URLError, ValueError) as error:
        code: ImageErrorCode = "not_found" if getattr(error, "code", 0) in (404, 410) else "unreadable"
        raise ImageError(
            f"{address} could not be fetched ({error}); check the address and the network", code
        ) from error
    if len(content) > _MAX_BYTES:
        raise ImageError(f"{address} is above {_MAX_BYTES >> 20} MiB; fetch it and make it smaller", "too_large")
    return content


def _from_array(given: NDArray[Any] | torch.Tensor) -> Image.Image:
    if isinstance(given, torch.Tensor):
        wide = given.float() if given.dtype == torch.bfloat16 else given  # which arrays do not know
        array = wide.detach().cpu().numpy()
    else:
        array = given
    if array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = np.moveaxis(array, 0, 2)
    unit = array.dtype.kind == "f"
    grey_or_colour = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if not grey_or_colour or not array.size or not (unit or array.dtype == np.uint8):
        raise GRMPError(
            "Expected an array (height, width), (height, width, 3) or (3, height, width), of uint8 or of floats from "
            f"0 to 1, got {array.dtype} {array.shape}. Put it into this form; 16 bits: divide by 65535."
        )
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        hidden = np.ma.getmaskarray(array).sum()
        raise GRMPError(
            f"Expected a value in each pixel, got a masked array without {hidden} of {array.size}. "
            "Say what is there: array.filled(value)."
        )
    if unit:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # also where it holds NaN
            if np.isnan(low):
                raise GRMPError("Expected floats from 0 to 1, got NaN among them. Replace what is no number.")
            raise GRMPError(
                f"Expected floats from 0 to 1, got {low:g} to {high:g}. Undo a normalisation; divide 0..255 by 255."
            )
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array))
