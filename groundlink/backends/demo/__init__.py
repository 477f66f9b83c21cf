"""The demo: a small LocateAnything of our own whose weights come with the package.

It was trained from scratch on generated scenes (`groundlink/training/demo`), so it knows their shapes, colours, icons,
controls and words, on small pictures, and nothing else; MODEL_CARD.md beside the weights says how well. It is there to
try things with, and to test with a model that is real.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from groundlink.backend import BackendInfo, MemoryReport
from groundlink.backends.locateanything.backend import LocateAnythingBackend

WEIGHTS = Path(__file__).parent / "weights"


class DemoBackend(LocateAnythingBackend):
    """The small model of our own. Takes the settings of `LocateAnythingBackend`, all but `revision`.

    Pictures of more than 400 patches of 14×14 (about 280×280 pixels) are made smaller first.
    """

    info: ClassVar[BackendInfo] = BackendInfo(
        name="demo",
        tasks=("ground", "ground_one", "detect", "point", "text", "read", "gui", "layout"),
        points=True,
        scores=True,
        streams=True,
        license="Apache-2.0",
        description="a small LocateAnything trained on generated scenes: shapes, icons, controls, 36 words",
    )

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = WEIGHTS,
        on_progress: Callable[[str, float], None] = lambda doing, fraction: None,
        **settings: Any,
    ) -> None:
        super().__init__(model=model, on_progress=on_progress, **_DEFAULTS | settings)

    @classmethod
    def memory_report(cls, *, model: str | os.PathLike[str] = WEIGHTS, **settings: Any) -> MemoryReport:
        """Say what will fit, as `LocateAnythingBackend.memory_report` does."""
        return super().memory_report(model=model, **_DEFAULTS | settings)


_DEFAULTS: dict[str, Any] = {
    "repetition_penalty": 1.0,  # it was trained to say each box once, and repeats labels where they are due
    "max_new_tokens": 512,
}
