"""How a picture's file is opened: regular files only, since a pipe or a device may keep its reader for ever."""

from __future__ import annotations

import errno
import os
import re
from io import BufferedReader

from grmp_hf.data.image_errors import ImageError

__all__ = ["is_address", "open_picture", "read_content"]

_LONGEST = 500
"""Characters of a name in a message: a picture that is written as text in its place has thousands."""


def is_address(name: str) -> bool:
    """Whether a name is an address (`file://...`, `s3://...`, `data:...`), not a path.

    Examples:
        >>> is_address("s3://a.png"), is_address("data:image/png;base64,iVBO"), is_address("C:\\a.png")
        (True, True, False)
    """
    return re.match(r"[a-z][a-z0-9+.-]+://|data:[^,]*,", name, re.IGNORECASE) is not None


def open_picture(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a picture's file to read its bytes.

    Raises:
        ImageError: with a `code`: it does not exist, may not be read, or is a folder, pipe, socket or device; the same
            for a link to one.
    """
    name = os.fspath(path)
    told = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    if os.path.isdir(name):
        raise ImageError(f'"{name}" is a folder; expected a picture file', "is_a_directory")
    if os.path.exists(name) and not os.path.isfile(name):
        raise ImageError(f'"{name}" is a device or a pipe; expected a picture file', "unreadable")
    try:
        return open(name, "rb")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG) and is_address(name):
            raise ImageError(
                f'"{told}" is an address that is not fetched; give the path of the file, or its bytes', "not_found"
            ) from error
        raise _refusal(told, error) from error
    except ValueError as error:  # a name with NUL
        raise ImageError(f'"{told}" cannot be opened: {error}', "unreadable") from error


def _refusal(told: str, error: OSError) -> ImageError:
    """What is said of a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return ImageError(f'"{told}" does not exist; check the path', "not_found")
    if isinstance(error, PermissionError):
        return ImageError(f'"{told}" may not be read; change its permissions', "permission")
    return ImageError(f'"{told}" cannot be opened: {error.strerror}; check the path', "unreadable")


def read_content(path: str | os.PathLike[str]) -> bytes:
    """Read the bytes of a picture's file.

    Raises:
        ImageError: as `open_picture`, and where reading fails.
    """
    with open_picture(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise ImageError(f"cannot be read ({error.strerror}); check the file", "unreadable") from error
