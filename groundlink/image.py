"""Opening images: one function for paths and bytes, and the identity that caches go by.

Coordinates start at the top-left corner and are continuous: an image of W×H pixels spans 0…W and 0…H.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from groundlink.errors import BadImage

Pixels = npt.NDArray[np.uint8]
"""An array of shape H×W×3, RGB."""
ImageLike: TypeAlias = (
    "OpenedImage | str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | npt.NDArray[Any]"
)

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_FORMATS_FOR_PEOPLE = "PNG, JPEG, WebP, BMP, GIF and TIFF"

_RACY_SECONDS = 0.1
"""A file changed this recently may change again within the clock tick of its time stamp."""


class OpenedImage:
    """An image as backends get it: size and identity at once, pixels when asked for.

    `key` identifies the content (two images with the same key have the same pixels), `size` is (width, height) in
    pixels, `name` is what to call the image in messages.
    """

    def __init__(
        self,
        key: str,
        size: tuple[int, int],
        name: str,
        decode: Callable[[], Pixels],
        find_content: Callable[[OpenedImage], str] | None = None,
    ) -> None:
        self.key = key
        self.size = size
        self.name = name
        self._decode = decode
        self._find_content = find_content
        self._pixels: Pixels | None = None

    @property
    def content(self) -> str:
        """What identifies the pixels themselves: the same for a file, its bytes, and the decoded picture."""
        return self.key if self._find_content is None else self._find_content(self)

    @property
    def pixels(self) -> Pixels:
        """The image as an array of shape H×W×3, uint8, RGB; read-only. Raises BadImage where the file is gone."""
        if self._pixels is None:
            pixels = self._decode()
            pixels.flags.writeable = False
            self._pixels = pixels
        return self._pixels

    def pil(self) -> Image.Image:
        """Return the image as a PIL image of mode RGB."""
        return Image.fromarray(self.pixels)


class ImageStore:
    """Opens images and remembers which ones were seen, so that nothing is decoded twice without need.

    A path whose time stamps, size and inode are unchanged is neither read nor decoded again, the same bytes are not
    decoded again, as long as nobody asks for the pixels. Only sizes and hashes are kept, never pixels. Thread-safe.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels
        self._lock = threading.Lock()
        self._seen_files: OrderedDict[str, tuple[tuple[int, ...], str]] = OrderedDict()
        self._sizes: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._contents: OrderedDict[str, str] = OrderedDict()

    def open(self, image: ImageLike) -> OpenedImage:
        """Open a path, bytes, a PIL image or an array (H×W×3, uint8, RGB).

        Paths and bytes: EXIF orientation is applied, alpha is put on white, 16 bit is scaled to 8, of an animation the
        first frame is taken. PIL images and arrays are taken as they are, so that coordinates fit what the caller
        holds (a PIL image with alpha is put on white). What is open already stays as it is.

        Raises:
            BadImage: anything else, or more than `max_pixels`.
        """
        if isinstance(image, OpenedImage):
            return image
        if isinstance(image, (str, os.PathLike)):
            return self._open_path(image)
        if isinstance(image, (bytes, bytearray, memoryview)):
            return self._open_bytes(bytes(image), f"the image of {len(image)} bytes")
        if isinstance(image, Image.Image):
            return self._open_pil(image)
        if isinstance(image, np.ndarray):
            return self._open_array(image)
        raise BadImage(
            f"an image is a path, bytes, a PIL image or a numpy array (H×W×3, uint8, RGB), not {type(image).__name__}"
        )

    def _open_path(self, given: str | os.PathLike[str]) -> OpenedImage:
        name = printable(os.fspath(given))
        try:
            path = os.path.realpath(given)
            status = Path(path).stat()
        except FileNotFoundError:
            raise BadImage(f"{name}: no such file") from None
        except (OSError, ValueError) as error:
            raise BadImage(f"{name}: cannot be opened ({_why(error)})") from error
        if stat.S_ISDIR(status.st_mode):
            raise BadImage(f"{name}: is a folder; give the images in it")
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(f"{name}: is not a regular file")
        signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            seen = self._seen_files.get(path)
            if seen is not None and seen[0] == signature and seen[1] in self._sizes:
                key = seen[1]
                return OpenedImage(
                    key, self._sizes[key], name, lambda: self._decode_again(path, key, name), self._content
                )
        data = _read_file(path, status.st_size, name)
        opened = self._open_bytes(data, name)
        if time.time() - max(status.st_mtime, status.st_ctime) > _RACY_SECONDS:
            with self._lock:
                _remember(self._seen_files, path, (signature, opened.key))
        return opened

    def _decode_again(self, path: str, key: str, name: str) -> Pixels:
        try:
            data = _read_file(path, Path(path).stat().st_size, name)
        except OSError as error:
            raise BadImage(f"{name}: cannot be opened ({_why(error)})") from error
        if _hash(b"file", data) != key:
            raise BadImage(f"{name}: changed while it was being read; ask again")
        return decode(data, name, self.max_pixels)

    def _open_bytes(self, data: bytes, name: str) -> OpenedImage:
        key = _hash(b"file", data)
        with self._lock:
            size = self._sizes.get(key)
        if size is not None:
            return OpenedImage(key, size, name, lambda: decode(data, name, self.max_pixels), self._content)
        pixels = decode(data, name, self.max_pixels)
        height, width = pixels.shape[:2]
        with self._lock:
            _remember(self._sizes, key, (width, height))
        return OpenedImage(key, (width, height), name, lambda: pixels, self._content)

    def _content(self, opened: OpenedImage) -> str:
        with self._lock:
            known = self._contents.get(opened.key)
        if known is None:
            known = _hash(b"pixels", opened.pixels)
            with self._lock:
                _remember(self._contents, opened.key, known)
        return known

    def _open_pil(self, image: Image.Image) -> OpenedImage:
        name = f"the PIL image of {image.width}×{image.height}"
        _check_pixels(image.size, name, self.max_pixels)
        try:
            pixels = to_rgb(image, name)
        except (OSError, ValueError, SyntaxError) as error:
            raise BadImage(f"{name}: cannot be read ({_why(error)})") from error
        return OpenedImage(_hash(b"pixels", pixels), image.size, name, lambda: pixels)

    def adopt(self, array: Pixels) -> OpenedImage:
        """Open an array (H×W×3, uint8, RGB) without a copy: nobody changes its memory any more.

        Asking several questions about what this returns reads the array once.

        Raises:
            BadImage: another form of array, or more than `max_pixels`.
        """
        name = self._check_array(array)
        height, width = array.shape[:2]
        pixels: Pixels = np.ascontiguousarray(array).view()
        return OpenedImage(_hash(b"pixels", pixels), (width, height), name, lambda: pixels)

    def _check_array(self, array: npt.NDArray[Any]) -> str:
        """Return what to call an array that can be opened."""
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise BadImage(
                f"an array must have shape H×W×3 and dtype uint8 (RGB), but has shape "
                f"{'×'.join(map(str, array.shape))} and dtype {array.dtype}"
            )
        height, width = array.shape[:2]
        name = f"the array of {width}×{height}"
        _check_pixels((width, height), name, self.max_pixels)
        return name

    def _open_array(self, array: npt.NDArray[Any]) -> OpenedImage:
        name = self._check_array(array)
        height, width = array.shape[:2]
        key = _hash(b"pixels", array)
        with self._lock:
            known = key in self._sizes
            _remember(self._sizes, key, (width, height))
        if known:  # its pixels are hardly ever asked for again, and copying takes longer than hashing
            return OpenedImage(key, (width, height), name, lambda: _copied(array, key, name))
        # A copy of its own: the caller may go on to change the array while a worker looks at it.
        pixels: Pixels = np.array(array, order="C", copy=True)
        return OpenedImage(key, (width, height), name, lambda: pixels)


