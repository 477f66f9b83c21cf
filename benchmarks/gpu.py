"""LocateAnything on a GPU: first that it is right, by its golden data, then how fast it is. Ends within ten minutes.

    python benchmarks/gpu.py            # needs CUDA, torch >= 2.11, numpy, Pillow, tokenizers, safetensors

In float32 (TF32 off) tensors must be within the golden tolerances, and all robust generations equal token for token,
but for those whose first difference falls on a step with a top-2 gap below 1e-3: by the loop that is the oracle, and
by the engine's decoder, one sequence alone and several at once. A step captured as a graph must give what it gives
without. In bfloat16 answers drift apart after a while, so boxes are judged by their distance.

Then come the other benchmarks at the size of the 3B model, as long as there is time. Prints tables, and one JSON
object on the last line, which is also written to `benchmarks/results/`, in a file of the device's name. Exits with 1
where a check fails; a target that is missed is only told. `--device cpu` checks the benchmark itself, with a small
shape.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import call, decode, memory
from benchmarks.shapes import random_checkpoint, random_model, random_prompt
from benchmarks.timing import Row, device_name, print_rows
from groundlink.backends.locateanything.blocks import Dense, Kind, decode_block, read_block
from groundlink.backends.locateanything.config import WINDOW
from groundlink.backends.locateanything.decoder import ROWS, Decoder, Shape
from groundlink.backends.locateanything.engine import Engine
from groundlink.backends.locateanything.generate import Accepted, generate, step_rows
from groundlink.backends.locateanything.parse import scan
from groundlink.backends.locateanything.sampling import probabilities
from groundlink.backends.locateanything.settings import Settings
from tests.locateanything import golden_data as golden

GAP = 1e-3  # a step whose two best logits are nearer than this may go either way on another device
NEAR = 50  # thousandths of a side within which a coordinate of a box is the same one in bfloat16
ENOUGH = 0.9  # share of the boxes that must be near in bfloat16
MINUTES = 9.0
RESULTS = Path(__file__).parent / "results"


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


def answer(run: Row, device: str) -> list[list[int]]:
    """Decode a run of the golden data in float32, by the oracle; return the tokens of each step."""
    checkpoint = golden.checkpoint(run["ckpt"], device, torch.float32)
    model = checkpoint.model
    prompt, _, proj = features(run["ckpt"], run["case"], device, torch.float32)
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


def robust_runs() -> list[Row]:
    """Return the generations that every device must repeat."""
    return [run for run in golden.read("g2/generate.json.gz") if run["robust"]]


def judge(name: str, runs: list[Row], answers: list[list[list[int]]]) -> Row:
    """Hold answers against the golden ones; a near tie may go either way."""
    equal, close_calls, wrong = 0, 0, []
    for run, got in zip(runs, answers, strict=True):
        wanted = [step["tokens"] for step in run["steps"]]
        if got == wanted:
            equal += 1
            continue
        first = next((i for i, pair in enumerate(zip(got, wanted)) if pair[0] != pair[1]), 0)
        if run["steps"][first]["min_top2_gap"] < GAP:
            close_calls += 1
        else:
            wrong.append(f"{run['ckpt']}.{run['case']} {run['mode']} step {first}")
    return {"check": name, "value": f"{equal} equal, {close_calls} near ties", "limit": f"{len(wrong)} wrong",
            "passed": not wrong and equal > close_calls, "wrong": wrong}  # fmt: skip


def check_generations(device: str) -> list[Row]:
    """Decode all robust runs in float32, token for token, by the oracle."""
    rows = []
    for mode in ("fast", "slow", "hybrid"):
        runs = [run for run in robust_runs() if run["mode"] == mode]
        rows.append(judge(f"fp32 generations, {mode}", runs, [answer(run, device) for run in runs]))
    return rows


@cache
def prompt_rows(name: str, case: str, device: str, dtype: torch.dtype) -> tuple[list[int], torch.Tensor]:
    """Return the prompt of a case and its embedded tokens `[G, D]`."""
    prompt, _, proj = features(name, case, device, dtype)
    return prompt[0].tolist(), golden.checkpoint(name, device, dtype).model.embed_prompt(prompt, proj)[0]


def decode_all(decoder: Decoder, runs: list[Row], device: str) -> list[list[Accepted]]:
    """Answer runs of one checkpoint; a sequence that ends makes room for the next one, while the others go on."""
    answers: list[list[Accepted]] = [[] for _ in runs]
    waiting = list(enumerate(runs))
    slots: list[int | None] = [None] * decoder.batch
    while waiting or any(number is not None for number in slots):
        for slot, number in enumerate(slots):
            if number is None and waiting:
                slots[slot], run = waiting.pop(0)
                prompt, rows = prompt_rows(run["ckpt"], run["case"], device, decoder.dtype)
                decoder.prefill(slot, rows[:-1])
                decoder.begin(slot, prompt, golden.settings(run), decoder.config.max_length)
        for slot, accepted in enumerate(decoder.step()):
            number = slots[slot]
            if number is not None and accepted is not None:
                answers[number].append(accepted)
            if number is not None and (accepted is None or accepted.finish is not None):
                slots[slot] = None
    return answers


def check_decoder(device: str) -> list[Row]:
    """Decode all robust runs in float32 by the engine's decoder: alone, and several at once in all modes."""
    rows = []
    for batch in (1, 4):
        runs, answers = [], []
        for name in golden.CHECKPOINTS:
            some = [run for run in robust_runs() if run["ckpt"] == name]
            decoder = Decoder(golden.checkpoint(name, device, torch.float32).model, batch)
            runs += some
            answers += [[accepted.tokens for accepted in each] for each in decode_all(decoder, some, device)]
        rows.append(judge(f"fp32 decoder, {batch} at once", runs, answers))
    return rows


