"""How a picture's file is opened: regular files only, since a pipe or a device may keep its reader for ever."""

from __future__ import annotations

import os
from io import BufferedReader

from grmp_hf.data.image_errors import ImageError

__all__ = ["open_picture", "read_content"]


def open_picture(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a picture's file to read its bytes.

    Raises:
        ImageError: with a `code`: it does not exist, may not be read, or is a folder, pipe, socket or device; the same
            for a link to one.
    """
    name = os.fspath(path)
    if os.path.isdir(name):
        raise ImageError(f'"{name}" is a folder; expected a picture file', "is_a_directory")
    if os.path.exists(name) and not os.path.isfile(name):
        raise ImageError(f'"{name}" is a device or a pipe; expected a picture file', "unreadable")
    try:
        return open(name, "rb")
    except FileNotFoundError as error:
        raise ImageError(f'"{name}" does not exist; check the path', "not_found") from error
    except PermissionError as error:
        raise ImageError(f'"{name}" may not be read; change its permissions', "permission") from error
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        raise ImageError(f'"{name}" cannot be opened: {error}', "unreadable") from error


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
