"""The lifecycle node: what it listens to, what it publishes, and what happens at each transition.

Callbacks only take and hand on; looking at images is done by the worker's thread (`worker.py`).
"""

from __future__ import annotations

import ctypes
import gc
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from groundlink_ros.action import Locate as LocateAction
from groundlink_ros.msg import Prompts
from groundlink_ros.srv import Locate, SetPrompts
from rclpy.action import ActionServer, CancelResponse
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo
from visualization_msgs.msg import MarkerArray

import groundlink
from groundlink import BackendUnavailable, BadQuery, Detection, GroundlinkError, Locator, Query, UnsupportedTask
from groundlink.image import Pixels
from groundlink.query import Task
from ros2_node import diagnostics, messages, parameters
from ros2_node.diagnostics import Tally
from ros2_node.frames import UnknownEncoding, decode_compressed, to_rgb
from ros2_node.worker import MAX_REQUESTS, Answer, Asked, Frame, Request, Worker

LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
DETECTIONS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

BURST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=4 * MAX_REQUESTS, reliability=ReliabilityPolicy.RELIABLE)
"""Of the service and the action: requests that come at once are all answered, those that are too many with `Busy`."""

_NO_STAGES = frozenset({"total", "tokens", "steps", "switches", "boxes_per_second"})
"""What a backend tells among its times that is none, or that `inference` tells already."""

_TELLS_OF_MESSAGES = hasattr(Subscription, "CallbackType")
"""Whether callbacks are given the message's info, as they are since Iron: without it, lost frames are not counted."""


