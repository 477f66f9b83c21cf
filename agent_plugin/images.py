"""Images as a model names them: a path inside the allowed folders, base64 data, the screen, or an earlier capture."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from groundlink.errors import ActionDenied, BadImage
from groundlink.image import printable

_DATA = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}")
_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "Qk", "UklGR", "SUkq", "TU0A")
"""Base64 of how PNG, JPEG, GIF, BMP, WebP and TIFF begin."""
_URLSAFE = str.maketrans("-_", "+/")


def is_data(image: str) -> bool:
    """Return whether a text is the data of an image, and not the name of one."""
    if _DATA.match(image):
        return True
    # No name of a file is as long; a short one is taken for data only if it begins as pictures do.
    if len(image) <= 256 and not (len(image) > 60 and image.lstrip().startswith(_BEGINNINGS)):
        return False
    return _BASE64.fullmatch(image[:4096].strip()) is not None


def from_data(image: str, max_bytes: int) -> bytes:
    """Decode base64, with or without `data:…;base64,` before it, in either alphabet and with any padding.

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
        except binascii.Error:  # with line breaks, perhaps, or without its padding
            body = "".join(body.split()).rstrip("=").translate(_URLSAFE)
            data = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadImage("the image data is damaged: it is not base64") from None
    if not data:
        raise BadImage("the image data is empty")
    return data


def from_file(image: str, folders: Sequence[Path], max_bytes: int) -> bytes:
    """Read the file that a path means, if it is inside one of the folders, links followed.

    A relative path is looked for in each folder. What is outside is never touched, so that nothing can be learned of
    it, nor a share of another machine be reached.

    Args:
        folders: absolute; one that is a link is given twice, as it is spelled and resolved.

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
    # Of other people's homes not even the names are told.
    given = os.path.expanduser(image) if re.match(r"~(?:[/\\]|$)", image) else image  # noqa: PTH111
    inside = False
    for folder in folders:
        path = Path(os.path.normpath(folder / given))
        if not path.is_relative_to(folder):
            continue
        inside = True
        try:
            path = path.resolve()
            root = next((root for root in folders if path.is_relative_to(root)), None)
            data = None if root is None else _read_below(root, path.relative_to(root).parts, max_bytes + 1)
        except (OSError, RuntimeError, ValueError):
            continue
        if data is not None and len(data) > max_bytes:
            raise BadImage(f"{name}: has more bytes than the limit of {max_bytes:,}")
        if data is not None:
            return data
    if not inside:
        raise ActionDenied(f"{name}: is outside of the folders that are allowed")
    raise BadImage(f"{name}: there is no such file in the folders that are allowed")


def _read_below(root: Path, parts: tuple[str, ...], count: int) -> bytes | None:
    """Read the beginning of a file; None where it is no regular one. No part may be a link, also not by now.

    A link put there after the path was resolved would lead elsewhere; opening a FIFO would wait for whoever writes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.open not in os.supports_dir_fd:
        file = os.open(root.joinpath(*parts), flags)
    else:
        file = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        for part in parts:
            above = file
            try:
                file = os.open(part, flags, dir_fd=above)
            finally:
                os.close(above)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        with open(file, "rb", closefd=False) as opened:
            return opened.read(count)
    finally:
        os.close(file)
