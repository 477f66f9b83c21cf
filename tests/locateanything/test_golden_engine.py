"""The golden sets through the decoder that answers are made with: alone, and in batches of unlike requests."""

import random
from functools import cache

import pytest
import torch

from groundlink.backends.locateanything.decoder import Decoder
from tests.locateanything import golden_data as golden
from tests.locateanything.scripted import ScriptedDecoder, small_model

RUNS = [run for run in golden.read("g2/generate.json.gz") if run["robust"]]
GAP = 1e-3  # a step whose two best logits are nearer than this may go either way
CLOSE = 5e-4  # … if its logits are these


class Watched(Decoder):
    """Keeps the raw logits of the last step, `[B, rows, V]`."""

    def logits(self, hidden):
        self.last = super().logits(hidden)
        return self.last


@cache
def rows(name, case):
    """Return the prompt as tokens, and embedded, `[R, D]`."""
    model = golden.checkpoint(name).model
    prompt, patches, grids = golden.case_input(case)
    return prompt[0].tolist(), model.embed_prompt(prompt, model.encode_images(patches, grids))[0]


def begin(decoder, slot, run):
    prompt, embedded = rows(run["ckpt"], run["case"])
    decoder.prefill(slot, embedded[:-1])
    decoder.begin(slot, prompt, golden.settings(run), golden.checkpoint(run["ckpt"]).config.max_length)


def check(run, steps):
    """Compare the steps of an answer with the golden ones, up to a step that could have gone either way."""
    for taken, told in zip(steps, run["steps"], strict=False):
        if taken.tokens != told["tokens"]:
            assert told["min_top2_gap"] < GAP, (run["ckpt"], run["case"], taken, told)
            return False
        assert taken.sampled == told["x0"]
        assert (taken.kind is None) == (told["mode"] != "mtp")
        if taken.kind is not None:
            assert taken.kind.name.lower() == told["type"]
            if not run.get("box_avg_tie_sensitive"):
                assert (taken.block or [0]) == told["box_avg"]
    assert len(steps) == len(run["steps"])
    return True


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
@pytest.mark.parametrize("fixed", [False, True], ids=["as they come", "fixed shapes"])
def test_golden_generations_alone(name, fixed):
    equal = []
    decoder = Decoder(golden.checkpoint(name).model, capacity=64, fixed=fixed)
    runs = [run for run in RUNS if run["ckpt"] == name]
    for run in runs:
        begin(decoder, 0, run)
        steps = []
        while decoder.running(0):
            steps += decoder.step()
        equal.append(check(run, steps))
    assert sum(equal) > 0.9 * len(runs)


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
@pytest.mark.parametrize("fixed", [False, True], ids=["as they come", "fixed shapes"])
def test_golden_generations_in_unlike_company(name, fixed):
    """Requests of all modes, penalties and lengths join and leave at any step; none changes another's answer."""
    waiting = [run for run in RUNS if run["ckpt"] == name]
    random.Random(5).shuffle(waiting)
    count, size = len(waiting), 5
    decoder = Decoder(golden.checkpoint(name).model, batch=size, capacity=64, fixed=fixed)
    slots = [None] * size
    equal, together = [], []
    while waiting or any(slots):
        for slot in range(size):
            if slots[slot] is not None and not decoder.running(slot):
                equal.append(check(*slots[slot]))
                slots[slot] = None
        for slot in range(size):  # one joins at each step, so that no two are ever in step
            if slots[slot] is None and waiting:
                slots[slot] = (waiting.pop(), [])
                begin(decoder, slot, slots[slot][0])
                break
        told = decoder.step()
        together.append(sum(taken is not None for taken in told))
        for held, taken in zip(slots, told, strict=True):
            if taken is not None:
                held[1].append(taken)
    assert len(equal) == count
    assert sum(equal) > 0.9 * count
    assert max(together) == size


STEPS = [
    (pair, mode, tag)
    for pair, modes in golden.read("g2/step_inputs.json").items()
    for mode, tags in modes.items()
    for tag in tags
]


@pytest.mark.parametrize("fixed", [False, True], ids=["as they come", "fixed shapes"])
def test_golden_logits_of_steps(fixed):
    looked_at = 0
    for pair, mode, tag in STEPS:
        name, case = pair.split(".", 1)
        stored = golden.read("g2/step_inputs.json")[pair][mode][tag]
        (run,) = (
            run
            for run in golden.read("g2/generate.json.gz")
            if (run["ckpt"], run["case"], run["mode"]) == (name, case, mode)
            and (run["repetition_penalty"], run["top_p"]) == (1.0, None)
        )
        decoder = Watched(golden.checkpoint(name).model, capacity=64, fixed=fixed)
        begin(decoder, 0, run)
        steps = [decoder.step()[0] for _ in range(stored["step"] + 1)]
        if [taken.tokens for taken in steps[:-1]] != [told["tokens"] for told in run["steps"][: stored["step"]]]:
            continue  # it went another way before
        wanted = golden.tensors()[f"{pair}.{mode}.{tag}.logits"]
        torch.testing.assert_close(decoder.last[: len(wanted)], wanted, atol=CLOSE, rtol=1e-4)
        looked_at += 1
    assert looked_at > 0.9 * len(STEPS)


TRACES = golden.read("g4/traces.json.gz")
ROBUST = [trace for trace in TRACES["traces"] if trace["robust"]]


def trace_script(trace):
    """Return the rows of each step, `[rows, V]`."""
    script = []
    for step in trace["steps"]:
        told = step["scripted_logits"]
        entries = [(i, token, value) for i, row in enumerate(told) for token, value in row["entries"]]
        script.append(golden.dense([row["background"] for row in told], entries, TRACES["vocab_size"])[0])
    return script


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("fixed", [False, True], ids=["as they come", "fixed shapes"])
def test_golden_traces_through_the_decoder(size, fixed):
    """Whole loops over scripted logits, with many ties: several at once, each with its own limits and settings."""
    model = small_model(TRACES["vocab_size"], golden.token_ids(TRACES["token_ids"]))
    decoder = ScriptedDecoder(model, batch=size, capacity=32, fixed=fixed)
    waiting = list(ROBUST)
    slots = [None] * size
    done = 0
    while waiting or any(slots):
        for slot in range(size):
            if slots[slot] is not None and not decoder.running(slot):
                trace, accepted = slots[slot]
                slots[slot] = None
                done += 1
                assert [taken.sampled for taken in accepted] == [told["x0"] for told in trace["steps"]]
                assert [taken.tokens for taken in accepted] == [told["tokens"] for told in trace["steps"]]
                told_blocks = [told["box_avg"] for told in trace["steps"] if told["mode"] == "mtp"]
                assert [taken.block or [0] for taken in accepted if taken.kind is not None] == told_blocks
            if slots[slot] is None and waiting:
                slots[slot] = (trace := waiting.pop(), [])
                decoder.script(slot, trace_script(trace))
                decoder.prefill(slot, decoder.embed(torch.tensor(trace["prompt"][:-1], dtype=torch.long)))
                decoder.begin(slot, trace["prompt"], golden.settings(trace), trace["model_max_length"])
        for held, taken in zip(slots, decoder.step(), strict=True):
            if taken is not None:
                held[1].append(taken)
    assert done == len(ROBUST)
