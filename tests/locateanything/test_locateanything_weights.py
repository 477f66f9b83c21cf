"""Checkpoints: found on disk, in the hub's cache or nowhere; sound, or refused with all that is wrong."""

import json
import logging
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import groundlink
from groundlink.backends.locateanything import hub
from groundlink.backends.locateanything.weights import open_checkpoint
from groundlink.errors import WeightsInvalid, WeightsNotFound
from tests.locateanything import samples

SOURCE = samples.FOLDER
OUTPUT = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
CPU = torch.device("cpu")


def opened(folder, dtype=torch.float32):
    return open_checkpoint(folder, CPU, dtype)


@pytest.fixture
def folder(tmp_path):
    """A copy of a checkpoint to break."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(SOURCE, copy)
    return copy


@pytest.fixture
def tensors():
    return load_file(SOURCE / "model.safetensors")


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def problems(folder):
    with pytest.raises(WeightsInvalid) as caught:
        opened(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def shard(folder, tensors):
    """Write tensors as two shards with an index."""
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for file, inside in parts.items():
        save_file({name: tensors[name] for name in inside}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def same_weights(a, b):
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_shards_are_the_same_as_one_file(folder, tensors):
    shard(folder, tensors)
    assert same_weights(opened(folder), opened(SOURCE))


def test_weights_are_mapped_from_the_file_and_not_copied(folder):
    weight = opened(folder).model.language_model.model.embed_tokens.weight
    address = weight.data_ptr()
    if not sys.platform.startswith("linux"):
        assert weight.dtype == torch.float32  # the table of mappings is a thing of Linux
        return
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    assert any(low <= address < high for low, high in spans)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_take_the_type_that_is_asked_for(dtype):
    checkpoint = opened(SOURCE, dtype)
    assert {parameter.dtype for parameter in checkpoint.model.parameters()} == {dtype}
    assert not any(parameter.requires_grad for parameter in checkpoint.model.parameters())


def untied(data):
    data["tie_word_embeddings"] = False


def test_an_untied_model_needs_its_own_output_matrix(folder, tensors):
    edit(folder / "config.json", untied)
    tensors.pop(OUTPUT, None)
    save_file(tensors, folder / "model.safetensors")
    assert OUTPUT in problems(folder)

    save_file({**tensors, OUTPUT: tensors[EMBEDDING] * 2}, folder / "model.safetensors")
    language = opened(folder).model.language_model
    row = torch.ones(1, 1, language.model.config.hidden_size)
    normed = language.model.norm(row)
    torch.testing.assert_close(language.logits(row), normed @ (tensors[EMBEDDING] * 2).T)


def test_a_tied_model_ignores_an_output_matrix(folder, tensors):
    def tied(data):
        data["tie_word_embeddings"] = True
        data["text_config"]["tie_word_embeddings"] = False  # the top level wins

    edit(folder / "config.json", tied)
    save_file({**tensors, OUTPUT: tensors[EMBEDDING] * 2}, folder / "model.safetensors")
    language = opened(folder).model.language_model
    row = torch.ones(1, 1, language.model.config.hidden_size)
    torch.testing.assert_close(language.logits(row), language.model.norm(row) @ tensors[EMBEDDING].T)


def test_everything_wrong_is_told_at_once(folder, tensors):
    tensors.pop("mlp1.0.bias")
    tensors["mlp1.9.bias"] = torch.zeros(3)
    tensors["mlp1.1.bias"] = torch.zeros(7)
    tensors["mlp1.3.bias"][0] = torch.nan
    tensors["mlp1.3.weight"][0, 0] = torch.inf
    save_file({**tensors, "mlp1.8.bias": torch.zeros(3, dtype=torch.int8)}, folder / "model.safetensors")

    def other_ids(data):
        data["box_start_token_id"] += 1
        data["text_config"]["null_token_id"] = 3

    edit(folder / "config.json", other_ids)
    told = problems(folder)
    for pattern in (
        r"missing: mlp1\.0\.bias",
        r"left over: mlp1\.9\.bias",
        r"misshapen: mlp1\.1\.bias \(7,\) instead of",
        r"not finite.*: mlp1\.3\.bias, mlp1\.3\.weight",
        r"mlp1\.8\.bias is of type I8",
        r"<box> is \d+ in config\.json \(box_start_token_id\) and \d+ in the tokenizer",
        r"<null> is 3 in config\.json \(text_config\.null_token_id\) and \d+ in the tokenizer",
    ):
        assert re.search(pattern, told), (pattern, told)


def test_values_too_large_for_the_type_are_told(folder, tensors):
    tensors["mlp1.3.bias"][0] = 1e6
    save_file(tensors, folder / "model.safetensors")
    opened(folder)
    with pytest.raises(WeightsInvalid, match=r"not finite as float16.*mlp1\.3\.bias"):
        opened(folder, torch.float16)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.update(model_type="qwen2"), "model_type 'qwen2'"),
        (lambda data: data.pop("vision_config"), "no vision_config"),
        (lambda data: data["vision_config"].update(patch_size=16), "patch_size is 16"),
        (lambda data: data["vision_config"].update(num_attention_heads=3), "multiple of 4"),
        (lambda data: data["text_config"].update(hidden_size="big"), "hidden_size is 'big'"),
        (lambda data: data["text_config"].update(block_size=4), "block_size is 4"),
        (lambda data: data["text_config"].update(rope_scaling={"type": "yarn"}), "rope_scaling"),
        (lambda data: data["text_config"].update(num_key_value_heads=3), "num_key_value_heads"),
        (lambda data: data["text_config"].update(vocab_size=300), "outside the vocabulary"),
        (lambda data: data["text_config"].update(eos_token_id=0), r"text_config\.eos_token_id"),
        (lambda data: data.update(coord_end_token_id=7), "<1000> is 7"),
        (lambda data: data.update(none_token_id=7), "None is 7"),
        (lambda data: data.update(image_token_index=7), "<IMG_CONTEXT> is 7"),
    ],
)
def test_a_config_that_does_not_fit_is_told(folder, change, told):
    edit(folder / "config.json", change)
    assert re.search(told, problems(folder))


def test_ids_without_a_key_are_read_by_name(folder):
    def without(data):
        for key in [key for key in data if key.endswith("_token_id")]:
            del data[key]

    edit(folder / "config.json", without)
    assert opened(folder).config.ids == opened(SOURCE).config.ids


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", "[]", "config.json holds no JSON object"),
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("tokenizer.json", "{}", "tokenizer.json cannot be read"),
        ("preprocessor_config.json", '{"in_token_limit": -1}', "in_token_limit is -1"),
        ("model.safetensors", "junk", "model.safetensors cannot be read"),
        ("model.safetensors", None, "neither model.safetensors nor"),
    ],
)
def test_files_that_are_missing_or_broken_are_told(folder, name, content, told):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    assert told in problems(folder)


def test_a_file_cut_short_is_told(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors cannot be read" in problems(folder)


def test_limits_have_their_defaults_where_files_are_silent(folder):
    (folder / "preprocessor_config.json").unlink()
    edit(folder / "tokenizer_config.json", lambda data: data.pop("model_max_length", None))
    config = opened(folder).config
    assert config.patch_limit == 4096
    assert config.max_length is None


def test_pickles_are_never_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickles (pytorch_model.bin)" in problems(folder)


def test_shards_that_are_missing_or_elsewhere_are_told(folder, tensors):
    shard(folder, tensors)
    (folder / "model-00002-of-00002.safetensors").unlink()

    def astray(data):
        data["weight_map"]["mlp1.0.bias"] = "../other.safetensors"
        data["weight_map"]["mlp1.1.bias"] = "weights.bin"

    edit(folder / "model.safetensors.index.json", astray)
    told = problems(folder)
    assert "model-00002-of-00002.safetensors is missing" in told
    assert "'../other.safetensors'" in told
    assert "'weights.bin'" in told


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The hub's cache with one repository in it, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(SOURCE, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return snapshot


def test_a_repository_that_was_downloaded_needs_no_network(hub_cache):
    assert hub.find("someone/tiny") == hub_cache
    assert hub.find_cached("someone/tiny") == hub_cache


def test_half_a_download_is_none(hub_cache):
    (hub_cache / "model.safetensors").unlink()
    assert hub.find_cached("someone/tiny") is None


def test_a_repository_that_cannot_be_had_is_told(hub_cache):
    assert hub.find_cached("someone/other") is None
    with pytest.raises(WeightsNotFound, match=r"'someone/other'.*hf auth login"):
        hub.find("someone/other")


@pytest.mark.parametrize("name", ["no-such-folder", "./no/such/folder", "/nowhere/at-all", "a/b/c", ""])
def test_a_folder_that_is_not_there_is_told(name):
    with pytest.raises(WeightsNotFound, match=re.escape(repr(name))):
        hub.find(name)


def test_the_licence_is_named_before_the_first_download_and_no_code_is_fetched(hub_cache, monkeypatch, caplog):
    asked = []

    def download(repository, **options):
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
        asked.append((repository, options["allow_patterns"]))
        return str(hub_cache)

    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with caplog.at_level(logging.WARNING):
        assert hub.find(hub.OFFICIAL_MODEL) == hub_cache
    assert asked == [(hub.OFFICIAL_MODEL, ["*.json", "*.safetensors"])]
    assert "non-commercial" in caplog.text


def test_nothing_runs_code_from_a_checkpoint():
    package = Path(groundlink.__file__).parent
    forbidden = "trust_" + "remote_code"
    sources = list(package.rglob("*.py"))
    assert len(sources) > 10
    assert not [path for path in sources if forbidden in path.read_text("utf-8")]
