"""The locator: one backend with its worker threads, asked from any thread or from asyncio.

A question is put in a queue, answered by a worker, and comes back as a row of events. The caller waits for events, so
deadlines and cancellation take effect at once, even while a backend is in the middle of a step it cannot interrupt.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

from groundlink.backend import TOO_LATE, Backend, BackendInfo, Context, Outcome
from groundlink.detections import Detection, Detections, Found, Status, dropped_in_words, make_detection
from groundlink.errors import (
    BadQuery,
    Busy,
    Cancelled,
    DeadlineExceeded,
    GroundlinkError,
    OutOfMemory,
    UnsupportedTask,
)
from groundlink.image import MAX_PIXELS, ImageLike, ImageStore, OpenedImage
from groundlink.query import Query

MAX_WAITING = 256
"""Questions that may wait for a worker; one more is refused with `Busy`."""

EXIT_SECONDS = 1.0
"""How long an ending program waits for workers to come back from the step they are in."""

MAX_DEADLINE = 30 * 86_400
"""Seconds; what waits longer has no deadline."""

_Event: TypeAlias = Found | Outcome | BaseException
_log = logging.getLogger("groundlink")


@dataclass
class _Job:
    image: OpenedImage
    query: Query
    context: Context
    emit: Callable[[_Event], None]


class _Call:
    """One question on its way: gathers events into an answer. Used by one caller at a time."""

    def __init__(self, job: _Job, info: BackendInfo, started: float) -> None:
        self.context = job.context
        self._job = job
        self._info = info
        self._started = started
        self._detections: list[Detection] = []
        self._dropped = 0
        self._below = 0
        self.result: Detections | None = None
        self.error: BaseException | None = None

    @property
    def over(self) -> bool:
        return self.result is not None or self.error is not None

    def absorb(self, event: _Event) -> Detection | None:
        """Take one event; return the detection that it brings to the caller, if it does."""
        if isinstance(event, Found):
            try:
                detection = make_detection(event, self._job.image.size)
            except (TypeError, ValueError) as error:
                self.context.cancel()
                self.error = _failed(self._info.name, self._job, error)
                return None
            threshold = self.context.threshold
            if detection is None:
                self._dropped += 1
            elif threshold is not None and detection.score is not None and detection.score < threshold:
                self._below += 1
            else:
                self._detections.append(detection)
                return detection
        elif isinstance(event, Outcome):
            self._finish(event)
        elif isinstance(event, DeadlineExceeded) and self._detections:
            self._finish(
                Outcome(reason="the deadline passed before the answer was whole", incomplete_reason="deadline")
            )
        elif isinstance(event, GroundlinkError):
            self.error = event
        elif isinstance(event, MemoryError):
            self.error = OutOfMemory(f"{self._job.image.name}: not enough memory for it; scale it down or cut it")
        else:
            self.error = _failed(self._info.name, self._job, event)
        return None

    def withdraw(self) -> None:
        """End the call for a caller who does not want the rest."""
        self.context.cancel()
        if not self.over:
            self._finish(Outcome(reason="cancelled before the answer was whole", incomplete_reason="cancelled"))

    def _finish(self, outcome: Outcome) -> None:
        status: Status = "found" if self._detections else "not_found"
        if outcome.status == "ambiguous" and len(self._detections) > 1:
            status = "ambiguous"
        below = f"{self._below} below the threshold of {self.context.threshold:g}" if self._below else ""
        reasons = (outcome.reason, dropped_in_words(self._dropped), below)
        self.result = Detections(
            detections=tuple(self._detections),
            status=status,
            size=self._job.image.size,
            reason="; ".join(reason for reason in reasons if reason),
            complete=outcome.incomplete_reason is None,
            incomplete_reason=outcome.incomplete_reason,
            raw=outcome.raw,
            backend=self._info.name,
            query=self._job.query,
            source=self._job.image.name,
            timings_ms={**outcome.timings_ms, "total": (time.perf_counter() - self._started) * 1000},
        )


class Stream:
    """An answer as it arrives: iterate the detections, then look at `result`.

    `close()`, leaving a `with` block, or dropping the stream cancels what is left of it.
    """

    def __init__(self, call: _Call, events: queue.SimpleQueue[_Event]) -> None:
        self._call = call
        self._events = events
        # The worker holds no reference to the stream, so a stream that nobody wants any more stops its work.
        weakref.finalize(self, call.context.cancel)

    def __iter__(self) -> Iterator[Detection]:
        return self

    def __next__(self) -> Detection:
        while not self._call.over:
            detection = self._call.absorb(self._next_event())
            if detection is not None:
                return detection
        if self._call.error is not None:
            raise self._call.error
        raise StopIteration

    def _next_event(self) -> _Event:
        try:
            return self._events.get(timeout=self._call.context.remaining())
        except queue.Empty:
            self._call.context.cancel()
            return DeadlineExceeded(TOO_LATE)
        except BaseException:  # Ctrl-C while waiting: the worker should not go on for nobody
            self._call.context.cancel()
            raise

    @property
    def result(self) -> Detections:
        """The whole answer; waits for it if it is not there yet. Raises what the call raised."""
        for _ in self:
            pass
        assert self._call.result is not None
        return self._call.result

    def close(self) -> None:
        """Cancel: no more detections come, and `result` is what was found so far, marked as cancelled.

        A thread that waits for the next one, even of a backend that cannot be interrupted, gets `Cancelled`.
        """
        self._call.withdraw()
        self._events.put(Cancelled("the question was withdrawn before it was answered"))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class AsyncStream:
    """`Stream` for asyncio: `async for` the detections, then look at `result`. The work starts with the first step."""

    def __init__(self, start: Callable[[Callable[[_Event], None]], _Call]) -> None:
        self._start = start
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._call: _Call | None = None
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Detection]:
        return self

    async def __anext__(self) -> Detection:
        if self._call is None:
            if self._closed:
                raise StopAsyncIteration
            await self._begin()
        call = self._call
        assert call is not None
        try:
            while not call.over:
                detection = call.absorb(await self._next_event(call))
                if detection is not None:
                    return detection
        except asyncio.CancelledError:
            call.withdraw()
            raise
        if call.error is not None:
            raise call.error
        raise StopAsyncIteration

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()

        def emit(event: _Event) -> None:
            try:
                loop.call_soon_threadsafe(self._events.put_nowait, event)
            except RuntimeError:  # the loop is closed: nobody waits any more
                _log.debug("an answer arrived after its event loop was closed")

        def start() -> None:
            self._call = self._start(emit)
            weakref.finalize(self, self._call.context.cancel)
            if self._closed:
                self._call.withdraw()

        try:
            # Opening a picture takes tens of milliseconds, too long for an event loop.
            await asyncio.to_thread(start)
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def _next_event(self, call: _Call) -> _Event:
        try:
            return await asyncio.wait_for(self._events.get(), call.context.remaining())
        except asyncio.TimeoutError:
            call.context.cancel()
            return DeadlineExceeded(TOO_LATE)

    @property
    def result(self) -> Detections:
        """The whole answer; only after the last detection or `aclose()`.

        Raises:
            Cancelled: the stream was closed before it began.
            RuntimeError: the stream has not ended yet.
        """
        if self._call is None and self._closed:
            raise Cancelled("the stream was closed before it began")
        if self._call is None or not self._call.over:
            raise RuntimeError("the answer is not whole yet: iterate to the end, or call aclose()")
        if self._call.error is not None:
            raise self._call.error
        assert self._call.result is not None
        return self._call.result

    async def aclose(self) -> None:
        """Cancel: no more detections come, and `result` is what was found so far, marked as cancelled."""
        self._closed = True
        if self._call is not None:
            self._call.withdraw()


class Locator:
    """Finds what is described in images; made by `groundlink.load`. Safe to use from many threads.

    `threshold` drops detections whose score is lower, `deadline` is in seconds from the call: when it passes, what was
    found by then is returned with `complete` False, and `DeadlineExceeded` is raised if that is nothing. A query may be
    a plain string: then it is a phrase for the first task that the backend names.

    All calls raise `BadImage`, `BadQuery`, `UnsupportedTask`, `Busy`, `DeadlineExceeded`, or what the backend raises.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_pixels: int = MAX_PIXELS,
        on_progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self.backend = backend
        self.info: BackendInfo = backend.info
        self.images = ImageStore(max_pixels)
        self.on_progress = on_progress
        self._workers = _Workers(backend)
        self._finalizer = weakref.finalize(self, self._workers.close)

    def locate(
        self,
        image: ImageLike,
        query: Query | str,
        *,
        threshold: float | None = None,
        deadline: float | None = None,
    ) -> Detections:
        """Answer one query on one image: a path, bytes, a PIL image, or an array (H×W×3, uint8, RGB)."""
        return self.stream(image, query, threshold=threshold, deadline=deadline).result

    def locate_batch(
        self,
        pairs: Iterable[tuple[ImageLike, Query | str]],
        *,
        threshold: float | None = None,
        deadline: float | None = None,
    ) -> list[Detections | GroundlinkError]:
        """Answer pairs of image and query, in the same order; an error stands in the place of its own pair only.

        `deadline` is for each pair, from the moment that it is begun.
        """
        answers: list[Detections | GroundlinkError] = []
        waiting: deque[Stream | GroundlinkError] = deque()

        def take() -> None:
            stream = waiting.popleft()
            try:
                answers.append(stream if isinstance(stream, GroundlinkError) else stream.result)
            except GroundlinkError as error:
                answers.append(error)

        try:
            for image, query in pairs:
                # One more than the workers take, so that the next picture is open when a worker is free.
                while len(waiting) > self.info.concurrency:
                    take()
                try:
                    waiting.append(self.stream(image, query, threshold=threshold, deadline=deadline))
                except GroundlinkError as error:
                    waiting.append(error)
            while waiting:
                take()
        finally:
            for stream in waiting:
                if isinstance(stream, Stream):
                    stream.close()
        return answers

    def stream(
        self,
        image: ImageLike,
        query: Query | str,
        *,
        threshold: float | None = None,
        deadline: float | None = None,
    ) -> Stream:
        """Answer one query and hand out each detection as it is found; see `Stream`."""
        events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        return Stream(self._begin(image, query, threshold, deadline, events.put), events)

    async def alocate(
        self,
        image: ImageLike,
        query: Query | str,
        *,
        threshold: float | None = None,
        deadline: float | None = None,
    ) -> Detections:
        """`locate` for asyncio; cancelling the task cancels the question."""
        stream = self.astream(image, query, threshold=threshold, deadline=deadline)
        async for _ in stream:
            pass
        return stream.result

    def astream(
        self,
        image: ImageLike,
        query: Query | str,
        *,
        threshold: float | None = None,
        deadline: float | None = None,
    ) -> AsyncStream:
        """`stream` for asyncio; see `AsyncStream`."""
        return AsyncStream(lambda emit: self._begin(image, query, threshold, deadline, emit))

    def check(self, query: Query | str) -> Query:
        """Return the query as it would be asked, without asking it.

        Raises:
            BadQuery: the words cannot be a question to this backend.
            UnsupportedTask: the backend does not do the task.
        """
        question = self._question(query)
        look_at = getattr(self.backend, "check", None)
        try:
            if look_at is not None:
                look_at(question)
        except GroundlinkError:
            raise
        except Exception as error:
            raise GroundlinkError(
                f"the backend {self.info.name!r} failed to check the query ({type(error).__name__}: {error}); "
                "this is a fault in the backend, please report it"
            ) from error
        return question

    def close(self, *, seconds: float | None = None) -> None:
        """Free the backend, once the calls under way have ended; calls that wait raise `Cancelled`.

        With `seconds`, calls under way are withdrawn, and waited for no longer than that: a backend that is in the
        middle of a step is freed when it comes back. A locator that is dropped is closed too, without waiting.
        """
        self._finalizer()
        if seconds is not None:
            self._workers.stop()
        self._workers.join(seconds)

    def __enter__(self) -> Locator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:  # Ctrl-C among others: nobody waits for the answers under way
            self._workers.stop()

    def _begin(
        self,
        image: ImageLike,
        query: Query | str,
        threshold: float | None,
        deadline: float | None,
        emit: Callable[[_Event], None],
    ) -> _Call:
        started = time.perf_counter()
        question = self._question(query)
        _check_number("threshold", threshold, 1.0)
        _check_number("deadline", deadline, MAX_DEADLINE)
        context = Context(threshold, deadline, self.on_progress)
        opened = self.images.open(image)
        job = _Job(opened, question, context, emit)
        call = _Call(job, self.info, started)
        context.check()
        self._workers.put(job)
        return call

    def _question(self, query: Query | str) -> Query:
        tasks = self.info.tasks
        if isinstance(query, str):
            query = Query(tasks[0], (query,))
        if not isinstance(query, Query):
            raise BadQuery(f"a query is a string or made by groundlink.gui(…) and the like, not {query!r:.80}")
        if query.task not in tasks:
            raise UnsupportedTask(
                f"the backend {self.info.name!r} does not do {query.task!r}; it does {', '.join(tasks)}. "
                "`groundlink doctor` lists what other backends do"
            )
        return query


