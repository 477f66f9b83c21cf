"""The decoder's promises: the oracle's answers whatever is drawn, room that grows, shapes that stay, steps to retry."""

from functools import cache

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from groundlink.backends.locateanything import decoder as decoder_module
from groundlink.backends.locateanything.decoder import ROWS, SPANS, Decoder
from groundlink.backends.locateanything.generate import generate
from groundlink.backends.locateanything.language import Cache
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.weights import open_checkpoint
from tests.locateanything import samples
from tests.locateanything.scripted import IDS, VOCABULARY, ScriptedDecoder, box_rows, coord, small_model


@cache
def model() -> LocateAnything:
    return small_model()


PROMPT = torch.randint(10, VOCABULARY, (40,), generator=torch.Generator().manual_seed(3)).tolist()


def oracle(prompt, settings, made=None, max_length=None):
    made = made or model()
    ids = torch.tensor([prompt])
    cache = made.new_cache(1, len(prompt) + settings.max_new_tokens + 12)
    if len(prompt) > 1:
        made.prefill(made.embed(ids)[:, :-1], cache)

    def step(rows, positions, cached, mask, last):
        return made.step(rows, positions, cached, mask, cache=cache, last=last)

    config = made.config
    return list(generate(step, ids, config.text.vocab_size, config.ids, settings=settings, max_length=max_length))


def start(decoder, slot, prompt, settings, max_length=None):
    decoder.prefill(slot, decoder.embed(torch.tensor(prompt[:-1], dtype=torch.long)))
    decoder.begin(slot, prompt, settings, max_length)


def finish(decoder, slot=0):
    accepted = []
    while decoder.running(slot):
        accepted.append(decoder.step()[slot])
    return accepted


def same(accepted, wanted):
    assert [a.tokens for a in accepted] == [w.tokens for w in wanted]
    for a, w in zip(accepted, wanted, strict=True):
        assert (a.kind, a.sampled, a.block, a.finish) == (w.kind, w.sampled, w.block, w.finish)
        assert a.log_probs == pytest.approx(w.log_probs, abs=1e-3)
        assert a.spreads == pytest.approx(w.spreads, abs=0.05)


SETTINGS = [
    Settings(mode=mode, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, max_new_tokens=30)
    for seed, (mode, temperature, (top_p, top_k)) in enumerate(
        (mode, temperature, limits)
        for mode in ("fast", "slow", "hybrid")
        for temperature in (0.0, 0.7, 1.5)
        for limits in ((None, None), (0.9, None), (None, 20), (0.8, 7))
    )
]


@pytest.mark.parametrize("fixed", [False, True], ids=["as they come", "fixed shapes"])
def test_answers_are_the_oracles_whatever_is_drawn(fixed):
    decoder = Decoder(model(), fixed=fixed)
    for settings in SETTINGS:
        start(decoder, 0, PROMPT, settings)
        same(finish(decoder), oracle(PROMPT, settings))


@pytest.mark.parametrize("fixed", [False, True], ids=["as they come", "fixed shapes"])
def test_drawn_answers_do_not_depend_on_company(fixed):
    size = len(SETTINGS)
    decoder = Decoder(model(), batch=size, fixed=fixed)
    prompts = [PROMPT[: 3 + slot % 30] for slot in range(size)]
    for slot, settings in enumerate(SETTINGS):
        start(decoder, slot, prompts[slot], settings)
    answers = [[] for _ in range(size)]
    while any(map(decoder.running, range(size))):
        for slot, accepted in enumerate(decoder.step()):
            answers[slot] += [accepted] if accepted else []
    for prompt, settings, answer in zip(prompts, SETTINGS, answers, strict=True):
        same(answer, oracle(prompt, settings))


