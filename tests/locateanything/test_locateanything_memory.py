"""Memory: foretold before anything is loaded, and told with a size that would fit where it runs out."""

import gc
import json
import re
import resource
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.profiler import ProfilerActivity, profile

import groundlink
from benchmarks.shapes import SHAPES, random_checkpoint
from groundlink.backends.locateanything import engine as engine_module
from groundlink.backends.locateanything import room as room_module
from groundlink.backends.locateanything.config import Config, TextConfig, TokenIds, VisionConfig, read_config
from groundlink.backends.locateanything.decoder import Decoder, spans
from groundlink.backends.locateanything.engine import Engine, Picture
from groundlink.backends.locateanything.memory import (
    FIRST_SLOTS,
    Forecast,
    Shape,
    full_size,
    longest,
    weight_numbers,
)
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import image_grid, image_tokens
from groundlink.backends.locateanything.prompt import Turn, build_chat
from groundlink.backends.locateanything.room import Room, room_of
from groundlink.backends.locateanything.settings import Settings
from groundlink.backends.locateanything.vision import normalise
from groundlink.backends.locateanything.weights import open_checkpoint
from groundlink.doctor import memory_report
from groundlink.errors import BackendUnavailable, OutOfMemory, WeightsInvalid, WeightsNotFound
from tests.locateanything import samples

CPU = torch.device("cpu")
IDS = TokenIds(*range(6), coord_start=10, coord_end=1010, none=6, null=7, text_mask=8)
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def config(vision, text, vocabulary=3000, tied=True):
    return Config(
        VisionConfig(*vision, 16, 16),
        TextConfig(vocabulary, *text, 1e6, 1e-6),
        tied,
        IDS,
        patch_limit=25600,
        max_length=None,
    )


# The proportions of the published model, and others.
CONFIGS = {
    "like 3B": config((96, 3, 4, 360), (128, 4, 8, 1, 688)),
    "wide": config((64, 3, 2, 512), (256, 3, 4, 2, 768), tied=False),
}
EACH = pytest.mark.parametrize("sizes", CONFIGS.values(), ids=list(CONFIGS))


