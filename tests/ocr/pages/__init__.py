"""Pages with many ways of naming things, and the questions about them: made by a seed, true by the browser's layout.

`make` writes pictures and `cases.jsonl` in the form of `tests/data/gui_sample` with a `category` and a `wording`
beside: `bbox` in pixels (null for what is not there), `alternatives` where several are meant equally. `split` is "dev"
(to develop on) or "held" (held out): other templates, other words, and partly other wordings.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.ocr.pages.browser import Browser
from tests.ocr.pages.templates import TEMPLATES, Maker, plain
from tests.ocr.pages.words import NEAR_MISSES, POOLS, SPELLINGS

CATEGORIES = (
    "exact",
    "ordinal",
    "place",
    "relation",
    "role",
    "badge",
    "lines",
    "language",
    "spelling",
    "twins",
    "absent",
)
MORE = ("unnamed", "absent-hint")
"""Harder than what is promised: targets without any name ("the third tab"), hints that fit nothing ("the fifth Delete"
of three)."""

_PER_PAGE = {"twins": 2, "lines": 5, "language": 6, "absent": 3, "exact": 3, "ordinal": 3, "place": 3}
_ALIKE = ("language", "twins", "lines", "unnamed", "absent-hint")
"""Of these a page may give several of one wording."""
_MOST_PAGES = 150

Box = list[int]


@dataclass(frozen=True)
class Item:
    """What can be asked for. `places` are numbers into the page's places, the outermost first."""

    name: str
    role: str
    badge: str
    shown: str
    box: Box
    control: Box | None
    lines: int
    font_px: float
    places: tuple[int, ...]

    @property
    def x(self) -> float:
        return (self.box[0] + self.box[2]) / 2

    @property
    def y(self) -> float:
        return (self.box[1] + self.box[3]) / 2

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def asked(self) -> str:
        """The name as people say it."""
        return self.name.rstrip("…")


@dataclass
class Page:
    """A page as it was laid out."""

    size: tuple[int, int]
    items: list[Item]
    places: list[dict[str, Any]]
    texts: list[str]
    """All other text, and that of items that cannot be seen whole."""
    cut: list[str] = field(default_factory=list)

    @classmethod
    def measured(cls, data: dict[str, Any]) -> Page:
        """Take what the browser measured; only what is seen whole can be asked for."""
        page = cls(tuple(data["size"]), [], data["places"], [])
        for row in data["items"]:
            if row["state"] == "whole":
                page.items.append(
                    Item(
                        row["name"],
                        row["role"],
                        row["badge"],
                        row["shown"],
                        _pixels(row["box"]),
                        _pixels(row["control_box"]) if row["control_box"] else None,
                        row["lines"],
                        row["font_px"],
                        tuple(row["places"]),
                    )
                )
            elif row["state"] == "cut":
                page.cut.append(plain(row["name"]))
        for row in data["texts"]:
            if row["state"] == "whole":
                page.texts.append(row["text"])
            elif row["state"] == "cut":
                page.cut.append(plain(row["text"]))
        return page

    def same(self, name: str) -> list[Item]:
        """Return the items that a name fits, in reading order."""
        key = plain(name)
        return in_rows([item for item in self.items if key in (plain(item.name), plain(item.shown))])

    def sure(self, name: str) -> bool:
        """Whether no other text reads like a name, nor text of which only a part is seen."""
        key = plain(name)
        return all(key != plain(text) for text in self.texts) and not any(
            key in text or text in key for text in self.cut
        )

    def place(self, item: Item, *kinds: str) -> dict[str, Any] | None:
        """Return the innermost place of some kinds that an item is in."""
        return next((self.places[n] for n in reversed(item.places) if self.places[n]["kind"] in kinds), None)

    def under(self, item: Item) -> bool:
        """Whether it lies under the veil of a dialog."""
        return self.place(item, "under") is not None


Question = tuple[str, str, str, "Item | list[Item] | None"]
"""Category, wording (for telling apart), the words, and what is meant."""

_NTH = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_SHORT_NTH = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th")

