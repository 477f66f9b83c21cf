"""Images as a model names them: a path inside the allowed folders, base64 data, the screen, or an earlier capture."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path

from groundlink.errors import ActionDenied, BadImage
from groundlink.image import printable

_DATA = re.compile(r"data:[a-z0-9.+/-]*(?:;[a-z0-9=.+-]*)*,", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "Qk", "UklGR", "SUkq", "TU0A")
"""Base64 of how PNG, JPEG, GIF, BMP, WebP and TIFF begin."""


def is_data(image: str) -> bool:
    """Return whether a text is the data of an image, and not the name of one."""
    if _DATA.match(image):
        return True
    # No name of a file is as long; a short one is taken for data only if it begins as pictures do.
    if len(image) <= 256 and not (len(image) > 60 and image.startswith(_BEGINNINGS)):
        return False
    return _BASE64.fullmatch(image if len(image) <= 4096 else image[:4096]) is not None


def from_data(image: str, max_bytes: int) -> bytes:
    """Decode base64, with or without `data:…;base64,` before it.

    Raises:
        BadImage: not base64, empty, or more than `max_bytes`.
    """
    prefix = _DATA.match(image)
    if prefix is not None and "base64" not in prefix.group().lower():
        raise BadImage("the image data is not base64; send data:image/png;base64,…")
    body = image[prefix.end() :] if prefix is not None else image
    if len(body) > max_bytes * 4 // 3 + 4:
        raise BadImage(f"the image data has about {len(body) * 3 // 4:,} bytes, more than the limit of {max_bytes:,}")
    try:
        try:
            data = binascii.a2b_base64(body, strict_mode=True)
        except binascii.Error:  # with line breaks, perhaps
            data = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadImage("the image data is damaged: it is not base64") from None
    if not data:
        raise BadImage("the image data is empty")
    return data


def allowed_file(image: str, folders: Sequence[Path], max_bytes: int) -> Path:
    """Return the file that a path means, if it is inside one of the folders, links followed.

    A relative path is looked for in each folder. Nothing is said of what is outside, not even whether it is there.

    Raises:
        ActionDenied: a URL, or a path that is not inside, with the remedy.
        BadImage: no such file, or one of more than `max_bytes`.
    """
    name = printable(image[:200])
    if _URL.match(image):
        raise ActionDenied(f"{name}: URLs are not fetched; save the image to a file, or send it as base64 data")
    if not folders:
        raise ActionDenied("files are not allowed here; send the image as base64 data")
    if "\0" in image or len(image) > 4096:
        raise BadImage(f"{name}: is no path of a file")
    given = Path(image).expanduser() if image.startswith("~") else Path(image)
    for folder in folders:
        try:
            path = (folder / given).resolve()
            size = path.stat().st_size if path.is_relative_to(folder) and path.is_file() else None
        except (OSError, RuntimeError, ValueError):
            continue
        if size is not None and size > max_bytes:
            raise BadImage(f"{name}: has {size:,} bytes, more than the limit of {max_bytes:,}")
        if size is not None:
            return path
    if given.is_absolute() and not any(_is_below(given, folder) for folder in folders):
        raise ActionDenied(f"{name}: is outside of the folders that are allowed")
    raise BadImage(f"{name}: there is no such file in the folders that are allowed")


def _is_below(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        return False
