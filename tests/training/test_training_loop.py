"""Training from end to end: it learns, goes on with the same bits, and whatever breaks leaves the last state whole."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import groundlink
from groundlink.errors import BadData, BadImage, BadOutput, GroundlinkError
from groundlink.training import checkpoints
from groundlink.training.initial import from_nothing
from groundlink.training.loop import train
from groundlink.training.records import Stream, read_recipe
from groundlink.training.settings import TrainSettings
from tests.conftest import ROOT
from tests.training.squares import MODEL, Squares, answer_of, picture_of, settings, stream, write_squares


def steps_logged(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def names(out):
    return sorted(path.name for path in out.glob("*checkpoint-*"))


def same_bits(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("model.safetensors",))


class At:
    """Does something when a step is logged."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def __call__(self, figures):
        if figures["step"] == self.step:
            self.action()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training of six steps that nothing befell."""
    out = tmp_path_factory.mktemp("whole") / "out"
    train(MODEL, stream(), out, settings())
    return out


def test_squares_are_learnt_and_found_by_every_mode(tmp_path):
    out = tmp_path / "out"
    done = train(
        MODEL,
        stream(),
        out,
        settings(steps=130, learning_rate=4e-3, structure_smoothing=0.1, checkpoint_every=500, max_tokens=560),
    )
    assert done.figures["ntp_loss"] < 0.1
    assert steps_logged(out)[0]["ntp_loss"] > 3
    assert done.figures["coordinates_exact"] == done.figures["coordinates_within_1_percent"] == 1
    for mode in ("slow", "hybrid", "fast"):
        with groundlink.load("locateanything", model=out, mode=mode, device="cpu") as locator:
            for index in range(4):
                answer = locator.locate(picture_of(index), groundlink.detect("square"))
                assert answer.raw == (answer_of(index) + "<|im_end|>",), mode


def test_what_a_training_leaves(whole):
    figures = steps_logged(whole)
    assert [line["step"] for line in figures] == [1, 2, 3, 4, 5, 6]
    for line in figures:
        assert all(line[name] > 0 for name in ("loss", "ntp_loss", "mtp_loss", "gradient_norm", "tokens_per_second"))
        assert line["ntp_loss"] != line["mtp_loss"]
        assert 0.5 < line["fill"] <= 1
    assert figures[-1]["loss"] < figures[0]["loss"]
    assert names(whole) == ["checkpoint-000004", "checkpoint-000006"], "two are kept"
    files = {path.name for path in MODEL.iterdir()}
    assert files <= {path.name for path in whole.iterdir()}
    assert files <= {path.name for path in (whole / "checkpoint-000004").iterdir()}
    tensors = load_file(whole / "model.safetensors")
    assert {name: t.shape for name, t in tensors.items()} == {
        name: t.shape for name, t in load_file(MODEL / "model.safetensors").items()
    }
    for folder in (whole, whole / "checkpoint-000004"):
        with groundlink.load("locateanything", model=folder, device="cpu", max_new_tokens=4) as locator:
            locator.locate(picture_of(0), "x")

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "logs"))
    events.Reload()
    assert {"loss", "ntp_loss", "mtp_loss"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


class Noise(nn.Module):
    """A loss with weights and randomness of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.head = nn.Linear(64, 1)

    def forward(self, features, batch):
        return self.head(nn.functional.dropout(features)).square().mean()


EVERYTHING = {
    "save_as": "bfloat16",
    "freeze": ("vision",),
    "accumulation": 2,
    "coordinate_spread": 2.0,
    "muon_rate": 0.01 if hasattr(torch.optim, "Muon") else 0.0,
}


@pytest.mark.parametrize(("changes", "extra"), [({}, None), (EVERYTHING, Noise)], ids=["plain", "everything"])
@pytest.mark.usefixtures("interruptible")
def test_a_training_that_was_broken_off_ends_with_the_same_bits(tmp_path, changes, extra, whole):
    threads = set(threading.enumerate())
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    made = extra or (lambda: None)
    if changes:
        train(MODEL, stream(), straight, settings(**changes), extra_loss=made())
    else:
        straight = whole
    interrupt = At(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"after step 4 of 6.*checkpoint-000004; the same command goes on"):
        train(MODEL, stream(), broken, settings(**changes), extra_loss=made(), on_log=interrupt)
    assert not (broken / "model.safetensors").exists(), "what is not finished looks like nothing finished"
    done = train(MODEL, stream(), broken, settings(**changes, workers=2), extra_loss=made())
    assert done.steps == 6
    for name in ("model.safetensors", "checkpoint-000006/model.safetensors", "checkpoint-000006/trainer.safetensors"):
        assert (straight / name).read_bytes() == (broken / name).read_bytes(), name
    alike = [[line[key] for key in ("step", "loss", "samples")] for line in steps_logged(straight)]
    assert alike == [[line[key] for key in ("step", "loss", "samples")] for line in steps_logged(broken)]
    assert set(threading.enumerate()) <= threads
    before = (broken / "log.jsonl").read_bytes()
    assert train(MODEL, stream(), broken, settings(**changes), extra_loss=made()).steps == 6
    assert (broken / "log.jsonl").read_bytes() == before, "what is finished is not done again"
    if changes:
        source, trained = load_file(MODEL / "model.safetensors"), load_file(broken / "model.safetensors")
        assert all(tensor.dtype == torch.bfloat16 for tensor in trained.values())
        assert json.loads((broken / "config.json").read_text())["torch_dtype"] == "bfloat16"
        for name, tensor in trained.items():
            frozen = torch.equal(tensor, source[name].bfloat16())
            assert frozen == name.startswith("vision_model."), name