_SAY: dict[str, dict[str, tuple[str, ...]]] = {
    "dev": {
        "exact": ("{n}", "“{n}”", '"{n}"', "click {n}", "the '{n}'", "{l}", "click on {n}"),
        "nth": ("the {i} {n}", "{i} {n}", "the {k} {n}", "the {i} {n} {r}", "click the {i} “{n}”"),
        "last": ("the last {n}", "last {n} {r}", "the very last {n}"),
        "top": ("the {i} {n} from the top", "the {n} {r}, {i} from the top", "{n}, {i} from top"),
        "bottom": ("the {i} {n} from the bottom", "the {n} {i} from the bottom"),
        "left": ("the {i} {n} from the left", "the {n} {r} {i} from the left", "{i} {n} from left"),
        "right": ("the {i} {n} from the right", "the {n} {i} from the right"),
        "place": ("the {n} {p}", "{n}, {q}", "the {n} {r} {p}", "{n} ({q})", "click {n} {p}"),
        "side": ("the {s} {n}", "the {s} {n} {r}"),
        "region": ("{n} in the {g}", "the {n} {r} in the {g}", "the {g}'s {n} {r}"),
        "row": (
            "{n} in the row of {a}",
            "the {n} {r} in the {a} row",
            "{n} next to {a}",
            "the {n} {r} for {a}",
            "the {n} to the right of {a}",
        ),
        "card": ("{n} below {a}", "the {n} {r} under {a}", "{n} for {a}"),
        "panel": (
            "{n} under the heading {a}",
            "the {n} {r} in the {a} panel",
            "{n} inside the panel titled {a}",
            "the {n} in the {a} section",
        ),
        "below": ("the {o} below {a}", "the {o} under {a}", "the {o} directly below {a}"),
        "above": ("the {o} above {a}", "the {o} just above {a}"),
        "left of": ("the {o} to the left of {a}", "the {o} left of {a}"),
        "right of": ("the {o} to the right of {a}", "the {o} right of {a}", "the {o} next to {a}"),
        "between": ("the {o} between {a} and {b}",),
        "not region": ("{n}, not the one in the {g}", "the {n} that is not in the {g}"),
        "not panel": ("{n}, not the one under {a}", "the {n} {r} that is not in the {a} panel"),
        "not name": ("{n}, not {a}", "“{n}”, not “{a}”", "{n} (not {a})"),
        "role": ("the {n} {r}", "the “{n}” {r}", "click the {n} {r}", "the {r} named {n}", "{n} {r}"),
        "badge": ("{n}", "the {n} {r}", "“{n}”", "open the {n} {r}", "click {n}"),
        "twins": ("{n}", "“{n}”", "the {n} {r}", "click {n}"),
        "absent": ("{n}", "“{n}”", "click {n}", "the {n} button", "the {n} link"),
        "unnamed": ("the {i} {o}", "the {i} {o} from the {e}"),
    },
    "held": {
        "exact": ("{n}", "please click “{n}”", "„{n}“", "tap {n}", "{u}", "where is {n}", "`{n}`"),
        "nth": ("the {i} {n}", "{n} number {j}", "the {i} {r} that says {n}", "press the {i} {n} {r}", "{k} “{n}”"),
        "last": ("the last {n}", "the final {n}", "the last {r} that says {n}"),
        "top": ("the {i} {n} from the top", "counting from the top, the {i} {n}", "{i} {n} {r} from the top"),
        "bottom": ("the {i} {n} from the bottom", "{i} {n} {r} from the bottom"),
        "left": ("the {i} {n} from the left", "counting from the left, the {i} {n} {r}"),
        "right": ("the {i} {n} from the right", "{n}, {i} from the right"),
        "place": ("the {n} {p}", "{n} – {q}", "{q}: {n}", "the {r} {p} that says {n}", "“{n}” {p}"),
        "side": ("the {s} {n}", "the {n} {r}, the {s} one"),
        "region": ("the {n} in the {g}", "{n} ({g})", "the {n} {r} that is in the {g}"),
        "row": (
            "{n} on the {a} line",
            "the {n} {r} beside {a}",
            "the {n} that belongs to {a}",
            "{n} in the same row as {a}",
            "in the row of {a}, the {n} {r}",
        ),
        "card": ("the {n} beneath {a}", "the {n} {r} of {a}", "the {n} {r} below “{a}”"),
        "panel": (
            "the {n} of the {a} section",
            "the {n} {r} under {a}",
            "in the panel “{a}”, {n}",
            "{n} inside {a}",
        ),
        "below": ("the {o} below {a}", "the {o} right beneath {a}", "the {o} underneath {a}"),
        "above": ("the {o} above {a}", "the {o} directly above {a}"),
        "left of": ("the {o} left of {a}", "the {o} immediately to the left of {a}"),
        "right of": ("the {o} right of {a}", "the {o} on the right of {a}"),
        "between": ("the {o} between {a} and {b}", "what is between {a} and {b}"),
        "not region": ("the {n} outside the {g}", "{n}, but not the one in the {g}"),
        "not panel": ("the {n} {r}, not the one in {a}", "{n}, but not the {a} one"),
        "not name": ("{n}, not {a}", "the {r} {n}, not the {r} {a}", "{n} rather than {a}"),
        "role": ("the {n} {r}", "the {r} labelled {n}", "the {r} “{n}”", "the {r} that says {n}", "select the {n} {r}"),
        "badge": ("the {n} {r}", "{n}", "the {r} {n}", "'{n}'", "go to {n}"),
        "twins": ("{n}", "the {r} {n}", "press the {n} {r}", "'{n}'"),
        "absent": ("{n}", "the '{n}' button", "tap {n}", "the {n} option", "where is “{n}”"),
        "unnamed": ("the {i} {o}", "the {o} that is {i} from the {e}"),
    },
}

