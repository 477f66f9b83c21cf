"""The pages: HTML in which everything that has a name says what it is.

`data-item` marks what can be asked for: `name`, `role`, and `badge` for what stands beside the name. `data-place`
marks what holds such things: a `row` or `panel` with a title, a `region` such as the footer, a `group` of neighbours.
"""

from __future__ import annotations

import html
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.ocr.pages.words import POOLS, Pools

_SIZES = ((1024, 768), (1100, 700), (1280, 720), (1280, 800), (1366, 768))
_FONTS = {
    "dev": ("DejaVu Sans", "Liberation Sans", "Noto Sans", "Liberation Serif"),
    "held": ("Nimbus Sans", "Liberation Sans", "DejaVu Sans", "DejaVu Serif", "Noto Sans"),
}
_ACCENTS = {
    "dev": ("#1f6feb", "#0b7a5b", "#8a3ffc", "#c2410c"),
    "held": ("#0f62fe", "#b3261e", "#00695c", "#6d28d9"),
}
_SHORTCUTS = ("Ctrl+N", "Ctrl+Shift+S", "F5", "Alt+Enter", "Ctrl+C", "Del", "⌘K", "Ctrl+P", "Shift+F3", "F11", "Ctrl+0")
_VALUES = ("42", "Riverside 12", "0161 555 0137", "K-9031", "blue", "10:30", "Lisbon", "W1A 4ZZ", "three")


