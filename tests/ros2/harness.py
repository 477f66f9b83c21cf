"""The ROS node as a real process, a camera in another, and a ROS node of the test's own that watches both."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from groundlink_ros.action import Locate as LocateAction
from groundlink_ros.srv import Locate, SetPrompts
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, SetParametersResult
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter as TypedParameter
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool
from stub_backends import number_of, paint
from vision_msgs.msg import Detection2DArray

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = Path(__file__).parent / "backends"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SERVICES = {
    "~/get_state": GetState,
    "~/change_state": ChangeState,
    "~/get_parameters": GetParameters,
    "~/set_parameters": SetParameters,
    "~/describe_parameters": DescribeParameters,
    "~/set_prompts": SetPrompts,
    "~/enable": SetBool,
    "~/locate": Locate,
}
PATIENCE = 15.0
"""Seconds that a wait takes at most: far more than is needed, so that a busy machine fails no test."""

_numbers = itertools.count(1)


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait for a condition and return what it gives; fail where it does not come true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return value


def environment(**more: str) -> dict[str, str]:
    """What processes of a test get: this checkout and the stub backends before what is installed."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(BACKENDS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def picture(number: int, width: int = 160, height: int = 120, frame_id: str = "camera") -> Image:
    """A message with the picture of a number, and a stamp that belongs to the number alone."""
    return as_message(paint(number, width, height), number, frame_id)


def as_message(pixels: np.ndarray, number: int, frame_id: str = "camera") -> Image:
    message = Image(
        width=pixels.shape[1],
        height=pixels.shape[0],
        encoding="rgb8",
        step=3 * pixels.shape[1],
        data=np.ascontiguousarray(pixels).tobytes(),
    )
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = 1_000 + number, 7 * number
    return message


def stamp_of(message: Any) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def seen_in(answer: Detection2DArray) -> int:
    """The number of the picture that an answer was given on, out of its first box."""
    box = answer.detections[0].bbox
    return number_of(box.center.position.x - box.size_x / 2)


def words_of(answer: Detection2DArray) -> list[str]:
    return [detection.results[0].hypothesis.class_id for detection in answer.detections]


class Inbox:
    """What arrived on a topic."""

    def __init__(self, subscription: Any, what: str) -> None:
        self.messages: list[Any] = []
        self.subscription = subscription
        self.what = what

    def take(self, message: Any) -> None:
        self.messages.append(message)

    def wait_for(self, fits: Callable[[Any], Any], seconds: float = PATIENCE, start: int = 0) -> Any:
        """Return the first message from `start` on that fits; wait for it."""
        place = start

        def found() -> Any:
            nonlocal place
            while place < len(self.messages):
                place += 1
                if fits(self.messages[place - 1]):
                    return [self.messages[place - 1]]
            return None

        return until(found, f"a message on {self.what} that fits", seconds)[0]

    def next(self, seconds: float = PATIENCE) -> Any:
        """Return the first message that comes from now on."""
        return self.wait_for(lambda message: True, seconds, len(self.messages))