_ROLES: dict[str, tuple[str, ...]] = {
    "button": ("button", "btn", "push button"),
    "link": ("link", "hyperlink"),
    "nav": ("link", "item", "menu entry", "navigation item", "sidebar entry"),
    "tab": ("tab",),
    "menu item": ("menu item", "menu entry", "command", "option"),
    "menu": ("menu", "drop-down menu"),
    "check box": ("check box", "checkbox", "tick box", "option"),
    "radio button": ("radio button", "option", "choice"),
    "toggle": ("toggle", "switch", "toggle switch"),
    "field": ("field", "text box", "input", "text field", "input field", "entry field"),
    "drop-down": ("drop-down", "dropdown", "combo box", "select box", "list box"),
    "heading": ("heading", "title", "section heading"),
    "column header": ("column", "column header", "column heading"),
    "text": ("text",),
    "tile": ("tile", "card", "link"),
}
_NATIVE: dict[str, dict[str, tuple[str, ...]]] = {
    "de": {
        "button": ("die Schaltfläche {n}", "der Knopf „{n}“", "klicke auf {n}"),
        "link": ("der Link {n}", "öffne den Link „{n}“"),
        "tab": ("der Reiter {n}", "die Registerkarte „{n}“"),
        "field": ("das Feld {n}", "das Eingabefeld „{n}“"),
        "check box": ("das Kontrollkästchen {n}", "das Kästchen „{n}“"),
        "menu item": ("der Menüpunkt {n}", "der Menüeintrag „{n}“"),
        "": ("„{n}“", "klicke auf „{n}“"),
    },
    "fr": {
        "button": ("le bouton {n}", "le bouton « {n} »", "clique sur {n}"),
        "link": ("le lien {n}", "ouvre le lien « {n} »"),
        "tab": ("l'onglet {n}", "l'onglet « {n} »"),
        "field": ("le champ {n}", "le champ « {n} »"),
        "check box": ("la case {n}", "la case à cocher « {n} »"),
        "menu item": ("l'élément de menu {n}", "la commande « {n} »"),
        "": ("« {n} »", "clique sur « {n} »"),
    },
}