@pytest.mark.parametrize("prompt", [PROMPT[:1], PROMPT[:2], PROMPT], ids=len)
@pytest.mark.parametrize("capacity", [1, 20, 500])
def test_room_grows_in_the_middle_of_an_answer(capacity, prompt):
    settings = Settings(mode="slow", max_new_tokens=70)
    decoder = Decoder(model(), batch=2, capacity=capacity)
    start(decoder, 0, PROMPT[:9], settings)
    answer = [decoder.step()[0] for _ in range(5)]
    start(decoder, 1, prompt, settings)  # whose prompt may not fit
    other = []
    while decoder.running(0) or decoder.running(1):
        first, second = decoder.step()
        answer += [first] if first else []
        other += [second] if second else []
    same(answer, oracle(PROMPT[:9], settings))
    same(other, oracle(prompt, settings))
    assert decoder.capacity >= len(prompt) + 70 - 1


def test_a_slot_is_used_again_after_a_longer_answer():
    decoder = Decoder(model())
    start(decoder, 0, PROMPT, Settings(max_new_tokens=60))
    finish(decoder)
    start(decoder, 0, PROMPT[5:9], SETTINGS[0])
    same(finish(decoder), oracle(PROMPT[5:9], SETTINGS[0]))


def test_a_prompt_that_is_read_in_pieces_is_the_same_prompt(monkeypatch):
    monkeypatch.setattr("groundlink.backends.locateanything.decoder.PIECE", 7)
    whole, pieces, kept = (Decoder(model()) for _ in range(3))
    rows = whole.embed(torch.tensor(PROMPT[:-1]))
    whole.prefill(0, rows)
    pieces.prefill(0, rows[:4])
    pieces.prefill(0, rows[4:], start=4)
    kept.put(0, whole.keep(0, 30))
    kept.prefill(0, rows[30:], start=30)
    kept.prefill(0, rows[:0], start=39)  # nothing is nothing
    for decoder in (pieces, kept):
        torch.testing.assert_close(decoder.keep(0, 39), whole.keep(0, 39))
    for decoder in (whole, pieces, kept):
        decoder.begin(0, PROMPT, SETTINGS[0])
        same(finish(decoder), oracle(PROMPT, SETTINGS[0]))


@pytest.mark.parametrize(("new_tokens", "max_length"), [(0, None), (5, 3), (5, 40)])
def test_nothing_is_begun_where_nothing_may_be_said(new_tokens, max_length):
    decoder = Decoder(model(), batch=2)
    start(decoder, 1, PROMPT, Settings(max_new_tokens=new_tokens), max_length)
    assert not decoder.running(1)
    assert decoder.step() == [None, None]


FAILING = {
    "in the step": ("raw_figures", {"top_p": 0.9}),
    "on the long way": ("choose", {}),  # all that is drawn of the whole vocabulary takes it
    "on the long way, undrawn": ("choose", {"temperature": 0.0, "top_p": 0.95}),
}


