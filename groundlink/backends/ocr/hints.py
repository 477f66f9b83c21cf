"""Taking a phrase apart into what to look for and which of several: "the second Delete", "the field below Email".

A phrase can be read in more ways than one, and a button may really read "Last name" or "Top right". So the readings
come in order, the one that takes fewest words for hints first, and the first that has a match on the page is it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal, TypeAlias

from groundlink.backends.ocr.phrases import without_verb

Side = Literal["top", "bottom", "left", "right", "middle"]
Near = Literal["below", "above", "left", "right", "next to"]


@dataclass(frozen=True)
class Ordinal:
    """The `number`th, from 0, or from -1 backwards; counted in reading order, or from one `side` of the picture."""

    number: int
    side: Side | None = None


@dataclass(frozen=True)
class Place:
    """In these parts of the picture; in a `zone` such as a header or a sidebar, which has its place at the edge."""

    sides: frozenset[Side]
    zone: bool = False


@dataclass(frozen=True)
class Relation:
    """In a direction from what another phrase describes."""

    near: Near
    anchor: str


@dataclass(frozen=True)
class Row:
    """In the row of what another phrase describes; where that is a number, in that row."""

    anchor: str


@dataclass(frozen=True)
class Column:
    """In the column of what another phrase describes."""

    anchor: str


@dataclass(frozen=True)
class Under:
    """Under a heading: below it, and above the next one like it. Also what is in a panel with a title."""

    heading: str


@dataclass(frozen=True)
class Between:
    """Between what two other phrases describe."""

    first: str
    second: str


@dataclass(frozen=True)
class Not:
    """Not what this describes: a hint, or the words of another name."""

    hint: Hint | str


Hint: TypeAlias = "Ordinal | Place | Relation | Row | Column | Under | Between | Not"


@dataclass(frozen=True)
class Reading:
    """One way to read a phrase: the words of the thing itself (empty: anything), and what settles which one it is."""

    words: str
    hints: tuple[Hint, ...] = ()


_THE = r"(?:the |a |an )?"
_NUMBERS = {
    "first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3, "fifth": 4, "5th": 4,
    "sixth": 5, "6th": 5, "seventh": 6, "7th": 6, "eighth": 7, "8th": 7, "ninth": 8, "9th": 8, "tenth": 9, "10th": 9,
    "last": -1, "final": -1, "penultimate": -2, "second to last": -2, "second last": -2, "next to last": -2,
    "third to last": -3, "third last": -3,
}  # fmt: skip
_ORDINAL = "(?:" + "|".join(sorted((re.escape(word) for word in _NUMBERS), key=len, reverse=True)) + ")"
_EXTREMES: dict[str, Side] = {
    "leftmost": "left", "left-most": "left", "rightmost": "right", "right-most": "right", "topmost": "top",
    "top-most": "top", "uppermost": "top", "highest": "top", "bottommost": "bottom", "bottom-most": "bottom",
    "lowest": "bottom", "lowermost": "bottom",
}  # fmt: skip
_SIDES: dict[str, Side] = {
    "top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom", "left": "left", "left-hand": "left",
    "right": "right", "right-hand": "right", "middle": "middle", "center": "middle", "centre": "middle",
    "central": "middle",
}  # fmt: skip
_SIDE = "(?:" + "|".join(sorted(_SIDES, key=len, reverse=True)) + ")"
_CORNER = rf"{_SIDE}(?:[- ]{_SIDE})?"
_PART = (
    r"(?: (?:corner|side|edge|half|part|end|area|hand side|column|portion|third))?"
    r"(?: of (?:the |this )?(?:page|screen|window|picture|image|view|dialog|form|app))?"
)
# Parts of a page that have a place and no title.
_ZONES: dict[str, Side] = {
    "header": "top", "page header": "top", "top bar": "top", "navbar": "top", "nav bar": "top", "navigation bar": "top",
    "title bar": "top", "menu bar": "top", "footer": "bottom", "page footer": "bottom", "bottom bar": "bottom",
    "status bar": "bottom", "sidebar": "left", "side bar": "left", "left sidebar": "left", "right sidebar": "right",
    "left panel": "left", "right panel": "right", "left column": "left", "right column": "right", "left menu": "left",
    "left pane": "left", "right pane": "right", "left navigation": "left",
}  # fmt: skip
_ZONE = "(?:" + "|".join(sorted((re.escape(zone) for zone in _ZONES), key=len, reverse=True)) + ")"
_PANEL = (
    r"(?:panel|section|card|box|group|dialog|dialogue|window|form|area|table|list|menu|pane|pop-?up|modal|block|tile"
    r"|fieldset|category|widget|column)"
)
_NEAR: dict[str, Near] = {
    "below": "below", "beneath": "below", "underneath": "below", "under": "below", "above": "above", "over": "above",
    "left of": "left", "to the left of": "left", "on the left of": "left", "before": "left",
    "right of": "right", "to the right of": "right", "on the right of": "right", "after": "right",
    "next to": "next to", "beside": "next to", "besides": "next to", "near": "next to", "close to": "next to",
    "by": "next to", "adjacent to": "next to", "alongside": "next to",
}  # fmt: skip
_RELATION = "(?:" + "|".join(sorted(_NEAR, key=len, reverse=True)) + ")"
_ADVERB = (
    r"(?:right |just |directly |immediately |that is |that's |which is |located |placed |positioned |found |shown )*"
)

_PREFIX_ORDINAL = re.compile(rf"^{_THE}(?:very )?(?P<ordinal>{_ORDINAL})(?: one)? (?P<rest>.+)$", re.IGNORECASE)
_PREFIX_SIDE = re.compile(rf"^{_THE}(?P<side>{'|'.join(_EXTREMES)}|{_CORNER}) (?P<rest>.+)$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(?P<rest>.+?)(?:,)? (?:number |no\. ?|nr\. ?|#)(?P<number>[1-9]\d?)$", re.IGNORECASE)
_COUNTED = r"(?: (?:counted |counting |starting )?(?:from|on|at) (?:the )?(?P<side>left|right|top|bottom))"
_LAST_ORDINAL = re.compile(
    rf"^(?P<rest>.+?)(?:, {_THE}(?:very )?(?P<ordinal>{_ORDINAL})(?: one)?{_COUNTED}?"
    rf"|,? (?:the )?(?P<counted>{_ORDINAL})(?: one)?{_COUNTED.replace('side', 'whence')})$",
    re.IGNORECASE,
)
_FROM_SIDE = re.compile(rf"^(?P<rest>.+?),?{_COUNTED}$", re.IGNORECASE)
_SUFFIX_PLACE = re.compile(
    rf"^(?P<rest>.*?)(?:,|,? (?:in|at|on|near|to|towards?)) {_THE}(?:very |far |extreme )?"
    rf"(?P<side>{_CORNER}){_PART}$",
    re.IGNORECASE,
)
_SUFFIX_ZONE = re.compile(
    rf"^(?P<rest>.*?)(?:,|,? (?:in|at|on|from|of|inside|within)) {_THE}(?P<zone>{_ZONE})$", re.IGNORECASE
)
_ZONES_OWN = re.compile(rf"^{_THE}(?P<zone>{_ZONE})(?:'s|’s) (?P<rest>.+)$", re.IGNORECASE)
_SUFFIX_NOT = re.compile(
    r"^(?P<rest>.*?)(?:,? (?:but |and )?not|,? except(?: for)?|,? other than|,? rather than|,? instead of|,? excluding)"
    r" (?P<other>.+)$",
    re.IGNORECASE,
)
_SUFFIX_RELATION = re.compile(rf"^(?P<rest>.*?),? ?\b{_ADVERB}(?P<near>{_RELATION}) (?P<anchor>.+)$", re.IGNORECASE)
_SUFFIX_ROW = re.compile(
    rf"^(?P<rest>.*?),? (?:in|on|from|of) {_THE}(?:same )?(?:table )?(?:row|line|entry)"
    rf" (?:of|with|as|for|containing|named|called|labell?ed|that (?:says|reads|contains)|where .*? is) (?P<anchor>.+)$",
    re.IGNORECASE,
)
_SUFFIX_ROW_NAMED = re.compile(
    rf"^(?P<rest>.*?),? (?:in|on|from|of) {_THE}(?P<anchor>.+?) (?:table )?(?:row|line|entry)$", re.IGNORECASE
)
_SUFFIX_FOR = re.compile(r"^(?P<rest>.*?),? (?:for|belonging to) (?P<anchor>.+)$", re.IGNORECASE)
_SUFFIX_COLUMN = re.compile(
    rf"^(?P<rest>.*?),? (?:in|from|of) {_THE}"
    r"(?:(?P<anchor>.+?) column|column (?:named |called |titled |headed )?(?P<other>.+))$",
    re.IGNORECASE,
)
_SUFFIX_UNDER = re.compile(
    rf"^(?P<rest>.*?),? (?:in|under|below|beneath|inside|within|from|of|on) {_THE}"
    rf"(?:heading|headline|title|caption|{_PANEL})"
    rf"(?: (?:titled|called|named|labell?ed|headed|that says|that reads|with the (?:title|heading)))? (?P<heading>.+)$",
    re.IGNORECASE,
)
_SUFFIX_PANEL = re.compile(
    rf"^(?P<rest>.*?),? (?:in|inside|within|from|of|on|under|below) {_THE}"
    rf"(?P<heading>.+?) (?:{_PANEL}|heading|headline)$",
    re.IGNORECASE,
)
_SUFFIX_IN = re.compile(r"^(?P<rest>.*?),? (?:in|inside|within) (?P<heading>.+)$", re.IGNORECASE)
_SUFFIX_BETWEEN = re.compile(r"^(?P<rest>.*?),? between (?P<first>.+?) and (?P<second>.+)$", re.IGNORECASE)

_QUOTED = re.compile(
    r"\"[^\"]+\"|“[^”“]+[”“]|„[^“”]+[“”]|«[^»]+»|‹[^›]+›|「[^」]+」|`[^`]+`|(?<!\w)'.+?'(?!\w)|(?<!\w)‘.+?’(?!\w)"
)
_MOST_READINGS = 24
_MOST_HINTS = 4


def readings(phrase: str) -> list[Reading]:
    """Return the ways to read a phrase that take some of its words for hints, those with fewest hints first."""
    phrase = re.sub(r" \(([^()]+)\)$", r", \1", without_verb(phrase.strip()))  # "Refresh (top right corner)"
    quotes = [match.group() for match in _QUOTED.finditer(phrase)]
    # Words in quotes are a name, whatever they say; a private character stands for each.
    for number, quote in enumerate(quotes):
        phrase = phrase.replace(quote, chr(0xE000 + number), 1)

    def spelled(text: str) -> str:
        for number, quote in enumerate(quotes):
            text = text.replace(chr(0xE000 + number), quote)
        return text.strip()

    found: list[Reading] = []
    layer = [Reading(phrase.strip())]
    for _ in range(_MOST_HINTS):
        layer = [further for reading in layer for further in _one_more(reading)]
        found += [reading for reading in layer if reading not in found]
        if not layer or len(found) > _MOST_READINGS:
            break
    return [
        Reading(spelled(reading.words), tuple(_with_quotes(hint, spelled) for hint in reading.hints))
        for reading in found[:_MOST_READINGS]
    ]


def _one_more(reading: Reading) -> Iterator[Reading]:
    """Yield the reading with one more of its words taken for a hint."""
    for words, hint in _hints(reading.words):
        if not isinstance(hint, Ordinal) or not any(isinstance(other, Ordinal) for other in reading.hints):
            yield Reading(words.strip(" ,"), (*reading.hints, hint))


def _hints(words: str) -> Iterator[tuple[str, Hint]]:
    match: re.Match[str] | None
    if match := _SUFFIX_NOT.match(words):
        yield match["rest"], Not(_excluded(match["other"]))
    if match := _SUFFIX_BETWEEN.match(words):
        yield match["rest"], Between(_bare(match["first"]), _bare(match["second"]))
    if match := _LAST_ORDINAL.match(words):
        named = match["side"] or match["whence"]
        number = _NUMBERS[(match["ordinal"] or match["counted"]).lower()]
        yield match["rest"], Ordinal(number, _SIDES[named.lower()] if named else None)
    if match := _FROM_SIDE.match(words):
        side = _SIDES[match["side"].lower()]
        if inner := _PREFIX_ORDINAL.match(match["rest"]):
            yield _the(inner["rest"]), Ordinal(_NUMBERS[inner["ordinal"].lower()], side)
            return
    if match := _PREFIX_ORDINAL.match(words):
        yield _the(match["rest"]), Ordinal(_NUMBERS[match["ordinal"].lower()])
    if match := _NUMBERED.match(words):
        yield match["rest"], Ordinal(int(match["number"]) - 1)
    if match := _SUFFIX_ZONE.match(words):
        yield match["rest"], Place(frozenset({_ZONES[match["zone"].lower()]}), zone=True)
    if match := _ZONES_OWN.match(words):
        yield _the(match["rest"]), Place(frozenset({_ZONES[match["zone"].lower()]}), zone=True)
    if match := _SUFFIX_PLACE.match(words):
        yield match["rest"], Place(_sides(match["side"]))
    if match := _PREFIX_SIDE.match(words):
        extreme = _EXTREMES.get(match["side"].lower())
        yield _the(match["rest"]), Ordinal(0, extreme) if extreme else Place(_sides(match["side"]))
    for pattern in (_SUFFIX_ROW, _SUFFIX_ROW_NAMED):
        if match := pattern.match(words):
            yield match["rest"], Row(_bare(match["anchor"]))
    if match := _SUFFIX_COLUMN.match(words):
        yield match["rest"], Column(_bare(match["anchor"] or match["other"]))
    for pattern in (_SUFFIX_UNDER, _SUFFIX_PANEL):
        if match := pattern.match(words):
            yield match["rest"], Under(_bare(match["heading"]))
    if match := _SUFFIX_RELATION.match(words):
        yield match["rest"], Relation(_NEAR[match["near"].lower()], _bare(match["anchor"]))
    if match := _SUFFIX_FOR.match(words):
        yield match["rest"], Row(_bare(match["anchor"]))
    if match := _SUFFIX_IN.match(words):
        yield match["rest"], Under(_bare(match["heading"]))


def _excluded(other: str) -> Hint | str:
    """What comes after "not": "the one in the header", "at the top", or another name."""
    rest = re.sub(
        r"^(?:the |any |that |this )?(?:ones?|button|link|entry|item|field|tab|option)\b ?",
        "",
        other,
        flags=re.IGNORECASE,
    )
    if rest != other or re.match(r"(?:in|at|on|below|above|under|next|to|beside|near)\b", other, re.IGNORECASE):
        for words, hint in _hints("x " + rest if rest else "x"):
            if words.strip(" ,") == "x" and not isinstance(hint, Not):
                return hint
    if match := re.fullmatch(rf"{_THE}(?P<ordinal>{_ORDINAL})(?: one)?", other, re.IGNORECASE):
        return Ordinal(_NUMBERS[match["ordinal"].lower()])
    return _bare(other)


def _the(rest: str) -> str:
    """What an article stood before stays so: "the second Delete link" is a link, and no text "Delete link"."""
    return rest if re.match(r"(?:the|a|an) ", rest, re.IGNORECASE) else f"the {rest}"


def _sides(words: str) -> frozenset[Side]:
    return frozenset(_SIDES[word] for word in re.findall(_SIDE, words.lower()))


def _bare(words: str) -> str:
    return words.strip(" ,")


def _with_quotes(hint: Hint, spelled: Callable[[str], str]) -> Hint:
    """Return the hint with the quotes in its words again."""
    changes: dict[str, object] = {}
    for item in fields(hint):
        value = getattr(hint, item.name)
        if isinstance(value, str) and item.name not in ("near", "side"):
            changes[item.name] = spelled(value)
        elif is_dataclass(value):
            changes[item.name] = _with_quotes(value, spelled)  # type: ignore[arg-type]
    return replace(hint, **changes)  # type: ignore[arg-type]
