"""The node among other processes: a camera's frames in, detections out; prompts and parameters at run time."""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from groundlink_ros.msg import Prompts
from PIL import Image as Picture
from rcl_interfaces.srv import DescribeParameters
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool
from stub_backends import paint, patch
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo
from visualization_msgs.msg import Marker, MarkerArray

import groundlink
from groundlink.evaluation.metrics import iou_matrix
from groundlink.training.scenes import draw
from tests.conftest import words_on
from tests.ros2.harness import (
    LATCHED,
    Inbox,
    NodeProcess,
    as_message,
    filming,
    picture,
    running,
    seen_in,
    stamp_of,
    until,
    words_of,
)


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[tuple[NodeProcess, Inbox, Path]]:
    """A node that most tests here share, its detections, and the record of its backend."""
    record = folder / "record"
    with running(folder, settings={"record": str(record)}) as node:
        yield node, node.answers(), record


@pytest.fixture
def node(shared: tuple[NodeProcess, Inbox, Path]) -> NodeProcess:
    """The shared node, as it was at its start."""
    first = {"prompts": ["thing"], "threshold": 0.0, "max_rate": 0.0, "deadline": 0.0, "enabled": True}
    assert all(result.successful for result in shared[0].set(**first))
    return shared[0]


@pytest.fixture
def found(shared: tuple[NodeProcess, Inbox, Path]) -> Inbox:
    return shared[1]


@pytest.fixture
def record(shared: tuple[NodeProcess, Inbox, Path]) -> Path:
    return shared[2]


