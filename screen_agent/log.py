"""What the agent did: a file of JSON lines with pictures beside it, bounded, for its owner's eyes."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from groundlink.errors import BadOutput, BadQuery
from groundlink.files import unwritable

try:
    import fcntl
except ImportError:  # Windows: one process at a time
    fcntl = None  # type: ignore[assignment]

LINES = "actions.jsonl"
_LOCK = ".lock"
_PARTIAL = f".partial-{LINES}"
_PICTURE = re.compile(r"(\d{6,})-[a-z0-9_-]+\.jpg")
_OURS = frozenset({"number", "time", "pictures", "left_out"})
_QUALITY = 80
_KEPT = 0.9
"""Share of a limit that is kept when it is passed, so that the file is not written anew with every entry."""
_LOCK_SECONDS = 10.0


class ActionLog:
    """The log in one folder, which several threads and (not on Windows) processes may share.

    Each entry is one line of `actions.jsonl`: `{"number": 123, "time": "2026-03-04T05:06:07.890+01:00", …,
    "pictures": {"before": "000123-before.jpg"}}`. When there are more than `max_entries`, or lines and pictures take
    more than `max_bytes`, the oldest go, about a tenth at a time. Files are readable by their owner only.

    A process that is killed leaves whole lines: what it had begun is dropped by the next one. After a loss of power the
    last lines may be missing.

    Raises:
        BadOutput: the folder cannot be made or written to, or another process holds it.
        BadQuery: a limit that is no whole number from 1.
    """

    def __init__(self, folder: Path, *, max_entries: int = 1000, max_bytes: int = 200 * 2**20) -> None:
        for name, limit in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
                raise BadQuery(f"the action log's {name} is a whole number from 1, not {limit!r:.80}")
        self.folder = Path(folder)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._thread = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        """The state of the file when we last read or wrote it; in another one, another process has written."""
        self._count = self._bytes = 0
        self._next = 1
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                self._load()
                self._trim()
                self._sweep()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def add(self, entry: Mapping[str, Any], pictures: Mapping[str, Image.Image] | None = None) -> None:
        """Write an entry of plain JSON values, and its pictures by name ("before", "after") as JPEG.

        Pictures that are larger than the whole log may be are left out; `left_out` in the entry names them.

        Raises:
            BadOutput: the disk is full, or writing is not allowed any more; the log is as it was before.
            TypeError: the entry holds something that JSON has not, or a name that the log itself gives; a mistake of
                the calling code, as is a picture's name of other than small letters, digits, "-" and "_".
        """
        if taken := _OURS & entry.keys():
            raise TypeError(f"the log itself gives {sorted(taken)[0]!r}; an entry may not")
        try:
            json.dumps(entry := dict(entry), allow_nan=False)
        except ValueError as error:
            raise TypeError(f"an entry of the log holds what JSON has not: {error}") from error
        _check_keys(entry)
        pictures = pictures or {}
        if wrong := [name for name in pictures if not _PICTURE.fullmatch(f"000000-{name}.jpg")]:
            raise TypeError(f"a picture's name is of small letters, digits, - and _, not {wrong[0]!r}")
        try:
            encoded = {name: _jpeg(picture) for name, picture in pictures.items()}
            with self._locked():
                self._load()
                self._write(entry, encoded)
                self._trim()
        except (OSError, ValueError) as error:
            raise unwritable(self.folder, error) from error

    def read(self) -> list[dict[str, Any]]:
        """Return all entries, the oldest first; lines that are damaged are passed over.

        Raises:
            BadOutput: the file cannot be read.
        """
        try:
            return [entry for _, entry in _parse((self.folder / LINES).read_bytes())]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BadOutput(f"{self.folder / LINES}: cannot be read ({error.strerror})") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread:
            lock = _open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT)
            try:
                if fcntl is not None:
                    self._wait_for(lock)
                yield
            finally:
                os.close(lock)  # which lets go of the lock

    def _wait_for(self, lock: int) -> None:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BadOutput(
                        f"{self.folder}: another process holds the log for more than {_LOCK_SECONDS:g} s; "
                        "end it, or give each its own folder"
                    ) from None
                time.sleep(0.002)

    def _load(self) -> None:
        """Learn what the file holds, unless nobody has written since we did; drop a line that was left unfinished."""
        file = _open(self.folder / LINES, os.O_RDWR | os.O_CREAT)
        try:
            status = os.fstat(file)
            if self._seen == _state(status):
                return
            data = _read_all(file)
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.ftruncate(file, whole)
            entries = _parse(data[:whole])
            self._count = data.count(b"\n")
            self._bytes = whole + sum(self._size(entry) for _, entry in entries)
            self._next = max([entry["number"] for _, entry in entries] + [self._next - 1]) + 1
            self._seen = _state(os.fstat(file))
        finally:
            os.close(file)

    def _write(self, entry: dict[str, Any], encoded: dict[str, bytes]) -> None:
        number = self._next
        names = {name: f"{number:06d}-{name}.jpg" for name in encoded}
        line = _line(number, entry, names, [])
        if len(line) + sum(map(len, encoded.values())) > self._max_bytes:
            names, line = {}, _line(number, entry, {}, list(encoded))
            if len(line) > self._max_bytes:
                raise BadOutput(
                    f"{self.folder}: an entry of {len(line)} bytes does not fit into max_bytes={self._max_bytes}"
                )
        file = _open(self.folder / LINES, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        before = os.fstat(file).st_size
        try:
            # The pictures first: a line never names one that is not there.
            for name, path in names.items():
                _write_file(self.folder / path, encoded[name])
            _write_all(file, line)
            self._seen = _state(os.fstat(file))
        except BaseException:
            os.ftruncate(file, before)
            for path in names.values():
                (self.folder / path).unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        self._next = number + 1
        self._count += 1
        self._bytes += len(line) + sum(len(encoded[name]) for name in names)

    def _trim(self) -> None:
        """Where there is more than the limits allow, write the file anew without the oldest entries."""
        if self._count <= self._max_entries and self._bytes <= self._max_bytes:
            return
        kept: list[bytes] = []
        total = 0
        dropped: list[dict[str, Any]] = []
        for line, entry in reversed(_parse((self.folder / LINES).read_bytes())):
            total += len(line) + self._size(entry)
            fits = len(kept) < max(1, int(self._max_entries * _KEPT)) and total <= self._max_bytes * _KEPT
            if not dropped and (fits or not kept):
                kept.insert(0, line)
            else:
                dropped.append(entry)
        partial = self.folder / _PARTIAL
        try:
            _write_file(partial, b"".join(kept))
            partial.replace(self.folder / LINES)
        finally:
            partial.unlink(missing_ok=True)
        for entry in dropped:
            for path in _paths(entry):
                (self.folder / path).unlink(missing_ok=True)
        self._seen = None
        self._load()

    def _sweep(self) -> None:
        """Remove what a process that was killed left: pictures that no line names, and a partial file."""
        if fcntl is None:  # they may be those of another process that writes just now
            return
        named = {path for entry in self.read() for path in _paths(entry)}
        for path in self.folder.iterdir():
            if path.name == _PARTIAL or (_PICTURE.fullmatch(path.name) and path.name not in named):
                path.unlink(missing_ok=True)

    def _size(self, entry: dict[str, Any]) -> int:
        total = 0
        for path in _paths(entry):
            try:
                total += (self.folder / path).stat().st_size
            except FileNotFoundError:  # its owner has removed it
                continue
        return total


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _line(number: int, entry: dict[str, Any], names: dict[str, str], left_out: list[str]) -> bytes:
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    whole = {"number": number, "time": now, **entry, "pictures": names}
    if left_out:
        whole["left_out"] = left_out
    # Half a character, as file names can have, becomes its escape, which JSON reads back.
    return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def _parse(data: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the whole lines that are entries, with what they say."""
    entries = []
    for line in data.split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("number"), int):
            entries.append((line + b"\n", entry))
    return entries


def _paths(entry: dict[str, Any]) -> list[str]:
    """Return the names of an entry's picture files; a line that someone changed cannot make us touch others."""
    pictures = entry.get("pictures")
    values = pictures.values() if isinstance(pictures, dict) else ()
    return [path for path in values if isinstance(path, str) and _PICTURE.fullmatch(path)]


def _check_keys(value: Any) -> None:
    """Refuse names that are no strings, which `json` would change into strings."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise TypeError(f"an entry of the log has the name {name!r}, which is no string")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    (picture if picture.mode in ("RGB", "L") else picture.convert("RGB")).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _open(path: Path, flags: int) -> int:
    """Open a file that only its owner may read, never one that a link points to."""
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o600)
    if hasattr(os, "fchmod"):
        os.fchmod(file, 0o600)
    return file


def _write_file(path: Path, data: bytes) -> None:
    file = _open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        _write_all(file, data)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _read_all(file: int) -> bytes:
    parts = []
    while part := os.read(file, 2**20):
        parts.append(part)
    return b"".join(parts)
