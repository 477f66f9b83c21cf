"""The lifecycle of the node, as a process: what each transition does, what a failed one leaves, and how it all ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import rclpy
from groundlink_ros.action import Locate as LocateAction
from groundlink_ros.srv import Locate
from lifecycle_msgs.msg import TransitionEvent
from rclpy.action import ActionClient
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from ros2_node import LocateNode
from tests.ros2.harness import LATCHED, NodeProcess, picture, result_of, running, stamp_of, until, words_of


def events(record: Path) -> list[str]:
    """What happened to the stub backend, in order."""
    return [json.loads(line)["event"] for line in record.read_text().splitlines()] if record.exists() else []


def keep_at_work(node: NodeProcess, record: Path) -> None:
    """Send pictures until the model is in the middle of one."""

    def at_work() -> bool:
        node.publisher("image", Image).publish(picture(1))
        return events(record)[-1:] == ["asked"]

    until(at_work, "the model is at work")


def listens(node: NodeProcess, topic: str = "image") -> bool:
    return node.ros.node.count_subscribers(node.topic(topic)) > 0


def test_each_transition_does_what_it_is_for(folder: Path, tmp_path: Path):
    record = tmp_path / "record"
    settings = {"record": str(record), "megabytes": 300}
    with running(folder, settings=settings, parameters={"autostart": False}) as node:
        node.wait_until("unconfigured")
        changes = node.watch("~/transition_event", TransitionEvent)
        before = node.memory()
        assert not listens(node), "no subscription before activation"
        assert events(record) == [], "nothing is loaded before configure"

        assert node.change("configure")
        assert node.state() == "inactive"
        assert events(record) == ["made"], "configure loads the model"
        assert node.memory() - before > 280e6
        assert not listens(node)

        assert node.change("activate")
        assert node.state() == "active"
        until(lambda: listens(node), "activate subscribes")
        found = node.answers()
        assert node.see(found, picture(3)).detections

        assert node.change("deactivate")
        assert node.state() == "inactive"
        until(lambda: not listens(node), "deactivate unsubscribes")
        assert "closed" not in events(record), "the model stays loaded"

        assert node.change("activate")
        assert node.see(found, picture(4)).detections
        assert node.change("deactivate")

        assert node.change("cleanup")
        assert node.state() == "unconfigured"
        assert events(record)[-1] == "closed" and events(record).count("made") == 1
        assert node.memory() - before < 100e6, "the model's memory is free again"
        until(lambda: not node.ros.node.count_publishers(node.topic("detections")), "its publishers are gone")

        assert node.change("configure") and node.change("activate")
        assert node.see(found, picture(5)).detections
        assert node.change("shutdown")
        assert node.state() == "finalized"
        assert events(record)[-1] == "closed" and events(record).count("made") == 2
        until(lambda: not listens(node), "shutdown unsubscribes")
        until(lambda: changes.messages and changes.messages[-1].goal_state.label == "finalized", "it says so")


def test_it_shuts_down_from_every_state(folder: Path, tmp_path: Path):
    ways = {"unconfigured": [], "inactive": ["configure"], "active": ["configure", "activate"]}
    with ExitStack() as stack:
        nodes = {}
        for start in ways:  # all at once: starting takes longer than the rest
            how = {"settings": {"record": str(tmp_path / start)}, "parameters": {"autostart": False}}
            nodes[start] = stack.enter_context(running(folder, **how))
        for start, node in nodes.items():
            node.wait_until("unconfigured")
            assert all(node.change(transition) for transition in ways[start])
            assert node.state() == start
            assert node.change("shutdown")
            assert node.state() == "finalized"
            assert events(tmp_path / start) == ([] if start == "unconfigured" else ["made", "closed"])
            assert not node.change("configure"), "what is shut down stays so"


def test_a_failed_configure_leaves_a_node_that_can_be_configured(folder: Path, tmp_path: Path):
    gate = tmp_path / "gate"
    gate.touch()
    settings = {"unless_gone": str(gate)}
    with running(folder, backend="stub_no_load", settings=settings, parameters={"autostart": False}) as node:
        node.wait_until("unconfigured")
        assert not node.change("configure")
        assert node.state() == "unconfigured"
        assert f"the stub is not to be had; remove {gate}" in node.log
        assert "Traceback" not in node.log, "the words are enough"
        told = node.diagnosed(lambda values: "not to be had" in values.get("last_error", ""))
        assert told["level"] != "0"
        assert not node.change("activate"), "there is nothing to activate"
        assert not node.change("configure"), "and again"
        gate.unlink()
        assert node.change("configure") and node.change("activate")
        assert node.see(node.answers(), picture(6)).detections


def test_a_wrong_parameter_fails_configure_with_its_name(folder: Path):
    wrong = {
        "no_such_backend": {"backend": "no_such_backend"},
        "no_such_setting": {"settings": {"no_such_setting": 1}},
        "layout": {"parameters": {"task": "layout"}},
        "not json": {"parameters": {"settings": "{not json"}},
    }
    with ExitStack() as stack:
        nodes = {}
        for words, how in wrong.items():
            parameters = {**how.get("parameters", {}), "autostart": False}
            nodes[words] = stack.enter_context(running(folder, **{**how, "parameters": parameters}))
        for words, node in nodes.items():
            node.wait_until("unconfigured")
            assert not node.change("configure"), words
            assert node.state() == "unconfigured"
            assert words in node.log and "Traceback" not in node.log


def test_autostart_comes_up_alone_and_lives_on_where_it_cannot(folder: Path, tmp_path: Path):
    gate = tmp_path / "gate"
    gate.touch()
    node = NodeProcess(folder, backend="stub_no_load", settings={"unless_gone": str(gate)})
    try:
        until(lambda: "the stub is not to be had" in node.log, "it says what is wrong")
        node.wait_until("unconfigured")
        gate.unlink()
        assert node.change("configure") and node.change("activate")
        node.stop()
    finally:
        node.end()


def test_the_backend_and_its_licence_are_printed_at_start(folder: Path):
    with running(folder) as node:
        assert any("'stub_sleep'" in line and "public domain" in line for line in node.log.splitlines())


def test_nothing_is_published_after_a_deactivation_in_the_middle(folder: Path, tmp_path: Path):
    record = tmp_path / "record"
    settings = {"seconds": 0.6, "record": str(record)}
    with running(folder, backend="stub_stubborn", settings=settings) as node:
        found = node.answers()
        until(lambda: events(record).count("asked") == events(record).count("answered"), "all is answered")
        asked = events(record).count("asked")
        node.publisher("image", Image).publish(picture(9))
        until(lambda: events(record).count("asked") > asked, "the picture is being looked at")
        begun = time.monotonic()
        assert node.change("deactivate")
        assert time.monotonic() - begun < 0.5, "deactivation does not wait for the model"
        count = len(found.messages)
        until(lambda: events(record)[-1] == "stopped", "the model has come to its end")
        # Two calls there and back: what was published before them would have come by then.
        assert [node.state(), node.state()] == ["inactive", "inactive"]
        assert len(found.messages) == count
        assert all(stamp_of(message) != stamp_of(picture(9)) for message in found.messages)

        assert node.change("activate")
        assert node.see(found, picture(10)).detections, "and it looks again"


def test_cleanup_in_the_middle_frees_the_model_once_it_comes_back(folder: Path, tmp_path: Path):
    record = tmp_path / "record"
    settings = {"seconds": 0.6, "record": str(record)}
    with running(folder, backend="stub_stubborn", settings=settings) as node:
        keep_at_work(node, record)
        assert node.change("deactivate") and node.change("cleanup")
        until(lambda: events(record)[-1] == "closed", "the model is closed")
        assert node.change("configure") and node.change("activate")
        assert node.see(node.answers(), picture(2)).detections


def test_twenty_activations_leave_nothing_behind(folder: Path):
    with running(folder) as node:
        found = node.answers()

        def around() -> tuple[int, int]:
            assert node.change("deactivate") and node.change("activate")
            return node.threads(), node.files()

        for _ in range(3):
            before = around()
        for _ in range(20):
            after = around()
        # A thread of the last round may not be gone yet.
        until(lambda: node.threads() <= before[0] and node.files() <= before[1], f"{before} as before, not {after}")
        assert node.see(found, picture(8)).detections
        memory = node.memory()
        assert node.change("deactivate") and node.change("cleanup")
        for _ in range(3):
            assert node.change("configure") and node.change("cleanup")
        until(lambda: node.threads() <= before[0] and node.files() <= before[1], "cleanup leaves nothing, either")
        assert node.memory() < memory + 30e6


def shared_memory(processes: str = "[0-9]*") -> set[str]:
    """The middleware's segments of shared memory that processes have open; all processes if not one is named."""
    found: set[str] = set()
    for maps in Path("/proc").glob(f"{processes}/maps"):
        with suppress(OSError):  # it has ended by now
            # Not its ports: small, of a number each, and used again by whoever gets the number.
            found |= set(re.findall(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}$", maps.read_text(), re.MULTILINE))
    return found


def test_a_model_that_is_loaded_and_freed_again_and_again_takes_no_more_memory(folder: Path):
    with running(folder, backend="ocr", parameters={"autostart": False}) as node:
        node.wait_until("unconfigured")
        found, memory = node.watch("detections", Detection2DArray), []
        for number in range(8):
            assert node.change("configure") and node.change("activate")
            node.see(found, picture(number))
            assert node.change("deactivate") and node.change("cleanup")
            memory.append(node.memory())
        assert memory[-1] < memory[1] + 50e6, memory


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_within_two_seconds_whatever_it_does(folder: Path, tmp_path: Path, how):
    stubborn = {"backend": "stub_stubborn", "settings": {"seconds": 5.0, "record": str(tmp_path / "record")}}
    loading = {"backend": "stub_slow_load", "settings": {"load_seconds": 30.0, "record": str(tmp_path / "loading")}}
    waiting = {"parameters": {"autostart": False}}
    with ExitStack() as stack:
        nodes = []
        for options in ({}, stubborn, loading, waiting):
            node = NodeProcess(folder, **options)
            stack.callback(node.end)
            nodes.append(node)
        idle, busy, _loading, unconfigured = nodes
        idle.wait_until("active")
        unconfigured.wait_until("unconfigured")
        until(lambda: "made" in events(tmp_path / "loading"), "the third loads its model")
        busy.wait_until("active")
        keep_at_work(busy, tmp_path / "record")
        for node in nodes:
            shared = shared_memory(str(node.process.pid))
            assert shared
            node.stop(how)
            assert "Traceback" not in node.log, node.log
            # Others have what is theirs, and it is theirs to remove.
            left = [file for file in shared - shared_memory() if Path(file).exists()]
            assert not left, "the middleware's memory goes with the process"
    assert events(tmp_path / "record") == ["made", "asked"], "it did not wait for the model"


def test_a_second_signal_does_no_harm(folder: Path, tmp_path: Path):
    settings = {"seconds": 5.0, "record": str(tmp_path / "record")}
    with running(folder, backend="stub_stubborn", settings=settings) as node:
        keep_at_work(node, tmp_path / "record")
        node.process.send_signal(signal.SIGINT)
        node.stop(signal.SIGINT)


def test_the_topics_have_the_qos_that_robots_expect(folder: Path):
    reliable = {"parameters": {"image_reliability": "reliable", "image_transport": "raw"}}
    with running(folder) as node, running(folder, **reliable) as other:

        def subscriptions(node: NodeProcess, topic: str) -> list:
            return [info.qos_profile for info in node.ros.node.get_subscriptions_info_by_topic(node.topic(topic))]

        def publishers(topic: str) -> list:
            return [info.qos_profile for info in node.ros.node.get_publishers_info_by_topic(node.topic(topic))]

        [image] = until(lambda: subscriptions(node, "image"), "it listens")
        assert image.reliability == ReliabilityPolicy.BEST_EFFORT
        [compressed] = subscriptions(node, "image/compressed")
        assert compressed.reliability == ReliabilityPolicy.BEST_EFFORT
        [image] = until(lambda: subscriptions(other, "image"), "the other listens")
        assert image.reliability == ReliabilityPolicy.RELIABLE
        assert subscriptions(other, "image/compressed") == [], "raw images only"
        [detections] = publishers("detections")
        assert detections.reliability == ReliabilityPolicy.RELIABLE
        assert detections.durability == DurabilityPolicy.VOLATILE
        for topic in ("label_info", "vision_info"):
            [info] = publishers(topic)
            assert info.durability == LATCHED.durability and info.reliability == ReliabilityPolicy.RELIABLE
        kinds = dict(node.ros.node.get_topic_names_and_types())
        assert kinds[node.topic("detections")] == [f"vision_msgs/msg/{Detection2DArray.__name__}"]
        assert kinds[node.topic("image/compressed")] == [f"sensor_msgs/msg/{CompressedImage.__name__}"]


@pytest.mark.parametrize("executor", [SingleThreadedExecutor, MultiThreadedExecutor])
def test_it_runs_in_a_program_beside_other_nodes(executor: type[Executor]):
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    before = set(threading.enumerate())
    space = f"/program{os.getpid()}"
    given = {"backend": "stub_sleep", "prompts": ["thing"]}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = LocateNode("finder", context=context, namespace=space, parameter_overrides=overrides)
    other = rclpy.create_node("other", context=context, namespace=space)
    answers: list[Detection2DArray] = []
    other.create_subscription(Detection2DArray, "detections", answers.append, 10)
    camera = other.create_publisher(Image, "image", 1)
    client = other.create_client(Locate, "finder/locate")
    runs = executor(context=context)
    runs.add_node(node)
    runs.add_node(other)
    spinning = threading.Thread(target=runs.spin)
    spinning.start()
    try:
        node.start()
        until(camera.get_subscription_count, "it listens")

        def answered() -> bool:
            camera.publish(picture(5))
            return bool(answers)

        until(answered, "it answers")
        assert stamp_of(answers[0]) == stamp_of(picture(5))
        asked = client.call_async(Locate.Request(prompts=["mug"], image=picture(6)))
        assert words_of(result_of(asked, "an answer").detections) == ["mug"]
    finally:
        runs.shutdown()
        spinning.join()
        node.destroy_node()
        other.destroy_node()
        rclpy.shutdown(context=context)

    def left() -> list[threading.Thread]:
        # Up to Jazzy, rclpy's executor leaves those of its pool behind.
        since = set(threading.enumerate()) - before
        return [thread for thread in since if not thread.name.startswith("ThreadPoolExecutor")]

    until(lambda: not left(), "no thread of it is left")


def test_goals_that_end_at_once_leave_nothing_behind():
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    overrides = [Parameter(name, value=value) for name, value in {"backend": "stub_sleep", "prompts": ["a"]}.items()]
    node = LocateNode("ended", context=context, namespace=f"/goals{os.getpid()}", parameter_overrides=overrides)
    action = ActionClient(node, LocateAction, "~/locate")
    runs = SingleThreadedExecutor(context=context)
    runs.add_node(node)
    spinning = threading.Thread(target=runs.spin)
    spinning.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the worker is often done before the thread that asked it goes on
    try:
        node.start()
        until(action.server_is_ready, "the action is there")
        image = picture(1)
        image.step = 1  # which is refused in no time
        for _ in range(40):
            goal = result_of(action.send_goal_async(LocateAction.Goal(image=image)), "the goal is accepted")
            assert result_of(goal.get_result_async(), "the result").result.status
        assert node._goals == {}, "no request, and no image of it, is kept"
    finally:
        sys.setswitchinterval(interval)
        runs.shutdown()
        spinning.join()
        action.destroy()
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_who_uses_it_can_override_the_qos_of_its_topics(folder: Path):
    space = f"/qos{os.getpid()}"
    overrides = {
        f"qos_overrides.{space}/detections.publisher.reliability": "best_effort",
        f"qos_overrides.{space}/image.subscription.reliability": "reliable",
    }
    with running(folder, namespace=space, parameters=overrides) as node:
        ros = node.ros.node
        [image] = until(lambda: ros.get_subscriptions_info_by_topic(node.topic("image")), "it listens")
        assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        [detections] = ros.get_publishers_info_by_topic(node.topic("detections"))
        assert detections.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert node.change("deactivate") and node.change("activate"), "and again: declared once, used twice"
        [image] = until(lambda: ros.get_subscriptions_info_by_topic(node.topic("image")), "it listens")
        assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
