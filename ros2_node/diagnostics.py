"""What the node tells on /diagnostics: counts, rates, the time of each stage, and what went wrong last."""

from __future__ import annotations

import resource
import statistics
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from ros2_node.messages import utf8

RECENT = 5.0
"""Seconds that an error stays in the status level."""
LOG_AGAIN = 30.0
"""Seconds after which the same error is logged again."""
MAX_KEYS = 64
"""Different errors that are logged in that time, at most."""
SILENT = 2.0
"""Seconds without a frame after which a camera is called silent."""
WINDOW = 100
"""Answers whose times are told."""


class Throttle:
    """Says whether something is to be logged: nothing of its kind was for a while. Not thread-safe by itself."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def allows(self, key: str) -> bool:
        """Return whether to log something of the kind `key` now."""
        now = time.monotonic()
        logged = self._logged.get(key)
        if logged is not None and now - logged < LOG_AGAIN:
            return False
        if len(self._logged) >= MAX_KEYS:
            self._logged = {kept: when for kept, when in self._logged.items() if now - when < LOG_AGAIN}
        if len(self._logged) >= MAX_KEYS:
            return False
        self._logged[key] = now
        return True


class Tally:
    """Counts what happens, from any thread.

    `frames_received` are the frames that came here; each of them is then in exactly one of `frames_answered`,
    `frames_failed`, `frames_superseded` (a newer one came first, or nobody wanted it any more), or is being looked at
    or waiting.
    `frames_lost` were published and did not come here. `frames_dropped` are the superseded and the lost.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.times: dict[str, deque[float]] = {}
        self.error = ""
        self.error_at = 0.0
        self.remark = ""
        self.remark_at = 0.0
        self.frame_at = 0.0
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._answers: deque[float] = deque(maxlen=WINDOW)
        self._throttle = Throttle()

    def received(self, *, wanted: bool) -> None:
        """Note a frame that came; count it where the stream is looked at, and not only a request waits for it."""
        with self.lock:
            self.frame_at = time.monotonic()
            self._arrivals.append(self.frame_at)
            self.counts["frames_received"] += wanted

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the counts."""
        with self.lock:
            self.counts[name] += number

    def answered(self, milliseconds: dict[str, float]) -> None:
        """Count an answer, with the time of each stage."""
        with self.lock:
            self.counts["frames_answered"] += 1
            self._answers.append(time.monotonic())
            for stage, value in milliseconds.items():
                self.times.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def remarked(self, name: str, remark: str) -> None:
        """Count an answer that was ambiguous or incomplete, and keep the words."""
        with self.lock:
            self.counts[name] += 1
            self.remark, self.remark_at = remark, time.monotonic()

    def failed(self, key: str, text: str) -> bool:
        """Keep an error; return whether it is to be logged: one of its kind (`key`) was not for a while."""
        with self.lock:
            self.counts["errors"] += 1
            self.error, self.error_at = text, time.monotonic()
            return self._throttle.allows(key)

    def rate(self, of: str) -> float:
        """Return the frames a second that came (`received`) or were answered (`answered`) lately."""
        with self.lock:
            moments = list(self._arrivals if of == "received" else self._answers)
        now = time.monotonic()
        recent = [moment for moment in moments if now - moment < SILENT]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else len(recent) / SILENT

    def values(self) -> dict[str, str]:
        """Return everything as text, in a fixed order."""
        told: dict[str, str] = {
            "frame_rate": f"{self.rate('received'):.1f}",
            "answer_rate": f"{self.rate('answered'):.1f}",
        }
        with self.lock:
            counts = self.counts
            names = (
                "frames_received",
                "frames_answered",
                "frames_failed",
                "frames_superseded",
                "frames_lost",
                "requests_answered",
                "requests_failed",
                "answers_ambiguous",
                "answers_incomplete",
                "errors",
            )
            told |= {name: str(counts[name]) for name in names}
            told["frames_dropped"] = str(counts["frames_superseded"] + counts["frames_lost"])
            for stage, values in self.times.items():
                told[f"{stage}_ms"] = f"{statistics.median(values):.2f}"
                told[f"{stage}_ms_max"] = f"{max(values):.2f}"
            now = time.monotonic()
            if self.remark:
                told["last_remark"] = f"{self.remark} ({now - self.remark_at:.0f} s ago)"
            if self.error:
                told["last_error"] = f"{self.error} ({now - self.error_at:.0f} s ago)"
        return told


def status(name: str, hardware: str, level: bytes, message: str, values: dict[str, str]) -> DiagnosticStatus:
    """Return the message that stands in a `DiagnosticArray`."""
    pairs = [KeyValue(key=key, value=utf8(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=utf8(message), hardware_id=hardware, values=pairs)


def memory() -> dict[str, str]:
    """Return the memory of this process, and of its models on a GPU, in MB."""
    told = {}
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        told["memory_mb"] = f"{pages * resource.getpagesize() / 1e6:.0f}"
    except (OSError, ValueError, IndexError):  # not Linux
        pass
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        told["gpu_memory_mb"] = f"{torch.cuda.memory_allocated() / 1e6:.0f}"
    return told
