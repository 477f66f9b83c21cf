"""What a call needs of a device's memory, by arithmetic alone: nothing is loaded and nothing allocated.

Each figure follows the code whose memory it counts, at the moment at which most is alive there. A change to that code
is a change here; a test holds the two against each other. Sizes are in bytes where nothing else is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from groundlink.backends.locateanything.config import MERGE, PATCH, WINDOW, Config
from groundlink.backends.locateanything.decoder import ROWS, spans
from groundlink.backends.locateanything.kept import CACHE_BYTES
from groundlink.backends.locateanything.preprocessing import Size, image_grid, image_tokens
from groundlink.errors import BadImage

WORDS = 512  # tokens that buffers have room for beside image and answer, without being made anew
FIRST_SLOTS = 1024  # of the cache, before anything is asked
QUESTION = 64  # tokens of a prompt beside the image: the system's text and a short question
ANSWER = 300  # tokens of an answer with 50 boxes

MARGIN = 1.1  # what is promised to fit has this much more room than was computed beside the weights
CUDA_WORKSPACE = 96 * 2**20  # cuBLAS and the like, for each of two streams
CPU_WORKSPACE = 208 * 2**20  # code that is loaded at first use, threads, the libraries' own buffers, the tokenizer

FLOAT32 = 4
INT64 = 8


@dataclass(frozen=True)
class Shape:
    """A call: the `size` (width, height) of its picture, tokens of the prompt beside it, and tokens of the answer."""

    size: Size
    words: int = QUESTION
    answer: int = ANSWER
    batch: int = 1


@dataclass(frozen=True)
class Budget:
    """What a call takes.

    Attributes:
        weights: all parameters, once.
        workspace: what libraries take for themselves.
        buffers: keys and values, when the answer is whole.
        kept: of the picture, for later questions.
        loading, reading, vision, prefill, decoding: the most that is alive beside weights and workspace while the
            weights are laid out, the picture is prepared, looked at, read with the question, and answered about.
    """

    weights: int
    workspace: int
    buffers: int
    kept: int
    loading: int
    reading: int
    vision: int
    prefill: int
    decoding: int

    @property
    def beside(self) -> int:
        """The peak, weights and workspace aside."""
        return max(self.loading, self.reading, self.vision, self.prefill, self.decoding)

    @property
    def peak(self) -> int:
        """The most that is held at any time."""
        return self.weights + self.workspace + self.beside

    @property
    def room(self) -> int:
        """Memory in which it is sure to fit."""
        return self.weights + self.workspace + int(self.beside * MARGIN)


@dataclass(frozen=True)
class Forecast:
    """A model on a device, of which calls are foretold.

    Attributes:
        config: of the model.
        item: bytes of a number in the model's type.
        cuda: CUDA or the CPU.
        max_new_tokens: the longest answer, which CUDA has room for from the start.
        cache_bytes: the most that is kept for later questions.
    """

    config: Config
    item: int
    cuda: bool
    max_new_tokens: int = 8192
    cache_bytes: int = CACHE_BYTES

    def call(self, shape: Shape, slots: int | None = None) -> Budget:
        """Return what a call takes that finds nothing kept. `slots` of the cache are there already.

        Raises:
            BadImage: the picture is one that the model does not read.
        """
        grid = image_grid(*shape.size, self.config.patch_limit)
        patches, tokens = grid[0] * grid[1], image_tokens(grid)
        prompt = tokens + shape.words
        # What the vision tower gives for each picture is alive until it is read, and kept.
        rows = shape.batch * tokens * self.config.text.hidden_size * self.item
        kept = min(self.cache_bytes, rows + shape.batch * self.cache(prompt))
        held, grown, last = self._slots(prompt, shape.answer, slots)
        graphs = self.captured(shape.batch)
        buffers, at_last = (shape.batch * self.cache(count) + graphs for count in (held, last))
        growing = shape.batch * self.cache(grown) + at_last if last > grown else 0
        picture = 0 if self.cuda else 4 * shape.size[0] * shape.size[1]
        return Budget(
            weights=weight_numbers(self.config) * self.item,
            workspace=self.workspace,
            buffers=at_last,
            kept=kept,
            loading=self.loading(),
            reading=0 if self.cuda else buffers + 2 * picture + patches * _PREPARING,
            vision=buffers + picture + self.vision(patches),
            prefill=buffers + picture + rows + self.prefill(prompt),
            decoding=picture + kept + max(growing, at_last + self.step(shape.batch, prompt + shape.answer)),
        )

    def largest(self, free: int, within: Size, words: int = QUESTION, answer: int = ANSWER, slots: int | None = None
                ) -> Size | None:  # fmt: skip
        """Return the largest picture of the aspect of `within`, and no larger, that is sure to fit; None: not any."""

        def fits(width: int) -> bool:
            size = (width, max(1, round(width * within[1] / within[0])))
            try:
                return self.call(Shape(size, words, answer), slots).room <= free
            except BadImage:
                return False

        low, high = 0, within[0]
        if not fits(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if fits(middle) else (low, middle)
            high = low
        return (high, max(1, round(high * within[1] / within[0]))) if high else None

    def held(self, slots: int) -> int:
        """Return what stays between calls, with so many slots of the cache, what is kept of pictures aside."""
        return weight_numbers(self.config) * self.item + self.workspace + self.cache(slots) + self.captured(1)

    @property
    def workspace(self) -> int:
        """Bytes that libraries take for themselves."""
        return CUDA_WORKSPACE if self.cuda else CPU_WORKSPACE

    def loading(self) -> int:
        """Bytes beside the weights while a file is read and the weights of a layer are joined."""
        text = self.config.text
        joined = 2 * text.intermediate_size * text.hidden_size
        # Files have an output matrix also where it is the embedding matrix; it is read before it is dropped.
        output = text.vocab_size * text.hidden_size if self.config.tied and self.cuda else 0
        return max(joined, output) * self.item

    def cache(self, slots: int) -> int:
        """Bytes of one sequence's keys and values, and of its ids."""
        text = self.config.text
        key_width = text.num_key_value_heads * text.head_dim
        return 2 * text.num_hidden_layers * key_width * slots * self.item + slots * INT64

    def captured(self, batch: int) -> int:
        """Bytes of the results that the captured graphs of a step leave."""
        if not self.cuda:
            return 0
        return len(spans(longest(self.config, self.max_new_tokens))) * batch * WINDOW * self.config.text.vocab_size * 4

    def _slots(self, prompt: int, answer: int, slots: int | None) -> tuple[int, int, int]:
        """Return how many slots there are in the end of the prompt; and before and after they grow for the last time.

        The two are alike where nothing grows.
        """
        if self.cuda:
            held = spans(longest(self.config, self.max_new_tokens))[-1]
            while held < prompt + answer + ROWS:
                held *= 2
            return held, held, held
        held = max(slots or FIRST_SLOTS, room_for(prompt, self.max_new_tokens, self.config.max_length, False))
        before = after = held
        while after < prompt + answer + WINDOW:
            before, after = after, after + after // 2
        return held, before, after

    def vision(self, patches: int) -> int:
        """Bytes at the widest moment of the vision tower."""
        config, item = self.config.vision, self.item
        dim, hidden = config.hidden_size, config.intermediate_size
        head_dim = dim // config.num_attention_heads
        colours = 3 * PATCH * PATCH
        # As bytes, in float32, and in the model's type; before, two steps of the way to float32.
        pixels = colours * (1 + FLOAT32 + (item if item != FLOAT32 else 0))
        normalising = colours * (1 + 2 * FLOAT32)
        angles = 3 * head_dim // 2 * FLOAT32  # with their cosine and sine
        widened = dim * FLOAT32 if item != FLOAT32 else 0
        # the first x, x, normed, qkv, the turned query; the key in float32, its halves, and both again joined
        turning = 7 * dim * item + widened + 2 * dim * FLOAT32
        # the first x, x, normed, qkv, turned query and key, what is seen, the same of all pictures, mixed
        mixing = 11 * dim * item
        # the first x, x before and after attention, normed; hidden rows before and after GELU
        feeding = (4 * dim + 2 * hidden) * item
        return patches * max(normalising, pixels + angles + max(turning, mixing, feeding))

    def prefill(self, tokens: int) -> int:
        """Bytes at the widest moment of a first pass over a prompt."""
        text, item = self.config.text, self.item
        dim, key, hidden = text.hidden_size, text.num_key_value_heads * text.head_dim, text.intermediate_size
        tables = 2 * text.head_dim * item
        # The embedded words, the pictures' rows and the two in one; on CUDA a place is computed for each number.
        embedding = 3 * dim * item + (dim * (1 + INT64) if self.cuda else 0)
        # rows, x, qkv, turned, seen, normed; gate and up of this layer and of the one before
        layers = (dim + dim + (dim + 2 * key) + (dim + key) + dim + dim + 4 * hidden) * item
        return tokens * (tables + max(embedding, layers))

    def step(self, batch: int, length: int) -> int:
        """Bytes at the widest moment of a step: of its rows and their mask, or of sampling."""
        text = self.config.text
        rows = batch * ROWS
        mask = rows * text.num_attention_heads // text.num_key_value_heads * length * self.item
        logits = batch * WINDOW * text.vocab_size * FLOAT32
        # Raw, with penalty and temperature, and once more while their sum is taken.
        return max(self.prefill(rows) + mask, 3 * logits)


