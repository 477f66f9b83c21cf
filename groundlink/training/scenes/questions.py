"""Questions about a scene, in every task and in several wordings, with the truth.

Only questions with one clear answer are asked: a phrase for one thing fits one thing, and what is left of something is
left of it by a margin. Of each there are some that nothing fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from groundlink.backends.locateanything.config import COORDINATES
from groundlink.backends.locateanything.prompt import CATEGORY_SEPARATOR, QUESTIONS
from groundlink.query import Task
from groundlink.training.scenes.drawing import ICONS, SHAPES, Box
from groundlink.training.scenes.layout import COLOURS, HELD_OUT, RNG, WORDS, Item, Scene

ABSENT = 0.22  # share of the questions that nothing fits

# The task `read` has no words of the asker's in it: its other wordings are of the whole question.
READ = (QUESTIONS["read"], "Read all the text.", "Find every word in the image.")

ICON_NAMES: dict[str, tuple[str, ...]] = {
    "save": ("save icon", "floppy disk icon"),
    "trash": ("trash icon", "delete icon", "bin icon"),
    "search": ("search icon", "magnifier icon"),
    "settings": ("settings icon", "gear icon"),
    "menu": ("menu icon", "hamburger icon"),
    "close": ("close icon", "x icon"),
    "right arrow": ("right arrow icon", "forward icon"),
    "down arrow": ("down arrow icon",),
    "left arrow": ("left arrow icon", "back icon"),
    "up arrow": ("up arrow icon",),
    "home": ("home icon", "house icon"),
    "plus": ("plus icon", "add icon"),
    "check": ("check icon", "tick icon"),
    "user": ("user icon", "person icon"),
    "mail": ("mail icon", "envelope icon"),
    "bell": ("bell icon", "notification icon"),
    "download": ("download icon",),
    "edit": ("edit icon", "pencil icon"),
    "lock": ("lock icon", "padlock icon"),
}

CONTROLS: dict[str, tuple[str, ...]] = {
    "button": ("{} button", "button {}", "button labelled {}"),
    "field": ("{} field", "{} input", "field labelled {}"),
    "checkbox": ("{} check box", "check box {}"),
    "tab": ("{} tab", "tab {}"),
}

CATEGORIES = {"button": "button", "field": "field", "checkbox": "check box", "tab": "tab", "icon": "icon"}
BLOCKS = ("title", "paragraph", "picture", "table")

SIDES: dict[str, Callable[[Box, Box], float]] = {
    # How far in pixels the first lies on that side of the second, by their centres.
    "left of": lambda a, b: (b[0] + b[2] - a[0] - a[2]) / 2,
    "right of": lambda a, b: (a[0] + a[2] - b[0] - b[2]) / 2,
    "above": lambda a, b: (b[1] + b[3] - a[1] - a[3]) / 2,
    "below": lambda a, b: (a[1] + a[3] - b[1] - b[3]) / 2,
}
EXTREMES = {"leftmost": "left of", "rightmost": "right of", "top": "above", "bottom": "below"}
MARGIN = 14.0  # pixels by which a side must be clear


@dataclass(frozen=True)
class Question:
    """What is asked and what is true.

    Attributes:
        task: as in `groundlink.query`.
        phrases: the words asked for; several of `detect` and `layout`, none of `read`.
        text: the whole question as the model reads it, but for the picture.
        truth: labels and their boxes in pixels, sorted as the model is to say them. Nothing to be found: no boxes.
        group: what kind of understanding it takes, for reports.
    """

    task: Task
    phrases: tuple[str, ...]
    text: str
    truth: tuple[tuple[str, tuple[Box, ...]], ...]
    group: str

    @property
    def is_usual(self) -> bool:
        """Whether the words around the phrases are those that Groundlink asks with."""
        return self.task != "read" or self.text == READ[0]

    def answer(self, width: int, height: int) -> str:
        """Return the answer in the model's words, for a picture of this size."""
        named = self.task in ("detect", "layout", "read")
        parts = []
        for label, boxes in self.truth:
            parts.append(f"<ref>{label}</ref>" if named else "")
            parts += [_written(box, width, height, self.task == "point") for box in boxes] or ["<box>None</box>"]
        return "".join(parts) or "<box>None</box>"


def _written(box: Box, width: int, height: int, as_point: bool) -> str:
    full = COORDINATES - 1
    place = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) if as_point else box
    values = [round(v / (height if i % 2 else width) * full) for i, v in enumerate(place)]
    return "<box>" + "".join(f"<{min(full, max(0, v))}>" for v in values) + "</box>"