@dataclass(frozen=True)
class Look:
    """How a page is drawn. `size` is that of the window in CSS pixels, `scale` the pixels for each of them."""

    size: tuple[int, int]
    scale: float
    font: str
    font_px: int
    gap_px: int
    dark: bool
    accent: str
    radius_px: int
    solid: bool
    strong_header: bool

    @classmethod
    def drawn(cls, draw: random.Random, split: str) -> Look:
        """Draw a look by chance."""
        return cls(
            size=draw.choice(_SIZES),
            scale=draw.choice((1.0, 1.0, 1.0, 1.0, 1.0, 1.25, 1.5)),
            font=draw.choice(_FONTS[split]),
            font_px=draw.randint(11, 18),
            gap_px=draw.choice((5, 7, 9, 12)),
            dark=draw.random() < 0.35,
            accent=draw.choice(_ACCENTS[split]),
            radius_px=draw.choice((0, 3, 6, 8)),
            solid=draw.random() < 0.5,
            strong_header=draw.random() < 0.5,
        )

    @property
    def css(self) -> str:
        """Return the style sheet."""
        if self.dark:
            paper, page, ink, faint, edge = "#1b1e24", "#14161a", "#e6e8ec", "#a6adb8", "#3a404b"
        else:
            paper, page, ink, faint, edge = "#ffffff", "#f3f4f7", "#1c2330", "#586173", "#c6ccd6"
        accent = f"color-mix(in srgb, {self.accent} 55%, white)" if self.dark else self.accent
        header = ("#ffffff", self.accent) if self.strong_header else (ink, paper)
        button = ("#ffffff", self.accent, self.accent) if self.solid else (accent, "transparent", accent)
        g, r = self.gap_px, self.radius_px
        return f"""
* {{ box-sizing: border-box; }}
body {{ margin: 0; height: 100vh; overflow: hidden; display: flex; flex-direction: column; background: {page};
  color: {ink}; font: {self.font_px}px/1.35 "{self.font}", sans-serif; }}
h1, h2, h3 {{ margin: 0 0 {g}px; font-weight: 600; }} h1 {{ font-size: 1.4em; }} h2 {{ font-size: 1.15em; }}
h3 {{ font-size: 1em; }}
h1, h2, h3 {{ align-self: flex-start; width: fit-content; }}
p {{ margin: 0 0 {g}px; }} .faint {{ color: {faint}; }} .grow {{ flex: 1 1 auto; min-width: 0; min-height: 0; }}
.x, .y {{ display: flex; gap: {g}px; }} .x {{ align-items: center; }} .y {{ flex-direction: column; }}
.start {{ align-items: flex-start; }} .wide {{ gap: {3 * g}px; }} .apart {{ justify-content: space-between; }}
.wrap {{ flex-wrap: wrap; }} .end {{ justify-content: flex-end; }}
header, footer, .toolbar {{ padding: {g}px {2 * g}px; display: flex; gap: {3 * g}px; align-items: center; flex: none; }}
header {{ color: {header[0]}; background: {header[1]}; border-bottom: 1px solid {edge}; }}
header .link {{ color: inherit; }}
header .btn {{ color: inherit; border-color: currentColor; background: transparent; }}
footer, .toolbar {{ background: {paper}; border-top: 1px solid {edge}; }}
.main {{ display: flex; flex: 1 1 auto; min-height: 0; }}
.side {{ padding: {2 * g}px {g}px; width: 15em; flex: none; background: {paper}; border-right: 1px solid {edge};
  display: flex; flex-direction: column; gap: {g}px; overflow: hidden; }}
.body {{ padding: {2 * g}px; flex: 1 1 auto; display: flex; flex-direction: column; gap: {2 * g}px; min-width: 0;
  min-height: 0; overflow: hidden; }}
.panel {{ background: {paper}; border: 1px solid {edge}; border-radius: {r}px; padding: {1.5 * g}px;
  display: flex; flex-direction: column; gap: {g}px; align-items: flex-start; flex: none; }}
.panel > .x, .panel > .y {{ align-self: stretch; }} .panel .y {{ align-items: flex-start; }}
.btn {{ font: inherit; color: {button[0]}; background: {button[1]}; border: 1px solid {button[2]}; cursor: pointer;
  border-radius: {r}px; padding: {g / 2 + 1}px {1.5 * g}px; flex: none; text-align: center; }}
.link {{ color: {accent}; text-decoration: none; flex: none; width: fit-content; }}
.line .link, footer .link {{ text-decoration: underline; }}
.nav {{ color: {ink}; padding: {g / 2}px {g}px; border-radius: {r}px; display: flex; gap: {g}px; flex: none;
  justify-content: space-between; align-items: center; }}
.tab {{ padding: {g / 2}px {g}px; border-bottom: 2px solid transparent; flex: none; }}
.tab:first-child {{ border-color: {accent}; color: {accent}; }}
.pill {{ background: {self.accent}; color: #fff; border-radius: 1em; padding: 0 .5em; font-size: .85em; }}
.field {{ display: flex; width: fit-content; gap: {g / 2}px; align-items: center; flex: none; }}
.field > span {{ width: 10em; }} .above > span {{ width: auto; }}
.above {{ flex-direction: column; align-items: flex-start; }}
input:not([type]), select {{ font: inherit; color: {ink}; background: {page}; border: 1px solid {edge}; width: 13em;
  border-radius: {r}px; padding: {g / 2}px {g}px; }}
input[data-item] {{ width: 19em; }}
input::placeholder {{ color: {faint}; opacity: 1; }}
.check {{ display: flex; gap: .5em; align-items: center; width: fit-content; }} .check input {{ margin: 0; }}
.toggle input {{ appearance: none; width: 2.2em; height: 1.2em; border-radius: .6em; background: {edge}; }}
.menu {{ position: absolute; background: {paper}; border: 1px solid {edge}; border-radius: {r}px; padding: {g / 2}px 0;
  box-shadow: 0 4px 16px #0005; min-width: 17em; z-index: 2; }}
.command {{ display: flex; justify-content: space-between; gap: 3em; padding: {g / 2}px {1.5 * g}px; }}
.command kbd {{ font: inherit; color: {faint}; }}
table {{ border-collapse: collapse; width: 100%; background: {paper}; }}
th, td {{ text-align: left; padding: {g / 1.5}px {g}px; border-bottom: 1px solid {edge}; vertical-align: middle; }}
th {{ vertical-align: bottom; font-weight: 600; }} td .x {{ gap: {2 * g}px; }}
.line {{ display: flex; gap: {2 * g}px; align-items: center; padding: {g / 1.5}px {g}px; flex: none;
  border-bottom: 1px solid {edge}; background: {paper}; }}
.line > .who {{ width: 11em; }}
.cards {{ display: grid; gap: {2 * g}px; grid-template-columns: repeat(var(--n), minmax(0, 1fr)); }}
.cards .panel {{ align-items: flex-start; }}
.picture {{ height: 4.5em; align-self: stretch; background: color-mix(in srgb, {self.accent} 25%, {paper});
  border-radius: {r}px; }}
.tile {{ background: {paper}; border: 1px solid {edge}; border-radius: {r}px; padding: {g}px; width: 10.5em;
  line-height: 1.25; }}
.veil {{ position: fixed; inset: 0; background: #0007; pointer-events: none; }}
.dialog {{ position: fixed; background: {paper}; border-radius: {r}px; padding: {2 * g}px; display: flex; z-index: 3;
  flex-direction: column; gap: {1.5 * g}px; box-shadow: 0 8px 40px #0008; }}
.dialog > * {{ align-self: stretch; }}
u {{ text-underline-offset: 2px; }}
"""


