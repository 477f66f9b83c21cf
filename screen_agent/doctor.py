"""Whether the screen can be used here, for `groundlink doctor`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

from groundlink.doctor import RoomReport
from groundlink.errors import GroundlinkError, NoDisplay

_ON_X11 = sys.platform.startswith("linux")


def examine() -> RoomReport:
    """Look whether pictures of the screen can be taken and the pointer be reached; nothing is moved or changed."""
    needed = ("mss", "pyautogui", "xcffib") if _ON_X11 else ("mss", "pyautogui")
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if lacking:
        return RoomReport("screen", f"pip install 'groundlink[screen]'  (lacks {', '.join(lacking)})")
    advice = []
    if _ON_X11 and shutil.which("xclip") is None:
        advice.append("xclip is missing, which saves the clipboard while text is pasted: apt install xclip")
    try:
        about = _look()
    except GroundlinkError as error:
        return RoomReport("screen", str(error), advice=tuple(advice))
    return RoomReport("screen", None, about, tuple(advice))


def _look() -> str:
    """Return the screen in words; raise what keeps it from being used."""
    from screen_agent.capture import Screen
    from screen_agent.pointer import Pointer
    from screen_agent.windows import Windows
    from screen_agent.x11 import WAYLAND

    boxes = Screen().monitors()
    if _ON_X11 and Windows().is_xwayland():
        raise NoDisplay(WAYLAND)
    Pointer().position()
    count = "1 monitor" if len(boxes) == 1 else f"{len(boxes)} monitors"
    sizes = ", ".join(f"{x2 - x1}×{y2 - y1}" for x1, y1, x2, y2 in boxes)
    return f"{count}, {sizes}" + (f", display {os.environ.get('DISPLAY', '')}" if _ON_X11 else "")
