"""The golden set itself: all of it is here and looked at. A set cut short must not pass for a whole one."""

import itertools
import re

import pytest
from safetensors import safe_open

from tests.locateanything import golden_data as golden

PATCHES = "g1/pixel_values_u8.safetensors"
# A quarter of what set A has.
LEAST = {
    "g1/preprocess.json": 18,
    "g1/prompts.json": 6,
    "g1/crop.json": 10,
    "g1/parse.json": 6,
    "g2/cases.json": 2,
    "g3/filter_probs.json": 20,
}
RUNS = golden.read("g2/generate.json.gz")
CASES = [case["name"] for case in golden.read("g2/cases.json")]
PENALTIES, TOP_PS = (1.0, 1.1), (None, 0.9)


@pytest.mark.parametrize("name", LEAST)
def test_golden_lists_are_whole(name):
    assert len(golden.read(name)) >= LEAST[name]


def test_golden_units_are_whole():
    blocks = golden.read("g3/block_decode.json.gz")
    assert len(blocks["cases"]) >= 286
    assert {case["vocab"] for case in blocks["cases"]} == set(blocks["vocabs"])
    patterns = golden.read("g3/pattern.json")
    assert len(patterns["cases"]) >= 150
    assert {case["mode"] for case in patterns["cases"]} == {case["mode"] for case in blocks["cases"]}
    assert {case["mode"] for case in blocks["cases"]} == {"fast", "hybrid"}


def test_golden_traces_are_whole():
    traces = golden.read("g4/traces.json.gz")["traces"]
    assert len(traces) >= 14
    assert {trace["mode"] for trace in traces} == {"fast", "slow", "hybrid"}
    assert sum(trace["robust"] for trace in traces) > 0.9 * len(traces)


def test_golden_generations_are_whole():
    """Every checkpoint, case, mode, penalty and top-p was run, and hardly any of the runs is left out as a tie."""
    assert {run["ckpt"] for run in RUNS} == set(golden.CHECKPOINTS)
    ran = {(run["ckpt"], run["case"], run["mode"], run["repetition_penalty"], run["top_p"]) for run in RUNS}
    assert ran == set(itertools.product(golden.CHECKPOINTS, CASES, ("fast", "slow", "hybrid"), PENALTIES, TOP_PS))
    for mode, penalty, top_p in itertools.product(("fast", "slow", "hybrid"), PENALTIES, TOP_PS):
        same = [run for run in RUNS if (run["mode"], run["repetition_penalty"], run["top_p"]) == (mode, penalty, top_p)]
        assert sum(run["robust"] for run in same) > len(same) / 2


def test_golden_tensors_are_all_looked_at():
    steps = golden.read("g2/step_inputs.json")
    known = {f"in.{case}.{what}" for case in CASES for what in ("input_ids", "pixel_values_u8", "grid_hws")}
    for name, case in itertools.product(golden.CHECKPOINTS, CASES):
        known |= {f"{name}.{case}.{what}" for what in ("vit", "proj", "ar_prefill.logits_last")}
        known |= {f"{name}.{case}.mtp_prefill.logits_last6"}
    known |= {
        f"{pair}.{mode}.{tag}.{what}"
        for pair, modes in steps.items()
        for mode, tags in modes.items()
        for tag in tags
        for what in ("logits", "mask")
    }
    stored = set(golden.tensors())
    # Of the rest of a prefill, test_golden_prefill takes whatever there is and leaves nothing over.
    pairs = "|".join(re.escape(f"{name}.{case}") for name in golden.CHECKPOINTS for case in CASES)
    assert {key for key in stored - known if not re.match(rf"({pairs})\.(ar|mtp)_prefill\.", key)} == set()
    single = {f"{pair}.{mode}.ar_single.mask" for pair, modes in steps.items() for mode in modes}
    assert known - stored <= single
    tags = {tag for modes in steps.values() for tags in modes.values() for tag in tags}
    assert {"first_mtp", "later_mtp"} <= tags <= {"first_mtp", "later_mtp", "ar_multi", "ar_single"}
    for kind in ("ar_prefill.hidden_final", "ar_prefill.mask", "mtp_prefill.hidden_all", "mtp_prefill.k0"):
        assert any(key.endswith(kind) for key in stored), kind


def test_golden_patches_are_all_looked_at():
    with safe_open(golden.FOLDER / PATCHES, framework="np") as file:
        stored = set(file.keys())
    assert stored
    assert stored == {row["full_tensor"] for row in golden.read("g1/preprocess.json") if "full_tensor" in row}


def test_golden_pictures_are_all_looked_at():
    used = {row["image"] for row in golden.read("g1/preprocess.json")}
    assert used == {f"images/{path.name}" for path in (golden.FOLDER / "g1/images").glob("*.png")}