class Asker:
    """Makes the questions about a page.

    Args:
        page: what is on it.
        split: whose wordings are used.
        language: of the page.
        draw: where chance comes from.
    """

    def __init__(self, page: Page, split: str, language: str, draw: random.Random) -> None:
        self.page = page
        self.split = split
        self.language = language
        self.draw = draw
        by_name = defaultdict(list)
        for item in page.items:
            by_name[plain(item.name)].append(item)
        self.named = {key: in_rows(items) for key, items in by_name.items() if page.sure(items[0].name)}
        # Of an item whose number is part of the text, "Inbox (3)", both readings count.
        self.single = [
            items[0]
            for items in self.named.values()
            if len(items) == len(page.same(items[0].name)) == 1 and not page.under(items[0])
        ]
        self.several = [
            items
            for items in self.named.values()
            if len(items) > 1 and len(items) == len(page.same(items[0].name)) and len({i.role for i in items}) == 1
        ]

    def questions(self) -> list[Question]:
        """Return all questions in an order by chance."""
        if self.language != "en":
            made = [*self._language()]
        else:
            parts = (
                self._simple,
                self._ordinals,
                self._places,
                self._rows,
                self._panels,
                self._neighbours,
                self._negatives,
                self._twins,
                self._absent,
            )
            made = [question for part in parts for question in part()]
        self.draw.shuffle(made)
        return made

    def _say(self, form: str, item: Item | None = None, **words: str) -> str:
        if item is not None:
            name = item.asked
            # Where what the page shows is asked for as it stands: "Save as…".
            if item.badge == "ellipsis" and self.draw.random() < 0.3:
                name = self.draw.choice((item.name, name + "..."))
            words = {"n": name, "l": name.lower(), "u": name.upper(), "r": self.draw.choice(_ROLES[item.role]), **words}
        fitting = [said for said in _SAY[self.split][form] if all(w in words for w in re.findall(r"{(\w)}", said))]
        return self.draw.choice(fitting).format(**words)

    def _simple(self) -> Iterator[Question]:
        for item in self.single:
            if item.badge and item.badge != "placeholder":
                yield "badge", item.badge, self._say("badge", item), item
            elif item.lines > 1 and item.role != "drop-down":
                yield "lines", f"{item.lines} lines", self._say(self.draw.choice(("exact", "role")), item), item
            elif not item.badge:
                yield "exact", item.role, self._say("exact", item), item
                yield "role", item.role, self._say("role", item), item
            for said in SPELLINGS[self.split].get(item.name, ()):
                # A plural must not be the name of something else.
                others = [
                    i for i in self.page.items if i is not item and plain(said) in (plain(i.name), plain(i.shown))
                ]
                if not others and self.page.sure(said):
                    yield "spelling", "placeholder" if item.badge == "placeholder" else "name", said, item

    def _ordinals(self) -> Iterator[Question]:
        for items in self.several:
            shape = arranged(items)
            if len(items) < 3 or shape is None or any(map(self.page.under, items)) or len(items) > len(_NTH):
                continue
            for at, item in enumerate(items):
                words = {"i": _NTH[at], "j": str(at + 1), "k": _SHORT_NTH[at]}
                yield "ordinal", "nth", self._say("nth", item, **words), item
                if shape in ("column", "row"):
                    fore, back = ("top", "bottom") if shape == "column" else ("left", "right")
                    yield "ordinal", fore, self._say(fore, item, i=_NTH[at]), item
                    yield "ordinal", back, self._say(back, item, i=_NTH[len(items) - 1 - at]), item
            yield "ordinal", "last", self._say("last", items[-1]), items[-1]
            for at in range(len(items), min(len(items) + 3, len(_NTH))):
                beyond = {"i": _NTH[at], "j": str(at + 1), "k": _SHORT_NTH[at]}
                yield "absent-hint", "nth", self._say("nth", items[0], **beyond), None
        for place in self._groups():
            items = self._members(place)
            noun, axis = place["title"], self._axis(items)
            alone = sum(other["title"] == noun for other in self._groups()) == 1
            if alone and noun in ("tab", "menu item") and axis and len(items) > 3:
                if axis == "y" and len({round(i.x) for i in items}) > 1:
                    continue
                edge = "left" if axis == "x" else "top"
                for at, item in enumerate(items[: len(_NTH)]):
                    yield "unnamed", noun, self._say("unnamed", i=_NTH[at], o=noun, e=edge), item

    def _places(self) -> Iterator[Question]:
        width, height = self.page.size
        for items in self.several:
            if any(map(self.page.under, items)) and not any(self._in_dialog(item) for item in items):
                continue
            if len(items) > 4:
                continue
            for item in items:
                if self.page.under(item):
                    continue
                others = [other for other in items if other is not item]
                region = self.page.place(item, "region")
                column = region is not None and region["title"] in ("sidebar", "right column", "drawer")
                for here, there in _corners(item, others, width, height, column):
                    yield "place", here, self._say("place", item, p=there, q=here), item
                if region is not None and all(self.page.place(other, "region") is not region for other in others):
                    yield "place", region["title"], self._say("region", item, g=region["title"]), item
                if len(items) == 2:
                    for side in _sides(item, others[0]):
                        yield "place", side, self._say("side", item, s=side), item
        for item in self.draw.sample(self.single, min(2, len(self.single))):
            for here, there in _corners(item, [], width, height, False)[:1]:
                yield "place", "unique name", self._say("place", item, p=there, q=here), item

    def _in_dialog(self, item: Item) -> bool:
        place = self.page.place(item, "region")
        return place is not None and place["title"] == "dialog"

    def _rows(self) -> Iterator[Question]:
        for items in self.several:
            for item in items:
                place = self.page.place(item, "row", "card", "message")
                if place is None or self.page.under(item) or not self._anchor(place["title"]):
                    continue
                form = "row" if place["kind"] == "row" else "card"
                yield "relation", form, self._say(form, item, a=place["title"]), item
            place = self.page.place(items[0], "row")
            if place is not None and not self.page.under(items[0]):
                for pool in ("people", "products", "files"):
                    names = POOLS[self.split, self.language][pool]
                    left = [name for name in names if plain(name) not in self.named]
                    if place["title"] in names and left:
                        said = self._say("row", items[0], a=self.draw.choice(left))
                        yield "absent-hint", "row", said, None

    def _anchor(self, title: str) -> bool:
        return len(self.page.same(title)) == 1 and self.page.sure(title)

    def _panels(self) -> Iterator[Question]:
        for items in self.several:
            inside = [self.page.place(item, "panel") for item in items]
            for item, place in zip(items, inside):
                if place is not None and sum(other is place for other in inside) == 1 and self._anchor(place["title"]):
                    yield "relation", "panel", self._say("panel", item, a=place["title"]), item

    def _groups(self) -> list[dict[str, Any]]:
        return [place for place in self.page.places if place["kind"] == "group"]

    def _members(self, place: dict[str, Any]) -> list[Item]:
        number = next(n for n, other in enumerate(self.page.places) if other is place)
        items = [item for item in self.page.items if number in item.places]
        return [] if any(map(self.page.under, items)) else items

    def _axis(self, items: list[Item]) -> str | None:
        if len(items) < 2:
            return None
        level = all(abs(a.y - items[0].y) < 0.3 * a.height for a in items)
        upright = all(abs(a.box[0] - items[0].box[0]) < a.height for a in items)
        return "x" if level else "y" if upright else None

    def _neighbours(self) -> Iterator[Question]:
        for place in self._groups():
            items = self._members(place)
            axis = self._axis(items)
            if axis is None or any(not self._anchor(item.name) for item in items):
                continue
            before, after = ("left of", "right of") if axis == "x" else ("above", "below")
            fields = place["title"] == "field"
            # Where the label stands above its box, "below Email" is that box.
            over = fields and any(i.control and i.height > 1.6 * (i.control[3] - i.control[1]) for i in items)
            for one, two in pairwise(items):
                gap = two.box[0] - one.box[2] if axis == "x" else two.box[1] - one.box[3]
                if gap > 6 * min(one.height, two.height):
                    continue
                for form, anchor, target in ((after, one, two), (before, two, one)):
                    name = f"the {anchor.asked} field" if over else anchor.asked
                    said = self._say(form, o=place["title"], a=name)
                    if "next to" in said and anchor not in (items[0], items[-1]):
                        continue  # it has two neighbours
                    if not (form == "below" and fields and "next to" in said):
                        yield "relation", form, said, target
            for one, two, three in zip(items, items[1:], items[2:]):
                said = self._say("between", o=place["title"], a=one.asked, b=three.asked)
                yield "relation", "between", said, two

    def _negatives(self) -> Iterator[Question]:
        for items in self.several:
            if len(items) != 2 or any(map(self.page.under, items)):
                continue
            for item, other in (items, items[::-1]):
                region, own = self.page.place(other, "region"), self.page.place(item, "region")
                if region is not None and own is not region:
                    yield "relation", "not region", self._say("not region", item, g=region["title"]), item
                panel, own = self.page.place(other, "panel"), self.page.place(item, "panel")
                if panel is not None and own is not panel and self._anchor(panel["title"]):
                    yield "relation", "not panel", self._say("not panel", item, a=panel["title"]), item
        for item in self.single:
            longer = [i for i in self.single if plain(i.name).startswith(plain(item.name)) and i is not item]
            near = [i for i in self.single if _akin(i.asked, item.asked)]
            for other in [*longer, *near][:1]:
                yield "relation", "not name", self._say("not name", item, a=other.asked), item

    def _twins(self) -> Iterator[Question]:
        for items in self.several:
            if not any(map(self.page.under, items)) and len(items) <= 6:
                yield (
                    "twins",
                    f"{min(len(items), 3)} or more" if len(items) > 2 else "2",
                    self._say("twins", items[0]),
                    items,
                )

    def _absent(self) -> Iterator[Question]:
        words = [item for item in self.page.items if not self.page.under(item)]
        for item in words:
            for name in NEAR_MISSES[self.split].get(item.name, ()):
                if (
                    not self.page.same(name)
                    and self.page.sure(name)
                    and not any(plain(name) == plain(text) for text in self.page.texts)
                ):
                    yield "absent", item.name, self._say("absent", n=name), None

    def _language(self) -> Iterator[Question]:
        for item in self.single:
            name = item.asked
            if self.draw.random() < 0.3:
                forms = _NATIVE[self.language].get(item.role, ()) or _NATIVE[self.language][""]
                yield "language", f"{self.language} native", self.draw.choice(forms).format(n=name), item
            else:
                said = self._say(self.draw.choice(("exact", "role")), item)
                yield "language", f"{self.language} name", said, item