class EagerDecoder(Decoder):
    """The decoder whose steps are never captured."""

    def _run(self, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
        return self._body(shape)


def check_graphs(device: str) -> list[Row]:
    """Decode some runs with steps captured as graphs and with steps that are not; both must say the same."""
    if not device.startswith("cuda"):
        return []
    runs = [run for run in robust_runs() if run["ckpt"] == golden.CHECKPOINTS[0]][::2]
    model = golden.checkpoint(golden.CHECKPOINTS[0], device, torch.float32).model
    graphs, eager = (decode_all(kind(model, 2), runs, device) for kind in (Decoder, EagerDecoder))
    wrong, apart = [], 0.0
    for run, *both in zip(runs, graphs, eager, strict=True):
        told = [[(step.tokens, step.kind, step.block, step.finish) for step in steps] for steps in both]
        if told[0] != told[1]:
            wrong.append(f"{run['ckpt']}.{run['case']} {run['mode']}")
            continue
        for one, other in zip(*both, strict=True):
            apart = max([apart, *(abs(a - b) for a, b in zip(one.log_probs, other.log_probs, strict=True))])
    equal = f"{len(runs) - len(wrong)} of {len(runs)} equal, {apart:.1e} apart"
    return [{"check": "graphs and no graphs", "value": equal,
             "limit": f"{len(wrong)} wrong, 1e-3", "passed": not wrong and apart < 1e-3, "wrong": wrong}]  # fmt: skip


def check_kernels(device: str) -> list[Row]:
    """Take a step of the 3B model in bfloat16 with the fused kernels and without; they must be here, and agree."""
    if not device.startswith("cuda"):
        return []
    model = random_model("3B", torch.device(device), torch.bfloat16)
    prompt, rows = random_prompt(model, 700)
    logits = []
    for fused in (True, False):
        decoder = EagerDecoder(model, capacity=1024)
        if fused and decoder._fused is None:
            return [{"check": "fused kernels", "value": "do not work here", "limit": "see the log", "passed": False}]
        decoder._fused = decoder._fused if fused else None
        decoder.prefill(0, rows[0, :-1])
        decoder.begin(0, prompt[0].tolist(), Settings())
        logits.append(decoder._run(Shape(1, ROWS, WINDOW, 1024, 1024, False))[1].double())
    apart = ((logits[0] - logits[1]).norm() / logits[1].norm()).item()
    return [{"check": "3B step in bf16, kernels and plain torch", "value": f"{apart:.1e} apart",
             "limit": 0.03, "passed": apart < 0.03}]  # fmt: skip


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
        checkpoint = golden.checkpoint(run["ckpt"], device, torch.bfloat16)
        wanted = [item.values for item in scan(run["answer"]) if item.values]
        ended = len(run["new_token_ids"]) < run["max_new_tokens"]
        if not (wanted and ended):
            continue
        (steps,) = decode_all(Decoder(checkpoint.model), [run], device)
        tokens = [token for step in steps for token in step.tokens]
        got = [item.values for item in scan(checkpoint.tokenizer.decode(tokens)) if item.values]
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


def run_checks(device: str) -> list[Row]:
    """Return what is right and what is not."""
    rows: list[Row] = []
    for check in (
        check_tensors,
        check_generations,
        check_blocks,
        check_decoder,
        check_graphs,
        check_kernels,
        check_bfloat16,
    ):
        rows += check(device)
    return rows


def run_timings(device: torch.device, until: float) -> Row:
    """Return settings and rows of each benchmark, of the 3B model, or of a small one on a CPU."""
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    shape = "3B" if on_gpu else "small"
    settings = {"shape": shape, "dtype": str(dtype).removeprefix("torch.")}
    checkpoint = random_checkpoint(shape, device, dtype, call.TEXTS)
    # The lengths that are judged come first, in case that time runs out.
    batches, prefixes = ([1, 16, 2, 4, 8], [2048, 512, 8192]) if on_gpu else ([1, 2], [64])
    halfway = (time.monotonic() + until) / 2
    rows, facts = decode.run(checkpoint.model, batches, prefixes, 40 if on_gpu else 3, until=halfway)
    steps = {"settings": {**settings, **facts}, "rows": rows}
    print("\nsteps,", steps["settings"])
    print_rows(rows)
    rows, facts = call.run(checkpoint, call.CASES if on_gpu else call.QUICK, 5 if on_gpu else 1, until=until)
    calls = {"settings": {**settings, **facts}, "rows": rows}
    print("\nwhole calls,", calls["settings"])
    print_rows(rows)
    peaks: list[Row] = []
    if on_gpu:
        engine = Engine(checkpoint)
        engine.warm_up(call.SETTINGS, lambda doing, fraction: None)
        peaks = memory.calls_on_cuda(engine, memory.CASES)
        memory.report_calls(device, settings, peaks)
    return {"decode": steps, "call": calls, "memory": {"settings": settings, "rows": peaks}}


def hold_targets(timings: Row) -> list[Row]:
    """Hold what was measured against what was asked for, as far as it was measured."""
    steps = {(row["batch"], row["prefix"]): row for row in timings["decode"]["rows"] if "boxes_per_s" in row}
    calls = {(row["width"], row["boxes"], row["question"], row["mark"]): row for row in timings["call"]["rows"]}
    whole = call.MARKS[-1]
    step, many = steps.get((1, 2048)), steps.get((16, 2048))
    small = calls.get((640, 7, "first", whole))
    first, second = (calls.get((1920, 1, question, whole)) for question in ("first", "second"))
    targets = []
    if step:
        targets.append(("step ÷ floor, batch 1, prefix 2048", step["ratio_to_floor"], "at most", 1.4))
    if step and many:
        targets.append(("boxes/s, batch 16 ÷ batch 1", many["boxes_per_s"] / step["boxes_per_s"], "at least", 8))
    if small:
        targets.append(("640×480 with 7 boxes, ms", small["median_ms"], "at most", 55))
    if first and second:
        share = second["median_ms"] / first["median_ms"]
        targets.append(("1920×1080, one box, second ÷ first", share, "at most", 0.25))
    for row in timings["memory"]["rows"]:
        targets.append((f"{row['name']}: foretold ÷ measured, off by", abs(row["ratio"] - 1), "at most", 0.1))
        if row["name"].startswith("3840"):
            targets.append(("3840×2160, GB at the peak", row["measured_mib"] * 2**20 / 1e9, "at most", 16))
    return [{"target": name, "value": round(value, 2), "limit": f"{sense} {limit}",
             "met": value <= limit if sense == "at most" else value >= limit}
            for name, value, sense, limit in targets]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after so many, nothing new is timed")
    parser.add_argument("--output", type=Path, help="folder for the results, in place of benchmarks/results on a GPU")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device: this benchmark checks the model on a GPU; run it on one", file=sys.stderr)
        return 2
    until = time.monotonic() + 60 * options.minutes
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(options.device)
    name = device_name(device)

    started = time.perf_counter()
    with torch.inference_mode():
        rows = run_checks(options.device)
        seconds = time.perf_counter() - started
        print(f"{name}, torch {torch.__version__}, golden data of {golden.FOLDER.name}, checks in {seconds:.0f} s")
        for row in rows:
            print(f"{'ok  ' if row['passed'] else 'FAIL'}  {row['check']:40}{row['value']!s:36}{row['limit']}")
            for what in row.get("wrong", [])[:10]:
                print(f"        {what}")
        passed = all(row["passed"] for row in rows)
        # What is wrong is not worth timing.
        timings = run_timings(device, until) if passed else {}
    targets = hold_targets(timings) if passed and device.type == "cuda" else []
    for target in targets:
        print(f"{'met   ' if target['met'] else 'MISSED'}  {target['target']:40}{target['value']:<10}{target['limit']}")
    settings = {"torch": torch.__version__, "golden": golden.FOLDER.name, "minutes": options.minutes}
    result = {"device": name, "settings": settings, "seconds": round(time.perf_counter() - started, 1),
              "passed": passed, "rows": rows, "timings": timings, "targets": targets}  # fmt: skip
    folder = options.output or (RESULTS if device.type == "cuda" else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {file}")
    print(json.dumps(result))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
