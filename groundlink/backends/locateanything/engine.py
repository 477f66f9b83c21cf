"""The part that owns the device: pictures and a question in, accepted tokens out, with the figures of both."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from groundlink.backends.locateanything.blocks import Kind
from groundlink.backends.locateanything.config import MERGE, PATCH
from groundlink.backends.locateanything.decoder import Decoder
from groundlink.backends.locateanything.generate import Accepted
from groundlink.backends.locateanything.hub import find
from groundlink.backends.locateanything.kept import CACHE_BYTES, Kept
from groundlink.backends.locateanything.preprocessing import Grid, image_grid, image_tokens, preprocess
from groundlink.backends.locateanything.prompt import expand_tags, tag_of
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.vision import normalise
from groundlink.backends.locateanything.weights import Checkpoint, open_checkpoint
from groundlink.errors import BackendUnavailable, BadQuery, OutOfMemory

T = TypeVar("T")

WORDS = 512  # tokens that buffers have room for beside image and answer, without being made anew

DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is some."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:1' and so on")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendUnavailable(f"the device {name!r} is not here or PyTorch cannot use it; use 'auto' or 'cpu'")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the floating type of that name; `auto` is the fastest that is safe on the device."""
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if name not in DTYPES:
        raise BackendUnavailable(f"unknown dtype {name!r}; use 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[name]


@dataclass(frozen=True)
class Picture:
    """A picture that is opened only where it has to be looked at.

    `key` identifies its pixels, `size` is (width, height), `open` returns it.
    """

    key: str
    size: tuple[int, int]
    open: Callable[[], Image.Image]


class Figures(defaultdict[str, float]):
    """What one call cost: milliseconds by stage, and `tokens`, `steps`, `switches` to token by token."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(float)
        self._device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the device takes for a stage."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self[name] += (time.perf_counter() - started) * 1000

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Engine:
    """Runs one question at a time on one device, and keeps what it has computed for the pictures.

    Args:
        checkpoint: the model and its tokenizer.
        cache_bytes: room for what is kept of pictures; 0 keeps nothing.
    """

    def __init__(self, checkpoint: Checkpoint, cache_bytes: int = CACHE_BYTES) -> None:
        self.config = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
        self.model = checkpoint.model
        self.decoder = Decoder(self.model)
        self.kept = Kept(cache_bytes)

    @classmethod
    def load(
        cls,
        model: str,
        revision: str | None,
        device: str,
        dtype: str,
        settings: Settings,
        cache_bytes: int = CACHE_BYTES,
        on_progress: Callable[[str, float], None] = lambda doing, fraction: None,
    ) -> Engine:
        """Find a checkpoint, open it, and make ready for questions that are answered with `settings`."""
        chosen = choose_device(device)
        folder = find(model, revision)
        checkpoint = open_checkpoint(
            folder, chosen, choose_dtype(dtype, chosen), lambda done: on_progress("loading the weights", 0.7 * done)
        )
        engine = cls(checkpoint, cache_bytes)
        engine.warm_up(settings, lambda doing, done: on_progress(doing, 0.7 + 0.3 * done))
        return engine

    def new_figures(self) -> Figures:
        """Return the figures of a call that begins."""
        return Figures(self.model.device)

    @torch.inference_mode()
    def warm_up(self, settings: Settings, on_progress: Callable[[str, float], None]) -> None:
        """Make buffers and graphs for a picture of any size and its answer. The CPU makes them as they are needed."""
        if self.model.device.type != "cuda":
            return
        # A grid may exceed the limit a little, since sides are rounded up.
        longest = self.config.patch_limit // MERGE**2 * 11 // 10 + WORDS + settings.max_new_tokens
        with self._memory("the buffers for answers"):
            self.decoder.warm_up(min(longest, self.config.max_length or longest), settings, on_progress)
            patches = torch.zeros(4, 3, PATCH, PATCH, device=self.model.device)
            self.decoder.prefill(0, self.model.encode_images(patches, [(2, 2)]))
            torch.cuda.synchronize(self.model.device)

    @torch.inference_mode()
    def answer(
        self, chat: str, pictures: Sequence[Picture], settings: Settings, figures: Figures, check: Callable[[], None]
    ) -> Iterator[Accepted]:
        """Answer a chat whose tags stand for the pictures, by their order.

        What the first picture costs, and the words before it, is paid once for all questions that begin alike.
        """
        for stage in ("preprocess", "vision", "image_prefill"):
            figures[stage] += 0.0  # what was kept costs nothing, and says so
        grids = [image_grid(*picture.size, self.config.patch_limit) for picture in pictures]
        text, order = expand_tags(chat, grids)
        prompt = self.tokenizer.encode(text)
        most = self.config.max_length
        if most is not None and len(prompt) >= most:
            raise BadQuery(
                f"the image and the question take {len(prompt)} tokens, and the model takes {most}; "
                "make the image smaller or ask about less at once"
            )
        check()
        begun = self._read_first_image(chat, prompt, pictures, grids, order, figures) if order else 0
        check()
        self._read(prompt[begun:-1], [pictures[i] for i in order[1:]], begun, figures, "prefill")
        self.decoder.begin(0, prompt, settings, most)
        try:
            while self.decoder.running(0):
                check()
                with figures.stage("decode"):
                    (accepted,) = self._attempt("the answer", self.decoder.step)
                assert accepted is not None
                figures["steps"] += 1
                figures["tokens"] += len(accepted.tokens)
                figures["switches"] += accepted.kind == Kind.ERROR_BOX
                yield accepted
        finally:
            self.decoder.release(0)

    def _read_first_image(
        self,
        chat: str,
        prompt: list[int],
        pictures: Sequence[Picture],
        grids: Sequence[Grid],
        order: list[int],
        figures: Figures,
    ) -> int:
        """Fill the cache up to the end of the first image, and return where that is."""
        first = order[0]
        end = prompt.index(self.config.ids.image) + image_tokens(grids[first]) + 1
        key = (chat[: chat.index(tag_of(first))], pictures[first].key, grids[first])
        kept = self.kept.get(key)
        if kept is None:
            self._read(prompt[:end], [pictures[first]], 0, figures, "image_prefill")
            if self.kept.limit:
                self.kept.put(key, self._attempt("the image", lambda: self.decoder.keep(0, end)))
        else:
            with figures.stage("prefill"):
                self._attempt("the image", lambda: self.decoder.put(0, kept))
        return end

    def _read(self, tokens: list[int], pictures: Sequence[Picture], start: int, figures: Figures, stage: str) -> None:
        """Read a part of the prompt, with its pictures in order, into the cache behind the first `start` tokens."""
        looked_at = self._look(pictures, figures)
        with figures.stage(stage):
            self._attempt("the image and the question", lambda: self._prefill(tokens, looked_at, start))

    def _prefill(self, tokens: list[int], images: list[Tensor], start: int) -> None:
        ids = torch.tensor([tokens], dtype=torch.long, device=self.model.device)
        rows = self.model.embed_prompt(ids, torch.cat(images)) if images else self.model.embed(ids)
        self.decoder.prefill(0, rows[0], start)

    @torch.inference_mode()
    def _look(self, pictures: Sequence[Picture], figures: Figures) -> list[Tensor]:
        """Return the rows `[n, D]` of each picture; those that are not kept go through the vision tower, all in one."""
        rows = {picture.key: self.kept.get(("rows", picture.key)) for picture in pictures}
        new = {picture.key: picture for picture in pictures if rows[picture.key] is None}
        if new:
            with figures.stage("preprocess"):
                prepared = [preprocess(picture.open(), self.config.patch_limit) for picture in new.values()]
                grids = [grid for _, grid in prepared]
                patches = np.concatenate([patches for patches, _ in prepared])
            with figures.stage("vision"):
                encoded = self._attempt("the image", lambda: self._encode(patches, grids))
            for key, part in zip(new, encoded, strict=True):
                rows[key] = part
                self.kept.put(("rows", key), part)
        return [found for picture in pictures if (found := rows[picture.key]) is not None]

    def _encode(self, patches: NDArray[np.uint8], grids: list[Grid]) -> list[Tensor]:
        rows = self.model.encode_images(normalise(torch.from_numpy(patches).to(self.model.device)), grids)
        # Each on its own, or keeping one would keep all.
        return [part.clone() for part in torch.split(rows, [image_tokens(grid) for grid in grids])]

    def _attempt(self, what: str, work: Callable[[], T]) -> T:
        """Do some work; where memory runs out, free what can be freed and try once more.

        Raises:
            OutOfMemory: it ran out again.
        """
        try:
            return work()
        except RuntimeError as error:
            if not _is_memory(error):
                raise
        # Behind the handler, or the error would hold on to what the work had allocated.
        self.free()
        with self._memory(what):
            return work()

    def free(self) -> None:
        """Free what is kept for later questions."""
        self.kept.clear()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def _memory(self, what: str) -> Iterator[None]:
        """Turn memory that runs out, on whatever device, into the house error."""
        try:
            yield
        except RuntimeError as error:
            if not _is_memory(error):
                raise
            raise OutOfMemory(
                f"{what} needs more memory than is free; make the image smaller or free some memory"
            ) from error


def _is_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
