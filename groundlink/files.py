"""Output files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from PIL import Image

from groundlink.errors import BadOutput
from groundlink.image import printable

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_picture_path(path: Path) -> None:
    """Refuse a path that `save_picture` could not write, before anything is computed for it.

    Raises:
        BadOutput: an ending that is no picture, a folder, a parent that is missing or not writable.
    """
    name = printable(str(path))
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise BadOutput(f"{name}: a picture is written as {', '.join(PICTURE_SUFFIXES)}; give one of these endings")
    if path.is_dir():
        raise BadOutput(f"{name}: is a folder")
    parent = path.parent
    if not parent.is_dir():
        raise BadOutput(f"{name}: there is no folder {printable(str(parent))}; make it first")
    if not os.access(parent, os.W_OK):
        raise BadOutput(f"{name}: the folder {printable(str(parent))} may not be written to")


def make_folder(path: Path) -> None:
    """Make a folder that can be written to, unless it is there.

    Raises:
        BadOutput: that cannot be done.
    """
    name = printable(str(path))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"{name}: the folder cannot be made ({error.strerror})") from error
    if not os.access(path, os.W_OK):
        raise BadOutput(f"{name}: the folder may not be written to")


def save_picture(image: Image.Image, path: Path) -> None:
    """Write an image in the format of the path's ending; an existing file is replaced only by a whole one.

    Raises:
        BadOutput: the path is unfit, the disk is full, or writing is not allowed.
    """
    check_picture_path(path)
    save_whole(path, lambda file: image.save(file, format=Image.registered_extensions()[path.suffix.lower()]))


def save_text(text: str, path: Path) -> None:
    """Write a text in UTF-8; an existing file is replaced only by a whole one.

    Raises:
        BadOutput: the disk is full, or writing is not allowed.
    """
    save_whole(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def save_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have a file written beside its place, and put it there when it is whole.

    Raises:
        BadOutput: the disk is full, or writing is not allowed.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=".groundlink-", suffix=path.suffix, dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
        # mkstemp makes files that only their owner may read; this one gets what a new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        temporary = None
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> BadOutput:
    """Return the error that says why a path cannot be written."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return BadOutput(f"{printable(str(path))}: cannot be written ({why})")
