"""LocateAnything behind the house's protocol: queries become questions, answers become detections.

Importing this needs neither torch nor weights; both come with the constructor.
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from groundlink.backend import BackendInfo, Context, MemoryReport, Outcome
from groundlink.backends.locateanything.hub import LICENSE, OFFICIAL_MODEL, find_cached
from groundlink.backends.locateanything.settings import Settings, is_count
from groundlink.calibration import FILE_NAME, Calibration, Kind
from groundlink.detections import Found, IncompleteReason
from groundlink.errors import BackendUnavailable, BadQuery
from groundlink.image import ImageStore, OpenedImage
from groundlink.query import Example, Query

if TYPE_CHECKING:
    from groundlink.backends.locateanything.engine import Picture
    from groundlink.backends.locateanything.parse import Reader, Reading

GROUP_SIZE = 16
"""Categories in one question; the makers name 18 as the point where labels degrade."""
UNNAMED = "object"
"""The label where neither the query nor the model gives one."""

_PACKAGES = ("torch", "tokenizers", "safetensors", "huggingface_hub")


class LocateAnythingBackend:
    """NVIDIA's LocateAnything: objects, phrases, points, text, user interfaces and documents, in one model.

    Args:
        model: the folder of a checkpoint, or a repository on the hub, downloaded at first use.
        revision: the commit, branch or tag of the repository.
        device: `auto` (CUDA where there is some), `cpu`, `cuda`, `cuda:1` …
        dtype: `auto`, `bfloat16`, `float16` or `float32`.
        group_size: a query with more categories than this is asked in groups, and the answers are merged.
        cache_bytes: memory for what was computed of pictures, shared by later questions on the same pixels; 1 GiB if
            not given, 0 for none. The least recently used goes first.
        calibrated: scores and spreads are brought to what they turned out to mean, where the checkpoint has a
            `calibration.json`; False leaves them as the model gives them.
        on_progress: told what is being loaded, and how much of it is done, in 0…1.
        decoding: the fields of `groundlink.backends.locateanything.settings.Settings`, such as `mode="fast"`.
    """

    info: ClassVar[BackendInfo] = BackendInfo(
        name="locateanything",
        tasks=("ground", "ground_one", "detect", "point", "text", "read", "gui", "layout", "example"),
        points=True,
        scores=True,
        streams=True,
        license=LICENSE,
        description="NVIDIA's LocateAnything: open-vocabulary grounding of objects, text, interfaces and documents",
    )

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = OFFICIAL_MODEL,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        group_size: int = GROUP_SIZE,
        cache_bytes: int | None = None,
        calibrated: bool = True,
        on_progress: Callable[[str, float], None] = lambda doing, fraction: None,
        **decoding: Any,
    ) -> None:
        self.settings = _settings(decoding)
        if not is_count(group_size) or group_size < 1:
            raise BackendUnavailable(f"group_size is a whole number of at least 1, not {group_size!r}")
        self.group_size = group_size
        if not isinstance(calibrated, bool):
            raise BackendUnavailable(f"calibrated is True or False, not {calibrated!r}")
        room = _cache_bytes(cache_bytes)

        from groundlink.backends.locateanything.engine import Engine

        self._engine = Engine.load(os.fspath(model), revision, device, dtype, self.settings, room, on_progress)
        stored = self._engine.folder / FILE_NAME
        self.calibration = Calibration.load(stored) if calibrated and stored.exists() else None
        self._images = ImageStore()

    @classmethod
    def problem(cls) -> str | None:
        """Tell which packages are missing."""
        missing = [name for name in _PACKAGES if find_spec(name) is None]
        if not missing:
            return None
        return f"{', '.join(missing)} not installed; run pip install 'groundlink[locateanything]'"

    @classmethod
    def at_hand(cls, model: str | os.PathLike[str] | None = None, revision: str | None = None) -> bool:
        """Tell whether this machine has what makes it the best choice: the weights, and CUDA to run them.

        Cheap questions come first, and PyTorch is imported only where the weights are here.
        """
        if cls.problem() is not None or find_cached(os.fspath(model or OFFICIAL_MODEL), revision) is None:
            return False
        import torch

        return torch.cuda.is_available()

    @classmethod
    def memory_report(
        cls,
        *,
        model: str | os.PathLike[str] = OFFICIAL_MODEL,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        group_size: int = GROUP_SIZE,
        cache_bytes: int | None = None,
        calibrated: bool = True,
        **decoding: Any,
    ) -> MemoryReport:
        """Say what will fit on the device, from the checkpoint's JSON files; takes the settings of the constructor.

        Raises:
            BackendUnavailable, WeightsNotFound, WeightsInvalid: as the constructor does.
        """
        settings, room = _settings(decoding), _cache_bytes(cache_bytes)

        from groundlink.backends.locateanything.report import report

        return report(os.fspath(model), revision, device, dtype, settings, room)

    def run(self, image: OpenedImage, query: Query, context: Context) -> Generator[Found, None, Outcome]:
        """Answer a query, in groups of categories where it has many."""
        from groundlink.backends.locateanything.parse import Reader
        from groundlink.backends.locateanything.prompt import Turn, build_chat, build_question, place_examples

        started = time.perf_counter()
        engine, settings = self._engine, self.settings
        groups = self._groups(query)
        spelling = {_plain(phrase): phrase for phrase in reversed(query.phrases)}
        questions = [build_question(query.task, group, engine.tokenizer) for group in groups]
        pictures = [_picture(image)]
        if query.example is not None:
            pictures.append(self._example(query.example, image))
        context.check()
        figures = engine.new_figures()

        tally = _Tally()
        for number, (group, question) in enumerate(zip(groups, questions, strict=True)):
            context.progress("reading the image", number / len(groups))
            asked = place_examples(question, len(pictures) - 1)
            chat, _ = build_chat([Turn("user", [pictures[0], asked, *pictures[1:]])])
            reader = Reader(engine.tokenizer, engine.config.ids)
            finish: str | None = "token_limit"  # of an answer that may have no tokens at all
            for accepted in engine.answer(chat, pictures, settings, figures, context.check):
                finish = accepted.finish
                for reading in reader.add(accepted):
                    if reading.repeat and not settings.parity:
                        tally.repeats += 1
                    elif reading.item.values:
                        tally.found += 1
                        yield _found(reading, query, group, spelling, image.size, self.calibration)
                if reader.repeating and not settings.parity and finish is None:
                    finish = "repetition"
                    break
            reader.flush()
            tally.add(reader, finish)

        seconds = time.perf_counter() - started
        figures["boxes_per_second"] = sum(text.count("<box>") for text in tally.raw) / seconds
        alone = query.task in ("ground_one", "gui")
        return Outcome(
            status="ambiguous" if alone and tally.found > 1 else None,
            reason=tally.in_words(settings.max_new_tokens),
            incomplete_reason=tally.incomplete,
            raw=tuple(tally.raw),
            timings_ms=dict(figures),
        )

    def check(self, query: Query) -> None:
        """Refuse words that hold the model's own marks.

        Raises:
            BadQuery: they do; the message names the mark.
        """
        from groundlink.backends.locateanything.prompt import build_question

        for group in self._groups(query):
            build_question(query.task, group, self._engine.tokenizer)

    def describe(self) -> dict[str, Any]:
        """Return what answers depend on, for reports: the checkpoint, its limit on pictures, decoding, calibration."""
        from groundlink.backends.locateanything.prompt import QUESTIONS

        engine = self._engine
        return {
            "checkpoint": engine.folder.resolve().name,
            "device": str(engine.model.device),
            "dtype": str(engine.model.language_model.model.embed_tokens.weight.dtype).removeprefix("torch."),
            "patch_limit": engine.config.patch_limit,
            **asdict(self.settings),
            "calibrated": self.calibration is not None,
            "prompts": dict(QUESTIONS),
        }

    def close(self) -> None:
        """Free the device."""
        import torch

        del self._engine
        torch.cuda.empty_cache()  # which does nothing where CUDA was never used

    def _groups(self, query: Query) -> list[tuple[str, ...]]:
        phrases = tuple(dict.fromkeys(query.phrases))
        if len(phrases) <= self.group_size:
            return [phrases]
        return [phrases[i : i + self.group_size] for i in range(0, len(phrases), self.group_size)]

    def _example(self, example: Example, image: OpenedImage) -> Picture:
        from groundlink.backends.locateanything.preprocessing import crop_box

        opened = image if example.image is None else self._images.open(example.image)
        if example.box is None:
            return _picture(opened)
        x1, y1, x2, y2 = example.box
        width, height = {"pixel": opened.size, "normalized_1": (1, 1), "normalized_1000": (1000, 1000)}[
            example.box_format
        ]
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise BadQuery(f"the example's box {example.box} ({example.box_format}) lies outside of {opened.name}")
        return _picture(opened, crop_box(*opened.size, example.box, example.box_format))


def _settings(decoding: dict[str, Any]) -> Settings:
    try:
        return Settings(**decoding)
    except ValueError as error:
        raise BackendUnavailable(f"the settings of locateanything are unfit: {error}") from error


def _cache_bytes(given: int | None) -> int:
    if given is not None and (not is_count(given) or given < 0):
        raise BackendUnavailable(f"cache_bytes is a whole number of at least 0, not {given!r}")

    from groundlink.backends.locateanything.kept import CACHE_BYTES

    return CACHE_BYTES if given is None else given


def _picture(opened: OpenedImage, box: tuple[int, int, int, int] | None = None) -> Picture:
    """Return an image, or the part of it in a box, as the engine takes it."""
    from groundlink.backends.locateanything.engine import Picture

    if box is None:
        return Picture(opened.content, opened.size, opened.pil)
    size = (box[2] - box[0], box[3] - box[1])
    return Picture(f"{opened.content} {box}", size, lambda: opened.pil().crop(box))


class _Tally:
    """What is to be told of all answers to one query together."""

    def __init__(self) -> None:
        self.raw: list[str] = []
        self.found = 0
        self.repeats = 0
        self.malformed = 0
        self.incomplete: IncompleteReason | None = None

    def add(self, reader: Reader, finish: str | None) -> None:
        """Count one answer in. The first thing that went wrong is what is reported."""
        self.raw.append(reader.text)
        self.malformed += reader.malformed
        if finish in ("token_limit", "repetition"):
            reason: IncompleteReason | None = "token_limit" if finish == "token_limit" else "repetition"
        else:
            reason = "garbled" if finish == "garbled" or reader.malformed else None
        self.incomplete = self.incomplete or reason

    def in_words(self, limit: int) -> str:
        """Return the reason for people."""
        ended = {
            None: "",
            "token_limit": f"the answer was cut at the limit (max_new_tokens is {limit})",
            "repetition": "the model repeated itself and was stopped",
            "garbled": "the model broke its answer off",
        }
        parts = [ended[self.incomplete] if self.incomplete != "garbled" or not self.malformed else ""]
        if self.repeats:
            parts.append(f"{self.repeats} repeat{'s' if self.repeats > 1 else ''} dropped")
        if self.malformed:
            parts.append(f"{self.malformed} malformed box{'es' if self.malformed > 1 else ''} dropped")
        return "; ".join(part for part in parts if part)


def _found(
    reading: Reading,
    query: Query,
    group: Sequence[str],
    spelling: dict[str, str],
    size: tuple[int, int],
    calibration: Calibration | None,
) -> Found:
    """Make what the backend hands out of one item: pixels in place of thousandths, the caller's words as the label."""
    from groundlink.backends.locateanything.parse import to_pixels

    item = reading.item
    pixels = to_pixels(item.values, *size)
    is_box = len(pixels) == 4
    score, spreads = reading.score, reading.spreads
    if calibration is not None and score is not None and spreads is not None:
        kind: Kind = "box" if is_box else "point"
        score, spreads = calibration.score(score, kind), tuple(calibration.spread(value, kind) for value in spreads)
    return Found(
        _label(item.label, query, group, spelling),
        box=pixels if is_box else None,
        point=None if is_box else pixels,
        score=score,
        spread=None if spreads is None else to_pixels(spreads, *size),
        text=item.label if query.task in ("read", "text") else None,
    )


def _label(said: str | None, query: Query, group: Sequence[str], spelling: dict[str, str]) -> str:
    if len(group) == 1:
        return group[0]
    if said is None or not said.strip():
        return UNNAMED
    if query.task in ("read", "example"):
        return said
    # The model may change case and spaces; the caller's spelling wins.
    return spelling.get(_plain(said), said)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