class Maker:
    """Makes the parts of one page, by chance but repeatably; no name comes twice unless a template asks for it.

    Args:
        draw: where chance comes from.
        split: "dev" or "held".
        language: "en", "de" or "fr".
    """

    def __init__(self, draw: random.Random, split: str, language: str) -> None:
        self.draw = draw
        self.look = Look.drawn(draw, split)
        self.pools: Pools = POOLS[split, language]
        self._used: set[str] = set()

    def page(self, template: Callable[[Maker], str]) -> str:
        """Return the whole page of a template."""
        body = template(self)
        return f"<!doctype html><html><head><meta charset='utf-8'><style>{self.look.css}</style></head>{body}</html>"

    def take(self, pool: str, count: int = 1) -> list[str]:
        """Draw names that are not on the page yet; fewer where the pool has no more."""
        left = [name for name in self.pools[pool] if plain(name) not in self._used]
        names = self.draw.sample(left, min(count, len(left)))
        self._used.update(map(plain, names))
        return names

    def item(self, tag: str, name: str, role: str, inner: str | None = None, *, css: str = "", badge: str = "") -> str:
        """Return an element that can be asked for."""
        told = html.escape(json.dumps({"name": name, "role": role, "badge": badge}), quote=True)
        inner = html.escape(name) if inner is None else inner
        return f'<{tag} class="{css or role}" data-item="{told}">{inner}</{tag}>'

    def button(self, name: str) -> str:
        return self.item("button", name, "button", css="btn", badge="ellipsis" if name.endswith("…") else "")

    def link(self, name: str) -> str:
        return self.item("a", name, "link", css="link")

    def text(self, name: str, css: str = "text") -> str:
        return self.item("span", name, "text", css=css)

    def heading(self, name: str, level: int = 2) -> str:
        return self.item(f"h{level}", name, "heading")

    def nav(self, name: str) -> str:
        """Return an entry of a sidebar, in half of the cases with a number, a chip or an arrow."""
        shown, badge = html.escape(name), self.draw.choice(("", "", "", "pill", "brackets", "chip", "arrow", "star"))
        count = self.draw.choice(("1", "3", "7", "12", "28", "99+", "204"))
        inner = {
            "": f"<span>{shown}</span>",
            "pill": f"<span>{shown}</span><span class=pill>{count}</span>",
            "brackets": f"<span>{shown} ({count})</span>",
            "chip": f"<span>{shown} <span class=pill>NEW</span></span>",
            "arrow": f"<span>{shown}</span><span>›</span>",
            "star": f"<span>★ {shown}</span>",
        }[badge]
        return self.item("a", name, "nav", inner, badge=badge)

    def check(self, name: str, kind: str = "check box") -> str:
        sort = "radio" if kind == "radio button" else "checkbox"
        on = " checked" if self.draw.random() < 0.4 else ""
        css = "check toggle" if kind == "toggle" else "check"
        return self.item("label", name, kind, f"<input type={sort}{on}><span>{html.escape(name)}</span>", css=css)

    def field(self, name: str, css: str = "") -> str:
        value = html.escape(self.draw.choice(_VALUES))
        if self.draw.random() < 0.25:
            inner = f"<select><option>{value}</option></select>"
            role = "drop-down"
        else:
            role, inner = "field", f'<input value="{value if self.draw.random() < 0.6 else ""}">'
        label = f"<span>{html.escape(name)}</span>"
        return self.item("label", name, role, label + inner, css=f"field {css}")

    def hint(self) -> str:
        """Return a field whose name stands in it."""
        (name,) = self.take("hints")
        told = html.escape(json.dumps({"name": name, "role": "field", "badge": "placeholder"}), quote=True)
        return f'<input data-item="{told}" placeholder="{html.escape(name)}">'

    def command(self, name: str) -> str:
        """Return an entry of a menu, mostly with a shortcut."""
        shortcut = self.draw.choice((*_SHORTCUTS, "", "", "▸"))
        badge = "shortcut" if shortcut else "ellipsis" if name.endswith("…") else ""
        inner = f"<span>{html.escape(name)}</span><kbd>{shortcut}</kbd>"
        return self.item("div", name, "menu item", inner, css="command", badge=badge)

    def mnemonic(self, name: str) -> str:
        """Return a title in a menu bar with one letter underlined."""
        at = self.draw.randrange(min(3, len(name)))
        inner = f"{html.escape(name[:at])}<u>{html.escape(name[at])}</u>{html.escape(name[at + 1 :])}"
        return self.item("span", name, "menu", inner, css="title", badge="mnemonic")

    def place(self, kind: str, title: str, inner: str, *, tag: str = "div", css: str = "", style: str = "") -> str:
        """Return an element that holds others; `title` is how people call it."""
        told = html.escape(json.dumps({"kind": kind, "title": title}), quote=True)
        return f'<{tag} class="{css}" style="{style}" data-place="{told}">{inner}</{tag}>'

    def group(self, noun: str, items: list[str], css: str = "x") -> str:
        """Return neighbours of one sort, side by side ("x") or one below the other ("y")."""
        return self.place("group", noun, "".join(items), css=css)

    def region(self, name: str, inner: str, css: str = "", tag: str = "div", style: str = "") -> str:
        return self.place("region", name, inner, css=css, tag=tag, style=style)

    def panel(self, title: str, inner: str) -> str:
        return self.place("panel", title, self.heading(title) + inner, tag="section", css="panel")

    def sentence(self) -> str:
        return "".join(f"<p class=faint>{html.escape(text)}</p>" for text in self.take("text"))

    def rows(self, anchors: list[str], actions: list[str], more: Callable[[], str]) -> str:
        """Return lines with the same links behind each."""
        css = self.draw.choice(("link", "button"))
        made = []
        for anchor in anchors:
            ends = "".join(self.link(name) if css == "link" else self.button(name) for name in actions)
            inner = f"{self.text(anchor, 'text who')}<span class=grow>{more()}</span>{ends}"
            made.append(self.place("row", anchor, inner, css="line"))
        return f"<div>{''.join(made)}</div>"

    def header(self, echo: str, button: str = "") -> str:
        inner = f"<b>{html.escape(self.take('brand')[0])}</b>"
        inner += self.group("link", [self.link(name) for name in self.take("nav", self.draw.randint(2, 4))], "x wide")
        inner += f"<span class=grow></span>{self.link(echo)}{self.button(button) if button else ''}"
        return self.region("header", inner, tag="header")

    def footer(self, echo: str) -> str:
        links = [self.link(name) for name in self.take("footer", self.draw.randint(2, 4))]
        links.insert(self.draw.randrange(len(links) + 1), self.link(echo))
        return self.region("footer", self.group("link", links, "x wide"), tag="footer")

    def sidebar(self, count: int, more: str = "") -> str:
        group = self.group("item", [self.nav(name) for name in self.take("nav", count)], "y")
        return self.region("sidebar", group + more, css="side")

    def word(self, pool: str) -> Callable[[], str]:
        """Return a function that draws a plain text from a pool, over and over."""
        return lambda: f"<span class=faint>{html.escape(self.draw.choice(self.pools[pool]))}</span>"

    def lines(self, less: int = 0, most: int = 9) -> int:
        """Return how many lines of a list fit."""
        line = self.look.font_px * 1.35 + 3.4 * self.look.gap_px + 3
        return max(3, min(most, int(self.look.size[1] / line) - 6 - less))


