"""Golden set 2: every stage of the network, and whole generations, from stored checkpoints."""

import re

import pytest
import torch

from groundlink.backends.locateanything.generate import generate, step_rows
from groundlink.backends.locateanything.preprocessing import preprocess
from groundlink.backends.locateanything.prompt import Turn, build_chat, expand_tags
from groundlink.backends.locateanything.vision import normalise
from tests.locateanything import golden_data as golden

CASES = [case["name"] for case in golden.read("g2/cases.json")]
PAIRS = [(name, case) for name in golden.CHECKPOINTS for case in CASES]


def close(got, wanted, atol=2e-4):
    torch.testing.assert_close(got, wanted, atol=atol, rtol=1e-4)


def close_logits(got, wanted):
    close(got, wanted, atol=5e-4)


class Trace:
    """The hidden rows of a run, by layer: 0 the embeddings, and one after each layer, prefill and steps joined."""

    def __init__(self, language):
        self.parts = [[] for _ in range(len(language.model.layers) + 1)]
        self._hooks = [
            layer.register_forward_hook(lambda _, inputs, output, i=i: self._take(i, inputs[0], output))
            for i, layer in enumerate(language.model.layers)
        ]

    def _take(self, i, x, out):
        if i == 0:
            self.parts[0].append(x)
        self.parts[i + 1].append(out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()

    def layer(self, i):
        return torch.cat(self.parts[i], 1)[0]


def run(checkpoint, sequence, prompt_length, proj, cached, window):
    """Run a whole sequence: what is cached in one pass, the rest as a step. Return logits, cache and step rows."""
    model = checkpoint.model
    cache = model.new_cache(1, sequence.shape[1])
    rows = model.embed_prompt(sequence[:, :prompt_length], proj)
    rows = torch.cat((rows, model.embed(sequence[:, prompt_length:])), 1)[:, :cached]
    model.prefill(rows, cache)
    ids, positions, mask = step_rows(sequence, cached, window, checkpoint.config.ids.text_mask)
    last = 6 if window else 1
    logits = model.step(ids, positions, torch.tensor([cached]), mask, cache=cache, last=last)
    return logits[0], cache, (ids, positions, mask)


@pytest.fixture(scope="module")
def features():
    """The connector's output for each checkpoint and case."""
    kept = {}

    def look(name, case):
        if (name, case) not in kept:
            _, patches, grids = golden.case_input(case)
            model = golden.checkpoint(name).model
            vit = model.vision_model(patches, grids)
            kept[name, case] = (vit, model.mlp1(vit))
        return kept[name, case]

    return look


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
@pytest.mark.parametrize("case", golden.read("g2/cases.json"), ids=lambda case: case["name"])
def test_golden_inputs_are_made_from_pictures_and_question(case, name):
    checkpoint = golden.checkpoint(name)
    wanted_ids, wanted_patches, wanted_grids = golden.case_input(case["name"])
    pictures = [golden.image(f"g2/{name}").convert("RGB") for name in case["images"]]
    prepared = [preprocess(picture, checkpoint.config.patch_limit) for picture in pictures]
    chat, _ = build_chat([Turn("user", [pictures[0], case["question"], *pictures[1:]])])
    text, order = expand_tags(chat, [grid for _, grid in prepared])
    assert checkpoint.tokenizer.encode(text) == wanted_ids[0].tolist()
    assert [prepared[i][1] for i in order] == wanted_grids
    assert torch.equal(torch.cat([normalise(torch.from_numpy(prepared[i][0])) for i in order]), wanted_patches)


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_golden_vision(name, case, features):
    vit, proj = features(name, case)
    close(vit, golden.tensors()[f"{name}.{case}.vit"])
    close(proj, golden.tensors()[f"{name}.{case}.proj"])


@pytest.mark.parametrize(("name", "case"), PAIRS)
@pytest.mark.parametrize("kind", ["ar_prefill", "mtp_prefill"])
def test_golden_prefill(name, case, kind, features):
    stored = {
        key.removeprefix(f"{name}.{case}.{kind}."): value
        for key, value in golden.tensors().items()
        if key.startswith(f"{name}.{case}.{kind}.")
    }
    checkpoint = golden.checkpoint(name)
    language = checkpoint.model.language_model
    prompt, _, _ = golden.case_input(case)
    length = prompt.shape[1]
    window = kind == "mtp_prefill"
    with Trace(language) as trace:
        logits, cache, _ = run(checkpoint, prompt, length, features(name, case)[1], length - 1, window)
    final = language.model.norm(trace.layer(-1))

    close_logits(logits if window else logits[0], stored.pop("logits_last6" if window else "logits_last"))
    if "mask" in stored:
        assert torch.equal(step_rows(prompt, 0, window, checkpoint.config.ids.text_mask)[2][0], stored.pop("mask"))
    if "hidden_final" in stored:
        close(final, stored.pop("hidden_final"))
    if "hidden_all" in stored:
        every = stored.pop("hidden_all")
        assert len(every) == len(trace.parts)
        for i, wanted in enumerate(every):
            close(final if i == len(every) - 1 else trace.layer(i), wanted)
    for key in list(stored):
        which, layer = re.fullmatch(r"([kv])(\d+)", key).groups()
        kept = (cache.keys if which == "k" else cache.values)[int(layer), 0]
        wanted = stored.pop(key)
        close(kept[:, : wanted.shape[1]], wanted)
    assert not stored, "something in the golden data was not looked at"


STEPS = [
    (pair, mode, tag)
    for pair, modes in golden.read("g2/step_inputs.json").items()
    for mode, tags in modes.items()
    for tag in tags
]


def so_far(name, case, mode, steps):
    """Return prompt and output of the plain greedy run before one of its steps."""
    run = next(
        run
        for run in golden.read("g2/generate.json.gz")
        if (run["ckpt"], run["case"], run["mode"]) == (name, case, mode)
        and run["repetition_penalty"] == 1
        and run["top_p"] is None
    )
    output = [token for step in run["steps"][:steps] for token in step["tokens"]]
    return torch.cat((golden.case_input(case)[0], torch.tensor([output], dtype=torch.long)), 1)


@pytest.mark.parametrize(("pair", "mode", "tag"), STEPS)
def test_golden_steps(pair, mode, tag, features):
    name, case = pair.split(".", 1)
    stored = golden.read("g2/step_inputs.json")[pair][mode][tag]
    checkpoint = golden.checkpoint(name)
    sequence = so_far(name, case, mode, stored["step"])
    window = "mtp" in tag
    ids, positions, mask = step_rows(sequence, stored["cache_len"], window, checkpoint.config.ids.text_mask)
    assert ids[0].tolist() == stored["input_ids"]
    assert positions[0].tolist() == stored["position_ids"]
    if ids.shape[1] == 1:  # it sees every key, and has no mask stored
        assert mask.all()
        assert mask.shape[-1] == stored["cache_len"] + 1
    else:
        assert torch.equal(mask[0], golden.tensors()[stored["mask"]])

    # Nothing is cached in a first step of the golden data; here all but the last token is.
    cached = stored["cache_len"] or sequence.shape[1] - 1
    prompt_length = golden.case_input(case)[0].shape[1]
    logits, _, _ = run(checkpoint, sequence, prompt_length, features(name, case)[1], cached, window)
    close_logits(logits, golden.tensors()[f"{pair}.{mode}.{tag}.logits"])


RUNS = [run for run in golden.read("g2/generate.json.gz") if run["robust"]]
GROUPS = sorted({(run["ckpt"], run["case"], run["mode"]) for run in RUNS})


@pytest.mark.parametrize("group", GROUPS, ids=".".join)
def test_golden_generations(group, features):
    for wanted in RUNS:
        if (wanted["ckpt"], wanted["case"], wanted["mode"]) == group:
            check_generation(wanted, features)


def check_generation(wanted, features):
    checkpoint = golden.checkpoint(wanted["ckpt"])
    model = checkpoint.model
    prompt, _, _ = golden.case_input(wanted["case"])
    length = prompt.shape[1]
    cache = model.new_cache(1, length + wanted["max_new_tokens"])
    model.prefill(model.embed_prompt(prompt, features(wanted["ckpt"], wanted["case"])[1])[:, :-1], cache)
    inputs = []

    def step(ids, positions, cached, mask, last):
        inputs.append((int(cached), ids[0].tolist(), positions[0].tolist()))
        return model.step(ids, positions, cached, mask, cache=cache, last=last)

    accepted = list(
        generate(
            step,
            prompt,
            checkpoint.config.text.vocab_size,
            checkpoint.config.ids,
            settings=golden.settings(wanted),
            max_length=checkpoint.config.max_length,
        )
    )
    tokens = [token for taken in accepted for token in taken.tokens]
    assert tokens == wanted["new_token_ids"]
    assert checkpoint.tokenizer.decode(tokens) == wanted["answer"]
    assert len(accepted) == len(inputs) == len(wanted["steps"])
    for number, (taken, (cached, ids, positions), told) in enumerate(
        zip(accepted, inputs, wanted["steps"], strict=True)
    ):
        assert taken.sampled == told["x0"]
        assert taken.tokens == told["tokens"]
        assert (taken.kind is None) == (told["mode"] != "mtp")
        if taken.kind is not None:
            assert taken.kind.name.lower() == told["type"]
            if not wanted.get("box_avg_tie_sensitive"):
                assert (taken.block or [0]) == told["box_avg"]
        if number:  # of the first step, all but the last token was cached before
            assert cached == told["cache_len"]
            assert len(ids) == told["n_input"]
        tail = min(len(ids), len(told["input_ids_tail"]))
        assert ids[-tail:] == told["input_ids_tail"][-tail:]
        assert positions[-tail:] == told["position_ids_tail"][-tail:]
