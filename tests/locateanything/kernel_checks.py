"""The Triton kernels against plain torch, interpreted on the CPU: what `test_locateanything_kernels.py` runs.

Nothing here runs in an ordinary collection, since whether Triton interprets is settled when it is imported.
"""

import numpy as np
import pytest
import torch
import triton.language as tl
from torch.nn import functional as F
from triton.runtime import interpreter

from groundlink.backends.locateanything import kernels
from groundlink.backends.locateanything.config import WINDOW, TextConfig
from groundlink.backends.locateanything.decoder import Decoder
from groundlink.backends.locateanything.generate import step_rows
from groundlink.backends.locateanything.language import Layer, Rows, rms_norm, rotary_table, rotate_halves
from tests.locateanything import golden_data as golden
from tests.locateanything.test_golden_engine import begin

# Infinities that are meant: exp of a large number, whose inverse is zero, and log of zero. numpy warns, a GPU does not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning"),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMALL = TextConfig(0, 32, 1, 2, 1, 96, 1e4, 1e-6)
convert = interpreter._convert_float


def convert_rounding(data, before, after, mode):
    """The interpreter cuts bfloat16 off where every GPU rounds to the nearest."""
    if (before, after) == (tl.bfloat16, tl.float32):
        return data.astype(np.uint32) << 16
    if (before, after) == (tl.float32, tl.bfloat16):
        return torch.from_numpy(np.array(data)).bfloat16().view(torch.uint16).numpy()
    return convert(data, before, after, mode)


def dot(self, a, b, d, precision, imprecise):
    """It also multiplies the bit patterns of bfloat16 as if they were numbers."""
    a, b = (
        (x.data.astype(np.uint32) << 16).view(np.float32) if x.dtype.scalar == tl.bfloat16 else x.data for x in (a, b)
    )
    return interpreter.TensorHandle(np.matmul(a, b, dtype=d.data.dtype) + d.data, d.dtype.scalar)


interpreter._convert_float = convert_rounding
interpreter.InterpreterBuilder.create_dot = dot


@pytest.fixture(autouse=True)
def _random():
    torch.manual_seed(0)


def assert_near(found, wanted, epsilons=2.0):
    """Compare by the size of the difference; everything must be finite."""
    assert found.shape == wanted.shape
    assert found.isfinite().all()
    difference = (found.double() - wanted.double()).norm() / wanted.double().norm()
    assert difference <= epsilons * torch.finfo(found.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(24, 64), (3, 2048), (2, 3584), (2, 11008)])
def test_add_rms_norm(rows, width, dtype):
    weight = torch.randn(width).to(dtype)
    x, delta = (torch.randn(2, rows, width) * 3).to(dtype)
    for given in (delta, None):
        summed, normed = kernels.add_rms_norm(x, given, weight, 1e-6)
        wanted = x if given is None else x + given
        assert summed.equal(wanted)
        # In 16 bits nearly all elements are equal if the roundings stand where they should.
        assert_near(normed, rms_norm(wanted, weight, 1e-6), 1 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [96, 3584, 11008])
def test_silu_mul(width, dtype):
    gate, up = (torch.randn(2, 3, width) * 4).to(dtype)
    gate[0, :4] = torch.tensor([-100.0, 100.0, 0.0, -5.0])
    assert_near(kernels.silu_mul(torch.cat((gate, up), -1)), F.silu(gate) * up, 0.1)


def filled_cache(batch, key_heads, capacity, head_dim, dtype, layers=3):
    """The second layer of a cache, full of NaN."""
    return torch.full((2, layers, batch, key_heads, capacity, head_dim), torch.nan, dtype=dtype)[:, 1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "key_heads", "head_dim", "rows"), [(2, 1, 128, 4), (4, 2, 16, 12), (3, 1, 64, 1)])