def plain(text: str) -> str:
    """Return the letters and digits of a text, in lower case: what makes two names equal."""
    return "".join(c for c in text.casefold() if c.isalnum())


def settings(m: Maker) -> str:
    """A settings page: sidebar, panels with fields and check boxes, the same buttons in several of them."""
    (echo,), (again, other) = m.take("echo"), m.take("again", 2)
    titles = m.take("sections", 3)
    fields = m.group("field", [m.field(name) for name in m.take("fields", m.draw.randint(3, 4))], "y")
    checks = m.group("check box", [m.check(name) for name in m.take("checks", 3)], "y")
    toggles = m.group("toggle", [m.check(name, "toggle") for name in m.take("checks", 2)], "y")
    panels = [
        m.panel(titles[0], fields + f"<div class='x end'>{m.button(again)}</div>"),
        m.panel(titles[1], checks + m.sentence() + f"<div class='x end'>{m.button(again)}</div>"),
        m.panel(titles[2], toggles + f"<div class='x end'>{m.button(again)}</div>"),
    ]
    cut = 2 if m.look.font_px < 14 else 1
    left, right = "".join(panels[:cut]), "".join(panels[cut:])
    bottom = m.group("button", [m.button(name) for name in [*m.take("actions", 3), other]])
    body = f"{m.heading(m.take('nav')[0], 1)}<div class='x start wide'><div class='y grow'>{left}</div>"
    body += f"<div class='y grow'>{right}</div></div><span class=grow></span><div class='x end'>{bottom}</div>"
    return (
        m.header(echo, other)
        + f"<div class=main>{m.sidebar(m.draw.randint(5, 7))}<div class=body>{body}</div></div>"
        + m.footer(echo)
    )