def asked(record: Path) -> list[tuple[int, list[str]]]:
    """The number of each picture that the backend was asked about, and the phrases."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return [(line["number"], line["phrases"]) for line in lines if line["event"] == "asked"]


def iou(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    return float(iou_matrix(np.array([box]), np.array([other]))[0, 0])


# Frames


def test_each_answer_carries_the_stamp_of_the_frame_that_was_looked_at(folder: Path):
    with running(folder, settings={"seconds": 0.1}) as node:
        found = node.watch("detections", Detection2DArray)
        with filming(node, folder, "--frame-id", "left_eye") as camera:
            camera.stream(30)
            until(lambda: len(found.messages) >= 10, "ten answers")
            camera.pause()
            last = max(camera.sent, key=lambda stamp: camera.sent[stamp])
            found.wait_for(lambda answer: stamp_of(answer) == last)
            sent = dict(camera.sent)
        answered = []
        for answer in found.messages:
            answered.append(sent[stamp_of(answer)])
            assert seen_in(answer) == sent[stamp_of(answer)], "the stamp is that of the picture that was looked at"
            assert answer.header.frame_id == "left_eye"
            assert all(detection.header == answer.header for detection in answer.detections)
        assert answered == sorted(set(answered)), "newest first: never an older one, never one twice"
        assert len(answered) < len(sent) / 2, "0.1 s a frame cannot be 30 Hz"
        assert max(after - before for before, after in pairwise(answered)) <= 9, "none waits in a queue"

        told = node.diagnosed(lambda values: values.get("frames_answered") == str(len(answered)))
        received, superseded = int(told["frames_received"]), int(told["frames_superseded"])
        assert received == len(answered) + superseded, "each frame is answered or superseded"
        first = min(answered)  # frames before the subscription was found are nobody's
        assert len(sent) - first <= received + int(told["frames_lost"]) <= len(sent), (
            "and each that was sent is counted"
        )
        assert int(told["frames_dropped"]) == superseded + int(told["frames_lost"])
        assert told["frames_failed"] == "0" and told["errors"] == "0"
        assert 100 <= float(told["inference_ms"]) < 200
        assert told["backend"] == "stub_sleep" and told["device"] == "cpu" and float(told["memory_mb"]) > 10
        assert told["level"] == "0"


def test_the_newest_frame_is_looked_at_and_older_ones_are_counted(node: NodeProcess, found: Inbox, record: Path):
    node.set(prompts=["slow 0.5"])
    before = node.diagnosed()
    images = node.publisher("image", Image)
    images.publish(picture(100))
    until(lambda: asked(record)[-1][0] == 100, "the first is being looked at")
    for number in range(101, 106):
        images.publish(picture(number))
        node.state()  # there and back: the frame is with the worker
    found.wait_for(lambda answer: stamp_of(answer) == stamp_of(picture(105)))
    assert [number for number, _ in asked(record) if 100 <= number <= 105] == [100, 105]
    after = node.diagnosed(lambda values: int(values["frames_answered"]) == int(before["frames_answered"]) + 2)
    assert int(after["frames_superseded"]) - int(before["frames_superseded"]) == 4
    assert int(after["frames_received"]) - int(before["frames_received"]) == 6


def test_nothing_found_is_an_empty_array_with_the_frames_stamp(node: NodeProcess, found: Inbox):
    node.set(prompts=["nothing"])
    answer = node.see(found, picture(7, frame_id="right_eye"))
    assert answer.detections == []
    assert answer.header == picture(7, frame_id="right_eye").header


def test_a_box_has_its_centre_and_size_in_pixels_of_the_picture(node: NodeProcess, found: Inbox):
    node.set(prompts=["bright", "thing"])
    answer = node.see(found, picture(3, 320, 240))
    bright, _ = answer.detections
    x1, y1, x2, y2 = patch(320, 240)
    assert (bright.bbox.center.position.x, bright.bbox.center.position.y) == ((x1 + x2) / 2, (y1 + y2) / 2)
    assert (bright.bbox.size_x, bright.bbox.size_y, bright.bbox.center.theta) == (x2 - x1, y2 - y1, 0.0)
    [result] = bright.results
    assert result.hypothesis.class_id == "bright" and result.hypothesis.score == 0.9
    assert (result.pose.pose.position.x, result.pose.pose.position.y) == ((x1 + x2) / 2, (y1 + y2) / 2)
    assert (result.pose.covariance[0], result.pose.covariance[7]) == ((1 + 9) / 4, (4 + 16) / 4)
    assert bright.id == "" and words_of(answer) == ["bright", "thing"]


def test_a_model_without_scores_gives_nan_and_no_threshold_is_applied(folder: Path):
    with running(folder, backend="stub_unscored", parameters={"threshold": 0.99}) as node:
        answer = node.see(node.answers(), picture(4))
        assert [math.isnan(detection.results[0].hypothesis.score) for detection in answer.detections] == [True]
        assert not any(answer.detections[0].results[0].pose.covariance), "zeros for what is not known"
        told = node.diagnosed()
        assert "threshold" in told["scores"] and "NaN" in told["scores"]


def test_a_point_is_a_box_of_size_zero(folder: Path):
    with running(folder, backend="stub_points", parameters={"prompts": ["knob", "thing"]}) as node:
        answer = node.see(node.answers(), picture(8))
        assert words_of(answer) == ["knob", "thing"], "one question for each phrase, one answer"
        for detection in answer.detections:
            assert (detection.bbox.size_x, detection.bbox.size_y) == (0.0, 0.0)
            assert (detection.results[0].pose.covariance[0], detection.results[0].pose.covariance[7]) == (4.0, 16.0)
        assert seen_in(answer) == 8


def test_ambiguous_and_incomplete_answers_are_told_in_diagnostics(node: NodeProcess, found: Inbox):
    before = node.diagnosed()
    node.set(prompts=["twins"])
    assert len(node.see(found, picture(11)).detections) == 2
    told = node.diagnosed(lambda values: values["answers_ambiguous"] != before["answers_ambiguous"])
    assert "two fit equally" in told["last_remark"]
    node.set(prompts=["cut"])
    assert len(node.see(found, picture(12)).detections) == 1
    told = node.diagnosed(lambda values: values["answers_incomplete"] != before["answers_incomplete"])
    assert "broke off" in told["last_remark"] and "token_limit" in told["last_remark"]


def test_compressed_images_are_taken_like_raw_ones(folder: Path):
    with running(folder) as node:
        found = node.watch("detections", Detection2DArray)
        with filming(
            node, folder, "--compressed", "--width", "320", "--height", "240", topic="image/compressed"
        ) as camera:
            camera.stream(10)
            until(lambda: len(found.messages) >= 3, "three answers")
            camera.pause()
            assert all(seen_in(answer) == camera.sent[stamp_of(answer)] for answer in found.messages)
            count = node.diagnosed()["frames_received"]
            assert int(count) <= len(camera.sent), "none is counted twice"


def test_a_frame_that_comes_raw_and_compressed_is_looked_at_once(node: NodeProcess, found: Inbox):
    node.diagnosed(lambda values: values["level"] == "1")  # no image for a while, so it listens to both again
    compressed = node.publisher("image/compressed", CompressedImage)
    file = io.BytesIO()
    Picture.fromarray(paint(21, 160, 120)).save(file, "PNG")
    node.see(found, picture(20))
    for number in range(21, 26):
        compressed.publish(CompressedImage(header=picture(number).header, format="png", data=file.getvalue()))
        node.see(found, picture(number))
        node.state()
    stamps = [stamp_of(answer) for answer in found.messages]
    assert [stamps.count(stamp_of(picture(number))) for number in range(21, 26)] == [1] * 5


def test_the_first_frame_is_looked_at_once_too_where_it_comes_compressed_before_raw(folder: Path):
    with running(folder) as node:
        found = node.watch("detections", Detection2DArray)
        images, compressed = node.publisher("image", Image), node.publisher("image/compressed", CompressedImage)
        file = io.BytesIO()
        Picture.fromarray(paint(31, 160, 120)).save(file, "PNG")
        for number in range(31, 131):  # until the two have found each other
            twin = picture(number)
            compressed.publish(CompressedImage(header=twin.header, format="png", data=file.getvalue()))
            with suppress(AssertionError):
                found.wait_for(lambda answer, twin=twin: stamp_of(answer) == stamp_of(twin), 0.3)
                break
        images.publish(twin)
        node.state()  # there and back: it has come
        images.publish(picture(number - 1))  # an older one, that took longer on its way
        node.state()
        assert seen_in(node.see(found, picture(number + 1))) == number + 1
        stamps = [stamp_of(answer) for answer in found.messages]
        assert stamps == sorted(set(stamps)), "none twice, and none after a newer one"
        assert stamps[-2] == stamp_of(twin)


def test_a_second_camera_that_comes_and_goes_is_no_lost_frame(folder: Path):
    with running(folder, settings={"seconds": 0.0}) as node:
        found = node.answers()
        for number in range(1, 60):
            node.see(found, picture(number))
        other = node.ros.node.create_publisher(Image, node.topic("image"), 10)
        until(other.get_subscription_count, "the node listens to the other")
        start = len(found.messages)

        def seen() -> bool:
            other.publish(picture(100))
            return any(stamp_of(answer) == stamp_of(picture(100)) for answer in found.messages[start:])

        until(seen, "the other's picture is answered")
        node.ros.node.destroy_publisher(other)
        until(lambda: node.ros.node.count_publishers(node.topic("image")) == 1, "the other is gone")
        node.diagnosed()
        for number in range(200, 205):
            node.see(found, picture(number))
        assert node.diagnosed()["frames_lost"] == "0"


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_a_transport_that_is_not_wanted_is_not_listened_to(folder: Path, transport: str):
    other = {"raw": "image/compressed", "compressed": "image"}[transport]
    with running(folder, parameters={"image_transport": transport}) as node:
        wanted = {"raw": "image", "compressed": "image/compressed"}[transport]
        until(lambda: node.ros.node.count_subscribers(node.topic(wanted)), "it listens")
        assert node.ros.node.count_subscribers(node.topic(other)) == 0


# Two nodes


def test_two_nodes_side_by_side_mind_their_own_business(folder: Path):
    space = f"/pair{os.getpid()}"
    left = {"image": "left/image", "detections": "left/found"}
    right = {"image": "right/image", "detections": "right/found"}
    with (
        running(folder, namespace=space, name="left", remaps=left, parameters={"prompts": ["cup"]}) as one,
        running(folder, namespace=space, name="right", remaps=right, parameters={"prompts": ["door"]}) as other,
        running(folder, namespace=f"{space}/inner", parameters={"prompts": ["lamp"]}) as third,
    ):
        topics = {one: ("left/image", "left/found"), other: ("right/image", "right/found")}
        topics[third] = ("image", "detections")
        boxes = {node: node.watch(answers, Detection2DArray) for node, (_, answers) in topics.items()}
        senders = {node: node.publisher(images, Image) for node, (images, _) in topics.items()}
        for number, node in enumerate(topics, start=1):

            def sent(node: NodeProcess = node, number: int = number) -> bool:
                senders[node].publish(picture(number))
                return bool(boxes[node].messages)

            until(sent, f"{node.name} answers")
        one.set_prompts("mug")
        senders[one].publish(picture(4))
        boxes[one].wait_for(lambda answer: words_of(answer) == ["mug"])
        for node, word, numbers in ((one, "cup", {1, 4}), (other, "door", {2}), (third, "lamp", {3})):
            assert {seen_in(answer) for answer in boxes[node].messages} == numbers
            assert words_of(boxes[node].messages[0]) == [word]
            assert "frames_answered" in node.diagnosed(), "each has diagnostics of its own"
        assert other.get("prompts") == ["door"] and one.get("prompts") == ["mug"]

        def both_moved() -> bool:
            told = one.diagnosed()["listens_to"].split(", ")
            compressed = f"{space}/left/image/compressed"
            return told == [f"{space}/left/image", compressed] and one.ros.node.count_subscribers(compressed) == 1

        until(both_moved, "the compressed topic moves with the raw one; listened to again where nothing comes")


# Prompts and parameters


def test_prompts_change_by_parameter_topic_and_service(node: NodeProcess, found: Inbox):
    labels = node.watch("label_info", LabelInfo, LATCHED)
    versions = node.watch("vision_info", VisionInfo, LATCHED)
    until(lambda: labels.messages and versions.messages, "latched: who comes late has it, too")
    assert [label.class_name for label in labels.messages[-1].class_map] == ["thing"]

    def check(words: list[str], number: int) -> None:
        labels.wait_for(lambda info: [label.class_name for label in info.class_map] == words)
        assert words_of(node.see(found, picture(number))) == words
        assert node.get("prompts") == words, "whoever asks for the parameter sees what holds"

    [result] = node.set(prompts=["red cup", "door handle"])
    assert result.successful
    check(["red cup", "door handle"], 31)
    node.publisher("~/prompts", Prompts).publish(Prompts(prompts=["une tasse à café"]))
    check(["une tasse à café"], 32)
    answer = node.set_prompts("screw", "nut")
    assert answer.success, answer.message
    check(["screw", "nut"], 33)
    assert [label.class_id for label in labels.messages[-1].class_map] == [0, 1]
    versions_told = [info.database_version for info in versions.messages]
    assert versions_told == sorted(set(versions_told)) and len(versions_told) >= 4, "each change has a new version"
    assert "stub_sleep" in versions.messages[-1].method


def test_without_prompts_it_says_so_and_waits_for_some(folder: Path):
    with running(folder, parameters={"prompts": [""]}) as node:
        told = node.diagnosed(lambda values: values["level"] == "1")
        assert "no prompts" in told["message"] and told["listens_to"] == ""
        assert node.locate("mug", image=picture(1)).status == 0, "a request brings its own"
        assert node.locate(image=picture(1)).status != 0
        assert node.set_prompts("thing").success
        assert words_of(node.see(node.answers(), picture(2))) == ["thing"]


def test_the_task_is_a_parameter(folder: Path):
    how = {"task": "read", "prompts": [""]}
    with running(folder, parameters=how) as reads, running(folder, parameters={"task": "ground"}) as grounds:
        assert words_of(reads.see(reads.answers(), picture(3))) == ["words"], "reading needs no prompts"
        assert reads.diagnosed()["task"] == "read"
        answer = grounds.locate("mug", "cup", image=picture(4))
        assert words_of(answer.detections) == ["mug", "cup"], "a question for each phrase, and one answer"


def test_a_frame_is_answered_with_the_prompts_of_its_arrival(node: NodeProcess, found: Inbox, record: Path):
    node.set(prompts=["slow 0.4"])
    images = node.publisher("image", Image)
    images.publish(picture(41))
    until(lambda: asked(record)[-1][0] == 41, "the first is being looked at")
    images.publish(picture(42))
    assert [node.state(), node.state()] == ["active", "active"]  # there and back: the frame is with the worker
    assert node.set_prompts("new").success
    second = found.wait_for(lambda answer: stamp_of(answer) == stamp_of(picture(42)))
    assert words_of(second) == ["slow 0.4"], "it arrived before the change"
    assert words_of(node.see(found, picture(43))) == ["new"]


def test_enable_stops_and_resumes_the_work(node: NodeProcess, found: Inbox, record: Path):
    def listens() -> int:
        return node.ros.node.count_subscribers(node.topic("image"))

    assert listens()
    answer = node.call("~/enable", SetBool.Request(data=False))
    assert answer.success, answer.message
    until(lambda: not listens(), "it does not even listen")
    assert node.get("enabled") is False and node.state() == "active"
    count = len(asked(record))
    node.publisher("image", Image).publish(picture(51))
    told = node.diagnosed(lambda values: values["enabled"] == "false")
    assert told["level"] == "0" and told["listens_to"] == ""
    assert len(asked(record)) == count
    answer = node.call("~/enable", SetBool.Request(data=True))
    assert answer.success, answer.message
    until(listens, "it listens again")
    until(node.publisher("image", Image).get_subscription_count, "and is found")
    assert seen_in(node.see(found, picture(52))) == 52


def test_threshold_and_deadline_hold_from_the_next_frame_on(node: NodeProcess, found: Inbox):
    assert node.see(found, picture(61)).detections
    node.set(threshold=0.95)
    assert node.see(found, picture(62)).detections == []
    node.set(threshold=0.85)
    assert node.see(found, picture(63)).detections
    labels = node.watch("label_info", LabelInfo, LATCHED)
    assert labels.wait_for(lambda info: True).threshold == pytest.approx(0.85)
    node.set(threshold=0.0, prompts=["count 50"], deadline=0.15)
    answer = node.see(found, picture(64))
    assert 1 <= len(answer.detections) < 50, "what was found by then"
    told = node.diagnosed(lambda values: "deadline" in values.get("last_remark", ""))
    assert told["last_remark"]


def test_a_node_that_is_started_disabled_looks_at_nothing_until_it_is_enabled(folder: Path):
    with running(folder, parameters={"enabled": False}) as node:
        assert node.get("enabled") is False
        assert node.diagnosed()["listens_to"] == ""
        node.set(enabled=True)
        assert node.see(node.answers(), picture(71)).detections


@pytest.mark.parametrize("rate", [5e-324, 1e-12])
def test_a_rate_of_nearly_nothing_holds_frames_back_and_no_more(node: NodeProcess, found: Inbox, rate: float):
    assert node.see(found, picture(72)).detections
    [result] = node.set(max_rate=rate)
    assert result.successful
    node.see(found, picture(73))  # the first one at a new rate is looked at
    for number in (74, 75):
        node.publisher("image", Image).publish(picture(number))
        node.state()  # there and back: it is with the worker
    node.set(max_rate=0.0)
    assert seen_in(node.see(found, picture(76))) == 76


def test_the_rate_is_held(node: NodeProcess, found: Inbox, folder: Path):
    node.set(max_rate=5.0)
    with filming(node, folder, "--width", "64", "--height", "48") as camera:
        start = len(found.messages)
        camera.stream(50)
        until(lambda: len(found.messages) > start, "it began")
        begun, start = time.monotonic(), len(found.messages)
        until(lambda: len(found.messages) >= start + 8, "eight more answers")
        took = time.monotonic() - begun
    assert 8 / 5 * 0.8 < took < 8 / 5 * 1.5
    node.set(max_rate=0.0)


def test_diagnostics_come_once_a_second_and_name_a_silent_camera(node: NodeProcess):
    inbox = node.ros.diagnostics
    start = len(inbox.messages)

    def ours() -> list[DiagnosticArray]:
        return [message for message in inbox.messages[start:] if node.values_of(message)]

    until(lambda: len(ours()) >= 3, "three of them")
    stamps = [message.header.stamp.sec + message.header.stamp.nanosec / 1e9 for message in ours()]
    assert all(0.7 < after - before < 1.5 for before, after in pairwise(stamps))
    told = node.diagnosed(lambda values: values["level"] == "1")
    assert node.topic("image") in told["message"], "no image for a while is a warning"


def test_parameters_are_described_bounded_and_read_only_where_they_must_be(node: NodeProcess):
    names = ["backend", "model", "device", "settings", "task", "image_reliability", "image_transport", "autostart"]
    names += ["prompts", "threshold", "max_rate", "deadline", "request_timeout", "enabled"]
    answer = node.call("~/describe_parameters", DescribeParameters.Request(names=names))
    described = {one.name: one for one in answer.descriptors}
    assert [name for name in names if not described[name].description] == []
    assert [name for name in names if described[name].read_only] == names[:8]
    [bounds] = described["threshold"].floating_point_range
    assert (bounds.from_value, bounds.to_value) == (0.0, 1.0)
    for name, value in {"device": "cuda", "threshold": 1.5, "max_rate": -1.0, "deadline": math.nan}.items():
        before = node.get(name)
        [result] = node.set(**{name: value})
        assert not result.successful and result.reason, name
        assert node.get(name) == before
    [result] = node.set(threshold=1)
    assert result.successful and node.get("threshold") == 1.0, "a whole number is a number"


# What is drawn


def test_the_annotated_picture_is_drawn_for_who_looks(node: NodeProcess, found: Inbox):
    node.set(prompts=["bright"])
    node.see(found, picture(71, 320, 240))
    annotated = node.watch("annotated", Image)
    until(annotated.subscription.get_publisher_count, "found")
    sent = picture(72, 320, 240)

    def shown() -> bool:
        node.see(found, sent)
        return bool(annotated.messages)

    until(shown, "it is drawn")
    drawn = annotated.messages[0]
    assert drawn.header == sent.header and (drawn.width, drawn.height, drawn.encoding) == (320, 240, "rgb8")
    before = paint(72, 320, 240)
    after = np.frombuffer(drawn.data, np.uint8).reshape(240, drawn.step // 3, 3)[:, :320]
    changed = (before != after).any(axis=2)
    x1, y1, x2, y2 = patch(320, 240)
    assert changed[y1 + 20, x1 - 4 : x1 + 4].any() and changed[y1 + 20, x2 - 4 : x2 + 4].any(), "the sides of the box"
    assert changed[y2 - 4 : y2 + 4, x1 + 40].any(), "its bottom"
    assert not changed[: y1 - 60].any() and changed.mean() < 0.3, "and nothing far from it"


def test_nothing_is_drawn_where_nobody_looks(folder: Path):
    with running(folder) as node:
        found = node.answers()
        for number in range(1, 4):
            node.see(found, picture(number, 1920, 1080))
        told = node.diagnosed()
        assert float(told["draw_ms"]) < 5.0, "a picture of this size takes tens of milliseconds"
        assert node.ros.node.count_subscribers(node.topic("camera_info")) == 0, "only markers need it"
        annotated = node.watch("annotated", Image)

        def shown() -> bool:
            node.see(found, picture(9, 1920, 1080))
            return bool(annotated.messages)

        until(shown, "it is drawn")
        told = node.diagnosed(lambda values: float(values["draw_ms_max"]) > 10.0)


def test_markers_stand_in_the_camera_for_who_looks(node: NodeProcess, found: Inbox):
    node.set(prompts=["bright"])
    markers = node.watch("markers", MarkerArray)
    info = CameraInfo(width=320, height=240)
    info.k = [400.0, 0.0, 160.0, 0.0, 400.0, 120.0, 0.0, 0.0, 1.0]
    calibrated = node.publisher("camera_info", CameraInfo, 1)  # waits for the subscription that markers bring about
    sent = picture(73, 320, 240)
    x1, y1, x2, y2 = patch(320, 240)
    corners = {(round((x - 160) / 400, 4), round((y - 120) / 400, 4)) for x in (x1, x2) for y in (y1, y2)}

    def shown() -> bool:
        calibrated.publish(info)
        node.see(found, sent)
        for message in markers.messages:
            for marker in message.markers:
                if {(round(point.x, 4), round(point.y, 4)) for point in marker.points} == corners:
                    return marker.header == sent.header and {point.z for point in marker.points} == {1.0}
        return False

    until(shown, "the box stands where the camera's figures put it")
    texts = [marker.text for marker in markers.messages[-1].markers if marker.type == Marker.TEXT_VIEW_FACING]
    assert len(texts) == 1 and texts[0].startswith("bright")
    assert markers.messages[-1].markers[0].action == Marker.DELETEALL, "those of the last frame go"
    node.ros.ignore(markers)
    until(lambda: not node.ros.node.count_subscribers(node.topic("camera_info")), "it does not listen any more")


# Real models


def test_the_embedded_default_finds_a_text(folder: Path):
    with running(folder, backend="ocr", parameters={"prompts": ["Sign in", "Cancel"]}) as node:
        found = node.watch("detections", Detection2DArray)
        image = words_on({(60, 40): "Welcome back", (60, 150): "Sign in", (360, 150): "Cancel"})
        requested = node.locate(image=as_message(np.asarray(image), 1))
        assert requested.status == 0, requested.message
        streamed = node.see(found, as_message(np.asarray(image), 2))
        for answer in (requested.detections, streamed):
            assert words_of(answer) == ["Sign in", "Cancel"]
            for detection, (left, top) in zip(answer.detections, ((60, 150), (360, 150))):
                box = detection.bbox
                assert box.center.position.x - box.size_x / 2 == pytest.approx(left, abs=8)
                assert box.center.position.y - box.size_y / 2 == pytest.approx(top, abs=12)
                assert 0.5 < detection.results[0].hypothesis.score <= 1


def test_the_demo_model_finds_what_is_drawn_and_answers_as_without_ros(
    demo: NodeProcess, demo_locator: groundlink.Locator
):
    found = demo.watch("detections", Detection2DArray)
    hits = total = 0
    for number in range(8):
        scene, questions = draw("held-out", number)
        image = np.asarray(scene.image.convert("RGB"))
        for question in (question for question in questions if question.task == "detect"):
            direct = demo_locator.locate(image, groundlink.detect(*question.phrases))
            assert demo.set_prompts(*question.phrases).success
            answer = demo.see(found, as_message(image, 1 + total))
            assert words_of(answer) == [detection.label for detection in direct]
            for message, detection in zip(answer.detections, direct):
                box, (x1, y1, x2, y2) = message.bbox, detection.box
                assert (box.center.position.x, box.center.position.y) == ((x1 + x2) / 2, (y1 + y2) / 2)
                assert (box.size_x, box.size_y) == (x2 - x1, y2 - y1)
                assert message.results[0].hypothesis.score == pytest.approx(detection.score)
            truth = [(label, box) for label, boxes in question.truth for box in boxes]
            total += len(truth)
            hits += sum(
                any(label == detection.label and iou(box, detection.box) > 0.5 for detection in direct)
                for label, box in truth
            )
    assert total >= 8 and hits / total > 0.6, f"{hits} of {total} things that are drawn were found"
