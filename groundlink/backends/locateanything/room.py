"""How much memory a device has, how much of it is free, and how running out of it looks."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch

BIG = 4 * 2**20  # bytes from which a block of the CPU's memory is given back when it is freed
_UNLIMITED = 2**60  # a limit of a control group from here on is none
_WORDS_OF_MEMORY = (
    "allocate memory",
    "bad_alloc",
    "Cannot allocate",
    "out of memory",
    "could not create a memory",
    "ALLOC_FAILED",
)


@dataclass(frozen=True)
class Room:
    """Bytes of memory that there are, and that are free now."""

    total: int
    free: int


def room_of(device: torch.device) -> Room | None:
    """Return what a device has, None where the system does not say."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # What the allocator holds without need is free to us.
        return Room(total, free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    rooms = [room for room in (_machine(Path("/proc")), _address_space(Path("/proc"))) if room is not None]
    if not rooms:
        return None
    rooms += _control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return Room(min(room.total for room in rooms), max(0, min(room.free for room in rooms)))


def _machine(proc: Path) -> Room | None:
    """Return the machine's memory, with what the system would give up for it, and space to swap."""
    values = _numbers(proc / "meminfo")
    if "MemTotal" not in values or "MemAvailable" not in values:
        return None
    return Room(values["MemTotal"] * 1024, (values["MemAvailable"] + values.get("SwapFree", 0)) * 1024)


def _address_space(proc: Path) -> Room | None:
    """Return what `ulimit -v` leaves to this process; None where it has no limit."""
    used = _numbers(proc / "self" / "status").get("VmSize")
    if used is None:
        return None
    import resource  # which not every system has

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return Room(limit, limit - used * 1024)


def _control_groups(membership: Path, mount: Path) -> list[Room]:
    """Return what the control groups of this process leave to it, as in a container; versions 1 and 2."""
    rooms = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            top, files = mount, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, files = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Each group above limits too. From inside of a container, its own stands at the top.
        inner = Path(path.lstrip("/"))
        for group in (top / part for part in (inner, *inner.parents)):
            limit, used = _number(group / files[0]), _number(group / files[1])
            if limit is None or used is None or limit >= _UNLIMITED:
                continue
            idle = _numbers(group / "memory.stat").get(files[2], 0)  # of files, which the system gives up
            rooms.append(Room(limit, limit - used + idle))
    return rooms


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _numbers(path: Path) -> dict[str, int]:
    """Read lines such as `MemTotal: 16384 kB` and `inactive_file 4096`."""
    try:
        fields = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {field[0].rstrip(":"): int(field[1]) for field in fields if len(field) > 1 and field[1].isdigit()}


def keep_no_freed_memory() -> None:
    """Let large blocks of the CPU's memory go back to the system as soon as they are freed.

    The C library of Linux would come to keep blocks of up to 32 MiB for later, and as they are of all sizes, a picture
    could take twice the memory that its numbers do. It is a setting of the whole process. Elsewhere it does nothing.
    """
    threshold, trim = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD
    _c_library("mallopt", threshold, BIG)
    _c_library("mallopt", trim, 16 * BIG)


def give_back_freed_memory() -> None:
    """Give memory of the CPU that was freed, and that the C library of Linux keeps for later, back to the system."""
    _c_library("malloc_trim", 0)


def _c_library(function: str, *arguments: int) -> None:
    try:
        call = getattr(ctypes.CDLL(None), function)
    except (AttributeError, OSError, TypeError):  # another system
        return
    call(*arguments)


def is_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory has run out, on whatever device and in whatever library."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS_OF_MEMORY)


def in_words(size: float) -> str:
    """Return bytes for people: `1.9 GB`, `350 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(0, size) / 1e6:.0f} MB"
