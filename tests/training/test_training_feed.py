"""Samples on their way into passes: the same whatever the number of threads, and none lost where it is broken off."""

import threading
import time

import pytest

from groundlink.errors import BadData, BadImage
from groundlink.training.feed import Feed
from groundlink.training.sequences import SampleEncoder
from tests.locateanything import golden_data as golden
from tests.training.squares import Squares, stream

CHECKPOINT = golden.checkpoint("ckpt_r1")
ENCODER = SampleEncoder(CHECKPOINT.tokenizer, CHECKPOINT.config, max_tokens=320)


def sources(passes):
    return [[encoded.source for encoded in row] for rows in passes for row in rows]


def feed(workers=0, encode=ENCODER.encode, source=None, **options):
    return Feed(stream(source or Squares(8)), encode, 320, workers=workers, **options)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(workers):
    def slow_at_times(sample):
        time.sleep(0.005 * (hash(sample.source) % 3))
        return ENCODER.encode(sample)

    before = set(threading.enumerate())
    with feed() as alone, feed(workers, slow_at_times, rows=2) as many:
        expected = sources([alone.next() for _ in range(8)])
        assert sources([many.next() for _ in range(4)]) == expected
    assert set(threading.enumerate()) <= before


def test_it_goes_on_where_it_was():
    with feed(1) as first:
        for _ in range(3):
            first.next()
        state = first.state_dict()
        expected = sources([first.next() for _ in range(6)])
    with feed(3) as second:
        second.load_state_dict(state)
        assert sources([second.next() for _ in range(6)]) == expected


def test_processes_share_a_stream_without_overlap():
    with feed() as whole:
        keys = [whole._stream.next_key() for _ in range(20)]
    for rank in (0, 1):
        with feed(share=(rank, 2)) as part:
            part._packer.buffer = 10
            part.next()
            drawn = [(name, index) for name, index, _ in part.state_dict()["keys"]]
            assert set(drawn) <= set(keys[rank:20:2])


def test_an_error_comes_as_itself_when_its_turn_has_come():
    def encode(sample):
        if sample.source == "squares:5":
            raise BadImage("squares:5 is torn")
        return ENCODER.encode(sample)

    with feed(2, encode) as torn, pytest.raises(BadImage, match="squares:5 is torn"):
        for _ in range(50):
            torn.next()


def test_too_long_samples_are_counted_and_a_source_of_nothing_else_is_told(monkeypatch):
    monkeypatch.setattr("groundlink.training.feed.HOPELESS", 30)
    short = SampleEncoder(CHECKPOINT.tokenizer, CHECKPOINT.config, max_tokens=40)

    def encode(sample):
        return (short if sample.source == "squares:1" else ENCODER).encode(sample)

    with feed(2, encode) as some:
        row = [source for _ in range(20) for source in sources([some.next()])[0]]
        assert "squares:1" not in row
        assert some.skipped > 1
    with feed(2, short.encode) as none, pytest.raises(BadData, match=r"30 samples in a row are too long.*squares:"):
        none.next()
