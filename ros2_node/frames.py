"""Frames of a camera, `sensor_msgs/Image` and `sensor_msgs/CompressedImage`, as RGB arrays. Needs no rclpy.

A frame is copied once at most. `rgb8` without padding is not copied at all: the array looks at the message's own data.
All arrays returned are read-only, and so is everything below them, so that nobody needs a copy of his own.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from groundlink.errors import BackendUnavailable, BadImage
from groundlink.image import MAX_PIXELS, Pixels, decode, printable

# Bytes of a pixel (of the first plane, where there are two), and OpenCV's name of the conversion. OpenCV calls a Bayer
# pattern by the second and third pixel of the second row, ROS by the first four in reading order.
_ENCODINGS: dict[str, tuple[int, str]] = {
    "rgb8": (3, ""),
    "bgr8": (3, "COLOR_BGR2RGB"),
    "rgba8": (4, "COLOR_RGBA2RGB"),
    "bgra8": (4, "COLOR_BGRA2RGB"),
    "8UC1": (1, "COLOR_GRAY2RGB"),
    "8UC3": (3, "COLOR_BGR2RGB"),  # the encoding does not say; who fills it has a picture of OpenCV's
    "mono8": (1, "COLOR_GRAY2RGB"),
    "mono16": (2, "COLOR_GRAY2RGB"),
    "yuv422": (2, "COLOR_YUV2RGB_UYVY"),
    "uyvy": (2, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (2, "COLOR_YUV2RGB_YUY2"),
    "yuyv": (2, "COLOR_YUV2RGB_YUY2"),
    "nv12": (1, "COLOR_YUV2RGB_NV12"),
    "nv21": (1, "COLOR_YUV2RGB_NV21"),
    "bayer_rggb8": (1, "COLOR_BayerBG2RGB"),
    "bayer_bggr8": (1, "COLOR_BayerRG2RGB"),
    "bayer_gbrg8": (1, "COLOR_BayerGR2RGB"),
    "bayer_grbg8": (1, "COLOR_BayerGB2RGB"),
    "bayer_rggb16": (2, "COLOR_BayerBG2RGB"),
    "bayer_bggr16": (2, "COLOR_BayerRG2RGB"),
    "bayer_gbrg16": (2, "COLOR_BayerGR2RGB"),
    "bayer_grbg16": (2, "COLOR_BayerGB2RGB"),
}
ENCODINGS = tuple(_ENCODINGS)
"""The encodings of `sensor_msgs/Image` that are taken."""

_DEPTH = frozenset({"16UC1", "16SC1", "32FC1", "64FC1"})
_CODECS = frozenset({"jpeg", "jpg", "png", "webp", "bmp", "tiff"})


class UnknownEncoding(BadImage):
    """The frame's encoding is none that is taken; `encoding` names it, as it may be printed."""

    def __init__(self, message: str = "", encoding: str = "") -> None:
        super().__init__(message)
        self.encoding = encoding


