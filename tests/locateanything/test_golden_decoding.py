"""Golden sets 3 and 4: probabilities, blocks, and whole loops over scripted logits."""

import pytest
import torch

from groundlink.backends.locateanything.blocks import Dense, Kind, decode_block, read_block
from groundlink.backends.locateanything.generate import generate
from groundlink.backends.locateanything.parse import Reader
from groundlink.backends.locateanything.prompt import Tokenizer
from groundlink.backends.locateanything.sampling import probabilities
from tests.locateanything import golden_data as golden

VOCABS = golden.read("g3/block_decode.json.gz")["vocabs"]


def case_probabilities(case):
    vocab_size = VOCABS[case["vocab"]]["vocab_size"]
    logits = golden.dense(case["background"], case["entries"], vocab_size)
    return probabilities(logits, golden.seen_mask(case["generated_ids"], vocab_size), golden.settings(case))


@pytest.mark.parametrize("vocab", VOCABS)
def test_golden_blocks(vocab):
    cases = [case for case in golden.read("g3/block_decode.json.gz")["cases"] if case["vocab"] == vocab]
    firm = [case for case in cases if not case["fragile"] and not case["tie_sensitive"]]
    assert len(firm) > len(cases) / 2
    ids = golden.token_ids(VOCABS[vocab]["token_ids"])
    for case in firm:
        hybrid = case["mode"] == "hybrid"
        probs = case_probabilities(case)
        sampled = probs.argmax(-1)
        block, together = decode_block(Dense(probs), sampled, hybrid, ids)
        tokens, count, kind = read_block(block, hybrid, ids)
        wanted = case["expected"]
        got = {
            "argmax_ids": sampled[0].tolist(),
            "box_avg": block[0].tolist() if together else [0],
            "used_fallback": not together,
            "new_tokens": block[0].tolist(),
            "type": Kind(int(kind)).name.lower(),
            "tokens": tokens[0, : int(count)].tolist(),
            "need_switch_to_ar": kind == Kind.ERROR_BOX,
            "is_terminal": kind == Kind.IM_END,
        }
        assert got == wanted, case["name"]


def test_golden_patterns():
    golden_patterns = golden.read("g3/pattern.json")
    ids = golden.token_ids(VOCABS[golden_patterns["vocab"]]["token_ids"])
    for hybrid in (True, False):
        cases = [case for case in golden_patterns["cases"] if (case["mode"] == "hybrid") == hybrid]
        # All in one batch: a row's reading must not depend on its neighbours.
        tokens, counts, kinds = read_block(torch.tensor([case["x0"] for case in cases]), hybrid, ids)
        for case, taken, count, kind in zip(cases, tokens.tolist(), counts.tolist(), kinds.tolist(), strict=True):
            assert taken[:count] == case["tokens"], case
            assert Kind(kind).name.lower() == case["type"], case
            assert (kind == Kind.ERROR_BOX) == case["need_switch_to_ar"]
            assert (kind == Kind.IM_END) == case["is_terminal"]


def test_golden_probabilities():
    for case in golden.read("g3/filter_probs.json"):
        probs = case_probabilities(case)[0, 0]
        wanted = case["expected"]
        assert int(probs.argmax()) == wanted["argmax"]
        values = torch.tensor([value for _, value in wanted["top"]])
        torch.testing.assert_close(probs.topk(len(values)).values, values, atol=1e-5, rtol=0)
        if not case["tie_sensitive"]:
            assert int((probs > 0).sum()) == wanted["nonzero"]
            assert all(probs[token].item() == pytest.approx(value, abs=1e-5) for token, value in wanted["top"])


class Script:
    """A language model that says what it is told to, and checks what it is asked."""

    def __init__(self, trace, vocab_size):
        self.trace = trace
        self.vocab_size = vocab_size
        self.asked = 0

    def __call__(self, ids, positions, cached, mask, last):
        told = self.trace["steps"][self.asked]
        # Nothing is cached in the first step of the golden data; here all but the last token is.
        before = [] if self.asked else self.trace["prompt"][:-1]
        self.asked += 1
        assert before + ids[0].tolist() == told["input_ids"]
        assert list(range(len(before))) + positions[0].tolist() == told["position_ids"]
        assert int(cached) == (len(before) or told["cache_len"])
        assert mask.shape == (1, ids.shape[1], int(cached) + ids.shape[1])
        rows = told["scripted_logits"]
        assert len(rows) == last
        entries = [(i, token, value) for i, row in enumerate(rows) for token, value in row["entries"]]
        return golden.dense([row["background"] for row in rows], entries, self.vocab_size)


TRACES = golden.read("g4/traces.json.gz")


@pytest.mark.parametrize("trace", [t for t in TRACES["traces"] if t["robust"]], ids=lambda trace: trace["name"])
def test_golden_traces(trace):
    ids = golden.token_ids(TRACES["token_ids"])
    script = Script(trace, TRACES["vocab_size"])
    accepted = list(
        generate(
            script,
            torch.tensor([trace["prompt"]]),
            TRACES["vocab_size"],
            ids,
            settings=golden.settings(trace),
            max_length=trace["model_max_length"],
        )
    )
    assert script.asked == len(accepted) == len(trace["steps"])
    for taken, told in zip(accepted, trace["steps"], strict=True):
        assert taken.sampled == told["x0"]
        assert taken.tokens == told["tokens"]
        if told["mode"] == "mtp":
            assert taken.kind.name.lower() == told["type"]
            assert (taken.block or [0]) == told["box_avg"]
        else:
            assert taken.kind is None
    tokens = [token for taken in accepted for token in taken.tokens]
    assert tokens == trace["new_token_ids"]

    tokenizer = Tokenizer(golden.FOLDER / "g4" / TRACES["tokenizer"] / "tokenizer.json")
    reader = Reader(tokenizer, ids)
    for taken in accepted:
        reader.add(taken)
    reader.flush()
    # Where the released code crashes, ours has an answer.
    wanted = tokenizer.decode(tokens) if trace["reference_error"] else trace["answer"]
    assert reader.text == wanted
