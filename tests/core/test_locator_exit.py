"""A program that ends while a worker is busy: at once, and without a crash."""

import signal
import subprocess
import sys
import time

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, which programs inherit.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
from groundlink.backend import BackendInfo, Outcome
from groundlink.locator import Locator

class Busy:
    info = BackendInfo(name="busy", tasks=("ground",))

    def run(self, image, query, context):
        print("busy", flush=True)
        try:
            while {stubborn} or context.check() is None:
                time.sleep(30 if {stubborn} else 0.01)
        finally:
            print("stopped", flush=True)
        yield

    def close(self):
        print("closed", flush=True)

locator = Locator(Busy())
image = np.zeros((4, 4, 3), np.uint8)
{ending}
"""

ENDINGS = {
    "Ctrl-C": "locator.locate(image, 'a')",
    "Ctrl-C in a with": "with locator:\n    locator.locate(image, 'a')",
    "an error": "stream = locator.stream(image, 'a'); time.sleep(0.2); raise RuntimeError",
    "an error in a with": "with locator:\n    stream = locator.stream(image, 'a'); time.sleep(0.2); raise RuntimeError",
    "the end": "stream = locator.stream(image, 'a'); time.sleep(0.2)",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_program_ends_soon_whatever_its_workers_do(ending, stubborn):
    code = PROGRAM.format(stubborn=stubborn, ending=ENDINGS[ending])
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout.readline() == b"busy\n"
        if "Ctrl-C" in ending:
            program.send_signal(signal.SIGINT)
        else:
            time.sleep(0.2)
        started = time.perf_counter()
        try:
            out, err = program.communicate(timeout=30)
        finally:
            program.kill()
    assert time.perf_counter() - started < 2
    assert out.split() == ([] if stubborn else [b"stopped", b"closed"])
    assert program.returncode == {"Ctrl-C": -signal.SIGINT, "the end": 0}.get(ending.split(" in ")[0], 1), err