def to_rgb(message: Any, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the picture of a `sensor_msgs/Image` as an array of shape H×W×3, uint8, RGB, read-only.

    Rows may be padded (`step`), and the last one may lack its padding. Alpha is dropped; 16 bit is scaled to 8; `8UC3`
    is taken as BGR; YUV has the ranges of BT.601, as everywhere in ROS. `nv12` and `nv21` have the picture's own height
    in `height`; where the data has no room for padding, their `step` is not looked at, since drivers disagree about it.

    With unpadded `rgb8` the array shows the message's own data: don't change the message afterwards.

    Raises:
        UnknownEncoding: the encoding is not one of `ENCODINGS`.
        BadImage: no pixels, more than `max_pixels`, or step and data that do not fit the size.
        BackendUnavailable: OpenCV is not installed, and the encoding needs it.
    """
    width, height, step, encoding = int(message.width), int(message.height), int(message.step), str(message.encoding)
    if encoding not in _ENCODINGS:
        raise _unknown(encoding)
    name = f"the image of {width}×{height} in {encoding}"
    if width < 1 or height < 1:
        raise BadImage(f"{name}: has no pixels; the camera must set width and height")
    if width * height > max_pixels:  # before anything of that size is made
        raise BadImage(f"{name}: has {width * height:,} pixels, more than the limit of {max_pixels:,}; scale it down")
    _check_size(name, width, height, encoding)
    depth, conversion = _ENCODINGS[encoding]
    row = depth * width
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    data = _flat(message.data, name)
    if encoding.startswith("nv") and data.size == rows * row:
        step = row
    if step < row:
        raise BadImage(
            f"{name}: a row has {row} bytes, but step is {step}; step counts the bytes of a row with padding"
        )
    least, most = (rows - 1) * step + row, rows * step
    if not least <= data.size <= most:
        raise BadImage(
            f"{name}: step {step} makes {most:,} bytes, but the data has {data.size:,}; "
            "width, height, step and encoding must be those of the data"
        )
    plane: npt.NDArray[np.uint8]
    if encoding.endswith("16"):
        order = ">u2" if message.is_bigendian else "<u2"
        plane = _scaled(np.ndarray((rows, width), order, data, strides=(step, 2)))
    else:
        plane = np.ndarray((rows, width, depth), np.uint8, data, strides=(step, depth, 1))
    pixels: Pixels = _opencv(conversion, plane) if conversion else np.ascontiguousarray(plane)
    pixels.flags.writeable = False
    return pixels


def decode_compressed(message: Any, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the picture of a `sensor_msgs/CompressedImage` as an array of shape H×W×3, uint8, RGB, read-only.

    The data itself says what it is (JPEG, PNG, or whatever else `groundlink` opens); `format` is read for what is no
    picture: depth, and compressedDepth with its header of its own.

    Raises:
        UnknownEncoding: a format that is not taken.
        BadImage: the data is damaged, or the picture has more than `max_pixels`.
    """
    described = str(message.format)
    if _is_depth(described):
        raise _unknown(described)
    data = bytes(_flat(message.data, "the compressed image"))
    try:
        pixels = decode(data, f"the compressed image ({_short(described)}, {len(data):,} bytes)", max_pixels)
    except BadImage:
        words = set(re.findall(r"[a-z0-9]+", described.lower()))
        if words and not words & _CODECS:
            raise _unknown(described) from None
        raise
    pixels.flags.writeable = False
    return pixels


def _unknown(encoding: str) -> UnknownEncoding:
    short = _short(encoding)
    if _is_depth(encoding):
        return UnknownEncoding(f"the encoding {short} holds distances and is no picture; give the colour image", short)
    return UnknownEncoding(
        f"the encoding {short or '(none)'} is not taken; set the camera or image_proc to one of "
        f"{', '.join(ENCODINGS)}, or send jpeg or png as CompressedImage",
        short,
    )


def _is_depth(described: str) -> bool:
    """Of an encoding, or of what image_transport puts in `format`: `32FC1; compressedDepth png`."""
    return described.partition(";")[0].strip() in _DEPTH or "compresseddepth" in described.lower()


def _short(text: str) -> str:
    """What a stranger sent, fit for one line of a log."""
    shown = printable(text[:61])
    return shown if len(shown) <= 60 else shown[:60] + "…"


def _check_size(name: str, width: int, height: int, encoding: str) -> None:
    if encoding.startswith("bayer") and min(width, height) < 3:
        raise BadImage(f"{name}: is too small; a Bayer picture has at least 3×3 pixels")
    shared = 2 if encoding.startswith(("yuv", "uyvy", "yuyv", "nv")) else 1
    if width % shared or (encoding.startswith("nv") and height % 2):
        which = "width and height" if encoding.startswith("nv") else "width"
        raise BadImage(f"{name}: pixels share their colour two by two, so {which} must be even")


def _flat(data: Any, name: str) -> npt.NDArray[np.uint8]:
    """Return the bytes as a read-only array of shape N that shares their memory."""
    try:
        return np.frombuffer(memoryview(data).cast("B").toreadonly(), np.uint8)
    except TypeError:
        raise BadImage(f"{name}: its data are bytes, not {type(data).__name__}") from None


def _scaled(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Return 16-bit values scaled to 8 bit, v · 255 / 65535: the same numbers as `groundlink.image` makes."""
    scaled: npt.NDArray[np.uint8] = _cv2().convertScaleAbs(np.require(words, np.uint16, ["A"]), alpha=1 / 257)
    return scaled


def _opencv(conversion: str, plane: npt.NDArray[np.uint8]) -> Pixels:
    cv2 = _cv2()
    pixels: Pixels = cv2.cvtColor(plane, getattr(cv2, conversion))
    return pixels


def _cv2() -> Any:
    """OpenCV, imported when the first frame needs it."""
    try:
        import cv2
    except ImportError as error:
        raise BackendUnavailable(
            "this encoding needs OpenCV: install python3-opencv, or send rgb8, jpeg or png"
        ) from error
    return cv2