class _Workers:
    """The threads of one backend, started as they are needed. Holds no reference to the locator."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._answering: set[Context] = set()
        self._idle = 0
        self._running = 0
        self._closed = False
        _at_work.add(self)

    def put(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise Cancelled("the locator is closed; load another one")
            if len(self._jobs) >= MAX_WAITING:
                raise Busy(f"{MAX_WAITING} questions are waiting already; ask again later")
            self._jobs.append(job)
            if self._idle < len(self._jobs) and len(self._threads) < self._backend.info.concurrency:
                name = f"groundlink-{self._backend.info.name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                self._running += 1
                thread.start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            jobs, threads = list(self._jobs), list(self._threads)
            self._jobs.clear()
            self._changed.notify_all()
        for job in jobs:
            job.emit(Cancelled("the locator was closed before the question was answered"))
        if not threads:
            self._backend.close()

    def stop(self) -> None:
        """Close, and withdraw the questions that are being answered."""
        self.close()
        with self._changed:
            contexts = list(self._answering)
        for context in contexts:
            context.cancel()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the threads to end, at most so many `seconds`."""
        with self._changed:
            threads = list(self._threads)
        end = None if seconds is None else time.monotonic() + seconds
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._jobs and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if self._closed:
                    break
                job = self._jobs.popleft()
                self._answering.add(job.context)
            _answer(self._backend, job)
            with self._changed:
                self._answering.discard(job.context)
            del job  # or an idle worker would keep the last picture in memory
        with self._changed:
            self._running -= 1
            last = not self._running
        if last:
            self._backend.close()


