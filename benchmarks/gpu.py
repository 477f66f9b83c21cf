"""LocateAnything against its golden data on a GPU: exact in float32, near in bfloat16.

    python benchmarks/gpu.py            # needs CUDA, torch >= 2.11, numpy, Pillow, tokenizers, safetensors

In float32 (TF32 off) tensors must be within the golden tolerances, and all robust generations equal token for token,
but for those whose first difference falls on a step with a top-2 gap below 1e-3. In bfloat16 answers drift apart
after a while, so boxes are judged by their distance. Prints a table, and one JSON object on the last line; exits with
1 where anything fails. `--device cpu` checks the benchmark itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from groundlink.backends.locateanything.blocks import Dense, Kind, decode_block, read_block
from groundlink.backends.locateanything.generate import generate, step_rows
from groundlink.backends.locateanything.parse import scan
from groundlink.backends.locateanything.sampling import probabilities
from tests.locateanything import golden_data as golden

GAP = 1e-3  # a step whose two best logits are nearer than this may go either way on another device
NEAR = 50  # thousandths of a side within which a coordinate of a box is the same one in bfloat16
ENOUGH = 0.9  # share of the boxes that must be near in bfloat16

Row = dict[str, Any]


def excess(got: torch.Tensor, wanted: torch.Tensor, atol: float) -> float:
    """Return the largest difference as a share of what is tolerated; 1 is the limit."""
    got = got.float().cpu()
    return ((got - wanted).abs() / (atol + 1e-4 * wanted.abs())).max().item()


def features(name: str, case: str, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the prompt, and what the vision tower and the connector make of a case."""
    model = golden.checkpoint(name, device, dtype).model
    prompt, patches, grids = golden.case_input(case)
    vit = model.vision_model(patches.to(device, dtype), grids)
    return prompt.to(device), vit, model.mlp1(vit)


def check_tensors(device: str) -> list[Row]:
    """Compare vision, connector, prefill and parallel step in float32."""
    worst: dict[str, float] = {}

    def note(kind: str, value: float) -> None:
        worst[kind] = max(worst.get(kind, 0.0), value)

    cases = [case["name"] for case in golden.read("g2/cases.json")]
    for name in golden.CHECKPOINTS:
        checkpoint = golden.checkpoint(name, device, torch.float32)
        model = checkpoint.model
        for case in cases:
            key = f"{name}.{case}"
            prompt, vit, proj = features(name, case, device, torch.float32)
            note("vision", excess(vit, golden.tensors()[f"{key}.vit"], 2e-4))
            note("connector", excess(proj, golden.tensors()[f"{key}.proj"], 2e-4))
            length = prompt.shape[1]
            for window, stored in ((False, "ar_prefill.logits_last"), (True, "mtp_prefill.logits_last6")):
                cache = model.new_cache(1, length)
                model.prefill(model.embed_prompt(prompt, proj)[:, :-1], cache)
                ids, positions, mask = step_rows(prompt, length - 1, window, checkpoint.config.ids.text_mask)
                cached = torch.tensor([length - 1], device=device)
                logits = model.step(ids, positions, cached, mask, cache=cache, last=6 if window else 1)[0]
                wanted = golden.tensors()[f"{key}.{stored}"]
                note("logits", excess(logits if window else logits[0], wanted, 5e-4))
    return [{"check": f"fp32 {kind}, share of tolerance", "value": round(value, 3), "limit": 1.0, "passed": value <= 1}
            for kind, value in worst.items()]  # fmt: skip


def answer(run: Row, device: str, dtype: torch.dtype) -> list[list[int]]:
    """Decode a run of the golden data; return the tokens of each step."""
    checkpoint = golden.checkpoint(run["ckpt"], device, dtype)
    model = checkpoint.model
    prompt, _, proj = features(run["ckpt"], run["case"], device, dtype)
    cache = model.new_cache(1, prompt.shape[1] + run["max_new_tokens"])
    model.prefill(model.embed_prompt(prompt, proj)[:, :-1], cache)

    def step(
        ids: torch.Tensor, positions: torch.Tensor, cached: torch.Tensor, mask: torch.Tensor, last: int
    ) -> torch.Tensor:
        return model.step(ids, positions, cached, mask, cache=cache, last=last)

    config = checkpoint.config
    decoded = generate(
        step, prompt, config.text.vocab_size, config.ids, settings=golden.settings(run), max_length=config.max_length
    )
    return [accepted.tokens for accepted in decoded]


