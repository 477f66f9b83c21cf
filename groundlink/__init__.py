"""Where in this image is what I describe?

```python
import groundlink

locator = groundlink.load()
answer = locator.locate("shot.png", groundlink.gui("the Sign in button"))
print(answer.best)
```

Importing this package needs numpy and Pillow only; a backend is imported when it is loaded.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from groundlink._version import __version__
from groundlink.errors import (
    ERROR_CODES,
    ActionDenied,
    ActionHadNoEffect,
    BackendUnavailable,
    BadData,
    BadImage,
    BadOutput,
    BadQuery,
    Busy,
    Cancelled,
    DeadlineExceeded,
    GroundlinkError,
    NoDisplay,
    OutOfMemory,
    TargetAmbiguous,
    TargetNotFound,
    UnsupportedTask,
    WeightsInvalid,
    WeightsNotFound,
)
from groundlink.query import (
    TASKS,
    Query,
    Task,
    detect,
    example,
    ground,
    ground_one,
    gui,
    layout,
    point,
    read,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from groundlink.backend import Backend, BackendInfo, Context, Outcome, backend_names
    from groundlink.detections import Detection, Detections, Found, from_coco, to_coco
    from groundlink.image import ImageLike, OpenedImage
    from groundlink.locator import AsyncStream, Locator, Stream
    from groundlink.render import draw

__all__ = [
    "ERROR_CODES",
    "TASKS",
    "ActionDenied",
    "ActionHadNoEffect",
    "AsyncStream",
    "Backend",
    "BackendInfo",
    "BackendUnavailable",
    "BadData",
    "BadImage",
    "BadOutput",
    "BadQuery",
    "Busy",
    "Cancelled",
    "Context",
    "DeadlineExceeded",
    "Detection",
    "Detections",
    "Found",
    "GroundlinkError",
    "ImageLike",
    "Locator",
    "NoDisplay",
    "OpenedImage",
    "OutOfMemory",
    "Outcome",
    "Query",
    "Stream",
    "TargetAmbiguous",
    "TargetNotFound",
    "Task",
    "UnsupportedTask",
    "WeightsInvalid",
    "WeightsNotFound",
    "__version__",
    "backend_names",
    "detect",
    "draw",
    "example",
    "from_coco",
    "ground",
    "ground_one",
    "gui",
    "layout",
    "load",
    "point",
    "read",
    "text",
    "to_coco",
]

_AT_FIRST_USE = {
    "Backend": "groundlink.backend",
    "BackendInfo": "groundlink.backend",
    "Context": "groundlink.backend",
    "Outcome": "groundlink.backend",
    "backend_names": "groundlink.backend",
    "Detection": "groundlink.detections",
    "Detections": "groundlink.detections",
    "Found": "groundlink.detections",
    "from_coco": "groundlink.detections",
    "to_coco": "groundlink.detections",
    "ImageLike": "groundlink.image",
    "OpenedImage": "groundlink.image",
    "AsyncStream": "groundlink.locator",
    "Locator": "groundlink.locator",
    "Stream": "groundlink.locator",
    "draw": "groundlink.render",
}
"""Names that need numpy, Pillow or asyncio, and where they are: the command line prints its help without these."""

EMBEDDED_DEFAULT = "ocr"
"""The backend that every installation has."""

_log = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module 'groundlink' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_AT_FIRST_USE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load(
    backend: str | None = None,
    *,
    max_pixels: int | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Any,
) -> Locator:
    """Load a backend by name and return its locator.

    Args:
        backend: one of `backend_names()`; None takes the name in the environment variable `GROUNDLINK_BACKEND`,
            else LocateAnything where a CUDA device and its weights are at hand, else the embedded default.
        max_pixels: images with more pixels are refused; 64 million if not given.
        on_progress: told what is being done and how much of it is done, in 0…1: while a backend that takes time loads,
            and while questions are answered. It is called from the thread that works.
        settings: the backend's own settings, described with its class.

    Raises:
        BackendUnavailable: there is no such backend, it cannot run here, or it does not know a setting.
        WeightsNotFound, WeightsInvalid: the model's files are missing or unfit.
    """
    import inspect

    from groundlink.backend import backend_class
    from groundlink.image import MAX_PIXELS
    from groundlink.locator import Locator

    if backend is not None:
        why = "asked for"
    elif backend := os.environ.get("GROUNDLINK_BACKEND"):
        why = "named by GROUNDLINK_BACKEND"
    else:
        backend, why = _choose(settings)
    chosen = backend_class(backend)
    problem = chosen.problem()
    if problem is not None:
        raise BackendUnavailable(f"the backend {backend!r} cannot run here: {problem}")
    if on_progress is not None and "on_progress" in inspect.signature(chosen).parameters:
        settings["on_progress"] = on_progress
    try:
        made = chosen(**settings)
    except TypeError as error:
        raise BackendUnavailable(f"the backend {backend!r} does not take these settings: {error}") from error
    _log.info("backend %s (%s); weights: %s", backend, why, chosen.info.license)
    return Locator(made, max_pixels=MAX_PIXELS if max_pixels is None else max_pixels, on_progress=on_progress)


def _choose(settings: dict[str, Any]) -> tuple[str, str]:
    """Return the backend for a caller who names none, and why."""
    from groundlink.backends.locateanything.backend import LocateAnythingBackend

    if LocateAnythingBackend.at_hand(settings.get("model"), settings.get("revision")):
        return LocateAnythingBackend.info.name, "a CUDA device and its weights are at hand"
    return EMBEDDED_DEFAULT, "the embedded default"