@pytest.mark.parametrize(("work", "fields"), FAILING.values(), ids=FAILING)
def test_a_step_that_failed_can_be_taken_again(monkeypatch, work, fields):
    """Whatever of it was done: nothing is said twice, left out, or drawn anew."""
    settings = Settings(**{"mode": "fast", "temperature": 1.0, "max_new_tokens": 40, **fields})
    decoder = Decoder(model(), batch=2)
    for slot in range(2):
        start(decoder, slot, PROMPT[slot:], settings)
    answers, failures = [[], []], 0
    while decoder.running(0) or decoder.running(1):
        if len(answers[0]) % 2:
            with monkeypatch.context() as patch:
                patch.setattr(f"groundlink.backends.locateanything.decoder.{work}", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    decoder.step()
            failures += 1
        for slot, accepted in enumerate(decoder.step()):
            answers[slot] += [accepted] if accepted else []
    assert failures > 2
    for slot in range(2):
        same(answers[slot], oracle(PROMPT[slot:], settings))


def test_room_that_could_not_be_made_is_made_later(monkeypatch):
    settings = Settings(mode="slow", max_new_tokens=60)
    decoder = Decoder(model(), capacity=60)
    start(decoder, 0, PROMPT, settings)
    accepted, failures, state = [], 0, decoder_module._State

    def full(*tensors, **new):
        if new:
            raise RuntimeError("can't allocate memory")
        return state(*tensors)

    while decoder.running(0):
        with monkeypatch.context() as patch:
            patch.setattr("groundlink.backends.locateanything.decoder._State", full)
            try:
                accepted += decoder.step()
                continue
            except RuntimeError:
                failures += 1
        accepted += decoder.step()
    assert failures
    same(accepted, oracle(PROMPT, settings))


def test_a_prompt_waits_while_others_take_steps():
    decoder = Decoder(model(), batch=2)
    start(decoder, 1, PROMPT, Settings(max_new_tokens=30))
    rows = decoder.embed(torch.tensor(PROMPT[2:-1]))
    decoder.prefill(0, rows[:9])
    decoder.step()
    decoder.prefill(0, rows[9:], start=9)
    decoder.step()
    decoder.begin(0, PROMPT[2:], SETTINGS[0])
    same(finish(decoder), oracle(PROMPT[2:], SETTINGS[0]))


@pytest.mark.parametrize("limits", [{"top_k": 5000}, {"top_p": 1 - 1e-9}], ids=["top_k", "top_p"])
def test_limits_that_limit_nothing_leave_everything_to_be_drawn(limits):
    for seed in range(5):
        settings = Settings(temperature=3.0, seed=seed, max_new_tokens=24, **limits)
        decoder = Decoder(model())
        start(decoder, 0, PROMPT, settings)
        same(finish(decoder), oracle(PROMPT, settings))


def test_a_sequence_that_is_released_leaves_the_others_alone():
    decoder = Decoder(model(), batch=3)
    for slot in range(3):
        start(decoder, slot, PROMPT[slot:], Settings(max_new_tokens=40))
    answers = [decoder.step()]
    decoder.release(1)
    while decoder.running(0) or decoder.running(2):
        answers.append(decoder.step())
    assert all(told[1] is None for told in answers[1:])
    for slot in (0, 2):
        wanted = oracle(PROMPT[slot:], Settings(max_new_tokens=40))
        same([told[slot] for told in answers if told[slot]], wanted)


class Forbidden(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: numbers brought to the host or from it, shapes that depend on numbers."""

    FORBIDDEN = (
        "aten.item",
        "_local_scalar_dense",
        "lift_fresh",
        "nonzero",
        "masked_select",
        "unique",
        "is_nonzero",
        "equal.default",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.FORBIDDEN), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [Settings(), Settings(mode="slow"), Settings(temperature=1.0, top_p=0.9)])
def test_a_step_is_one_graph_of_one_shape(settings):
    """Nothing in a step depends on the host, and however far the answer is, the shape stays."""
    decoder = Decoder(model(), fixed=True)
    start(decoder, 0, PROMPT, settings)
    shapes = set()
    with pytest.raises(AssertionError, match="item"), Forbidden():
        int(torch.ones(1))

    def watched(shape):
        shapes.add(shape)
        with Forbidden():
            return decoder._body(shape)

    decoder._run = watched
    for _ in range(6):
        if decoder.running(0):
            decoder.step()
    rows = 1 if settings.mode == "slow" else ROWS
    assert {(shape.batch, shape.rows, shape.span) for shape in shapes} == {(1, rows, SPANS)}


def test_the_shapes_of_a_long_life_are_few():
    """Batches come in powers of two, caches in doublings: what a graph is needed for."""
    decoder = Decoder(model(), batch=6, fixed=True)
    shapes, run = set(), decoder._run
    decoder._run = lambda shape: shapes.add(shape) or run(shape)
    for length in (3, 30, 498, 700):
        for size in range(1, 7):
            for slot in range(size):
                prompt = (PROMPT * 20)[: length + slot]
                start(decoder, slot, prompt, SETTINGS[slot * 4])
            for _ in range(3):
                decoder.step()
            for slot in range(size):
                decoder.release(slot)
    assert {shape.batch for shape in shapes} == {1, 2, 4, 6}
    assert {shape.span for shape in shapes} == {SPANS, 2 * SPANS}
    assert len(shapes) <= 4 * 2 * 2 * 2


def test_logits_are_computed_for_six_rows():
    counted = []

    class Counting(Decoder):
        def logits(self, hidden):
            counted.append(len(hidden))
            return super().logits(hidden)

    decoder = Counting(model(), batch=2)
    start(decoder, 0, PROMPT, Settings(mode="fast", max_new_tokens=30))
    assert counted == []  # a prompt has none
    finish(decoder)
    assert set(counted) == {6}
    counted.clear()
    start(decoder, 0, PROMPT, Settings(mode="slow", max_new_tokens=5))
    finish(decoder)
    assert set(counted) == {1}


def test_weights_are_held_once():
    made = small_model()
    before = sum(parameter.untyped_storage().nbytes() for parameter in made.language_model.parameters())
    decoder = Decoder(made)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in made.language_model.parameters()}
    packed = [tensor for layer in decoder._weights.layers for tensor in layer]
    assert all(tensor.untyped_storage().data_ptr() in storages for tensor in packed)
    assert sum(storages.values()) == before
    other = Decoder(made)  # a second one takes the same
    assert other._weights is decoder._weights
    same(finish_with(decoder), oracle(PROMPT, SETTINGS[0], made))


def finish_with(decoder):
    start(decoder, 0, PROMPT, SETTINGS[0])
    return finish(decoder)


def test_an_untied_output_matrix_is_used():
    made = small_model(tied=False)
    assert made.language_model.lm_head is not None
    same(finish_with(Decoder(made)), oracle(PROMPT, SETTINGS[0], made))


def test_the_cache_is_written_in_place():
    decoder = Decoder(model())
    kept: Cache = decoder._cache
    place = kept.keys.data_ptr()
    finish_with(decoder)
    assert decoder._cache is kept
    assert kept.keys.data_ptr() == place


def test_a_hybrid_answer_goes_token_by_token_and_back_in_company():
    """One sequence breaks a box off while the others go on in parallel."""
    unsure = box_rows(1, 2, 3, 4)
    unsure[2, coord(2)], unsure[2, coord(900)] = -0.5, -0.9
    single = [row[None] for row in (box_rows(7, 0, 0, 0)[1], *box_rows(5, 6, 7, 8)[2:6])]
    ones = [unsure, *single, box_rows(9, 9, 9, 9), box_rows(9, 9, 9, 9)]
    decoder = ScriptedDecoder(model(), batch=2)
    settings = Settings(mode="hybrid", repetition_penalty=1.0, max_new_tokens=18)
    for slot, script in enumerate((ones, [box_rows(1, 2, 3, 4)] * 3)):
        decoder.script(slot, script)
        start(decoder, slot, PROMPT, settings)
    first, second = [], []
    while decoder.running(0) or decoder.running(1):
        a, b = decoder.step()
        first += a.tokens if a else []
        second += b.tokens if b else []
    assert second == [IDS.box_start, *map(coord, (1, 2, 3, 4)), IDS.box_end] * 3
    assert first[:2] == [IDS.box_start, coord(1)]
    assert first[2:7] == [coord(7), coord(6), coord(7), coord(8), IDS.box_end]
    assert first[7:] == [IDS.box_start, *[coord(9)] * 4, IDS.box_end] * 2


def test_half_precision_stays_near_the_oracle():
    checkpoint = samples.checkpoint()
    prompt = checkpoint.tokenizer.encode("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    wanted = oracle(prompt, Settings(mode="slow", max_new_tokens=8), checkpoint.model)
    for dtype in (torch.bfloat16, torch.float16):
        half = Decoder(open_checkpoint(samples.FOLDER, torch.device("cpu"), dtype).model)
        start(half, 0, prompt, Settings(mode="slow", max_new_tokens=8))
        answer = finish(half)
        assert answer[0].log_probs == pytest.approx(wanted[0].log_probs, abs=0.1)