def test_rotate_and_store(heads, key_heads, head_dim, rows, dtype):
    batch, capacity = 3, 40
    config = TextConfig(0, heads * head_dim, 1, heads, key_heads, 0, 1e4, 1e-6)
    qkv = torch.randn(batch, rows, (heads + 2 * key_heads) * head_dim).to(dtype)
    slots = torch.tensor([0, 7, 28])[:, None] + torch.arange(rows)
    cos, sin = rotary_table(slots + 3, config, dtype)
    q, k, v = qkv.unflatten(-1, (-1, head_dim)).transpose(1, 2).split((heads, key_heads, key_heads), 1)
    cache = filled_cache(batch, key_heads, capacity, head_dim, dtype)
    index = slots[:, None, :, None].expand_as(k)
    wanted = cache.scatter(3, index.expand(2, *k.shape), torch.stack((rotate_halves(k, cos, sin), v)))
    found = kernels.rotate_and_store(qkv, cos[:, 0], sin[:, 0], slots, *cache)
    assert found.is_contiguous()
    torch.testing.assert_close(found, rotate_halves(q, cos, sin), atol=1e-6, rtol=0)
    torch.testing.assert_close(cache, wanted, atol=1e-6, rtol=0, equal_nan=True)


def test_rows_outside_of_the_cache_are_not_stored():
    whole = torch.zeros(2, 3, 2, 1, 8, 16)
    slots = torch.tensor([[6, 7, 8, 9], [-1, 2, 3, 100]])
    table = torch.ones(2, 4, 16)
    kernels.rotate_and_store(torch.ones(2, 4, 3 * 16), table, table, slots, *whole[:, 1])
    written = whole.any(-1)
    assert not written[:, [0, 2]].any()
    assert written[1, 1].nonzero()[:, [0, 2]].tolist() == [[0, 6], [0, 7], [1, 2], [1, 3]]


def attention(q, keys, values, mask):
    """Plain attention in float64; a row without a key gives zeros."""
    group = q.shape[1] // keys.shape[1]
    keys, values = (t.nan_to_num(0).double().repeat_interleave(group, 1) for t in (keys, values))
    score = q.double() @ keys.mT * q.shape[-1] ** -0.5
    weight = score.masked_fill(~mask[:, None], -torch.inf).softmax(-1).nan_to_num(0)
    return (weight @ values).transpose(1, 2).flatten(2)


def step_masks(cached, count, rows, slots):
    """The masks of single steps, put together: `[B, rows, slots]`."""
    masks = torch.zeros(len(cached), rows, slots, dtype=torch.bool)
    for mask, before, tokens in zip(masks, cached.tolist(), count.tolist(), strict=True):
        sequence = torch.zeros(1, before + tokens, dtype=torch.long)
        own = step_rows(sequence, before, rows > 1, 0)[2][0]
        mask[: own.shape[0], : own.shape[1]] = own
    return masks


@pytest.mark.parametrize(
    ("dtype", "heads", "key_heads", "head_dim", "rows", "cached", "count", "span"),
    [
        (torch.bfloat16, 8, 1, 128, 12, [180], [6], 192),
        (torch.bfloat16, 16, 2, 128, 1, [300], [1], 320),
        (torch.float32, 2, 1, 16, 12, [0, 63, 64, 250, 57, 121], [1, 2, 3, 4, 5, 6], 256),
        (torch.float32, 4, 2, 16, 1, [0, 62, 63, 64, 200], [1, 1, 1, 1, 1], 700),
        (torch.float32, 3, 1, 32, 12, [5], [2], 1),
        (torch.float16, 6, 2, 64, 12, [100, 1], [5, 3], 128),
    ],
)
def test_attend(dtype, heads, key_heads, head_dim, rows, cached, count, span):
    """Every split, from one to more than are needed; what nobody sees is NaN."""
    batch, capacity = len(cached), 333
    cached, count = torch.tensor(cached), torch.tensor(count)
    q = torch.randn(batch, heads, rows, head_dim).to(dtype)
    cache = filled_cache(batch, key_heads, capacity, head_dim, dtype)
    for b, end in enumerate((cached + (count + WINDOW).clamp(max=rows)).tolist()):
        cache[:, b, :, :end] = torch.randn(2, key_heads, end, head_dim)
    mask = step_masks(cached, count, rows, capacity)
    assert kernels.visible(cached, count, rows, capacity).equal(mask)
    found = kernels.attend(q, *cache, cached, count, span)
    assert_near(found, attention(q, *cache, mask))
    padding = torch.arange(rows) >= (count + WINDOW)[:, None]
    assert not found[padding].any()