def ask(scene: Scene, rng: RNG, count: int, held_out: bool) -> list[Question]:
    """Return up to `count` different questions about a scene; with `held_out`, about its HELD_OUT shapes only."""
    makers = _HELD_OUT_MAKERS if held_out else [(m, w) for m, w in _MAKERS if m is not _read or _readable(scene)]
    weights = np.array([weight for _, weight in makers])
    asked: dict[tuple[str, str], Question] = {}
    for _ in range(6 * count):
        maker = makers[int(rng.choice(len(makers), p=weights / weights.sum()))][0]
        question = maker(scene, rng)
        if question is not None:
            asked.setdefault((question.task, question.text), question)
        if len(asked) == count:
            break
    return list(asked.values())


def _pick(rng: RNG, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _article(rng: RNG, phrase: str) -> str:
    return f"the {phrase}" if rng.random() < 0.4 else phrase


def _sorted(items: Sequence[Item]) -> tuple[Box, ...]:
    return tuple(sorted((item.box for item in items), key=lambda box: (box[0], box[1])))


def _question(task: Task, phrase: str, items: Sequence[Item], group: str) -> Question:
    boxes = _sorted(items)
    return Question(task, (phrase,), QUESTIONS[task].format(phrase), ((phrase, boxes),), group)


def _of(scene: Scene, kind: str) -> list[Item]:
    return [item for item in scene.items if item.kind == kind]


# Shapes


def _fits(item: Item, colour: str | None, shape: str | None, size: str | None) -> bool:
    return (
        item.kind == "shape"
        and colour in (None, item.colour)
        and shape in (None, item.name)
        and size in (None, item.size)
    )


def _in_words(rng: RNG, colour: str | None, shape: str | None, size: str | None, plural: bool) -> str:
    noun = shape or "shape"
    noun += ("es" if noun.endswith("s") else "s") if plural else ""
    if colour and shape and not size and rng.random() < 0.15:
        return f"{noun} that {'are' if plural else 'is'} {colour}"
    size = _pick(rng, ("large", "big")) if size == "large" else size
    return " ".join(word for word in (size, colour, noun) if word)


def _is_known(colour: str | None, shape: str | None) -> bool:
    return (colour, shape) not in HELD_OUT


def _description(scene: Scene, rng: RNG, absent: bool) -> tuple[str | None, str | None, str | None] | None:
    """Return colour, shape and size that something has, or that nothing has."""
    shapes = _of(scene, "shape")
    use = [rng.random() < share for share in (0.75, 0.85, 0.25)]
    if not (use[0] or use[1]):
        use[1] = True
    for _ in range(8):
        if shapes:
            item = shapes[int(rng.integers(len(shapes)))]
            told = [item.colour, item.name, item.size]
        else:
            told = [_pick(rng, list(COLOURS)), _pick(rng, list(SHAPES)), "small"]
        if absent:  # one thing about it is wrong, as often as not
            change = int(rng.integers(2))
            told[change] = _pick(rng, list((COLOURS, SHAPES)[change]))
            use[change] = True
        colour, shape, size = (value if used else None for value, used in zip(told, use, strict=True))
        found = any(_fits(item, colour, shape, size) for item in shapes)
        if found != absent and _is_known(colour, shape):
            return colour, shape, size
    return None


def _shapes(scene: Scene, rng: RNG) -> Question | None:
    absent = rng.random() < ABSENT
    told = _description(scene, rng, absent)
    if told is None:
        return None
    items = [item for item in scene.items if _fits(item, *told)]
    group = "size" if told[2] else "colour and shape" if told[0] and told[1] else "colour" if told[0] else "shape"
    if len(items) <= 1 and rng.random() < 0.6:
        return _question(_one(rng), _article(rng, _in_words(rng, *told, plural=False)), items, group)
    task: Task = "point" if rng.random() < 0.3 else "ground"
    phrase = _in_words(rng, *told, plural=rng.random() < (0.7 if len(items) > 1 else 0.3))
    return _question(task, _pick(rng, ("all ", "", "")) + phrase if task == "ground" else phrase, items, group)


def _one(rng: RNG) -> Task:
    return "point" if rng.random() < 0.25 else "ground_one"


def _extreme(scene: Scene, rng: RNG) -> Question | None:
    told = _description(scene, rng, absent=False)
    if told is None:
        return None
    items = [item for item in scene.items if _fits(item, *told)]
    word = _pick(rng, list(EXTREMES))
    side = SIDES[EXTREMES[word]]
    if len(items) < 2:
        return None
    items.sort(key=lambda item: side(item.box, (0, 0, 0, 0)), reverse=True)
    if side(items[0].box, items[1].box) < MARGIN / 2:
        return None
    return _question(_one(rng), _article(rng, f"{word} {_in_words(rng, *told, plural=False)}"), items[:1], "extreme")


def _ordinal(scene: Scene, rng: RNG) -> Question | None:
    told = _description(scene, rng, absent=False)
    items = [item for item in scene.items if told and _fits(item, *told)]
    if told is None or len(items) < 2:
        return None
    end = _pick(rng, ("left", "right", "top"))
    side = SIDES[{"left": "left of", "right": "right of", "top": "above"}[end]]
    items.sort(key=lambda item: side(item.box, (0, 0, 0, 0)), reverse=True)
    if any(side(a.box, b.box) < MARGIN / 2 for a, b in pairwise(items)):
        return None
    number = int(rng.integers(min(len(items), 3)))
    word = ("first", "second", "third")[number]
    phrase = f"{word} {_in_words(rng, *told, plural=False)} from the {end}"
    return _question(_one(rng), _article(rng, phrase), [items[number]], "ordinal")


def _relation(scene: Scene, rng: RNG) -> Question | None:
    anchors = [i for i in scene.items if i.kind in ("shape", "icon") and len([*_same(scene, i)]) == 1]
    if not anchors:
        return None
    anchor = anchors[int(rng.integers(len(anchors)))]
    absent = rng.random() < ABSENT
    shapes = _of(scene, "shape")
    item = shapes[int(rng.integers(len(shapes)))] if shapes else None
    if item is None or item is anchor:
        return None
    colour, shape = (item.colour, item.name) if rng.random() < 0.5 else (None, item.name)
    word = _pick(rng, list(SIDES))
    others = [other for other in shapes if other is not anchor and _fits(other, colour, shape, None)]
    far = [SIDES[word](other.box, anchor.box) for other in others]
    if any(-MARGIN < distance < MARGIN for distance in far) or not _is_known(colour, shape):
        return None
    items = [other for other, distance in zip(others, far, strict=True) if distance > 0]
    if len(items) != (0 if absent else 1):
        return None
    name = f"{anchor.colour} {anchor.name}" if anchor.kind == "shape" else ICON_NAMES[anchor.name][0]
    phrase = f"{_in_words(rng, colour, shape, None, plural=False)} {word} the {name}"
    return _question(_one(rng), _article(rng, phrase), items, "relation")


def _same(scene: Scene, item: Item) -> Iterator[Item]:
    return (i for i in scene.items if (i.kind, i.name, i.colour) == (item.kind, item.name, item.colour))


# Controls, icons and words


def _icon(scene: Scene, rng: RNG) -> Question | None:
    there = {item.name for item in _of(scene, "icon")}
    absent = rng.random() < ABSENT if there else rng.random() < 0.05
    names = [name for name in ICONS if (name in there) != absent]
    if not names or not (there or absent):
        return None
    name = _pick(rng, names)
    items = [item for item in _of(scene, "icon") if item.name == name]
    return _gui(rng, _pick(rng, ICON_NAMES[name]), items, "icon")


def _gui(rng: RNG, phrase: str, items: Sequence[Item], group: str) -> Question | None:
    if len(items) > 1:
        return _question("ground", phrase, items, group)
    tasks: tuple[Task, ...] = ("gui", "gui", "point", "ground_one")
    task = tasks[int(rng.integers(len(tasks)))]
    return _question(task, _article(rng, phrase), items, group)


def _control(scene: Scene, rng: RNG) -> Question | None:
    controls = [item for item in scene.items if item.kind in CONTROLS]
    if not controls:
        return None
    item = controls[int(rng.integers(len(controls)))]
    kind, name = item.kind, item.name
    if rng.random() < ABSENT:
        # Another name, or another control of a name that is there.
        if rng.random() < 0.5:
            name = _pick(rng, WORDS)
        else:
            kind = _pick(rng, list(CONTROLS))
        if any((i.kind, i.name) == (kind, name) for i in controls):
            return None
    items = [i for i in controls if (i.kind, i.name) == (kind, name)]
    return _gui(rng, _pick(rng, CONTROLS[kind]).format(_typed(rng, name)), items, kind)


def _typed(rng: RNG, name: str) -> str:
    """Return a name as people type it: not always with its capitals."""
    return name.lower() if rng.random() < 0.15 else name


def _state(scene: Scene, rng: RNG) -> Question | None:
    boxes = _of(scene, "checkbox")
    if not boxes:
        return None
    on = bool(rng.random() < 0.5)
    items = [item for item in boxes if item.on == on]
    word = _pick(rng, ("checked", "ticked")) if on else "unchecked"
    plural = len(items) > 1
    return _question("ground", f"{word} check box{'es' if plural else ''}", items, "state")


def _text(scene: Scene, rng: RNG) -> Question | None:
    texts = _of(scene, "text")
    if not texts:
        return None
    words = texts[int(rng.integers(len(texts)))].name
    if rng.random() < ABSENT:
        words = _pick(rng, WORDS)
    items = [item for item in texts if item.name == words]
    if not items and any(words in item.name.split() for item in texts):
        return None
    phrase = _pick(rng, ("{}", "{}", "the word {}" if " " not in words else "the words {}", "the text {}"))
    return _question("text", phrase.format(_typed(rng, words)), items, "text")


# Several categories, everything


def _categories(scene: Scene) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in scene.items:
        names = [CATEGORIES.get(item.kind, "")]
        if item.kind == "shape":
            names = [item.name, f"{item.colour} {item.name}"]
        for name in filter(None, names):
            found.setdefault(name, []).append(item)
    return found


def _detect(scene: Scene, rng: RNG) -> Question | None:
    there = _categories(scene)
    if not there:
        return None
    names: list[str] = []
    colour, shape = _pick(rng, list(COLOURS)), _pick(rng, list(SHAPES))
    for _ in range(int(rng.integers(1, 4))):
        absent = rng.random() < ABSENT
        options = [*SHAPES, *CATEGORIES.values()]
        if _is_known(colour, shape):
            options.append(f"{colour} {shape}")
        name = _pick(rng, [o for o in options if o not in there] if absent else list(there))
        if name not in names:
            names.append(name)
    total = sum(len(there.get(name, ())) for name in names)
    if total > 12:
        return None
    truth = tuple((name, _sorted(there.get(name, ()))) for name in names)
    text = QUESTIONS["detect"].format(CATEGORY_SEPARATOR.join(names))
    return Question("detect", tuple(names), text, truth, "categories")


def _layout(scene: Scene, rng: RNG) -> Question | None:
    if not any(item.kind in BLOCKS for item in scene.items):
        return None
    names = [str(name) for name in rng.permutation(BLOCKS)[: int(rng.integers(1, 5))]]
    truth = tuple((name, _sorted(_of(scene, name))) for name in names)
    text = QUESTIONS["layout"].format(CATEGORY_SEPARATOR.join(names))
    return Question("layout", tuple(names), text, truth, "document")


def _readable(scene: Scene) -> bool:
    return len(_of(scene, "text")) <= 6


def _read(scene: Scene, rng: RNG) -> Question | None:
    texts = _of(scene, "text")
    if not texts and rng.random() < 0.8:
        return None
    truth = tuple((item.name, (item.box,)) for item in sorted(texts, key=lambda item: (item.box[0], item.box[1])))
    return Question("read", (), READ[0] if rng.random() < 0.7 else _pick(rng, READ), truth, "reading")


def _held_out(scene: Scene, rng: RNG) -> Question | None:
    shapes = [item for item in _of(scene, "shape") if not _is_known(item.colour, item.name)]
    if not shapes:
        return None
    item = shapes[int(rng.integers(len(shapes)))]
    items = [i for i in scene.items if _fits(i, item.colour, item.name, None)]
    phrase = f"{item.colour} {item.name}"
    task = _one(rng) if len(items) == 1 else "ground"
    return _question(task, phrase, items, "new combination")


_MAKERS: list[tuple[Callable[[Scene, RNG], Question | None], float]] = [
    (_shapes, 4.0),
    (_extreme, 1.2),
    (_ordinal, 0.8),
    (_relation, 1.5),
    (_icon, 2.0),
    (_control, 3.0),
    (_state, 0.4),
    (_text, 1.5),
    (_detect, 2.0),
    (_layout, 2.0),
    (_read, 0.25),
]
_HELD_OUT_MAKERS = [(_held_out, 1.0)]
