"""A window made from a description, which says what is done to it.

    python form.py '{"title": "Login", "widgets": [{"kind": "button", "name": "ok", "text": "OK", "x": 20, "y": 20}]}'

The description (argv[1]; without it a form with what most tests need):

    title, x, y (of the frame), w, h, background, font (points), override (no frame, no window manager)
    widgets: list of
        kind        button, label, entry, text, checkbox, canvas, menu, clock, spinner
        name        default: its text; names events and boxes
        text        what stands on it, or in it
        x, y, w, h  in the window; without w and h as large as it needs
        bg, fg, font, hover (background while the pointer is on it)
        tooltip     text; tooltip_ms: delay (500)
        dead        true: a button that does nothing but look alive
        does        commands (see below) that follow its click, each with "after": ms if wanted
        items       of a menu
        blink       false: the caret of an entry or text stands still
        every       ms between changes of a clock (1000) or spinner (50)
        appears     ms until it is shown; "hidden": true: not shown until a command does
        moves       {"after": ms, "to": [x, y]} or {"every": ms, "by": [dx, dy]} (turns at the window's edge)

Commands, JSON lines on stdin:

    {"do": "show" | "hide" | "focus" | "enable" | "disable", "widget": name}
    {"do": "move", "widget": name, "x", "y"}       {"do": "text", "widget": name, "text"}
    {"do": "add", "widget": description}           {"do": "title", "text"}
    {"do": "window", "x", "y", "w", "h"}           {"do": "raise" | "minimise" | "restore" | "boxes" | "quit"}
    {"do": "popup", "name", "text", "x", "y", "w", "h", "type"}   no frame, in desktop pixels; "type": e.g. "tooltip"
    {"do": "close", "name"}                        of a popup
    {"do": "freeze", "ms"}                         busy, deaf and unpainted meanwhile
    {"do": "echo", "text"}                         answered by an event of the same fields

Events, JSON lines on stdout, each with "event" and mostly "widget"; places are desktop pixels:

    ready {title, id, box, boxes}     press, release, click, double, triple {button, x, y}
    drag {button, from, to, steps}    wheel {towards: up, down, left, right}     command (a button did its work)
    text {value}, check {value}, item {item}, key {keysym, char}, enter, leave, shown {box}, moved {box}
    posted {boxes}: a menu is open    boxes {box, boxes}, tooltip {box}, popup {box}
"""

from __future__ import annotations

import json
import os
import sys
import time
import tkinter as tk
from typing import Any

FORM: dict[str, Any] = {
    "title": "Form – Zürich",
    "x": 200,
    "y": 150,
    "w": 760,
    "h": 520,
    "widgets": [
        {"kind": "label", "name": "name label", "text": "Name", "x": 30, "y": 34},
        {"kind": "entry", "name": "Name", "x": 160, "y": 30, "w": 300, "h": 36},
        {"kind": "label", "name": "search label", "text": "Search", "x": 30, "y": 94},
        {"kind": "entry", "name": "Search", "x": 160, "y": 90, "w": 300, "h": 36},
        {"kind": "text", "name": "notes", "x": 30, "y": 150, "w": 430, "h": 120},
        {"kind": "checkbox", "name": "agree", "text": "I agree", "x": 500, "y": 30},
        {"kind": "menu", "name": "File", "items": ["Open", "Export", "Quit"], "x": 500, "y": 90},
        {"kind": "canvas", "name": "canvas", "x": 500, "y": 150, "w": 230, "h": 120},
        {"kind": "button", "text": "Speichern", "x": 30, "y": 300, "w": 150, "h": 44},
        {"kind": "button", "text": "Zürich", "x": 210, "y": 300, "w": 150, "h": 44},
        {"kind": "button", "text": "Löschen", "x": 390, "y": 300, "w": 150, "h": 44},
        {"kind": "button", "text": "Save", "x": 30, "y": 370, "w": 150, "h": 44},
        {"kind": "button", "text": "Cancel", "x": 210, "y": 370, "w": 150, "h": 44},
        {"kind": "button", "text": "Send", "x": 390, "y": 370, "w": 150, "h": 44},
        {"kind": "label", "name": "status", "text": "Ready", "x": 30, "y": 460},
    ],
}

