"""The yardstick of the benchmarks answers what the golden data say, so that it is no strawman and no other model."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.plain import Plain, ScriptedPlain, look
from benchmarks.shapes import Script, answer_blocks, box_block, random_model, random_prompt
from groundlink.backends.locateanything.settings import Settings
from tests.locateanything import golden_data as golden

RUNS = [run for run in golden.read("g2/generate.json.gz") if run["robust"]][::2]  # what CI has time for


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_golden_answers(name):
    checkpoint = golden.checkpoint(name)
    model = checkpoint.model
    rows = {}
    for run in (run for run in RUNS if run["ckpt"] == name):
        prompt, patches, grids = golden.case_input(run["case"])
        if run["case"] not in rows:
            images = look(model, patches, grids)
            torch.testing.assert_close(images, model.encode_images(patches, grids), atol=2e-4, rtol=1e-4)
            rows[run["case"]] = model.embed_prompt(prompt, images)
        plain = Plain(model)
        plain.begin(prompt, rows[run["case"]], golden.settings(run), checkpoint.config.max_length)
        got = list(iter(plain.step, None))
        assert got == [step["tokens"] for step in run["steps"]], (run["case"], run["mode"])
    assert rows


def test_golden_blocks():
    data = golden.read("g3/block_decode.json.gz")
    firm = [case for case in data["cases"] if not case["fragile"] and not case["tie_sensitive"]]
    for case in (case for case in firm if case["vocab"] == "small"):
        vocab = data["vocabs"][case["vocab"]]
        model = SimpleNamespace(config=SimpleNamespace(ids=golden.token_ids(vocab["token_ids"])))
        model.language_model = SimpleNamespace(model=SimpleNamespace(layers=[]))
        plain = Plain(model)
        plain.begin(torch.tensor([case["generated_ids"]], dtype=torch.long), None, golden.settings(case))
        probs = plain._probabilities(golden.dense(case["background"], case["entries"], vocab["vocab_size"])[0])
        together = plain._together(probs)
        tokens = plain._read(together or probs.argmax(-1).tolist())
        got = (together or [0], tokens, not plain.parallel, plain.ended)
        keys = ("box_avg", "tokens", "need_switch_to_ar", "is_terminal")
        assert got == tuple(case["expected"][key] for key in keys), case["name"]


def test_a_script_is_followed():
    model = random_model("small", torch.device("cpu"), torch.float32)
    ids = model.config.ids
    blocks = answer_blocks(2, ids)

    plain = ScriptedPlain(model, Script(blocks, model.device))
    plain.begin(*random_prompt(model, 20), Settings(top_p=0.9))
    label, *boxes, end = iter(plain.step, None)
    assert label == blocks[0][:3]
    assert boxes == [box_block(ids)] * 2
    assert end == [ids.end]
