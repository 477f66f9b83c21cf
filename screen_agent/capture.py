"""Pictures of the screen."""

from __future__ import annotations

import os
import sys

from PIL import Image

from groundlink.errors import BackendUnavailable, NoDisplay


def screenshot() -> Image.Image:
    """Return the whole screen, all monitors, as a PIL image of mode RGB in physical pixels.

    Raises:
        BackendUnavailable: the package mss is not installed.
        NoDisplay: there is no screen, or the system does not let it be read; the message says what to do.
    """
    try:
        import mss
    except ImportError as error:
        raise BackendUnavailable(
            "taking a picture of the screen needs mss: pip install 'groundlink[screen]'"
        ) from error
    linux = sys.platform.startswith("linux")
    if linux and not os.environ.get("DISPLAY"):
        if os.environ.get("WAYLAND_DISPLAY"):
            raise NoDisplay(
                "this is a Wayland session, whose screen other programs may not read; log in to an X11 (Xorg) session, "
                "or take a screenshot with the desktop's own tool and give its file"
            )
        raise NoDisplay("there is no screen here (DISPLAY is not set); on a server start one with xvfb-run")
    try:
        with mss.MSS() as grabber:
            shot = grabber.grab(grabber.monitors[0])
    except (mss.ScreenShotError, OSError) as error:
        remedy = (
            "allow this program under System Settings → Privacy & Security → Screen Recording"
            if sys.platform == "darwin"
            else f"check that the X server of DISPLAY={os.environ.get('DISPLAY', '')} runs and lets you in (xauth)"
            if linux
            else "unlock the desktop and try again"
        )
        raise NoDisplay(f"the screen cannot be read ({error}); {remedy}") from error
    return Image.frombytes("RGB", shot.size, shot.bgra, "raw", "BGRX")