def _copied(array: Pixels, key: str, name: str) -> Pixels:
    pixels: Pixels = np.array(array, order="C", copy=True)
    if _hash(b"pixels", pixels) != key:
        raise BadImage(f"{name}: was changed before it could be looked at; pass a copy")
    return pixels


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an encoded image to H×W×3, uint8, RGB; `name` is what error messages call it.

    Raises:
        BadImage: not one of the formats taken, damaged, or larger than `max_pixels`.
    """
    if not data:
        raise BadImage(f"{name}: is empty")
    try:
        with warnings.catch_warnings():
            # The size is checked below, with our own limit and message.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Oddities in metadata do not make a picture unreadable.
            warnings.simplefilter("ignore", UserWarning)
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_pixels(image.size, name, max_pixels)
            image.load()
            image = _upright(image)
            return to_rgb(image, name)
    except UnidentifiedImageError:
        raise BadImage(f"{name}: {_what_it_is(data)}; {_FORMATS_FOR_PEOPLE} are taken") from None
    except Image.DecompressionBombError:
        raise BadImage(f"{name}: has more pixels than the limit of {max_pixels:,}; scale it down or cut it") from None
    except BadImage:
        raise
    except Exception as error:  # a decoder may fail on damaged data in any way
        raise BadImage(f"{name}: is damaged or cut short ({_why(error)})") from error


def to_rgb(image: Image.Image, name: str) -> Pixels:
    """Return the pixels of a PIL image of any mode as H×W×3, uint8: alpha on white, 16 bit scaled.

    Raises:
        BadImage: the mode has no defined white (float, 32 bit, LAB).
    """
    if image.mode.startswith("I"):  # 16-bit grey; Pillow opens some of it as 32 bit
        grey = np.asarray(image)
        if grey.size and (grey.min() < 0 or grey.max() > 0xFFFF):
            raise BadImage(f"{name}: has values beyond 16 bit; convert it to 8 bit first")
        scaled = (grey.astype(np.uint32) * 255 + 0x7FFF) // 0xFFFF
        return np.repeat(scaled.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in {"F", "LAB", "HSV"}:
        raise BadImage(f"{name}: has the colour mode {image.mode}; convert it to 8-bit RGB first")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image)  # which has memory of its own already


def printable(name: str) -> str:
    """Return a file name that is safe to print: control characters and undecodable bytes are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in name
    )


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture whose EXIF is damaged stays as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the parser of damaged EXIF fails in many ways, and the pixels are fine
        return image


