"""Frames of every encoding against references in plain Python, with padding, in both byte orders, and in bad shape."""

from __future__ import annotations

import io
import random
import tracemalloc
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage, Image

from groundlink.errors import BadImage
from ros2_node.frames import ENCODINGS, UnknownEncoding, decode_compressed, to_rgb

BYTES = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC1": 1, "mono8": 1, "mono16": 2, "yuv422": 2}
BYTES |= {"uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2, "nv12": 1, "nv21": 1}
BYTES |= {f"bayer_{order}{bits}": bits // 8 for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}
YUV = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21")


def rows_of(encoding, height):
    return height * 3 // 2 if encoding in ("nv12", "nv21") else height


def made(encoding, width, height, padding=0, seed=0, big=False, last_padding=True):
    """A frame of random bytes, and its rows without their padding."""
    chance = random.Random(seed)
    row = BYTES[encoding] * width
    rows = [bytes(chance.randrange(256) for _ in range(row)) for _ in range(rows_of(encoding, height))]
    data = b"".join(each + b"\xa5" * padding for each in rows)
    if padding and not last_padding:
        data = data[:-padding]
    message = Image(width=width, height=height, encoding=encoding, step=row + padding, is_bigendian=int(big))
    message.data = data
    return message, rows


def clip(value):
    return min(255, max(0, round(value)))


def from_yuv(y, u, v):
    """BT.601, Y in 16…235; what is darker than black is black."""
    light = 1.164384 * max(y - 16, 0)
    return (
        clip(light + 1.596027 * (v - 128)),
        clip(light - 0.391762 * (u - 128) - 0.812968 * (v - 128)),
        clip(light + 2.017232 * (u - 128)),
    )


def sample(row, x, encoding, big):
    if not encoding.endswith("16"):
        return row[x]
    value = int.from_bytes(row[2 * x : 2 * x + 2], "big" if big else "little")
    return (value * 255 + 0x7FFF) // 0xFFFF


def mosaic_pixel(rows, x, y, encoding, big):
    """The mean of the nearest pixels of each colour, for a pixel that has all its neighbours."""
    order = encoding[6:10]
    means = []
    for color in "rgb":
        near: dict[int, list[int]] = {}
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if order[2 * ((y + dy) % 2) + (x + dx) % 2] == color:
                    near.setdefault(dx * dx + dy * dy, []).append(sample(rows[y + dy], x + dx, encoding, big))
        values = near[min(near)]
        means.append((sum(values) + len(values) // 2) // len(values))
    return tuple(means)


def expected_pixel(rows, x, y, encoding, height, big=False):
    row = rows[y]
    if encoding in ("rgb8", "rgba8"):
        at = BYTES[encoding] * x
        return tuple(row[at : at + 3])
    if encoding in ("bgr8", "bgra8", "8UC3"):
        at = BYTES[encoding] * x
        return tuple(row[at : at + 3][::-1])
    if encoding in ("mono8", "8UC1", "mono16"):
        return (sample(row, x, encoding, big),) * 3
    pair = x - x % 2
    if encoding in ("yuv422", "uyvy"):
        return from_yuv(row[2 * x + 1], row[2 * pair], row[2 * pair + 2])
    if encoding in ("yuv422_yuy2", "yuyv"):
        return from_yuv(row[2 * x], row[2 * pair + 1], row[2 * pair + 3])
    if encoding in ("nv12", "nv21"):
        first, second = rows[height + y // 2][pair : pair + 2]
        return from_yuv(row[x], *((first, second) if encoding == "nv12" else (second, first)))
    return mosaic_pixel(rows, x, y, encoding, big)


def check(encoding, width, height, **given_):
    message, rows = made(encoding, width, height, **given_)
    before = bytes(message.data)
    pixels = to_rgb(message)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable
    edge = 1 if encoding.startswith("bayer") else 0
    tolerance = 2 if encoding in YUV else 0  # OpenCV counts in integers
    for y in range(edge, height - edge):
        for x in range(edge, width - edge):
            wanted = expected_pixel(rows, x, y, encoding, height, given_.get("big", False))
            far = max(abs(int(a) - b) for a, b in zip(pixels[y, x], wanted))
            assert far <= tolerance, f"({x}, {y}): {pixels[y, x]} instead of {wanted}"
    if edge:  # at the border OpenCV repeats what is next to it
        assert (pixels[0] == pixels[1]).all()
        assert (pixels[:, -1] == pixels[:, -2]).all()
    assert bytes(message.data) == before
    return pixels


def test_the_table_of_the_tests_has_every_encoding():
    assert set(BYTES) == set(ENCODINGS)


@pytest.mark.parametrize("encoding", BYTES)
@pytest.mark.parametrize(("padding", "last_padding"), [(0, True), (1, True), (64, True), (64, False)])
def test_every_encoding_gives_the_colours_that_its_bytes_say(encoding, padding, last_padding):
    check(encoding, 12, 8, padding=padding, last_padding=last_padding)


@pytest.mark.parametrize("encoding", [name for name in BYTES if name.endswith("16")])
@pytest.mark.parametrize("padding", [0, 1, 6])
def test_sixteen_bit_may_be_big_endian(encoding, padding):
    big = check(encoding, 10, 6, padding=padding, big=True)
    assert (big != check(encoding, 10, 6, padding=padding)).any()


def test_sixteen_bit_is_scaled_like_a_picture_of_sixteen_bit():
    values = np.arange(65536, dtype="<u2")
    message = Image(width=256, height=256, encoding="mono16", step=512)
    message.data = values.tobytes()
    buffer = io.BytesIO()
    Picture.fromarray(values.reshape(256, 256)).save(buffer, "PNG")
    same = decode_compressed(CompressedImage(format="mono16; png compressed ", data=buffer.getvalue()))
    assert (to_rgb(message) == same).all()


@pytest.mark.parametrize("encoding", [name for name in BYTES if name not in YUV])
@pytest.mark.parametrize("size", [(7, 5), (3, 3), (1, 1), (1, 9), (9, 1)])
def test_odd_sizes(encoding, size):
    if encoding.startswith("bayer") and min(size) < 3:
        with pytest.raises(BadImage, match="3×3"):
            check(encoding, *size)
    else:
        check(encoding, *size)
        check(encoding, *size, padding=3)


@pytest.mark.parametrize("encoding", YUV)
def test_pixels_that_share_their_colour_need_even_sizes(encoding):
    with pytest.raises(BadImage, match="must be even"):
        to_rgb(made(encoding, 5, 4)[0])
    if encoding.startswith("nv"):
        with pytest.raises(BadImage, match="must be even"):
            to_rgb(made(encoding, 4, 5)[0])
    else:
        check(encoding, 4, 5)
    check(encoding, 2, 2)


@pytest.mark.parametrize("step", [8, 12, 16])
def test_data_of_two_planes_without_padding_is_taken_whatever_its_step(step):
    """Drivers say the luminance's row, the mean of all planes, or two bytes a pixel, as older ROS headers count."""
    message, _ = made("nv12", 8, 6)
    wanted = to_rgb(message)
    message.step = step
    assert (to_rgb(message) == wanted).all()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array("B", data)])
def test_data_may_be_any_buffer(kind):
    message, rows = made("rgb8", 4, 3)
    fields = {name: getattr(message, name) for name in ("width", "height", "step", "encoding", "is_bigendian")}
    pixels = to_rgb(SimpleNamespace(**fields, data=kind(b"".join(rows))))
    assert pixels.tobytes() == b"".join(rows)
    whole = np.frombuffer(b"".join(rows), np.uint8)
    assert to_rgb(SimpleNamespace(**fields, data=whole)).tobytes() == b"".join(rows)
    with pytest.raises(BadImage, match="not list"):
        to_rgb(SimpleNamespace(**fields, data=list(whole)))


def test_unpadded_rgb_is_the_data_of_the_message_and_can_be_changed_by_nobody_downstream():
    message, _ = made("rgb8", 4, 3)
    pixels = to_rgb(message)
    assert np.shares_memory(pixels, np.frombuffer(message.data, np.uint8))
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
        pixels.flags.writeable = True
    below = pixels.base
    while isinstance(below, np.ndarray):
        assert not below.flags.writeable
        below = below.base
    assert isinstance(below, memoryview)
    assert below.readonly


@pytest.mark.parametrize("encoding", BYTES)
@pytest.mark.parametrize("padding", [0, 64])
def test_a_frame_is_copied_once_at_most(encoding, padding):
    width, height = 1920, 1080
    step = BYTES[encoding] * width + padding
    message = Image(width=width, height=height, encoding=encoding, step=step)
    message.data = bytes(step * rows_of(encoding, height))
    to_rgb(message)  # OpenCV is imported, its tables made
    tracemalloc.start()
    pixels = to_rgb(message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    copies = 0 if encoding == "rgb8" and not padding else 1
    # Sixteen bit passes through one plane of eight bit, a third of the frame.
    between = width * height if encoding.endswith("16") else 0
    assert peak <= copies * pixels.nbytes + between + 64_000


def test_twenty_thousand_squared_is_refused_before_any_memory_is_taken():
    message = Image(width=20_000, height=20_000, encoding="bgr8", step=60_000)
    message.data = bytes(100)
    tracemalloc.start()
    with pytest.raises(BadImage, match=r"20000×20000 in bgr8.*400,000,000 pixels.*64,000,000"):
        to_rgb(message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_the_limit_of_pixels_is_the_callers():
    message, _ = made("mono8", 10, 10)
    assert to_rgb(message, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(BadImage, match="more than the limit of 99"):
        to_rgb(message, max_pixels=99)


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (4, 0)])
def test_no_pixels(size):
    message = Image(width=size[0], height=size[1], encoding="rgb8", step=0)
    with pytest.raises(BadImage, match="no pixels"):
        to_rgb(message)


@pytest.mark.parametrize("encoding", BYTES)
def test_a_step_shorter_than_a_row(encoding):
    message, _ = made(encoding, 8, 6)
    row = message.step
    message.step = row - 1
    message.data = bytes(message.data)[: rows_of(encoding, 6) * (row - 1)]
    with pytest.raises(BadImage, match=rf"8×6 in {encoding}.*{row} bytes, but step is {row - 1}"):
        to_rgb(message)


@pytest.mark.parametrize("encoding", BYTES)
@pytest.mark.parametrize("padding", [0, 16])
def test_data_of_another_length_than_its_size_says(encoding, padding):
    message, _ = made(encoding, 8, 6, padding=padding)
    whole = bytes(message.data)
    for data in (whole[: len(whole) - padding - 1], whole + b"\0", whole[:10], b"", whole * 2):
        message.data = data
        with pytest.raises(BadImage, match=rf"8×6 in {encoding}.*{len(whole)} bytes.*has {len(data)}"):
            to_rgb(message)


def test_an_unknown_encoding_is_named_and_what_to_do():
    for encoding in ("yuv444", "RGB8", "", "32FC3"):
        message = Image(width=4, height=4, encoding=encoding, step=16)
        message.data = bytes(64)
        with pytest.raises(UnknownEncoding, match=r"not taken.*rgb8.*jpeg") as caught:
            to_rgb(message)
        assert caught.value.encoding == encoding
        assert caught.value.code.tool == "bad_image"


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "64FC1"])
def test_depth_is_no_picture(encoding):
    message = Image(width=4, height=4, encoding=encoding, step=32)
    message.data = bytes(128)
    with pytest.raises(UnknownEncoding, match=rf"{encoding} holds distances"):
        to_rgb(message)
    for described in (f"{encoding}; png compressed ", f"{encoding}; compressedDepth png"):
        with pytest.raises(UnknownEncoding, match="holds distances"):
            decode_compressed(CompressedImage(format=described, data=b"\0" * 20))


def test_a_strangers_encoding_cannot_fill_or_break_the_log():
    message = Image(width=4, height=4, encoding="\x1b[2J\n" + "x" * 5000, step=16)
    with pytest.raises(UnknownEncoding) as caught:
        to_rgb(message)
    assert len(str(caught.value)) < 700
    assert len(caught.value.encoding) <= 61
    assert str(caught.value).isprintable()


FLAT = Picture.new("RGB", (16, 8), (200, 40, 90))


def encoded(picture, kind):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("described", "kind"),
    [
        ("jpeg", "JPEG"),
        ("jpg", "JPEG"),
        ("rgb8; jpeg compressed bgr8", "JPEG"),
        ("bgr8; jpeg compressed ", "JPEG"),
        ("mono8; jpeg compressed ", "JPEG"),
        ("png", "PNG"),
        ("rgb8; png compressed bgr8", "PNG"),
        ("png", "JPEG"),  # the data is believed
        ("", "PNG"),
        ("bgr8", "JPEG"),
    ],
)
def test_compressed_frames(described, kind):
    pixels = decode_compressed(CompressedImage(format=described, data=encoded(FLAT, kind)))
    assert pixels.shape == (8, 16, 3)
    assert not pixels.flags.writeable
    assert np.abs(pixels.astype(int) - (200, 40, 90)).max() <= (3 if kind == "JPEG" else 0)


def test_a_compressed_frame_in_grey():
    pixels = decode_compressed(
        CompressedImage(format="mono8; jpeg compressed ", data=encoded(FLAT.convert("L"), "JPEG"))
    )
    assert (pixels == pixels[0, 0]).all()


def test_compressed_frames_that_cannot_be_read():
    jpeg = encoded(FLAT.resize((64, 64)), "JPEG")
    for data in (b"", b"nonsense", jpeg[: len(jpeg) // 2]):
        with pytest.raises(BadImage, match="compressed image") as caught:
            decode_compressed(CompressedImage(format="bgr8; jpeg compressed bgr8", data=data))
        assert not isinstance(caught.value, UnknownEncoding)
    with pytest.raises(BadImage, match="more than the limit of 10"):
        decode_compressed(CompressedImage(format="jpeg", data=jpeg), max_pixels=10)
    with pytest.raises(UnknownEncoding, match="h264") as caught:
        decode_compressed(CompressedImage(format="h264", data=b"\0\0\0\1\x67"))
    assert caught.value.encoding == "h264"


sizes = st.one_of(st.integers(0, 12), st.sampled_from([20_000, 65_536, 2**31, 2**32 - 1]))


@settings(deadline=None, max_examples=300)
@given(
    width=sizes,
    height=sizes,
    step=sizes | st.integers(0, 60),
    encoding=st.sampled_from(ENCODINGS) | st.text(max_size=20),
    big=st.booleans(),
    data=st.binary(max_size=700),
)
@example(width=1, height=1, step=2**32 - 1, encoding="mono16", big=True, data=b"ab")
@example(width=3, height=1, step=2**32 - 1, encoding="rgb8", big=False, data=b"abcdefghi")
def test_garbage_gives_a_picture_or_bad_image(width, height, step, encoding, big, data):
    message = SimpleNamespace(width=width, height=height, step=step, encoding=encoding, is_bigendian=big, data=data)
    try:
        pixels = to_rgb(message)
    except BadImage as error:
        assert len(str(error)) < 700
    else:
        assert pixels.shape == (height, width, 3)


@settings(deadline=None, max_examples=200)
@given(
    encoding=st.sampled_from([name for name in BYTES if name not in YUV]),
    width=st.integers(3, 20),
    height=st.integers(3, 20),
    padding=st.integers(0, 9),
    cut=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_size_and_padding_gives_the_same_picture_as_without(encoding, width, height, padding, cut, seed):
    padded, _ = made(encoding, width, height, padding=padding, seed=seed, last_padding=not cut)
    plain, _ = made(encoding, width, height, seed=seed)
    assert (to_rgb(padded) == to_rgb(plain)).all()


@settings(deadline=None, max_examples=200)
@given(described=st.text(max_size=40), data=st.binary(max_size=300))
def test_compressed_garbage_gives_bad_image(described, data):
    with pytest.raises(BadImage):
        decode_compressed(SimpleNamespace(format=described, data=data))