def mail(m: Maker) -> str:
    """A list of letters with the same links behind each, a toolbar, numbers in the sidebar."""
    (echo,), actions = m.take("echo"), m.take("actions", 4)
    row = m.take("row", 2)
    bar = m.group("button", [m.button(name) for name in actions])
    people = m.take("people", m.lines(2))
    subjects = iter(m.take("subjects", 9) * 9)
    rows = m.rows(people, row, lambda: f"<span>{html.escape(next(subjects))}</span>")
    pager = m.group("link", [m.link(name) for name in m.take("tabs", 3)], "x wide")
    body = f"<div class='x apart'>{bar}{m.hint()}</div>{rows}<span class=grow></span><div class=x>{pager}</div>"
    return (
        m.header(echo)
        + f"<div class=main>{m.sidebar(m.draw.randint(6, 8), m.link(echo))}<div class=body>{body}</div></div>"
    )


def shop(m: Maker) -> str:
    """Cards of goods, each with the same button."""
    (echo,), (card, second) = m.take("echo"), m.take("card", 2)
    names = m.take("products", 6 if m.look.size[1] >= 800 and m.look.font_px < 16 else 3)
    cards = []
    for name in names:
        price = f"<span class=faint>{m.draw.randint(3, 90)}.{m.draw.choice(('00', '50', '99'))}</span>"
        inner = f"<div class=picture></div>{m.text(name)}{price}<div class=x>{m.button(card)}{m.link(second)}</div>"
        cards.append(m.place("card", name, inner, css="panel"))
    body = f"<div class='x apart'>{m.heading(m.take('sections')[0], 1)}{m.hint()}</div>"
    body += f"<div class=cards style='--n:3'>{''.join(cards)}</div>"
    checks = m.group("check box", [m.check(name) for name in m.take("checks", 3)], "y")
    return m.header(echo) + f"<div class=main>{m.sidebar(4, checks)}<div class=body>{body}</div></div>" + m.footer(echo)


def table(m: Maker) -> str:
    """A table with the same actions in each row, tabs above, the same button above and below."""
    echo, low = m.take("echo", 2)
    (again,) = m.take("again")
    tabs = m.group("tab", [m.item("a", name, "tab") for name in m.take("tabs", m.draw.randint(4, 5))])
    columns = m.take("columns", 3)
    heads = "".join(m.item("th", name, "column header") for name in columns) + "<th></th>"
    row = m.take("row", 2)
    lines = []
    people = m.take(m.draw.choice(("people", "files")), m.lines(2, 8))
    for name in people:
        ends = "".join(map(m.link, row))
        cells = f"<td>{m.text(name)}</td><td>{m.word('states')()}</td><td>{m.draw.randint(10, 9999)}</td>"
        lines.append(m.place("row", name, f"{cells}<td><div class='x end'>{ends}</div></td>", tag="tr"))
    buttons = [m.button(name) for name in m.take("actions", 3)]
    top = f"<div class='x apart'>{m.group('button', buttons)}{m.button(again)}</div>"
    made = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    bottom = f"<div class='x apart'>{m.button(again)}{m.hint()}</div>"
    body = f"<div class=x>{tabs}</div>{top}{made}{bottom}"
    return m.header(echo, low) + f"<div class=main><div class=body>{body}</div></div>" + m.footer(low)


