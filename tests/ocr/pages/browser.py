"""Pages as Chromium lays them out: the picture, and from the same layout what is on it and where.

One browser serves all pages. It is spoken to in its DevTools protocol over a pair of pipes, which needs no package.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)
# The protocol stands on the descriptors 3 and 4 of the browser; a little Python between puts the pipes there, since a
# `preexec_fn` is not safe beside the threads of an OCR engine.
_START = (
    "import os, sys\nos.dup2(int(sys.argv[1]), 3)\nos.dup2(int(sys.argv[2]), 4)\nos.execv(sys.argv[3], sys.argv[3:])\n"
)

# What is seen of an element is probed on its text (and the box of its control): "whole" where every point belongs to
# it, "hidden" where none does, "cut" between. What lets clicks through, such as a dimming veil, covers nothing.
_MEASURE = r"""(() => {
  const ratio = devicePixelRatio;
  const box = r => [r.left * ratio, r.top * ratio, r.right * ratio, r.bottom * ratio];
  const union = rs => rs.length ? box({left: Math.min(...rs.map(r => r.left)), top: Math.min(...rs.map(r => r.top)),
    right: Math.max(...rs.map(r => r.right)), bottom: Math.max(...rs.map(r => r.bottom))}) : null;
  const written = element => {
    const rects = [], walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      if (!walk.currentNode.data.trim() || walk.currentNode.parentElement.closest('option')) continue;
      const range = document.createRange();
      range.selectNodeContents(walk.currentNode);
      rects.push(...[...range.getClientRects()].filter(r => r.width > 1 && r.height > 1));
    }
    return rects;
  };
  const seen = (element, rects) => {
    let mine = 0, all = 0;
    for (const r of rects) for (let i = 0; i < 7; i++) for (let j = 0; j < 3; j++) {
      const hit = document.elementFromPoint(r.left + 1 + (r.width - 2) * i / 6, r.top + r.height * (j + 1) / 4);
      all += 1;
      mine += hit !== null && (element === hit || element.contains(hit)) ? 1 : 0;
    }
    for (let at = element; at; at = at.parentElement)
      if (at.matches('input') && at.placeholder) {
        const style = getComputedStyle(at), pen = document.createElement('canvas').getContext('2d');
        pen.font = style.font;
        const room = at.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
        if (pen.measureText(at.placeholder).width > room) mine = Math.min(mine, 1);
      } else if (getComputedStyle(at).textOverflow === 'ellipsis' && at.scrollWidth > at.clientWidth)
        mine = Math.min(mine, 1);
    return all && mine === all ? 'whole' : mine ? 'cut' : 'hidden';
  };
  const rows = rects => {
    const ends = [];
    for (const r of [...rects].sort((a, b) => a.top - b.top))
      if (!ends.length || (r.top + r.bottom) / 2 > ends[ends.length - 1]) ends.push(r.bottom);
    return ends.length;
  };
  const places = [...document.querySelectorAll('[data-place]')];
  const items = [...document.querySelectorAll('[data-item]')].map(element => {
    const control = element.matches('input,textarea,select') ? element : element.querySelector('input,textarea,select');
    const text = written(element);
    const probes = control ? [...text, control.getBoundingClientRect()] : text;
    return {
      ...JSON.parse(element.dataset.item),
      shown: (element.innerText || '').trim().replace(/\s+/g, ' ')
        || (control && (control.value || control.placeholder)) || '',
      box: box(element.getBoundingClientRect()), text_box: union(text),
      control_box: control ? box(control.getBoundingClientRect()) : null,
      state: seen(element, probes), lines: rows(text),
      font_px: Math.round(parseFloat(getComputedStyle(element).fontSize) * 10) / 10,
      places: places.flatMap((place, number) => place.contains(element) ? [number] : []),
    };
  });
  const texts = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const parent = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || parent.closest('[data-item],style,script,option')) continue;
    texts.push({text: walk.currentNode.data.trim().replace(/\s+/g, ' '), state: seen(parent, written(parent))});
  }
  return {
    items, texts, size: [Math.round(innerWidth * ratio), Math.round(innerHeight * ratio)],
    places: places.map(place => ({...JSON.parse(place.dataset.place), box: box(place.getBoundingClientRect())})),
  };
})()"""


def find_chromium() -> str | None:
    """Return the path of a Chromium or Chrome that is installed."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


class Browser:
    """A headless Chromium; a context manager.

    Raises:
        FileNotFoundError: none is installed.
        RuntimeError: it ended, or refused a command.
        TimeoutError: it did not answer.
    """

    def __init__(self, *, patience_s: float = 60.0) -> None:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError(f"none of {', '.join(_NAMES)} is installed: apt install chromium")
        self._patience_s = patience_s
        self._profile = tempfile.TemporaryDirectory(prefix="pages-", ignore_cleanup_errors=True)
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        # Out of the way of 3 and 4, so that one is not put where the other still is.
        moved = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        os.close(theirs_in)
        os.close(theirs_out)
        command = [program, *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, moved), *command],
            pass_fds=moved,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in moved:
            os.close(end)
        self._buffer = b""
        self._asked = 0
        self._session: str | None = None
        try:
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self._frame = self._ask("Page.getFrameTree")["frameTree"]["frame"]["id"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, html: str, size: tuple[int, int], scale: float = 1.0) -> tuple[bytes, dict[str, Any]]:
        """Lay out a page and return its picture (PNG) and what is on it, both in pixels of the picture.

        Args:
            html: the page; elements with `data-item` and `data-place` (JSON objects) are measured.
            size: width and height of the window in CSS pixels.
            scale: pixels for each CSS pixel.
        """
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=scale, mobile=False
        )
        self._ask("Page.setDocumentContent", frameId=self._frame, html=html)
        answer = self._ask("Runtime.evaluate", expression=_MEASURE, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"the page could not be measured: {answer['exceptionDetails']}")
        picture = base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])
        return picture, answer["result"]["value"]

    def close(self) -> None:
        """End the browser and remove its profile."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):
                self._session = None
                self._ask("Browser.close")
        with contextlib.suppress(OSError):
            os.close(self._to)
            os.close(self._from)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def _ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        self._asked += 1
        message: dict[str, Any] = {"id": self._asked, "method": method, "params": arguments}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        until = time.monotonic() + self._patience_s
        while True:
            answer = self._next(method, until)
            if answer.get("id") == self._asked:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self, method: str, until: float) -> dict[str, Any]:
        """Return the next message, an answer or an event."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{method}: no answer in {self._patience_s:g} s")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError(f"{method}: the browser ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)
