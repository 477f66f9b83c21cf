"""The Triton kernels where there is no GPU: what they compute, interpreted, and what they compile to."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

if (sys.platform, platform.machine()) != ("linux", "x86_64"):
    pytest.importorskip("triton", reason="Triton is for Linux")

from triton import compile as compile_kernel
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from groundlink.backends.locateanything import kernels

POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}
SHARED_MEMORY = 99 * 1024  # what a program may have on every GPU since Ampere


def test_the_kernels_compute_what_plain_torch_computes():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", Path(__file__).with_name("kernel_checks.py")],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout, done.stdout


@pytest.fixture
def launches(monkeypatch, tmp_path):
    """Kernels that are noted instead of launched, on an H100 if anyone asks."""
    noted = []

    def note(kernel, *args, grid, warmup, **how):
        noted.append((kernel, args, how))

    monkeypatch.setattr(JITFunction, "run", note)
    monkeypatch.setattr(kernels, "_processors", lambda device: 132)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return noted


def compiled(launch, capability):
    """Compile a launch's kernel as the launch itself would."""
    kernel, args, how = launch
    signature, constants, hints = {}, {}, {}
    for parameter, value in zip(kernel.params, args, strict=True):
        name = parameter.name
        if parameter.is_constexpr or value is None:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"
            if isinstance(value, torch.Tensor) or (not parameter.do_not_specialize and value % 16 == 0):
                hints[(parameter.num,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, hints)
    return compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=how)


def stack(made, folder) -> int:
    """Return how many bytes of its registers a compiled kernel keeps in memory."""
    path = folder / "kernel.cubin"
    path.write_bytes(made.asm["cubin"])
    program = [knobs.nvidia.cuobjdump.path, "-res-usage", path]
    usage = subprocess.run(program, check=True, capture_output=True, text=True)
    return int(re.search(r"STACK:(\d+)", usage.stdout)[1])


def step(batch, rows, dtype):
    """Call every function at the sizes of the 3B model."""
    cache = torch.empty(2, 3, batch, 2, 2060, 128, dtype=dtype)[:, 1]
    table, slots = torch.empty(batch, rows, 128, dtype=dtype), torch.empty(batch, rows, dtype=torch.int64)
    q = kernels.rotate_and_store(torch.empty(batch, rows, 20 * 128, dtype=dtype), table, table, slots, *cache)
    kernels.attend(q, *cache, slots[:, 0].contiguous(), slots[:, 0].contiguous(), 2048)
    x, weight = torch.empty(batch, rows, 2048, dtype=dtype), torch.empty(2048, dtype=dtype)
    kernels.add_rms_norm(x, x, weight, 1e-6)
    kernels.silu_mul(torch.empty(batch, rows, 2 * 11008, dtype=dtype))


@pytest.mark.parametrize(
    ("capability", "rows", "dtype", "only"),
    [
        (90, 12, torch.bfloat16, ""),
        (90, 1, torch.bfloat16, "attend"),
        (90, 12, torch.float32, "attend"),
        (87, 12, torch.float16, "attend"),
        (100, 12, torch.bfloat16, "attend"),
    ],
)
def test_the_kernels_compile_and_fit(capability, rows, dtype, only, launches, tmp_path):
    step(1, rows, dtype)
    chosen = [launch for launch in launches if only in launch[0].__name__]
    assert len(chosen) == (1 if only else 5)
    for launch in chosen:
        made = compiled(launch, capability)
        assert made.metadata.shared <= SHARED_MEMORY
        assert stack(made, tmp_path) == 0
