"""A bag is replayed with simulated time, and what the node says is recorded in another and compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

import groundlink
from groundlink.training.scenes import draw
from tests.ros2.harness import Process, picture, running, until

START = 1_700_000_000  # seconds: long ago, so that no wall clock is taken for it
PROMPTS = ("button", "check box", "circle", "square", "star")
PICTURES = 6


def typestore() -> Any:
    """The types of a ROS distribution, with those of vision_msgs, which none of rosbags' stores has."""
    store = get_typestore(Stores.ROS2_KILTED)
    types: dict[str, Any] = {}
    for path in sorted((Path(__file__).parent / "vision_msgs" / "msg").glob("*.msg")):
        types |= get_types_from_msg(path.read_text(encoding="utf-8"), f"vision_msgs/msg/{path.stem}")
    store.register(types)
    return store


def scene(number: int) -> np.ndarray:
    return np.asarray(draw("held-out", 40 + number)[0].image.convert("RGB"))


def record_pictures(folder: Path) -> None:
    """Write a bag with pictures 0.4 s apart."""
    store = typestore()
    image, header, stamp = (
        store.types[name] for name in ("sensor_msgs/msg/Image", "std_msgs/msg/Header", "builtin_interfaces/msg/Time")
    )
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connection = bag.add_connection("/camera/image", image.__msgtype__, typestore=store)
        for number in range(PICTURES):
            pixels = scene(number)
            moment = START * 10**9 + number * 400_000_000
            message = image(
                header=header(stamp=stamp(sec=moment // 10**9, nanosec=moment % 10**9), frame_id="camera"),
                height=pixels.shape[0],
                width=pixels.shape[1],
                encoding="rgb8",
                is_bigendian=0,
                step=3 * pixels.shape[1],
                data=pixels.reshape(-1),
            )
            bag.write(connection, moment, store.serialize_cdr(message, image.__msgtype__))


def test_a_bag_with_simulated_time_gives_what_groundlink_gives_directly(
    folder: Path, tmp_path: Path, demo_locator: groundlink.Locator
):
    record_pictures(tmp_path / "pictures")
    direct = [demo_locator.locate(scene(number), groundlink.detect(*PROMPTS)) for number in range(PICTURES)]
    assert sum(len(answer) for answer in direct) >= PICTURES, "there is something to compare"

    recorded: list[bytes] = []
    parameters = {
        "device": "cpu",
        "prompts": list(PROMPTS),
        "use_sim_time": True,
        "image_reliability": "reliable",
    }
    with running(folder, backend="demo", parameters=parameters) as node:
        node.ros.node.create_subscription(Detection2DArray, node.topic("detections"), recorded.append, 10, raw=True)
        node.diagnosed(lambda values: values["state"] == "active")  # simulated time stands still, diagnostics do not
        program = str(Path(__file__).with_name("player.py"))
        bag = [str(tmp_path / "pictures"), "1.0", f"/camera/image={node.topic('image')}"]
        player = Process([sys.executable, program, *bag], tmp_path / "player.log")
        try:
            told = node.ros.diagnostics.wait_for(lambda message: node.values_of(message) and message.header.stamp.sec)
            assert START - 1 <= told.header.stamp.sec <= START + 10, "it lives in the time of the bag"
            assert player.process.wait(20) == 0, player.log
            until(lambda: len(recorded) == PICTURES, "an answer to each picture")
        finally:
            player.kill()
        told = node.diagnosed()
        assert told["frames_answered"] == str(PICTURES), told
        assert told["frames_dropped"] == "0" and told["frames_failed"] == "0"

    store = typestore()
    with Writer(tmp_path / "answers", version=9, storage_plugin=StoragePlugin.MCAP) as out:
        connection = out.add_connection("/detections", "vision_msgs/msg/Detection2DArray", typestore=store)
        for place, data in enumerate(recorded):
            out.write(connection, START * 10**9 + place, data)
    with AnyReader([tmp_path / "answers"]) as reader:  # with the definitions that stand in the bag
        answers = [reader.deserialize(data, connection.msgtype) for connection, _, data in reader.messages()]

    assert len(answers) == PICTURES
    for number, (answer, expected) in enumerate(zip(answers, direct)):
        stamp = answer.header.stamp.sec * 10**9 + answer.header.stamp.nanosec
        assert stamp == START * 10**9 + number * 400_000_000 and answer.header.frame_id == "camera"
        assert len(answer.detections) == len(expected)
        for message, detection in zip(answer.detections, expected):
            assert message.header == answer.header
            centre, size = message.bbox.center.position, (message.bbox.size_x, message.bbox.size_y)
            x1, y1, x2, y2 = detection.box
            assert (centre.x, centre.y, *size) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
            [result] = message.results
            assert result.hypothesis.class_id == detection.label
            assert result.hypothesis.score == pytest.approx(detection.score)


def test_simulated_time_that_stands_still_holds_up_nothing(folder: Path):
    with running(folder, parameters={"use_sim_time": True}) as node:
        found = node.answers()
        for number in range(1, 4):
            assert node.see(found, picture(number)).detections
        assert node.locate(image=picture(4)).status == 0
        assert node.locate("mug", timeout=0.2).status != 0, "timeouts are real seconds"
        assert node.publisher("image", Image).get_subscription_count() == 1
