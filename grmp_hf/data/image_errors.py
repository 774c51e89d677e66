"""What can be wrong with one picture."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from grmp_hf.errors import GRMPError

__all__ = ["IMAGE_ERROR_CODES", "ImageError", "ImageErrorCode", "ImageWarning", "at_its_end"]

ImageErrorCode: TypeAlias = Literal[
    "not_found",
    "is_a_directory",
    "permission",
    "empty",
    "unsupported_format",
    "too_large",
    "truncated",
    "unreadable",
]
IMAGE_ERROR_CODES: tuple[ImageErrorCode, ...] = get_args(ImageErrorCode)
"""Every value that `ImageError.code` can take."""


class ImageError(GRMPError):
    """A picture that cannot be scored.

    Attributes:
        code: one of `IMAGE_ERROR_CODES`, short enough for the status column of a table.
    """

    def __init__(self, message: str, code: ImageErrorCode) -> None:
        super().__init__(message)
        self.code: ImageErrorCode = code

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, ImageErrorCode]]:
        # The default would call the class with the message alone when a worker process sends the error back.
        return type(self), (str(self), self.code)


def at_its_end(place: int) -> ImageError:
    """Of a file that was read to its end, so that nothing follows its position.

    Args:
        place: bytes before its position.
    """
    return ImageError(f"an open file is at its end, {place} bytes in; go back with seek(0)", "empty")


class ImageWarning(UserWarning):
    """Of a picture that can be scored although a part of its data is lost."""