def alive(work):
    """Return the most bytes of tensors that were alive at once while some work was done."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = seen.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    now = least = most = 0
    for _, change in changes:
        now += change
        least = min(least, now)  # below 0 where something is freed that was made before
        most = max(most, now - least)
    return most


# The forecast


@pytest.mark.parametrize("sizes", [*CONFIGS.values(), SHAPES["3B"]], ids=[*CONFIGS, "3B"])
def test_every_weight_is_counted_once(sizes):
    with torch.device("meta"):
        model = LocateAnything(sizes)
    assert weight_numbers(sizes) == sum(parameter.numel() for parameter in model.parameters())


@EACH
@TYPES
def test_the_stages_take_what_is_foretold(sizes, dtype):
    model = LocateAnything(sizes).to(dtype)
    forecast = Forecast(sizes, dtype.itemsize, cuda=False)
    grid = (60, 80)
    patches, tokens = grid[0] * grid[1], image_tokens(grid)
    pixels = torch.zeros(patches, 3, 14, 14, dtype=torch.uint8)

    def look():
        return model.encode_images(normalise(pixels.clone()), [grid])

    rows = look()
    decoder = Decoder(model, capacity=tokens + 20)
    measured = {
        "vision": (alive(look), forecast.vision(patches)),
        "prefill": (alive(lambda: decoder.prefill(0, rows.clone())), forecast.prefill(tokens)),
        "cache": (alive(lambda: Decoder(model, capacity=2 * tokens)), forecast.cache(2 * tokens)),
    }
    for stage, (taken, foretold) in measured.items():
        assert 0.9 < foretold / taken < 1.1, (stage, foretold, taken)


@TYPES
@pytest.mark.parametrize(("shape", "boxes"), [("45M", 3), ("small", 120)])
def test_a_call_takes_what_is_foretold(dtype, shape, boxes):
    engine = Engine(random_checkpoint(shape, CPU, dtype, ["system user assistant image 1 cat"]))
    size = (640, 480)
    picture = Picture("a", size, lambda: Image.new("RGB", size))
    chat, _ = build_chat([Turn("user", [Image.new("RGB", size), "cat"])])
    settings = Settings(mode="fast", max_new_tokens=6 * boxes)
    figures = engine.new_figures()
    before = engine.decoder  # stays, since the end of what began unseen must not be seen either

    def answer():
        engine.decoder = Decoder(engine.model, capacity=FIRST_SLOTS)  # whose cache is to be seen, too
        assert engine.decoder is not before
        return list(engine.answer(chat, [picture], settings, figures, lambda: None))

    taken = alive(answer)
    assert figures["tokens"] >= 6 * boxes
    budget = engine.forecast.call(Shape(size, words=30, answer=6 * boxes))
    assert budget.kept == pytest.approx(engine.kept.bytes, rel=0.1)
    # Of this, pictures and NumPy's arrays are not seen.
    pixels = 4 * size[0] * size[1]
    unseen = pixels + 34 * 46 * 588
    foretold = max(budget.vision - unseen, budget.prefill - pixels, budget.decoding - pixels)
    assert 0.9 < foretold / taken < 1.1, (foretold, taken, budget)


def test_what_is_foretold_of_the_published_model_on_a_gpu():
    forecast = Forecast(SHAPES["3B"], 2, cuda=True)
    large = forecast.call(Shape((3840, 2160)))
    assert 6.9e9 < large.weights < 7.2e9
    assert large.peak < 16e9
    assert forecast.call(Shape((640, 480))).peak < forecast.call(Shape((1920, 1080))).peak < large.peak
    # Answers of up to max_new_tokens have their room from the start.
    assert forecast.call(Shape((3840, 2160), answer=8192)).buffers == large.buffers
    assert spans(15744) == [512, 1024, 2048, 4096, 8192, 16384]


def test_buffers_are_foretold_as_the_decoder_makes_them():
    sizes = CONFIGS["wide"]
    decoder = Decoder(LocateAnything(sizes), capacity=10)
    decoder.warm_up(longest(sizes, 900), Settings(), lambda doing, done: None)
    assert decoder.capacity == spans(longest(sizes, 900))[-1] == 16384
    assert longest(replace(sizes, max_length=1000), 900) == 1000


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("within", [(3840, 2160), (300, 4000), (50, 50)])
def test_the_largest_picture_is_the_largest_that_fits(cuda, within):
    forecast = Forecast(SHAPES["3B"], 2, cuda)

    def room(width):
        return forecast.call(Shape((width, max(1, round(width * within[1] / within[0]))))).room

    assert forecast.largest(room(within[0]), within) == within
    assert forecast.largest(room(1) - 1, within) is None
    free = (room(1) + room(within[0])) // 2
    width, height = forecast.largest(free, within)
    assert height == max(1, round(width * within[1] / within[0]))
    assert room(width) <= free
    if width < within[0]:
        assert room(width + 1) > free


# What is free


def test_limits_of_control_groups_are_kept(tmp_path):
    one = tmp_path / "cgroup"
    one.write_text("4:cpu,memory:/a/b\n0::/x/y\n")
    inner = tmp_path / "memory" / "a"
    (inner / "b").mkdir(parents=True)
    (inner / "memory.limit_in_bytes").write_text("1000\n")
    (inner / "memory.usage_in_bytes").write_text("900\n")
    (inner / "memory.stat").write_text("cache 300\ntotal_inactive_file 200\n")
    (inner / "b" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (inner / "b" / "memory.usage_in_bytes").write_text("900\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "memory.max").write_text("5000\n")
    (tmp_path / "x" / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert room_module._control_groups(one, tmp_path) == [Room(1000, 300), Room(5000, 4000)]
    assert room_module._control_groups(tmp_path / "none", tmp_path) == []


def test_the_least_of_all_limits_counts(monkeypatch):
    room = room_of(CPU)
    assert 0 < room.free <= room.total
    monkeypatch.setattr(room_module, "_control_groups", lambda *_: [Room(10**8, 10**7)])
    assert room_of(CPU) == Room(10**8, 10**7)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    assert room_of(CPU) == Room(1, 0)
    monkeypatch.undo()
    monkeypatch.setattr(room_module, "_numbers", lambda _: {})
    assert room_of(CPU) is None


# Running out


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A checkpoint whose vision tower takes 32 kB for each patch, and no time."""
    folder = tmp_path_factory.mktemp("wide")
    shutil.copytree(samples.FOLDER, folder, dirs_exist_ok=True)
    settings = json.loads((folder / "config.json").read_text())
    settings["vision_config"] |= {"num_hidden_layers": 1, "intermediate_size": 4096}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text('{"in_token_limit": 14000}')
    with torch.device("meta"):
        model = LocateAnything(read_config(folder, None, []))
    numbers = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(weight.shape, generator=numbers) * 0.02 for name, weight in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_what_is_named_where_memory_really_runs_out_does_fit(wide):
    code = f"""
import json, re, resource
from pathlib import Path
import groundlink
from PIL import Image

def used():
    return 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def ask(*size):
    return locator.locate(Image.new("RGB", size, "teal"), "car").timings_ms["vision"]

with groundlink.load("locateanything", model={str(wide)!r}, device="cpu", max_new_tokens=6) as locator:
    ask(320, 240)
    resource.setrlimit(resource.RLIMIT_AS, (used() + 280 * 2**20, resource.RLIM_INFINITY))
    told = None
    try:
        ask(3840, 2160)
    except groundlink.OutOfMemory as error:
        told = str(error)
    fits = [int(side) for side in re.search(r"at most (\\d+)×(\\d+)", told).groups()]
    print(json.dumps([told, fits, ask(*fits), ask(300, 200)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, fits, large, small = json.loads(done.stdout)
    tokens = re.search(r"the image of 3840×2160 \((\d) (\d+) tokens", told)
    assert int(tokens[1] + tokens[2]) == pytest.approx(image_tokens(image_grid(3840, 2160, 14000)), abs=120)
    assert 640 < fits[0] < 3840
    assert fits[0] / fits[1] == pytest.approx(16 / 9, abs=0.01)
    assert large > 0
    assert small > 0


def load(**settings):
    return groundlink.load(
        "locateanything", **{"model": samples.FOLDER, "device": "cpu", "max_new_tokens": 40, **settings}
    )


def full(*_, **__):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (None, "too little free; make the image smaller or free some memory"),
        (Room(10**9, 30 * 10**6), r"has 30 MB free; make the image smaller, at most (\d+)×\d+ would fit"),
        (Room(10**9, 1000), "not even a small image would fit: choose a smaller type"),
    ],
)
def test_the_error_says_what_is_free_and_what_would_fit(monkeypatch, room, words):
    monkeypatch.setattr(engine_module, "room_of", lambda _: room)
    with load() as locator:
        monkeypatch.setattr(locator.backend._engine.model, "encode_images", full)
        with pytest.raises(OutOfMemory, match=words) as caught:
            locator.locate(Image.new("RGB", (1920, 1080)), "car")
        assert re.search(
            r"the image of 1920×1080 \(2 7\d\d tokens with the question\) takes about \d+ MB", str(caught.value)
        )
        assert "cpu" in str(caught.value)


def test_memory_may_run_out_while_a_picture_is_prepared_or_answered_about(monkeypatch):
    with load() as locator:
        engine = locator.backend._engine
        with monkeypatch.context() as patch, pytest.raises(OutOfMemory, match="the image of 300×200"):
            patch.setattr(engine_module, "preprocess", lambda *_: bytearray(2**62))
            locator.locate(Image.new("RGB", (300, 200)), "car")
        steps = []
        step = engine.decoder.step
        monkeypatch.setattr(engine.decoder, "step", lambda: full() if len(steps) > 2 else steps.append(1) or step())
        with pytest.raises(
            OutOfMemory, match=r"the image of 300×200 \(\d+ tokens with the question and \d+ of its answer"
        ):
            locator.locate(Image.new("RGB", (300, 200)), groundlink.read())


def test_an_error_that_is_kept_holds_no_memory(monkeypatch):
    held = []

    def runs_out(*_):
        work = torch.zeros(1000)
        held.append(weakref.ref(work))
        full()

    with load() as locator:
        monkeypatch.setattr(locator.backend._engine.model, "encode_images", runs_out)
        with pytest.raises(OutOfMemory) as caught:
            locator.locate(Image.new("RGB", (300, 200)), "car")
        gc.collect()
        assert len(held) == 2
        assert [kept() for kept in held] == [None, None]
        assert "can't allocate memory" in str(caught.value.__cause__)


def test_memory_that_runs_out_while_loading_is_told(monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(OutOfMemory, match=r"weights in .* as float32 they take 1 MB"):
        patch.setattr("groundlink.backends.locateanything.weights._fill", full)
        open_checkpoint(samples.FOLDER, CPU, torch.float32)
    monkeypatch.setattr("groundlink.backends.locateanything.language.Layer.packed", full)
    with pytest.raises(OutOfMemory, match="laying out the weights takes more; choose a smaller type"):
        load()


# The report


def test_the_report_says_what_fits():
    told = memory_report(None, {"model": str(samples.FOLDER), "device": "cpu"})
    assert (told.device, told.dtype) == ("cpu", "float32")
    assert told.weights == pytest.approx((samples.FOLDER / "model.safetensors").stat().st_size, rel=0.01)
    assert [picture.size for picture in told.pictures[:3]] == [(640, 480), (1920, 1080), (3840, 2160)]
    peaks = [picture.peak for picture in told.pictures[:3]]
    assert told.weights < peaks[0] < peaks[1] < peaks[2]
    assert all(picture.fits for picture in told.pictures)
    assert told.largest == full_size(samples.checkpoint().config, (16, 9))
    assert told.advice == ""
    half = memory_report("locateanything", {"model": str(samples.FOLDER), "device": "cpu", "dtype": "bfloat16"})
    assert half.weights == told.weights / 2


def test_the_report_says_what_to_do_where_little_fits(monkeypatch):
    forecast = Forecast(samples.checkpoint().config, 4, cuda=False)
    free = forecast.call(Shape((1920, 1080))).room
    monkeypatch.setattr("groundlink.backends.locateanything.report.room_of", lambda _: Room(2 * free, free))
    told = memory_report(None, {"model": str(samples.FOLDER), "device": "cpu"})
    assert [picture.fits for picture in told.pictures] == [True, True, False, False]
    assert told.largest is not None
    assert told.largest >= (1920, 1080)
    assert "bfloat16" in told.advice
    monkeypatch.setattr("groundlink.backends.locateanything.report.room_of", lambda _: None)
    told = memory_report(None, {"model": str(samples.FOLDER), "device": "cpu"})
    assert [picture.fits for picture in told.pictures] == [None] * 4
    assert (told.total, told.free, told.largest) == (None, None, None)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"model": "/no/such/folder"}, WeightsNotFound, "no folder '/no/such/folder'"),
        ({"model": str(samples.IMAGES)}, WeightsInvalid, "config.json is missing"),
        ({"device": "tpu"}, BackendUnavailable, "unknown device 'tpu'"),
        ({"dtype": "int3"}, BackendUnavailable, "unknown dtype 'int3'"),
        ({"mode": "odd"}, BackendUnavailable, "odd"),
        ({"cache_bytes": -1}, BackendUnavailable, "cache_bytes"),
        ({"nonsense": 1}, BackendUnavailable, "nonsense"),
    ],
)
def test_what_the_report_cannot_use_is_named(settings, error, words):
    with pytest.raises(error, match=re.escape(words)):
        memory_report(None, {"model": str(samples.FOLDER), **settings})


def test_a_backend_that_cannot_tell_says_so():
    with pytest.raises(BackendUnavailable, match="'ocr' does not say what memory it takes"):
        memory_report("ocr", {})


def test_of_a_repository_only_its_settings_are_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked = []

    def download(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return str(samples.FOLDER)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert memory_report(None, {"model": "someone/model", "revision": "v1", "device": "cpu"}).weights > 0
    assert asked == [("someone/model", "v1", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])]