def make(
    folder: Path,
    *,
    split: str = "dev",
    seed: int = 0,
    per_category: int = 30,
    categories: tuple[str, ...] | None = None,
) -> list[dict[str, Any]]:
    """Render pages and ask about them, until each category has its cases.

    Args:
        folder: gets `cases.jsonl` and the pictures; made if missing.
        split: "dev" or "held".
        seed: other seeds give other pages.
        per_category: cases of each category.
        categories: which; None for all.

    Returns:
        The rows of `cases.jsonl`.

    Raises:
        FileNotFoundError: no Chromium is installed.
        RuntimeError: the templates don't give enough cases.
    """
    wanted = categories or CATEGORIES + MORE
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    have: Counter[str] = Counter()
    gives: dict[tuple[int, str], set[str]] = {}
    asked: Counter[tuple[str, str]] = Counter()
    templates = TEMPLATES[split]
    with Browser() as browser:
        for number in range(_MOST_PAGES):
            missing = {category for category in wanted if have[category] < per_category}
            if not missing:
                break
            language = ("en", "en", "de", "en", "fr")[number % 5] if "language" in missing else "en"
            kind = number % len(templates)
            known = gives.get((kind, "en" if language == "en" else "other"))
            if known is not None and not known & missing:
                continue
            draw = random.Random(f"{split} {seed} {number}")
            maker = Maker(draw, split, language)
            picture, data = browser.show(maker.page(templates[kind]), maker.look.size, maker.look.scale)
            page = Page.measured(data)
            questions = Asker(page, split, language, draw).questions()
            gives.setdefault((kind, "en" if language == "en" else "other"), set()).update(q[0] for q in questions)
            image = f"images/{split}_{seed}_{number:03}_{templates[kind].__name__}.png"
            # Rare wordings first, so that no kind of question makes up a category alone.
            here: Counter[str] = Counter()
            words: set[tuple[str, str]] = set()
            for category, wording, said, meant in sorted(questions, key=lambda q: asked[q[0], q[1]]):
                sort = (category, wording)
                if category not in missing or here[category] >= _PER_PAGE.get(category, 4):
                    continue
                if have[category] >= per_category or (sort in words and category not in _ALIKE):
                    continue
                words.add(sort)
                here[category] += 1
                have[category] += 1
                asked[sort] += 1
                rows.append(
                    {"id": len(rows), "image": image, "width": page.size[0], "height": page.size[1]}
                    | _row(page, category, wording, said, meant)
                    | {"scale": maker.look.scale, "source": f"{templates[kind].__name__} {language}"}
                )
            if here:
                (folder / image).write_bytes(picture)
    short = {category: have[category] for category in wanted if have[category] < per_category}
    if short:
        raise RuntimeError(f"{_MOST_PAGES} pages gave too few cases: {short}")
    with (folder / "cases.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return rows


def _row(page: Page, category: str, wording: str, said: str, meant: Item | list[Item] | None) -> dict[str, Any]:
    told: dict[str, Any] = {"instruction": said, "category": category, "wording": wording, "type": "text"}
    if meant is None:
        return told | {"bbox": None}
    items = meant if isinstance(meant, list) else [meant]
    item = items[0]
    key = plain(item.name)
    told |= {
        "bbox": item.box,
        "kind": item.role,
        "name": item.name,
        "visible_text": item.shown,
        "shown": "placeholder" if item.badge == "placeholder" else "text",
        "unique": len(page.same(item.name)) == 1,
        "matches_on_page": len(page.same(item.name)),
        "contained_in": sum(key in plain(other.shown) for other in page.items),
        "font_px": item.font_px,
    }
    if item.control is not None:
        told["control"] = item.control
    if isinstance(meant, list):
        told["alternatives"] = [other.box for other in items]
    return told


def in_rows(items: list[Item]) -> list[Item]:
    """Return items in reading order: by rows, and in a row from the left."""
    rows: list[list[Item]] = []
    for item in sorted(items, key=lambda item: item.y):
        if rows and item.y - rows[-1][0].y < 0.5 * min(item.height, rows[-1][0].height):
            rows[-1].append(item)
        else:
            rows.append([item])
    return [item for row in rows for item in sorted(row, key=lambda item: item.x)]


def arranged(items: list[Item]) -> str | None:
    """Return "column", "row" or "grid" where that is how items stand; None where counting them is open to dispute."""
    size = min(item.height for item in items)
    columns = _clusters([item.x for item in items], 2 * size)
    rows = _clusters([item.y for item in items], 0.5 * size)
    if columns == 1 and rows == len(items):
        return "column"
    if rows == 1 and columns == len(items):
        return "row"
    return "grid" if rows * columns == len(items) else None


def _clusters(values: list[float], gap: float) -> int:
    values = sorted(values)
    return 1 + sum(b - a > gap for a, b in pairwise(values))


def _corners(item: Item, others: list[Item], width: int, height: int, column: bool) -> list[tuple[str, str]]:
    """Return words for where on the page an item is and none of the others is near."""
    x, y = item.x / width, item.y / height
    across = "left" if x < 0.28 else "right" if x > 0.72 else ""
    up = "top" if y < 0.22 else "bottom" if y > 0.78 else ""

    def clear(sides: tuple[str, ...]) -> bool:
        def far(other: Item) -> bool:
            ox, oy = other.x / width, other.y / height
            away = {"left": ox - x, "right": x - ox, "top": oy - y, "bottom": y - oy}
            return any(away[side] > 0.35 for side in sides)

        return all(map(far, others))

    made = []
    if across and up and clear((across, up)):
        made += [
            (f"{up} {across}", f"at the {up} {across}"),
            (f"{up} {across} corner", f"in the {up} {across} corner"),
        ]
    if up and clear((up,)):
        made.append((up, f"at the {up}"))
    if across and clear((across,)):
        made.append((f"{across} side", f"on the {across}"))
        if column:
            made.append((f"{across} column", f"in the {across} column"))
    return made


def _sides(item: Item, other: Item) -> list[str]:
    """Return words for where an item is, seen from the only other one."""
    dx, dy = item.x - other.x, item.y - other.y
    made = []
    if abs(dx) > 3 * max(item.width, item.height) and abs(dx) > abs(dy):
        made.append(("left", "leftmost") if dx < 0 else ("right", "rightmost"))
    if abs(dy) > 3 * item.height and abs(dy) > abs(dx) / 3:
        made.append(("upper", "topmost") if dy < 0 else ("lower", "bottom"))
    return [side for pair in made for side in pair]


def _akin(one: str, other: str) -> bool:
    """Whether two names share their first or last word."""
    a, b = one.lower().split(), other.lower().split()
    return a != b and len(a) + len(b) > 2 and (a[0] == b[0] or a[-1] == b[-1])


def _pixels(box: list[float]) -> Box:
    return [max(0, math.floor(box[0])), max(0, math.floor(box[1])), math.ceil(box[2]), math.ceil(box[3])]
