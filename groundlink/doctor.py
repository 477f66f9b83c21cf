"""What is installed, what works, and what to do for the rest."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from groundlink.backend import Backend, MemoryReport, backend_class, backend_names
from groundlink.errors import ERROR_CODES, BackendUnavailable, GroundlinkError, OutOfMemory

ROOMS = "groundlink.doctor"
"""Entry points: functions without arguments that return a `RoomReport`, of the rooms above the core."""

_PACKAGES = (
    "numpy",
    "pillow",
    "rapidocr",
    "onnxruntime",
    "rapidfuzz",
    "torch",
    "tokenizers",
    "safetensors",
    "mss",
    "pyautogui",
    "xcffib",
)
_TRIAL_TEXT = "Sign in"


@dataclass(frozen=True)
class BackendReport:
    """One backend: `problem` is None where it can be loaded, else why not and what to do."""

    name: str
    problem: str | None
    tasks: tuple[str, ...] = ()
    license: str = ""
    description: str = ""


@dataclass(frozen=True)
class RoomReport:
    """What a room needs beyond its packages, such as a screen.

    `problem` is None where it can be used, else why not and what to do; `about` says what is there, `advice` what is
    missing that it can do without.
    """

    name: str
    problem: str | None
    about: str = ""
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `groundlink doctor` found out.

    `extras` gives for each extra the packages that it lacks, `trial` how the default backend did on a test picture,
    `memory` what will fit of a model that was asked about, `rooms` whether the screen and the like can be used here.
    """

    python: str
    platform: str
    device: str
    packages: dict[str, str]
    backends: tuple[BackendReport, ...]
    extras: dict[str, list[str]]
    trial: str
    trial_works: bool
    exit_code: int
    memory: MemoryReport | None = None
    rooms: tuple[RoomReport, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists and strings."""
        return asdict(self)


def examine(
    on_progress: Callable[[str, float], None] | None = None,
    backend: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Report:
    """Look at this installation, and let the default backend read a picture.

    With a backend or its settings, tell as well what its model takes of the device's memory; see `memory_report`.

    Raises:
        GroundlinkError: the model's files, the device or the settings are not there or unfit.
    """
    memory = None if backend is None and not settings else memory_report(backend, settings or {})
    if on_progress is not None:
        on_progress("looking at what is installed", 0.0)
    packages = {name: found for name in _PACKAGES if (found := _version(name)) is not None}
    backends = tuple(_backend(name) for name in backend_names())
    if on_progress is not None:
        on_progress("letting the default backend read a picture", 0.5)
    trial, exit_code = _try()
    trial_works = exit_code == 0
    if trial_works and memory is not None and memory.pictures[0].fits is False:
        exit_code = ERROR_CODES[OutOfMemory].exit_code
    return Report(
        python=platform.python_version(),
        platform=platform.platform(),
        device=_device(),
        packages=packages,
        backends=backends,
        extras=_extras(),
        trial=trial,
        trial_works=trial_works,
        exit_code=exit_code,
        memory=memory,
        rooms=tuple(_room(point) for point in sorted(entry_points(group=ROOMS), key=lambda point: point.name)),
    )


def memory_report(backend: str | None, settings: dict[str, Any]) -> MemoryReport:
    """Ask a backend, or the first one that can tell, what its model takes of the device's memory.

    Raises:
        BackendUnavailable: none can tell, the one named cannot run here, or it does not know a setting.
        GroundlinkError: whatever else the backend finds wrong.
    """
    name, chosen = _one_that_tells() if backend is None else (backend, backend_class(backend))
    tells = getattr(chosen, "memory_report", None)
    if tells is None:
        raise BackendUnavailable(
            f"the backend {name!r} does not say what memory it takes; leave --backend, --model and --set out"
        )
    problem = chosen.problem()
    if problem is not None:
        raise BackendUnavailable(f"the backend {name!r} cannot run here: {problem}")
    try:
        told: MemoryReport = tells(**settings)
    except TypeError as error:
        raise BackendUnavailable(f"the backend {name!r} does not take these settings: {error}") from error
    return told


def _one_that_tells() -> tuple[str, type[Backend]]:
    for name in backend_names():
        try:
            chosen = backend_class(name)
        except BackendUnavailable:
            continue
        if hasattr(chosen, "memory_report"):
            return name, chosen
    raise BackendUnavailable("no backend that is installed says what memory it takes; leave --model and --set out")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _backend(name: str) -> BackendReport:
    try:
        chosen = backend_class(name)
    except GroundlinkError as error:
        return BackendReport(name, str(error))
    info = chosen.info
    return BackendReport(name, chosen.problem(), info.tasks, info.license, info.description)


def _room(point: EntryPoint) -> RoomReport:
    try:
        report: RoomReport = point.load()()
    except Exception as error:  # a room of somebody else's must not keep the rest from being told
        return RoomReport(point.name, f"cannot be looked at ({type(error).__name__}: {error})")
    return report


def _device() -> str:
    if _version("torch") is None:
        return "CPU (torch is not installed, so no GPU is used)"
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return "CPU (torch sees no CUDA device)"


def _extras() -> dict[str, list[str]]:
    """Return the packages that each extra asks for and that are not installed."""
    extras: dict[str, list[str]] = {}
    for requirement in requires("groundlink") or []:
        match = re.match(r"([\w.-]+)(?:\[[^]]*\])?[^;]*;\s*extra == ['\"]([\w-]+)['\"]", requirement)
        if match is None or match[2] in {"dev", "all"}:
            continue
        missing = extras.setdefault(match[2], [])
        if _version(match[1]) is None:
            missing.append(match[1])
    return extras


def _try() -> tuple[str, int]:
    """Load the default backend and let it find a word; return the outcome in words, and an exit code."""
    import groundlink

    picture = Image.new("RGB", (320, 120), "white")
    ImageDraw.Draw(picture).text((60, 40), _TRIAL_TEXT, fill="black", font=ImageFont.load_default(28))
    started = time.perf_counter()
    try:
        with groundlink.load() as locator:
            answer = locator.locate(picture, _TRIAL_TEXT)
    except GroundlinkError as error:
        return f"the default backend does not work: {error}", error.code.exit_code
    seconds = time.perf_counter() - started
    if answer.best is None:
        return f"the default backend {answer.backend!r} did not find its test word ({answer.reason})", 1
    return f"the default backend {answer.backend!r} works: it found its test word in {seconds:.1f} s", 0