# Bytes for each patch while a picture is prepared: resized in PIL, as an array, and cut up.
_PREPARING = PATCH * PATCH * (4 + 3 + 3)


def weight_numbers(config: Config) -> int:
    """Count the parameters."""
    vision, text = config.vision, config.text
    dim, hidden = vision.hidden_size, vision.intermediate_size
    joined, width = MERGE**2 * dim, text.hidden_size
    key = text.num_key_value_heads * text.head_dim

    def linear(inputs: int, outputs: int, bias: bool = True) -> int:
        return (inputs + bias) * outputs

    block = 2 * 2 * dim + linear(dim, 3 * dim) + linear(dim, dim) + linear(dim, hidden) + linear(hidden, dim)
    tower = linear(3 * PATCH * PATCH, dim) + vision.init_pos_emb_height * vision.init_pos_emb_width * dim
    tower += vision.num_hidden_layers * block + 2 * dim
    connector = 2 * joined + linear(joined, width) + linear(width, width)
    layer = 2 * width + linear(width, width) + 2 * linear(width, key) + linear(width, width, bias=False)
    layer += 3 * linear(width, text.intermediate_size, bias=False)
    vocabulary = text.vocab_size * width * (1 if config.tied else 2)
    return tower + connector + text.num_hidden_layers * layer + width + vocabulary


def longest(config: Config, max_new_tokens: int) -> int:
    """Return the most tokens that a sequence about one picture has."""
    # A grid may exceed the limit a little, since sides are rounded up.
    most = config.patch_limit // MERGE**2 * 11 // 10 + WORDS + max_new_tokens
    return min(most, config.max_length or most)


def room_for(prompt: int, max_new_tokens: int, max_length: int | None, cuda: bool) -> int:
    """Return the slots to have before a prompt is read, so that a short answer needs no others."""
    whole = prompt + max_new_tokens
    length = min(prompt + WORDS, whole if max_length is None else min(whole, max_length))
    return spans(length)[-1] if cuda else length + ROWS


def full_size(config: Config, aspect: Size) -> Size:
    """Return about the largest picture of an aspect that the model reads without making it smaller."""
    width = math.isqrt(config.patch_limit * PATCH**2 * aspect[0] // aspect[1])
    return width, width * aspect[1] // aspect[0]