def editor(m: Maker) -> str:
    """A menu bar with an open menu, a toolbar, a document, a column of properties."""
    menus = m.group("menu", [m.mnemonic(name) for name in m.take("menus", 5)], "x wide")
    commands = m.group("menu item", [m.command(name) for name in m.take("commands", m.draw.randint(6, 8))], "y")
    opened = f"<div class=menu style='left:{m.draw.randint(10, 90)}px;top:{m.look.font_px * 3 + 20}px'>{commands}</div>"
    tools = m.group("button", [m.button(name) for name in m.take("actions", 5)])
    (again,), titles = m.take("again"), m.take("sections", 2)
    props = m.group("field", [m.field(name) for name in m.take("fields", 3)], "y")
    radios = m.group("option", [m.check(name, "radio button") for name in m.take("options", 3)], "y")
    right = m.panel(titles[0], props + m.button(again)) + m.panel(titles[1], radios + m.button(again))
    (echo,) = m.take("echo")
    paper = "".join(m.sentence() for _ in range(3))
    return (
        m.region("menu bar", menus, css="toolbar")
        + m.region("toolbar", f"<div style='margin-left:30em' class=x>{tools}</div>", css="toolbar")
        + f"<div class=main><div class=body style='padding-left:25em'>{paper}</div>"
        + f"<div class='y' style='padding:1em;flex:none'>{right}</div></div>"
        + m.region("status bar", f"{m.link(echo)}<span class=grow></span>{m.sentence()}{m.link(echo)}", css="toolbar")
        + opened
    )


def tiles(m: Maker) -> str:
    """Narrow tiles whose names take several lines."""
    (echo,), actions = m.take("echo"), m.take("actions", 3)
    made = [m.item("a", name, "tile") for name in m.take("long", m.draw.randint(6, 8))]
    (again,) = m.take("again")
    tab_row = m.group("tab", [m.item("a", name, "tab") for name in m.take("tabs", 4)])
    corner = f"<div class='x apart'>{m.group('button', list(map(m.button, actions)))}{m.button(again)}</div>"
    side = m.sidebar(5, f"<span class=grow></span>{m.button(again)}")
    columns = m.draw.choice((3, 4))
    width = f"--n:{columns};width:fit-content;grid-template-columns:repeat({columns}, 10.5em)"
    body = f"<div class=x>{tab_row}</div>{m.group('tile', made, 'cards').replace('style=', 'data-x=')}"
    body = body.replace('class="cards"', f'class="cards" style="{width}"')
    return m.header(echo) + f"<div class=main>{side}<div class=body>{body}<span class=grow></span>{corner}</div></div>"


def dialog(m: Maker) -> str:
    """A dialog over a dimmed page that has a button of the same name."""
    (again, other), (echo,) = m.take("again", 2), m.take("echo")
    title = m.take("sections")[0]
    people = m.take("people", m.lines(2, 7))
    under = m.rows(people, m.take("row", 1), m.word("states"))
    fields = m.group("field", [m.field(name) for name in m.take("fields", 3)], "y")
    checks = m.group("check box", [m.check(name) for name in m.take("checks", 2)], "y")
    buttons = [m.button(name) for name in [*m.take("actions", 2), again]]
    m.draw.shuffle(buttons)
    inner = m.heading(title) + m.sentence() + fields + checks + m.group("button", buttons, "x end")
    width, height = m.look.size
    place = f"left:{width // 2 - 220}px;top:{height // 4}px;width:{max(440, 29 * m.look.font_px)}px"
    page = m.header(echo, again)
    page += f"<div class=main>{m.sidebar(5)}<div class=body>{m.button(other)}{under}</div></div>{m.footer(echo)}"
    return (
        m.place("under", "", page, css="y grow", style="gap:0")
        + "<div class=veil></div>"
        + m.place("region", "dialog", inner, css="dialog", style=place)
    )


