"""A consumer that is not rclpy: Cyclone DDS reads what the node publishes, with its own description of the message."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from sensor_msgs.msg import Image
from stub_backends import number_of

from tests.ros2.harness import environment, picture, running, until
from tests.ros2.workspace import PROFILE_VARIABLES

LOOPBACK = """<CycloneDDS><Domain>
<General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces><AllowMulticast>false</AllowMulticast>
</General><Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>100</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>"""


@pytest.fixture(scope="module")
def python() -> str:
    """The Python of the environment that has cyclonedds; it cannot share one with the ROS wheels."""
    path = os.environ.get("GROUNDLINK_CYCLONE_PYTHON", "")
    if not path:
        if os.environ.get("CI"):
            pytest.fail("CI needs GROUNDLINK_CYCLONE_PYTHON; bin/test-ros sets it")
        pytest.skip("GROUNDLINK_CYCLONE_PYTHON names no Python with cyclonedds; bin/test-ros sets it")
    return path


@pytest.fixture
def quiet_profile(tmp_path: Path) -> Path:
    """The tests' Fast DDS profile with type propagation off, which Cyclone DDS cannot read."""
    text = Path(os.environ["FASTDDS_DEFAULT_PROFILES_FILE"]).read_text(encoding="utf-8")
    off = (
        "<propertiesPolicy><properties><property><name>fastdds.type_propagation</name><value>disabled</value>"
        "</property></properties></propertiesPolicy></rtps>"
    )
    assert text.count("</rtps>") == 1, "the profile has one participant"
    path = tmp_path / "profile.xml"
    path.write_text(text.replace("</rtps>", off), encoding="utf-8")
    return path


def test_a_consumer_that_is_not_ros_reads_the_detections(folder: Path, python: str, quiet_profile: Path):
    profile = dict.fromkeys(PROFILE_VARIABLES, str(quiet_profile))
    with running(folder, env=profile, parameters={"prompts": ["a tasse à café"]}) as node:
        env = {name: value for name, value in environment().items() if name in ("PATH", "HOME")}
        env["CYCLONEDDS_URI"] = LOOPBACK
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        program = [python, str(Path(__file__).with_name("cyclone_reader.py")), node.topic("detections"), domain, "2"]
        reader = subprocess.Popen(program, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            images = node.publisher("image", Image)
            until(lambda: node.ros.node.count_subscribers(node.topic("detections")), "Cyclone DDS has found the node")
            number = 0

            def sent() -> bool:
                nonlocal number
                number += 1
                images.publish(picture(number))
                return reader.poll() is not None

            until(sent, "the reader has read its messages")
            output, errors = reader.communicate(timeout=10)
        finally:
            reader.kill()
            reader.wait()
    assert reader.returncode == 0, errors
    for line in output.splitlines():
        message = json.loads(line)
        [detection] = message["detections"]
        box, [result] = detection["bbox"], detection["results"]
        seen = number_of(box["center"]["position"]["x"] - box["size_x"] / 2)
        assert message["header"] == {"stamp": {"sec": 1_000 + seen, "nanosec": 7 * seen}, "frame_id": "camera"}
        assert detection["header"] == message["header"]
        assert result["hypothesis"] == {"class_id": "a tasse à café", "score": 0.9}
        assert box["center"]["position"]["y"] == 60 and box["size_y"] == 40 and box["center"]["theta"] == 0
        assert result["pose"]["pose"]["position"] == {**box["center"]["position"], "z": 0.0}
        assert [result["pose"]["covariance"][place] for place in (0, 7)] == [(1 + 9) / 4, (4 + 16) / 4]
    assert len(output.splitlines()) == 2
