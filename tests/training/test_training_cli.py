"""`groundlink train` as a person and a script meet it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from groundlink import training
from groundlink.cli import app
from groundlink.errors import BackendUnavailable, BadData, WeightsInvalid, WeightsNotFound
from groundlink.training import checkpoints
from tests.training.squares import MODEL, write_squares

PROGRAM = Path(sys.executable).parent / "groundlink"
SETTINGS = {
    "steps": 400,
    "learning_rate": 0.001,
    "accumulation": 1,
    "max_tokens": 320,
    "precision": "float32",
    "recompute": False,
    "log_every": 2,
    "workers": 1,
}


@pytest.fixture
def recipe(tmp_path):
    path = write_squares(tmp_path / "data")
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": SETTINGS}))
    return path


def test_a_training_is_interrupted_and_goes_on(recipe, tmp_path):
    out = tmp_path / "out"
    command = [
        PROGRAM,
        "train",
        recipe,
        "--model",
        MODEL,
        "--out",
        out,
        "--set",
        "steps=60",
        "--device",
        "cpu",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        first = json.loads(running.stdout.readline())
        running.send_signal(signal.SIGINT)
        _, words = running.communicate(timeout=60)
    assert running.returncode == 130, words
    assert "the same command goes on from there" in words
    assert "Traceback" not in words
    reached = checkpoints.load(checkpoints.latest(out)).step
    assert 2 == first["step"] <= reached < 60

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)  # noqa: PLW1510
    assert done.returncode == 0, done.stderr
    *figures, last = map(json.loads, done.stdout.splitlines())
    assert last == {"schema": "groundlink/1", "model": str(out), "steps": 60}
    assert figures[0]["step"] in (reached + 1, reached + 2)
    lines = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines == list(range(2, 62, 2))


def refusal(*arguments):
    """The error that a command ends in, before anything is trained."""
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exception is not None, result.output
    return result.exception


def test_what_a_user_can_get_wrong_is_named(recipe, tmp_path, monkeypatch):
    folders = ("--model", MODEL, "--out", tmp_path / "out")
    wrong = refusal(recipe, *folders, "--set", "warmup=3")
    assert isinstance(wrong, BadData)
    assert "did you mean warmup_steps" in str(wrong)
    assert isinstance(refusal(tmp_path / "none.json", *folders), BadData)
    assert isinstance(refusal(recipe, "--model", tmp_path / "none", "--out", tmp_path / "out"), WeightsNotFound)
    (tmp_path / "bare").mkdir()
    bare = refusal(recipe, "--model", tmp_path / "bare", "--out", tmp_path / "out", "--from-scratch")
    assert isinstance(bare, WeightsInvalid)
    assert "config.json is missing" in str(bare)

    recipe.write_text(json.dumps({"made": {"scenes": {"spilt": "train"}}}))
    wrong = refusal(recipe, *folders)
    assert isinstance(wrong, BadData)
    assert "spilt" in str(wrong)
    recipe.write_text(json.dumps({"settings": 3}))
    assert "not an object of names and values" in str(refusal(recipe, *folders))
    recipe.write_text(json.dumps({"settings": {}}))
    assert "no data sets" in str(refusal(recipe, *folders))
    (recipe.parent / "train.jsonl").write_text("")
    recipe.write_text(json.dumps({"squares": {"annotation": "train.jsonl"}}))
    assert isinstance(refusal(recipe, *folders), BadData)
    assert not os.path.exists(tmp_path / "out" / "log.jsonl")  # noqa: PTH110

    monkeypatch.setattr(training, "find_spec", lambda name: None if name == "accelerate" else object())
    lacking = refusal(recipe, *folders)
    assert isinstance(lacking, BackendUnavailable)
    assert "accelerate not installed; run pip install 'groundlink[train]'" in str(lacking)