def dashboard(m: Maker) -> str:
    """Figures in panels that each have the same link, news at the side."""
    (echo, low), (card,) = m.take("echo", 2), m.take("card")
    panels = []
    for title in m.take("sections", m.draw.choice((3, 4, 6))):
        number = f"<span style='font-size:1.6em'>{m.draw.randint(100, 99999):,}</span>"
        panels.append(m.panel(title, f"{number}<div class=picture></div>{m.link(card)}"))
    tabs = m.group("tab", [m.item("a", name, "tab") for name in m.take("tabs", 4)])
    (row,), (again,) = m.take("row"), m.take("again")
    rows = "".join(
        m.place("row", name, f"{m.text(name)}<span class=grow></span>{m.link(row)}", css="line")
        for name in m.take("people", 4)
    )
    news = m.region(
        "right column", f"{m.heading(m.take('nav')[0], 2)}{rows}{m.button(again)}", css="side", style="width:24em"
    )
    tools = m.group("button", [m.button(name) for name in m.take("actions", 3)])
    body = f"<div class=x>{tabs}</div><div class=cards style='--n:{len(panels) if len(panels) < 5 else 3}'>"
    body += f"{''.join(panels)}</div><span class=grow></span><div class='x apart'>{tools}{m.button(again)}</div>"
    return m.header(echo, low) + f"<div class=main><div class=body>{body}</div>{news}</div>" + m.footer(low)


def files(m: Maker) -> str:
    """A file manager with an open context menu."""
    names = m.take("files", m.lines(1, 8))
    row = m.take("row", 2)
    crumbs = m.group("link", [m.link(name) for name in m.take("nav", 3)], "x wide")
    rows = m.rows(names, row, m.word("states"))
    commands = m.group("menu item", [m.command(name) for name in m.take("commands", m.draw.randint(6, 8))], "y")
    left = m.look.size[0] // 2 - m.draw.randint(40, 120)
    opened = f"<div class=menu style='left:{left}px;bottom:{3 * m.look.font_px + 20}px'>{commands}</div>"
    bar = m.group("button", [m.button(name) for name in m.take("actions", 4)])
    menus = m.group("menu", [m.mnemonic(name) for name in m.take("menus", 5)], "x wide")
    (echo,) = m.take("echo")
    body = f"<div class='x apart'>{crumbs}{m.hint()}</div><div class=x>{bar}</div>{rows}"
    return (
        m.region("menu bar", menus + f"<span class=grow></span>{m.link(echo)}", css="toolbar")
        + f"<div class=main>{m.sidebar(6)}<div class=body>{body}</div></div>"
        + m.region("status bar", m.link(echo) + m.sentence(), css="toolbar")
        + opened
    )


def chat(m: Maker) -> str:
    """People with unread counts, messages that each have the same links, a field to write in."""
    (echo,), (row,), (again,) = m.take("echo"), m.take("row"), m.take("again")
    people = m.take("people", 9)
    listed = m.group("item", [m.nav(name) for name in people[:4]], "y")
    said = []
    texts = m.take("subjects", 9)
    for name, text in zip(people[4:], texts):
        head = f"<div class='x wide'>{m.text(name)}<span class=faint>{m.draw.randint(8, 19)}:05</span></div>"
        ends = m.link(row) + (m.link(again) if len(said) % 2 else "")
        inner = f"{head}<span>{html.escape(text)}</span><div class='x wide'>{ends}</div>"
        said.append(m.place("message", name, inner, css="y start", style="gap:2px;flex:none"))
    field = f"<div class=x>{m.hint()}{m.group('button', list(map(m.button, m.take('actions', 2))))}</div>"
    title, lower = m.take("sections", 2)
    checks = m.group("check box", [m.check(name) for name in m.take("checks", 3)], "y")
    toggles = m.group("toggle", [m.check(name, "toggle") for name in m.take("checks", 2)], "y")
    right = m.panel(title, checks + m.link(again)) + m.panel(lower, toggles + m.link(again))
    side = m.region("sidebar", listed + f"<span class=grow></span>{m.link(echo)}", css="side")
    right = f"<div class='y' style='padding:1em;flex:none;width:22em'>{right}</div>"
    middle = f"<div class=body>{''.join(said)}<span class=grow></span>{field}</div>"
    return m.header(echo) + f"<div class=main>{side}{middle}{right}</div>"


