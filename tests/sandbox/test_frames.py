"""Values through a pipe: whole, or not at all."""

import io
import json
import struct

import pytest

from studio.sandbox import frames


@pytest.mark.parametrize("value", [{}, [1, 2.5, None], "\ud800 \x00 😀 \u2028", {"a": [{"b": "字" * 100_000}]}])
def test_a_value_comes_through(value):
    stream = io.BytesIO()
    frames.send(stream, value)
    frames.send(stream, "next")
    stream.seek(0)
    assert [frames.receive(stream) for _ in range(3)] == [value, "next", None]


def test_the_beginning_of_a_frame_is_no_value():
    stream = io.BytesIO()
    frames.send(stream, "whole")
    for length in range(len(stream.getvalue())):
        assert frames.receive(io.BytesIO(stream.getvalue()[:length])) is None


def test_a_frame_that_says_it_is_enormous_is_refused_before_it_is_read():
    with pytest.raises(ValueError, match="longer than"):
        frames.receive(io.BytesIO(struct.pack(">I", 2**32 - 1)))


def test_what_is_no_json_is_refused():
    with pytest.raises(json.JSONDecodeError):
        frames.receive(io.BytesIO(struct.pack(">I", 3) + b"abc"))
