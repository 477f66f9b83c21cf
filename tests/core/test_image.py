"""Opening pictures: every kind that people have, and every kind of rubbish."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from groundlink import BadImage
from groundlink.image import ImageStore, printable
from tests.conftest import words_on

STORE = ImageStore()


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_zeros(width: int, height: int) -> bytes:
    """A tiny file that claims, and really has, very many black pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" * (1 + width // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


RED = Image.new("RGB", (20, 10), (200, 10, 10))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_formats_taken(kind):
    opened = STORE.open(encoded(RED, kind))
    assert opened.size == (20, 10)
    assert opened.pixels.shape == (10, 20, 3)
    assert np.abs(opened.pixels.reshape(-1, 3).mean(axis=0) - (200, 10, 10)).max() < 6


def test_modes_come_out_as_a_person_sees_them():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert tuple(STORE.open(encoded(half, "PNG")).pixels[0, 0]) == (255, 255, 255), "alpha goes on white"
    grey_alpha = Image.new("LA", (4, 4), (0, 0))
    assert tuple(STORE.open(encoded(grey_alpha, "PNG")).pixels[0, 0]) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert tuple(STORE.open(encoded(palette, "PNG")).pixels[0, 0]) == (9, 8, 7)
    see_through = encoded(palette, "PNG", transparency=1)
    assert tuple(STORE.open(see_through).pixels[0, 0]) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert tuple(STORE.open(encoded(deep, "PNG")).pixels[0, 0]) == (128, 128, 128), "16 bit is scaled"
    bits = Image.new("1", (4, 4), 1)
    assert tuple(STORE.open(encoded(bits, "PNG")).pixels[0, 0]) == (255, 255, 255)
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = STORE.open(encoded(ink, "JPEG")).pixels[0, 0]
    assert red > 200
    assert max(green, blue) < 60


def test_exif_orientation_is_applied_to_files_but_not_to_pil_images(tmp_path):
    picture = Image.new("RGB", (40, 20), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    picture.save(path, exif=exif)
    assert STORE.open(path).size == (20, 40)
    assert tuple(STORE.open(path).pixels[0, 19]) == (255, 0, 0)
    with Image.open(path) as held:
        assert STORE.open(held).size == (40, 20)


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(RED, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff rubbish")
    assert STORE.open(data).size == (20, 10)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = STORE.open(data).pixels[4, 4]
        assert (red > 200, blue < 60) == (True, True), kind


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"just some text, named .png", "is not an image"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC"),
        (encoded(RED, "ICO"), "is not an image"),
        (encoded(words_on({(5, 5): "cut"}), "PNG")[:-400], "damaged or cut short"),
        (encoded(words_on({(5, 5): "cut"}), "JPEG")[:900], "damaged or cut short"),
        (encoded(RED, "PNG")[:30], "damaged|not an image"),
        (png_of_zeros(10_000, 10_000), "100,000,000 pixels"),
        (png_of_zeros(20_000, 20_000), "pixels"),
        (encoded(Image.new("F", (3, 3)), "TIFF"), "colour mode F"),
    ],
)
def test_rubbish_is_refused_with_the_reason(data, words):
    with pytest.raises(BadImage, match=words):
        STORE.open(data)


def test_every_cut_of_a_file_is_a_picture_or_a_clear_error():
    whole = encoded(words_on({(5, 5): "cut"}, (60, 40)), "PNG")
    right = STORE.open(whole).pixels
    refused = 0
    for length in range(0, len(whole), 7):
        try:
            assert np.array_equal(STORE.open(whole[:length]).pixels, right), "half a picture was taken for a whole one"
        except BadImage:
            refused += 1
    assert refused > len(whole) / 7 * 0.8


def test_flipped_bytes_never_escape_as_another_error():
    source = np.random.default_rng(7)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = np.frombuffer(encoded(words_on({(5, 5): "flip"}, (60, 40)), kind), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            places = source.integers(0, len(broken), 4)
            broken[places] = source.integers(0, 256, 4)
            with contextlib.suppress(BadImage):
                STORE.open(broken.tobytes())


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4), np.uint8), "H×W×3"),
        (np.zeros((4, 4, 4), np.uint8), "4×4×4"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (7, "not int"),
        (None, "not NoneType"),
    ],
)
def test_arrays_of_another_form_are_refused(array, words):
    with pytest.raises(BadImage, match=words):
        STORE.open(array)


