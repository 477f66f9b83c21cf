"""What a training says of itself: one line of JSON and TensorBoard events every few steps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from groundlink.errors import BadOutput

LINES = "log.jsonl"
EVENTS = "logs"


class Log:
    """Writes `OUT/log.jsonl` and `OUT/logs`, going on behind `step`: what was said of later steps is dropped.

    Raises:
        BadOutput: a file cannot be written.
    """

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = out / LINES
        try:
            kept = [line for line in self._lines() if line["step"] <= step]
            partial = self._path.with_name(f".partial-{LINES}")
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            partial.replace(self._path)
            self._file = self._path.open("a", encoding="utf-8")
            self._events = SummaryWriter(str(out / EVENTS), purge_step=step + 1)
        except OSError as error:
            raise BadOutput(f"{self._path}: the log cannot be written ({error.strerror})") from error

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            self._events.close()
        except OSError:
            if error is None:
                raise

    def write(self, record: dict[str, Any]) -> None:
        """Write the figures of a step.

        Raises:
            BadOutput: the disk is full, or the file cannot be written any more.
        """
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            for name, value in record.items():
                if name != "step" and value is not None:
                    self._events.add_scalar(name, value, record["step"])
        except OSError as error:
            raise BadOutput(
                f"{self._path}: the log cannot be written ({error.strerror}); make room on the disk"
            ) from error

    def _lines(self) -> list[dict[str, Any]]:
        """Return the lines that are there; the last may be half a line, where writing was broken off."""
        lines = []
        if self._path.exists():
            for text in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    lines.append(line)
        return lines
