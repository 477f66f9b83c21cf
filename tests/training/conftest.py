import signal

import pytest
import torch

torch.set_num_threads(1)  # the same bits whatever the machine


@pytest.fixture
def interruptible():
    """Ctrl-C works here, also where the tests were started by a shell that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
