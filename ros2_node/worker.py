"""The thread that looks at frames: always the newest one, with the questions that were valid when it arrived.

Nothing here knows ROS: a frame's message is passed through, and what is done with an answer is the caller's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from groundlink import (
    BackendUnavailable,
    Busy,
    Cancelled,
    DeadlineExceeded,
    Detection,
    Detections,
    GroundlinkError,
    Locator,
    Query,
    Stream,
)
from groundlink.image import OpenedImage, Pixels

MAX_REQUESTS = 16
"""Requests that may wait; one more is refused with `Busy`."""

DEACTIVATED = "the node was deactivated before the question was answered"
NO_FRAME = "no frame arrived in time; is the camera running, and is its topic the one that this node listens to?"
NO_TURN = "the time was up before the question's turn came; allow more time, or ask for less at once"

LONGEST_WAIT = 3600.0
"""Seconds; the system cannot wait for as long as a tiny rate asks for, so it is looked again after these."""

_log = logging.getLogger("groundlink.ros2")


@dataclass(frozen=True)
class Asked:
    """What is asked of a frame, fixed at the moment that it arrives.

    `threshold` is a score in 0…1, `deadline` seconds for each query, None for as long as it takes.
    """

    queries: tuple[Query, ...]
    threshold: float | None = None
    deadline: float | None = None


@dataclass
class Frame:
    """An image message and when it came (`time.monotonic()`), with what is asked of it.

    `withdrawn` is set when nobody wants its answer any more.
    """

    message: Any
    asked: Asked
    arrived: float
    withdrawn: bool = False


@dataclass
class Answer:
    """What was found in one frame, with how long each stage took, in milliseconds.

    `waited` is from the arrival of the frame to the worker's beginning, `converted` and `answered` are the stages.
    """

    frame: Frame
    pixels: Pixels
    results: list[Detections]
    waited: float
    converted: float
    answered: float


@dataclass(eq=False)
class Request:
    """One question about one moment: an image of its own, or the next frame.

    `done` is called once, from any thread, with the answer or with the error that is in its place; `found` with each
    detection as it is found.
    """

    asked: Asked
    message: Any
    expires: float
    done: Callable[[Answer | GroundlinkError], None]
    found: Callable[[Any, Detection], None] = lambda message, detection: None
    arrived: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def remaining(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, self.expires - time.monotonic())


Convert: TypeAlias = "Callable[[Any], Pixels]"


class Worker:
    """Answers frames and requests, one after the other, in a thread of its own.

    Args:
        locator: what answers.
        convert: makes RGB pixels of an image message; raises `BadImage`.
        publish: is given each answer to a frame of the stream. Not called any more once `stop` has returned.
        failed: is given a frame that got no answer, and why.
        dropped: is told of each frame that a newer one took the place of, or that nobody wanted any more.
    """

    def __init__(
        self,
        locator: Locator,
        convert: Convert,
        publish: Callable[[Answer], None],
        failed: Callable[[Frame, BaseException], None],
        dropped: Callable[[], None],
    ) -> None:
        self._locator = locator
        self._convert = convert
        self._publish = publish
        self._failed = failed
        self._dropped = dropped
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._asked = threading.Condition(lock)  # a request came: its time may be up first
        self._gate = threading.RLock()  # an answer goes out whole before `stop` returns, or not at all
        self._newest: Frame | None = None
        self._requests: deque[Request] = deque()
        self._for_next_frame: list[Request] = []
        self._current: Request | Frame | None = None
        self._streams: list[Stream] = []
        self._stopped = False
        self._seconds_a_frame = 0.0
        self._due = 0.0
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._work, "groundlink-frames"), (self._watch, "groundlink-timeouts"))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waits_for_a_frame(self) -> bool:
        """Whether a request waits for the next frame."""
        return bool(self._for_next_frame)

    def frame(self, message: Any, asked: Asked | None) -> None:
        """Take a frame of the stream; None where nothing is asked of the stream. Returns at once."""
        now = time.monotonic()
        with self._changed:
            if self._stopped:
                return
            for request in self._for_next_frame:
                request.message, request.arrived = message, now
                self._requests.append(request)
            self._for_next_frame.clear()
            replaced = asked is not None and self._newest is not None
            if asked is not None:
                self._newest = Frame(message, asked, now)
            self._changed.notify()
        if replaced:
            self._dropped()

    def limit(self, rate: float) -> None:
        """Look at no more than `rate` frames of the stream a second; 0 is as many as can be."""
        with self._changed:
            self._seconds_a_frame = 1 / rate if rate else 0.0
            self._due = 0.0
            self._changed.notify()

    def forget(self) -> None:
        """Drop the frames of the stream, also the one that is looked at: nothing is asked of the stream any more."""
        with self._changed:
            waited, self._newest = self._newest, None
            if isinstance(self._current, Frame):
                self._current.withdrawn = True
                self._close_streams()
        if waited is not None:
            self._dropped()

    def ask(self, request: Request) -> None:
        """Put a request in the queue; `request.message` None waits for the next frame.

        Raises:
            Busy: `MAX_REQUESTS` are waiting already.
            BackendUnavailable: the worker has been stopped.
        """
        with self._changed:
            if self._stopped:
                raise BackendUnavailable("the node is not active any more")
            if len(self._requests) + len(self._for_next_frame) >= MAX_REQUESTS:
                raise Busy(f"{MAX_REQUESTS} requests are waiting already; ask again later")
            (self._for_next_frame if request.message is None else self._requests).append(request)
            self._changed.notify()
            self._asked.notify()

    def cancel(self, request: Request) -> None:
        """Withdraw a request; its `done` gets `Cancelled`."""
        request.cancelled.set()
        with self._changed:
            waiting: Sequence[Any] = (self._requests, self._for_next_frame)
            for queue in waiting:
                if request in queue:
                    queue.remove(request)
                    break
            else:  # under way, or over
                if self._current is request:
                    self._close_streams()
                return
        _finish(request, _withdrawn())

    def stop(self) -> None:
        """Withdraw everything; when this returns, nothing is published any more and all requests are answered."""
        with self._changed:
            self._stopped = True
            waited, self._newest = self._newest, None
            requests = [*self._requests, *self._for_next_frame]
            self._requests.clear()
            self._for_next_frame.clear()
            self._close_streams()
            self._changed.notify()
            self._asked.notify()
        if waited is not None:
            self._dropped()
        for request in requests:
            _finish(request, Cancelled(DEACTIVATED))
        with self._gate:
            pass
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=1.0)

    def _close_streams(self) -> None:
        for stream in self._streams:
            stream.close()

    def _work(self) -> None:
        request_before = False
        while True:
            with self._changed:
                self._wait()
                if self._stopped:
                    return
                # In turn, so that neither requests nor the stream can starve the other.
                frame_is_due = self._newest is not None and time.monotonic() >= self._due
                if self._requests and not (request_before and frame_is_due):
                    self._current = self._requests.popleft()
                elif frame_is_due:
                    self._current, self._newest = self._newest, None
                    self._due = time.monotonic() + self._seconds_a_frame
                current = self._current
            request_before = isinstance(current, Request)
            if isinstance(current, Request):
                self._answer_request(current)
            elif current is not None:
                self._answer_frame(current)

    def _wait(self) -> None:
        """Wait until there is something to do."""
        while not (self._stopped or self._requests):
            seconds = None if self._newest is None else self._due - time.monotonic()
            if seconds is not None and seconds <= 0:
                return
            self._changed.wait(None if seconds is None else min(seconds, LONGEST_WAIT))

    def _watch(self) -> None:
        """Answer the requests whose time is up before their turn, also while the backend is at a long question."""
        while not self._stopped:
            self._expire()

    def _expire(self) -> None:
        with self._changed:
            now = time.monotonic()
            late = [request for request in (*self._requests, *self._for_next_frame) if request.expires <= now]
            for request in late:
                (self._for_next_frame if request.message is None else self._requests).remove(request)
            if not late and not self._stopped:
                times = [request.expires - now for request in (*self._requests, *self._for_next_frame)]
                self._asked.wait(min(times) if times else None)
        for request in late:
            _finish(request, DeadlineExceeded(NO_FRAME if request.message is None else NO_TURN))

    def _answer_frame(self, frame: Frame) -> None:
        try:
            answer = self._answer(frame, None)
            with self._gate:
                if frame.withdrawn or self._stopped:
                    self._dropped()
                else:
                    self._publish(answer)
        except BaseException as error:  # whatever happens, the next frame is looked at
            with self._gate:
                if frame.withdrawn or self._stopped:
                    self._dropped()
                else:
                    self._failed(frame, error)
        with self._changed:
            self._current = None

    def _answer_request(self, request: Request) -> None:
        outcome: Answer | GroundlinkError
        try:
            outcome = self._answer(Frame(request.message, request.asked, request.arrived), request)
        except GroundlinkError as error:
            outcome = error
        except BaseException as error:
            outcome = GroundlinkError(f"the question failed ({type(error).__name__}: {error})")
            outcome.__cause__ = error
        with self._changed:
            self._current = None
        if request.cancelled.is_set():
            outcome = _withdrawn()
        _finish(request, outcome)

    def _answer(self, frame: Frame, request: Request | None) -> Answer:
        begun = time.monotonic()
        pixels = self._convert(frame.message)
        converted = time.monotonic()
        results = []
        image = self._locator.images.adopt(pixels)
        for stream in self._ask_all(frame.asked, image, request):
            for detection in stream:
                if request is not None:
                    request.found(frame.message, detection)
            results.append(stream.result)
        answered = time.monotonic()
        if self._stopped:
            raise Cancelled(DEACTIVATED)
        return Answer(
            frame,
            pixels,
            results,
            waited=(begun - frame.arrived) * 1000,
            converted=(converted - begun) * 1000,
            answered=(answered - converted) * 1000,
        )

    def _ask_all(self, asked: Asked, image: OpenedImage, request: Request | None) -> Iterator[Stream]:
        """Ask the queries in order, as many at once as the backend takes, and one more to be ready for it."""
        left = deque(asked.queries)
        ahead = self._locator.info.concurrency + 1
        try:
            while left or self._streams:
                while left and len(self._streams) < ahead:
                    deadline = asked.deadline
                    if request is not None:
                        deadline = min(request.remaining(), deadline or float("inf"))
                    stream = self._locator.stream(image, left.popleft(), threshold=asked.threshold, deadline=deadline)
                    with self._changed:
                        self._streams.append(stream)
                        if self._stopped or (request is not None and request.cancelled.is_set()):
                            raise _withdrawn()
                yield self._streams[0]
                with self._changed:
                    self._streams.pop(0)
        finally:
            with self._changed:
                self._close_streams()
                self._streams.clear()


def _finish(request: Request, outcome: Answer | GroundlinkError) -> None:
    """Hand the outcome over; whoever asked may be gone."""
    try:
        request.done(outcome)
    except Exception:
        _log.exception("the answer to a request could not be delivered")


def _withdrawn() -> Cancelled:
    return Cancelled("the question was withdrawn before it was answered")
