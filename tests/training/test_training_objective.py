"""The loss: where it is computed, what it is a mean of, and what its own options do to it."""

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from groundlink.backends.locateanything.weights import open_checkpoint
from groundlink.training.forward import hidden_rows, image_rows
from groundlink.training.objective import SUMS, Objective, SoftLabels
from groundlink.training.packing import collate
from groundlink.training.samples import Sample
from groundlink.training.sequences import IGNORE, SampleEncoder
from tests.training.squares import MODEL, Squares, settings

CHECKPOINT = open_checkpoint(MODEL, torch.device("cpu"), torch.float32)  # of its own: others are used for inference
IDS = CHECKPOINT.config.ids
VOCABULARY = CHECKPOINT.config.text.vocab_size


@pytest.fixture(scope="module")
def batch():
    encoder = SampleEncoder(CHECKPOINT.tokenizer, CHECKPOINT.config)
    samples = [encoder.encode(Squares().sample(index)) for index in range(3)]
    return collate([samples[:2], samples[2:]])


def summed(batch, **changes):
    with torch.no_grad():
        loss, _, sums = Objective(CHECKPOINT.model, settings(**changes))(batch)
    return float(loss), dict(zip(SUMS, sums.tolist(), strict=True))


def test_logits_are_computed_at_labels_only(batch, monkeypatch):
    rows = []
    language_model = CHECKPOINT.model.language_model
    project = language_model.logits
    monkeypatch.setattr(language_model, "logits", lambda x: rows.append(x.shape[1]) or project(x))
    summed(batch)
    labels = int((batch.targets != IGNORE).sum())
    assert sum(rows) == labels
    assert labels < batch.ids.numel() / 3, "most rows are pictures and questions"


def test_the_loss_is_the_joint_mean_of_plain_and_block_labels(batch):
    loss, sums = summed(batch)
    assert loss == pytest.approx(sums["plain loss"] + sums["block loss"], rel=1e-5)
    assert sums["plain labels"] + sums["block labels"] == (batch.targets != IGNORE).sum()
    assert sums["coordinates"] == 3 * 8, "each box is said twice, as tokens and as a block"
    with torch.no_grad():
        model = CHECKPOINT.model
        images = image_rows(model, batch.patches, batch.grids)
        everywhere = model.language_model.logits(hidden_rows(model, batch.ids, batch.positions, batch.mask, images))
    mean = F.cross_entropy(everywhere.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
    assert loss / Objective(CHECKPOINT.model, settings()).weight_of(batch) == pytest.approx(mean.item(), rel=1e-5)


def test_what_is_not_there_can_weigh_less():
    image = Image.new("RGB", (56, 56), "white")
    absent = Sample((lambda: image,), (("<image-1>Where is it?", "<box>None</box>"),), "test")
    batch = collate([[SampleEncoder(CHECKPOINT.tokenizer, CHECKPOINT.config).encode(absent)]])
    assert (batch.targets == IDS.none).sum() == 2, "as a token and in a block"
    with torch.no_grad():
        model = CHECKPOINT.model
        images = image_rows(model, batch.patches, batch.grids)
        logits = model.language_model.logits(hidden_rows(model, batch.ids, batch.positions, batch.mask, images))
    none = batch.targets == IDS.none
    own = F.cross_entropy(logits[none], batch.targets[none], reduction="sum").item()
    whole, _ = summed(batch)
    light, _ = summed(batch, none_weight=0.1)
    assert whole - light == pytest.approx(0.9 * own, rel=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.25, 2.0])
def test_blocks_are_weighed(batch, weight):
    loss, sums = summed(batch, mtp_weight=weight)
    assert loss == pytest.approx(sums["plain loss"] + weight * sums["block loss"], rel=1e-5)
    objective = Objective(CHECKPOINT.model, settings(mtp_weight=weight))
    assert objective.weight_of(batch) == sums["plain labels"] + weight * sums["block labels"]


def test_chunks_and_recomputing_change_nothing(batch, monkeypatch):
    monkeypatch.setattr("groundlink.training.objective.CHUNK", 7)
    in_chunks, _ = summed(batch)
    monkeypatch.undo()
    assert summed(batch)[0] == pytest.approx(in_chunks, rel=1e-6)
    gradients = []
    for recompute in (False, True):
        model = CHECKPOINT.model.requires_grad_(True)
        try:
            loss, *_ = Objective(model, settings(recompute=recompute))(batch)
            parameter = model.language_model.model.layers[0].self_attn.q_proj.weight
            gradients.append(torch.autograd.grad(loss, parameter)[0])
        finally:
            model.requires_grad_(False)
    assert torch.allclose(*gradients, atol=1e-6)


LABELS = torch.tensor([40, IDS.coord_start, IDS.coord_start + 500, IDS.coord_end, IDS.null, IDS.box_end, IDS.null])
IN_BLOCK = torch.tensor([False, True, False, True, True, True, False])
LOGITS = torch.randn(len(LABELS), VOCABULARY, generator=torch.Generator().manual_seed(1))


def soft(spread, smoothing):
    return SoftLabels(IDS, spread, smoothing)(LOGITS.log_softmax(-1), LABELS, IN_BLOCK)


def test_labels_that_are_not_spread_are_plain_cross_entropy():
    plain = F.cross_entropy(LOGITS, LABELS, reduction="none")
    assert torch.equal(soft(0, 0), plain)
    assert torch.allclose(soft(1e-2, 0), plain, atol=1e-5), "as narrow as this, no neighbour has a share"


def test_spread_labels_are_gaussians_cut_at_the_edges():
    width = 3.0
    wanted = F.one_hot(LABELS, VOCABULARY).float()
    for row, label in enumerate(LABELS.tolist()):
        if IDS.coord_start <= label <= IDS.coord_end:
            place = torch.arange(1001) - (label - IDS.coord_start)
            bell = torch.exp(-(place**2) / (2 * width**2))
            wanted[row] = 0
            wanted[row, IDS.coord_start : IDS.coord_end + 1] = bell / bell.sum()
    assert torch.allclose(soft(width, 0), F.cross_entropy(LOGITS, wanted, reduction="none"), atol=1e-5)


def test_structure_shares_its_label_in_blocks_only():
    others = {IDS.box_start, IDS.box_end, IDS.ref_start, IDS.ref_end, IDS.none, IDS.null, IDS.end}
    wanted = F.one_hot(LABELS, VOCABULARY).float()
    for row in (4, 5):
        wanted[row] = 0
        wanted[row, list(others)] = 0.06 / 6
        wanted[row, LABELS[row]] = 0.94
    assert torch.allclose(soft(0, 0.06), F.cross_entropy(LOGITS, wanted, reduction="none"), atol=1e-5)
