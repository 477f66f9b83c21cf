"""Drawings that a person can read: judged on their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import groundlink
from groundlink import BadData, BadOutput, Detections, Found
from groundlink.detections import make_all
from groundlink.files import save_picture
from groundlink.render import _COLORS, _Places, draw


def answer(size, *items, status="found"):
    return Detections(make_all(items, size)[0], status, size)


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(axis=2) > 40


@pytest.mark.parametrize("size", [(300, 200), (1280, 800), (3840, 2160)])
@pytest.mark.parametrize("ground", [(255, 255, 255), (0, 0, 0), (128, 128, 128), _COLORS[0]])
def test_a_box_and_its_label_show_on_any_ground_and_size(size, ground):
    picture = Image.new("RGB", size, ground)
    width, height = size
    box = (width // 4, height // 2, width // 2, height * 3 // 4)
    drawn = draw(picture, answer(size, Found("Save", box=box, score=0.5)))
    assert picture.getpixel((0, 0)) == ground, "the original is not drawn on"
    marks = changed(picture, drawn)
    inner = marks[box[1] + 2 : box[3] - 2, box[0] + 2 : box[2] - 2]
    assert not inner.any(), "what was found stays visible"
    edge = marks[box[1] - 12 : box[1], box[0] + 5 : box[2] - 5]
    assert edge.any(axis=0).all(), "the frame has no gaps"
    rows = np.flatnonzero(marks.any(axis=1))
    label_height = box[1] - rows[0]
    assert label_height >= 12, "a label below twelve pixels is not legible"
    assert label_height <= height / 6


def test_label_letters_contrast_with_their_ground():
    for color in _COLORS:
        linear = [((v / 255 + 0.055) / 1.055) ** 2.4 if v > 10 else v / 255 / 12.92 for v in color]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 4.5, f"white on {color} is below the contrast that WCAG asks for"


def test_three_hundred_boxes_stay_apart():
    size = (1920, 1080)
    items = [
        Found(
            f"row {n}",
            box=(20 + 95 * (n % 20), 20 + 70 * (n // 20), 80 + 95 * (n % 20), 50 + 70 * (n // 20)),
            score=0.9,
        )
        for n in range(300)
    ]
    picture = Image.new("RGB", size, "white")
    drawn = draw(picture, answer(size, *items))
    marks = changed(picture, drawn)
    assert marks.mean() < 0.12, "the picture is covered"
    for item in items:
        x1, y1, x2, y2 = map(int, item.box)
        assert marks[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].mean() < 0.05


def test_labels_do_not_cover_each_other():
    boxes = [(100.0, 100.0 + 20 * n, 200.0, 115.0 + 20 * n) for n in range(6)]
    places = _Places((800, 400), boxes)
    spots = [places.take(number, 60, 14, 2) for number in range(6)]
    for number, a in enumerate(spots):
        for b in spots[:number]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


@pytest.mark.parametrize("corner", [(0, 0, 20, 10), (280, 190, 300, 200), (0, 190, 20, 200), (0, 0, 300, 200)])
def test_labels_stay_in_the_picture(corner):
    picture = Image.new("RGB", (300, 200), "white")
    drawn = draw(picture, answer((300, 200), Found("a label", box=corner, score=1.0)))
    assert (np.asarray(drawn) != 255).any()


def test_points_spread_and_ambiguity_show():
    size = (400, 300)
    picture = Image.new("RGB", size, "white")
    plain = answer(size, Found("x", box=(100, 100, 200, 150)))
    spread = answer(size, Found("x", box=(100, 100, 200, 150), spread=(30, 20, 30, 20)))
    assert changed(draw(picture, plain), draw(picture, spread))[70:90, 60:240].any()
    point = draw(picture, answer(size, Found("x", point=(200, 150), spread=(20, 20))))
    assert changed(picture, point)[140:160, 190:210].any()
    twins = [Found("x", box=(50, 50, 90, 70)), Found("x", box=(50, 200, 90, 220))]
    colors = np.asarray(draw(picture, answer(size, *twins, status="ambiguous")))
    frames = [{tuple(pixel) for pixel in colors[y - 8 : y, 60]} for y in (50, 200)]
    assert frames[0] != frames[1], "alternatives have colours of their own"


def test_labels_in_other_scripts_and_lengths_are_drawn():
    picture = Image.new("RGB", (400, 200), "white")
    for label in ("東京", "Größe", "😀", "x" * 500, "a\nb"):
        assert changed(picture, draw(picture, answer((400, 200), Found(label, box=(10, 100, 90, 150))))).any()


def test_an_answer_for_another_image_is_refused():
    with pytest.raises(BadData, match="400×300"):
        draw(Image.new("RGB", (10, 10)), answer((400, 300)))


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    picture = Image.effect_noise((400, 400), 90).convert("RGB")
    target = tmp_path / "out.png"
    target.write_bytes(b"older")
    for bad, words in [
        (tmp_path / "out.txt", r"\.png"),
        (tmp_path / "none" / "out.png", "no folder"),
        (tmp_path, "ending|folder"),
    ]:
        with pytest.raises(BadOutput, match=words):
            save_picture(picture, bad)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as a full disk: writing breaks off in the middle
    try:
        with pytest.raises(BadOutput, match=r"cannot be written"):
            save_picture(picture, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"], "no temporary file is left"
    save_picture(picture, target)
    with Image.open(target) as written:
        assert written.size == (400, 400)
    assert target.stat().st_mode & 0o044, "others may read it, as far as the umask lets them"


def test_draw_is_public():
    assert groundlink.draw is draw
