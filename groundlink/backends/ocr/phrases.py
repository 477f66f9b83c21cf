"""What a phrase asks for: the name that can be read, without quotes, articles, verbs and the kind of element."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_QUOTED = re.compile(
    r"\"([^\"]+)\"|“([^”“]+)[”“]|„([^“”]+)[“”]|«([^»]+)»|‹([^›]+)›|「([^」]+)」|『([^』]+)』|`([^`]+)`"
    r"|(?<!\w)'(.+?)'(?!\w)|(?<!\w)‘(.+?)’(?!\w)"
)

# A second quote that opens: a name with quotes in it. (In `"Save", not "Save as"` it closes.)
_NESTED = re.compile(r"\"([^\"]*(?:(?:(?<=[\s(\[=:])|^)\"(?=\S)[^\"]+\"[^\"]*)+)\"")

_ARTICLES = r"(?:the|a|an|this|that|my|your)"

# Longest first where one begins with another.
_SURE_ROLES = (
    r"(?:(?:(?:primary|submit|toolbar|dialog|push|radio|toggle|menu) )?(?:button|btn)|hyperlink|(?:nav(?:igation)?"
    r"|footer|header|sidebar|menu) link|(?:text|input|search|form|password|number|date) (?:field|box|area|input)"
    r"|textbox|textfield|textarea|(?:nav(?:igation)?|menu|list|tree|sidebar|toolbar|breadcrumb) (?:item|entry|option)"
    r"|menuitem|(?:table|column|row) (?:cell|header|heading)|(?:check|tick) ?box"
    r"|(?:section|page|card) (?:heading|headline|title)|drop-?down(?: (?:menu|list))?|combo ?box"
    r"|select box|list ?box)"
)
# Also ends of names ("Add item", "Copy link"), so they count as kinds of elements only behind an article.
_LIKELY_ROLES = (
    r"(?:link|field|box|input|placeholder|breadcrumb|menu|item|entry|tab|radio|toggle|switch|slider|select|option"
    r"|label|heading|headline|title|header|caption|text|word|words|chip|badge|tile|card|cell|column|row|key|control|element|widget)"
)
_PICTURE_ROLES = (
    r"(?:icons?|image|picture|photo|logo|avatar|symbol|pictogram|emoji|arrow|thumbnail|illustration|graphic|glyph)"
)
_SAYING = (
    r"(?:labell?ed|named|called|titled|marked|that says|which says|that reads|which reads|saying|reading"
    r"|with (?:the )?(?:text|label|name|title|caption|word|words)|for)"
)
_COLORS = (
    r"(?:red|green|blue|yellow|orange|purple|violet|pink|brown|black|white|gr[ae]y|cyan|magenta|turquoise|golden|gold"
    r"|silver|dark|light|bright|colou?red)"
)

_LEADING_VERB = re.compile(
    r"^(?:please |now )*(?:"
    r"(?:(?:double|right|left)[- ])?(?:click|tap)(?: on| at)?"
    r"|(?:press|push|hit|select|choose|pick|open|find|locate|check|uncheck|focus|go to|move to|hover over|show me"
    rf"|where is|where's)(?= (?:on )?{_ARTICLES} )(?: on)?"
    r") ",
    re.IGNORECASE,
)
_LEADING_ARTICLE = re.compile(rf"^{_ARTICLES} ", re.IGNORECASE)
_SURE_ROLE_LAST = re.compile(rf" {_SURE_ROLES}$", re.IGNORECASE)
_ROLE_LAST = re.compile(rf" (?:{_SURE_ROLES}|{_LIKELY_ROLES})$", re.IGNORECASE)
_SURE_ROLE_WORD_LAST = re.compile(
    r" (?:button|btn|hyperlink|textbox|textfield|textarea|menuitem|checkbox|dropdown|combobox|listbox)$", re.IGNORECASE
)
_ROLE_WORD_LAST = re.compile(rf"(?:{_SURE_ROLE_WORD_LAST.pattern[:-1]}| {_LIKELY_ROLES})$", re.IGNORECASE)
_ROLE_SAYING = re.compile(rf"^(?:{_SURE_ROLES}|{_LIKELY_ROLES}) {_SAYING} ", re.IGNORECASE)
_ROLE_FIRST = re.compile(rf"^{_SURE_ROLES} ", re.IGNORECASE)
_PICTURE = re.compile(rf"(?:^|\W){_PICTURE_ROLES}$", re.IGNORECASE)
_COLORED = re.compile(rf"(?:^|\W){_COLORS}(?:\W|$)", re.IGNORECASE)
_ONLY_ROLES = re.compile(
    rf"^(?:\W|{_ARTICLES}\b|{_SURE_ROLES}\b|{_LIKELY_ROLES}\b|{_PICTURE_ROLES}\b|{_SAYING}\b|(?:please|click|tap|press|on|in|push|hit"
    r"|select|choose|open|find|locate|of)\b)*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Wanted:
    """What to look for on a page.

    Attributes:
        names: texts that would satisfy the phrase, the most literal first; one that is found ends the search.
        picture: for an icon or a picture, which has no text, its name: texts like it are told of but not taken.
        colored: the phrase has a colour in it, which cannot be judged.
        unused: the part of the phrase beside a quoted name that was not understood; empty for none.
    """

    names: tuple[str, ...]
    picture: str = ""
    colored: bool = False
    unused: str = ""


def understand(phrase: str) -> Wanted:
    """Take a phrase apart: "the 'Save as' button" asks for the text "Save as".

    The whole phrase stays the first name, since a button may really read "Menu item".
    """
    quoted = _QUOTED.search(phrase)
    if quoted is not None:
        name = next(group for group in quoted.groups() if group is not None).strip()
        rest = " ".join((phrase[: quoted.start()] + phrase[quoted.end() :]).split())
        outer = _NESTED.search(phrase)
        if outer is not None and _ONLY_ROLES.match(phrase[: outer.start()] + phrase[outer.end() :]):
            name, rest = outer.group(1).strip(), ""  # a name with quotes in it
        if name and _PICTURE.search(rest):
            return Wanted((phrase,), picture=name)
        if name:
            return Wanted(_with_unmarked([name]), unused="" if _ONLY_ROLES.match(rest) else rest)
    names = [phrase]
    core = phrase
    for leading in (_LEADING_VERB, _LEADING_ARTICLE):
        core = _without(leading, core, names)
    picture = _PICTURE.search(core)
    if picture is not None:
        return Wanted(tuple(names), picture=core[: picture.start()].strip() or core)
    behind_article = _LEADING_ARTICLE.match(phrase) is not None or len(names) > 1
    # The shortest role first: "the Button text label" and "the Enter your password field" end in one word of role.
    _without(_ROLE_WORD_LAST if behind_article else _SURE_ROLE_WORD_LAST, core, names)
    core = _without(_ROLE_LAST if behind_article else _SURE_ROLE_LAST, core, names)
    for part in (_ROLE_SAYING, _ROLE_FIRST, _LEADING_ARTICLE):
        core = _without(part, core, names)
    return Wanted(_with_unmarked(names), colored=_COLORED.search(phrase) is not None)


_NOTHING = re.compile(r"^(?:(?:the )?(?:one|thing|element|it|that|what is|whatever is)?)$", re.IGNORECASE)
_FIELD = re.compile(
    r"\b(?:field|box|input|text ?box|text ?field|text ?area|combo ?box|drop-?down|select|entry|area)s?$", re.IGNORECASE
)


def without_verb(phrase: str) -> str:
    """Return a phrase without what is to be done: "click the second Delete" asks for the second Delete."""
    return _LEADING_VERB.sub("", phrase, count=1).strip() or phrase


def is_role(words: str) -> bool:
    """Whether words name a kind of element and no element: "the field", "the one", or nothing."""
    return bool(_NOTHING.match(words) or (_ONLY_ROLES.match(words) and '"' not in words))


def is_field(words: str) -> bool:
    """Whether words name something that one writes into or chooses from."""
    return _FIELD.search(words) is not None


def _with_unmarked(names: list[str]) -> tuple[str, ...]:
    """Add each name without the symbols before it, which a page often draws as an icon: "☰ Menu", "+ New"."""
    bare = [name.lstrip(name[: _leading_marks(name)] + " ") for name in names]
    return tuple(dict.fromkeys([*names, *(name for name in bare if name and not _ONLY_ROLES.match(name))]))


def _leading_marks(name: str) -> int:
    marks = {"So", "Sm", "Sk"}
    return next((place for place, c in enumerate(name) if unicodedata.category(c) not in marks), len(name))


def _without(pattern: re.Pattern[str], core: str, names: list[str]) -> str:
    """Strip the pattern and note the new name, unless nothing would be left."""
    shorter = pattern.sub("", core, count=1).strip()
    if shorter and shorter != core:
        names.append(shorter)
        return shorter
    return core
