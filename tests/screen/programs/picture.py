"""A window that shows a picture, as large as that, and says where it is clicked.

    python picture.py '{"title": "Picture", "path": "scene.png", "x": 300, "y": 200}'

Commands, JSON lines on stdin: {"do": "show", "path"} another picture; {"do": "echo", "text"}.
Events, JSON lines on stdout: ready {title, box, boxes}; shown {box}; press {button, x, y}, in pixels of the picture;
echo {text}. Boxes are desktop pixels.
"""

from __future__ import annotations

import json
import os
import sys
import tkinter as tk
from typing import Any


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class Picture:
    def __init__(self, description: dict[str, Any]) -> None:
        self.root = root = tk.Tk()
        root.title(description["title"])
        root.geometry(f"+{description.get('x', 300)}+{description.get('y', 200)}")
        root.resizable(False, False)
        self.label = tk.Label(root, borderwidth=0, highlightthickness=0, padx=0, pady=0)
        self.label.pack()
        self.label.bind("<ButtonPress>", lambda event: say("press", button=event.num, x=event.x, y=event.y))
        self.put(description["path"])
        self.input = b""
        root.createfilehandler(0, tk.READABLE, self.read)
        self.announce("ready", None, 0, title=description["title"], boxes={})

    def put(self, path: str) -> None:
        self.image = tk.PhotoImage(file=path)
        self.label.configure(image=self.image)

    def announce(self, event: str, before: Any, still: int, **fields: Any) -> None:
        """Say it once the window has the picture's size and stands still: the frame comes a moment after it."""
        self.root.update_idletasks()
        x, y = self.label.winfo_rootx(), self.label.winfo_rooty()
        now = [x, y, x + self.label.winfo_width(), y + self.label.winfo_height()]
        size = [self.image.width(), self.image.height()]
        if [now[2] - x, now[3] - y] == size and now == before and still >= 3:
            say(event, box=now, **fields)
        else:
            self.root.after(20, lambda: self.announce(event, now, still + 1 if now == before else 0, **fields))

    def read(self, *_: Any) -> None:
        data = os.read(0, 65536)
        if not data:
            self.root.destroy()
            return
        *lines, self.input = (self.input + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if command["do"] == "show":
                self.put(command["path"])
                self.announce("shown", None, 0)
            else:
                say("echo", text=command["text"])


if __name__ == "__main__":
    Picture(json.loads(sys.argv[1])).root.mainloop()