def test_large_scores_do_not_overflow():
    q, cache = torch.randn(1, 2, 12, 16) * 1e3, torch.randn(2, 1, 1, 100, 16) * 1e3
    cached, count = torch.tensor([80]), torch.tensor([3])
    mask = step_masks(cached, count, 12, 100)
    assert_near(kernels.attend(q, *cache, cached, count, 100), attention(q, *cache, mask))


def test_a_layer_made_of_kernels_is_the_plain_layer():
    config = TextConfig(0, 96, 1, 6, 2, 200, 1e4, 1e-6)
    layer = Layer(config)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    before, tokens, capacity = 70, 4, 100
    sequence = torch.zeros(1, before + tokens, dtype=torch.long)
    _, positions, mask = step_rows(sequence, before, True, 0)
    rows = positions.shape[1]
    cos, sin = rotary_table(positions, config, torch.float32)
    slots = before + torch.arange(rows)[None]
    x = torch.randn(1, rows, 96)
    cache = torch.randn(2, 1, 2, capacity, 16)
    plain = cache.clone()
    wanted = layer(x, Rows(cos, sin, slots, mask), *plain)

    packed = layer.packed()
    x, normed = kernels.add_rms_norm(x, None, packed.input_norm, 1e-6)
    q = kernels.rotate_and_store(F.linear(normed, packed.qkv, packed.qkv_bias), cos[:, 0], sin[:, 0], slots, *cache)
    seen = kernels.attend(q, *cache, torch.tensor([before]), torch.tensor([tokens]), 90)
    x, normed = kernels.add_rms_norm(x, F.linear(seen, packed.output), packed.mlp_norm, 1e-6)
    found = x + F.linear(kernels.silu_mul(F.linear(normed, packed.gate_up)), packed.down)
    assert_near(found, wanted, 8)
    torch.testing.assert_close(cache, plain)


def test_golden_answers_begin_alike_through_the_kernels():
    """Unlike requests together, one of each mode; a few steps, since interpreting takes its time."""
    runs = [run for run in golden.read("g2/generate.json.gz") if run["robust"] and run["ckpt"] == golden.CHECKPOINTS[0]]
    runs = [next(run for run in runs if run["mode"] == mode) for mode in ("hybrid", "slow")]
    decoder = Decoder(golden.checkpoint(golden.CHECKPOINTS[0]).model, batch=2, fixed=True)
    decoder._fused = kernels
    for slot, run in enumerate(runs):
        begin(decoder, slot, run)
    for number in range(3):
        for taken, run in zip(decoder.step(), runs, strict=True):
            assert taken is None or taken.tokens == run["steps"][number]["tokens"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_self_check_passes(dtype):
    kernels.self_check(SMALL, torch.device("cpu"), dtype)


@pytest.mark.parametrize("name", ["add_rms_norm", "silu_mul", "rotate_and_store", "attend"])
def test_the_self_check_finds_what_is_off(name, monkeypatch):
    right = getattr(kernels, name)

    def wrong(*args):
        out = right(*args)
        (out[-1] if isinstance(out, tuple) else out).view(-1)[5] += 1
        return out

    monkeypatch.setattr(kernels, name, wrong)
    with pytest.raises(RuntimeError, match=name):
        kernels.self_check(SMALL, torch.device("cpu"), torch.bfloat16)


def test_tensors_in_pieces_are_refused():
    with pytest.raises(ValueError, match="contiguous"):
        kernels.silu_mul(torch.ones(4, 8).T)
    cache = torch.ones(1, 1, 8, 16)
    with pytest.raises(ValueError, match="alike"):
        kernels.attend(torch.ones(1, 2, 1, 16), cache, cache.mT, torch.ones(1), torch.ones(1), 8)