class LocateNode(LifecycleNode):  # type: ignore[misc]
    """Publishes where in the images of a camera the prompts are.

    A lifecycle node: the model is loaded in `configure`, images are listened to while it is active, and everything is
    freed in `cleanup`. Takes the arguments of `rclpy.lifecycle.LifecycleNode`, and runs in any executor.
    """

    def __init__(self, node_name: str = "groundlink", **given: Any) -> None:
        super().__init__(node_name, **given)
        self.tally = Tally()
        self._locator: Locator | None = None
        self._worker: Worker | None = None
        self._asked: Asked | None = None
        self._queries: tuple[Query, ...] = ()
        self._task: Task | None = None
        self._prompts_version = 0
        self._images: dict[str, Any] = {}
        self._last_sequence: dict[str, tuple[int, bytes]] = {}
        self._raw_frame_at = 0.0
        self._taken = ("", 0, 0.0)
        self._camera: CameraInfo | None = None
        self._camera_info: Any = None
        self._failure = ""
        self._made: list[Callable[[], Any]] = []
        self._goals: dict[bytes, Request] = {}

        parameters.declare(self, lambda text: self.report("parameter " + text.split(";")[0], text))
        self.add_on_set_parameters_callback(self._on_parameters)
        if hasattr(self, "add_pre_set_parameters_callback"):  # since Iron
            self.add_pre_set_parameters_callback(self._before_parameters)
        self._image_topic = self.resolve_topic_name("image")
        self._compressed_topic = self._beside_image("image/compressed", self._image_topic + "/compressed")
        self._camera_info_topic = self._beside_image(
            "camera_info", self._image_topic.rpartition("/")[0] + "/camera_info"
        )

        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_subscription(Prompts, "~/prompts", self._on_prompts, 10)
        self.create_service(SetPrompts, "~/set_prompts", self._on_set_prompts)
        self.create_service(SetBool, "~/enable", self._on_enable)
        _answer_later(self.create_service(Locate, "~/locate", self._on_locate, qos_profile=BURST))
        _refuse_wrong_transitions(getattr(self, "_service_change_state", None))
        self._actions = _LaterActionServer(
            self,
            LocateAction,
            "~/locate",
            execute_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=BURST,
            cancel_service_qos_profile=BURST,
            result_service_qos_profile=BURST,
            result_timeout=10,
        )
        # Of wall time: diagnostics go on where simulated time stands still.
        self._timer = self.create_timer(1.0, self._every_second, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # --- Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model."""
        try:
            self._load()
            self._advertise()
            return super().on_configure(state)
        except Exception as error:
            self._free()
            self._failure = f"configuring failed: {_in_words(error)}"
            self.report(self._failure, self._failure)
            return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the camera."""
        assert self._locator is not None
        entered = super().on_activate(state)
        try:
            superseded = partial(self.tally.count, "frames_superseded")
            self._worker = Worker(self._locator, self._convert, self._publish, self._frame_failed, superseded)
            self._worker.limit(self._value("max_rate"))
            self._listen()
        except Exception as error:  # rclpy would say nothing of it
            self._stop()
            super().on_deactivate(state)
            self._failure = f"activating failed: {_in_words(error)}"
            self.report(self._failure, self._failure)
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        return entered

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; when this returns, nothing is published any more."""
        return self._leave("deactivating", self._stop, super().on_deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the publishers."""
        return self._leave("cleaning up", self._free, super().on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop at once, from any state."""
        return self._leave("shutting down", self._end, super().on_shutdown, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        return self._leave("leaving after an error", self._end, super().on_error, state)

    def _leave(
        self,
        doing: str,
        work: Callable[[], None],
        of_publishers: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        try:
            left = of_publishers(state)
            work()
            return left
        except Exception as error:  # rclpy would say nothing of it
            self.report(doing, f"{doing} failed: {_in_words(error)}")
            return TransitionCallbackReturn.ERROR

    def start(self) -> None:
        """Configure and activate, as `autostart` asks for; what fails is told in the log and in diagnostics."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def stop(self) -> None:
        """Withdraw what is under way, without waiting for the backend; the node's process is about to end."""
        worker, locator = self._worker, self._locator
        if worker is not None:
            worker.stop()
        if locator is not None:
            locator.close(seconds=0.0)

    def destroy_node(self) -> None:
        """Free everything and take the node off the graph."""
        self._end()
        self._actions.destroy()
        super().destroy_node()
        # rclpy keeps it, and with it the whole node: others would see it for 20 s still, and the middleware's shared
        # memory would stay when the process is gone.
        self._state_machine.destroy_when_not_in_use()

    def _end(self) -> None:
        self._stop()
        self._free(seconds=0.0)

    # --- Loading and freeing

    def _load(self) -> None:
        values = {name: self._value(name) for name in parameters.PARAMETERS}
        settings = parameters.backend_settings(values)
        said: set[str] = set()

        def on_progress(doing: str, fraction: float) -> None:
            if self._locator is None and doing not in said:  # while it loads, not at every question
                said.add(doing)
                self.get_logger().info(messages.utf8(f"{doing} …"))

        self.get_logger().info(f"loading the backend {values['backend'] or 'that suits this machine'} …")
        locator = groundlink.load(values["backend"] or None, on_progress=on_progress, **settings)
        self._locator = locator
        info = locator.info
        task = values["task"] or ("detect" if "detect" in info.tasks else info.tasks[0])
        if task not in info.tasks:
            raise UnsupportedTask(
                f"the backend {info.name!r} does not do {task!r}; set the parameter 'task' to one of "
                f"{', '.join(info.tasks)}"
            )
        self._task = task
        prompts = values["prompts"]
        self._queries = self._make_queries(prompts) if prompts != [""] or task == "read" else ()
        self._settle()
        self.get_logger().info(
            f"backend {info.name!r}: {info.description or 'no description'}; licence of its weights: "
            f"{info.license or 'not told'}; on {self._device()}; task {task!r}; "
            f"prompts: {', '.join(self._words()) or 'none yet'}"
        )
        if not info.scores:
            self.get_logger().warning(
                f"the backend {info.name!r} gives no scores: they are published as NaN, and no threshold is applied"
            )
        self._failure = ""

    def _advertise(self) -> None:
        overridable = QoSOverridingOptions.with_default_policies()
        self._detections = self.create_lifecycle_publisher(
            Detection2DArray, "detections", DETECTIONS, qos_overriding_options=overridable
        )
        self._annotated = self.create_lifecycle_publisher(Image, "annotated", 1, qos_overriding_options=overridable)
        self._markers = self.create_lifecycle_publisher(MarkerArray, "markers", 1)
        self._label_info = self.create_publisher(LabelInfo, "label_info", LATCHED)
        self._vision_info = self.create_publisher(VisionInfo, "vision_info", LATCHED)
        managed = (self._detections, self._annotated, self._markers)
        self._made = [partial(self.destroy_lifecycle_publisher, publisher) for publisher in managed]
        self._made += [
            partial(self.destroy_publisher, publisher) for publisher in (self._label_info, self._vision_info)
        ]
        self._tell_labels()

    def _stop(self) -> None:
        for transport in list(self._images):
            self._silence(transport)
        self._listen_to_camera_info(False)
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _free(self, seconds: float | None = None) -> None:
        locator, self._locator = self._locator, None
        if locator is not None:
            locator.close(seconds=seconds)
        for unmake in self._made:
            unmake()
        self._made = []
        self._queries, self._asked, self._task, self._camera = (), None, None, None
        if locator is not None:
            del locator
            _give_memory_back()

    # --- Images

    def _listen(self) -> None:
        """Have the subscriptions that are needed now, and no others: an image that nobody looks at costs as much."""
        worker = self._worker
        wanted: set[str] = set()
        if worker is not None and (self._asked is not None or worker.waits_for_a_frame):
            chosen = self._value("image_transport")
            wanted = {"raw", "compressed"} if chosen == "auto" else {chosen}
            if chosen == "auto" and time.monotonic() - self._raw_frame_at < diagnostics.SILENT:
                wanted = {"raw"}
        for transport in set(self._images) - wanted:
            self._silence(transport)
        for transport in wanted - set(self._images):
            topic = self._image_topic if transport == "raw" else self._compressed_topic
            self._last_sequence.pop(transport, None)
            on_image = partial(self._on_image, transport)
            self._images[transport] = self.create_subscription(
                Image if transport == "raw" else CompressedImage,
                topic,
                on_image if _TELLS_OF_MESSAGES else partial(on_image, info=None),
                QoSProfile(
                    history=HistoryPolicy.KEEP_LAST,
                    depth=1,
                    reliability=ReliabilityPolicy.RELIABLE
                    if self._value("image_reliability") == "reliable"
                    else ReliabilityPolicy.BEST_EFFORT,
                ),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

    def _silence(self, transport: str) -> None:
        self.destroy_subscription(self._images.pop(transport))

    def _on_image(self, transport: str, message: Any, info: Any) -> None:
        worker = self._worker
        if worker is None:
            return
        if transport == "raw":
            self._raw_frame_at = time.monotonic()
            if len(self._images) > 1:
                self._listen()  # to this one alone
        elif time.monotonic() - self._raw_frame_at < diagnostics.SILENT:
            return  # the same frame comes raw, too
        self._count_lost(transport, info)
        if self._is_a_twin(transport, message.header.stamp):
            return
        asked = self._asked
        self.tally.received(wanted=asked is not None)
        worker.frame(message, asked)

    def _is_a_twin(self, transport: str, stamp: Any) -> bool:
        """Whether this frame or a later one was taken by the other transport a moment ago, as the first one may be."""
        other, taken, when = self._taken
        moment, now = stamp.sec * 10**9 + stamp.nanosec, time.monotonic()
        recent = now - when < diagnostics.SILENT and 0 <= taken - moment < diagnostics.SILENT * 1e9
        if moment and recent and other not in ("", transport):
            return True
        self._taken = (transport, moment, now)
        return False

    def _count_lost(self, transport: str, info: Any) -> None:
        """Count frames that were published and did not come here, by the gaps in the publisher's numbers."""
        number = info.get("publication_sequence_number") if isinstance(info, dict) else None
        if number is None:
            return
        last, camera = self._last_sequence.get(transport, (number - 1, b""))
        if number != last + 1 or not camera:  # each publisher has numbers of its own, and messages do not say whose
            before = camera
            topic = self._image_topic if transport == "raw" else self._compressed_topic
            publishers = self.get_publishers_info_by_topic(topic)
            camera = bytes(publishers[0].endpoint_gid) if len(publishers) == 1 and number > last else b""
            if camera and camera == before:
                self.tally.count("frames_lost", number - last - 1)
        self._last_sequence[transport] = number, camera

    def _convert(self, message: Any) -> Pixels:
        assert self._locator is not None
        limit = self._locator.images.max_pixels
        if isinstance(message, CompressedImage):
            return decode_compressed(message, limit)
        return to_rgb(message, limit)

    def _frame_failed(self, frame: Frame, error: BaseException) -> None:
        self.tally.count("frames_failed")
        self.report(_kind(error), f"a frame was not answered: {_in_words(error)}")

    # --- Answers

    def _publish(self, answer: Answer) -> None:
        """Publish the answer to a frame; called by the worker's thread."""
        begun = time.monotonic()
        header = answer.frame.message.header
        found = [detection for result in answer.results for detection in result]
        self._detections.publish(messages.detection_array(header, found))
        published = time.monotonic()
        self._remark(answer)
        if self._annotated.get_subscription_count():
            self._annotated.publish(messages.annotated_image(header, answer.pixels, answer.results))
        if self._markers.get_subscription_count():
            height, width = answer.pixels.shape[:2]
            self._markers.publish(messages.markers(header, answer.results, (width, height), self._camera))
        stages: Counter[str] = Counter()
        for result in answer.results:
            stages.update({f"model_{name}": ms for name, ms in result.timings_ms.items() if name not in _NO_STAGES})
        self.tally.answered(
            {
                "wait": answer.waited,
                "convert": answer.converted,
                "inference": answer.answered,
                "publish": (published - begun) * 1000,
                "draw": (time.monotonic() - published) * 1000,
                **stages,
            }
        )

    def _remark(self, answer: Answer) -> list[str]:
        """Count what is to be said about an answer, and return it in words."""
        remarks = []
        for result in answer.results:
            words = f"{result.query.words}: " if result.query is not None and result.query.words else ""
            if result.status == "ambiguous":
                remark = f"{words}ambiguous, {len(result)} places fit; {result.reason}".rstrip("; ")
                self.tally.remarked("answers_ambiguous", remark)
                remarks.append(remark)
            if not result.complete:
                remark = f"{words}incomplete ({result.incomplete_reason}); {result.reason}".rstrip("; ")
                self.tally.remarked("answers_incomplete", remark)
                remarks.append(remark)
        return remarks

    # --- Prompts and other parameters

    def _before_parameters(self, given: list[Parameter]) -> list[Parameter]:
        """Take a whole number for a fraction, and tell of values that ROS is about to refuse by itself."""
        taken = []
        for parameter in given:
            spec = parameters.PARAMETERS.get(parameter.name)
            if spec is None:
                taken.append(parameter)
                continue
            value = parameters.fitting(parameter.name, parameter.value)
            problem = spec.problem(parameter.name, value)
            if problem is not None:
                self.report("parameter " + parameter.name, problem)
            taken.append(parameter if value is parameter.value else Parameter(parameter.name, spec.type, value))
        return taken

    def _on_parameters(self, given: list[Parameter]) -> Any:
        changed = {parameter.name: parameter.value for parameter in given if parameter.name in parameters.PARAMETERS}
        if not changed:  # such as the overrides of QoS, which ROS declares with each subscription
            return parameters.accepted()
        for name, value in changed.items():
            problem = parameters.refusal(name, value)
            if problem is not None:
                self.report("parameter " + name, problem)
                return parameters.refused(problem)
        if "prompts" in changed and self._locator is not None:
            try:
                self._queries = self._make_queries(changed["prompts"])
            except GroundlinkError as error:
                self.report("parameter prompts", str(error))
                return parameters.refused(str(error))
        self._settle(changed)
        return parameters.accepted()

    def _make_queries(self, prompts: list[str]) -> tuple[Query, ...]:
        """Return what is asked for these prompts: one query for all where the task takes several, else one for each."""
        assert self._locator is not None and self._task is not None
        if self._task == "read":
            return (self._locator.check(Query("read")),)
        words = parameters.phrases(prompts)
        if self._task in ("detect", "layout"):
            return (self._locator.check(Query(self._task, words)),)
        return tuple(self._locator.check(Query(self._task, (phrase,))) for phrase in words)

    def _words(self) -> list[str]:
        return [phrase for query in self._queries for phrase in query.phrases]

    def _settle(self, changed: dict[str, Any] | None = None) -> None:
        """Bring what is asked of the next frame in line with the parameters; `changed` are not stored yet."""
        value = {**{name: self._value(name) for name in parameters.PARAMETERS}, **(changed or {})}
        if self._locator is None:
            return
        asked = self._asked_with(self._queries, value) if self._queries and value["enabled"] else None
        new_prompts = changed is None or "prompts" in changed or "threshold" in changed
        self._asked = asked
        if self._made and new_prompts:
            self._tell_labels(value["threshold"])
        if self._worker is not None:
            if changed is not None and "max_rate" in changed:
                self._worker.limit(value["max_rate"])
            if asked is None:
                self._worker.forget()
            self._listen()

    def _asked_with(self, queries: tuple[Query, ...], value: dict[str, Any]) -> Asked:
        return Asked(queries, value["threshold"] or None, value["deadline"] or None)

    def _tell_labels(self, threshold: float | None = None) -> None:
        assert self._locator is not None
        self._prompts_version += 1
        header = Header(stamp=self.get_clock().now().to_msg())
        given = self._value("threshold") if threshold is None else threshold
        self._label_info.publish(messages.label_info(header, self._words(), given))
        method = f"{self._locator.info.name} {self._value('model')}".strip()
        location = f"{self.get_fully_qualified_name()}/prompts"
        self._vision_info.publish(messages.vision_info(header, method, location, self._prompts_version))

    def _on_prompts(self, message: Prompts) -> None:
        self._set("prompts", list(message.prompts))

    def _on_set_prompts(self, request: SetPrompts.Request, response: SetPrompts.Response) -> SetPrompts.Response:
        problem = self._set("prompts", list(request.prompts))
        response.success = not problem
        response.message = problem or f"looking for {', '.join(parameters.phrases(request.prompts))}"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        problem = self._set("enabled", bool(request.data))
        response.success = not problem
        now = "looking" if request.data else "not looking"
        response.message = problem or (now if self._worker is not None else f"{now} once the node is active")
        return response

    def _set(self, name: str, value: Any) -> str:
        """Set a parameter of ours, so that whoever asks for it sees what holds; return why it was refused."""
        result = self.set_parameters([Parameter(name, parameters.PARAMETERS[name].type, value)])[0]
        return "" if result.successful else str(result.reason)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    # --- Requests

    def _on_locate(self, wanted: Locate.Request, response: Locate.Response) -> Any:
        """Begin a `~/locate` request; its response is sent when the worker has it."""
        return _Later(lambda send: self._begin(wanted, lambda outcome: send(self._fill(response, outcome))))

    def _begin(
        self,
        wanted: Any,
        done: Callable[[Answer | GroundlinkError], None],
        found: Callable[[Any, Detection], None] = lambda message, detection: None,
    ) -> Request | None:
        """Put a request to the worker; what cannot be asked is answered at once."""
        worker, locator = self._worker, self._locator
        try:
            if worker is None or locator is None:
                raise BackendUnavailable(
                    f"the node {self.get_fully_qualified_name()} is not active; "
                    f"run: ros2 lifecycle set {self.get_fully_qualified_name()} activate"
                )
            value = {name: self._value(name) for name in ("threshold", "deadline", "request_timeout")}
            queries = self._make_queries(list(wanted.prompts)) if wanted.prompts else self._queries
            if not queries:
                raise BadQuery("there is no prompt: neither in the request, nor has the node any")
            seconds = wanted.timeout or value["request_timeout"]
            if not 0 < seconds <= parameters.PARAMETERS["request_timeout"].high:
                raise BadQuery(f"timeout is a number of seconds, 0 for the node's own, not {seconds:g}")
            image = wanted.image
            own = bool(image.encoding or len(image.data) or image.width or image.height)
            request = Request(
                self._asked_with(queries, value),
                image if own else None,
                expires=time.monotonic() + seconds,
                done=done,
                found=found,
            )
            worker.ask(request)
        except GroundlinkError as error:
            done(error)
            return None
        self._listen()
        return request

    def _fill(self, response: Any, outcome: Answer | GroundlinkError) -> Any:
        """Put an outcome into a response of the service or a result of the action."""
        if isinstance(outcome, GroundlinkError):
            self.tally.count("requests_failed")
            response.status = outcome.code.ros
            response.message = messages.utf8(str(outcome))
            if not isinstance(outcome, groundlink.Cancelled):
                self.report(f"request {_kind(outcome)}", f"a request was not answered: {_in_words(outcome)}")
            return response
        self.tally.count("requests_answered")
        found = [detection for result in outcome.results for detection in result]
        response.detections = messages.detection_array(outcome.frame.message.header, found)
        remarks = self._remark(outcome)
        if not found:
            remarks += [result.reason for result in outcome.results if result.reason]
        response.message = messages.utf8("; ".join(remarks))
        return response

    def _on_goal(self, goal: Any, finish: Callable[[Callable[[Any], Any]], None]) -> None:
        """Begin a goal of the action; `finish` ends it, from any thread."""
        key = bytes(goal.goal_id.uuid)
        over = threading.Event()

        def done(outcome: Answer | GroundlinkError) -> None:
            over.set()
            self._goals.pop(key, None)
            finish(partial(end, outcome))

        def end(outcome: Answer | GroundlinkError, goal: Any) -> Any:
            if goal.is_cancel_requested:
                goal.canceled()
            elif isinstance(outcome, GroundlinkError):
                goal.abort()
            else:
                goal.succeed()
            return self._fill(LocateAction.Result(), outcome)

        def found(message: Any, detection: Detection) -> None:
            goal.publish_feedback(
                LocateAction.Feedback(detection=messages.detection_message(message.header, detection))
            )

        request = self._begin(goal.request, done, found)
        if request is not None:
            self._goals[key] = request
            if over.is_set():  # the worker was faster than this thread
                self._goals.pop(key, None)

    def _on_cancel(self, goal: Any) -> CancelResponse:
        request, worker = self._goals.get(bytes(goal.goal_id.uuid)), self._worker
        if request is not None and worker is not None:
            worker.cancel(request)
        return CancelResponse.ACCEPT

    # --- Every second

    def _every_second(self) -> None:
        if self._worker is not None:
            self._listen()
            self._listen_to_camera_info(bool(self._markers.get_subscription_count()))
        message = DiagnosticArray(header=Header(stamp=self.get_clock().now().to_msg()))
        name = self.get_fully_qualified_name().strip("/")
        level, words = self._level()
        hardware = self._device() if self._locator is not None else ""
        message.status = [diagnostics.status(f"{name}: locate", hardware, level, words, self._values())]
        self._diagnostics.publish(message)

    def _level(self) -> tuple[bytes, str]:
        tally, now = self.tally, time.monotonic()
        if self._failure:
            return DiagnosticStatus.ERROR, self._failure
        if tally.error and now - tally.error_at < diagnostics.RECENT:
            return DiagnosticStatus.ERROR, tally.error
        if self._worker is None:
            return DiagnosticStatus.OK, "inactive"
        if not self._value("enabled"):
            return DiagnosticStatus.OK, "disabled by ~/enable"
        if not self._queries:
            return DiagnosticStatus.WARN, "no prompts: nothing is looked for"
        if now - tally.frame_at > diagnostics.SILENT:
            return DiagnosticStatus.WARN, f"no image on {self._image_topic} or {self._compressed_topic}"
        if tally.remark and now - tally.remark_at < diagnostics.RECENT:
            return DiagnosticStatus.WARN, tally.remark
        return DiagnosticStatus.OK, "looking"

    def _values(self) -> dict[str, str]:
        told = {"state": "active" if self._worker else "inactive" if self._locator else "unconfigured"}
        if self._locator is not None:
            info = self._locator.info
            told |= {
                "backend": info.name,
                "licence": info.license,
                "device": self._device(),
                "task": self._task or "",
                "scores": "in 0…1" if info.scores else "none: NaN is published, and the threshold is not applied",
            }
        told["prompts"] = ", ".join(self._words())[:1000]
        told["enabled"] = str(self._value("enabled")).lower()
        told["listens_to"] = ", ".join(sorted(subscription.topic_name for subscription in self._images.values()))
        return told | self.tally.values() | diagnostics.memory()

    def _device(self) -> str:
        describe = getattr(self._locator.backend, "describe", None) if self._locator is not None else None
        return str(describe().get("device", "cpu")) if describe is not None else "cpu"

    def _listen_to_camera_info(self, wanted: bool) -> None:
        """Markers stand where the camera's own figures put them; nothing else needs these."""
        if wanted and self._camera_info is None:
            self._camera_info = self.create_subscription(
                CameraInfo, self._camera_info_topic, self._on_camera_info, NEWEST
            )
        elif not wanted and self._camera_info is not None:
            self.destroy_subscription(self._camera_info)
            self._camera_info = None

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera = message

    def _beside_image(self, name: str, beside: str) -> str:
        """Return the topic that `name` was remapped to; where it was not, the one that belongs to the image topic."""
        remapped = self.resolve_topic_name(name)
        return beside if remapped == self.resolve_topic_name(name, only_expand=True) else remapped

    def report(self, key: str, text: str) -> None:
        """Tell of an error: in diagnostics, and in the log unless one of its kind was there a moment ago."""
        if self.tally.failed(key, text):
            self.get_logger().error(messages.utf8(text))


class _Later:
    """What a callback returns whose response comes later: `begin` is given the function that sends it."""

    def __init__(self, begin: Callable[[Callable[[Any], None]], Any]) -> None:
        self.begin = begin


def _answer_later(service: Any) -> None:
    """Let callbacks of a service return `_Later`.

    A callback that waited would hold up every other one of a single-threaded executor, and a coroutine keeps rclpy's
    executors spinning at full speed until it is done.
    """
    send_response = service.send_response

    def send(response: Any, header: Any) -> None:
        if isinstance(response, _Later):
            response.begin(lambda made: send_response(made, header))
        else:
            send_response(response, header)

    service.send_response = send


def _refuse_wrong_transitions(service: Any) -> None:
    """Let the service answer to a transition that the state does not have.

    Up to Jazzy, rclpy raises in its place: whoever asked would wait for ever, and a program's executor would end.
    """
    if service is None:  # no lifecycle services were asked for
        return
    change_state = service.callback

    def change(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except RuntimeError:  # the C library has logged it
            response.success = False
            return response

    service.callback = change


class _LaterActionServer(ActionServer):  # type: ignore[misc]
    """An action server whose goals end when they are finished, without a callback that waits.

    `execute_callback` gets the goal and a function `finish(end)`; `end` gets the goal, sets its state, and returns the
    result.
    """

    def notify_execute(self, goal_handle: Any, execute_callback: Any) -> None:
        begin = execute_callback or self._execute_callback
        begin(goal_handle, partial(super().notify_execute, goal_handle))


def _give_memory_back() -> None:
    """Give back to the system what a model had: Python waits for a collection, and the C library of Linux keeps it."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _kind(error: BaseException) -> str:
    """What counts as the same error for the log: the same words, whatever the numbers in them."""
    if isinstance(error, UnknownEncoding):
        return f"encoding {error.encoding}"
    return f"{type(error).__name__} {re.sub('[0-9]+', '', str(error)):.80}"


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, GroundlinkError) else f"{type(error).__name__}: {error}"