def test_paths_that_are_no_files(tmp_path):
    for path, words in [
        (tmp_path / "missing.png", "no such file"),
        (tmp_path, "is a folder"),
        ("a\0b", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
        ("/dev/zero", "not a regular file"),
    ]:
        with pytest.raises(BadImage, match=words):
            STORE.open(path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="not a regular file"):
        STORE.open(tmp_path / "pipe.png")


def test_names_are_safe_to_print(tmp_path):
    assert printable("a\nb\x1b[0m") == r"a\nb\x1b[0m"
    assert printable(os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80")) == "caf\\udce9 😀"
    odd = tmp_path / "a\nb😀.png"
    RED.save(odd)
    assert "\n" not in STORE.open(odd).name


def test_size_limit_counts_pixels_and_can_be_raised():
    with pytest.raises(BadImage, match="raise max_pixels"):
        ImageStore(max_pixels=100).open(RED)
    with pytest.raises(BadImage, match="raise max_pixels"):
        ImageStore(max_pixels=100).open(np.asarray(RED))
    assert ImageStore(max_pixels=200).open(RED).size == (20, 10)


def test_one_pixel_is_a_picture():
    assert STORE.open(Image.new("RGB", (1, 1))).size == (1, 1)


def test_the_key_is_the_content(tmp_path):
    store = ImageStore()
    array = np.array(RED)
    assert store.open(array).key == store.open(array.copy()).key
    other = array.copy()
    other[3, 3, 0] += 1
    assert store.open(array).key != store.open(other).key
    assert store.open(array).key != store.open(array.reshape(20, 10, 3)).key, "the shape counts"


def test_an_array_changed_afterwards_does_not_change_the_opened_image():
    array = np.zeros((4, 4, 3), np.uint8)
    opened = STORE.open(array)
    array[:] = 255
    assert opened.pixels.max() == 0


def test_an_array_seen_before_is_not_copied_and_a_change_is_noticed():
    store = ImageStore()
    array = np.zeros((4, 4, 3), np.uint8)
    store.open(array)
    again, changed = store.open(array), store.open(array)
    assert again.pixels.max() == 0
    array[:] = 255
    assert again.pixels.max() == 0
    with pytest.raises(BadImage, match="changed"):
        _ = changed.pixels


def test_an_adopted_array_is_not_copied():
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    opened = STORE.adopt(array)
    assert np.shares_memory(opened.pixels, array)
    assert not opened.pixels.flags.writeable and array.flags.writeable, "the caller's array stays as it is"
    assert opened.key == STORE.open(array).key
    assert STORE.adopt(array[:, ::2]).pixels.flags.c_contiguous
    assert STORE.open(opened) is opened
    with pytest.raises(BadImage, match="dtype"):
        STORE.adopt(array.astype(np.float32))
    with pytest.raises(BadImage, match="limit"):
        ImageStore(max_pixels=10).adopt(array)


def test_an_unchanged_path_is_not_read_again_and_a_changed_one_is(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    RED.save(path)
    past = path.stat().st_mtime - 10
    os.utime(path, (past, past))
    store = ImageStore()
    monkeypatch.setattr("groundlink.image._RACY_SECONDS", -1.0)
    first = store.open(path)
    monkeypatch.setattr("groundlink.image.decode", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr("groundlink.image._read_file", lambda *_: pytest.fail("read again"))
    again = store.open(path)
    assert (again.key, again.size) == (first.key, first.size)
    monkeypatch.undo()
    Image.new("RGB", (30, 10)).save(path)
    assert store.open(path).size == (30, 10)


def test_a_file_that_changes_between_question_and_look_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("groundlink.image._RACY_SECONDS", -1.0)
    path = tmp_path / "a.png"
    RED.save(path)
    store = ImageStore()
    store.open(path)
    lazy = store.open(path)
    Image.new("RGB", (20, 10), "blue").save(path)
    with pytest.raises(BadImage, match="changed while"):
        _ = lazy.pixels
