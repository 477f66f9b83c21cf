"""Samples on their way into passes: opened and encoded by threads in the background, packed in the stream's order.

What comes out does not depend on the number of threads.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

from groundlink.errors import BadData
from groundlink.training.packing import Packer
from groundlink.training.samples import Sample
from groundlink.training.sequences import Encoded, TooLong

AHEAD = 8  # samples that each thread may be ahead
HOPELESS = 1000  # samples too long one after the other: nothing will ever be packed

Key = tuple[str, int]

_log = logging.getLogger(__name__)


class SampleStream(Protocol):
    """Endless samples in an order of their own, each to be had by its key any time; keys and states are JSON."""

    def next_key(self) -> Key:
        """Return the key of the next sample."""

    def sample(self, key: Key) -> Sample:
        """Return a sample, the same one for the same key; called by several threads at once."""

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class Feed:
    """Passes of packed rows. To be closed, which ends its threads.

    Args:
        stream: what samples are drawn from, by nobody else.
        encode: makes rows of a sample; called in threads.
        max_tokens: of a packed row.
        rows: packed rows of a pass.
        workers: threads; with 0, samples are encoded when a pass is asked for.
        share: which of several processes this is, and how many there are; each takes its part of the same stream.
    """

    def __init__(
        self,
        stream: SampleStream,
        encode: Callable[[Sample], Encoded],
        max_tokens: int,
        rows: int = 1,
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.skipped = 0  # samples that were too long
        self._stream, self._encode, self._rows, self._share = stream, encode, rows, share
        self._packer: Packer[Key] = Packer(max_tokens)
        self._pool = ThreadPoolExecutor(workers, "prepares-data") if workers else None
        self._ahead = max(1, AHEAD * workers)
        self._coming: deque[tuple[Key, int, Future[Encoded]]] = deque()  # with the rows each has waited for already

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> list[list[Encoded]]:
        """Return the packed rows of the next pass.

        Raises:
            BadData: hardly any sample is short enough.
            GroundlinkError: whatever is wrong with a sample, when its turn comes.
        """
        return [self._row() for _ in range(self._rows)]

    def state_dict(self) -> dict[str, Any]:
        """Return where the feed stands, as JSON: the stream, and what was drawn from it and not handed out."""
        drawn = [*self._packer.waiting, *((key, rows) for key, rows, _ in self._coming)]
        keys = [[*key, rows] for key, rows in drawn]
        return {"stream": self._stream.state_dict(), "keys": keys, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken; samples that waited then are encoded again.

        Raises:
            BadData: the state is of another stream.
        """
        self._stream.load_state_dict(state["stream"])
        self.skipped = state["skipped"]
        for name, index, rows in state["keys"]:
            self._send((name, index), rows)

    def _row(self) -> list[Encoded]:
        hopeless = 0
        while not self._packer.full:
            while len(self._coming) < self._ahead:
                rank, processes = self._share
                self._send([self._stream.next_key() for _ in range(processes)][rank])
            key, rows, future = self._coming[0]
            try:
                encoded = future.result()
            except TooLong as error:
                _log.warning("skipped: %s", error)
                self.skipped += 1
                hopeless += 1
                if hopeless == HOPELESS:
                    raise BadData(f"{HOPELESS} samples in a row are too long, the last: {error}") from error
            else:
                self._packer.add(encoded, key, rows)
                hopeless = 0
            self._coming.popleft()
        return self._packer.take()

    def _send(self, key: Key, rows: int = 0) -> None:
        """Have a sample prepared, by a thread if there are any."""
        future: Future[Encoded]
        if self._pool is not None:
            future = self._pool.submit(self._prepare, key)
        else:
            future = Future()
            try:
                future.set_result(self._prepare(key))
            except Exception as error:
                future.set_exception(error)
        self._coming.append((key, rows, future))

    def _prepare(self, key: Key) -> Encoded:
        return self._encode(self._stream.sample(key))
