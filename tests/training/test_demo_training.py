"""How the demo model is made: a blank that loads, cells that tell the truth, stages that learn."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from groundlink.backends.locateanything.blocks import is_coordinate
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.preprocessing import preprocess
from groundlink.backends.locateanything.prompt import QUESTIONS
from groundlink.backends.locateanything.weights import open_checkpoint, open_settings
from groundlink.training.demo.blank import initialise, write_blank
from groundlink.training.demo.cells import CellLoss, cells_of
from groundlink.training.demo.guide import Guide, boxes_of, cells_of_tokens, words_of
from groundlink.training.demo.learn import CellPart, first_stage
from groundlink.training.forward import hidden_rows, image_rows
from groundlink.training.packing import collate
from groundlink.training.samples import Sample
from groundlink.training.scenes import draw
from groundlink.training.sequences import SampleEncoder


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "blank"
    write_blank(folder)
    return folder


def test_the_blank_is_a_checkpoint_without_weights(blank):
    config, tokenizer = open_settings(blank)
    assert 5e6 < sum(p.numel() for p in LocateAnything(config).parameters()) < 20e6
    assert tokenizer.decode([config.ids.none]) == "None"
    for question in QUESTIONS.values():  # what stands in every question is one token
        assert len(tokenizer.encode(question.split("{}")[0].rstrip())) <= 2
    assert tokenizer.decode(tokenizer.encode("the Save button, zürich 東京")) == "the Save button, zürich 東京"


def test_the_blank_is_the_same_each_time(blank, tmp_path):
    write_blank(tmp_path)
    for path in blank.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_first_weights_hang_on_the_seed_alone(blank):
    config, tokenizer = open_settings(blank)
    models = [LocateAnything(config) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1)):
        initialise(model, tokenizer, seed)
    one, same, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(one, same) and not torch.equal(one, other)
    coordinates = models[0].language_model.model.embed_tokens.weight[config.ids.coord_start :][:1001]
    near = (coordinates[1:] - coordinates[:-1]).norm(dim=-1).mean()
    far = (coordinates[500:] - coordinates[:-500]).norm(dim=-1).mean()
    assert near < far / 10  # neighbours begin as neighbours
    words = models[0].language_model.model.embed_tokens.weight
    save, written, other = (words[tokenizer.encode(word)[0]] for word in (" save", "Save", " open"))
    assert torch.cosine_similarity(save, written, 0) > 0.7
    assert torch.cosine_similarity(save, other, 0).abs() < 0.4


def test_the_cell_in_the_middle_of_a_thing_tells_of_it():
    told = 0
    for number in range(20):
        scene, _ = draw("train", number, 1)
        _, grid = preprocess(scene.image, 400)
        rows, columns = grid[0] // 2, grid[1] // 2
        truth = cells_of(scene, grid).reshape(rows, columns, 12)
        assert truth.dtype == np.float32
        for item in scene.items:
            if item.kind != "shape":
                continue
            x, y = (
                (item.box[0] + item.box[2]) / 2 / scene.image.width,
                (item.box[1] + item.box[3]) / 2 / scene.image.height,
            )
            cell = truth[min(int(y * rows), rows - 1), min(int(x * columns), columns - 1)]
            box = np.array(item.box) / np.tile(scene.image.size, 2)
            told += np.allclose(cell[4:8], box, atol=1e-5)  # but for those with a smaller one on the same cell
    shapes = sum(item.kind == "shape" for number in range(20) for item in draw("train", number, 1)[0].items)
    assert told > 0.9 * shapes > 20


@pytest.mark.parametrize("by_name", [False, True])
def test_the_tower_learns_from_cells(blank, by_name):
    config, tokenizer = open_settings(blank)
    model = LocateAnything(config)
    initialise(model, tokenizer, 0)
    torch.manual_seed(0)
    cells = CellLoss(model, tokenizer, 8.0, by_name=by_name)
    scene, _ = draw("train", 1, 1)
    patches, grid = preprocess(scene.image, config.patch_limit)
    truth = torch.from_numpy(cells_of(scene, grid))
    optimizer = torch.optim.AdamW(
        [*model.vision_model.parameters(), *model.mlp1.parameters(), *cells.parameters()], 1e-3
    )
    losses = []
    for _ in range(25):
        loss = cells(image_rows(model, torch.from_numpy(patches), [grid]), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_a_thing_is_known_by_the_words_of_its_name(blank):
    config, tokenizer = open_settings(blank)
    model = LocateAnything(config)
    initialise(model, tokenizer, 0)
    cells = CellLoss(model, tokenizer, 8.0, by_name=True)
    names = cells.names @ model.language_model.model.embed_tokens.weight
    of = {name: names[i] for name, i in zip(("circle", "square"), range(2))}  # the first two of the shapes
    for name, other in (("circle", "square"), ("square", "circle")):
        word = model.language_model.model.embed_tokens.weight[tokenizer.encode(f" {name}")[0]]
        assert word @ of[name] > 3 * (word @ of[other]).abs()


def sample(answer, question="Where?", size=(112, 84)):
    image = Image.new("RGB", size, "white")
    return Sample((lambda: image,), ((f"<image-1>{question}", answer),), "test")


def test_looks_are_guided_to_the_cells_of_a_box(blank):
    config, tokenizer = open_settings(blank)
    model = LocateAnything(config)
    initialise(model, tokenizer, 0)
    encoder = SampleEncoder(tokenizer, config)
    answer = "<ref>a</ref><box><0><0><250><400></box><box><600><700><990><990></box>"
    batch = collate([[encoder.encode(sample(answer)), encoder.encode(sample("<box><300><500></box>"))]])
    boxes = boxes_of(batch, model)
    said = is_coordinate(batch.targets, config.ids)
    assert torch.equal(said, ~boxes[..., 0].isnan())
    told = {tuple(round(1000 * value) for value in box) for box in boxes[said].tolist()}
    assert told == {(0, 0, 250, 400), (600, 700, 990, 990), (300, 500, 300, 500)}
    cells = cells_of_tokens(batch, model)
    there = batch.ids == config.ids.image
    assert torch.equal(there, ~cells[..., 0].isnan())
    first = cells[there][: int(there.sum()) // 2]  # four columns and three rows, in reading order
    assert first[0].tolist() == pytest.approx([0, 0, 1 / 4, 1 / 3])
    assert first[5].tolist() == pytest.approx([1 / 4, 1 / 3, 2 / 4, 2 / 3])
    assert first[-1].tolist() == pytest.approx([3 / 4, 2 / 3, 1, 1])


def test_looks_are_guided_to_the_words_of_what_is_asked(blank):
    config, tokenizer = open_settings(blank)
    model = LocateAnything(config)
    encoder = SampleEncoder(tokenizer, config)
    asked = "Point to: the red circle."
    labelled = "<ref>star</ref><box><0><0><9><9></box><ref>red ring</ref><box><0><0><8><8></box>"
    batch = collate([[encoder.encode(sample("<box><300><500></box>", asked)), encoder.encode(sample(labelled, asked))]])
    boxes = boxes_of(batch, model)[0]
    rows = (~boxes[:, 0].isnan()).nonzero()[:, 0]
    told = {
        (round(1000 * float(box[2])), tokenizer.decode(batch.ids[0][words].tolist()).strip())
        for words, box in zip(words_of(batch, 0, rows, model), boxes[rows], strict=True)
    }
    assert told == {(300, "the red circle"), (9, "star"), (8, "red ring")}


def test_what_looks_at_the_box_has_less_to_learn(blank):
    config, tokenizer = open_settings(blank)
    model = LocateAnything(config)
    initialise(model, tokenizer, 0)
    encoder = SampleEncoder(tokenizer, config)
    there, absent = sample("<box><0><0><250><333></box>", "Point to: it."), sample("None")
    batch = collate([[encoder.encode(there), encoder.encode(absent)]])
    guide = Guide(model)
    optimizer = torch.optim.AdamW(model.language_model.parameters(), 1e-3)
    losses, looks = [], []
    for _ in range(30):
        images = image_rows(model, batch.patches, batch.grids).detach()
        hidden_rows(model, batch.ids, batch.positions, batch.mask, images)
        loss = guide(images, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        looks.append(dict(guide.figures))
    assert losses[0] > 2
    assert losses[-1] < 0.4
    assert looks[-1]["cells"] > looks[0]["cells"]
    assert looks[-1]["words"] > looks[0]["words"]


def test_the_first_stage_leaves_a_checkpoint(blank, tmp_path):
    (tmp_path / "blank").symlink_to(blank)
    told = []
    parts = [CellPart(10, by_name, 1e-3, 0.01) for by_name in (False, True)]
    folder = first_stage(tmp_path, parts, on_log=told.append)
    assert [figures["step"] for figures in told] == [20]
    opened = open_checkpoint(folder, torch.device("cpu"), torch.float32)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "locateanything"
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert first_stage(tmp_path, parts) == folder  # what is there is kept
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert opened.config.text.hidden_size == 256