class Ros:
    """A ROS node of the tests, with a thread that serves it."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node(f"tests_{os.getpid()}", context=self.context, enable_rosout=False)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self.diagnostics = self.watch("/diagnostics", DiagnosticArray)

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self.executor.spin()

    def close(self) -> None:
        self.executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def watch(self, topic: str, kind: Any, qos: Any = 10) -> Inbox:
        inbox = Inbox(None, topic)
        inbox.subscription = self.node.create_subscription(kind, topic, inbox.take, qos)
        return inbox

    def ignore(self, inbox: Inbox) -> None:
        self.node.destroy_subscription(inbox.subscription)


def result_of(future: Any, what: str, seconds: float = PATIENCE) -> Any:
    """Wait for what rclpy promised."""
    until(future.done, what, seconds)
    return future.result()


class Process:
    """A process of a test: its output in a file, and always ended."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None, talks: bool = False) -> None:
        self.log_path = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else file,
                stderr=file if talks else subprocess.STDOUT,
                env=environment() if env is None else env,
                cwd=log.parent,  # not the checkout: what is found must be found by PYTHONPATH
                text=True,
            )
        self.pid = self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGINT, within: float = 2.0) -> None:
        """End it, and fail where it does not end in time with exit code 0."""
        if self.process.poll() is None:
            begun = time.monotonic()
            self.process.send_signal(how)
            try:
                self.process.wait(within + 10)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{how.name} did not end it within {within + 10:g} s:\n{self.log}") from None
            took = time.monotonic() - begun
            assert took <= within, f"{how.name} took {took:.1f} s:\n{self.log}"
        assert self.process.returncode == 0, f"exit code {self.process.returncode}:\n{self.log}"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class NodeProcess(Process):
    """The node under test, and what one does with it from outside."""

    def __init__(
        self,
        folder: Path,
        *,
        backend: str = "stub_sleep",
        settings: dict[str, Any] | None = None,
        parameters: dict[str, Any] | None = None,
        remaps: dict[str, str] | None = None,
        namespace: str | None = None,
        name: str = "groundlink",
        arguments: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        number = next(_numbers)
        self.namespace = f"/t{os.getpid()}_{number}" if namespace is None else namespace
        self.name = name
        given = {"backend": backend, "prompts": ["thing"], "autostart": True, **(parameters or {})}
        if settings is not None:
            given["settings"] = json.dumps(settings)
        command = [sys.executable, "-m", "ros2_node", "--ros-args", "-r", f"__ns:={self.namespace}"]
        command += ["-r", f"__node:={name}"]
        for key, value in given.items():
            command += ["-p", f"{key}:={json.dumps(value)}"]  # JSON is YAML
        for source, target in (remaps or {}).items():
            command += ["-r", f"{source}:={target}"]
        self._clients: dict[str, Any] = {}
        self._publishers: dict[str, Any] = {}
        super().__init__([*command, *arguments], folder / f"node{number}.log", environment(**(env or {})))
        # One for each node: two that are new find each other at once, while one that is older takes up to 3 s for it.
        self.ros = Ros()
        # Made before the node is there, and found together: an answer to a client that the node has not found yet is
        # lost.
        for service, kind in SERVICES.items():
            self._clients[self.topic(service)] = self.ros.node.create_client(kind, self.topic(service))
        deep = {f"{name}_service_qos_profile": QoSProfile(depth=100) for name in ("goal", "result", "cancel")}
        self._action = ActionClient(self.ros.node, LocateAction, self.topic("~/locate"), **deep)

    def topic(self, name: str) -> str:
        """The full name of `image` (in the namespace), `~/prompts` (the node's own) or `/clock`."""
        if name.startswith("/"):
            return name
        space = self.namespace.rstrip("/")
        return f"{space}/{self.name}{name[1:]}" if name.startswith("~") else f"{space}/{name}"

    # What it says of itself

    def state(self) -> str:
        return self.call("~/get_state", GetState.Request()).current_state.label

    def change(self, transition: str, seconds: float = PATIENCE) -> bool:
        """Ask for `configure`, `activate`, `deactivate`, `cleanup` or `shutdown`; whether it was done."""
        request = ChangeState.Request()
        if transition == "shutdown":
            transition = f"{self.state()}_shutdown"
        request.transition.id = getattr(Transition, f"TRANSITION_{transition.upper()}")
        return self.call("~/change_state", request, seconds).success

    def wait_until(self, state: str) -> None:
        def reached() -> bool:
            asked = self.call_later("~/get_state", GetState.Request())
            # An answer may be lost as long as the two have not found each other wholly.
            with suppress(AssertionError):
                return result_of(asked, "an answer", 2.0).current_state.label == state
            return False

        until(lambda: self._alive() and reached(), f"{self.name} is {state}")

    def diagnosed(self, fits: Callable[[dict[str, str]], Any] = bool, seconds: float = PATIENCE) -> dict[str, str]:
        """Wait for diagnostics of this node, made from now on, that fit; return keys and values, `level`, `message`."""
        values: dict[str, str] = {}

        def check(message: DiagnosticArray) -> Any:
            told = self.values_of(message)
            if told:
                values.clear()
                values.update(told)
            return told and fits(told)

        try:
            self.ros.diagnostics.wait_for(check, seconds, len(self.ros.diagnostics.messages))
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast diagnostics: {values}") from None
        return values

    def values_of(self, message: DiagnosticArray) -> dict[str, str]:
        """What the message says of this node; empty where it says nothing."""
        values: dict[str, str] = {}
        for status in message.status:
            if self.topic("~").strip("/") in status.name + status.hardware_id:
                values |= {"level": str(status.level[0]), "message": status.message}
                values |= {pair.key: pair.value for pair in status.values}
        return values

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _alive(self) -> bool:
        assert self.process.poll() is None, f"the node has ended with {self.process.returncode}:\n{self.log}"
        return True

    # Talking to it

    def call(self, service: str, request: Any, seconds: float = PATIENCE) -> Any:
        """Ask one of `SERVICES` and wait for its answer."""
        return result_of(self.call_later(service, request), f"an answer of {service}", seconds)

    def call_later(self, service: str, request: Any) -> Any:
        name = self.topic(service)
        client = self._clients[name]
        until(lambda: self._alive() and client.service_is_ready(), f"{name} is there")
        return client.call_async(request)

    def publisher(self, topic: str, kind: Any, qos: Any = 10) -> Any:
        name = self.topic(topic)
        if name not in self._publishers:
            self._publishers[name] = self.ros.node.create_publisher(kind, name, qos)
            until(self._publishers[name].get_subscription_count, f"the node listens to {name}")
        return self._publishers[name]

    def watch(self, topic: str, kind: Any, qos: Any = 10) -> Inbox:
        return self.ros.watch(self.topic(topic), kind, qos)

    def answers(self) -> Inbox:
        """The detections; returned once a picture that was sent is answered, so that none is lost to discovery."""
        found = self.watch("detections", Detection2DArray)
        images = self.publisher("image", Image)
        for _ in range(100):
            images.publish(picture(0))
            try:
                found.wait_for(lambda message: True, 0.2)
            except AssertionError:
                self._alive()
                continue
            return found
        raise AssertionError(f"no answer to a picture:\n{self.log}")

    def see(self, found: Inbox, message: Image) -> Detection2DArray:
        """Send a picture and return the answer with its stamp; send it again where the node had not found us yet."""
        start, sent, images = len(found.messages), 0.0, self.publisher("image", Image)

        def answer() -> Any:
            nonlocal sent
            if time.monotonic() - sent > 2.0:
                sent = time.monotonic()
                images.publish(message)
            return next((one for one in found.messages[start:] if stamp_of(one) == stamp_of(message)), None)

        return until(answer, f"an answer to the picture of {stamp_of(message)}", 30.0)

    def set(self, **values: Any) -> list[SetParametersResult]:
        request = SetParameters.Request()
        for name, value in values.items():
            given = TypedParameter(name, value=value).to_parameter_msg() if not isinstance(value, Parameter) else value
            request.parameters.append(given)
        return self.call("~/set_parameters", request).results

    def get(self, name: str) -> Any:
        values = self.call("~/get_parameters", GetParameters.Request(names=[name])).values
        return parameter_value_to_python(values[0])

    def set_prompts(self, *prompts: str) -> Any:
        return self.call("~/set_prompts", SetPrompts.Request(prompts=list(prompts)))

    def locate(self, *prompts: str, image: Image | None = None, timeout: float = 0.0) -> Locate.Response:
        return result_of(self.locate_later(*prompts, image=image, timeout=timeout), "an answer of ~/locate")

    def locate_later(self, *prompts: str, image: Image | None = None, timeout: float = 0.0) -> Any:
        request = Locate.Request(prompts=list(prompts), timeout=timeout)
        if image is not None:
            request.image = image
        return self.call_later("~/locate", request)

    def ask(self, *prompts: str, image: Image | None = None, timeout: float = 0.0) -> Goal:
        """Send a goal to the action and return it once it is accepted or refused."""
        feedback: list[tuple[float, Any]] = []
        sent = self.ask_later(*prompts, image=image, timeout=timeout, feedback=feedback)
        return Goal(result_of(sent, "the goal is accepted or refused"), feedback)

    def ask_later(
        self, *prompts: str, image: Image | None = None, timeout: float = 0.0, feedback: list[Any] | None = None
    ) -> Any:
        """Send a goal and return the future of its handle; `feedback` gets each detection, with the moment it came."""
        action = self._action
        until(lambda: self._alive() and action.server_is_ready(), "the action is there")
        goal = LocateAction.Goal(prompts=list(prompts), timeout=timeout)
        if image is not None:
            goal.image = image

        def take(message: Any) -> None:
            if feedback is not None:
                feedback.append((time.monotonic(), message.feedback.detection))

        return action.send_goal_async(goal, feedback_callback=take)

    def end(self) -> None:
        """End it by force where it still runs, and the test's own node with it."""
        self.kill()
        self._action.destroy()
        self.ros.close()


class Goal:
    """A question to the action, with what came back so far."""

    STATUS = {GoalStatus.STATUS_SUCCEEDED: "succeeded", GoalStatus.STATUS_CANCELED: "canceled"} | {
        GoalStatus.STATUS_ABORTED: "aborted"
    }

    def __init__(self, handle: Any, feedback: list[tuple[float, Any]]) -> None:
        self.handle = handle
        self.feedback = feedback
        self.accepted: bool = handle.accepted
        self._result = handle.get_result_async() if self.accepted else None

    def result(self) -> tuple[str, LocateAction.Result]:
        """Wait for the end: succeeded, canceled or aborted, and the result."""
        answer = result_of(self._result, "the result of the action")
        return self.STATUS[answer.status], answer.result

    def cancel(self) -> bool:
        """Ask for the end; whether the node agrees to it."""
        return bool(result_of(self.handle.cancel_goal_async(), "an answer to cancel").goals_canceling)


class Camera(Process):
    """The camera of `camera.py`; `sent` has the number of each picture by its stamp."""

    def __init__(self, node: NodeProcess, folder: Path, *options: str, topic: str = "image") -> None:
        self.sent: dict[tuple[int, int], int] = {}
        self._said: list[str] = []
        command = [sys.executable, str(Path(__file__).with_name("camera.py")), node.topic(topic), *options]
        super().__init__(command, folder / f"camera{next(_numbers)}.log", talks=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: "ready" in self._said or self.process.poll() is not None, "the camera has somebody to look at it")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if "number" in said:
                self.sent[tuple(said["stamp"])] = said["number"]
            else:
                self._said.extend(said)

    def _tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def stream(self, rate: float) -> None:
        self._tell(stream=rate)

    def pause(self) -> None:
        """Stop the stream; returns when `sent` is complete."""
        self._said.clear()
        self._tell(pause=True)
        until(lambda: "paused" in self._said, "the camera pauses")

    def show(self, number: int) -> None:
        self._tell(show=number)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.kill()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()
        assert self.process.returncode == 0, self.log


@contextmanager
def running(folder: Path, **how: Any) -> Iterator[NodeProcess]:
    """A node for the length of a block; it must end in time and well, whatever happened in between."""
    node = NodeProcess(folder, **how)
    try:
        if (how.get("parameters") or {}).get("autostart", True):
            node.wait_until("active")
        yield node
        node.stop()
    finally:
        print(f"--- the log of {node.topic('~')} ---\n{node.log}")
        node.end()


@contextmanager
def filming(node: NodeProcess, folder: Path, *options: str, topic: str = "image") -> Iterator[Camera]:
    camera = Camera(node, folder, *options, topic=topic)
    try:
        yield camera
    finally:
        camera.close()