_at_work: weakref.WeakSet[_Workers] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop every worker before the interpreter is taken apart.

    A daemon thread that comes back from native code after that is ended by force, and where C++ frames lie below it,
    the whole process aborts. A worker that does not come back in time is left alone: nothing may hold up the exit.
    """
    end = time.monotonic() + EXIT_SECONDS
    left = list(_at_work)
    for workers in left:
        workers.stop()
    for workers in left:
        workers.join(max(0.0, end - time.monotonic()))


def _answer(backend: Backend, job: _Job) -> None:
    """Run one job; whatever happens, exactly one last event goes out and the worker lives on."""
    try:
        job.context.check()
        steps = backend.run(job.image, job.query, job.context)
        try:
            while True:
                job.emit(next(steps))
                job.context.check()
        except StopIteration as end:
            outcome: Any = end.value
            job.emit(outcome if isinstance(outcome, Outcome) else Outcome())
        finally:
            steps.close()
    except BaseException as error:
        job.emit(error)


def _failed(backend: str, job: _Job, error: BaseException) -> GroundlinkError:
    """A failure that no backend should have: callers get our error, and the log the whole of it."""
    _log.error("the backend %r failed on %s", backend, job.image.name, exc_info=error)
    failure = GroundlinkError(
        f"the backend {backend!r} failed on {job.image.name} ({type(error).__name__}: {error}); "
        "this is a fault in the backend, please report it"
    )
    failure.__cause__ = error
    return failure


def _check_number(name: str, value: float | None, upper: float) -> None:
    if value is not None and not (isinstance(value, (int, float)) and 0 <= value <= upper):
        raise BadQuery(f"{name} is a number in 0…{upper:g}, or None; not {value!r}")