KILLED = """
import os, signal, sys, warnings
import torch
torch.set_num_threads(1)
warnings.simplefilter("error")
from groundlink.training import checkpoints
from groundlink.training.loop import train
from tests.training.squares import MODEL, settings, stream
write = checkpoints.save_file
def killed(tensors, path, metadata=None):
    write(tensors, path, metadata)
    if "000004" in str(path) and path.name == "trainer.safetensors":
        os.truncate(path, 1000)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save_file = killed
train(MODEL, stream(), sys.argv[1], settings(workers=1))
"""


def test_killed_in_the_middle_of_a_checkpoint(tmp_path, whole):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, out], cwd=ROOT, capture_output=True)  # noqa: PLW1510
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert names(out) == [".partial-checkpoint-000004", "checkpoint-000002"]
    assert checkpoints.latest(out).name == "checkpoint-000002"
    with groundlink.load("locateanything", model=out / "checkpoint-000002", device="cpu"):
        pass
    train(MODEL, stream(), out, settings())
    assert same_bits(out, whole)
    assert names(out) == ["checkpoint-000004", "checkpoint-000006"]
    assert [line["step"] for line in steps_logged(out)] == [1, 2, 3, 4, 5, 6], "no line stands twice"


@contextmanager
def largest_file(size):
    """What a full disk is to whoever writes: a file that cannot grow on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path, whole):
    out = tmp_path / "out"
    size = (MODEL / "model.safetensors").stat().st_size
    with (
        largest_file(size * 3 // 2) as fill,
        pytest.raises(BadOutput, match=r"checkpoint-000004.*cannot be written.*room"),
    ):
        train(MODEL, stream(), out, settings(), on_log=At(3, fill))
    assert names(out) == ["checkpoint-000002"], "nothing is left of the other"
    train(MODEL, stream(), out, settings())
    assert same_bits(out, whole)


def test_a_loss_that_is_no_number_is_not_learnt_from(tmp_path):
    passes = []

    def breaks(features, batch):
        passes.append(batch)
        return features.mean() * (float("nan") if len(passes) == 4 else 1)

    out = tmp_path / "out"
    with pytest.raises(GroundlinkError, match=r"step 4: .*not taken.*squares:\d.*lower learning_rate"):
        train(MODEL, stream(), out, settings(checkpoint_every=100), extra_loss=breaks)
    assert names(out) == ["checkpoint-000003"]
    assert all(tensor.isfinite().all() for tensor in load_file(out / "checkpoint-000003/model.safetensors").values())


def test_a_missing_picture_is_named_and_after_its_repair_all_goes_on(tmp_path, whole):
    recipe = write_squares(tmp_path / "data", 4)

    def data():
        return Stream(read_recipe(recipe, check_images=False))

    changes = {"steps": 24, "checkpoint_every": 100, "max_tokens": 160, "accumulation": 2}
    train(MODEL, data(), tmp_path / "straight", settings(**changes))
    picture, aside = tmp_path / "data" / "2.png", tmp_path / "aside.png"
    out = tmp_path / "out"
    with pytest.raises(BadImage, match=r"train\.jsonl:3: .*2\.png"):
        train(MODEL, data(), out, settings(**changes), on_log=At(2, lambda: shutil.move(picture, aside)))
    (kept,) = names(out)
    assert 2 <= int(kept[-6:]) < 24
    shutil.move(aside, picture)
    train(MODEL, data(), out, settings(**changes))
    assert same_bits(out, tmp_path / "straight")


def test_folders_that_are_in_use_or_of_something_else(tmp_path, whole):
    with checkpoints.locked(whole), pytest.raises(BadOutput, match="another process is training into this folder"):
        train(MODEL, stream(), whole, settings())
    with pytest.raises(BadData, match=r"learning_rate was 0\.001 and is 0\.002; mtp_weight was 1\.0 and is 0\.5\."):
        train(MODEL, stream(), whole, settings(learning_rate=2e-3, mtp_weight=0.5, keep=7))
    with pytest.raises(BadData, match="another training: model was "):
        train(MODEL.parent / "ckpt_r2", stream(), whole, settings())
    with pytest.raises(BadData, match="seed"):
        train(MODEL, stream(seed=5), whole, settings())
    with pytest.raises(BadOutput, match="holds a training already"):
        train(MODEL, stream(), whole, settings(), resume=False)
    model = shutil.copytree(MODEL, tmp_path / "model")
    with pytest.raises(BadOutput, match="is the folder of the model to start from"):
        train(model, stream(), model, settings())
    with pytest.raises(BadOutput, match="holds a model already"):
        train(MODEL, stream(), model, settings())
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOutput, match="cannot be made"):
        train(MODEL, stream(), tmp_path / "file", settings())


def test_a_broken_checkpoint_is_passed_over(tmp_path, whole, caplog):
    out = shutil.copytree(whole, tmp_path / "out")
    os.truncate(out / "checkpoint-000006" / "model.safetensors", 5000)
    train(MODEL, stream(), out, settings())
    assert "checkpoint-000006 is broken" in caplog.text
    assert same_bits(out / "checkpoint-000006", whole)
    for name in names(out):
        (out / name / "trainer.json").write_text("{")
    with pytest.raises(BadData, match="none of the checkpoints"):
        train(MODEL, stream(), out, settings())


def test_passes_that_make_one_step_are_as_one_large_pass(tmp_path):
    for name, changes in (("one", {"rows": 3}), ("three", {"accumulation": 3})):
        train(MODEL, stream(Squares(8)), tmp_path / name, settings(steps=2, mtp_weight=0.5, max_tokens=200, **changes))
    one, three = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "three"))
    start = load_file(MODEL / "model.safetensors")
    # AdamW's first steps are of the size of the learning rate, whatever the gradient; noise shows where that is zero.
    for name, tensor in one.items():
        assert (tensor - three[name]).abs().mean() < 0.02 * (tensor - start[name]).abs().mean() + 1e-9, name
    figures = [steps_logged(tmp_path / name)[0] for name in ("one", "three")]
    assert figures[0]["gradient_norm"] == pytest.approx(figures[1]["gradient_norm"], rel=1e-4)
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-5)


def test_bfloat16_and_recomputing_are_near_to_float32(tmp_path, whole):
    train(MODEL, stream(), tmp_path / "low", settings(steps=6, precision="bfloat16", recompute=True))
    for low, high in zip(steps_logged(tmp_path / "low"), steps_logged(whole), strict=True):
        assert low["loss"] == pytest.approx(high["loss"], rel=0.03)
    assert all(t.dtype == torch.float32 for t in load_file(tmp_path / "low" / "model.safetensors").values())


def test_new_weights(tmp_path):
    folder = shutil.copytree(MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    first, again, other = (from_nothing(folder, seed).model.state_dict() for seed in (0, 0, 1))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        if tensor.ndim > 1:
            deviation = (
                0.01 if name.endswith(("o_proj.weight", "down_proj.weight", "wo.weight", "fc1.weight")) else 0.02
            )
            assert tensor.std() == pytest.approx(0.88 * deviation, rel=0.05), name  # cutting takes some of it
            assert not torch.equal(tensor, other[name])
        else:
            assert (tensor == (0 if name.endswith("bias") else 1)).all(), name
    done = train(folder, stream(), tmp_path / "out", settings(steps=2), from_scratch=True)
    assert steps_logged(done.folder)[0]["loss"] == pytest.approx(7.2, abs=0.1), "the logarithm of the vocabulary"
    with groundlink.load("locateanything", model=done.folder, device="cpu"):
        pass


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "'learning_rat' is no setting of the training; did you mean learning_rate"),
        ({"steps": 0}, "steps is 0; it is a whole number of at least 1"),
        ({"steps": True}, "steps is True"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; it is a number from 0 to 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"warmup_steps": 50, "steps": 50}, "leaves none of 50 steps"),
        ({"betas": [0.9]}, "betas"),
        ({"freeze": 3}, "freeze"),
        ({"precision": "float16"}, "precision is 'float16'; it is auto, float32 or bfloat16"),
        ({"recompute": 1}, "recompute is 1; it is true or false"),
    ],
)
def test_unfit_settings_are_named(values, message):
    with pytest.raises(BadData, match=message):
        TrainSettings.of(values)


def test_the_learning_rate_rises_and_falls():
    rates = [
        TrainSettings(steps=20, warmup_steps=4, learning_rate=1.0, learning_rate_floor=0.1).learning_rate_at(s)
        for s in range(20)
    ]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[12] == pytest.approx(0.55)
    assert 0.1 < rates[-1] < 0.12
    assert TrainSettings(steps=100).warmup == 10
    assert TrainSettings(steps=25000).warmup == 500


def test_freezing_nothing_or_everything_is_refused(tmp_path):
    with pytest.raises(
        BadData, match="names 'visoin', and no tensor begins like this; use vision, connector, language"
    ):
        train(MODEL, stream(), tmp_path / "out", settings(freeze="visoin"))
    with pytest.raises(BadData, match="nothing to train"):
        train(MODEL, stream(), tmp_path / "out", settings(freeze=("vision", "connector", "language")))