def checkout(m: Maker) -> str:
    """A form with labels above the fields, choices, and a summary."""
    (echo,), (again,) = m.take("echo"), m.take("again")
    titles = m.take("sections", 3)
    names = m.take("fields", 6)
    left = m.group("field", [m.field(name, "above") for name in names[:3]], "y")
    right = m.group("field", [m.field(name, "above") for name in names[3:]], "y")
    form = m.panel(titles[0], f"<div class='x start wide'>{left}{right}</div>{m.link(again)}")
    radios = m.group("option", [m.check(name, "radio button") for name in m.take("options", 4)], "y")
    checks = m.group("check box", [m.check(name) for name in m.take("checks", 2)], "x wide")
    ways = m.panel(titles[1], radios + m.link(again))
    goods = "".join(
        m.place("row", name, f"{m.text(name)}<span class=grow></span>{m.link(row)}", css="line")
        for row in m.take("row")
        for name in m.take("products", 4)
    )
    total = m.panel(titles[2], f"<div class=y style='align-items:stretch'>{goods}</div>{m.link(again)}{m.hint()}")
    last = m.group("button", [m.button(name) for name in m.take("actions", 3)])
    body = f"<div class='x start wide'><div class='y grow'>{form}{ways}</div><div class='y grow'>{total}{checks}</div>"
    return (
        m.header(echo)
        + f"<div class=main><div class=body>{body}</div><span class=grow></span>"
        + f"<div class='x end'>{last}</div></div></div>"
        + m.footer(echo)
    )


def board(m: Maker) -> str:
    """Columns of cards, with the same button at the end of each."""
    (echo,), (again, other) = m.take("echo"), m.take("again", 2)
    count = m.draw.choice((3, 4))
    notes = m.take("long", count) + m.take("subjects", 9)
    columns = []
    for number, title in enumerate(m.take("sections", count)):
        cards = "".join(m.item("a", note, "tile", css="tile") for note in notes[number : 3 * count : count])
        columns.append(m.panel(title, f"<div class=y>{cards}</div>{m.button(again)}"))
    tools = m.group("button", [m.button(name) for name in m.take("actions", 3)])
    body = f"<div class='x apart'>{tools}{m.hint()}</div><div class='x start'>{''.join(columns)}</div>"
    return (
        m.header(echo, other)
        + f"<div class=main><div class=body>{body}<span class=grow></span>"
        + (f"<div class='x end'>{m.button(other)}</div></div></div>{m.footer(echo)}")
    )


def drawer(m: Maker) -> str:
    """A list of orders with a drawer at the right that has buttons of the same names."""
    (echo,), (again, other) = m.take("echo"), m.take("again", 2)
    rows = m.rows(m.take("products", m.lines(2, 7)), m.take("row", 2), m.word("states"))
    fields = m.group("field", [m.field(name, "above") for name in m.take("fields", 3)], "y")
    checks = m.group("check box", [m.check(name) for name in m.take("checks", 3)], "y")
    radios = m.group("option", [m.check(name, "radio button") for name in m.take("options", 3)], "y")
    buttons = m.group("button", [m.button(name) for name in (again, other)], "x apart")
    inner = f"{m.heading(m.take('sections')[0])}{fields}{checks}{radios}<span class=grow></span>{buttons}"
    top = m.group("button", [m.button(name) for name in [*m.take("actions", 3), again]])
    body = f"<div class=x>{top}</div>{rows}<span class=grow></span><div class=x>{m.button(other)}</div>"
    side = m.region("drawer", inner, css="side", style="width:19em")
    return m.header(echo) + f"<div class=main><div class=body>{body}</div>{side}</div>" + m.footer(echo)


TEMPLATES: dict[str, tuple[Callable[[Maker], str], ...]] = {
    "dev": (settings, mail, shop, table, editor, tiles, dialog),
    "held": (dashboard, files, chat, checkout, board, drawer, tiles),
}
