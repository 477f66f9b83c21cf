"""Answers as ROS messages, with the real message classes; every number here is reckoned by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from groundlink.detections import Detections, Found, make_all
from groundlink.errors import BadData
from ros2_node import messages

HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id="camera_optical")


def answer(*found, size=(100, 80), status=None):
    detections, dropped = make_all(found, size)
    assert not dropped
    return Detections(detections, status or ("found" if detections else "not_found"), size)


def array_of(*found):
    return messages.detection_array(HEADER, answer(*found))


def sent(message):
    """The message as it comes out at the other end."""
    return deserialize_message(serialize_message(message), type(message))


def test_a_box_is_centre_and_size_in_pixels():
    (detection,) = sent(array_of(Found("red cup", box=(10.5, 20, 30, 41), score=0.75))).detections
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (20.25, 30.5)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (19.5, 21.0)
    assert detection.bbox.center.theta == 0.0
    assert detection.id == ""
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("red cup", 0.75)
    place, turn = result.pose.pose.position, result.pose.pose.orientation
    assert (place.x, place.y, place.z) == (20.25, 30.5, 0.0)
    assert (turn.x, turn.y, turn.z, turn.w) == (0.0, 0.0, 0.0, 1.0)
    assert not result.pose.covariance.any()


def test_stamp_and_frame_are_on_the_array_and_on_each_detection():
    array = sent(array_of(Found("a", box=(0, 0, 1, 1)), Found("b", point=(5, 6))))
    assert [array.header, *(detection.header for detection in array.detections)] == [HEADER] * 3


def test_an_answer_without_detections_is_an_empty_array_with_its_header():
    array = sent(array_of())
    assert len(array.detections) == 0
    assert array.header == HEADER


def test_no_score_is_nan_and_zero_is_zero():
    none, zero = sent(array_of(Found("a", box=(0, 0, 1, 1)), Found("b", box=(0, 0, 1, 1), score=0.0))).detections
    assert math.isnan(none.results[0].hypothesis.score)
    assert zero.results[0].hypothesis.score == 0.0


def test_the_covariance_is_that_of_the_centre():
    """(σ₁² + σ₂²)/4: edges at ±3 and ±4 px give the centre a variance of 25/4; ±1 and ±2 give 5/4."""
    (detection,) = sent(array_of(Found("a", box=(10, 10, 20, 20), spread=(3, 1, 4, 2)))).detections
    expected = np.zeros(36)
    expected[0], expected[7] = 6.25, 1.25
    assert (detection.results[0].pose.covariance == expected).all()


def test_a_point_is_a_box_of_size_zero_with_the_variances_of_its_own():
    (detection,) = sent(array_of(Found("a", point=(7.5, 8), score=0.5, spread=(3, 2)))).detections
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (7.5, 8.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (0.0, 0.0)
    assert detection.results[0].pose.pose.position.x == 7.5
    covariance = detection.results[0].pose.covariance
    assert (covariance[0], covariance[7], np.count_nonzero(covariance)) == (9.0, 4.0, 2)


@pytest.mark.parametrize("label", ["рыжий кот", "红色的杯子", "half a pair \ud83d here", "cut\0short"])
def test_any_label_arrives_whole(label):
    (detection,) = sent(array_of(Found(label, box=(0, 0, 1, 1)))).detections
    assert detection.results[0].hypothesis.class_id == label.replace("\ud83d", "?").replace("\0", " ")


def test_label_info_numbers_the_prompts():
    info = sent(messages.label_info(HEADER, ["cup", "door handle"], 0.25))
    assert [(each.class_id, each.class_name) for each in info.class_map] == [(0, "cup"), (1, "door handle")]
    assert info.threshold == 0.25
    assert info.header == HEADER
    assert len(sent(messages.label_info(HEADER, [], 0)).class_map) == 0


def test_vision_info():
    info = sent(messages.vision_info(HEADER, "demo", "/robot/groundlink/prompts", 3))
    assert (info.method, info.database_location, info.database_version) == ("demo", "/robot/groundlink/prompts", 3)
    assert info.header == HEADER


def pixels_of(image):
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def test_the_annotated_image_is_the_frame_with_boxes_on_it():
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    before = frame.copy()
    given = answer(Found("a", box=(60, 100, 120, 160), score=0.5), size=(320, 240))
    image = sent(messages.annotated_image(HEADER, frame, [given]))
    assert (image.width, image.height, image.step, image.encoding) == (320, 240, 960, "rgb8")
    assert image.header == HEADER
    changed = (pixels_of(image) != frame).any(axis=2)
    assert changed[100:160, 58].all(), "the left edge"
    assert changed[159 + 2, 60:120].all(), "the lower edge"
    assert not changed[102:158, 62:118].any(), "inside is what was seen"
    assert not changed[200:].any()
    assert (frame == before).all()


def test_answers_to_several_prompts_are_drawn_together_in_colours_of_their_own():
    frame = np.full((240, 320, 3), 128, dtype=np.uint8)
    frame.flags.writeable = False
    left = answer(Found("cup", box=(20, 100, 80, 160)), size=(320, 240))
    right = answer(Found("jug", box=(220, 100, 280, 160)), size=(320, 240))
    drawn = pixels_of(messages.annotated_image(HEADER, frame, [left, answer(size=(320, 240)), right]))
    first, second = ({tuple(pixel) for pixel in drawn[130, x : x + 10].tolist()} for x in (14, 214))
    both = {(128, 128, 128), (255, 255, 255)}
    assert first > both
    assert second > both
    assert first & second == both


def test_an_image_without_answers_is_as_it_came():
    frame = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for given in ([], [answer(size=(32, 24))]):
        assert (pixels_of(messages.annotated_image(HEADER, frame, given)) == frame).all()


def test_an_answer_about_another_image_is_not_drawn():
    with pytest.raises(BadData, match="100×80"):
        messages.annotated_image(HEADER, np.zeros((10, 10, 3), np.uint8), [answer(Found("a", box=(0, 0, 5, 5)))])


def calibrated(fx=50.0, fy=40.0, cx=60.0, cy=30.0, **fields):
    info = CameraInfo(**{"width": 100, "height": 80, **fields})
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    return info


def shown(given, size=(100, 80), info=None):
    return sent(messages.markers(HEADER, given, size, info)).markers


def corners(marker):
    return [(round(point.x, 6), round(point.y, 6), round(point.z, 6)) for point in marker.points]


def test_markers_remove_those_before_and_name_each_of_their_own():
    given = answer(Found("a", box=(0, 0, 10, 10)), Found("b", point=(5, 5)), Found("a", box=(20, 20, 30, 30)))
    first, *rest = shown([given])
    assert first.action == Marker.DELETEALL
    assert all(marker.action == Marker.ADD and marker.header == HEADER for marker in rest)
    assert len({(marker.ns, marker.id) for marker in rest}) == len(rest) == 6
    assert [marker.action for marker in shown([])] == [Marker.DELETEALL]


def test_a_box_stands_one_metre_before_the_calibrated_camera():
    """fx 50, cx 60: u = 10 lies at x = -1 m, u = 85 at 0.5 m; fy 40, cy 30: v = 10 at -0.5 m, v = 70 at 1 m."""
    _, outline, text = shown([answer(Found("red cup", box=(10, 10, 85, 70), score=0.756))], info=calibrated())
    assert outline.type == Marker.LINE_STRIP
    assert corners(outline) == [(-1, -0.5, 1), (0.5, -0.5, 1), (0.5, 1, 1), (-1, 1, 1), (-1, -0.5, 1)]
    assert outline.scale.x > 0
    assert text.type == Marker.TEXT_VIEW_FACING
    assert text.text == "red cup 0.76"
    assert text.pose.position.x == pytest.approx(-0.25)
    assert text.pose.position.y < -0.5, "above the box: y points down"
    assert text.scale.z > 0
    assert outline.color.a == text.color.a == 1.0


def test_a_point_is_a_small_sphere():
    _, sphere, text = shown([answer(Found("tip", point=(85, 70)))], info=calibrated())
    assert sphere.type == Marker.SPHERE
    assert (sphere.pose.position.x, sphere.pose.position.y, sphere.pose.position.z) == pytest.approx((0.5, 1, 1))
    assert sphere.pose.orientation.w == 1.0
    assert 0 < sphere.scale.x == sphere.scale.y == sphere.scale.z < 0.1
    assert text.text == "tip"


@pytest.mark.parametrize("info", [None, CameraInfo(), CameraInfo(width=100, height=80), calibrated(fx=math.nan)])
def test_without_a_calibration_the_picture_is_one_metre_wide_at_one_metre(info):
    _, outline, _ = shown([answer(Found("a", box=(0, 0, 100, 80)))], info=info)
    assert corners(outline)[:3] == [(-0.5, -0.4, 1), (0.5, -0.4, 1), (0.5, 0.4, 1)]


def test_a_calibration_for_another_resolution_is_scaled():
    """The same scene at half the size: the same places in space."""
    info = calibrated()
    whole = shown([answer(Found("a", box=(10, 10, 85, 70)))], info=info)[1]
    info.binning_x = info.binning_y = 2
    half = shown([answer(Found("a", box=(5, 5, 42.5, 35), score=None), size=(50, 40))], (50, 40), info)[1]
    assert corners(half) == corners(whole)


def test_a_region_of_interest_is_a_part_of_the_calibrated_sensor():
    """The region begins at (40, 20): its pixel (45, 50) is the sensor's (85, 70)."""
    region = RegionOfInterest(x_offset=40, y_offset=20, width=60, height=60)
    _, sphere, _ = shown([answer(Found("a", point=(45, 50)), size=(60, 60))], (60, 60), calibrated(roi=region))
    assert (sphere.pose.position.x, sphere.pose.position.y) == pytest.approx((0.5, 1))
    _, sphere, _ = shown([answer(Found("a", point=(22.5, 25)), size=(30, 30))], (30, 30), calibrated(roi=region))
    assert (sphere.pose.position.x, sphere.pose.position.y) == pytest.approx((0.5, 1))


def test_labels_have_colours_of_their_own_in_markers():
    names = [f"thing {number}" for number in range(12)]
    made = shown([answer(*(Found(name, box=(0, 0, 9, 9)) for name in [*names, names[0]]))])
    boxes = [marker for marker in made if marker.ns == "boxes"]
    tones = [(marker.color.r, marker.color.g, marker.color.b) for marker in boxes]
    assert tones[-1] == tones[0]
    assert len(set(tones)) == 12
    assert all(max(tone) > 0.9 for tone in tones), "RViz's ground is dark"