def _check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadImage(f"{name}: has no pixels ({width}×{height})")
    if width * height > max_pixels:
        raise BadImage(
            f"{name}: has {width}×{height} = {width * height:,} pixels, more than the limit of {max_pixels:,}; "
            "scale it down, cut it, or raise max_pixels"
        )


def _read_file(path: str, size: int, name: str) -> bytes:
    if size > MAX_FILE_BYTES:
        raise BadImage(f"{name}: has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadImage(f"{name}: cannot be read ({_why(error)})") from error


def _what_it_is(data: bytes) -> str:
    head = data[:1024].lstrip()
    if head.startswith(b"%PDF"):
        return "is a PDF; turn its pages into PNG files first"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "is PostScript, which is never opened; turn it into a PNG file first"
    if b"<svg" in head.lower():
        return "is an SVG drawing; turn it into a PNG file first"
    if head[4:8] == b"ftyp":
        return "is a HEIC, AVIF or video file; turn it into a PNG or JPEG file first"
    return "is not an image"


def _why(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(text.split())) or type(error).__name__


def _hash(kind: bytes, data: bytes | Pixels) -> str:
    import xxhash  # here, so that importing the core needs numpy and Pillow only

    digest = xxhash.xxh3_128(kind)
    if isinstance(data, np.ndarray):
        digest.update(repr(data.shape).encode())
        digest.update(np.ascontiguousarray(data).data)
    else:
        digest.update(data)
    return digest.hexdigest()


def _remember(table: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Store an entry, and let the oldest go: a few hundred bytes each, so 4096 stay below 2 MB."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > 4096:
        table.popitem(last=False)