def check_generations(device: str) -> list[Row]:
    """Decode all robust runs in float32, token for token."""
    runs = [run for run in golden.read("g2/generate.json.gz") if run["robust"]]
    rows = []
    for mode in ("fast", "slow", "hybrid"):
        equal, close_calls, wrong = 0, 0, []
        for run in (run for run in runs if run["mode"] == mode):
            got, wanted = answer(run, device, torch.float32), [step["tokens"] for step in run["steps"]]
            if got == wanted:
                equal += 1
                continue
            first = next((i for i, pair in enumerate(zip(got, wanted)) if pair[0] != pair[1]), 0)
            if run["steps"][first]["min_top2_gap"] < GAP:
                close_calls += 1
            else:
                wrong.append(f"{run['ckpt']}.{run['case']} step {first}")
        row = {"check": f"fp32 generations, {mode}", "value": f"{equal} equal, {close_calls} near ties",
               "limit": f"{len(wrong)} wrong", "passed": not wrong and equal > close_calls, "wrong": wrong}  # fmt: skip
        rows.append(row)
    return rows


def check_blocks(device: str) -> list[Row]:
    """Read all firm cases of sparse logits into blocks."""
    data = golden.read("g3/block_decode.json.gz")
    cases = [case for case in data["cases"] if not case["fragile"] and not case["tie_sensitive"]]
    wrong = []
    for case in cases:
        vocab = data["vocabs"][case["vocab"]]
        ids, hybrid = golden.token_ids(vocab["token_ids"]), case["mode"] == "hybrid"
        logits = golden.dense(case["background"], case["entries"], vocab["vocab_size"]).to(device)
        seen = golden.seen_mask(case["generated_ids"], vocab["vocab_size"]).to(device)
        probs = probabilities(logits, seen, golden.settings(case))
        block, together = decode_block(Dense(probs), probs.argmax(-1), hybrid, ids)
        tokens, count, kind = read_block(block, hybrid, ids)
        got = (block[0].tolist() if together else [0], tokens[0, : int(count)].tolist(), Kind(int(kind)).name.lower())
        if got != (case["expected"]["box_avg"], case["expected"]["tokens"], case["expected"]["type"]):
            wrong.append(case["name"])
    return [{"check": "blocks from sparse logits", "value": f"{len(cases) - len(wrong)} of {len(cases)} equal",
             "limit": f"{len(wrong)} wrong", "passed": not wrong, "wrong": wrong}]  # fmt: skip


def check_bfloat16(device: str) -> list[Row]:
    """Decode token by token in bfloat16, and look for a near box for each box of the golden answers.

    Only runs that ended by themselves are looked at: a run to the limit goes in circles, and those have no box to miss.
    A set without such runs says nothing about bfloat16, and the row says that.
    """
    distances: list[float] = []
    for run in golden.read("g2/generate.json.gz"):
        if not (run["robust"] and run["mode"] == "slow" and run["top_p"] is None and run["steps"]):
            continue
        tokenizer = golden.checkpoint(run["ckpt"], device, torch.bfloat16).tokenizer
        wanted = [item.values for item in scan(run["answer"]) if item.values]
        ended = len(run["new_token_ids"]) < run["max_new_tokens"]
        if not (wanted and ended):
            continue
        tokens = [token for step in answer(run, device, torch.bfloat16) for token in step]
        got = [item.values for item in scan(tokenizer.decode(tokens)) if item.values]
        for values in wanted:
            like = [other for other in got if len(other) == len(values)]
            apart = [max(abs(a - b) for a, b in zip(values, other)) for other in like]
            distances.append(min(apart, default=1000.0))
    row = {"check": "bf16 boxes near the golden ones", "limit": f"{ENOUGH:.0%} within {NEAR}"}
    if not distances:
        return [{**row, "passed": True, "value": "nothing to judge in this set"}]
    near = sum(distance <= NEAR for distance in distances) / len(distances)
    value = f"{near:.0%} of {len(distances)}, median {statistics.median(distances):.0f}"
    return [{**row, "passed": near >= ENOUGH, "value": value}]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device: this benchmark checks the model on a GPU; run it on one", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()

    rows: list[Row] = []
    started = time.perf_counter()
    with torch.inference_mode():
        for check in (check_tensors, check_generations, check_blocks, check_bfloat16):
            rows += check(device)
    seconds = time.perf_counter() - started

    print(f"{name}, torch {torch.__version__}, golden data of {golden.FOLDER.name}, {seconds:.0f} s")
    for row in rows:
        print(f"{'ok  ' if row['passed'] else 'FAIL'}  {row['check']:40}{row['value']!s:36}{row['limit']}")
        for what in row.get("wrong", [])[:10]:
            print(f"        {what}")
    passed = all(row["passed"] for row in rows)
    print(json.dumps({"device": name, "torch": torch.__version__, "seconds": round(seconds, 1), "passed": passed,
                      "rows": rows}))  # fmt: skip
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