BUTTONS = {1: "left", 2: "middle", 3: "right"}
WHEEL = {4: "up", 5: "down", 6: "left", 7: "right"}


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class Form:
    def __init__(self, description: dict[str, Any]) -> None:
        self.description = description
        self.root = root = tk.Tk(className="Form")
        root.title(description.get("title", "Form"))
        x, y = description.get("x", 200), description.get("y", 150)
        root.geometry(f"{description.get('w', 640)}x{description.get('h', 480)}+{x}+{y}")
        self.colour = description.get("background", "#ececec")
        root.configure(background=self.colour)
        if description.get("override"):
            root.overrideredirect(True)
        self.widgets: dict[str, tk.Widget] = {}
        self.popups: dict[str, tk.Toplevel] = {}
        self.values: dict[str, Any] = {}
        self.pressed: tuple[int, int, int] | None = None
        self.steps = 0
        self.inside: str | None = None
        self.input = b""
        for widget in description.get("widgets", []):
            self.add(widget)
        root.createfilehandler(0, tk.READABLE, self.read)
        root.protocol("WM_DELETE_WINDOW", lambda: (say("closed"), root.destroy()))
        self.announce(None, 0)

    def announce(self, before: Any, still: int) -> None:
        """Say `ready` once the window is shown and has stopped moving: the frame comes a moment after it."""
        self.root.update_idletasks()
        now = (self.root.winfo_viewable(), self.box(self.root))
        if now[0] and now == before and still >= 3:
            say("ready", title=self.root.title(), id=int(self.root.frame(), 16), box=now[1], boxes=self.boxes())
        else:
            self.root.after(30, self.announce, now, still + 1 if now == before else 0)

    def box(self, widget: tk.Misc) -> list[int]:
        x, y = widget.winfo_rootx(), widget.winfo_rooty()
        return [x, y, x + widget.winfo_width(), y + widget.winfo_height()]

    def boxes(self) -> dict[str, list[int]]:
        self.root.update_idletasks()
        return {name: self.box(widget) for name, widget in self.widgets.items() if widget.winfo_manager()}

    def add(self, widget: dict[str, Any]) -> None:
        kind, text = widget["kind"], widget.get("text", "")
        name = widget.get("name", text)
        font = ("DejaVu Sans", -round(widget.get("font", self.description.get("font", 14)) * 96 / 72))
        colour = widget.get("bg", {"entry": "white", "text": "white", "canvas": "white"}.get(kind, self.colour))
        look = {"bg": colour, "highlightthickness": 0}
        words = look | {"font": font, "fg": widget.get("fg", "black")}
        # With an active background of its own a button lights up as the pointer comes; `hover` asks for that.
        lit = {"activebackground": widget.get("hover", colour), "activeforeground": words["fg"]}
        caret = {} if widget.get("blink", True) else {"insertofftime": 0}
        made: Any
        if kind == "button":
            made = tk.Button(self.root, text=text, command=lambda: self.do_click(name, widget), **words, **lit)
        elif kind in ("label", "clock"):
            made = tk.Label(self.root, text=text, anchor="w", **words)
            if kind == "clock":
                self.tick(made, widget.get("every", 1000))
        elif kind == "entry":
            value = tk.StringVar(value=text)
            self.values[name] = value
            made = tk.Entry(self.root, textvariable=value, **words, **caret)
            value.trace_add("write", lambda *_: say("text", widget=name, value=value.get()))
        elif kind == "text":
            made = tk.Text(self.root, undo=True, **words, **caret)
            made.insert("1.0", text)
            made.edit_modified(False)
            made.bind("<<Modified>>", lambda _: self.modified(name, made))
        elif kind == "checkbox":
            checked = tk.BooleanVar()
            self.values[name] = checked
            made = tk.Checkbutton(
                self.root,
                text=text,
                variable=checked,
                command=lambda: say("check", widget=name, value=checked.get()),
                **words,
                **lit,
            )
        elif kind == "canvas":
            made = tk.Canvas(self.root, **look)
        elif kind == "spinner":
            made = tk.Canvas(self.root, **look)
            self.spin(made, widget.get("every", 50), 0)
        elif kind == "menu":
            made = tk.Menubutton(self.root, text=text or name, relief="raised", **words, **lit)
            menu = tk.Menu(made, tearoff=False, font=font)
            for item in widget.get("items", []):
                menu.add_command(label=item, command=lambda item=item: say("item", widget=name, item=item))
            made.configure(menu=menu)
            menu.bind("<Map>", lambda _: self.root.after(50, self.posted, name, menu))
        else:
            raise SystemExit(f"unknown kind {kind!r}")
        self.widgets[name] = made
        self.watch(name, made, widget)
        if widget.get("hidden") or "appears" in widget:
            if "appears" in widget:
                self.root.after(widget["appears"], self.show, name)
        else:
            self.place(name)
        moves = widget.get("moves", {})
        if "every" in moves:
            self.root.after(moves["every"], self.wander, name, moves["every"], *moves["by"])
        elif moves:
            self.root.after(moves["after"], self.move, name, *moves["to"])

    def place(self, name: str) -> None:
        description = next(w for w in self.description["widgets"] if w.get("name", w.get("text")) == name)
        self.widgets[name].place(x=description["x"], y=description["y"], width=description.get("w", ""),
                                 height=description.get("h", ""))  # fmt: skip

    def watch(self, name: str, made: tk.Widget, widget: dict[str, Any]) -> None:
        made.bind("<ButtonPress>", lambda event: self.press(name, event), add=True)
        made.bind("<ButtonRelease>", lambda event: self.release(name, event), add=True)
        made.bind("<Motion>", lambda _: self.step(), add=True)
        for word in ("double", "triple"):
            for number in BUTTONS:
                pattern = f"<{word.title()}-Button-{number}>"
                made.bind(pattern, lambda event, word=word: self.several(word, name, event), add=True)
        made.bind("<Key>", lambda e: say("key", widget=name, keysym=e.keysym, char=e.char), add=True)
        for sequence, word in (("<Enter>", "enter"), ("<Leave>", "leave")):
            made.bind(sequence, lambda event, word=word: self.crossing(word, name, event), add=True)
        if "hover" in widget and not isinstance(made, (tk.Button, tk.Checkbutton, tk.Menubutton)):
            colour = made.cget("bg")
            made.bind("<Enter>", lambda _: made.configure(bg=widget["hover"]), add=True)
            made.bind("<Leave>", lambda _: made.configure(bg=colour), add=True)
        if "tooltip" in widget:
            waiting: list[str] = []

            def enter(event: Any) -> None:
                late = widget.get("tooltip_ms", 500)
                waiting.append(self.root.after(late, self.tooltip, name, widget["tooltip"]))

            def leave(event: Any) -> None:
                while waiting:
                    self.root.after_cancel(waiting.pop())
                self.close(f"tooltip of {name}")

            made.bind("<Enter>", enter, add=True)
            made.bind("<Leave>", leave, add=True)

    def crossing(self, word: str, name: str, event: Any) -> None:
        """Tell that the pointer comes or goes; the leave and enter that a grab sends at each press are not told."""
        inside = self.root.winfo_containing(event.x_root, event.y_root) is event.widget
        if inside == (word == "enter") and self.inside != (name if inside else None):
            self.inside = name if inside else None
            say(word, widget=name)

    def press(self, name: str, event: Any) -> None:
        if event.num in WHEEL:
            # Tk makes buttons 6 and 7, the wheel sideways, into 4 and 5 with Shift.
            number = event.num + 2 if event.num < 6 and event.state & 1 else event.num
            say("wheel", widget=name, towards=WHEEL[number], x=event.x_root, y=event.y_root)
            return
        self.pressed, self.steps = (event.num, event.x_root, event.y_root), 0
        say("press", widget=name, button=BUTTONS.get(event.num, str(event.num)), x=event.x_root, y=event.y_root)

    def step(self) -> None:
        self.steps += 1

    def several(self, word: str, name: str, event: Any) -> None:
        self.press(name, event)
        say(word, widget=name, button=BUTTONS.get(event.num, str(event.num)), x=event.x_root, y=event.y_root)

    def release(self, name: str, event: Any) -> None:
        if event.num in WHEEL or self.pressed is None:
            return
        number, x, y = self.pressed
        self.pressed = None
        button = BUTTONS.get(event.num, str(event.num))
        say("release", widget=name, button=button, x=event.x_root, y=event.y_root)
        if number != event.num:
            return
        if max(abs(event.x_root - x), abs(event.y_root - y)) > 3:
            to = [event.x_root, event.y_root]
            say("drag", widget=name, button=button, **{"from": [x, y]}, to=to, steps=self.steps)
        else:
            say("click", widget=name, button=button, x=event.x_root, y=event.y_root)

    def modified(self, name: str, made: tk.Text) -> None:
        if made.edit_modified():
            made.edit_modified(False)
            say("text", widget=name, value=made.get("1.0", "end-1c"))

    def do_click(self, name: str, widget: dict[str, Any]) -> None:
        if widget.get("dead"):
            return
        say("command", widget=name)
        for command in widget.get("does", []):
            self.root.after(command.get("after", 0), self.do, command)

    def posted(self, name: str, menu: tk.Menu) -> None:
        if not menu.winfo_viewable():
            return
        left, top, right, bottom = self.box(menu)
        edges = [menu.yposition(index) for index in range(menu.index("end") + 1)] + [bottom - top]
        names = [menu.entrycget(index, "label") for index in range(len(edges) - 1)]
        boxes = {item: [left, top + a, right, top + b] for item, a, b in zip(names, edges, edges[1:], strict=False)}
        say("posted", widget=name, box=[left, top, right, bottom], boxes=boxes)

    def tick(self, label: tk.Label, every: int) -> None:
        label.configure(text=time.strftime("%H:%M:%S") + (f".{int(time.time() * 10) % 10}" if every < 1000 else ""))
        self.root.after(every, self.tick, label, every)

    def spin(self, canvas: tk.Canvas, every: int, angle: int) -> None:
        canvas.delete("all")
        side = min(canvas.winfo_width(), canvas.winfo_height()) - 6
        canvas.create_arc(3, 3, side, side, start=angle, extent=270, style="arc", width=4, outline="#2060c0")
        self.root.after(every, self.spin, canvas, every, (angle + 30) % 360)

    def wander(self, name: str, every: int, dx: int, dy: int) -> None:
        made = self.widgets[name]
        x, y = made.winfo_x() + dx, made.winfo_y() + dy
        if not 0 <= x <= self.root.winfo_width() - made.winfo_width():
            dx, x = -dx, made.winfo_x() - dx
        if not 0 <= y <= self.root.winfo_height() - made.winfo_height():
            dy, y = -dy, made.winfo_y() - dy
        made.place(x=x, y=y)
        self.root.after(every, self.wander, name, every, dx, dy)

    def show(self, name: str) -> None:
        self.place(name)
        self.root.update()
        say("shown", widget=name, box=self.box(self.widgets[name]))

    def move(self, name: str, x: int, y: int) -> None:
        self.widgets[name].place(x=x, y=y)
        self.root.update()
        say("moved", widget=name, box=self.box(self.widgets[name]))

    def write(self, name: str, text: str) -> None:
        made = self.widgets[name]
        if name in self.values:
            self.values[name].set(text)
        elif isinstance(made, tk.Text):
            made.delete("1.0", "end")
            made.insert("1.0", text)
        else:
            made.configure(text=text)

    def tooltip(self, name: str, text: str) -> None:
        x, y = self.root.winfo_pointerxy()
        self.popup(f"tooltip of {name}", text, x + 12, y + 16, kind="tooltip", bg="#ffffe0")
        say("tooltip", widget=name, box=self.box(self.popups[f"tooltip of {name}"]))

    def popup(
        self, name: str, text: str, x: int, y: int, w: int = 0, h: int = 0, kind: str = "", bg: str = "#ffe0b0"
    ) -> None:
        self.close(name)
        made = tk.Toplevel(self.root, background=bg, borderwidth=1, relief="solid")
        made.overrideredirect(True)
        made.title("")
        if kind:
            made.attributes("-type", kind)
        tk.Label(made, text=text, bg=bg, font=("DejaVu Sans", -16)).pack(padx=4, pady=2)
        made.geometry(f"{w}x{h}+{x}+{y}" if w else f"+{x}+{y}")
        self.popups[name] = made
        made.update()

    def close(self, name: str) -> None:
        if name in self.popups:
            self.popups.pop(name).destroy()

    def read(self, *_: Any) -> None:
        data = os.read(0, 65536)
        if not data:
            # Whoever started this is gone.
            self.root.destroy()
            return
        *lines, self.input = (self.input + data).split(b"\n")
        for line in lines:
            self.do(json.loads(line))

    def do(self, command: dict[str, Any]) -> None:
        do, name, root = command["do"], command.get("widget", ""), self.root
        place = (command.get("x", 0), command.get("y", 0))
        if do == "quit":
            root.destroy()
        elif do == "show":
            self.show(name)
        elif do == "hide":
            self.widgets[name].place_forget()
        elif do == "focus":
            root.focus_force()
            self.widgets[name].focus_set()
        elif do in ("enable", "disable"):
            self.widgets[name].configure(state="normal" if do == "enable" else "disabled")  # type: ignore[call-arg]
        elif do == "move":
            self.move(name, *place)
        elif do == "text":
            self.write(name, command["text"])
        elif do == "add":
            self.description.setdefault("widgets", []).append(name)
            self.add(name)
        elif do == "title":
            root.title(command["text"])
        elif do == "window":
            size = f"{command['w']}x{command['h']}" if "w" in command else ""
            root.geometry(size + (f"+{place[0]}+{place[1]}" if "x" in command else ""))
        elif do == "raise":
            root.lift()
        elif do == "minimise":
            root.iconify()
        elif do == "restore":
            root.deiconify()
        elif do == "boxes":
            say("boxes", box=self.box(root), boxes=self.boxes())
        elif do == "popup":
            size = (command.get("w", 0), command.get("h", 0))
            self.popup(command["name"], command["text"], *place, *size, kind=command.get("type", ""))
            say("popup", name=command["name"], box=self.box(self.popups[command["name"]]))
        elif do == "close":
            self.close(command["name"])
        elif do == "freeze":
            time.sleep(command["ms"] / 1000)
        elif do == "echo":
            say("echo", text=command["text"])
        else:
            raise SystemExit(f"unknown command {do!r}")


if __name__ == "__main__":
    Form(json.loads(sys.argv[1]) if len(sys.argv) > 1 else FORM).root.mainloop()
